/*
 * metrics_models.h — the metrics that each model has, for metrics.c.
 */
#ifndef WEIR_API_METRICS_MODELS_H
#define WEIR_API_METRICS_MODELS_H

#include "engine/catalogue.h"
#include "util/bytes.h"

/* Appends all of their families. */
void metrics_models(const struct catalogue *catalogue, struct buffer *out);

#endif
