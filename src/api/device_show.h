/*
 * device_show.h — what is told about devices: in the index, in statistics, in metrics.
 */
#ifndef WEIR_API_DEVICE_SHOW_H
#define WEIR_API_DEVICE_SHOW_H

#include "engine/engine.h"
#include "engine/model.h"
#include "util/bytes.h"
#include "util/gpus.h"

/* Members of the model's object in the index or in statistics: where it is on several devices, each
 * of them and its state, and how evenly the pool's are used.  Nothing of a model on one device. */
void device_show_model(struct model *model, struct buffer *out);

/* weir_device_*, weir_pool_balance, and Triton's nv_gpu_*, without samples where there are no GPUs
 * (`gpus` is NULL). */
void device_show_metrics(const struct engine *engine, struct gpus *gpus, struct buffer *out);

#endif
