/*
 * net.h — what the connections and listeners of one loop share.  For its thread.
 */
#ifndef WEIR_NET_NET_H
#define WEIR_NET_NET_H

#include "net/http2_memory.h"
#include "net/loop.h"
#include "net/socket.h"
#include "net/tls.h"

#define NET_READ_BYTES 65536

/* What connections of one loop share. */
struct http_net {
    struct loop *loop;
    struct list listeners;
    uint32_t listener_count; /* Their handles, until closed. */
    struct list spare;       /* Streams for reuse, by x.node. */
    uint32_t spare_count;
    struct list resume; /* Connections that stopped reading and may go on. */
    char date[64];      /* As in a Date field. */
    uint64_t date_until_ns;
    bool draining;
    uint64_t drained_ns; /* Draining: since when. */
    struct http2_memory http2_memory;
    char *spare_text;      /* Of an HTTP/2 session that has nothing to send. */
    uint64_t handshake_ns; /* The turn in which `handshakes` steps of handshakes were taken. */
    uint32_t handshakes;
    char joined[SOCKET_JOIN_BYTES]; /* Small pieces of what is written at once. */
    char read_buffer[NET_READ_BYTES];
    char plain[NET_READ_BYTES]; /* What TLS makes of it, and where small pieces are put together. */
};

/* The loop's, made when first asked for. */
struct http_net *net_of(struct loop *loop);

/* The value of a Date field, right to the second. */
const char *net_date(struct http_net *net);

/* Closes the listeners and connections that are left. */
void net_close_all(struct loop *loop);

/* In listener.c, for net_close_all(). */
void listener_close_all(struct http_net *net);

/* Frees loop->net; false while something still uses it. */
bool net_finish(struct loop *loop);

#endif
