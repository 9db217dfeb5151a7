/*
 * profile.h — what a run of b rows takes, learned: tau0 + alpha * b, with jitter.
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
#define PROFILE_DIMS_MAX 8     /* Variable dimensions that a shape can be described by. */
#define PROFILE_DIMS_NONE UINT32_MAX /* Of a shape that they cannot describe. */
#define PROFILE_WEIGHT_MAX 50        /* What the weights of all runs add up to in the end. */

/* What a shape is for people, and after a restart, when keys are others: the sizes of the inputs'
 * variable dimensions but the leading one, input after input. */
struct profile_dims {
    bool known;
    uint32_t count;
    int64_t dims[PROFILE_DIMS_MAX];
};

struct profile_shape {
    uint64_t key;
    uint64_t used; /* For replacement: the profile's tick; 0: the place is free. */
    uint64_t runs;
    double weight, rows, rows2, time, rows_time; /* Decayed sums. */
    double tau0, alpha;           /* When sizes last differed enough to tell; 0: never yet. */
    double line_tau0, line_alpha; /* As of the latest run; what predictions use. */
    uint32_t best;                /* Size to stay at, or PROFILE_SIZES: larger ones are as good. */
    bool lonely;                  /* Company is not worth it. */
    double jitter;                /* Decayed mean of |time / predicted - 1|. */
    double slack;                 /* 99 of 100 runs take at most so many times the predicted. */
    uint32_t outliers;            /* Of the latest runs, in a row. */
    uint32_t unit;                /* Rows of a request: the least step by which batches grow. */
    uint32_t rows_cap;            /* Safe cap after an out-of-memory run; 0: none. */
    uint64_t rows_seen;           /* Largest batch observed. */
    double row_ns[PROFILE_SIZES]; /* Least time per row of late, by size. */
    uint32_t row_runs[PROFILE_SIZES];
    struct profile_dims dims;
};

struct profile {
    struct profile_shape shapes[PROFILE_SHAPES];
    uint64_t tick;           /* Grows with every observation. */
    uint32_t rows_cap_start; /* Safe cap of shapes that have none of their own; 0: none. */
};

/* A run that by far exceeds what was predicted counts as twice that, unless several in a row do. */
void profile_observe(struct profile *profile, uint64_t shape_key, uint64_t rows, uint64_t ns);

/* False: not known yet, or far more rows than any run had. */
bool profile_predict_ns(const struct profile *profile, uint64_t shape_key, uint64_t rows,
                        uint64_t *out);
bool profile_fit(const struct profile *profile, uint64_t shape_key, double *tau0_ns,
                 double *alpha_ns);

/* The largest batch worth forming: a tenth more than the largest seen, or one request more where
 * that is more (anything while nothing was seen); 1 where tau0 is so small against alpha that
 * company gains less than a few percent (a pair is tried now and then); the best size where rows
 * were seen to get dearer in larger company. */
uint32_t profile_rows_useful(const struct profile *profile, uint64_t shape_key, uint32_t rows_max);

/* A run of so many rows is known to cost more for its rows than for itself. */
bool profile_rows_dominate(const struct profile *profile, uint64_t shape_key, uint64_t rows);

/* A run of `rows` failed for memory: at most half as many from now on. */
void profile_cap(struct profile *profile, uint64_t shape_key, uint64_t rows);
uint32_t profile_rows_cap(const struct profile *profile, uint64_t shape_key); /* 0: none */

/* Requests of the shape have so many rows each: growing by less would let none of them join. */
void profile_note_unit(struct profile *profile, uint64_t shape_key, uint64_t rows);

/* A shape that was observed and that nobody has described. */
bool profile_is_unnamed(const struct profile *profile, uint64_t shape_key);
void profile_name(struct profile *profile, uint64_t shape_key, const struct profile_dims *dims);

/* Takes over what was learned in an earlier life: the place of the least recently used shape. */
void profile_restore(struct profile *profile, const struct profile_shape *shape);

/* Shapes in use, the next behind `at` (NULL: the first), or NULL.  For reports. */
const struct profile_shape *profile_next(const struct profile *profile,
                                         const struct profile_shape *at);
bool profile_shape_fit(const struct profile_shape *shape, double *tau0_ns, double *alpha_ns);
bool profile_shape_batches(const struct profile_shape *shape); /* Company pays. */

#endif
