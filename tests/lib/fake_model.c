#include "fake_model.h"

#include <stdlib.h>
#include <string.h>

static void unleased(struct model *model)
{
    ((struct fake_model *)model->owner)->unleased = true;
}

void fake_model_init(struct fake_model *fake)
{
    memset(fake, 0, sizeof *fake);
    fake->signature.inputs = fake->inputs;
    fake->signature.outputs = fake->outputs;
    fake->config.name = "model";
    fake->config.backend = "sim";
    fake->model.name = "model";
    fake->model.version = 3;
    fake->model.config = &fake->config;
    fake->model.signature = &fake->signature;
    fake->model.owner = fake;
    fake->model.unleased = unleased;
    atomic_store(&fake->model.leases, 1);
}

void fake_model_input(struct fake_model *fake, const char *name, enum dtype dtype,
                      struct shape shape)
{
    fake->inputs[fake->signature.input_count++] =
        (struct tensor_spec){ .name = name, .dtype = dtype, .shape = shape };
}

void fake_model_output(struct fake_model *fake, const char *name, enum dtype dtype,
                       struct shape shape)
{
    fake->outputs[fake->signature.output_count++] =
        (struct tensor_spec){ .name = name, .dtype = dtype, .shape = shape };
}

void fake_call_open(struct fake_call *call, struct fake_model *fake)
{
    memset(call, 0, sizeof *call);
    arena_init(&call->arena, NULL, 0, 0);
    call->blocks = block_pool_create(1 << 20);
    model_acquire(&fake->model);
    if (kserve_open(&call->infer, &fake->model, &call->arena, call->blocks, 0, NULL) != WEIR_OK) {
        abort();
    }
}

void fake_call_close(struct fake_call *call)
{
    kserve_close(&call->infer);
    arena_finish(&call->arena);
    block_pool_destroy(call->blocks);
}
