/*
 * Token buckets against HTTP/2's floods.
 */
#include "net/http2_guard.h"

#include <nghttp2/nghttp2.h>

#include "util/clock.h"

#define IDLE_PER_S 10000
#define SETTINGS_TOKENS 20    /* Each may change the window of every stream. */
#define SENT_TOKENS 2         /* Per frame of data, */
#define SENT_TOKEN_BYTES 8192 /* and per so many bytes of it. */
#define PADDING_BYTES_MAX 256 /* What may be padding only. */
#define RESET_TOKENS 10       /* Of a young stream. */
#define RESET_OLDER_TOKENS 1  /* 20,000 a second. */
#define RESET_YOUNG_NS NS_PER_MS
#define RESET_OLD_NS (100 * NS_PER_MS) /* Free from this age on. */
#define RESETS_MAX (HTTP2_RESETS_FREE * (uint64_t)RESET_TOKENS)
#define RESETS_PER_S 20000

static bool take(struct http2_bucket *bucket, uint64_t cost, uint64_t most, uint64_t per_s,
                 uint64_t now_ns)
{
    if (bucket->tokens < cost) {
        const uint64_t ms = (now_ns - bucket->filled_ns) / NS_PER_MS;
        const uint64_t earned = ms < UINT32_MAX ? ms * per_s / 1000 : most;
        bucket->tokens = earned < most - bucket->tokens ? bucket->tokens + earned : most;
        bucket->filled_ns = now_ns;
    }
    if (bucket->tokens < cost) {
        return false;
    }
    bucket->tokens -= cost;
    return true;
}

void http2_guard_init(struct http2_guard *guard, uint64_t now_ns)
{
    *guard = (struct http2_guard){ .idle = { HTTP2_IDLE_FREE, now_ns },
                                   .resets = { RESETS_MAX, now_ns } };
}

/* What a frame of that kind costs. */
static uint64_t cost_of(uint8_t type, uint8_t flags, uint64_t size)
{
    switch (type) {
    case NGHTTP2_DATA: {
        const bool empty =
            size == 0 || ((flags & NGHTTP2_FLAG_PADDED) != 0 && size <= PADDING_BYTES_MAX);
        return empty && (flags & NGHTTP2_FLAG_END_STREAM) == 0;
    }
    case NGHTTP2_HEADERS:
    case NGHTTP2_RST_STREAM:
    case NGHTTP2_GOAWAY:
        return 0;
    case NGHTTP2_SETTINGS:
        return (flags & NGHTTP2_FLAG_ACK) != 0 ? 1 : SETTINGS_TOKENS;
    default:
        return 1;
    }
}

bool http2_guard_frame(struct http2_guard *guard, uint8_t type, uint8_t flags, uint64_t size,
                       uint64_t now_ns)
{
    guard->continuations = type == NGHTTP2_CONTINUATION ? guard->continuations + 1 : 0;
    if (guard->continuations > HTTP2_CONTINUATIONS_MAX) {
        return false;
    }
    const uint64_t cost = cost_of(type, flags, size);
    return cost == 0 || take(&guard->idle, cost, HTTP2_IDLE_FREE, IDLE_PER_S, now_ns);
}

bool http2_guard_fault(struct http2_guard *guard, uint64_t now_ns)
{
    return take(&guard->idle, 1, HTTP2_IDLE_FREE, IDLE_PER_S, now_ns);
}

void http2_guard_sent(struct http2_guard *guard, uint64_t size)
{
    const uint64_t tokens = guard->idle.tokens + SENT_TOKENS + size / SENT_TOKEN_BYTES;
    guard->idle.tokens = tokens < HTTP2_IDLE_FREE ? tokens : HTTP2_IDLE_FREE;
}

bool http2_guard_reset(struct http2_guard *guard, uint64_t begun_ns, uint64_t now_ns)
{
    const uint64_t age_ns = now_ns - begun_ns;
    if (age_ns >= RESET_OLD_NS) {
        return true;
    }
    const uint64_t cost = age_ns < RESET_YOUNG_NS ? RESET_TOKENS : RESET_OLDER_TOKENS;
    return take(&guard->resets, cost, RESETS_MAX, RESETS_PER_S, now_ns);
}
