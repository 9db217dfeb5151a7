/*
 * rate.h — runs that hold named resources while they last: Triton's rate limiter.
 *
 * A model may say that each of its runs holds so many of some resources.  A resource belongs to the
 * model's device, or to all devices together (`global`).  There are as many of it as the
 * server's options say, else as many as the neediest loaded model holds.  A run takes all that
 * it needs at once or nothing, before it starts, and gives it back at its end: nobody waits holding
 * something, so there is no deadlock.
 *
 * Models that want to run compete by share: each run of priority p adds p, the smallest sum goes
 * next, and nobody else while it cannot: so the needy are not passed over for ever.  That choice
 * is the pool's (pool.c); here is only what is counted, under one small lock that may be taken
 * with a pool's.
 */
#ifndef WEIR_ENGINE_RATE_H
#define WEIR_ENGINE_RATE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"
#include "util/list.h"

struct model;
struct rate_limiter;

#define RATE_RESOURCES_MAX 256

/* What a model's runs hold. */
struct rate_claim {
    struct model *model;
    /* In pool.limited while the model could run; guarded by the pool's lock. */
    struct list_node node;
    uint64_t share;    /* Runs so far by priority; the same lock. */
    uint32_t priority; /* At least 1. */
    bool global;       /* Some resource is all devices'. */
    uint32_t count;
    struct {
        uint32_t resource;
        uint32_t amount;
    } needs[];
};

/* `limits`: "NAME:COUNT" for every device and for global resources, "NAME:COUNT:DEVICE" for one
 * device.  WEIR_EINVAL. */
WEIR_MUST_USE enum weir_status rate_limiter_create(const char *const *limits, uint64_t count,
                                                   struct rate_limiter **out, struct weir_err *err);
void rate_limiter_destroy(struct rate_limiter *limiter); /* NULL is fine. */

/* Before the model's first run; *out is NULL for a model that holds nothing.  Loader thread.
 * WEIR_EINVAL: there is less of a resource than one run needs; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status rate_join(struct rate_limiter *limiter, struct model *model,
                                         struct rate_claim **out, struct weir_err *err);
void rate_leave(struct rate_claim *claim); /* Nothing of it may be taken.  NULL is fine. */

/* Any thread. */
bool rate_free(struct rate_limiter *limiter, const struct rate_claim *claim);
WEIR_MUST_USE bool rate_take(struct rate_limiter *limiter, const struct rate_claim *claim);
void rate_give(struct rate_limiter *limiter, const struct rate_claim *claim);

#endif
