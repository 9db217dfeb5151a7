/*
 * bench_summary.h — repeats drawn together: the median of a load, and how far the runs lie apart.
 */
#ifndef WEIR_CMD_BENCH_SUMMARY_H
#define WEIR_CMD_BENCH_SUMMARY_H

#include "cmd/bench_report.h"

/* X(name, key in JSON and CSV, heading, greater is better) */
#define BENCH_METRICS(X)                                               \
    X(THROUGHPUT, "throughput", "answers per second", true)            \
    X(GOODPUT, "goodput", "answers inside the SLO per second", true)   \
    X(MEAN, "mean_us", "mean latency", false)                          \
    X(P50, "p50_us", "median latency", false)                          \
    X(P90, "p90_us", "p90 latency", false)                             \
    X(P99, "p99_us", "p99 latency", false)                             \
    X(P999, "p999_us", "p99.9 latency", false)                         \
    X(MAX, "max_us", "greatest latency", false)                        \
    X(MISSED, "missed", "share not answered inside the SLO", false)    \
    X(CPU, "server_cpu_us", "server CPU time per answer", false)       \
    X(LAG, "lag_p99_us", "p99 of the send lag", false)                 \
    X(GENERATOR, "generator_cpu", "CPU share of the generator", false)

enum bench_metric {
#define BENCH_METRIC_ENUM(name, key, heading, greater) BENCH_METRIC_##name,
    BENCH_METRICS(BENCH_METRIC_ENUM)
#undef BENCH_METRIC_ENUM
    BENCH_METRIC_COUNT
};

const char *bench_metric_key(enum bench_metric metric);

/* A number of one run: seconds' rates, microseconds, shares of 1.  0 where it is unknown. */
double bench_metric(const struct bench_run *run, enum bench_metric metric);

uint64_t bench_ended(const struct bench_run *run); /* Requests of all outcomes. */

struct bench_spread {
    double median;
    double min;
    double max;
};

/* All runs of one target at one load. */
struct bench_point {
    uint32_t target;
    enum bench_load load;
    double offered;
    uint32_t runs;
    uint32_t valid;
    uint32_t passed; /* Runs whose verdict is VERDICT_PASSED. */
    uint32_t failed;
    uint32_t flaws;                                  /* Of all runs together. */
    struct bench_spread metrics[BENCH_METRIC_COUNT]; /* Over the valid ones, or all if none is. */
};

#define BENCH_REPEATS_MAX 64 /* Runs of one point that enter its spread; later ones do not. */

/* The next point by load, offered and target; `previous` NULL: the first.  False: there is none. */
bool bench_point_next(const struct bench_report *report, const struct bench_point *previous,
                      struct bench_point *out);

/* "55.1 us", "1.23 ms", "12.0 s": three digits.  `out` has at least 32 bytes; returns it. */
char *bench_format_us(double us, char *out);

/* "812", "17.2 k", "1.05 M": three digits. */
char *bench_format_count(double count, char *out);

/* "64" or "1234.5": a load as it was asked for. */
char *bench_format_load(double load, char *out);

#define BENCH_TEXT_MAX 32

#endif
