/*
 * A line per load and target; columns that would say nothing are left out.  Lines are made twice:
 * once to see how wide each column has to be, once to be written.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cmd/bench_summary.h"
#include "cmd/term.h"

/* What a column needs to know of the whole report. */
struct shown {
    bool targets;
    bool slo;
    bool rows;
    bool cpu;
    bool repeats;
    bool errors;
    bool open;
};

struct cell {
    char text[BENCH_TEXT_MAX * 2];
};

struct column;
typedef void fill_fn(const struct bench_report *report, const struct bench_point *point,
                     const struct column *column, struct cell *cell);
typedef bool shown_fn(const struct shown *shown);

struct column {
    const char *heading;
    fill_fn *fill;
    enum bench_metric metric; /* For those that show one. */
    shown_fn *shown;          /* NULL: always. */
    bool left;
};

typedef char *format_fn(double value, char *out);

static void put(struct cell *cell, const char *text)
{
    (void)snprintf(cell->text, sizeof(cell->text), "%s", text);
}

static void put_range(struct cell *cell, const struct bench_spread *spread, format_fn *format)
{
    char low[BENCH_TEXT_MAX];
    char high[BENCH_TEXT_MAX];
    (void)snprintf(cell->text, sizeof(cell->text), "%s to %s", format(spread->min, low),
                   format(spread->max, high));
}

/* Some run at this point, for what is the same in all. */
static const struct bench_run *run_at(const struct bench_report *report,
                                      const struct bench_point *point)
{
    uint32_t i = 0;
    while (report->runs[i].target != point->target || report->runs[i].load != point->load ||
           report->runs[i].offered != point->offered) {
        i++;
    }
    return &report->runs[i];
}

static void fill_load(const struct bench_report *report, const struct bench_point *point,
                      const struct column *column, struct cell *cell)
{
    char text[BENCH_TEXT_MAX];
    (void)report;
    (void)column;
    put(cell, bench_format_load(point->offered, text));
}

static void fill_target(const struct bench_report *report, const struct bench_point *point,
                        const struct column *column, struct cell *cell)
{
    (void)column;
    (void)snprintf(cell->text, sizeof(cell->text), "%.32s", report->targets[point->target].name);
}

static void fill_rate(const struct bench_report *report, const struct bench_point *point,
                      const struct column *column, struct cell *cell)
{
    char text[BENCH_TEXT_MAX];
    (void)report;
    put(cell, bench_format_count(point->metrics[column->metric].median, text));
}

static void fill_rows(const struct bench_report *report, const struct bench_point *point,
                      const struct column *column, struct cell *cell)
{
    char text[BENCH_TEXT_MAX];
    const double rows = run_at(report, point)->rows;
    put(cell, bench_format_count(point->metrics[column->metric].median * rows, text));
}

static void fill_rate_range(const struct bench_report *report, const struct bench_point *point,
                            const struct column *column, struct cell *cell)
{
    (void)report;
    put_range(cell, &point->metrics[column->metric], bench_format_count);
}

/* 0 is not known: nothing was answered. */
static const char *time_text(double us, char *out)
{
    return us > 0 ? bench_format_us(us, out) : "-";
}

static void fill_time(const struct bench_report *report, const struct bench_point *point,
                      const struct column *column, struct cell *cell)
{
    char text[BENCH_TEXT_MAX];
    (void)report;
    put(cell, time_text(point->metrics[column->metric].median, text));
}

static void fill_time_range(const struct bench_report *report, const struct bench_point *point,
                            const struct column *column, struct cell *cell)
{
    (void)report;
    put_range(cell, &point->metrics[column->metric], bench_format_us);
}

static void fill_share(const struct bench_report *report, const struct bench_point *point,
                       const struct column *column, struct cell *cell)
{
    const double percent = point->metrics[column->metric].median * 100;
    (void)report;
    (void)snprintf(cell->text, sizeof(cell->text),
                   percent > 0 && percent < 0.1 ? "%.3f %%" : "%.1f %%", percent);
}

static void fill_verdict(const struct bench_report *report, const struct bench_point *point,
                         const struct column *column, struct cell *cell)
{
    const bool slo = run_at(report, point)->slo_ns != 0;
    (void)column;
    if (point->valid == 0) {
        put(cell, "INVALID");
    } else if (point->valid < point->runs) {
        (void)snprintf(cell->text, sizeof(cell->text), "%u of %u invalid",
                       point->runs - point->valid, point->runs);
    } else if (slo && point->passed == point->runs) {
        put(cell, "passed");
    } else if (slo) {
        put(cell, point->failed > 0 ? "failed" : "not proved");
    } else {
        put(cell, "");
    }
}

static bool shows_targets(const struct shown *shown)
{
    return shown->targets;
}

static bool shows_slo(const struct shown *shown)
{
    return shown->slo;
}

static bool shows_rows(const struct shown *shown)
{
    return shown->rows;
}

static bool shows_cpu(const struct shown *shown)
{
    return shown->cpu;
}

/* An open loop fixes how many answers there are: there the runs differ in their tails. */
static bool shows_rate_range(const struct shown *shown)
{
    return shown->repeats && !shown->open;
}

static bool shows_time_range(const struct shown *shown)
{
    return shown->repeats && shown->open;
}

static bool shows_missed(const struct shown *shown)
{
    return shown->slo || shown->errors;
}

static const struct column columns[] = {
    { "load", fill_load, 0, NULL, false },
    { "target", fill_target, 0, shows_targets, true },
    { "answers/s", fill_rate, BENCH_METRIC_THROUGHPUT, NULL, false },
    { "of all runs", fill_rate_range, BENCH_METRIC_THROUGHPUT, shows_rate_range, false },
    { "rows/s", fill_rows, BENCH_METRIC_THROUGHPUT, shows_rows, false },
    { "in SLO/s", fill_rate, BENCH_METRIC_GOODPUT, shows_slo, false },
    { "p50", fill_time, BENCH_METRIC_P50, NULL, false },
    { "p90", fill_time, BENCH_METRIC_P90, NULL, false },
    { "p99", fill_time, BENCH_METRIC_P99, NULL, false },
    { "of all runs", fill_time_range, BENCH_METRIC_P99, shows_time_range, false },
    { "p99.9", fill_time, BENCH_METRIC_P999, NULL, false },
    { "max", fill_time, BENCH_METRIC_MAX, NULL, false },
    { "missed", fill_share, BENCH_METRIC_MISSED, shows_missed, false },
    { "CPU each", fill_time, BENCH_METRIC_CPU, shows_cpu, false },
    { "", fill_verdict, 0, NULL, true },
};

#define COLUMNS (sizeof(columns) / sizeof(columns[0]))
#define COLUMN_VERDICT (COLUMNS - 1)

static struct shown shown_in(const struct bench_report *report)
{
    struct shown shown = { .targets = report->target_count > 1 };
    for (uint32_t i = 0; i < report->run_count; i++) {
        const struct bench_run *run = &report->runs[i];
        shown.slo = shown.slo || run->slo_ns != 0;
        shown.rows = shown.rows || run->rows > 1;
        shown.cpu = shown.cpu || run->server_cpu_ns != 0;
        shown.repeats = shown.repeats || (run->repeat > 0 && !report->searched);
        shown.open = shown.open || bench_load_is_open(run->load);
        shown.errors = shown.errors || bench_ended(run) != run->counts[BENCH_OK];
    }
    return shown;
}

static bool is_shown(const struct shown *shown, size_t column)
{
    return columns[column].shown == NULL || columns[column].shown(shown);
}

static void measure(const struct bench_report *report, int *widths)
{
    struct bench_point point;
    for (size_t c = 0; c < COLUMNS; c++) {
        widths[c] = (int)strlen(columns[c].heading);
    }
    for (bool more = bench_point_next(report, NULL, &point); more;
         more = bench_point_next(report, &point, &point)) {
        for (size_t c = 0; c < COLUMNS; c++) {
            struct cell cell;
            columns[c].fill(report, &point, &columns[c], &cell);
            const int width = (int)strlen(cell.text);
            widths[c] = width > widths[c] ? width : widths[c];
        }
    }
}

static const char *verdict_color(const char *text, bool color)
{
    if (strcmp(text, "passed") == 0) {
        return term_green(color);
    }
    return strcmp(text, "not proved") == 0 ? term_dim(color) : term_red(color);
}

static void write_heading(const struct shown *shown, const int *widths, bool color,
                          struct buffer *out)
{
    buffer_text(out, term_dim(color));
    for (size_t c = 0; c < COLUMN_VERDICT; c++) {
        if (is_shown(shown, c)) {
            buffer_printf(out, columns[c].left ? "  %-*s" : "  %*s", widths[c], columns[c].heading);
        }
    }
    buffer_printf(out, "%s\n", term_plain(color));
}

static void write_point(const struct bench_report *report, const struct bench_point *point,
                        const struct shown *shown, const int *widths, bool color,
                        struct buffer *out)
{
    struct cell cell;
    for (size_t c = 0; c < COLUMN_VERDICT; c++) {
        if (is_shown(shown, c)) {
            columns[c].fill(report, point, &columns[c], &cell);
            buffer_printf(out, columns[c].left ? "  %-*s" : "  %*s", widths[c], cell.text);
        }
    }
    columns[COLUMN_VERDICT].fill(report, point, &columns[COLUMN_VERDICT], &cell);
    if (cell.text[0] != '\0') {
        buffer_printf(out, "  %s%s%s", verdict_color(cell.text, color), cell.text,
                      term_plain(color));
    }
    buffer_char(out, '\n');
}

static void write_points(const struct bench_report *report, bool color, struct buffer *out)
{
    const struct shown shown = shown_in(report);
    int widths[COLUMNS];
    struct bench_point point;
    measure(report, widths);
    buffer_printf(out, "%sload: %s%s\n", term_dim(color), bench_load_unit(report->runs[0].load),
                  term_plain(color));
    write_heading(&shown, widths, color, out);
    for (bool more = bench_point_next(report, NULL, &point); more;
         more = bench_point_next(report, &point, &point)) {
        write_point(report, &point, &shown, widths, color, out);
    }
}

static void write_targets(const struct bench_report *report, bool color, struct buffer *out)
{
    for (uint32_t i = 0; i < report->target_count; i++) {
        const struct bench_target *target = &report->targets[i];
        buffer_printf(out, "%s%s%s  %s  %s", term_bold(color), target->name, term_plain(color),
                      target->url, target->protocol);
        if (target->server != NULL) {
            buffer_printf(out, "  %s", target->server);
        }
        buffer_char(out, '\n');
    }
}

/* As planned; the runs of a search differ. */
static void write_length(const struct bench_report *report, struct buffer *out)
{
    uint64_t least_ns = UINT64_MAX;
    uint64_t most_ns = 0;
    char text[BENCH_TEXT_MAX];
    for (uint32_t i = 0; i < report->run_count; i++) {
        const uint64_t ns = report->runs[i].duration_ns;
        least_ns = ns < least_ns ? ns : least_ns;
        most_ns = ns > most_ns ? ns : most_ns;
    }
    buffer_printf(out, ", %s", bench_format_us((double)least_ns / 1e3, text));
    if (most_ns > least_ns) {
        buffer_printf(out, " to %s", bench_format_us((double)most_ns / 1e3, text));
    }
    buffer_text(out, " a run");
}

static void write_settings(const struct bench_report *report, struct buffer *out)
{
    const struct bench_run *run = &report->runs[0];
    char text[BENCH_TEXT_MAX];
    buffer_printf(out, "%s, ", report->model);
    if (run->class_count > 0) {
        buffer_printf(out, "mix of %u classes", run->class_count);
    } else if (run->load == BENCH_LOAD_OPEN && report->arrivals != NULL) {
        buffer_printf(out, "open loop, %s arrivals", report->arrivals);
    } else {
        buffer_text(out, bench_load_way(run->load));
    }
    write_length(report, out);
    if (run->slo_ns != 0) {
        buffer_printf(out, ", SLO %s for %.4g %%", bench_format_us((double)run->slo_ns / 1e3, text),
                      run->quantile * 100);
    }
    for (uint32_t i = 0; i < report->note_count; i++) {
        buffer_printf(out, ", %s %s", report->notes[i].name, report->notes[i].value);
    }
    buffer_text(out, "\n");
}

/* The classes of a run, one line each; their columns are the same in all. */
static void write_classes(const struct bench_report *report, bool color, struct buffer *out)
{
    char texts[5][BENCH_TEXT_MAX];
    bool headed = false;
    for (uint32_t i = 0; i < report->run_count; i++) {
        const struct bench_run *run = &report->runs[i];
        for (uint32_t k = 0; k < run->class_count; k++) {
            const struct bench_class *class = &run->classes[k];
            const double sent = class->sent > 0 ? (double)class->sent : 1;
            if (!headed) {
                buffer_printf(out, "%s  %-28s %9s %9s %9s %9s %9s %9s%s\n", term_dim(color),
                              "class", "sent", "in SLO", "p50", "p99", "p99.9", "max",
                              term_plain(color));
                headed = true;
            }
            char name[BENCH_TEXT_MAX * 2];
            (void)snprintf(name, sizeof(name), "%.20s%s%.32s",
                           report->target_count > 1 ? report->targets[run->target].name : "",
                           report->target_count > 1 ? ", " : "", class->name);
            buffer_printf(
                out, "  %-28s %9s %7.2f %% %9s %9s %9s %9s\n", name,
                bench_format_count((double)class->sent, texts[0]), (double)class->good / sent * 100,
                time_text((double)hdr_quantile_ns(&class->latency, 0.5) / 1e3, texts[1]),
                time_text((double)hdr_quantile_ns(&class->latency, 0.99) / 1e3, texts[2]),
                time_text((double)hdr_quantile_ns(&class->latency, 0.999) / 1e3, texts[3]),
                time_text((double)class->latency.max_ns / 1e3, texts[4]));
        }
    }
    if (headed) {
        buffer_char(out, '\n');
    }
}

/* The first target at the load of `point`; false when it was not measured there. */
static bool first_at(const struct bench_report *report, const struct bench_point *point,
                     struct bench_point *out)
{
    for (bool more = bench_point_next(report, NULL, out); more;
         more = bench_point_next(report, out, out)) {
        if (out->target == 0 && out->load == point->load && out->offered == point->offered) {
            return true;
        }
    }
    return false;
}

static bool was_answered(const struct bench_point *point)
{
    return point->metrics[BENCH_METRIC_P50].median > 0;
}

static double ratio(const struct bench_point *a, const struct bench_point *b,
                    enum bench_metric metric)
{
    return a->metrics[metric].median > 0 ? b->metrics[metric].median / a->metrics[metric].median
                                         : NAN;
}

/* "B against A at 64: 1.21 x answers/s, 0.80 x p50, 0.75 x p99". */
static void write_comparison(const struct bench_report *report, struct buffer *out)
{
    struct bench_point b;
    struct bench_point a;
    char text[BENCH_TEXT_MAX];
    for (bool more = bench_point_next(report, NULL, &b); more && !report->searched;
         more = bench_point_next(report, &b, &b)) {
        if (b.target == 0 || !first_at(report, &b, &a) || !was_answered(&a) || !was_answered(&b)) {
            continue;
        }
        buffer_printf(out, "%s against %s at %s: %.2f x answers/s, %.2f x p50, %.2f x p99",
                      report->targets[b.target].name, report->targets[0].name,
                      bench_format_load(b.offered, text), ratio(&a, &b, BENCH_METRIC_THROUGHPUT),
                      ratio(&a, &b, BENCH_METRIC_P50), ratio(&a, &b, BENCH_METRIC_P99));
        if (a.metrics[BENCH_METRIC_CPU].median > 0) {
            buffer_printf(out, ", %.2f x server CPU", ratio(&a, &b, BENCH_METRIC_CPU));
        }
        buffer_char(out, '\n');
    }
}

static void write_found(const struct bench_report *report, bool color, struct buffer *out)
{
    for (uint32_t i = 0; i < report->target_count && report->searched; i++) {
        const struct bench_target *target = &report->targets[i];
        char text[BENCH_TEXT_MAX];
        buffer_printf(out, "%s%s: ", term_bold(color), target->name);
        if (target->valid_rate > 0) {
            buffer_printf(out, "largest valid rate %s/s",
                          bench_format_load(target->valid_rate, text));
        } else {
            buffer_text(out, "no rate was valid");
        }
        buffer_printf(out, "%s\n", term_plain(color));
    }
}

/* The generator's own account: its busiest thread, and how late it sent at worst. */
static void write_generator(const struct bench_report *report, struct buffer *out)
{
    double cpu = 0;
    double lag_us = 0;
    bool open = false;
    char text[BENCH_TEXT_MAX];
    for (uint32_t i = 0; i < report->run_count; i++) {
        const struct bench_run *run = &report->runs[i];
        cpu = fmax(cpu, run->generator_cpu);
        lag_us = fmax(lag_us, bench_metric(run, BENCH_METRIC_LAG));
        open = open || bench_load_is_open(run->load);
    }
    buffer_printf(out, "generator: %.0f %% of a core at most", cpu * 100);
    if (open) {
        buffer_printf(out, ", p99 of the send lag %s at most", bench_format_us(lag_us, text));
    } else if (cpu > 0.95) {
        buffer_text(out, "; it was full, so the server may be capable of more");
    }
    buffer_char(out, '\n');
}

static void write_codes(const struct bench_report *report, struct buffer *out)
{
    for (uint32_t i = 0; i < report->run_count; i++) {
        const struct bench_run *run = &report->runs[i];
        char text[BENCH_TEXT_MAX];
        const uint64_t unanswered = run->counts[BENCH_UNANSWERED];
        if (run->code_count == 0 && unanswered == 0) {
            continue;
        }
        buffer_printf(out, "%s at %s:", report->targets[run->target].name,
                      bench_format_load(run->offered, text));
        for (uint32_t k = 0; k < run->code_count; k++) {
            buffer_printf(out, "%s %llu x %s", k == 0 ? "" : ",",
                          (unsigned long long)run->codes[k].count, run->codes[k].name);
        }
        if (unanswered > 0) {
            buffer_printf(out, "%s %llu unanswered", run->code_count == 0 ? "" : ",",
                          (unsigned long long)unanswered);
        }
        buffer_char(out, '\n');
    }
}

static void write_flaws(const struct bench_report *report, bool color, struct buffer *out)
{
    uint32_t flaws = 0;
    for (uint32_t i = 0; i < report->run_count; i++) {
        flaws |= report->runs[i].flaws;
    }
    for (int i = 0; i < BENCH_FLAW_COUNT; i++) {
        if ((flaws >> i & 1) != 0) {
            buffer_printf(out, "%sinvalid%s: %s\n", term_red(color), term_plain(color),
                          bench_flaw_line((enum bench_flaw)i));
        }
    }
}

void bench_report_table(const struct bench_report *report, bool color, struct buffer *out)
{
    if (report->run_count == 0) {
        buffer_text(out, "nothing was measured\n");
        return;
    }
    write_settings(report, out);
    write_targets(report, color, out);
    buffer_char(out, '\n');
    write_points(report, color, out);
    buffer_char(out, '\n');
    write_classes(report, color, out);
    write_found(report, color, out);
    write_comparison(report, out);
    write_codes(report, out);
    write_generator(report, out);
    write_flaws(report, color, out);
}
