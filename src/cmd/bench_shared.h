/*
 * bench_shared.h — tensors of `weir bench` in system shared memory (Triton's extension).
 *
 * One object holds the inputs of all variants and room for their outputs.  It is registered with
 * the server under its own name, and given back by shared_finish().
 */
#ifndef WEIR_CMD_BENCH_SHARED_H
#define WEIR_CMD_BENCH_SHARED_H

#include "cmd/bench_request.h"

struct plan_region;

/* What is shared, and with whom. */
struct shared_wish {
    const char *prefix; /* Of the object's name. */
    struct session *session;
    const struct request_inputs_spec *spec;
    const struct request_inputs *inputs; /* Made by it. */
};

/* Adds to the list at *regions.  Memory in `arena`.  WEIR_EINVAL: an output whose size nobody
 * knows; WEIR_EIO: the system's or the server's no; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status shared_make(struct arena *arena, const struct shared_wish *wish,
                                           struct plan_region **regions,
                                           const struct request_region **out, struct weir_err *err);

/* Unregisters and removes all of the list; NULL is fine. */
void shared_finish(struct plan_region *regions);

#endif
