/* One line per run, for spreadsheets and scripts that would rather not read JSON. */
#include <string.h>

#include "cmd/bench_summary.h"

static void cell(struct buffer *out, const char *text)
{
    if (text == NULL) {
        return;
    }
    if (strpbrk(text, ",\"\r\n") == NULL) {
        buffer_text(out, text);
        return;
    }
    buffer_char(out, '"');
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"') {
            buffer_char(out, '"');
        }
        buffer_char(out, *c);
    }
    buffer_char(out, '"');
}

static void write_header(struct buffer *out)
{
    buffer_text(out,
                "target,url,load,offered,repeat,elapsed_s,rows,slo_us,valid,flaws,verdict,sent");
    for (int i = 0; i < BENCH_OUTCOME_COUNT; i++) {
        buffer_printf(out, ",%s", bench_outcome_word((enum bench_outcome)i));
    }
    buffer_text(out, ",good");
    for (int i = 0; i < BENCH_METRIC_COUNT; i++) {
        buffer_printf(out, ",%s", bench_metric_key((enum bench_metric)i));
    }
    buffer_text(out, ",little,bytes_sent,bytes_received\n");
}

/* "cpu+lag": words joined, so that no cell needs quotes. */
static void write_flaws(const struct bench_run *run, struct buffer *out)
{
    bool first = true;
    for (int i = 0; i < BENCH_FLAW_COUNT; i++) {
        if ((run->flaws >> i & 1) != 0) {
            buffer_printf(out, "%s%s", first ? "" : "+", bench_flaw_word((enum bench_flaw)i));
            first = false;
        }
    }
}

static void write_run(const struct bench_report *report, const struct bench_run *run,
                      struct buffer *out)
{
    const struct bench_target *target = &report->targets[run->target];
    cell(out, target->name);
    buffer_char(out, ',');
    cell(out, target->url);
    buffer_printf(out, ",%s,%.10g,%u,%.3f,%u,%.3f,%d,", bench_load_word(run->load), run->offered,
                  run->repeat, (double)run->elapsed_ns / 1e9, run->rows, (double)run->slo_ns / 1e3,
                  run->flaws == 0);
    write_flaws(run, out);
    buffer_printf(out, ",%s,%llu", run->slo_ns == 0 ? "" : verdict_word(run->verdict),
                  (unsigned long long)run->sent);
    for (int i = 0; i < BENCH_OUTCOME_COUNT; i++) {
        buffer_printf(out, ",%llu", (unsigned long long)run->counts[i]);
    }
    buffer_printf(out, ",%llu", (unsigned long long)run->good);
    for (int i = 0; i < BENCH_METRIC_COUNT; i++) {
        buffer_printf(out, ",%.6g", bench_metric(run, (enum bench_metric)i));
    }
    buffer_printf(out, ",%.3f,%llu,%llu\n", run->little, (unsigned long long)run->bytes_sent,
                  (unsigned long long)run->bytes_received);
}

void bench_report_csv(const struct bench_report *report, struct buffer *out)
{
    write_header(out);
    for (uint32_t i = 0; i < report->run_count; i++) {
        write_run(report, &report->runs[i], out);
    }
}
