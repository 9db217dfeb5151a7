/*
 * stats.h — what a finished batch and a finished request add to their model's numbers.
 *
 * Any thread; relaxed atomics only.  The meaning of each number is Triton's (the statistics
 * extension): success, queue and compute_* count requests, batch_stats count executions.
 */
#ifndef WEIR_ENGINE_STATS_H
#define WEIR_ENGINE_STATS_H

#include "engine/batch.h"
#include "engine/model.h"
#include "engine/request.h"

void stats_count_batch(struct model *model, const struct batch *batch);

/* An accepted request ended otherwise than with WEIR_OK, `ns` after it was accepted. */
void stats_count_failure(struct model_stats *stats, enum weir_status status, uint64_t ns);

/* A part of the request's answer is on its way, which took `ns`; parts_sent counts it. */
void stats_count_part(struct model *model, const struct request *request, uint64_t ns);

/* The request was answered from the cache. */
void stats_count_hit(struct model *model, const struct request *request);

/* Requests that have ended together, with their times complete: each is added, then all are counted
 * at once, so that a large batch does not cost a locked instruction per number and member.  Those
 * of one run differ only in when they came: what they share is worked out once. */
struct stats_tally {
    uint64_t count;    /* That ended with WEIR_OK, those of `run` included. */
    uint64_t ended_ns; /* The last of them. */
    uint64_t rows;
    uint64_t output_ns;
    struct {
        uint64_t count; /* That came last and have these times in common. */
        uint64_t input_ns;
        uint64_t infer_ns;
        uint64_t output_ns;
    } run;
    struct histogram_tally queue;
    struct histogram_tally gather;
    struct histogram_tally compute;
    struct histogram_tally total;
};

void stats_tally_request(struct stats_tally *tally, struct model *model,
                         const struct request *request);
void stats_count_tally(struct model *model, struct stats_tally *tally);

/* One that ran by itself. */
void stats_count_request(struct model *model, const struct request *request);

#endif
