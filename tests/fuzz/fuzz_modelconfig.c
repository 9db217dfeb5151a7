/*
 * modelconfig: any text is refused with a sentence or read; what is read and fits a model can be
 * printed, and what was printed is read again.
 */
#include "fuzz.h"

#include <assert.h>
#include <string.h>

#include "engine/effective.h"
#include "server/modelconfig.h"
#include "util/mem.h"

#define ROUND_TRIP_BYTES_MAX 500 /* A key of twice as many, escaped, is beyond YAML's own limits. */

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

static bool is_plain(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if ((data[i] < 0x20 && data[i] != '\n') || data[i] > 0x7E || data[i] == '\\') {
            return false;
        }
    }
    return size <= ROUND_TRIP_BYTES_MAX;
}

static void read_again(const struct buffer *json)
{
    struct model_config *config = effective_create();
    struct weir_err err = { 0 };
    assert(config != NULL);
    const enum weir_status status = modelconfig_parse(
        config, "m", "again", (struct bytes){ json->data, json->size }, true, &err);
    assert(status == WEIR_OK);
    (void)status;
    config->release(config);
}

static void print(struct model_config *config, bool plain)
{
    struct model *model = mem_alloc(sizeof(*model));
    struct buffer json;
    buffer_init(&json, 1 << 24);
    model->name = "m";
    model->config = config;
    model->signature = &signature;
    model->instance_count = 1;
    modelconfig_to_json(model, &json);
    if (plain && !json.failed) {
        read_again(&json);
    }
    buffer_finish(&json);
    mem_free(model);
}

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
        print(config, is_plain(data + 1, size - 1));
    }
    config->release(config);
    return 0;
}
