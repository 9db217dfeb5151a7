/*
 * bench_plan.h — a target of `weir bench` made ready: its model described, its requests built.
 */
#ifndef WEIR_CMD_BENCH_PLAN_H
#define WEIR_CMD_BENCH_PLAN_H

#include "cmd/bench_load.h"
#include "cmd/bench_options.h"

struct plan_region; /* Shared memory with a server. */

struct plan_target {
    const struct wish_target *wish;
    struct http2_plan *plan; /* gRPC; else NULL. */
    struct load_class classes[BENCH_CLASSES_MAX];
    uint32_t class_count; /* At least 1. */
    char server[80];      /* "weir 0.1.0"; "": it did not say. */
    const char *model;    /* "digits, version 1" */
    uint32_t variants;
    struct plan_region *regions; /* To be given back; NULL: none. */
};

/* Asks the server.  Memory in `arena`.  WEIR_EINVAL: the model does not take this; WEIR_EIO,
 * WEIR_ETIMEOUT: the server; WEIR_ENOMEM.  Finish it also after a failure. */
WEIR_MUST_USE enum weir_status plan_target_init(struct plan_target *target, struct arena *arena,
                                                const struct wish *wish, uint32_t index,
                                                struct weir_err *err);
void plan_target_finish(struct plan_target *target);

#endif
