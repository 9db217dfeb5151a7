/*
 * metrics.h — GET /metrics in Prometheus' text format: Triton's names and Weir's own.  Loop thread.
 */
#ifndef WEIR_API_METRICS_H
#define WEIR_API_METRICS_H

struct call;

void metrics_get(struct call *call);

#endif
