/*
 * The types are those of the library's public interface (NVML API Reference Guide): results are
 * ints of which 0 is good, a device is a pointer that nobody looks behind, and structures are
 * numbers in the order of the guide.
 */
#include "util/nvml.h"

#include <dlfcn.h>
#include <stddef.h>

#include "util/mem.h"

typedef void *device_t;

struct memory {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
};

struct utilization {
    unsigned gpu;
    unsigned memory;
};

/* X(field, symbol, needed, parameters) */
#define FUNCTIONS(X)                                                                             \
    X(init, "nvmlInit_v2", true, (void))                                                         \
    X(shutdown, "nvmlShutdown", true, (void))                                                    \
    X(count, "nvmlDeviceGetCount_v2", true, (unsigned *))                                        \
    X(handle, "nvmlDeviceGetHandleByIndex_v2", true, (unsigned, device_t *))                     \
    X(uuid, "nvmlDeviceGetUUID", true, (device_t, char *, unsigned))                             \
    X(utilization, "nvmlDeviceGetUtilizationRates", false, (device_t, struct utilization *))     \
    X(memory, "nvmlDeviceGetMemoryInfo", false, (device_t, struct memory *))                     \
    X(power, "nvmlDeviceGetPowerUsage", false, (device_t, unsigned *))                           \
    X(limit, "nvmlDeviceGetEnforcedPowerLimit", false, (device_t, unsigned *))                   \
    X(energy, "nvmlDeviceGetTotalEnergyConsumption", false, (device_t, unsigned long long *))

struct nvml {
    void *library;
    bool started;
    uint32_t gpus;
#define FUNCTION_FIELD(field, symbol, needed, parameters) int(*field) parameters;
    FUNCTIONS(FUNCTION_FIELD)
#undef FUNCTION_FIELD
};

static const struct {
    const char *symbol;
    bool needed;
    size_t offset;
} functions[] = {
#define FUNCTION_ROW(field, symbol, needed, parameters) \
    { symbol, needed, offsetof(struct nvml, field) },
    FUNCTIONS(FUNCTION_ROW)
#undef FUNCTION_ROW
};

static enum weir_status find_functions(struct nvml *nvml, const char *library, struct weir_err *err)
{
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        void **place = (void **)(void *)((char *)nvml + functions[i].offset);
        *place = dlsym(nvml->library, functions[i].symbol);
        if (*place == NULL && functions[i].needed) {
            return err_set(err, WEIR_EUNAVAILABLE, "%s: has no %s, expected NVIDIA's library",
                           library, functions[i].symbol);
        }
    }
    return WEIR_OK;
}

static enum weir_status start(struct nvml *nvml, const char *library, struct weir_err *err)
{
    const int failed = nvml->init();
    if (failed != 0) {
        return err_set(err, WEIR_EUNAVAILABLE, "%s: does not start: error %d", library, failed);
    }
    nvml->started = true;
    unsigned count = 0;
    const int uncounted = nvml->count(&count);
    if (uncounted != 0) {
        return err_set(err, WEIR_EUNAVAILABLE, "%s: does not count GPUs: error %d", library,
                       uncounted);
    }
    nvml->gpus = count < NVML_GPUS_MAX ? count : NVML_GPUS_MAX;
    return WEIR_OK;
}

enum weir_status nvml_open(const char *library, struct nvml **out, struct weir_err *err)
{
    struct nvml *nvml = mem_try_zero(1, sizeof(*nvml));
    if (nvml == NULL) {
        return err_nomem(err, library, sizeof(*nvml));
    }
    nvml->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (nvml->library == NULL) {
        const char *why = dlerror();
        mem_free(nvml);
        return err_set(err, WEIR_ENOENT, "%s", why != NULL ? why : library);
    }
    enum weir_status status = find_functions(nvml, library, err);
    status = status == WEIR_OK ? start(nvml, library, err) : status;
    if (status != WEIR_OK) {
        nvml_close(nvml);
        return status;
    }
    *out = nvml;
    return WEIR_OK;
}

void nvml_close(struct nvml *nvml)
{
    if (nvml == NULL) {
        return;
    }
    if (nvml->started) {
        (void)nvml->shutdown();
    }
    (void)dlclose(nvml->library);
    mem_free(nvml);
}

uint32_t nvml_count(const struct nvml *nvml)
{
    return nvml->gpus;
}

static void read_load(const struct nvml *nvml, device_t device, struct nvml_gpu *gpu)
{
    struct utilization load;
    struct memory memory;
    if (nvml->utilization != NULL && nvml->utilization(device, &load) == 0) {
        gpu->known |= NVML_UTILIZATION;
        gpu->percent = load.gpu < 100 ? load.gpu : 100;
    }
    if (nvml->memory != NULL && nvml->memory(device, &memory) == 0) {
        gpu->known |= NVML_MEMORY;
        gpu->memory_total_bytes = memory.total;
        gpu->memory_used_bytes = memory.used;
    }
}

static void read_power(const struct nvml *nvml, device_t device, struct nvml_gpu *gpu)
{
    unsigned power;
    unsigned limit;
    unsigned long long energy;
    if (nvml->power != NULL && nvml->power(device, &power) == 0) {
        gpu->known |= NVML_POWER;
        gpu->power_mw = power;
    }
    if (nvml->limit != NULL && nvml->limit(device, &limit) == 0) {
        gpu->known |= NVML_POWER_LIMIT;
        gpu->power_limit_mw = limit;
    }
    if (nvml->energy != NULL && nvml->energy(device, &energy) == 0) {
        gpu->known |= NVML_ENERGY;
        gpu->energy_mj = energy;
    }
}

bool nvml_read(struct nvml *nvml, uint32_t index, struct nvml_gpu *out)
{
    struct nvml_gpu gpu = { .known = 0 };
    device_t device;
    if (nvml->handle(index, &device) != 0 || nvml->uuid(device, gpu.uuid, sizeof(gpu.uuid)) != 0) {
        return false;
    }
    gpu.uuid[sizeof(gpu.uuid) - 1] = '\0';
    read_load(nvml, device, &gpu);
    read_power(nvml, device, &gpu);
    *out = gpu;
    return true;
}
