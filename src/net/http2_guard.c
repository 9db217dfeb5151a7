/*
 * Token buckets against HTTP/2's floods.
 */
#include "net/http2_guard.h"

#include <nghttp2/nghttp2.h>

#include "util/clock.h"

#define IDLE_TOKENS_MAX 20000
#define IDLE_TOKENS_PER_S 10000
#define RESET_TOKENS_MAX 10000
#define RESET_TOKENS_PER_S 1000
#define RESET_FREE_NS (10 * NS_PER_MS) /* A stream that lived so long may be reset for nothing. */

static bool take(struct http2_bucket *bucket, uint64_t most, uint64_t per_s, uint64_t now_ns)
{
    if (bucket->tokens == 0) {
        const uint64_t earned = (now_ns - bucket->filled_ns) / NS_PER_MS * per_s / 1000;
        bucket->tokens = earned < most ? earned : most;
        bucket->filled_ns = now_ns;
        if (bucket->tokens == 0) {
            return false;
        }
    }
    bucket->tokens--;
    return true;
}

void http2_guard_init(struct http2_guard *guard, uint64_t now_ns)
{
    *guard = (struct http2_guard){ .idle = { IDLE_TOKENS_MAX, now_ns },
                                   .resets = { RESET_TOKENS_MAX, now_ns } };
}

static bool is_idle(uint8_t type, uint8_t flags, uint64_t size)
{
    switch (type) {
    case NGHTTP2_DATA:
        return size == 0 && (flags & NGHTTP2_FLAG_END_STREAM) == 0;
    case NGHTTP2_HEADERS:
    case NGHTTP2_RST_STREAM:
    case NGHTTP2_GOAWAY:
        return false;
    default:
        return true;
    }
}

bool http2_guard_frame(struct http2_guard *guard, uint8_t type, uint8_t flags, uint64_t size,
                       uint64_t now_ns)
{
    guard->continuations = type == NGHTTP2_CONTINUATION ? guard->continuations + 1 : 0;
    if (guard->continuations > HTTP2_CONTINUATIONS_MAX) {
        return false;
    }
    return !is_idle(type, flags, size) ||
           take(&guard->idle, IDLE_TOKENS_MAX, IDLE_TOKENS_PER_S, now_ns);
}

bool http2_guard_reset(struct http2_guard *guard, uint64_t begun_ns, uint64_t now_ns)
{
    return now_ns - begun_ns >= RESET_FREE_NS ||
           take(&guard->resets, RESET_TOKENS_MAX, RESET_TOKENS_PER_S, now_ns);
}
