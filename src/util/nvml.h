/*
 * nvml.h — what NVIDIA's management library says about GPUs.
 *
 * The library belongs to the driver: it is opened when the program runs, by name, and on most
 * machines it is not there.  Only functions that every version since 2012 has are needed; what a
 * GPU or a driver does not tell is said to be unknown.  Calls go to the driver and may take
 * milliseconds: never on a loop (gpus.h).
 */
#ifndef WEIR_UTIL_NVML_H
#define WEIR_UTIL_NVML_H

#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

#define NVML_LIBRARY "libnvidia-ml.so.1"
#define NVML_GPUS_MAX 64
#define NVML_UUID_BYTES 96

/* Bits of nvml_gpu.known. */
enum {
    NVML_UTILIZATION = 1,
    NVML_MEMORY = 2,
    NVML_POWER = 4,
    NVML_POWER_LIMIT = 8,
    NVML_ENERGY = 16,
};

struct nvml_gpu {
    char uuid[NVML_UUID_BYTES]; /* "GPU-..." */
    uint32_t known;
    uint32_t percent; /* Of the last sampling period in which something ran on it. */
    uint64_t memory_total_bytes;
    uint64_t memory_used_bytes;
    uint64_t power_mw;
    uint64_t power_limit_mw;
    uint64_t energy_mj; /* Since the driver was loaded. */
};

struct nvml;

/* One thread at a time.  WEIR_ENOENT: there is no such library; WEIR_EUNAVAILABLE: it does not
 * work, as without a driver. */
WEIR_MUST_USE enum weir_status nvml_open(const char *library, struct nvml **out,
                                         struct weir_err *err);
void nvml_close(struct nvml *nvml); /* NULL is fine. */

uint32_t nvml_count(const struct nvml *nvml); /* At most NVML_GPUS_MAX. */

/* False: the GPU has no name any more: it is lost. */
WEIR_MUST_USE bool nvml_read(struct nvml *nvml, uint32_t index, struct nvml_gpu *out);

#endif
