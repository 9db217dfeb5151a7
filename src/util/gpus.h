/*
 * gpus.h — the figures of the machine's GPUs, as fresh as a second while somebody asks.
 *
 * A thread of its own asks the driver, which may take its time.  It rests when nobody has asked for
 * a while: an idle server costs nothing.  Who asks after a rest is told of none, and wakes it.
 */
#ifndef WEIR_UTIL_GPUS_H
#define WEIR_UTIL_GPUS_H

#include "util/clock.h"
#include "util/nvml.h"

#define GPUS_PERIOD_NS NS_PER_S
#define GPUS_REST_NS (600 * NS_PER_S) /* More than any scraper's period. */

struct gpus;

/* Reads once, then starts the thread, which rests when nobody has asked for rest_ns.  As
 * nvml_open(); WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status gpus_create(const char *library, uint64_t rest_ns, struct gpus **out,
                                           struct weir_err *err);
void gpus_destroy(struct gpus *gpus); /* NULL is fine. */

/* Any thread; does not wait for the driver.  Energy counts since gpus_create().  How many there are
 * in `out`. */
uint32_t gpus_look(struct gpus *gpus, struct nvml_gpu out[NVML_GPUS_MAX]);

#endif
