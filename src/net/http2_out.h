/*
 * http2_out.h — what a connection is to send: own bytes, and between them bytes that are lent.
 *
 * Frame heads and small bodies are copied in; large bodies are only pointed to, and leave with one
 * system call together with the heads between them.  Of fixed size.  One thread.
 */
#ifndef WEIR_NET_HTTP2_OUT_H
#define WEIR_NET_HTTP2_OUT_H

#include <assert.h>
#include <stdbool.h>

#include "util/bytes.h"
#include "util/err.h"

#define HTTP2_OUT_LENT_MAX 64
#define HTTP2_OUT_PIECES_MAX (2 * HTTP2_OUT_LENT_MAX + 1)

struct http2_out_lent {
    size_t at; /* Stands before own[at]. */
    struct bytes bytes;
};

struct http2_out {
    char *own;
    size_t capacity;
    size_t from; /* Own bytes from here on are not sent yet. */
    size_t size;
    struct http2_out_lent lent[HTTP2_OUT_LENT_MAX]; /* A ring. */
    uint32_t lent_first;
    uint32_t lent_count;
};

/* WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status http2_out_init(struct http2_out *out, size_t capacity);
void http2_out_finish(struct http2_out *out); /* Zeroed is fine. */

static inline size_t http2_out_room(const struct http2_out *out)
{
    return out->capacity - out->size;
}

static inline bool http2_out_can_lend(const struct http2_out *out)
{
    return out->lent_count < HTTP2_OUT_LENT_MAX;
}

/* There is room. */
static inline void http2_out_put(struct http2_out *out, const void *bytes, size_t size)
{
    assert(size <= http2_out_room(out));
    memcpy(out->own + out->size, bytes, size);
    out->size += size;
}

/* There is room.  The bytes, at least one, stay until they are sent or `out` is finished. */
void http2_out_lend(struct http2_out *out, struct bytes bytes);

/* All that is to be sent, in order; returns how many pieces: 0 when there is nothing. */
uint32_t http2_out_pieces(const struct http2_out *out, struct bytes pieces[HTTP2_OUT_PIECES_MAX]);

/* So much of it is gone. */
void http2_out_sent(struct http2_out *out, size_t size);

#endif
