#include "api/device_show.h"

#include <stdio.h>

#include "engine/pool.h"
#include "util/json.h"
#include "util/metric.h"

#define LABEL_BYTES 512 /* Two names of LEDGER_NAME_BYTES, each character escaped. */

static void write_device(struct buffer *out, const struct replica_look *look)
{
    json_comma(out);
    buffer_text(out, "{\"name\":");
    json_string(out, look->device);
    buffer_printf(out, ",\"state\":\"%s\",\"pace\":%.3f,\"runs\":%llu,\"busy_ns\":%llu",
                  look->out ? "LOST" : "READY", look->pace, (unsigned long long)look->runs,
                  (unsigned long long)look->busy_ns);
    if (look->why[0] != '\0') {
        buffer_text(out, ",\"reason\":");
        json_string(out, look->why);
    }
    buffer_char(out, '}');
}

void device_show_model(struct model *model, struct buffer *out)
{
    struct replica_look look;
    if (!replica_look(model, 1, &look)) {
        return;
    }
    buffer_text(out, ",\"devices\":[");
    for (uint32_t i = 0; replica_look(model, i, &look); i++) {
        write_device(out, &look);
    }
    buffer_printf(out, "],\"balance\":%.3f", pool_balance(model->pool));
}

/* ---- Metrics --------------------------------------------------------------------------------- */

/* X(name, type, help, value of the device's figures `d`) */
#define DEVICE_NUMBERS(X)                                                                          \
    X("weir_device_busy_seconds_total", "counter",                                                 \
      "Time that runs held the device, added up over those at once", (double)d.busy_ns / NS_PER_S) \
    X("weir_device_batches_total", "counter", "Batches that the device has run", (double)d.batches)

static void label(char out[LABEL_BYTES], const struct pool *pool, uint32_t device)
{
    struct buffer labels = { .data = out, .capacity = LABEL_BYTES, .size_max = LABEL_BYTES };
    metric_add_label(&labels, "pool", pool->name);
    metric_add_label(&labels, "device", pool->devices[device].name);
}

static void write_devices(const struct engine *engine, struct buffer *out)
{
    char labels[LABEL_BYTES];
#define WRITE_NUMBER(name, type, help, value)                                 \
    metric_family(out, name, help, type);                                     \
    for (uint32_t p = 0; p < engine->pool_count; p++) {                       \
        for (uint32_t i = 0; i < engine->pools[p]->device_count; i++) {       \
            const struct pool_device_look d = pool_look(engine->pools[p], i); \
            label(labels, engine->pools[p], i);                               \
            metric_double(out, name, labels, value);                          \
        }                                                                     \
    }
    DEVICE_NUMBERS(WRITE_NUMBER)
#undef WRITE_NUMBER
    metric_family(out, "weir_pool_balance",
                  "How evenly the pool's devices were busy of late: 1 evenly, 1/n one of n",
                  "gauge");
    for (uint32_t p = 0; p < engine->pool_count; p++) {
        struct buffer text = { .data = labels, .capacity = LABEL_BYTES, .size_max = LABEL_BYTES };
        metric_add_label(&text, "pool", engine->pools[p]->name);
        metric_double(out, "weir_pool_balance", labels, pool_balance(engine->pools[p]));
    }
}

/* X(name, type, help, bit of what must be known, value of the GPU `g`): Triton's. */
#define GPU_NUMBERS(X)                                                                             \
    X("nv_gpu_utilization", "gauge", "GPU utilization rate [0.0 - 1.0)", NVML_UTILIZATION,         \
      g->percent / 100.0)                                                                          \
    X("nv_gpu_memory_total_bytes", "gauge", "GPU total memory, in bytes", NVML_MEMORY,             \
      (double)g->memory_total_bytes)                                                               \
    X("nv_gpu_memory_used_bytes", "gauge", "GPU used memory, in bytes", NVML_MEMORY,               \
      (double)g->memory_used_bytes)                                                                \
    X("nv_gpu_power_usage", "gauge", "GPU power usage in watts", NVML_POWER,                       \
      (double)g->power_mw / 1e3)                                                                   \
    X("nv_gpu_power_limit", "gauge", "GPU power management limit in watts", NVML_POWER_LIMIT,      \
      (double)g->power_limit_mw / 1e3)                                                             \
    X("nv_energy_consumption", "counter", "GPU energy consumption in joules since the server started", \
      NVML_ENERGY, (double)g->energy_mj / 1e3)

static void write_gpus(struct gpus *gpus, struct buffer *out)
{
    struct nvml_gpu seen[NVML_GPUS_MAX];
    const uint32_t count = gpus == NULL ? 0 : gpus_look(gpus, seen);
#define WRITE_GPU(name, type, help, bit, value)                                                    \
    metric_family(out, name, help, type);                                                          \
    for (const struct nvml_gpu *g = seen; g < seen + count; g++) {                                 \
        char labels[LABEL_BYTES];                                                                  \
        struct buffer text = { .data = labels, .capacity = LABEL_BYTES, .size_max = LABEL_BYTES }; \
        metric_add_label(&text, "gpu_uuid", g->uuid);                                              \
        if ((g->known & (bit)) != 0) {                                                             \
            metric_double(out, name, labels, value);                                               \
        }                                                                                          \
    }
    GPU_NUMBERS(WRITE_GPU)
#undef WRITE_GPU
}

void device_show_metrics(const struct engine *engine, struct gpus *gpus, struct buffer *out)
{
    write_devices(engine, out);
    write_gpus(gpus, out);
}
