/*
 * The learned cost of a run.
 *
 * Two numbers per model and shape predict everything the scheduler asks: tau0,
 * what a run costs before its first row, and alpha, what each row adds.  They
 * come from weighted least squares over recent runs; the weights decay, so a
 * machine that slows down is believed within a few hundred runs.
 *
 * When all recent runs had the same size the slope cannot be told; then what was
 * known of it is kept, in proportion to the time that runs take now.  Before it was ever
 * known the whole time counts as tau0.  Batches grow beyond the largest one seen by
 * a tenth at a time, so that neither memory nor a deadline is surprised.
 *
 * Other work on the machine makes single runs much longer.  Such an outlier counts
 * as twice the predicted time; several in a row are no outliers but the new truth.
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
#define PROFILE_VARIANCE_MIN 0.02 /* Of rows, relative to their mean squared: a first slope. */
#define PROFILE_VARIANCE_GOOD 0.1 /* The same, to believe it more than the one known. */
#define PROFILE_TAU0_USEFUL 0.08  /* tau0 below this share of alpha: company is not worth it. */
#define PROFILE_ROW_FORGET 1.01   /* What the least time per row grows by with each run. */
#define PROFILE_ROW_DEARER 1.04   /* Larger batches whose rows cost this much more are avoided. */
#define PROFILE_ROW_CHEAPER 1.02  /* Rows of larger batches have to be so much cheaper. */
#define PROFILE_NS_MAX 9e18       /* More is no number of nanoseconds. */
#define PROFILE_SETTLED_RUNS 64   /* From then on */
#define PROFILE_SETTLE_RUNS 4     /* a line is drawn anew every so many runs. */
#define PROFILE_STEP 10           /* Batches grow by one part in so many. */
#define PROFILE_RETRY_RUNS 256    /* Where batching is off, every so many runs a pair is tried. */
#define PROFILE_LOOK_RUNS \
    64                      /* Where larger batches seem dearer, every so many runs one is tried. */
#define PROFILE_OUTLIER 2.0 /* Times the predicted. */
#define PROFILE_OUTLIER_JITTERS 8 /* Or so many jitters above it, where that is more. */
#define PROFILE_OUTLIERS_MAX 4    /* More in a row are believed. */
#define PROFILE_SLACK_FIRST 1.08
#define PROFILE_SLACK_MAX 4.0
#define PROFILE_SLACK_STEP 0.02  /* The quantile's estimate moves by so much, */
#define PROFILE_SLACK_JITTER 0.5 /* and by so much of the jitter. */
#define PROFILE_SLACK_SHARE 0.99

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
    *oldest = (struct profile_shape){ .key = key,
                                      .used = ++profile->tick,
                                      .slack = PROFILE_SLACK_FIRST,
                                      .unit = 1,
                                      .best = PROFILE_SIZES };
    return oldest;
}

/* The line through the decayed sums, if rows vary by more than that share of their mean squared. */
static bool regress(const struct profile_shape *shape, double variance_min, double *tau0,
                    double *alpha)
{
    const double rows = shape->rows / shape->weight;
    const double time = shape->time / shape->weight;
    const double variance = shape->rows2 / shape->weight - rows * rows;
    if (variance <= variance_min * rows * rows) {
        return false;
    }
    double slope = (shape->rows_time / shape->weight - rows * time) / variance;
    slope = slope < 0 ? 0 : slope;
    slope = slope * rows > time ? time / rows : slope;
    *alpha = slope;
    *tau0 = time > slope * rows ? time - slope * rows : 0; /* Rounding may go below. */
    return true;
}

/* tau0 and alpha of one shape; false before there is enough to say. */
static bool fit(const struct profile_shape *shape, double *tau0, double *alpha)
{
    if (shape->runs < PROFILE_OBSERVED_MIN) {
        return false;
    }
    *tau0 = shape->line_tau0;
    *alpha = shape->line_alpha;
    return true;
}

/* What the sums tell now; what they no longer tell is kept in proportion. */
static void settle_line(struct profile_shape *shape)
{
    const bool known = shape->tau0 + shape->alpha > 0;
    if (shape->runs < PROFILE_OBSERVED_MIN) {
        return;
    }
    if (regress(shape, known ? PROFILE_VARIANCE_GOOD : PROFILE_VARIANCE_MIN, &shape->line_tau0,
                &shape->line_alpha)) {
        shape->tau0 = shape->line_tau0;
        shape->alpha = shape->line_alpha;
        return;
    }
    const double time = shape->time / shape->weight;
    const double kept = shape->tau0 + shape->alpha * shape->rows / shape->weight;
    const double share = kept > 0 ? time / kept : 0;
    shape->line_tau0 = kept > 0 ? shape->tau0 * share : time;
    shape->line_alpha = shape->alpha * share;
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

static bool measured(const struct profile_shape *shape, uint32_t size)
{
    return shape->row_runs[size] >= PROFILE_OBSERVED_MIN;
}

/* The size whose rows are cheapest if those of a larger one are dearer, else PROFILE_SIZES.  Hardly
 * cheaper ones are not worth the wait for company. */
static uint32_t size_before_dearer(const struct profile_shape *shape)
{
    uint32_t best = PROFILE_SIZES;
    uint32_t found = PROFILE_SIZES;
    for (uint32_t size = 0; size < PROFILE_SIZES; size++) {
        if (!measured(shape, size)) {
            continue;
        }
        if (best == PROFILE_SIZES ||
            PROFILE_ROW_CHEAPER * shape->row_ns[size] <= shape->row_ns[best]) {
            best = size;
            found = PROFILE_SIZES;
        } else if (shape->row_ns[size] > PROFILE_ROW_DEARER * shape->row_ns[best]) {
            found = best;
        }
    }
    return found;
}

/* The next smaller size than one that is known, while growing has not made rows cheaper; a few runs
 * are all that it costs to learn that it does.  Less than a request cannot be tried.  Else
 * PROFILE_SIZES. */
static uint32_t size_to_try(const struct profile_shape *shape)
{
    uint32_t size = PROFILE_SIZES - 1;
    while (size > 0 && !measured(shape, size)) {
        size--;
    }
    const uint32_t least = size_of(shape->unit);
    for (; size > least; size--) {
        if (!measured(shape, size - 1)) {
            return size - 1;
        }
        if (shape->row_ns[size - 1] > PROFILE_ROW_DEARER * shape->row_ns[size]) {
            break;
        }
    }
    return PROFILE_SIZES;
}

/* Rows of larger batches were seen to be cheaper than single ones. */
static bool cheaper_in_company(const struct profile_shape *shape)
{
    for (uint32_t size = 1; size < PROFILE_SIZES && measured(shape, 0); size++) {
        if (measured(shape, size) && shape->row_ns[size] * PROFILE_ROW_DEARER < shape->row_ns[0]) {
            return true;
        }
    }
    return false;
}

static bool is_lonely(const struct profile_shape *shape)
{
    double tau0;
    double alpha;
    return fit(shape, &tau0, &alpha) && tau0 < PROFILE_TAU0_USEFUL * alpha &&
           !cheaper_in_company(shape);
}

/* What pulls ask for is decided once per run, later once per few. */
static void settle(struct profile_shape *shape)
{
    settle_line(shape);
    const uint32_t untried = size_to_try(shape);
    shape->best = untried < PROFILE_SIZES ? untried : size_before_dearer(shape);
    shape->lonely = is_lonely(shape);
}

/* How the run compares with what was predicted; the time to learn from. */
static double judge(struct profile_shape *shape, double rows, double ns)
{
    double tau0;
    double alpha;
    if (!fit(shape, &tau0, &alpha) || tau0 + alpha * rows <= 0) {
        return ns;
    }
    const double predicted = tau0 + alpha * rows;
    const double ratio = ns / predicted;
    const double far = 1 + PROFILE_OUTLIER_JITTERS * shape->jitter;
    const double limit = far > PROFILE_OUTLIER ? far : PROFILE_OUTLIER;
    double deviation = ratio < 1 ? 1 - ratio : ratio - 1;
    deviation = deviation > 1 ? 1 : deviation;
    const uint64_t compared = shape->runs + 1 - PROFILE_OBSERVED_MIN;
    shape->jitter += (deviation - shape->jitter) /
                     (double)(compared < PROFILE_WEIGHT_MAX ? compared : PROFILE_WEIGHT_MAX);
    shape->slack += (PROFILE_SLACK_STEP + PROFILE_SLACK_JITTER * shape->jitter) *
                    (PROFILE_SLACK_SHARE - (ratio > shape->slack ? 0.0 : 1.0));
    shape->slack = shape->slack < 1 ? 1 : shape->slack;
    shape->slack = shape->slack > PROFILE_SLACK_MAX ? PROFILE_SLACK_MAX : shape->slack;
    shape->outliers = ratio > limit ? shape->outliers + 1 : 0;
    return shape->outliers == 0 || shape->outliers > PROFILE_OUTLIERS_MAX
               ? ns
               : PROFILE_OUTLIER * predicted;
}

void profile_observe(struct profile *profile, uint64_t shape_key, uint64_t rows, uint64_t ns)
{
    struct profile_shape *shape = find_or_replace(profile, shape_key);
    const double b = (double)rows;
    const double t = judge(shape, b, (double)ns);
    /* The very first run of a shape pays for allocations that later ones do not. */
    const double decay = shape->runs == 1 ? 0 : PROFILE_DECAY;
    shape->weight = shape->weight * decay + 1;
    shape->rows = shape->rows * decay + b;
    shape->rows2 = shape->rows2 * decay + b * b;
    shape->time = shape->time * decay + t;
    shape->rows_time = shape->rows_time * decay + b * t;
    shape->runs++;
    shape->rows_seen = rows > shape->rows_seen ? rows : shape->rows_seen;
    observe_row(shape, size_of(rows), (double)ns / b);
    if (shape->runs < PROFILE_SETTLED_RUNS || shape->runs % PROFILE_SETTLE_RUNS == 0) {
        settle(shape);
    }
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
    const double ns = tau0 + alpha * (double)rows;
    *out = ns < PROFILE_NS_MAX ? (uint64_t)ns : (uint64_t)PROFILE_NS_MAX;
    return true;
}

/* The most rows of a size. */
static uint32_t rows_of(uint32_t size, uint32_t allowed)
{
    const uint32_t rows = 1U << size;
    return size < PROFILE_SIZES - 1 && rows < allowed ? rows : allowed;
}

/* A step beyond the largest batch seen. */
static uint32_t explored(const struct profile_shape *shape, uint32_t allowed)
{
    const uint64_t tenth = shape->rows_seen / PROFILE_STEP;
    const uint64_t next = shape->rows_seen + (tenth > shape->unit ? tenth : shape->unit);
    return next < allowed ? (uint32_t)next : allowed;
}

/* Larger batches were found dearer, perhaps on a machine that did other things: now and then the
 * next size is tried again.  Where a run costs most apart from its rows, those beyond it are, too:
 * the next one may be dearer and they not. */
static uint32_t best_or_larger(const struct profile_shape *shape, uint32_t allowed)
{
    double tau0;
    double alpha;
    const uint32_t rows = rows_of(shape->best, allowed);
    if (shape->best + 1 == PROFILE_SIZES || shape->runs % PROFILE_LOOK_RUNS != 0) {
        return rows;
    }
    const bool far = fit(shape, &tau0, &alpha) && tau0 > alpha * rows;
    const uint32_t larger = far ? PROFILE_SIZES - 1 - shape->best : 1;
    const uint32_t turn = (uint32_t)(shape->runs / PROFILE_LOOK_RUNS) % larger;
    return rows_of(shape->best + 1 + turn, allowed);
}

uint32_t profile_rows_useful(const struct profile *profile, uint64_t shape_key, uint32_t rows_max)
{
    const struct profile_shape *shape = find(profile, shape_key);
    const uint32_t cap = profile_rows_cap(profile, shape_key);
    const uint32_t allowed = cap > 0 && cap < rows_max ? cap : rows_max;
    if (shape == NULL || shape->rows_seen == 0) {
        return allowed;
    }
    if (shape->best < PROFILE_SIZES) {
        return best_or_larger(shape, allowed);
    }
    if (shape->lonely) {
        return shape->runs % PROFILE_RETRY_RUNS == 0 && allowed > 1 ? 2 : 1;
    }
    return explored(shape, allowed);
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
    const uint32_t cap = profile_rows_cap(profile, shape_key);
    if (cap == 0 || half < cap) {
        shape->rows_cap = half > UINT32_MAX ? UINT32_MAX : (uint32_t)half;
    }
}

uint32_t profile_rows_cap(const struct profile *profile, uint64_t shape_key)
{
    const struct profile_shape *shape = find(profile, shape_key);
    return shape == NULL || shape->rows_cap == 0 ? profile->rows_cap_start : shape->rows_cap;
}

void profile_note_unit(struct profile *profile, uint64_t shape_key, uint64_t rows)
{
    struct profile_shape *shape = find_or_replace(profile, shape_key);
    shape->unit = rows < 1 ? 1 : rows > UINT32_MAX ? UINT32_MAX : (uint32_t)rows;
}

bool profile_is_unnamed(const struct profile *profile, uint64_t shape_key)
{
    const struct profile_shape *shape = find(profile, shape_key);
    return shape != NULL && !shape->dims.known;
}

void profile_name(struct profile *profile, uint64_t shape_key, const struct profile_dims *dims)
{
    find_or_replace(profile, shape_key)->dims = *dims;
}

void profile_restore(struct profile *profile, const struct profile_shape *shape)
{
    struct profile_shape *place = find_or_replace(profile, shape->key);
    const uint64_t used = place->used;
    *place = *shape;
    place->used = used;
    settle(place);
}

const struct profile_shape *profile_next(const struct profile *profile,
                                         const struct profile_shape *at)
{
    const struct profile_shape *end = profile->shapes + PROFILE_SHAPES;
    for (at = at == NULL ? profile->shapes : at + 1; at < end; at++) {
        if (at->used > 0) {
            return at;
        }
    }
    return NULL;
}

bool profile_shape_fit(const struct profile_shape *shape, double *tau0_ns, double *alpha_ns)
{
    return fit(shape, tau0_ns, alpha_ns);
}

bool profile_shape_batches(const struct profile_shape *shape)
{
    return !shape->lonely && size_before_dearer(shape) != 0;
}
