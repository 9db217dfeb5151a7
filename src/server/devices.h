/*
 * devices.h — the devices of the server, from its settings.
 *
 * "cpu" is always there and first.  `devices` declares others, as NAME:RUNS or
 * NAME:RUNS:unpipelined.  Those whose names differ only in the number at their ends are of one kind
 * and form a pool of that name: gpu0 and gpu1 the pool gpu.
 */
#ifndef WEIR_SERVER_DEVICES_H
#define WEIR_SERVER_DEVICES_H

#include "engine/engine.h"
#include "server/config.h"
#include "util/numa.h"

/* What engine_options takes.  Zeroed: none. */
struct devices {
    struct device_options *list;
    uint32_t count;
    struct numa_seat *seats; /* Of the processors' executors; NULL: they run anywhere. */
};

/* Seats for the first device's executors by the settings `processors` and `pin`: WEIR_EINVAL where
 * the former means nothing; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status devices_seat(struct devices *devices, const char *processors,
                                            bool pin, const struct numa *numa,
                                            struct weir_err *err);

/* WEIR_EINVAL says what was found and expected; WEIR_ENOMEM.  After either, too, devices_finish()
 * is due. */
WEIR_MUST_USE enum weir_status devices_read(struct devices *devices, const struct config *config,
                                            struct weir_err *err);
void devices_finish(struct devices *devices);

#endif
