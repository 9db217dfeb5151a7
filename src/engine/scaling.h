/*
 * scaling.h — how many runs of a model at once pay, learned while it serves.
 *
 * Runs that share a device slow each other down: they wait for the same memory, the same cores or
 * the same accelerator.  The universal scalability law says by how much: N runs at once do
 *
 *     C(N) = N / (1 + a (N - 1) + b N (N - 1))
 *
 * times the work of one, with a for what they do one after the other and b for what they cost each
 * other.  Above the *knee* N* = sqrt((1 - a) / b) a further run makes all of them together slower.
 *
 * What N runs do is measured: each settled run tells its time and how many ran beside it.  Counts
 * that the load does not bring about by itself are tried for a few runs now and then (a *trial*).
 * Only runs that left others waiting say what a count achieves: where nobody waits, it decides
 * nothing.  The others say what runs of a size take beside so many: where that shows that fewer
 * could not keep up, fewer are tried once at most, when nothing else was found for long.
 *
 * Pure: no clock, no allocation, called under the pool's lock.  A count that a person configured
 * stays; it is only measured, and said when it hurts.
 */
#ifndef WEIR_ENGINE_SCALING_H
#define WEIR_ENGINE_SCALING_H

#include <stdbool.h>
#include <stdint.h>

#define SCALING_RUNS_MAX 32   /* Counts told apart; with more runs at once nothing is learned. */
#define SCALING_TRIAL_RUNS 32 /* Runs that measure a count on trial. */
#define SCALING_SIZES 7       /* Batch sizes told apart, by powers of two; the last one is open. */

/* What was seen at one count: decayed sums. */
struct scaling_level {
    double work; /* Rows, times the runs that shared the time. */
    double ns;
    uint64_t runs; /* Since it was last measured afresh. */
};

/* What runs of a size take at one count when nothing else holds them up. */
struct scaling_size {
    float row_ns;
    uint32_t runs;
    uint64_t seen; /* The last one, by the number of all runs. */
};

/* The law's parameters; `one`: rows per ns of a single run. */
struct scaling_law {
    double one;
    double a;
    double b;
};

struct scaling {
    uint32_t runs_max; /* 1..SCALING_RUNS_MAX, or 0: nothing is learned. */
    bool fixed;        /* Configured: only measured. */
    uint32_t chosen;   /* Runs at once, apart from trials. */
    uint32_t trial;    /* The count on trial; 0: none. */
    uint32_t tried;    /* Bit per count: on trial since `chosen` changed. */
    uint64_t trial_runs;
    uint64_t quiet_runs; /* Since the last trial. */
    uint64_t quiet_min;  /* Before the next one. */
    uint32_t better;     /* Of a fixed count: fewer runs did more; 0: none did. */
    uint32_t suspect;    /* One trial said so, the next must agree. */
    double gain;         /* What `better` did, as a multiple of the fixed count's. */
    struct scaling_level levels[SCALING_RUNS_MAX + 1];
    struct scaling_size sizes[SCALING_RUNS_MAX + 1][SCALING_SIZES];
    uint64_t runs; /* Observed so far. */

    uint64_t area; /* Runs x ns so far: who keeps its value from before knows what ran beside. */
    uint64_t area_ns;
};

/* All runs are allowed from the start. */
void scaling_init(struct scaling *scaling, uint32_t runs_max, bool fixed);

/* `running` have run since the last call; before each change. */
void scaling_pass(struct scaling *scaling, uint32_t running, uint64_t now_ns);

/* A run of `rows` took `ns`, with `at_once` running on average meanwhile, itself included;
 * `saturated`: others waited when it ended.  True: scaling_cap() or the verdict is another. */
bool scaling_observe(struct scaling *scaling, double at_once, uint64_t rows, uint64_t ns,
                     bool saturated);

/* Runs at once now: the chosen count, or the one on trial. */
uint32_t scaling_cap(const struct scaling *scaling);

/* Rows per ns at so many runs at once, SCALING_RUNS_MAX at most; 0: not measured. */
double scaling_rate(const struct scaling *scaling, uint32_t runs);

/* The law through what was measured; false: at fewer than two counts. */
bool scaling_fit(const struct scaling *scaling, struct scaling_law *out);

/* There is a choice: a model that runs once at a time has none. */
static inline bool scaling_learns(const struct scaling *scaling)
{
    return scaling->runs_max >= 2;
}

/* Where the law stops to gain: 1..runs_max. */
uint32_t scaling_knee(const struct scaling_law *law, uint32_t runs_max);

#endif
