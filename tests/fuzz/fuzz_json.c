/*
 * JSON: whatever is accepted is no deeper than promised, and writing it and reading that again
 * gives an equal document.
 */
#include "fuzz.h"

#include <assert.h>
#include <string.h>

#include "util/json.h"

static void write_value(struct buffer *out, yyjson_val *value, int depth);

static void write_array(struct buffer *out, yyjson_val *array, int depth)
{
    size_t index;
    size_t max;
    yyjson_val *item;
    buffer_char(out, '[');
    yyjson_arr_foreach(array, index, max, item) {
        json_comma(out);
        write_value(out, item, depth);
    }
    buffer_char(out, ']');
}

static void write_object(struct buffer *out, yyjson_val *object, int depth)
{
    size_t index;
    size_t max;
    yyjson_val *key;
    yyjson_val *item;
    buffer_char(out, '{');
    yyjson_obj_foreach(object, index, max, key, item) {
        json_comma(out);
        json_text(out, (struct bytes){ yyjson_get_str(key), yyjson_get_len(key) });
        buffer_char(out, ':');
        write_value(out, item, depth);
    }
    buffer_char(out, '}');
}

static void write_value(struct buffer *out, yyjson_val *value, int depth)
{
    assert(json_kind(value) != NULL);
    if (yyjson_is_arr(value)) {
        assert(depth < JSON_DEPTH_MAX);
        write_array(out, value, depth + 1);
    } else if (yyjson_is_obj(value)) {
        assert(depth < JSON_DEPTH_MAX);
        write_object(out, value, depth + 1);
    } else if (yyjson_is_str(value)) {
        json_text(out, (struct bytes){ yyjson_get_str(value), yyjson_get_len(value) });
    } else if (yyjson_is_real(value)) {
        json_double(out, yyjson_get_real(value));
    } else if (yyjson_is_uint(value)) {
        buffer_u64(out, yyjson_get_uint(value));
    } else if (yyjson_is_sint(value)) {
        buffer_i64(out, yyjson_get_sint(value));
    } else if (yyjson_is_bool(value)) {
        json_bool(out, yyjson_get_bool(value));
    } else {
        buffer_text(out, "null");
    }
}

static void check_members(yyjson_val *root)
{
    for (int type = JSON_BOOL; type <= JSON_NUMBER; type++) {
        yyjson_val *member = NULL;
        struct weir_err err;
        if (json_member(root, "root", "a", (enum json_type)type, true, &member, &err) == WEIR_OK) {
            assert(member != NULL && yyjson_obj_get(root, "a") == member);
        } else {
            assert(member == NULL && memchr(err.text, '\0', sizeof err.text) != NULL);
        }
    }
    if (yyjson_is_obj(root)) {
        (void)!json_unique(root, "root", NULL);
    }
}

static bool has_duplicates(yyjson_val *value)
{
    size_t index;
    size_t max;
    yyjson_val *key;
    yyjson_val *item;
    bool found = yyjson_is_obj(value) && json_unique(value, "", NULL) != WEIR_OK;
    yyjson_arr_foreach(value, index, max, item) {
        found = found || has_duplicates(item);
    }
    yyjson_obj_foreach(value, index, max, key, item) {
        found = found || has_duplicates(item);
    }
    return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    yyjson_doc *doc = NULL;
    struct weir_err err;
    if (json_read((struct bytes){ (const char *)data, size }, &doc, &err) != WEIR_OK) {
        assert(doc == NULL && err.text[0] != '\0');
        return 0;
    }
    yyjson_val *root = yyjson_doc_get_root(doc);
    check_members(root);
    struct buffer text;
    buffer_init(&text, 64 * size + 64);
    write_value(&text, root, 0);
    assert(!text.failed);
    yyjson_doc *again = NULL;
    const enum weir_status status = json_read((struct bytes){ text.data, text.size }, &again, NULL);
    assert(status == WEIR_OK);
    /* Objects with a key twice equal nothing, not even themselves. */
    assert(has_duplicates(root) || yyjson_equals(root, yyjson_doc_get_root(again)));
    yyjson_doc_free(again);
    buffer_finish(&text);
    yyjson_doc_free(doc);
    return 0;
}
