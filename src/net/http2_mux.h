/*
 * http2_mux.h — many gRPC calls at once on one HTTP/2 connection, as cheap as a client can have
 * them, without a socket.
 *
 *     http2_plan_create(&plan), http2_plan_head(plan, fields, count, &head)     once
 *     http2_mux_create(plan, &options)                                          per connection
 *     while http2_mux_room(mux) > 0:  http2_mux_begin(mux, head, body, tag)
 *     send what http2_mux_output() gives, tell http2_mux_sent(); receive, http2_mux_input()
 *
 * For a load generator: header fields are sent as numbers of the connection's table after their
 * first time; of answers only the status is read, and their bodies are counted.  The server is
 * told to compress without a table, so that its headers mean the same whenever they are the same,
 * and those seen before are recognised by their bytes.
 *
 * Facts: RFC 9113, RFC 7541.  One thread at a time.
 */
#ifndef WEIR_NET_HTTP2_MUX_H
#define WEIR_NET_HTTP2_MUX_H

#include <stdbool.h>
#include <stdint.h>

#include "net/http2_client.h"
#include "net/http2_out.h"
#include "util/bytes.h"
#include "util/err.h"

#define HTTP2_HEAD_FIELDS_MAX 16
#define HTTP2_MUX_TEXT_MAX 240

/* The fields of all requests, and what is known of answers' headers; shared by connections. */
struct http2_plan;

/* The fields of one sort of request, by their numbers in the plan. */
struct http2_head {
    uint8_t count;
    uint8_t fields[HTTP2_HEAD_FIELDS_MAX];
};

/* NULL: memory is out. */
WEIR_MUST_USE struct http2_plan *http2_plan_create(void);
void http2_plan_destroy(struct http2_plan *plan); /* NULL is fine; no connection may be left. */

/* Pseudo-fields first; the texts are borrowed for the plan's life.  WEIR_EINVAL: too many. */
WEIR_MUST_USE enum weir_status http2_plan_head(struct http2_plan *plan,
                                               const struct http2_client_field *fields,
                                               size_t count, struct http2_head *out,
                                               struct weir_err *err);

struct http2_mux_answer {
    int http;   /* :status; 0: none came. */
    int grpc;   /* grpc-status; -1: none came. */
    bool reset; /* The stream was broken off, with this code. */
    uint32_t code;
    struct bytes text; /* grpc-message as it came, percent-encoded. */
};

/* Called from within http2_mux_input() once for each call that was begun and not canceled. */
typedef void http2_mux_answered_fn(void *user, uint32_t tag, const struct http2_mux_answer *answer);

struct http2_mux_options {
    uint32_t streams_max; /* Calls at once, 1..HTTP2_MUX_STREAMS_MAX. */
    http2_mux_answered_fn *answered;
    void *user;
};

#define HTTP2_MUX_STREAMS_MAX 65536

struct http2_mux;

/* NULL: memory is out. */
WEIR_MUST_USE struct http2_mux *http2_mux_create(struct http2_plan *plan,
                                                 const struct http2_mux_options *options);
void http2_mux_destroy(struct http2_mux *mux); /* NULL is fine; calls under way are forgotten. */

/* Calls that may begin now; 0 before the server's settings have come. */
uint32_t http2_mux_room(const struct http2_mux *mux);
uint32_t http2_mux_active(const struct http2_mux *mux); /* Calls under way. */
bool http2_mux_is_ready(const struct http2_mux *mux);   /* The server's settings have come. */

/* The server begins no more calls here: once none is under way, another connection is due. */
bool http2_mux_is_closing(const struct http2_mux *mux);

/* There is room.  `body` stays until the connection is destroyed.  Returns the stream. */
uint32_t http2_mux_begin(struct http2_mux *mux, const struct http2_head *head, struct bytes body,
                         uint32_t tag);

/* Breaks a call off: answered() does not come. */
void http2_mux_cancel(struct http2_mux *mux, uint32_t stream);

/* What is to be sent now, in this order; returns how many pieces: 0, nothing before more begins or
 * comes in.  Valid until the next call.  http2_mux_sent() says how much of it is gone. */
uint32_t http2_mux_output(struct http2_mux *mux, struct bytes pieces[HTTP2_OUT_PIECES_MAX]);
void http2_mux_sent(struct http2_mux *mux, size_t size);

/* What has come.  WEIR_EIO: it is no HTTP/2, or the server breaks the connection off. */
WEIR_MUST_USE enum weir_status http2_mux_input(struct http2_mux *mux, struct bytes in,
                                               struct weir_err *err);

/* The tags of calls under way, for a connection that broke: start with *at = 0; false at the
 * end. */
bool http2_mux_next(const struct http2_mux *mux, uint32_t *at, uint32_t *tag);

#endif
