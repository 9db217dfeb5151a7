/*
 * bench_load.h — plays one run of `weir bench`: sends what is due, takes the answers' times.
 *
 * Sources decide when requests begin: a closed one keeps a number of them under way, an open one
 * works through a schedule and never waits for an answer.  Several can run side by side (a class
 * that fills the server, another that comes now and then).
 *
 * What belongs to the run: from an open source what is *due* in the measured window, answered then
 * or within the drain time behind it; from a closed one what *ends* in the window.  What is not
 * answered by then counts as unanswered, with the time it has waited.  Nothing is allocated while
 * it runs.  One thread.
 */
#ifndef WEIR_CMD_BENCH_LOAD_H
#define WEIR_CMD_BENCH_LOAD_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cmd/arrivals.h"
#include "cmd/bench_run.h"
#include "cmd/bench_sentence.h"
#include "cmd/bench_wire.h"

#define LOAD_ANY_CLASS UINT32_MAX
#define LOAD_SOURCES_MAX (BENCH_CLASSES_MAX + 1)
#define LOAD_FLIGHT_MAX 65536 /* Requests under way. */

/* One sort of request: its prepared forms are sent in turn. */
struct load_class {
    const struct wire_request *variants;
    uint32_t variant_count; /* At least 1. */
    uint32_t weight;        /* In the draw of sources of any class. */
};

struct load_source {
    uint32_t class_index;            /* LOAD_ANY_CLASS: drawn by weight. */
    uint32_t concurrency;            /* Closed: this many under way; 0: open. */
    const struct arrivals *arrivals; /* Open: from the start of the warm-up. */
};

/* What is seen while it runs. */
struct load_progress {
    const struct bench_run *run;
    uint64_t elapsed_ns; /* Of warm-up and window together. */
    uint64_t planned_ns;
    uint32_t inflight;
    bool warming;
};

struct load_options {
    const char *url;
    struct http2_plan *plan;  /* NULL: REST. */
    uint32_t connections;     /* 0: as many as the load needs. */
    uint32_t connections_max; /* HTTP/1.1, open loop; 0: a default. */
    uint32_t streams_max;     /* gRPC: calls at once on a connection. */
    const struct load_class *classes;
    uint32_t class_count; /* 1..BENCH_CLASSES_MAX */
    const struct load_source *sources;
    uint32_t source_count; /* 1..LOAD_SOURCES_MAX */
    uint64_t warmup_ns;
    uint64_t drain_ns;
    uint64_t timeout_ns;   /* Of each request, from when it left; 0: none. */
    uint64_t requests_max; /* Closed loop: the window ends with this many answers; 0: by time. */
    uint64_t misses_max;   /* Ends once so many are late or failed; 0: never. */
    uint64_t seed;
    bool spin;                         /* Never sleeps: sends on the dot. */
    pid_t server_pid;                  /* Whose CPU time to look at; 0: nobody's. */
    const volatile sig_atomic_t *stop; /* Ends the run when it is not 0. */
    void (*progress)(void *user,
                     const struct load_progress *progress); /* Or NULL; 5 times a second. */
    void *user;
};

/* `run` is initialised, its duration is that of the window.  Fills what the generator knows; the
 * caller closes it.  WEIR_EIO, WEIR_ETIMEOUT: no connection at the start; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status load_play(const struct load_options *options, struct bench_run *run,
                                         struct sentences *sentences, struct weir_err *err);

#endif
