/*
 * http2_guard.h — what a client may do on one HTTP/2 connection without asking for anything.
 *
 * Two buckets of tokens that fill with time; an empty one ends the connection with
 * ENHANCE_YOUR_CALM.
 *
 * The first pays for frames that carry no request and no data: PING, SETTINGS, PRIORITY,
 * WINDOW_UPDATE, empty DATA, CONTINUATION, unknown types, and whatever is wrong.  Each frame of
 * data that is sent pays some in, for clients answer it with windows and probes.
 *
 * The second pays for streams that the client resets before they are answered: that is how a server
 * is made to start work at no cost ("rapid reset").  What a reset costs falls with the age of the
 * stream, because of those that live for long only streams_max can live at a time.  So a channel
 * whose deadlines expire in masses is left alone, and one that opens and resets is closed after
 * HTTP2_RESETS_FREE of them.  How much work goes on behind reset streams is bounded apart from
 * that: they count as streams until their handlers have let go.
 *
 * Pure functions; owned by the connection's loop.
 */
#ifndef WEIR_NET_HTTP2_GUARD_H
#define WEIR_NET_HTTP2_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#define HTTP2_CONTINUATIONS_MAX 16 /* Frames of one header block, beyond its first. */
#define HTTP2_RESETS_FREE 10000    /* Young streams that may be reset at once. */
#define HTTP2_IDLE_FREE 20000      /* Frames without request and data that may come at once. */

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

/* A frame was wrong, or about nothing. */
bool http2_guard_fault(struct http2_guard *guard, uint64_t now_ns);

/* A frame with `size` bytes of data was sent. */
void http2_guard_sent(struct http2_guard *guard, uint64_t size);

/* A stream that began at begun_ns ends unanswered, and not by us. */
bool http2_guard_reset(struct http2_guard *guard, uint64_t begun_ns, uint64_t now_ns);

#endif
