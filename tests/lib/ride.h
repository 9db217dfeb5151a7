/*
 * ride.h — a simulated model without an engine, and runs of it, for tests of the backend alone.
 */
#ifndef WEIR_TESTS_RIDE_H
#define WEIR_TESTS_RIDE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"

#define RIDE_WIDTH 16
#define RIDE_ROWS_MAX 4096

/* For the whole of a test program whose models have processes of their own; ride_stop() asserts
 * that every block is back. */
struct block_pool *ride_start(struct clock *clock);
void ride_stop(struct block_pool *blocks);

/* Loads version 3 of the simulated model "s" on the device "npu0" with `settings`, which end with
 * an empty one; `isolation` may be NULL. */
WEIR_MUST_USE enum weir_status ride_try_load(const struct setting *settings,
                                             const struct clock *clock, struct block_pool *blocks,
                                             const struct backend_isolation *isolation,
                                             struct backend_model **out, struct weir_err *err);

/* The same; the test fails where it cannot be loaded. */
struct backend_model *ride_load(const struct setting *settings, const struct clock *clock,
                                struct block_pool *blocks,
                                const struct backend_isolation *isolation);

struct backend_context *ride_context(struct backend_model *model); /* Or the test fails. */

/* A run of the default signature: `rows` rows of numbers from 0 on.  Zeroed at first; the output is
 * the test's to release, or the next run's. */
struct ride {
    struct backend_context *context;
    uint64_t rows;
    bool probation;
    float data[RIDE_ROWS_MAX * RIDE_WIDTH];
    struct tensor input;
    struct tensor lent; /* Present: what to run instead of `data`, which becomes the same. */
    struct tensor output;
    struct backend_run run;
    struct weir_err err;
    enum weir_status status;
    _Atomic bool prepared; /* From then on a run with a stage before it knows its process. */
};

extern const bool ride_wanted[3]; /* All outputs that there are. */

void *ride_main(void *ride); /* Makes the run, and returns it; a thread's. */

enum weir_status ride_rows(struct ride *ride, struct backend_context *context, uint64_t rows);

#endif
