/*
 * bench_wire.h — the connections of a load generator to one server.
 *
 * Non-blocking sockets and epoll: HTTP/1.1 carries one request at a time on a connection, gRPC
 * many.  Requests are prepared bytes, lent for the time of the call, and named by a tag that the
 * caller picks.  Every tag that wire_send() took ends once: in the `answered` callback, which comes
 * from within wire_turn() only, or by wire_cancel().  Connections that break are made again; what
 * was under way on them ends as failed.
 *
 * After wire_open() nothing is allocated but for connections.  One thread.
 */
#ifndef WEIR_CMD_BENCH_WIRE_H
#define WEIR_CMD_BENCH_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "net/http2_mux.h"
#include "util/bytes.h"
#include "util/err.h"

struct wire_request {
    struct bytes http;      /* All of an HTTP/1.1 request; or for gRPC: */
    struct http2_head head; /* its fields, numbered in the plan, */
    struct bytes body;      /* and its message behind its prefix. */
};

struct wire_answer {
    int http;          /* 0: there is none. */
    int grpc;          /* -1: there is none. */
    struct bytes text; /* What the server, or the system, says about a failure; as it came. */
    bool broken;       /* The connection or the stream broke: `text` says how. */
};

typedef void wire_answered_fn(void *user, uint32_t tag, const struct wire_answer *answer);

#define WIRE_CONNECTIONS_MAX 16384

struct wire_options {
    const char *url;          /* As client_init() takes it. */
    struct http2_plan *plan;  /* NULL: HTTP/1.1. */
    uint32_t connections;     /* To begin with; 1..connections_max. */
    uint32_t connections_max; /* HTTP/1.1 makes more when all are busy. */
    uint32_t streams_max;     /* gRPC: calls at once on a connection. */
    uint32_t tags;            /* Tags are below it. */
    uint64_t timeout_ns;      /* For wire_open(). */
    wire_answered_fn *answered;
    void *user;
};

struct wire;

/* Connects.  WEIR_EINVAL: the url; WEIR_EIO, WEIR_ETIMEOUT: the server; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status wire_open(const struct wire_options *options, struct wire **out,
                                         struct weir_err *err);
void wire_close(struct wire *wire); /* NULL is fine; what is under way is forgotten. */

/* Hands a request over.  False: every connection is busy, nothing has happened. */
bool wire_send(struct wire *wire, uint32_t tag, const struct wire_request *request);

/* Gives a request up. */
void wire_cancel(struct wire *wire, uint32_t tag);

/* Sends what is prepared, waits at most `wait_ns` for something to happen and takes note of it.
 * Returns how much happened. */
uint32_t wire_turn(struct wire *wire, uint64_t wait_ns);

/* Since wire_open(). */
uint64_t wire_bytes_sent(const struct wire *wire);
uint64_t wire_bytes_received(const struct wire *wire);

#endif
