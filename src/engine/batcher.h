/*
 * batcher.h — which requests share the next run, and when it may leave.
 *
 * A batch begins with its leader; others are offered to it in the order in which they may ride.
 * Those that do are linked through request.rides.  Pure but for that: knows no clock, moves
 * nothing.  The caller holds the pool's lock.
 */
#ifndef WEIR_ENGINE_BATCHER_H
#define WEIR_ENGINE_BATCHER_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/request.h"
#include "util/clock.h"
#include "util/list.h"

struct pace_cost;

struct batch_rules {
    uint64_t rows_max;         /* At least 1; a request with more runs alone. */
    const uint32_t *preferred; /* Ascending sizes; a batch stops at the largest it can fill. */
    uint32_t preferred_count;
    uint64_t delay_ns; /* Longest wait of the oldest rider for company. */
    /* Of a run; NULL: not known, or riders' deadlines do not count. */
    const struct pace_cost *cost;
    /* The most rows of a run of more than one request, for its time; 0: any. */
    uint64_t rows_short;
};

struct batch_plan {
    struct request *leader; /* The first of a chain of `count` through request.rides. */
    uint32_t count;         /* Riders, the leader included; at least 1. */
    uint64_t rows;
    uint64_t shape_key;
    uint64_t leave_ns; /* Leaves at this time at the latest; at or before `now`: now. */
    bool held;         /* By rows_short alone; for the caller of batcher_end() to say. */
};

/* Riders and rows counted so far. */
struct batch_load {
    uint32_t count;
    uint64_t rows;
};

struct batcher {
    const struct batch_rules *rules;
    uint64_t now_ns;
    struct request *leader;
    struct request *last; /* Rider so far. */
    struct batch_load load;
    struct batch_load exact; /* The load when it last was of a preferred size. */
    uint64_t shape_key;
    uint64_t rows_fit;  /* No more than so many rows. */
    uint64_t oldest_ns; /* Arrival of the longest waiting rider. */
    bool patient;       /* A delay or preferred sizes are configured. */
    bool full;          /* Nobody need be offered any more. */
};

void batcher_begin(struct batcher *batcher, const struct batch_rules *rules, struct request *leader,
                   uint64_t now_ns);

/* Parts of batcher_offer(). */
bool batcher_in_time(struct batcher *batcher, const struct request *request, uint64_t rows);
void batcher_note(struct batcher *batcher, const struct request *rider);

/* True: the request rides.  Not once the batch is full. */
static inline bool batcher_offer(struct batcher *b, struct request *request)
{
    if (!request->batchable || request->shape_key != b->shape_key) {
        return false;
    }
    const uint64_t rows = b->load.rows + request->rows;
    if (rows > b->rows_fit) {
        b->full = true;
        return false;
    }
    if (request->deadline_ns != CLOCK_NEVER && !batcher_in_time(b, request, rows)) {
        return false; /* In this company it would be late. */
    }
    b->last->rides = request;
    b->last = request;
    b->load.count++;
    b->load.rows = rows;
    b->full = rows == b->rows_fit;
    if (b->patient) {
        batcher_note(b, request);
    }
    return true;
}

/* From now on at most so many more rows. */
void batcher_narrow(struct batcher *batcher, uint64_t rows);

struct batch_plan batcher_end(const struct batcher *batcher);

/* All of the above: the first of `waiting` (request.line, in the order in which they may ride, not
 * empty) leads. */
struct batch_plan batcher_plan(const struct list *waiting, const struct batch_rules *rules,
                               uint64_t now_ns);

#endif
