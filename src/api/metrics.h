/*
 * metrics.h — GET /metrics in Prometheus' text format.  Loop thread.
 *
 * Triton's names, so that its dashboards work, and Weir's own.
 */
#ifndef WEIR_API_METRICS_H
#define WEIR_API_METRICS_H

struct call;

void metrics_get(struct call *call);

#endif
