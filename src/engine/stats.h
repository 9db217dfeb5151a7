/*
 * stats.h — what a finished batch and a finished request add to their model's numbers.
 *
 * Any thread; relaxed atomics only.  The meaning of each number is Triton's (the statistics extension):
 * success, queue and compute_* count requests, batch_stats count executions.
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

/* The request has run and ended; its times are complete. */
void stats_count_request(struct model *model, const struct request *request);

#endif
