/*
 * Compressed bodies.
 *
 * A little text can become much, so a worker inflates it, into memory that was booked before.
 */
#include "api/inflate.h"

#include <inttypes.h>

#include "api/demand.h"

struct inflation {
    struct arena_disposable release;
    struct api *api;
    enum encoding encoding;
    struct buffer out;
    uint64_t bytes; /* Counted in api.inflated_bytes. */
    struct weir_err err;
};

static void release_inflation(struct arena_disposable *disposable)
{
    struct inflation *self = (struct inflation *)(void *)disposable;
    atomic_fetch_sub_explicit(&self->api->inflated_bytes, self->bytes, memory_order_relaxed);
    buffer_finish(&self->out);
}

/* Books `wanted` bytes, or as many as are left.  What bodies become counts towards the same limit
 * as what they were, and before it is there: several may be growing at a time. */
static uint64_t book(struct api *api, uint64_t wanted)
{
    const uint64_t bytes_max = api->options.limits->bodies_bytes_max;
    uint64_t before = atomic_load_explicit(&api->inflated_bytes, memory_order_relaxed);
    uint64_t got;
    do {
        const uint64_t used = before + http_bodies_bytes();
        const uint64_t left = used < bytes_max ? bytes_max - used : 0;
        got = wanted < left ? wanted : left;
    } while (!atomic_compare_exchange_weak_explicit(&api->inflated_bytes, &before, before + got,
                                                    memory_order_relaxed, memory_order_relaxed));
    return got;
}

static void inflate_body(struct call *call)
{
    struct inflation *self = call->state;
    const struct limits *limits = call->api->options.limits;
    const struct bytes in = call->x->body;
    const size_t size_max =
        encoding_inflated_max(in.size, limits->inflate_ratio_max, (size_t)call->x->body_bytes_max);
    self->bytes = book(self->api, size_max);
    buffer_init(&self->out, (size_t)self->bytes);
    self->err.status =
        encoding_inflate(self->encoding, in, limits->inflate_ratio_max, &self->out, &self->err);
    if (self->err.status == WEIR_ETOOBIG && self->bytes < size_max) {
        (void)err_set(&self->err, WEIR_EFULL,
                      "too many bytes of bodies in flight: expected at most %" PRIu64
                      " (bodies_bytes_max)",
                      limits->bodies_bytes_max);
    }
    const uint64_t unused = self->bytes - self->out.size;
    self->bytes -= unused;
    atomic_fetch_sub_explicit(&self->api->inflated_bytes, unused, memory_order_relaxed);
}

static void handle_inflated(struct call *call)
{
    struct inflation *self = call->state;
    call->state = NULL;
    if (self->err.status != WEIR_OK) {
        call_fail_err(call, &self->err);
        return;
    }
    call->body = (struct bytes){ self->out.data, self->out.size };
    demand_handle(call);
}

void inflate_begin(struct call *call, enum encoding encoding)
{
    struct inflation *self = call_alloc(call, sizeof *self);
    if (self == NULL) {
        return;
    }
    self->api = call->api;
    self->encoding = encoding;
    self->release.dispose = release_inflation;
    call->state = self;
    arena_dispose(&call->x->arena, &self->release);
    (void)call_run(call, inflate_body, handle_inflated);
}
