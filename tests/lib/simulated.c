#include "simulated.h"

#include <stdio.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "engine/placement.h"
#include "engine/pool.h"

static void unleased(struct model *model)
{
    (void)model;
}

static void expect_ok(enum weir_status status, const struct weir_err *err)
{
    if (status != WEIR_OK) {
        fprintf(stderr, "the simulated model is not to be had: %s\n", err->text);
        abort();
    }
}

void simulated_load(struct model *model, struct model_config *config, struct engine *engine)
{
    const struct backend_load how = {
        .model_name = config->name,
        .version = 1,
        .folder_fd = -1,
        .device = config->device,
        .intra_threads = config->intra_threads == 0 ? 1 : config->intra_threads,
        .contexts_max = 16,
        .settings = config->settings,
        .setting_count = config->setting_count,
        .clock = engine->clock,
        .blocks = engine->blocks,
    };
    struct weir_err err = { 0 };
    model->ops = backend_find("sim");
    expect_ok(backend_load(model->ops, &how, &model->backend, &err), &err);
    model->name = config->name;
    model->version = 1;
    model->config = config;
    model->signature = backend_signature(model->backend);
    model->batching = true;
    model->unleased = unleased;
    model_acquire(model);
}

void simulated_spread(struct model *model, struct model_config *config, struct engine *engine)
{
    struct placement place;
    struct weir_err err = { 0 };
    expect_ok(placement_find(engine, config, &place, &err), &err);
    const char *device = config->device;
    for (uint32_t i = place.count; i-- > 0;) { /* The first one is the last, and the model's. */
        config->device = place.pool->devices[place.devices[i]].name;
        simulated_load(model, config, engine);
        model->replicas[i] =
            (struct replica){ .backend = model->backend, .device = place.devices[i] };
    }
    config->device = device;
    model->replica_count = place.count;
    atomic_store(&model->leases, 1);
    expect_ok(engine_adopt(engine, model, &err), &err);
}

void simulated_adopt(struct model *model, struct model_config *config, struct engine *engine)
{
    simulated_load(model, config, engine);
    struct weir_err err = { 0 };
    expect_ok(engine_adopt(engine, model, &err), &err);
}
