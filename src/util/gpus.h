/*
 * gpus.h — the figures of the machine's GPUs, as fresh as a second while somebody asks.
 *
 * A thread of its own asks the driver, which may take its time.  It rests when nobody has asked for
 * GPUS_REST_NS: an idle server costs nothing.
 */
#ifndef WEIR_UTIL_GPUS_H
#define WEIR_UTIL_GPUS_H

#include "util/clock.h"
#include "util/nvml.h"

#define GPUS_PERIOD_NS NS_PER_S
#define GPUS_REST_NS \
    (600 * NS_PER_S) /* More than any scraper's period: what is asked after a rest is old. */

struct gpus;

/* Reads once, then starts the thread.  As nvml_open(); WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status gpus_create(const char *library, struct gpus **out,
                                           struct weir_err *err);
void gpus_destroy(struct gpus *gpus); /* NULL is fine. */

/* Any thread; does not wait for the driver.  Energy counts since gpus_create().  How many there are
 * in `out`. */
uint32_t gpus_look(struct gpus *gpus, struct nvml_gpu out[NVML_GPUS_MAX]);

#endif
