/*
 * YAML: whatever is accepted is a tree within its limits, and every setting in it can be asked for
 * as anything.
 */
#include "fuzz.h"

#include <assert.h>
#include <string.h>

#include "util/yaml.h"

#define NODES_MAX 10000
#define DEPTH_MAX 32

static void read_as_anything(const struct yaml *node)
{
    bool flag;
    int64_t number;
    double real;
    uint64_t size;
    const char *text;
    struct weir_err err = { 0 };
    (void)!yaml_bool(node, "fuzz", &flag, &err);
    if (yaml_i64(node, "fuzz", -5, 5, &number, &err) == WEIR_OK) {
        assert(number >= -5 && number <= 5);
    }
    if (yaml_double(node, "fuzz", -5, 5, &real, &err) == WEIR_OK) {
        assert(real >= -5 && real <= 5);
    }
    (void)!yaml_size(node, "fuzz", &size, &err);
    (void)!yaml_duration_ns(node, "fuzz", &size, &err);
    if (yaml_string(node, "fuzz", &text, &err) == WEIR_OK) {
        assert(node->kind == YAML_SCALAR && text == node->text);
    }
}

static uint32_t check_tree(const struct yaml *node, int depth)
{
    assert(depth <= DEPTH_MAX);
    assert((node->kind == YAML_SCALAR) == (node->text != NULL));
    assert(node->line >= 1);
    read_as_anything(node);
    uint32_t nodes = 1;
    uint32_t count = 0;
    for (const struct yaml *entry = node->first; entry != NULL; entry = entry->next) {
        assert((node->kind == YAML_MAP) == (entry->key != NULL));
        assert(entry->key == NULL || yaml_get(node, entry->key) == entry);
        nodes += check_tree(entry, depth + 1);
        count++;
    }
    assert(count == node->count);
    return nodes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    arena_init(&arena, NULL, 0, 0);
    struct yaml *root = NULL;
    struct weir_err err = { 0 };
    const struct bytes text = { (const char *)data, size };
    if (yaml_parse(&arena, "fuzz", text, &root, &err) == WEIR_OK) {
        assert(check_tree(root, 0) <= NODES_MAX);
    } else {
        assert(root == NULL && err.text[0] != '\0');
    }
    arena_finish(&arena);
    return 0;
}
