/*
 * bench_report.h — the results of `weir bench` as table, JSON, CSV and a page for a browser.
 *
 * The generator fills in struct bench_report; it owns everything in it, and all runs are closed.
 * Runs of one target and one load are repeats of each other: reports show their median, and
 * the least and greatest beside it.  Only valid runs enter a median, unless none is.
 */
#ifndef WEIR_CMD_BENCH_REPORT_H
#define WEIR_CMD_BENCH_REPORT_H

#include "cmd/bench_run.h"

#define BENCH_TARGETS_MAX 8

struct bench_target {
    const char *name;     /* "A", or what the user called it. */
    const char *url;      /* "http://host:8000" */
    const char *protocol; /* "REST, binary", "gRPC" */
    const char *server;   /* "weir 0.1.0", as its metadata says; NULL: unknown. */
    double valid_rate;    /* Of a search: largest rate that passed; 0: none searched or found. */
};

/* A line of settings that only people read: "connections" "64".  In the order given. */
struct bench_note {
    const char *name;
    const char *value;
};

struct bench_report {
    const char *title;    /* NULL: made from model and targets. */
    const char *model;    /* "digits" or "digits, version 2" */
    const char *command;  /* The command line, to repeat it. */
    const char *machine;  /* "2 x AMD EPYC 9B45, Linux 6.1"; NULL: unknown. */
    const char *arrivals; /* arrivals_word(), or NULL in a closed loop. */
    uint64_t started_wall_ms;
    uint64_t warmup_ns;
    uint64_t seed;
    bool searched; /* The runs are the steps of a search for the largest valid rate. */
    const struct bench_note *notes;
    uint32_t note_count;
    const struct bench_target *targets;
    uint32_t target_count;        /* 1..BENCH_TARGETS_MAX */
    const struct bench_run *runs; /* In the order measured. */
    uint32_t run_count;
};

/* All append to `out`; look at out->failed once at the end. */

/* For a terminal: settings, a line per load and target, what was wrong. */
void bench_report_table(const struct bench_report *report, bool color, struct buffer *out);

/* One document, the complete results ("weir-bench" 1); see docs/bench.md. */
void bench_report_json(const struct bench_report *report, struct buffer *out);

/* A header line, then one line per run. */
void bench_report_csv(const struct bench_report *report, struct buffer *out);

/* A page that needs nothing else: no network, no other file. */
void bench_report_html(const struct bench_report *report, struct buffer *out);

#endif
