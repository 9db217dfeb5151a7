/*
 * Bucket 0 holds up to 1 us; bucket 1 + 4 * o + q holds (1 us << o) * (1 + q/4)
 * exclusive to (1 us << o) * (1 + (q+1)/4) inclusive; the last one the rest.
 * Upper bounds are inclusive because Prometheus' `le` is.
 */
#include "util/metric.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "util/clock.h"

#define OCTAVES 26
#define STEPS 4
#define LAST (HISTOGRAM_BUCKETS - 1)

_Static_assert(HISTOGRAM_BUCKETS == 1 + OCTAVES * STEPS + 1, "buckets must cover the octaves");

static size_t bucket_of(uint64_t ns)
{
    if (ns <= NS_PER_US) {
        return 0;
    }
    const uint64_t us = (ns - 1) / NS_PER_US;
    const unsigned octave = 63U - (unsigned)__builtin_clzll(us);
    if (octave >= OCTAVES) {
        return LAST;
    }
    /* Of the octave, counted from 0: STEPS to 2 * STEPS - 1.  Divides by a constant. */
    const uint64_t step = ((ns - 1) >> octave) / (NS_PER_US / STEPS);
    return 1 + (size_t)octave * STEPS + (size_t)step - STEPS;
}

static uint64_t bucket_bound(size_t bucket)
{
    if (bucket == 0) {
        return NS_PER_US;
    }
    if (bucket >= LAST) {
        return UINT64_MAX;
    }
    const uint64_t base = NS_PER_US << (bucket - 1) / STEPS;
    return base + base / STEPS * ((bucket - 1) % STEPS + 1);
}

void histogram_observe(struct histogram *histogram, uint64_t ns)
{
    atomic_fetch_add_explicit(&histogram->counts[bucket_of(ns)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum_ns, ns, memory_order_relaxed);
}

static void tally_flush(struct histogram_tally *tally, struct histogram *histogram)
{
    if (tally->count > 0) {
        atomic_fetch_add_explicit(&histogram->counts[tally->bucket], tally->count,
                                  memory_order_relaxed);
    }
    tally->count = 0;
}

void histogram_tally_add(struct histogram_tally *tally, struct histogram *histogram, uint64_t ns,
                         uint64_t count)
{
    const uint32_t bucket = (uint32_t)bucket_of(ns);
    if (bucket != tally->bucket) {
        tally_flush(tally, histogram);
        tally->bucket = bucket;
    }
    tally->count += count;
    tally->sum_ns += ns * count;
}

void histogram_tally_end(struct histogram_tally *tally, struct histogram *histogram)
{
    tally_flush(tally, histogram);
    atomic_fetch_add_explicit(&histogram->sum_ns, tally->sum_ns, memory_order_relaxed);
    *tally = (struct histogram_tally){ 0 };
}

/* Each count is read once, so that what is derived from them agrees with itself. */
static uint64_t snapshot(const struct histogram *histogram, uint64_t counts[HISTOGRAM_BUCKETS])
{
    uint64_t total = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        counts[i] = atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
        total += counts[i];
    }
    return total;
}

uint64_t histogram_count(const struct histogram *histogram)
{
    uint64_t counts[HISTOGRAM_BUCKETS];
    return snapshot(histogram, counts);
}

uint64_t histogram_quantile_ns(const struct histogram *histogram, double q)
{
    uint64_t counts[HISTOGRAM_BUCKETS];
    const uint64_t total = snapshot(histogram, counts);
    if (total == 0) {
        return 0;
    }
    const double rank = q * (double)total;
    uint64_t below = 0;
    for (size_t i = 0; i < LAST; i++) {
        below += counts[i];
        if (below > 0 && (double)below >= rank) {
            return bucket_bound(i);
        }
    }
    return UINT64_MAX;
}

void duration_add(struct duration *duration, uint64_t ns)
{
    duration_add_many(duration, 1, ns);
}

void duration_add_many(struct duration *duration, uint64_t count, uint64_t ns)
{
    atomic_fetch_add_explicit(&duration->count, count, memory_order_relaxed);
    atomic_fetch_add_explicit(&duration->ns, ns, memory_order_relaxed);
}

static void append_escaped(struct buffer *out, const char *text, bool quotes)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n') {
            buffer_text(out, "\\n");
            continue;
        }
        if (*text == '\\' || (quotes && *text == '"')) {
            buffer_char(out, '\\');
        }
        buffer_char(out, *text);
    }
}

void metric_label(struct buffer *out, const char *text)
{
    append_escaped(out, text, true);
}

void metric_add_label(struct buffer *labels, const char *name, const char *value)
{
    buffer_printf(labels, "%s%s=\"", labels->size > 0 ? "," : "", name);
    metric_label(labels, value);
    buffer_text(labels, "\"");
    buffer_char(labels, '\0');
    labels->size -= labels->failed ? 0 : 1;
}

void metric_family(struct buffer *out, const char *name, const char *help, const char *type)
{
    buffer_printf(out, "# HELP %s ", name);
    append_escaped(out, help, false);
    buffer_printf(out, "\n# TYPE %s %s\n", name, type);
}

/* name{labels} and the space before the value; a histogram's parts have a suffix and a bound. */
static void append_name(struct buffer *out, const char *name, const char *suffix,
                        const char *labels, const char *bound)
{
    const bool labelled = labels != NULL && labels[0] != '\0';
    buffer_text(out, name);
    buffer_text(out, suffix);
    if (labelled || bound != NULL) {
        buffer_char(out, '{');
        buffer_text(out, labelled ? labels : "");
        if (bound != NULL) {
            buffer_printf(out, "%sle=\"%s\"", labelled ? "," : "", bound);
        }
        buffer_char(out, '}');
    }
    buffer_char(out, ' ');
}

void metric_u64(struct buffer *out, const char *name, const char *labels, uint64_t value)
{
    append_name(out, name, "", labels, NULL);
    buffer_u64(out, value);
    buffer_char(out, '\n');
}

void metric_double(struct buffer *out, const char *name, const char *labels, double value)
{
    append_name(out, name, "", labels, NULL);
    if (isnan(value)) {
        buffer_text(out, "NaN");
    } else if (isinf(value)) {
        buffer_text(out, value > 0 ? "+Inf" : "-Inf");
    } else {
        char text[32];
        for (int digits = 15; digits <= 17; digits++) {
            (void)snprintf(text, sizeof(text), "%.*g", digits, value);
            if (strtod(text, NULL) == value) {
                break;
            }
        }
        buffer_text(out, text);
    }
    buffer_char(out, '\n');
}

/* Seconds, exactly and without needless zeros. */
static const char *format_seconds(uint64_t ns, char out[32])
{
    int size = snprintf(out, 32, "%" PRIu64 ".%09" PRIu64, ns / NS_PER_S, ns % NS_PER_S);
    while (out[size - 1] == '0') {
        size--;
    }
    size -= out[size - 1] == '.' ? 1 : 0;
    out[size] = '\0';
    return out;
}

static void append_bucket(struct buffer *out, const char *name, const char *labels,
                          const char *bound, uint64_t count)
{
    append_name(out, name, "_bucket", labels, bound);
    buffer_u64(out, count);
    buffer_char(out, '\n');
}

void metric_histogram(struct buffer *out, const char *name, const char *labels,
                      const struct histogram *histogram)
{
    uint64_t counts[HISTOGRAM_BUCKETS];
    const uint64_t total = snapshot(histogram, counts);
    char text[32];
    uint64_t below = 0;
    for (size_t i = 0; i < LAST; i++) {
        below += counts[i];
        if (i % STEPS == 0) { /* The upper end of an octave: a power of two. */
            append_bucket(out, name, labels, format_seconds(bucket_bound(i), text), below);
        }
    }
    append_bucket(out, name, labels, "+Inf", total);
    append_name(out, name, "_sum", labels, NULL);
    buffer_text(out, format_seconds(atomic_load(&histogram->sum_ns), text));
    buffer_char(out, '\n');
    append_name(out, name, "_count", labels, NULL);
    buffer_u64(out, total);
    buffer_char(out, '\n');
}
