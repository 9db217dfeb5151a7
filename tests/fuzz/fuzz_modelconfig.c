/*
 * modelconfig: any text is refused with a sentence or read; what is read and fits a model can be
 * printed, and what was printed is read again.
 */
#include "fuzz.h"

#include <assert.h>
#include <string.h>

#include "round_trip.h"

static struct tensor_spec inputs[] = {
    { .name = "x", .dtype = DTYPE_FP32, .shape = { 2, { -1, 16 } } },
};
static struct tensor_spec outputs[] = {
    { .name = "y", .dtype = DTYPE_FP32, .shape = { 2, { -1, -1 } } },
};
static const struct signature signature = {
    .inputs = inputs,
    .input_count = 1,
    .outputs = outputs,
    .output_count = 1,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    struct model_config *config = effective_create();
    struct weir_err err = { 0 };
    const char *why_not = NULL;
    const struct backend_ops *ops = NULL;
    assert(config != NULL);
    const struct bytes text = { (const char *)data + 1, size - 1 };
    const enum weir_status status =
        modelconfig_parse(config, "m", "fuzz", text, (data[0] & 1) != 0, &err);
    assert((status == WEIR_OK) == (err.text[0] == '\0'));
    if (status == WEIR_OK && effective_backend(config, &ops, &err) == WEIR_OK &&
        effective_complete(config, &signature, &why_not, &err) == WEIR_OK) {
        round_trip(config, &signature, round_trip_is_plain(data + 1, size - 1));
    }
    config->release(config);
    return 0;
}
