/*
 * pbtxt: any text is refused with a place and a sentence, or is a tree whose counts are right; as a
 * configuration it is refused with a sentence, or read, and can then be shown and read again.
 */
#include "fuzz.h"

#include <assert.h>
#include <string.h>

#include "engine/effective.h"
#include "server/modelconfig.h"
#include "server/pbtxt.h"
#include "util/mem.h"

#define ARENA_BYTES_MAX (UINT64_C(64) << 20)
#define ROUND_TRIP_BYTES_MAX 500 /* A key of twice as many, escaped, is beyond YAML's own limits. */

static uint32_t check_tree(const struct yaml *node)
{
    uint32_t nodes = 1;
    uint32_t count = 0;
    assert(node->proto && node->line >= 1 && node->column >= 1);
    assert((node->kind == YAML_SCALAR) == (node->text != NULL));
    for (const struct yaml *entry = node->first; entry != NULL; entry = entry->next) {
        nodes += check_tree(entry);
        count++;
    }
    assert(count == node->count);
    return nodes;
}

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

static void show(struct model_config *config)
{
    static const struct signature nothing = { 0 };
    struct model *model = mem_alloc(sizeof(*model));
    struct buffer json;
    buffer_init(&json, 1 << 24);
    model->name = "m";
    model->config = config;
    model->signature = &nothing;
    model->instance_count = 1;
    config->max_batch_size = config->max_batch_size < 0 ? 0 : config->max_batch_size;
    modelconfig_to_json(model, &json);
    if (!json.failed) {
        read_again(&json);
    }
    buffer_finish(&json);
    mem_free(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bytes text = { size == 0 ? "" : (const char *)data, size };
    struct arena arena;
    struct weir_err err = { 0 };
    struct yaml *root = NULL;
    arena_init(&arena, NULL, 0, ARENA_BYTES_MAX);
    const enum weir_status parsed = pbtxt_parse(&arena, "fuzz", text, &root, &err);
    assert((parsed == WEIR_OK) == (err.text[0] == '\0'));
    assert((parsed == WEIR_OK) == (root != NULL));
    if (parsed == WEIR_OK) {
        (void)check_tree(root);
    }
    arena_finish(&arena);

    struct model_config *config = effective_create();
    assert(config != NULL);
    err = (struct weir_err){ 0 };
    const enum weir_status status = modelconfig_parse_pbtxt(config, "m", "fuzz", text, &err);
    assert((status == WEIR_OK) == (err.text[0] == '\0'));
    assert(parsed == WEIR_OK || status != WEIR_OK);
    if (status == WEIR_OK && is_plain(data, size)) {
        show(config);
    }
    config->release(config);
    return 0;
}
