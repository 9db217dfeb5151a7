/*
 * Two GPUs for tests, behind the names of NVIDIA's management library.  The second does not tell its energy.  Where the
 * environment has FAKE_NVML_FAILS the library does not start, as without a driver.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOT_SUPPORTED 3
#define DRIVER_NOT_LOADED 9

struct memory {
    unsigned long long total, free, used;
};

struct utilization {
    unsigned gpu, memory;
};

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size);
int nvmlDeviceGetUtilizationRates(void *device, struct utilization *out);
int nvmlDeviceGetMemoryInfo(void *device, struct memory *out);
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts);
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts);
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules);

static int gpus[2];
static unsigned long long energy = 5000000;

int nvmlInit_v2(void)
{
    return getenv("FAKE_NVML_FAILS") != NULL ? DRIVER_NOT_LOADED : 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = 2;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    *device = &gpus[index];
    return 0;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size)
{
    (void)snprintf(uuid, size, "GPU-%08x", device == &gpus[0] ? 0xa0u : 0xa1u);
    return 0;
}

int nvmlDeviceGetUtilizationRates(void *device, struct utilization *out)
{
    out->gpu = device == &gpus[0] ? 37 : 0;
    out->memory = 11;
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *out)
{
    out->total = 85899345920ULL;
    out->used = device == &gpus[0] ? 1073741824ULL : 0;
    out->free = out->total - out->used;
    return 0;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts)
{
    *milliwatts = device == &gpus[0] ? 123456 : 60000;
    return 0;
}

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts)
{
    (void)device;
    *milliwatts = 700000;
    return 0;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules)
{
    if (device != &gpus[0]) {
        return NOT_SUPPORTED;
    }
    energy += 1500; /* Each time that somebody looks. */
    *millijoules = energy;
    return 0;
}
