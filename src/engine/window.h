/*
 * window.h — the early-drop window: who of a line that cannot be served whole is let go.
 *
 * First come, first served collapses above capacity: everybody is served, late.  Serving the oldest
 * who is not yet late collapses too, because its last moments allow only tiny batches.  So the
 * oldest are skipped until the next one's deadline allows a batch of useful size, and end at once.
 *
 * Pure: reads a model's line, changes nothing, knows no clock.  The caller holds the pool's lock.
 */
#ifndef WEIR_ENGINE_WINDOW_H
#define WEIR_ENGINE_WINDOW_H

#include <stdint.h>

#include "engine/pace.h"
#include "util/list.h"

struct request;

/* What a run may be: its cost, and the most rows that it can carry (at least 1). */
struct window_rules {
    struct pace_cost cost;
    uint64_t rows_max;
};

/* How many requests to let go for a run that `leader` leads: the first of `waiting` (request.due,
 * in order of deadlines) that could ride with it and are no more urgent.  `waiting_rows`: of the
 * whole line. */
uint32_t window_skip(const struct list *waiting, const struct request *leader,
                     uint64_t waiting_rows, const struct window_rules *rules, uint64_t now_ns);

/* The most rows of a run that starts now and that this request leads; at least its own. */
uint64_t window_rows(const struct request *leader, const struct window_rules *rules,
                     uint64_t now_ns);

/* Even a run of its own that started at `at_ns` would be too late. */
bool window_hopeless(const struct request *request, const struct pace_cost *cost, uint64_t at_ns);

#endif
