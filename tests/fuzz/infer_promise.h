/*
 * infer_promise.h — what holds for any inference request that was read, in whatever format it came.
 */
#ifndef WEIR_TESTS_INFER_PROMISE_H
#define WEIR_TESTS_INFER_PROMISE_H

#include <stdlib.h>

#include "fake_model.h"

static inline void check(int promise)
{
    if (!promise) {
        abort();
    }
}

/* Inputs A to N, of every type, and outputs. */
static inline void promise_model(struct fake_model *fake)
{
    static const char *const names[] = { "A", "B", "C", "D", "E", "F", "G",
                                         "H", "I", "J", "K", "L", "M", "N" };
    const struct shape any = { 2, { -1, -1 } };
    fake_model_init(fake);
    fake_model_output(fake, "Y", DTYPE_FP32, any);
    fake_model_output(fake, "Z", DTYPE_FP16, any);
    for (int i = 0; i < DTYPE_COUNT; i++) {
        fake_model_input(fake, names[i], (enum dtype)i, any);
        fake->inputs[i].optional = true;
    }
}

static inline void promise_input(const struct tensor *tensor, const struct tensor_spec *spec)
{
    size_t size;
    check(tensor->dtype == spec->dtype);
    check(shape_fits(&tensor->shape, &spec->shape));
    if (spec->dtype == DTYPE_BYTES) {
        check(tensor_check_strings(tensor, NULL) == WEIR_OK);
        return;
    }
    check(tensor_bytes(tensor->dtype, &tensor->shape, &size, NULL) == WEIR_OK);
    check(size == tensor->size);
    volatile uint8_t last = size > 0 ? tensor->data[size - 1] : 0;
    (void)last;
}

static inline void promise_call(const struct infer_call *call, enum weir_status status,
                                const struct weir_err *err)
{
    if (status != WEIR_OK) {
        check(status == WEIR_EINVAL || status == WEIR_EUNSUPPORTED || status == WEIR_ENOMEM ||
              status == WEIR_ETOOBIG);
        check(err->status == status && err->text[0] != '\0');
        return;
    }
    const struct signature *signature = call->model->signature;
    for (uint32_t i = 0; i < signature->input_count; i++) {
        const struct tensor *input = &call->request.inputs[i];
        check(input->present || signature->inputs[i].optional);
        if (input->present) {
            promise_input(input, &signature->inputs[i]);
        }
    }
    check(call->output_count >= 1 && call->output_count <= signature->output_count);
}

#endif
