/*
 * protocol.h — what a version of HTTP does on a connection, and for its exchanges.
 *
 * The socket (conn.c) moves bytes; a protocol gives them their meaning.  It is chosen by a
 * connection's first bytes, or by what TLS agreed on, and stays.  All calls are for the loop's
 * thread.
 */
#ifndef WEIR_NET_PROTOCOL_H
#define WEIR_NET_PROTOCOL_H

#include <uv.h>

#include "net/conn.h"
#include "net/stream.h"

struct protocol {
    /* --- For conn.c --- */

    /* Where the next bytes of a large body can be read to; NULL where there never is such a
     * place. */
    bool (*place)(const struct http_conn *c, char **at, size_t *room);
    /* Bytes of the client, while the connection is OPEN.  Valid during the call. */
    void (*feed)(struct http_conn *c, struct bytes in);
    /* The client has ended its side. */
    void (*ended)(struct http_conn *c);
    /* Before and after writes: ends what has said everything.  False when the connection is
     * over. */
    bool (*settle)(struct http_conn *c);
    /* What may leave now, in order; the same bytes until advance(). */
    unsigned (*gather)(struct http_conn *c, uv_buf_t *bufs, unsigned bufs_max, size_t bytes_max,
                       size_t *bytes);
    /* The socket took `size` of them.  False when the connection is over. */
    bool (*advance)(struct http_conn *c, size_t size);
    /* Everything that gather() had was taken. */
    void (*flushed)(struct http_conn *c);
    /* When something must have been read, or CLOCK_NEVER; and what happens if it was not. */
    uint64_t (*deadline_ns)(const struct http_conn *c);
    void (*overdue)(struct http_conn *c);
    /* No further requests. */
    void (*drain)(struct http_conn *c);
    /* The socket is gone: cancels what is unfinished. */
    void (*cancel)(struct http_conn *c);
    /* The memory of the connection is about to be freed. */
    void (*release)(struct http_conn *c);

    /* --- For http.c: what an answer's parts become --- */

    /* Status, type and size are known. */
    void (*begin)(struct stream *s, const char *content_type, uint64_t body_size);
    /* Pieces were added. */
    void (*changed)(struct stream *s);
    /* The handler is done. */
    void (*finish)(struct stream *s);
    /* Bytes of an incremental body are used up. */
    void (*consume)(struct stream *s, size_t size);
};

extern const struct protocol line_protocol;  /* HTTP/1, in line.c */
extern const struct protocol http2_protocol; /* In http2.c */

/* Answers a connection that has said nothing yet, and ends it. */
void line_refuse(struct http_conn *c, enum weir_status status, const char *text);

/* Makes `c` speak HTTP/2.  False when memory is out. */
WEIR_MUST_USE bool http2_open(struct http_conn *c);

#endif
