#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/bench_account.h"
#include "cmd/bench_summary.h"
#include "util/clock.h"
#include "util/json.h"

#define MS NS_PER_MS

static const struct bench_target two_targets[] = {
    { "A", "http://127.0.0.1:8000", "REST, binary", "weir 0.1.0", 0 },
    { "B, the \"old\"", "http://127.0.0.1:9000", "gRPC", NULL, 0 },
};

/* A second at `offered` in flight, each request taking `ms`. */
static struct bench_run make(uint32_t target, double offered, uint32_t repeat, uint64_t ms)
{
    struct bench_run run = { .target = target,
                             .repeat = repeat,
                             .load = BENCH_LOAD_CLOSED,
                             .offered = offered,
                             .duration_ns = NS_PER_S };
    assert_int_equal(bench_run_init(&run, NULL), WEIR_OK);
    for (uint64_t at = 0; at < 1000; at += ms) {
        bench_run_sent(&run, 0, at * MS, UINT64_MAX);
        bench_run_answered(&run, 0, (at + ms) * MS - 1, ms * MS, BENCH_OK);
    }
    run.elapsed_ns = NS_PER_S;
    run.server_cpu_ns = 50 * MS;
    return run;
}

struct sample {
    struct bench_run runs[16];
    struct bench_report report;
};

/* Two targets at two loads, thrice each: A takes 2, 5, 4 ms and 8, 10, 20; B ten times as long.
 * Told in an order that is not that of the loads. */
static void make_sample(struct sample *s)
{
    static const uint64_t times[2][3] = { { 8, 10, 20 }, { 2, 5, 4 } };
    uint32_t count = 0;
    *s = (struct sample){ 0 };
    for (uint32_t load = 0; load < 2; load++) {
        for (uint32_t repeat = 0; repeat < 3; repeat++) {
            for (uint32_t target = 0; target < 2; target++) {
                const uint64_t ms = times[load][repeat] * (target == 0 ? 1 : 10);
                s->runs[count] = make(target, load == 0 ? 8 : 1, repeat, ms);
                count++;
            }
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        bench_run_close(&s->runs[i]);
    }
    s->report = (struct bench_report){ .model = "digits </script><b>",
                                       .targets = two_targets,
                                       .target_count = 2,
                                       .runs = s->runs,
                                       .run_count = count,
                                       .started_wall_ms = UINT64_C(1795253463000) };
}

static void finish_sample(struct sample *s)
{
    for (uint32_t i = 0; i < s->report.run_count; i++) {
        bench_run_finish(&s->runs[i]);
    }
}

typedef void report_fn(const struct bench_report *report, struct buffer *out);

static char *text_of(report_fn *write, const struct bench_report *report)
{
    struct buffer out;
    buffer_init(&out, 1 << 24);
    write(report, &out);
    buffer_char(&out, '\0');
    assert_false(out.failed);
    return out.data;
}

static void write_plain_table(const struct bench_report *report, struct buffer *out)
{
    bench_report_table(report, false, out);
}

static void test_repeats_are_drawn_together(void **state)
{
    (void)state;
    struct sample s;
    struct bench_point point;
    make_sample(&s);
    assert_true(bench_point_next(&s.report, NULL, &point));
    assert_true(point.target == 0 && point.offered == 1 && point.runs == 3 && point.valid == 3);
    const struct bench_spread *rate = &point.metrics[BENCH_METRIC_THROUGHPUT];
    assert_true(rate->median == 250 && rate->min == 200 && rate->max == 500);
    const struct bench_spread *p50 = &point.metrics[BENCH_METRIC_P50];
    assert_true(fabs(p50->median - 4000) < 4 && fabs(p50->max - 5000) < 5);
    assert_true(bench_point_next(&s.report, &point, &point));
    assert_true(point.target == 1 && point.offered == 1);
    assert_true(bench_point_next(&s.report, &point, &point));
    assert_true(point.target == 0 && point.offered == 8);
    assert_true(bench_point_next(&s.report, &point, &point));
    assert_false(bench_point_next(&s.report, &point, &point));
    finish_sample(&s);
}

static void test_invalid_runs_stay_out_of_the_median(void **state)
{
    (void)state;
    struct sample s;
    struct bench_point point;
    make_sample(&s);
    s.runs[6].flaws = 1; /* A's 2 ms. */
    assert_true(bench_point_next(&s.report, NULL, &point));
    assert_true(point.runs == 3 && point.valid == 2);
    assert_true(point.metrics[BENCH_METRIC_THROUGHPUT].median == 225); /* Of 200 and 250. */
    s.runs[8].flaws = 1;
    s.runs[10].flaws = 1;
    assert_true(bench_point_next(&s.report, NULL, &point));
    assert_true(point.valid == 0);
    assert_true(point.metrics[BENCH_METRIC_THROUGHPUT].median == 250);
    finish_sample(&s);
}

static void test_three_digits(void **state)
{
    (void)state;
    char text[BENCH_TEXT_MAX];
    assert_string_equal(bench_format_us(0.5, text), "0.50 us");
    assert_string_equal(bench_format_us(9.994, text), "9.99 us");
    assert_string_equal(bench_format_us(9.996, text), "10.0 us");
    assert_string_equal(bench_format_us(999.4, text), "999 us");
    assert_string_equal(bench_format_us(999.6, text), "1.00 ms");
    assert_string_equal(bench_format_us(1234567, text), "1.23 s");
    assert_string_equal(bench_format_count(812, text), "812");
    assert_string_equal(bench_format_count(17213, text), "17.2 k");
    assert_string_equal(bench_format_count(999600, text), "1.00 M");
    assert_string_equal(bench_format_load(64, text), "64");
    assert_string_equal(bench_format_load(12.5, text), "12.5");
}

static void test_the_table_compares_what_was_measured(void **state)
{
    (void)state;
    struct sample s;
    make_sample(&s);
    s.report.model = "digits";
    s.runs[0].flaws = UINT32_C(1) << BENCH_FLAW_CPU;
    bench_run_code(&s.runs[1], "503");
    char *table = text_of(write_plain_table, &s.report);
    assert_non_null(strstr(table, "digits, closed loop, 1.00 s a run"));
    assert_non_null(strstr(table, "load: requests in flight"));
    assert_non_null(strstr(table, "  250   200 to 500  4.00 ms"));
    assert_non_null(strstr(table, "B, the \"old\" against A at 1: 0.10 x answers/s, 10.00 x p50"));
    assert_non_null(strstr(table, "1 of 3 invalid"));
    assert_non_null(strstr(table, "B, the \"old\" at 8: 1 x 503"));
    assert_non_null(strstr(table, "invalid: the generator used more than 80 % of a core"));
    assert_null(strchr(table, '\x1b'));
    free(table);
    s.runs[2].duration_ns *= 8; /* As the steps of a search. */
    table = text_of(write_plain_table, &s.report);
    assert_non_null(strstr(table, "1.00 s to 8.00 s a run"));
    free(table);
    finish_sample(&s);
}

static yyjson_val *at(yyjson_val *value, const char *pointer)
{
    yyjson_val *found = yyjson_ptr_get(value, pointer);
    if (found == NULL) {
        fail_msg("nothing at %s", pointer);
    }
    return found;
}

static void test_the_document_is_complete(void **state)
{
    (void)state;
    struct sample s;
    yyjson_doc *doc = NULL;
    struct weir_err err = { 0 };
    make_sample(&s);
    char *json = text_of(bench_report_json, &s.report);
    if (json_read(bytes_of(json), &doc, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    yyjson_val *root = yyjson_doc_get_root(doc);
    assert_string_equal(yyjson_get_str(at(root, "/format")), "weir-bench");
    assert_string_equal(yyjson_get_str(at(root, "/model")), "digits </script><b>");
    assert_string_equal(yyjson_get_str(at(root, "/started")), "2026-11-21T09:31:03Z");
    assert_int_equal(yyjson_arr_size(at(root, "/runs")), 12);
    assert_int_equal(yyjson_arr_size(at(root, "/points")), 4);
    assert_true(yyjson_get_num(at(root, "/points/0/throughput/median")) == 250);
    assert_int_equal(yyjson_get_uint(at(root, "/runs/6/ok")), 500);
    assert_true(yyjson_get_num(at(root, "/runs/6/server_cpu_us")) == 100);
    assert_int_equal(yyjson_arr_size(at(root, "/runs/6/timeline/ok")), 20);
    assert_int_equal(yyjson_get_uint(at(root, "/runs/6/timeline/ok/0")), 25);
    assert_true(yyjson_get_bool(at(root, "/runs/6/valid")));
    yyjson_doc_free(doc);
    free(json);
    finish_sample(&s);
}

/* The curve and the histogram hold every request, whatever was measured. */
static void test_the_distribution_is_whole(void **state)
{
    (void)state;
    struct bench_run run = make(0, 1, 0, 10);
    for (uint64_t ns = 1; ns < 3 * HDR_MAX_NS; ns += ns / 3 + 1) {
        bench_run_answered(&run, 0, 0, ns, BENCH_OK);
    }
    bench_run_close(&run);
    const struct bench_report report = {
        .model = "m", .targets = two_targets, .target_count = 1, .runs = &run, .run_count = 1
    };
    char *json = text_of(bench_report_json, &report);
    yyjson_doc *doc = NULL;
    assert_int_equal(json_read(bytes_of(json), &doc, NULL), WEIR_OK);
    yyjson_val *latency = at(yyjson_doc_get_root(doc), "/runs/0/latency");
    uint64_t sum = 0;
    double end = 0;
    size_t i;
    size_t max;
    yyjson_val *item;
    yyjson_arr_foreach(at(latency, "/histogram"), i, max, item) {
        assert_true(yyjson_get_num(yyjson_arr_get(item, 0)) >= end * 0.999);
        end = yyjson_get_num(yyjson_arr_get(item, 1));
        sum += yyjson_get_uint(yyjson_arr_get(item, 2));
    }
    assert_int_equal(sum, run.latency.total);
    assert_int_equal(sum, yyjson_get_uint(at(latency, "/count")));
    double q = -1;
    double us = -1;
    yyjson_arr_foreach(at(latency, "/curve"), i, max, item) {
        assert_true(yyjson_get_num(yyjson_arr_get(item, 0)) > q);
        assert_true(yyjson_get_num(yyjson_arr_get(item, 1)) >= us);
        q = yyjson_get_num(yyjson_arr_get(item, 0));
        us = yyjson_get_num(yyjson_arr_get(item, 1));
    }
    assert_true(q == 1 && us == (double)run.latency.max_ns / 1e3);
    yyjson_doc_free(doc);
    free(json);
    bench_run_finish(&run);
}

static void test_csv_has_a_line_per_run(void **state)
{
    (void)state;
    struct sample s;
    make_sample(&s);
    s.runs[0].flaws = 3;
    char *csv = text_of(bench_report_csv, &s.report);
    size_t lines = 0;
    for (const char *c = csv; *c != '\0'; c++) {
        lines += *c == '\n';
    }
    assert_int_equal(lines, 13);
    assert_memory_equal(csv, "target,url,load,offered,", 24);
    assert_non_null(strstr(csv, "\nA,http://127.0.0.1:8000,closed,8,0,1.000,1,0.000,0,"
                                "generator-cpu+send-lag,,125,125,0,0,0,0,125,125,125,"));
    assert_non_null(strstr(csv, "\n\"B, the \"\"old\"\"\",http://127.0.0.1:9000,closed,1,2,"));
    free(csv);
    finish_sample(&s);
}

/* The page ends where it should, whatever is in a name, and fetches nothing. */
static void test_the_page_is_self_contained(void **state)
{
    (void)state;
    struct sample s;
    make_sample(&s);
    char *page = text_of(bench_report_html, &s.report);
    assert_null(strstr(page, "@RESULTS@"));
    assert_null(strstr(page, "digits </script>"));
    assert_non_null(strstr(page, "digits \\u003c/script>\\u003cb>"));
    assert_non_null(strstr(page, "</html>"));
    assert_null(strstr(page, "src="));
    assert_null(strstr(page, "@import"));
    assert_null(strstr(page, "<link"));
    assert_null(strstr(page, "https:"));
    free(page);
    finish_sample(&s);
}

/* As Triton answers: sums of each version since it was loaded. */
static void test_stages_are_what_came_between(void **state)
{
    (void)state;
    struct bench_account before;
    struct bench_account after;
    struct bench_run run = { 0 };
    bench_account_parse(BYTES_LITERAL("{\"model_stats\":[{\"inference_stats\":{"
                                      "\"queue\":{\"count\":10,\"ns\":1000},"
                                      "\"compute_infer\":{\"count\":10,\"ns\":5000}}}]}"),
                        &before);
    bench_account_parse(BYTES_LITERAL("{\"model_stats\":[{\"inference_stats\":{"
                                      "\"queue\":{\"count\":25,\"ns\":4000},"
                                      "\"compute_infer\":{\"count\":10,\"ns\":5000}}},"
                                      "{\"inference_stats\":{"
                                      "\"queue\":{\"count\":5,\"ns\":7000}}}]}"),
                        &after);
    bench_account_between(&before, &after, &run);
    assert_int_equal(run.stage_count, 1); /* Nothing was inferred: from a cache, say. */
    assert_string_equal(run.stages[0].name, "queue");
    assert_int_equal(run.stages[0].count, 20);
    assert_int_equal(run.stages[0].ns, 10000);
    bench_account_between(&after, &before, &run); /* Loaded anew. */
    assert_int_equal(run.stage_count, 0);
    bench_account_parse(BYTES_LITERAL("{\"error\":\"no\"}"), &after);
    assert_false(after.known);
    bench_account_between(&before, &after, &run);
    assert_int_equal(run.stage_count, 0);
}

static void test_nothing_measured(void **state)
{
    (void)state;
    const struct bench_report report = { .model = "m", .targets = two_targets, .target_count = 1 };
    char *table = text_of(write_plain_table, &report);
    assert_string_equal(table, "nothing was measured\n");
    free(table);
    free(text_of(bench_report_json, &report));
    free(text_of(bench_report_csv, &report));
    free(text_of(bench_report_html, &report));
}

static void test_a_small_buffer_fails_whole(void **state)
{
    (void)state;
    struct sample s;
    make_sample(&s);
    struct buffer out;
    buffer_init(&out, 5000);
    bench_report_html(&s.report, &out);
    assert_true(out.failed);
    buffer_finish(&out);
    finish_sample(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repeats_are_drawn_together),
        cmocka_unit_test(test_invalid_runs_stay_out_of_the_median),
        cmocka_unit_test(test_three_digits),
        cmocka_unit_test(test_the_table_compares_what_was_measured),
        cmocka_unit_test(test_the_document_is_complete),
        cmocka_unit_test(test_the_distribution_is_whole),
        cmocka_unit_test(test_csv_has_a_line_per_run),
        cmocka_unit_test(test_the_page_is_self_contained),
        cmocka_unit_test(test_stages_are_what_came_between),
        cmocka_unit_test(test_nothing_measured),
        cmocka_unit_test(test_a_small_buffer_fails_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
