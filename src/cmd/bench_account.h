/*
 * bench_account.h — where a server says its time went: the statistics extension, before and after.
 *
 * Blocking, and only between runs.  A server that does not tell (no such extension, no right, gRPC
 * alone on its port) is no failure: then nothing is known.
 */
#ifndef WEIR_CMD_BENCH_ACCOUNT_H
#define WEIR_CMD_BENCH_ACCOUNT_H

#include "cmd/bench_run.h"

/* X(name, member of inference_stats) */
#define BENCH_STAGES(X)        \
    X(queue, "queue")          \
    X(input, "compute_input")  \
    X(infer, "compute_infer")  \
    X(output, "compute_output")

enum bench_stage_kind {
#define BENCH_STAGE_ENUM(name, member) BENCH_STAGE_##name,
    BENCH_STAGES(BENCH_STAGE_ENUM)
#undef BENCH_STAGE_ENUM
    BENCH_STAGE_COUNT
};

struct bench_account {
    bool known;
    uint64_t count[BENCH_STAGE_COUNT];
    uint64_t ns[BENCH_STAGE_COUNT];
};

/* Asks for the sums since the model was loaded; `version` 0: of all versions together. */
void bench_account_read(const char *url, const char *model, uint64_t version,
                        struct bench_account *out);

/* Reads an answer of /v2/models/NAME/stats. */
void bench_account_parse(struct bytes json, struct bench_account *out);

/* What came between the two, as the run's stages; warm-up included, for the sums know none. */
void bench_account_between(const struct bench_account *before, const struct bench_account *after,
                           struct bench_run *run);

#endif
