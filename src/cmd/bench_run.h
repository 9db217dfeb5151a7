/*
 * bench_run.h — one measured run of `weir bench`: what was asked, what was seen, whether it counts.
 *
 * The generator calls bench_run_sent() and bench_run_answered() for every request of the measured
 * window; both are a few adds and never allocate.  Afterwards it fills in what only it knows
 * (fields marked *generator*) and calls bench_run_close(), which works out the rest.  A run belongs
 * to one thread.
 *
 * Times are nanoseconds since the start of the measured window.  Latency counts from the intended
 * time of sending in an open loop, from the actual one in a closed loop.
 */
#ifndef WEIR_CMD_BENCH_RUN_H
#define WEIR_CMD_BENCH_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cmd/verdict.h"
#include "util/bytes.h"
#include "util/err.h"
#include "util/hdr.h"

/* X(name, word, one line): how a request may end. */
#define BENCH_OUTCOMES(X)                                                       \
    X(OK, "ok", "answered with a result")                                       \
    X(REFUSED, "refused", "429 or 503: the server said it had no room")         \
    X(EXPIRED, "expired", "504: the server let the deadline pass")              \
    X(FAILED, "failed", "any other error, or the connection broke")             \
    X(UNANSWERED, "unanswered", "no answer when the run ended; counts as late")

enum bench_outcome {
#define BENCH_OUTCOME_ENUM(name, word, line) BENCH_##name,
    BENCH_OUTCOMES(BENCH_OUTCOME_ENUM)
#undef BENCH_OUTCOME_ENUM
    BENCH_OUTCOME_COUNT
};

const char *bench_outcome_word(enum bench_outcome outcome);
enum bench_outcome bench_outcome_of_http(int code);
enum bench_outcome bench_outcome_of_grpc(int code);

/* X(name, word, one line): why a run says nothing about the server. */
#define BENCH_FLAWS(X)                                                                   \
    X(CPU, "generator-cpu", "the generator used more than 80 % of a core it sends from") \
    X(LAG, "send-lag", "p99 of the send lag is above 5 % of the SLO (without one: of the p99)")                    \
    X(LITTLE, "little", "requests in flight differ from rate times latency")             \
    X(SHORT, "too-few", "too few requests for the percentile that is judged")            \
    X(ERRORS, "errors", "requests failed for other reasons than load")                   \
    X(UNANSWERED, "unanswered", "requests were given up: the figures are of the time-out")   \
    X(AWAY, "away", "no connection to the server for part of the run")                   \
    X(STOPPED, "stopped", "the run ended before its time")

enum bench_flaw {
#define BENCH_FLAW_ENUM(name, word, line) BENCH_FLAW_##name,
    BENCH_FLAWS(BENCH_FLAW_ENUM)
#undef BENCH_FLAW_ENUM
    BENCH_FLAW_COUNT
};

const char *bench_flaw_word(enum bench_flaw flaw);
const char *bench_flaw_line(enum bench_flaw flaw);

/* X(name, word, unit of the load, in words) */
#define BENCH_LOADS(X)                                                  \
    X(CLOSED, "closed", "requests in flight", "closed loop")            \
    X(OPEN, "open", "requests per second offered", "open loop")         \
    X(OFFLINE, "offline", "requests in flight", "offline")              \
    X(USERS, "users", "users", "open loop, users who come and go")

enum bench_load {
#define BENCH_LOAD_ENUM(name, word, unit, way) BENCH_LOAD_##name,
    BENCH_LOADS(BENCH_LOAD_ENUM)
#undef BENCH_LOAD_ENUM
    BENCH_LOAD_COUNT
};

const char *bench_load_word(enum bench_load load);
const char *bench_load_unit(enum bench_load load);
const char *bench_load_way(enum bench_load load);

/* Requests have times at which they are due: OPEN and USERS. */
bool bench_load_is_open(enum bench_load load);

#define BENCH_CLASSES_MAX 16
#define BENCH_STAGES_MAX 8
#define BENCH_CODES_MAX 12

/* What a slice of the run saw; requests belong to the slice in which they ended, `sent` to the one
 * in which they left.  What ends after the planned window is in the totals alone. */
struct bench_slice {
    uint64_t sent;
    uint64_t counts[BENCH_OUTCOME_COUNT];
    uint64_t good;   /* Ok and inside the SLO. */
    uint64_t p50_ns; /* These four from bench_run_close(); 0 when nothing was ok. */
    uint64_t p99_ns;
    uint64_t max_ns;
    struct hdr latency; /* Of two digits; freed by bench_run_close(). */
};

/* One sort of requests in a mix: a class, a key, a model. */
struct bench_class {
    char name[48]; /* *generator* */
    uint64_t sent;
    uint64_t counts[BENCH_OUTCOME_COUNT];
    uint64_t good;
    uint64_t slo_ns;    /* *generator*; 0: the run's. */
    struct hdr latency; /* As the run's. */
};

/* A stage of the server's own account (statistics extension): "queue", "infer", ... */
struct bench_stage {
    char name[32];
    uint64_t count;
    uint64_t ns; /* Sum over count. */
};

/* How many answers had a code, such as "503" or "RESOURCE_EXHAUSTED". */
struct bench_code {
    char name[24];
    uint64_t count;
};

struct bench_run {
    /* What was asked: *generator*, before bench_run_init(). */
    uint32_t target; /* Index in the report. */
    uint32_t repeat; /* 0.. */
    enum bench_load load;
    double offered;       /* Load in its unit. */
    uint32_t rows;        /* Rows in a request; 0 counts as 1. */
    uint64_t duration_ns; /* Measured window as planned, without warm-up. */
    uint64_t slo_ns;      /* 0: no limit; then every ok request is good. */
    double quantile;      /* Judged against the SLO; 0 counts as 0.99. */
    uint32_t class_count; /* 0 without a mix. */
    struct bench_class classes[BENCH_CLASSES_MAX];

    /* Recorded. */
    uint64_t sent;
    uint64_t counts[BENCH_OUTCOME_COUNT];
    uint64_t good;
    struct hdr latency; /* Of OK and UNANSWERED. */
    struct hdr refusal; /* Of REFUSED and EXPIRED: how long a client waited for its no. */
    uint64_t time_ns;   /* Sum of all latencies, of whatever outcome. */
    struct hdr lag;     /* Actual minus intended time of sending; empty in a closed loop. */
    struct bench_slice *slices;
    uint32_t slice_count;
    uint64_t slice_ns;
    struct bench_code codes[BENCH_CODES_MAX]; /* The last one gathers what has no room. */
    uint32_t code_count;

    /* What the generator knows at the end: *generator*. */
    uint64_t started_wall_ms; /* Since the epoch. */
    uint64_t elapsed_ns;      /* Measured window as it was. */
    uint64_t bytes_sent;
    uint64_t bytes_received;
    double inflight_mean;   /* Integral of requests in flight over time / elapsed; 0: unknown. */
    double generator_cpu;   /* 0..1: of the busiest thread that sends. */
    uint64_t away_ns;       /* Something was due, nothing under way: no connection could be had. */
    uint64_t server_cpu_ns; /* CPU time of the server in the window; 0: unknown. */
    uint64_t server_memory; /* Peak proportional set in bytes; 0: unknown. */
    bool stopped;           /* By a signal or a broken target. */
    struct bench_stage stages[BENCH_STAGES_MAX];
    uint32_t stage_count;

    /* Worked out by bench_run_close(). */
    bool closed;
    double throughput;    /* Ok answers per second. */
    double goodput;       /* Good answers per second. */
    double little;        /* inflight_mean / (rate x mean time from send to end); 0: unknown. */
    uint32_t flaws;       /* Bits of enum bench_flaw; any set: the run is invalid. */
    enum verdict verdict; /* Of the SLO; VERDICT_OPEN without one. */
};

/* Makes room; `run` holds what was asked and is else zero.  WEIR_EINVAL: the duration is 0 or above
 * a week, or there are too many classes; WEIR_ENOMEM.  On failure nothing is to be finished. */
WEIR_MUST_USE enum weir_status bench_run_init(struct bench_run *run, struct weir_err *err);
void bench_run_finish(struct bench_run *run); /* Zeroed is fine. */

/* A request has left.  Open loop: `lag_ns` is how late; closed loop: UINT64_MAX. */
void bench_run_sent(struct bench_run *run, uint32_t class_index, uint64_t at_ns, uint64_t lag_ns);

/* One has ended at `at_ns`, after `latency_ns`.  UNANSWERED ones are told at the end of the run
 * with the time they have waited.  Without a mix `class_index` is 0. */
void bench_run_answered(struct bench_run *run, uint32_t class_index, uint64_t at_ns,
                        uint64_t latency_ns, enum bench_outcome outcome);

/* Counts an answer's code, for the table of errors. */
void bench_run_code(struct bench_run *run, const char *code);

void bench_run_close(struct bench_run *run);

/* Valid and, where there is an SLO, passed: what verdict_search_tell() wants. */
bool bench_run_passed(const struct bench_run *run);

#endif
