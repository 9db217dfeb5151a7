/*
 * Settings of others that Weir has no use for are in the tables too: a document
 * that leaves them at their defaults, as every configuration that Triton printed
 * does, is taken.  One that sets them is refused by name where the model would
 * answer differently, and else taken with a warning.
 *
 * A mistake does not end the reading where the caller collects them: who repairs
 * a folder wants to see all of them.
 */
#include "server/field.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "util/clock.h"
#include "util/near.h"

#define KEYS_BYTES 400

static const char *key_of(const struct yaml *node)
{
    return node->key == NULL ? "an entry" : node->key;
}

enum weir_status field_refuse(const struct field_reader *reader, const struct yaml *node,
                              const char *expected)
{
    static const char *const kinds[] = { "", "a list", "a map" };
    const bool scalar = node->kind == YAML_SCALAR;
    char where[YAML_WHERE];
    return err_set(reader->err, WEIR_EINVAL, "%s: %s: found %s%.80s%s, expected %s",
                   yaml_where(node, where), key_of(node), scalar ? "'" : "",
                   scalar ? node->text : kinds[node->kind], scalar ? "'" : "", expected);
}

void field_warn(const struct field_reader *reader, const struct yaml *node, const char *sentence)
{
    if (reader->warnings != NULL) {
        char where[YAML_WHERE];
        buffer_printf(reader->warnings, "%s: %s: %s\n", yaml_where(node, where), key_of(node),
                      sentence);
    }
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

const struct field *field_find(const struct field_table *table, const char *key, bool loose)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        if (strcmp(field->key, key) == 0 || (loose && camel_equal(field->key, key))) {
            return field;
        }
    }
    return NULL;
}

/* The keys of a table with commas between them; of a long one the first. */
static void list_keys(const struct field_table *table, char out[KEYS_BYTES])
{
    static const char more[] = ", ...";
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < table->count; i++) {
        const size_t left = KEYS_BYTES - sizeof(more) - used;
        const int size =
            snprintf(out + used, left, "%s%s", i == 0 ? "" : ", ", table->fields[i].key);
        if (size < 0 || (size_t)size >= left) {
            memcpy(out + used, more, sizeof(more));
            return;
        }
        used += (size_t)size;
    }
}

enum weir_status field_unknown(const struct field_table *table, const struct yaml *node,
                               struct weir_err *err)
{
    char allowed[KEYS_BYTES];
    char where[YAML_WHERE];
    struct near near;
    near_begin(&near, node->key);
    for (size_t i = 0; i < table->count; i++) {
        near_look(&near, table->fields[i].key);
    }
    if (near.word[0] != '\0') {
        return err_set(err, WEIR_EINVAL, "%s: unknown key '%.80s'; did you mean '%s'?",
                       yaml_where(node, where), node->key, near.word);
    }
    list_keys(table, allowed);
    return err_set(err, WEIR_EINVAL, "%s: unknown key '%.80s'; allowed: %s",
                   yaml_where(node, where), node->key, allowed);
}

/* Keeps a mistake for later, so that reading can go on; a message in it has kept its own. */
static void keep_problem(const struct field_reader *reader)
{
    if (reader->err != NULL && reader->err->text[0] != '\0') {
        buffer_printf(reader->problems, "%s\n", reader->err->text);
        reader->err->text[0] = '\0';
    }
}

static enum weir_status read_entry(const struct field_reader *reader,
                                   const struct field_table *table, const struct yaml *entry,
                                   const struct yaml **choice, void *target)
{
    const struct field *field = field_find(table, entry->key, reader->loose);
    if (field == NULL) {
        return field_unknown(table, entry, reader->err);
    }
    if (is_null(entry)) {
        return WEIR_OK;
    }
    if (field->choice && *choice != NULL) {
        char where[YAML_WHERE];
        return err_set(reader->err, WEIR_EINVAL, "%s: found %s beside %s, expected one of them",
                       yaml_where(entry, where), entry->key, (*choice)->key);
    }
    *choice = field->choice ? entry : *choice;
    return field->read(reader, field, entry, target);
}

enum weir_status field_read_table(const struct field_reader *reader,
                                  const struct field_table *table, const struct yaml *node,
                                  void *target)
{
    if (node->kind != YAML_MAP) {
        return field_refuse(reader, node, "a map of settings");
    }
    const struct yaml *choice = NULL;
    enum weir_status result = WEIR_OK;
    for (const struct yaml *entry = node->first; entry != NULL; entry = entry->next) {
        const enum weir_status status = read_entry(reader, table, entry, &choice, target);
        if (status == WEIR_EINVAL && reader->problems != NULL) {
            keep_problem(reader);
            result = status;
        } else if (status != WEIR_OK) {
            return status;
        }
    }
    return result;
}

enum weir_status field_items(const struct field_reader *reader, const struct yaml *node,
                             size_t size, void **items)
{
    if (node->kind != YAML_LIST) {
        return field_refuse(reader, node, "a list");
    }
    *items = arena_try_zero(reader->arena, node->count, size);
    return *items == NULL ? err_nomem(reader->err, node->file, node->count * size) : WEIR_OK;
}

enum weir_status field_read_items(const struct field_reader *reader, const struct field *field,
                                  const struct yaml *node, size_t size, void **items,
                                  uint32_t *count)
{
    void *memory = NULL;
    enum weir_status status = field_items(reader, node, size, &memory);
    char *at = memory;
    for (const struct yaml *item = node->first; status == WEIR_OK && item != NULL;
         item = item->next) {
        status = field_read_table(reader, field->table, item, at);
        at += size;
    }
    if (status == WEIR_OK) {
        *items = memory;
        *count = node->count;
    }
    return status;
}

enum weir_status field_need(const struct field_reader *reader, const struct yaml *node,
                            const char *text, const char *expected)
{
    return text != NULL && text[0] != '\0' ? WEIR_OK : field_refuse(reader, node, expected);
}

enum weir_status field_text(const struct field_reader *reader, const struct field *field,
                            const struct yaml *node, void *target)
{
    const char **out = field_place(field, target);
    if (node->proto && (node->kind != YAML_SCALAR || !node->quoted)) {
        return field_refuse(reader, node, "a text in quotes");
    }
    if (node->proto) {
        *out = node->text;
        return WEIR_OK;
    }
    return yaml_string(node, node->file, out, reader->err);
}

/* Text format has more words for it than YAML. */
enum weir_status field_bool(const struct field_reader *reader, const struct field *field,
                            const struct yaml *node, void *target)
{
    static const char *const words[] = { "false", "true", "False", "True", "f", "t", "0", "1" };
    for (size_t i = 0; node->proto && node->kind == YAML_SCALAR && !node->quoted &&
                       i < sizeof(words) / sizeof(words[0]);
         i++) {
        if (strcmp(node->text, words[i]) == 0) {
            *(bool *)field_place(field, target) = i % 2 == 1;
            return WEIR_OK;
        }
    }
    return yaml_bool(node, node->file, field_place(field, target), reader->err);
}

/* A whole number in the field's range. */
static enum weir_status read_i64(const struct field_reader *reader, const struct field *field,
                                 const struct yaml *node, int64_t *out)
{
    return yaml_i64(node, node->file, field->min, field->max, out, reader->err);
}

enum weir_status field_i64(const struct field_reader *reader, const struct field *field,
                           const struct yaml *node, void *target)
{
    return read_i64(reader, field, node, field_place(field, target));
}

enum weir_status field_u32(const struct field_reader *reader, const struct field *field,
                           const struct yaml *node, void *target)
{
    int64_t value = 0;
    const enum weir_status status = read_i64(reader, field, node, &value);
    if (status == WEIR_OK) {
        *(uint32_t *)field_place(field, target) = (uint32_t)value;
    }
    return status;
}

enum weir_status field_double(const struct field_reader *reader, const struct field *field,
                              const struct yaml *node, void *target)
{
    return yaml_double(node, node->file, (double)field->min, (double)field->max,
                       field_place(field, target), reader->err);
}

/* By word, with or without its prefix and in any case, or by number. */
enum weir_status field_enum(const struct field_reader *reader, const struct field *field,
                            const struct yaml *node, void *target)
{
    const struct field_words *words = field->words;
    if (node->kind != YAML_SCALAR || (node->proto && node->quoted)) {
        return field_refuse(reader, node, words->expected);
    }
    const size_t prefix = strlen(words->prefix);
    const char *text = node->text;
    text += strncasecmp(text, words->prefix, prefix) == 0 ? prefix : 0;
    uint64_t number = UINT64_MAX;
    const bool numbered =
        !node->quoted && bytes_to_u64(bytes_of(node->text), words->count, &number);
    for (size_t i = 0; i < words->count; i++) {
        if (words->words[i] != NULL &&
            (numbered ? number == i : strcasecmp(text, words->words[i]) == 0)) {
            *(unsigned *)field_place(field, target) = (unsigned)i;
            return WEIR_OK;
        }
    }
    return field_refuse(reader, node, words->expected);
}

enum weir_status field_microseconds(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    int64_t value = 0;
    const enum weir_status status = read_i64(reader, field, node, &value);
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

enum weir_status field_size(const struct field_reader *reader, const struct field *field,
                            const struct yaml *node, void *target)
{
    return yaml_size(node, node->file, field_place(field, target), reader->err);
}

enum weir_status field_duration(const struct field_reader *reader, const struct field *field,
                                const struct yaml *node, void *target)
{
    return yaml_duration_ns(node, node->file, field_place(field, target), reader->err);
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

bool field_is_default(const struct yaml *node)
{
    static const char *const defaults[] = {
        "", "0", "false", "0.0", "null", "FORMAT_NONE", "REJECT", "PRIORITY_DEFAULT",
    };
    if (node->kind != YAML_SCALAR) {
        for (const struct yaml *entry = node->first; entry != NULL; entry = entry->next) {
            if (!field_is_default(entry)) {
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

enum weir_status field_warned(const struct field_reader *reader, const struct field *field,
                              const struct yaml *node, void *target)
{
    (void)target;
    if (!field_is_default(node)) {
        field_warn(reader, node, field->help);
    }
    return WEIR_OK;
}

enum weir_status field_refused(const struct field_reader *reader, const struct field *field,
                               const struct yaml *node, void *target)
{
    (void)target;
    if (field_is_default(node)) {
        return WEIR_OK;
    }
    char where[YAML_WHERE];
    return err_set(reader->err, WEIR_EINVAL, "%s: %s is not supported: %s", yaml_where(node, where),
                   field->key, field->help);
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
        buffer_printf(out, "%*s%-*s %-28s %s\n", indent, "", 34 - indent, field->key,
                      field->expects, field->help);
        if (field->table != NULL) {
            field_document(field->table, indent + 2, out);
        }
    }
}
