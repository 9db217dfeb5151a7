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

void stats_count_batch(struct model_stats *stats, const struct batch *batch);

/* The request has ended; its times are complete. */
void stats_count_request(struct model_stats *stats, const struct request *request);

#endif
