/*
 * The complete results.  Times are microseconds unless the key says otherwise; keys that are not
 * known, such as the server's CPU time without access to its process, are left out rather than 0.
 *
 * A histogram of three digits has thousands of buckets; what a reader or a chart needs of it is the
 * curve at even steps of "how many nines", and some forty buckets per decade.
 */
#include <math.h>
#include <stdio.h>
#include <time.h>

#include "cmd/bench_summary.h"
#include "util/json.h"

#define CURVE_STEPS 5 /* Points for each halving of what lies above. */
#define CURVE_HALVINGS 40
#define BUCKETS_PER_DECADE 40

/* To a thousandth: more would be noise. */
static void number(struct buffer *out, const char *key, double value)
{
    json_key(out, key);
    json_double(out, isfinite(value) ? round(value * 1e3) / 1e3 : 0);
}

static void fine_number(struct buffer *out, const char *key, double value)
{
    json_key(out, key);
    json_double(out, isfinite(value) ? round(value * 1e7) / 1e7 : 0);
}

static void count(struct buffer *out, const char *key, uint64_t value)
{
    json_key(out, key);
    buffer_u64(out, value);
}

static void text(struct buffer *out, const char *key, const char *value)
{
    if (value != NULL) {
        json_key(out, key);
        json_string(out, value);
    }
}

static void truth(struct buffer *out, const char *key, bool value)
{
    json_key(out, key);
    json_bool(out, value);
}

static void item_us(struct buffer *out, uint64_t ns)
{
    json_comma(out);
    json_double(out, (double)ns / 1e3);
}

static void write_time(struct buffer *out, const char *key, uint64_t wall_ms)
{
    const time_t seconds = (time_t)(wall_ms / 1000);
    struct tm utc;
    char stamp[32];
    if (gmtime_r(&seconds, &utc) != NULL &&
        strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &utc) != 0) {
        text(out, key, stamp);
    }
}

static void write_curve_point(const struct hdr *hdr, double q, struct buffer *out)
{
    json_comma(out);
    buffer_char(out, '[');
    json_double(out, round(q * 1e9) / 1e9);
    item_us(out, hdr_quantile_ns(hdr, q));
    buffer_char(out, ']');
}

/* [q, us] from 0 to 1, ever closer: each halving of what is left has as many points. */
static void write_curve(const struct hdr *hdr, struct buffer *out)
{
    json_key(out, "curve");
    buffer_char(out, '[');
    double left = 1;
    for (int i = 0; i < CURVE_HALVINGS && left * (double)hdr->total > 1; i++) {
        for (int k = 0; k < CURVE_STEPS; k++) {
            write_curve_point(hdr, 1 - left * (1 - 0.5 * k / CURVE_STEPS), out);
        }
        left /= 2;
    }
    write_curve_point(hdr, 1, out);
    buffer_char(out, ']');
}

static void write_bucket(double bin, uint64_t times, struct buffer *out)
{
    if (times == 0) {
        return;
    }
    json_comma(out);
    buffer_printf(out, "[%.4g,%.4g,", pow(10, bin / BUCKETS_PER_DECADE) / 1e3,
                  pow(10, (bin + 1) / BUCKETS_PER_DECADE) / 1e3);
    buffer_u64(out, times);
    buffer_char(out, ']');
}

/* [from us, to us, how many]; empty buckets are left out. */
static void write_buckets(const struct hdr *hdr, struct buffer *out)
{
    uint32_t index = 0;
    struct hdr_bucket bucket;
    double bin = -1;
    uint64_t times = 0;
    json_key(out, "histogram");
    buffer_char(out, '[');
    while (hdr_next(hdr, &index, &bucket)) {
        const double middle = ((double)bucket.low_ns + (double)bucket.high_ns) / 2;
        const double here = floor(log10(middle < 1 ? 1 : middle) * BUCKETS_PER_DECADE);
        if (here != bin) {
            write_bucket(bin, times, out);
            bin = here;
            times = 0;
        }
        times += bucket.count;
    }
    write_bucket(bin, times, out);
    buffer_char(out, ']');
}

static void write_hdr(const char *key, const struct hdr *hdr, bool whole, struct buffer *out)
{
    static const struct {
        const char *key;
        double q;
    } quantiles[] = { { "p50_us", 0.5 },  { "p90_us", 0.9 },    { "p95_us", 0.95 },
                      { "p99_us", 0.99 }, { "p999_us", 0.999 }, { "max_us", 1 } };
    json_key(out, key);
    buffer_char(out, '{');
    count(out, "count", hdr->total);
    if (hdr->total > 0) {
        number(out, "min_us", (double)hdr->min_ns / 1e3);
        number(out, "mean_us", hdr_mean_ns(hdr) / 1e3);
        for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
            number(out, quantiles[i].key, (double)hdr_quantile_ns(hdr, quantiles[i].q) / 1e3);
        }
        if (hdr->over > 0) {
            count(out, "over_60_s", hdr->over);
        }
        if (whole) {
            write_curve(hdr, out);
            write_buckets(hdr, out);
        }
    }
    buffer_char(out, '}');
}

static void write_outcomes(const uint64_t *counts, struct buffer *out)
{
    for (int i = 0; i < BENCH_OUTCOME_COUNT; i++) {
        count(out, bench_outcome_word((enum bench_outcome)i), counts[i]);
    }
}

static void write_classes(const struct bench_run *run, struct buffer *out)
{
    json_key(out, "classes");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < run->class_count; i++) {
        const struct bench_class *class = &run->classes[i];
        json_comma(out);
        buffer_char(out, '{');
        text(out, "name", class->name);
        number(out, "slo_us", (double)(class->slo_ns != 0 ? class->slo_ns : run->slo_ns) / 1e3);
        count(out, "sent", class->sent);
        write_outcomes(class->counts, out);
        count(out, "good", class->good);
        write_hdr("latency", &class->latency, true, out);
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

static void write_stages(const struct bench_run *run, struct buffer *out)
{
    json_key(out, "stages");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < run->stage_count; i++) {
        const struct bench_stage *stage = &run->stages[i];
        json_comma(out);
        buffer_char(out, '{');
        text(out, "name", stage->name);
        count(out, "count", stage->count);
        number(out, "mean_us",
               stage->count == 0 ? 0 : (double)stage->ns / (double)stage->count / 1e3);
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

static void write_codes(const struct bench_run *run, struct buffer *out)
{
    json_key(out, "codes");
    buffer_char(out, '{');
    for (uint32_t i = 0; i < run->code_count; i++) {
        count(out, run->codes[i].name, run->codes[i].count);
    }
    buffer_char(out, '}');
}

typedef uint64_t slice_value_fn(const struct bench_slice *slice);

static uint64_t slice_sent(const struct bench_slice *slice)
{
    return slice->sent;
}

static uint64_t slice_ok(const struct bench_slice *slice)
{
    return slice->counts[BENCH_OK];
}

static uint64_t slice_good(const struct bench_slice *slice)
{
    return slice->good;
}

static uint64_t slice_refused(const struct bench_slice *slice)
{
    return slice->counts[BENCH_REFUSED] + slice->counts[BENCH_EXPIRED];
}

static uint64_t slice_failed(const struct bench_slice *slice)
{
    return slice->counts[BENCH_FAILED];
}

static uint64_t slice_p50(const struct bench_slice *slice)
{
    return slice->p50_ns;
}

static uint64_t slice_p99(const struct bench_slice *slice)
{
    return slice->p99_ns;
}

static uint64_t slice_max(const struct bench_slice *slice)
{
    return slice->max_ns;
}

/* One array per figure: shorter than an object per slice, and what a chart draws. */
static void write_timeline(const struct bench_run *run, struct buffer *out)
{
    static const struct {
        const char *key;
        slice_value_fn *value;
        bool time;
    } columns[] = {
        { "sent", slice_sent, false },     { "ok", slice_ok, false },
        { "good", slice_good, false },     { "refused", slice_refused, false },
        { "failed", slice_failed, false }, { "p50_us", slice_p50, true },
        { "p99_us", slice_p99, true },     { "max_us", slice_max, true },
    };
    json_key(out, "timeline");
    buffer_char(out, '{');
    number(out, "slice_s", (double)run->slice_ns / 1e9);
    for (size_t c = 0; c < sizeof(columns) / sizeof(columns[0]); c++) {
        json_key(out, columns[c].key);
        buffer_char(out, '[');
        for (uint32_t i = 0; i < run->slice_count; i++) {
            const uint64_t value = columns[c].value(&run->slices[i]);
            if (columns[c].time) {
                item_us(out, value);
            } else {
                json_comma(out);
                buffer_u64(out, value);
            }
        }
        buffer_char(out, ']');
    }
    buffer_char(out, '}');
}

static void write_flaws(uint32_t flaws, struct buffer *out)
{
    json_key(out, "flaws");
    buffer_char(out, '[');
    for (int i = 0; i < BENCH_FLAW_COUNT; i++) {
        if ((flaws >> i & 1) != 0) {
            json_comma(out);
            json_string(out, bench_flaw_word((enum bench_flaw)i));
        }
    }
    buffer_char(out, ']');
}

static void write_judgement(const struct bench_run *run, struct buffer *out)
{
    truth(out, "valid", run->flaws == 0);
    write_flaws(run->flaws, out);
    if (run->slo_ns != 0) {
        number(out, "slo_us", (double)run->slo_ns / 1e3);
        fine_number(out, "quantile", run->quantile);
        text(out, "verdict", verdict_word(run->verdict));
    }
    fine_number(out, "missed", bench_metric(run, BENCH_METRIC_MISSED));
}

static void write_resources(const struct bench_run *run, struct buffer *out)
{
    count(out, "bytes_sent", run->bytes_sent);
    count(out, "bytes_received", run->bytes_received);
    fine_number(out, "generator_cpu", run->generator_cpu);
    if (run->server_cpu_ns != 0) {
        fine_number(out, "server_cpu_s", (double)run->server_cpu_ns / 1e9);
        number(out, "server_cpu_us", bench_metric(run, BENCH_METRIC_CPU));
    }
    if (run->server_memory != 0) {
        count(out, "server_memory_bytes", run->server_memory);
    }
    if (run->little != 0) {
        number(out, "inflight_mean", run->inflight_mean);
        number(out, "little", run->little);
    }
}

static void write_run(const struct bench_run *run, struct buffer *out)
{
    json_comma(out);
    buffer_char(out, '{');
    count(out, "target", run->target);
    count(out, "repeat", run->repeat);
    text(out, "load", bench_load_word(run->load));
    number(out, "offered", run->offered);
    write_time(out, "started", run->started_wall_ms);
    number(out, "elapsed_s", (double)run->elapsed_ns / 1e9);
    if (run->away_ns > 0) {
        number(out, "away_s", (double)run->away_ns / 1e9);
    }
    count(out, "rows", run->rows);
    write_judgement(run, out);
    count(out, "sent", run->sent);
    write_outcomes(run->counts, out);
    count(out, "good", run->good);
    number(out, "throughput", run->throughput);
    number(out, "goodput", run->goodput);
    number(out, "rows_per_s", run->throughput * run->rows);
    write_hdr("latency", &run->latency, true, out);
    write_hdr("refusal", &run->refusal, false, out);
    write_hdr("lag", &run->lag, false, out);
    write_resources(run, out);
    write_codes(run, out);
    write_classes(run, out);
    write_stages(run, out);
    write_timeline(run, out);
    buffer_char(out, '}');
}

static void write_point(const struct bench_point *point, struct buffer *out)
{
    json_comma(out);
    buffer_char(out, '{');
    count(out, "target", point->target);
    text(out, "load", bench_load_word(point->load));
    number(out, "offered", point->offered);
    count(out, "runs", point->runs);
    count(out, "valid", point->valid);
    count(out, "passed", point->passed);
    count(out, "failed", point->failed);
    write_flaws(point->flaws, out);
    for (int i = 0; i < BENCH_METRIC_COUNT; i++) {
        json_key(out, bench_metric_key((enum bench_metric)i));
        buffer_char(out, '{');
        fine_number(out, "median", point->metrics[i].median);
        fine_number(out, "min", point->metrics[i].min);
        fine_number(out, "max", point->metrics[i].max);
        buffer_char(out, '}');
    }
    buffer_char(out, '}');
}

static void write_points(const struct bench_report *report, struct buffer *out)
{
    struct bench_point point;
    json_key(out, "points");
    buffer_char(out, '[');
    for (bool more = bench_point_next(report, NULL, &point); more;
         more = bench_point_next(report, &point, &point)) {
        write_point(&point, out);
    }
    buffer_char(out, ']');
}

static void write_targets(const struct bench_report *report, struct buffer *out)
{
    json_key(out, "targets");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < report->target_count; i++) {
        const struct bench_target *target = &report->targets[i];
        json_comma(out);
        buffer_char(out, '{');
        text(out, "name", target->name);
        text(out, "url", target->url);
        text(out, "protocol", target->protocol);
        text(out, "server", target->server);
        if (report->searched) {
            number(out, "valid_rate", target->valid_rate);
        }
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

/* A list: several notes may have the same name. */
static void write_notes(const struct bench_report *report, struct buffer *out)
{
    json_key(out, "notes");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < report->note_count; i++) {
        json_comma(out);
        buffer_char(out, '{');
        text(out, "name", report->notes[i].name);
        text(out, "value", report->notes[i].value);
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

static void write_flaw_lines(struct buffer *out)
{
    json_key(out, "flaw_lines");
    buffer_char(out, '{');
    for (int i = 0; i < BENCH_FLAW_COUNT; i++) {
        text(out, bench_flaw_word((enum bench_flaw)i), bench_flaw_line((enum bench_flaw)i));
    }
    buffer_char(out, '}');
}

void bench_report_json(const struct bench_report *report, struct buffer *out)
{
    buffer_char(out, '{');
    text(out, "format", "weir-bench");
    count(out, "version", 1);
    text(out, "by", "weir " WEIR_VERSION);
    text(out, "title", report->title);
    text(out, "model", report->model);
    text(out, "command", report->command);
    text(out, "machine", report->machine);
    text(out, "arrivals", report->arrivals);
    write_time(out, "started", report->started_wall_ms);
    number(out, "warmup_s", (double)report->warmup_ns / 1e9);
    count(out, "seed", report->seed);
    truth(out, "searched", report->searched);
    write_notes(report, out);
    write_flaw_lines(out);
    write_targets(report, out);
    write_points(report, out);
    json_key(out, "runs");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < report->run_count; i++) {
        write_run(&report->runs[i], out);
    }
    buffer_text(out, "]}\n");
}
