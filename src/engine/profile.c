/*
 * The learned cost of a run.
 *
 * Two numbers per model and shape predict everything the scheduler asks: tau0,
 * what a run costs before its first row, and alpha, what each row adds.  They
 * come from weighted least squares over recent runs; the weights decay, so a
 * machine that slows down is believed within a few hundred runs.
 *
 * When all recent runs had the same size the slope cannot be told; then the
 * whole time counts as tau0, and batches may double until there is a second
 * size to compare with.
 *
 * The line does not know that rows can get dearer in company, as those of a
 * convolution do whose intermediate tensors no longer fit the processor's cache.
 * So the least time per row is kept for each size, too: other work on the machine
 * can only lengthen a run.  It is forgotten slowly, and smaller sizes that nobody asked
 * for are tried a few times.
 */
#include "engine/profile.h"

#include <stddef.h>

#define PROFILE_DECAY 0.98
#define PROFILE_VARIANCE_MIN 0.02 /* Of rows, relative to their mean squared. */
#define PROFILE_TAU0_USEFUL 0.08  /* tau0 below this share of alpha: company is not worth it. */
#define PROFILE_ROW_FORGET 1.01   /* What the least time per row grows by with each run. */
#define PROFILE_ROW_DEARER 1.04   /* Larger batches whose rows cost this much more are avoided. */

static const struct profile_shape *find(const struct profile *profile, uint64_t key)
{
    for (size_t i = 0; i < PROFILE_SHAPES; i++) {
        if (profile->shapes[i].used > 0 && profile->shapes[i].key == key) {
            return &profile->shapes[i];
        }
    }
    return NULL;
}

static struct profile_shape *find_or_replace(struct profile *profile, uint64_t key)
{
    struct profile_shape *oldest = &profile->shapes[0];
    for (size_t i = 0; i < PROFILE_SHAPES; i++) {
        struct profile_shape *shape = &profile->shapes[i];
        if (shape->used > 0 && shape->key == key) {
            shape->used = ++profile->tick;
            return shape;
        }
        oldest = shape->used < oldest->used ? shape : oldest;
    }
    *oldest = (struct profile_shape){ .key = key, .used = ++profile->tick };
    return oldest;
}

/* tau0 and alpha of one shape; false before there is enough to say. */
static bool fit(const struct profile_shape *shape, double *tau0, double *alpha)
{
    if (shape->runs < PROFILE_OBSERVED_MIN) {
        return false;
    }
    const double rows = shape->rows / shape->weight;
    const double time = shape->time / shape->weight;
    const double variance = shape->rows2 / shape->weight - rows * rows;
    double slope = 0;
    if (variance > PROFILE_VARIANCE_MIN * rows * rows) {
        slope = (shape->rows_time / shape->weight - rows * time) / variance;
    }
    slope = slope < 0 ? 0 : slope;
    slope = slope * rows > time ? time / rows : slope;
    *alpha = slope;
    *tau0 = time - slope * rows;
    return true;
}

/* Of the least power of two that is no less. */
static uint32_t size_of(uint64_t rows)
{
    const uint32_t size = rows <= 1 ? 0 : 64 - (uint32_t)__builtin_clzll(rows - 1);
    return size < PROFILE_SIZES ? size : PROFILE_SIZES - 1;
}

static void observe_row(struct profile_shape *shape, uint32_t size, double row_ns)
{
    const double least = shape->row_ns[size] * PROFILE_ROW_FORGET;
    shape->row_ns[size] = shape->row_runs[size] > 0 && least < row_ns ? least : row_ns;
    shape->row_runs[size]++;
}

void profile_observe(struct profile *profile, uint64_t shape_key, uint64_t rows, uint64_t ns)
{
    struct profile_shape *shape = find_or_replace(profile, shape_key);
    const double b = (double)rows;
    const double t = (double)ns;
    /* The very first run of a shape pays for allocations that later ones do not. */
    const double decay = shape->runs == 1 ? 0 : PROFILE_DECAY;
    shape->weight = shape->weight * decay + 1;
    shape->rows = shape->rows * decay + b;
    shape->rows2 = shape->rows2 * decay + b * b;
    shape->time = shape->time * decay + t;
    shape->rows_time = shape->rows_time * decay + b * t;
    shape->runs++;
    shape->rows_seen = rows > shape->rows_seen ? rows : shape->rows_seen;
    observe_row(shape, size_of(rows), t / b);
}

bool profile_fit(const struct profile *profile, uint64_t shape_key, double *tau0_ns,
                 double *alpha_ns)
{
    const struct profile_shape *shape = find(profile, shape_key);
    return shape != NULL && fit(shape, tau0_ns, alpha_ns);
}

bool profile_predict_ns(const struct profile *profile, uint64_t shape_key, uint64_t rows,
                        uint64_t *out)
{
    double tau0;
    double alpha;
    const struct profile_shape *shape = find(profile, shape_key);
    if (shape == NULL || rows / 2 > shape->rows_seen || !fit(shape, &tau0, &alpha)) {
        return false; /* A slope that was never seen may be anything. */
    }
    *out = (uint64_t)(tau0 + alpha * (double)rows);
    return true;
}

static bool measured(const struct profile_shape *shape, uint32_t size)
{
    return shape->row_runs[size] >= PROFILE_OBSERVED_MIN;
}

/* The size whose rows are cheapest if those of a larger one are dearer, else PROFILE_SIZES. */
static uint32_t size_before_dearer(const struct profile_shape *shape)
{
    uint32_t best = PROFILE_SIZES;
    uint32_t found = PROFILE_SIZES;
    for (uint32_t size = 0; size < PROFILE_SIZES; size++) {
        if (!measured(shape, size)) {
            continue;
        }
        if (best == PROFILE_SIZES || shape->row_ns[size] <= shape->row_ns[best]) {
            best = size;
            found = PROFILE_SIZES;
        } else if (shape->row_ns[size] > PROFILE_ROW_DEARER * shape->row_ns[best]) {
            found = best;
        }
    }
    return found;
}

/* The next smaller size than one that is known, while growing has not made rows cheaper; a few runs
 * are all that it costs to learn that it does.  Else PROFILE_SIZES. */
static uint32_t size_to_try(const struct profile_shape *shape)
{
    uint32_t size = PROFILE_SIZES - 1;
    while (size > 0 && !measured(shape, size)) {
        size--;
    }
    for (; size > 0; size--) {
        if (!measured(shape, size - 1)) {
            return size - 1;
        }
        if (shape->row_ns[size - 1] > PROFILE_ROW_DEARER * shape->row_ns[size]) {
            break;
        }
    }
    return PROFILE_SIZES;
}

/* The most rows of a size. */
static uint32_t rows_of(uint32_t size, uint32_t allowed)
{
    const uint32_t rows = 1U << size;
    return size < PROFILE_SIZES - 1 && rows < allowed ? rows : allowed;
}

uint32_t profile_rows_useful(const struct profile *profile, uint64_t shape_key, uint32_t rows_max)
{
    double tau0;
    double alpha;
    const struct profile_shape *shape = find(profile, shape_key);
    const uint32_t cap = profile_rows_cap(profile, shape_key);
    const uint32_t allowed = cap > 0 && cap < rows_max ? cap : rows_max;
    if (shape == NULL || shape->rows_seen == 0) {
        return allowed;
    }
    const uint32_t untried = size_to_try(shape);
    const uint32_t best = untried < PROFILE_SIZES ? untried : size_before_dearer(shape);
    if (best < PROFILE_SIZES) {
        return rows_of(best, allowed);
    }
    if (!fit(shape, &tau0, &alpha) || alpha <= 0) {
        const uint64_t next = 2 * shape->rows_seen;
        return next < allowed ? (uint32_t)next : allowed;
    }
    return tau0 < PROFILE_TAU0_USEFUL * alpha ? 1 : allowed;
}

bool profile_rows_dominate(const struct profile *profile, uint64_t shape_key, uint64_t rows)
{
    double tau0;
    double alpha;
    return profile_fit(profile, shape_key, &tau0, &alpha) && alpha * (double)rows > tau0;
}

void profile_cap(struct profile *profile, uint64_t shape_key, uint64_t rows)
{
    struct profile_shape *shape = find_or_replace(profile, shape_key);
    const uint64_t half = rows / 2 > 0 ? rows / 2 : 1;
    if (shape->rows_cap == 0 || half < shape->rows_cap) {
        shape->rows_cap = half > UINT32_MAX ? UINT32_MAX : (uint32_t)half;
    }
}

uint32_t profile_rows_cap(const struct profile *profile, uint64_t shape_key)
{
    const struct profile_shape *shape = find(profile, shape_key);
    return shape == NULL ? 0 : shape->rows_cap;
}
