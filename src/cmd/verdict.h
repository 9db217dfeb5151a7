/*
 * verdict.h — when enough requests have been seen to say that a rate holds, or does not.
 *
 * MLPerf's early stopping: n requests of which t missed their latency bound prove that at most the
 * share `miss` of all would miss it when so few misses would have been unlikely otherwise, that is
 * when BinomialCDF(t; n, miss) <= doubt.  For 99 % and a doubt of 1 % that takes 459 requests
 * without a miss, 662 with one.  The other side is judged alike.  Pure functions.
 */
#ifndef WEIR_CMD_VERDICT_H
#define WEIR_CMD_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

/* X(name, word) */
#define VERDICTS(X)     \
    X(OPEN, "open")     \
    X(PASSED, "passed") \
    X(FAILED, "failed")

enum verdict {
#define VERDICT_ENUM(name, word) VERDICT_##name,
    VERDICTS(VERDICT_ENUM)
#undef VERDICT_ENUM
    VERDICT_COUNT
};

#define VERDICT_MISS 0.01  /* Share that may miss: a p99. */
#define VERDICT_DOUBT 0.01 /* Chance of a wrong verdict. */

const char *verdict_word(enum verdict verdict);

/* P(X <= t) for X binomial of n trials with probability p each; 1 when t >= n. */
double verdict_cdf(uint64_t t, uint64_t n, double p);

/* OPEN: neither side is proved yet. */
enum verdict verdict_of(uint64_t requests, uint64_t misses, double miss, double doubt);

/*
 * Looks for the largest rate that passes: up by doubling until one fails, down by halving until one
 * passes, then between the two by their geometric mean until they are within `resolution` of each
 * other; at last the largest is run again, and one step below it when it fails then.
 *
 *     struct verdict_search search;
 *     verdict_search_init(&search, 100, 1e6, 0.02);
 *     while (!search.done) {
 *         verdict_search_tell(&search, run_at(search.rate)); (or verdict_search_void())
 *     }
 *     ... search.valid is the answer, 0 when not even the lowest rate passed.
 */
struct verdict_search {
    double rate;     /* To try next; meaningless when done. */
    double valid;    /* Largest that passed; 0: none. */
    double failed;   /* Smallest that failed; 0: none. */
    double rate_min; /* Gives up below, at a hundredth of the first. */
    double rate_max;
    double resolution; /* 0.02: stop when failed <= 1.02 valid. */
    uint32_t tries;
    uint32_t tries_max;
    uint32_t voids;  /* In a row. */
    bool confirming; /* `rate` is one that has passed before. */
    bool done;
};

#define VERDICT_TRIES_MAX 40
#define VERDICT_VOIDS_MAX 3

/* 0 < start <= rate_max, resolution > 0. */
void verdict_search_init(struct verdict_search *search, double start, double rate_max,
                         double resolution);

/* What came of search->rate.  `passed` is true only for VERDICT_PASSED and a valid run: a run that
 * ended undecided has not shown that the rate holds. */
void verdict_search_tell(struct verdict_search *search, bool passed);

/* The run at search->rate was invalid, which says nothing about the rate: it is tried again, up to
 * VERDICT_VOIDS_MAX times.  After that the search stays below what could be measured, or ends
 * without an answer where nothing could. */
void verdict_search_void(struct verdict_search *search);

#endif
