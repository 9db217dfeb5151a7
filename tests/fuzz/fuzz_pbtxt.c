/*
 * pbtxt: any text is refused with a place and a sentence, or is a tree whose counts are right; as a
 * configuration it is refused with a sentence, or read, and can then be shown and read again.
 */
#include "fuzz.h"

#include <assert.h>
#include <string.h>

#include "round_trip.h"
#include "server/pbtxt.h"

#define ARENA_BYTES_MAX (UINT64_C(64) << 20)

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
    if (status == WEIR_OK && round_trip_is_plain(data, size)) {
        static const struct signature nothing = { 0 };
        config->max_batch_size = config->max_batch_size < 0 ? 0 : config->max_batch_size;
        round_trip(config, &nothing, true);
    }
    config->release(config);
    return 0;
}
