/*
 * memory_show.h — what the index, the statistics and the metrics say about memory.
 *
 * Loop threads; the model is leased by the caller's snapshot.
 */
#ifndef WEIR_API_MEMORY_SHOW_H
#define WEIR_API_MEMORY_SHOW_H

#include "engine/catalogue.h"
#include "util/bytes.h"

/* ,"memory":{...}: of the index. */
void memory_show_index(const struct model *model, struct buffer *out);

/* ,"memory_usage":[...]: of the statistics, as Triton has it. */
void memory_show_usage(const struct model *model, struct buffer *out);

/* The families of weir_memory_... */
void memory_show_metrics(const struct catalogue *catalogue, struct buffer *out);

/* One sample of weir_model_memory_bytes for each source; `labels` are the model's. */
#define MEMORY_SHOW_MODEL "weir_model_memory_bytes"
void memory_show_model(struct buffer *out, const char *labels, const struct model *model);

#endif
