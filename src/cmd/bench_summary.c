#include "cmd/bench_summary.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

const char *bench_metric_key(enum bench_metric metric)
{
    static const char *const keys[] = {
#define BENCH_METRIC_KEY(name, key, heading, greater) key,
        BENCH_METRICS(BENCH_METRIC_KEY)
#undef BENCH_METRIC_KEY
    };
    return keys[metric];
}

uint64_t bench_ended(const struct bench_run *run)
{
    uint64_t count = 0;
    for (int i = 0; i < BENCH_OUTCOME_COUNT; i++) {
        count += run->counts[i];
    }
    return count;
}

static double quantile_us(const struct hdr *hdr, double q)
{
    return (double)hdr_quantile_ns(hdr, q) / 1e3;
}

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

double bench_metric(const struct bench_run *run, enum bench_metric metric)
{
    const double count = (double)bench_ended(run);
    switch (metric) {
    case BENCH_METRIC_THROUGHPUT:
        return run->throughput;
    case BENCH_METRIC_GOODPUT:
        return run->goodput;
    case BENCH_METRIC_MEAN:
        return hdr_mean_ns(&run->latency) / 1e3;
    case BENCH_METRIC_P50:
        return quantile_us(&run->latency, 0.5);
    case BENCH_METRIC_P90:
        return quantile_us(&run->latency, 0.9);
    case BENCH_METRIC_P99:
        return quantile_us(&run->latency, 0.99);
    case BENCH_METRIC_P999:
        return quantile_us(&run->latency, 0.999);
    case BENCH_METRIC_MAX:
        return quantile_us(&run->latency, 1);
    case BENCH_METRIC_MISSED:
        return share(count - (double)run->good, count);
    case BENCH_METRIC_CPU:
        return share((double)run->server_cpu_ns / 1e3, (double)run->counts[BENCH_OK]);
    case BENCH_METRIC_LAG:
        return quantile_us(&run->lag, 0.99);
    case BENCH_METRIC_GENERATOR:
        return run->generator_cpu;
    case BENCH_METRIC_COUNT:
        break;
    }
    return 0;
}

/* The order in which points are told: by load, then target. */
static int compare(const struct bench_point *point, const struct bench_run *run)
{
    if (point->load != run->load) {
        return point->load < run->load ? -1 : 1;
    }
    if (point->offered != run->offered) {
        return point->offered < run->offered ? -1 : 1;
    }
    return (point->target > run->target) - (point->target < run->target);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct bench_spread spread_of(const struct bench_report *report,
                                     const struct bench_point *point, enum bench_metric metric)
{
    double values[BENCH_REPEATS_MAX];
    size_t count = 0;
    for (uint32_t i = 0; i < report->run_count && count < BENCH_REPEATS_MAX; i++) {
        const struct bench_run *run = &report->runs[i];
        if (compare(point, run) == 0 && (point->valid == 0 || run->flaws == 0)) {
            values[count++] = bench_metric(run, metric);
        }
    }
    qsort(values, count, sizeof(values[0]), by_size);
    return (struct bench_spread){
        .median = (values[(count - 1) / 2] + values[count / 2]) / 2,
        .min = values[0],
        .max = values[count - 1],
    };
}

static void sum_up(const struct bench_report *report, struct bench_point *point)
{
    for (uint32_t i = 0; i < report->run_count; i++) {
        const struct bench_run *run = &report->runs[i];
        if (compare(point, run) == 0) {
            point->runs++;
            point->valid += run->flaws == 0;
            point->passed += run->verdict == VERDICT_PASSED;
            point->failed += run->verdict == VERDICT_FAILED;
            point->flaws |= run->flaws;
        }
    }
    for (int i = 0; i < BENCH_METRIC_COUNT; i++) {
        point->metrics[i] = spread_of(report, point, (enum bench_metric)i);
    }
}

bool bench_point_next(const struct bench_report *report, const struct bench_point *previous,
                      struct bench_point *out)
{
    struct bench_point next = { 0 };
    bool found = false;
    for (uint32_t i = 0; i < report->run_count; i++) {
        const struct bench_run *run = &report->runs[i];
        if ((previous == NULL || compare(previous, run) < 0) &&
            (!found || compare(&next, run) > 0)) {
            found = true;
            next = (struct bench_point){ .target = run->target,
                                         .load = run->load,
                                         .offered = run->offered };
        }
    }
    if (found) {
        sum_up(report, &next);
        *out = next;
    }
    return found;
}

/* Three digits, whatever the size: "1.23", "12.3", "123". */
static int decimals_of(double value)
{
    if (value >= 99.95) {
        return 0;
    }
    return value >= 9.995 ? 1 : 2;
}

static char *format(double value, const char *unit, char *out)
{
    (void)snprintf(out, BENCH_TEXT_MAX, "%.*f%s", decimals_of(value), value, unit);
    return out;
}

char *bench_format_us(double us, char *out)
{
    if (us < 999.5) {
        return format(us, " us", out);
    }
    return us < 999.5e3 ? format(us / 1e3, " ms", out) : format(us / 1e6, " s", out);
}

char *bench_format_count(double count, char *out)
{
    if (count < 999.5) {
        const int decimals = count == floor(count) ? 0 : decimals_of(count);
        (void)snprintf(out, BENCH_TEXT_MAX, "%.*f", decimals, count);
        return out;
    }
    return count < 999.5e3 ? format(count / 1e3, " k", out) : format(count / 1e6, " M", out);
}

char *bench_format_load(double load, char *out)
{
    (void)snprintf(out, BENCH_TEXT_MAX, "%.*f", load == floor(load) || load >= 1000 ? 0 : 1, load);
    return out;
}
