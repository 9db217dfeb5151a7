/*
 * batcher.h — which of the waiting requests share the next run, and when it may leave.
 *
 * Pure: reads a model's line of requests, changes nothing, knows no clock.  The caller holds the
 * pool's lock.
 */
#ifndef WEIR_ENGINE_BATCHER_H
#define WEIR_ENGINE_BATCHER_H

#include <stdint.h>

#include "util/list.h"

struct batch_rules {
    uint64_t rows_max;         /* At least 1; a request with more runs alone. */
    const uint32_t *preferred; /* Ascending sizes; a batch stops at the largest it can fill. */
    uint32_t preferred_count;
    uint64_t delay_ns; /* Longest wait of the oldest rider for company. */
};

struct batch_plan {
    uint32_t count; /* Riders, the leader included; at least 1. */
    uint64_t rows;
    uint64_t shape_key;
    uint64_t leave_ns; /* Leaves at this time at the latest; at or before `now`: now. */
};

/* Plans the next batch of the requests in `waiting` (request.line, in order of arrival, not empty).  The
 * riders are the leader and the first count - 1 behind it that are batchable and of its shape. */
struct batch_plan batcher_plan(const struct list *waiting, const struct batch_rules *rules,
                               uint64_t now_ns);

#endif
