/*
 * http2_guard.h — what a client may do on one HTTP/2 connection without asking for anything.
 *
 * Two buckets of tokens that fill with time.  Frames that carry no request and no data (PING, SETTINGS, PRIORITY,
 * WINDOW_UPDATE, empty DATA, CONTINUATION, unknown types) cost a token of the first.  A stream that its client
 * resets right after opening it costs one of the second: that is how a server is made to start work at no cost
 * ("rapid reset").  A stream that has lived is free to go, so a channel whose deadlines expire in masses is left
 * alone: at most streams_max of them can live at a time.
 * An empty bucket ends the connection with ENHANCE_YOUR_CALM.
 *
 * Pure functions; owned by the connection's loop.
 */
#ifndef WEIR_NET_HTTP2_GUARD_H
#define WEIR_NET_HTTP2_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#define HTTP2_CONTINUATIONS_MAX 16 /* Frames of one header block, beyond its first. */

struct http2_bucket {
    uint64_t tokens;
    uint64_t filled_ns; /* When it was last filled up. */
};

struct http2_guard {
    struct http2_bucket idle;
    struct http2_bucket resets;
    uint32_t continuations; /* Of the header block that is being read. */
};

void http2_guard_init(struct http2_guard *guard, uint64_t now_ns);

/* A frame begins; false when it is one too many. */
bool http2_guard_frame(struct http2_guard *guard, uint8_t type, uint8_t flags, uint64_t size,
                       uint64_t now_ns);

/* The client resets a stream that began at begun_ns. */
bool http2_guard_reset(struct http2_guard *guard, uint64_t begun_ns, uint64_t now_ns);

#endif
