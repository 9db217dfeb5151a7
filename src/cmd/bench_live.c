#include "cmd/bench_live.h"

#include <stdio.h>

#include "cmd/term.h"
#include "util/clock.h"

static void add_failures(char *out, size_t size, const struct bench_run *run)
{
    size_t used = 0;
    out[0] = '\0';
    for (int i = BENCH_OK + 1; i < BENCH_OUTCOME_COUNT; i++) {
        if (run->counts[i] > 0 && used < size) {
            used += (size_t)snprintf(out + used, size - used, "  %llu %s",
                                     (unsigned long long)run->counts[i],
                                     bench_outcome_word((enum bench_outcome)i));
        }
    }
}

static void add_latency(char *out, size_t size, const struct hdr *latency)
{
    char p50[32];
    char p99[32];
    (void)snprintf(out, size, "  p50 %s  p99 %s",
                   bytes_format_duration(hdr_quantile_ns(latency, 0.5), p50),
                   bytes_format_duration(hdr_quantile_ns(latency, 0.99), p99));
}

void live_show(void *user, const struct load_progress *progress)
{
    const struct live *live = user;
    const struct bench_run *run = progress->run;
    char failures[160];
    char of[16] = "";
    char latency[80] = "";
    if (!live->on) {
        return;
    }
    add_failures(failures, sizeof(failures), run);
    if (run->latency.total > 0) {
        add_latency(latency, sizeof(latency), &run->latency);
    }
    if (live->runs > 0) {
        (void)snprintf(of, sizeof(of), "/%u", live->runs);
    }
    const uint64_t window_ns = progress->planned_ns - run->duration_ns;
    const double seconds =
        progress->elapsed_ns > window_ns ? (double)(progress->elapsed_ns - window_ns) / 1e9 : 0;
    char line[400];
    (void)snprintf(line, sizeof(line), "run %u%s  %s%s%s  %.0f of %.0f s  %s%.0f/s%s%s", live->run,
                   of, live->target, live->target[0] == '\0' ? "" : "  ", live->load,
                   (double)progress->elapsed_ns / 1e9, (double)progress->planned_ns / 1e9,
                   progress->warming ? "warming up  " : "",
                   seconds > 0 ? (double)run->counts[BENCH_OK] / seconds : 0, latency, failures);
    /* One that wraps could not be wiped. */
    fprintf(stderr, "\r\x1b[K%.*s", term_columns(stderr) - 1, line);
    (void)fflush(stderr);
}

void live_wipe(const struct live *live)
{
    if (live->on) {
        fputs("\r\x1b[K", stderr);
    }
}
