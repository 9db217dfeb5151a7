#include "engine/model.h"

#include <assert.h>
#include <string.h>

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

const struct io_config *model_output_config(const struct model *model, const char *name)
{
    for (uint32_t i = 0; i < model->config->output_count; i++) {
        if (strcmp(model->config->outputs[i].name, name) == 0) {
            return &model->config->outputs[i];
        }
    }
    return NULL;
}
