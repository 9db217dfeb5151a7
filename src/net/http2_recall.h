/*
 * http2_recall.h — a header block that comes again, read once.
 *
 * A client that makes the same call again and again sends the same block of compressed fields.  One
 * that only refers to the connection's table, and adds nothing to it, means the same as long as the
 * table does: then the session is given a stand-in of four short fields in its place, and the
 * exchange takes what the block meant the last time.
 *
 * The frames that come in are looked at in their order (http2_recall_take() for those that can be
 * judged as a whole, http2_recall_forget() for all others with fields), ahead of the session.
 * Pure; for the connection's loop.
 */
#ifndef WEIR_NET_HTTP2_RECALL_H
#define WEIR_NET_HTTP2_RECALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP2_RECALL_BYTES_MIN 7   /* What the stand-in takes; */
#define HTTP2_RECALL_BYTES_MAX 262 /* padding covers the rest. */

struct http2_recall {
    bool known;          /* A request with this block has been read, and was good. */
    int32_t id;          /* Of the stream whose block it is; 0: it is none. */
    bool announces;      /* It says how long the body is. */
    uint64_t head_bytes; /* Of its fields. */
    int32_t first_id;    /* Streams between these begin with a stand-in. */
    int32_t last_id;
    uint16_t size;
    uint8_t bytes[HTTP2_RECALL_BYTES_MAX];
};

/* A request of stream `id` begins with `block`, the whole payload of a frame without padding or
 * priority.  When it is the one that is known, a stand-in is written over it, which is padded: then
 * true. */
bool http2_recall_take(struct http2_recall *recall, uint8_t *block, size_t size, int32_t id);

/* Any other frame with fields: they may change the table. */
void http2_recall_forget(struct http2_recall *recall);

/* The request of that stream was good: its block is known from now on, if no other came since. */
void http2_recall_learn(struct http2_recall *recall, int32_t id, uint64_t head_bytes,
                        bool announces);

/* True where the session was given a stand-in. */
static inline bool http2_recall_has(const struct http2_recall *recall, int32_t id)
{
    return recall->first_id != 0 && id >= recall->first_id && id <= recall->last_id;
}

#endif
