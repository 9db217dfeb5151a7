/*
 * Settings of others that Weir has no use for are in the tables too, read by
 * field_unsupported(): a document that leaves them at their defaults, as every
 * configuration that Triton printed does, is taken; one that sets them is
 * refused by name rather than followed in part.
 */
#include "server/field.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "util/clock.h"

static const char *key_of(const struct yaml *node)
{
    return node->key == NULL ? "an entry" : node->key;
}

enum weir_status field_refuse(const struct field_reader *reader, const struct yaml *node,
                              const char *expected)
{
    static const char *const kinds[] = { "", "a list", "a map" };
    const bool scalar = node->kind == YAML_SCALAR;
    return err_set(reader->err, WEIR_EINVAL, "%s:%" PRIu32 ": %s: found %s%.80s%s, expected %s",
                   reader->file, node->line, key_of(node), scalar ? "'" : "",
                   scalar ? node->text : kinds[node->kind], scalar ? "'" : "", expected);
}

static bool is_null(const struct yaml *node)
{
    return node->kind == YAML_SCALAR && !node->quoted &&
           (strcmp(node->text, "null") == 0 || strcmp(node->text, "~") == 0 ||
            node->text[0] == '\0');
}

/* "maxBatchSize" is "max_batch_size" to protobuf's JSON. */
static bool camel_equal(const char *snake, const char *camel)
{
    for (; *snake != '\0' && *camel != '\0'; snake++, camel++) {
        const bool hump = *snake == '_';
        snake += hump ? 1 : 0;
        const char c = hump && *snake >= 'a' && *snake <= 'z' ? (char)(*snake - 'a' + 'A') : *snake;
        if (c != *camel) {
            return false;
        }
    }
    return *snake == *camel;
}

static const struct field *find_field(const struct field_reader *reader,
                                      const struct field_table *table, const char *key)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        if (strcmp(field->key, key) == 0 || (reader->loose && camel_equal(field->key, key))) {
            return field;
        }
    }
    return NULL;
}

static enum weir_status unknown_key(const struct field_reader *reader,
                                    const struct field_table *table, const struct yaml *node)
{
    char allowed[400] = "";
    size_t used = 0;
    for (size_t i = 0; i < table->count; i++) {
        const int size = snprintf(allowed + used, sizeof(allowed) - used, "%s%s",
                                  i == 0 ? "" : ", ", table->fields[i].key);
        if (size < 0 || (size_t)size >= sizeof(allowed) - used) {
            break;
        }
        used += (size_t)size;
    }
    return err_set(reader->err, WEIR_EINVAL, "%s:%" PRIu32 ": unknown key '%s'; allowed: %s",
                   reader->file, node->key_line, node->key, allowed);
}

enum weir_status field_read_table(const struct field_reader *reader,
                                  const struct field_table *table, const struct yaml *node,
                                  void *target)
{
    if (node->kind != YAML_MAP) {
        return field_refuse(reader, node, "a map of settings");
    }
    for (const struct yaml *entry = node->first; entry != NULL; entry = entry->next) {
        const struct field *field = find_field(reader, table, entry->key);
        if (field == NULL) {
            return unknown_key(reader, table, entry);
        }
        if (is_null(entry)) {
            continue;
        }
        const enum weir_status status = field->read(reader, field, entry, target);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

enum weir_status field_text(const struct field_reader *reader, const struct field *field,
                            const struct yaml *node, void *target)
{
    const char **out = field_place(field, target);
    return yaml_string(node, reader->file, out, reader->err);
}

enum weir_status field_bool(const struct field_reader *reader, const struct field *field,
                            const struct yaml *node, void *target)
{
    return yaml_bool(node, reader->file, field_place(field, target), reader->err);
}

enum weir_status field_i64(const struct field_reader *reader, const struct field *field,
                           const struct yaml *node, void *target)
{
    return yaml_i64(node, reader->file, field->min, field->max, field_place(field, target),
                    reader->err);
}

enum weir_status field_u32(const struct field_reader *reader, const struct field *field,
                           const struct yaml *node, void *target)
{
    int64_t value = 0;
    const enum weir_status status =
        yaml_i64(node, reader->file, field->min, field->max, &value, reader->err);
    if (status == WEIR_OK) {
        *(uint32_t *)field_place(field, target) = (uint32_t)value;
    }
    return status;
}

enum weir_status field_microseconds(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    int64_t value = 0;
    const enum weir_status status =
        yaml_i64(node, reader->file, field->min, field->max, &value, reader->err);
    if (status == WEIR_OK) {
        *(uint64_t *)field_place(field, target) = (uint64_t)value * NS_PER_US;
    }
    return status;
}

/* The same where 0 means none. */
enum weir_status field_timeout(const struct field_reader *reader, const struct field *field,
                               const struct yaml *node, void *target)
{
    uint64_t *out = field_place(field, target);
    const enum weir_status status = field_microseconds(reader, field, node, target);
    if (status == WEIR_OK && *out == 0) {
        *out = CLOCK_NEVER;
    }
    return status;
}

enum weir_status field_duration(const struct field_reader *reader, const struct field *field,
                                const struct yaml *node, void *target)
{
    return yaml_duration_ns(node, reader->file, field_place(field, target), reader->err);
}

/* Accepted and without effect: says what Weir does anyway. */
enum weir_status field_nothing(const struct field_reader *reader, const struct field *field,
                               const struct yaml *node, void *target)
{
    (void)reader;
    (void)field;
    (void)node;
    (void)target;
    return WEIR_OK;
}

/* True when the value, however deep, sets nothing: protobuf's defaults. */
static bool is_default(const struct yaml *node)
{
    static const char *const defaults[] = { "",     "0",           "false",  "0.0",
                                            "null", "FORMAT_NONE", "REJECT", "PRIORITY_DEFAULT" };
    if (node->kind != YAML_SCALAR) {
        for (const struct yaml *entry = node->first; entry != NULL; entry = entry->next) {
            if (!is_default(entry)) {
                return false;
            }
        }
        return true;
    }
    for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++) {
        if (strcmp(node->text, defaults[i]) == 0) {
            return true;
        }
    }
    return false;
}

enum weir_status field_unsupported(const struct field_reader *reader, const struct field *field,
                                   const struct yaml *node, void *target)
{
    (void)target;
    if (is_default(node)) {
        return WEIR_OK;
    }
    return err_set(reader->err, WEIR_EINVAL,
                   "%s:%" PRIu32 ": %s is not supported: leave it out or at its default",
                   reader->file, node->key_line, field->key);
}

enum weir_status field_message(const struct field_reader *reader, const struct field *field,
                               const struct yaml *node, void *target)
{
    return field_read_table(reader, field->table, node, target);
}

void field_document(const struct field_table *table, int indent, struct buffer *out)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        if (field->read == field_unsupported) {
            continue;
        }
        buffer_printf(out, "%*s%-*s %-28s %s\n", indent, "", 32 - indent, field->key,
                      field->expects, field->help);
        if (field->table != NULL) {
            field_document(field->table, indent + 2, out);
        }
    }
}
