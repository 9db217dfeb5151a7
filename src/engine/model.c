#include "engine/model.h"

#include <assert.h>
#include <string.h>

#define MODEL_BYTES_MIN \
    65536 /* Nothing is for free: the engine keeps statistics, contexts, lines. */

void model_acquire(struct model *model)
{
    atomic_fetch_add_explicit(&model->leases, 1, memory_order_relaxed);
}

void model_release(struct model *model)
{
    const uint64_t before = atomic_fetch_sub_explicit(&model->leases, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before == 1) {
        model->unleased(model);
    }
}

void model_memory(const struct model *model, struct ledger_counts *out)
{
    struct backend_memory counted = { 0 };
    for (uint32_t i = 0; i < model->replica_count; i++) {
        struct backend_memory other = { 0 };
        backend_memory(model->replicas[i].backend, &other);
        counted.heap_bytes += other.heap_bytes;
        counted.heap_peak_bytes += other.heap_peak_bytes;
        counted.mapped_bytes += other.mapped_bytes;
        counted.device_bytes =
            counted.device_bytes > other.device_bytes ? counted.device_bytes : other.device_bytes;
    }
    *out = (struct ledger_counts){ .heap_bytes = counted.heap_bytes,
                                   .mapped_bytes = counted.mapped_bytes,
                                   .device_bytes = counted.device_bytes };
    const uint64_t peak = counted.heap_peak_bytes;
    out->heap_bytes = out->heap_bytes > MODEL_BYTES_MIN ? out->heap_bytes : MODEL_BYTES_MIN;
    out->peak_bytes = out->mapped_bytes + (peak > out->heap_bytes ? peak : out->heap_bytes);
}

uint64_t model_process_bytes(const struct model *model)
{
    struct backend_memory counted;
    backend_memory(model->backend, &counted);
    return counted.process_bytes;
}

uint64_t model_process_restarts(const struct model *model)
{
    struct backend_memory counted;
    backend_memory(model->backend, &counted);
    return counted.restarts;
}

uint64_t model_uses(const struct model *model)
{
    return atomic_load_explicit(&model->stats.success.count, memory_order_relaxed) +
           atomic_load_explicit(&model->stats.fail.count, memory_order_relaxed);
}

const struct io_config *model_output_config(const struct model *model, const char *name)
{
    for (uint32_t i = 0; i < model->config->output_count; i++) {
        if (strcmp(model->config->outputs[i].name, name) == 0) {
            return &model->config->outputs[i];
        }
    }
    return NULL;
}
