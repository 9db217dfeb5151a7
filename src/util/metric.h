/*
 * metric.h — counters and histograms that any thread may touch, and their
 * Prometheus text.
 *
 * Histograms have fixed log-linear buckets in ns: four per power of two from
 * 1 us to 64 s, one below, one above.  Observing is two relaxed atomic adds.
 */
#ifndef WEIR_UTIL_METRIC_H
#define WEIR_UTIL_METRIC_H

#include <stdatomic.h>
#include <stdint.h>

#include "util/bytes.h"

#define HISTOGRAM_BUCKETS 106

struct histogram {
    _Atomic uint64_t counts[HISTOGRAM_BUCKETS];
    _Atomic uint64_t sum_ns;
};

void histogram_observe(struct histogram *histogram, uint64_t ns);

/* The same for several that mostly fall into one bucket: add to a zeroed tally, then end it. */
struct histogram_tally {
    uint64_t sum_ns;
    uint64_t count; /* Of the bucket that came last. */
    uint32_t bucket;
};

/* `count` of `ns` each. */
void histogram_tally_add(struct histogram_tally *tally, struct histogram *histogram, uint64_t ns,
                         uint64_t count);
void histogram_tally_end(struct histogram_tally *tally, struct histogram *histogram);

uint64_t histogram_count(const struct histogram *histogram);

/* The smallest bucket bound at or above the q-quantile (0..1), in ns; 0 when empty, UINT64_MAX when
 * the quantile lies above the last bound. */
uint64_t histogram_quantile_ns(const struct histogram *histogram, double q);

/* Sum and count in one: Triton's statistic_duration. */
struct duration {
    _Atomic uint64_t count;
    _Atomic uint64_t ns;
};

void duration_add(struct duration *duration, uint64_t ns);
void duration_add_many(struct duration *duration, uint64_t count, uint64_t ns);

/* "# HELP" and "# TYPE" of a family; type is "counter", "gauge" or "histogram". */
void metric_family(struct buffer *out, const char *name, const char *help, const char *type);

/* One sample; `labels` is NULL or like `model="a",version="1"`, already escaped. */
void metric_u64(struct buffer *out, const char *name, const char *labels, uint64_t value);
void metric_double(struct buffer *out, const char *name, const char *labels, double value);

/* name_bucket, name_sum, name_count, in seconds, one bucket bound per power of two. */
void metric_histogram(struct buffer *out, const char *name, const char *labels,
                      const struct histogram *histogram);

/* Appends `text` as a label value, without its quotes: backslash, quote and newline escaped. */
void metric_label(struct buffer *out, const char *text);

/* Appends name="value" to `labels`, behind those before it; a NUL follows. */
void metric_add_label(struct buffer *labels, const char *name, const char *value);

#endif
