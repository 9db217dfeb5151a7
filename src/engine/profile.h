/*
 * profile.h — what a run of b rows takes, learned: tau0 + alpha * b.
 *
 * Per shape (a few, least recently used one replaced) exponentially weighted
 * least squares over (rows, run time).  Pure: no clock, no allocation; guarded
 * by the pool's lock.  Formula: weighted linear regression; weights decay by
 * PROFILE_DECAY per observation.
 */
#ifndef WEIR_ENGINE_PROFILE_H
#define WEIR_ENGINE_PROFILE_H

#include <stdbool.h>
#include <stdint.h>

#define PROFILE_SHAPES 8
#define PROFILE_OBSERVED_MIN 4 /* Runs before predictions are given. */
#define PROFILE_SIZES 8        /* Batch sizes told apart, by powers of two; the last one is open. */

struct profile_shape {
    uint64_t key;
    uint64_t used; /* For replacement: the profile's tick. */
    uint64_t runs;
    double weight, rows, rows2, time, rows_time; /* Decayed sums. */
    uint32_t rows_cap;                           /* Safe cap after an out-of-memory run; 0: none. */
    uint64_t rows_seen;                          /* Largest batch observed. */
    double row_ns[PROFILE_SIZES];                /* Least time per row of late, by size. */
    uint32_t row_runs[PROFILE_SIZES];
};

struct profile {
    struct profile_shape shapes[PROFILE_SHAPES];
    uint64_t tick;
};

void profile_observe(struct profile *profile, uint64_t shape_key, uint64_t rows, uint64_t ns);

/* False: not known yet, or far more rows than any run had. */
bool profile_predict_ns(const struct profile *profile, uint64_t shape_key, uint64_t rows,
                        uint64_t *out);
bool profile_fit(const struct profile *profile, uint64_t shape_key, double *tau0_ns,
                 double *alpha_ns);

/* The largest batch worth forming: twice the largest seen until the slope is known (anything while
 * nothing was seen); 1 where tau0 is so small against alpha that company gains less than a few percent; the best
 * size where rows were seen to get dearer in larger company. */
uint32_t profile_rows_useful(const struct profile *profile, uint64_t shape_key, uint32_t rows_max);

/* A run of so many rows is known to cost more for its rows than for itself. */
bool profile_rows_dominate(const struct profile *profile, uint64_t shape_key, uint64_t rows);

/* A run of `rows` failed for memory: at most half as many from now on. */
void profile_cap(struct profile *profile, uint64_t shape_key, uint64_t rows);
uint32_t profile_rows_cap(const struct profile *profile, uint64_t shape_key); /* 0: none */

#endif
