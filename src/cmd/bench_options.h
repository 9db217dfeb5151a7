/*
 * bench_options.h — the command line of `weir bench`.
 */
#ifndef WEIR_CMD_BENCH_OPTIONS_H
#define WEIR_CMD_BENCH_OPTIONS_H

#include "cmd/arrivals.h"
#include "cmd/bench_report.h"
#include "cmd/bench_request.h"

#define BENCH_LOADS_MAX 64
#define LOAD_CONCURRENCY_MAX 16384
#define BENCH_INPUTS_MAX 64
#define BENCH_REPEAT_MAX 100

struct wish_target {
    const char *name;
    const char *url; /* Without "grpc://". */
    bool grpc;
};

/* A class of a mix; what is 0 or NULL is as for the run. */
struct wish_class {
    char name[48];
    uint32_t share;       /* In the draw; default 1. */
    uint32_t concurrency; /* A closed loop of its own, */
    double rate;          /* or arrivals of its own; 0 both: part of the draw. */
    uint64_t priority;
    uint64_t slo_ns;
    uint64_t deadline_ns;
    uint64_t rows;
    const char *key;
    char model[256];
};

struct wish {
    const char *model;
    uint64_t version;
    struct wish_target targets[BENCH_TARGETS_MAX];
    uint32_t target_count;
    bool grpc; /* Targets without a scheme of their own. */

    enum bench_load load;
    double loads[BENCH_LOADS_MAX]; /* Concurrencies, rates, or numbers of users. */
    uint32_t load_count;
    struct arrivals_spec arrivals;
    bool search;
    double resolution;
    struct wish_class classes[BENCH_CLASSES_MAX];
    uint32_t class_count;

    const char *inputs[BENCH_INPUTS_MAX];
    uint32_t input_count;
    struct request_shape shapes[REQUEST_SHAPES_MAX];
    uint32_t shape_count;
    uint64_t rows; /* 0: 1, or 64 offline. */
    uint64_t variants;
    uint64_t seed;
    bool zero;
    enum request_format format;
    const char *shared_prefix;
    const char *headers[REQUEST_HEADERS_MAX];
    uint32_t header_count;
    uint64_t priority;
    uint64_t deadline_ns;

    uint64_t slo_ns;
    uint64_t duration_ns;
    bool whole_recording; /* The window is as long as the recording, not duration_ns. */
    uint64_t warmup_ns;
    uint64_t drain_ns;
    uint64_t timeout_ns;
    uint64_t requests;
    uint64_t repeat;
    uint64_t connections;
    uint64_t streams;
    uint64_t cpu; /* Number + 1; 0: any. */
    uint64_t server_pid;
    bool spin;

    uint64_t given; /* Bits by option: which ones the command line has. */
    bool json;
    bool csv;
    const char *html;
};

/* WEIR_EINVAL. */
WEIR_MUST_USE enum weir_status wish_read(struct wish *wish, int count, char **words,
                                         struct weir_err *err);
void wish_help(struct buffer *out);

/* The load of the command line is for somebody: there are no classes, or one without its own. */
bool wish_has_draw(const struct wish *wish);

#endif
