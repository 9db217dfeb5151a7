/*
 * Both walks recurse along the tables, which are finite and eight levels deep,
 * never along the text.
 */
#include "server/overlay.h"

#include <inttypes.h>
#include <string.h>

static void append(struct yaml *parent, struct yaml *node)
{
    struct yaml **tail = &parent->first;
    while (*tail != NULL) {
        tail = &(*tail)->next;
    }
    node->next = NULL;
    *tail = node;
    parent->count++;
}

static void unlink_entry(struct yaml *parent, struct yaml *node)
{
    for (struct yaml **at = &parent->first; *at != NULL; at = &(*at)->next) {
        if (*at == node) {
            *at = node->next;
            node->next = NULL;
            parent->count--;
            return;
        }
    }
}

/* ---- Shape ----------------------------------------------------------------------------------- */

static enum weir_status shape_map(const struct field_reader *reader,
                                  const struct field_table *table, struct yaml *map);

static enum weir_status note(const struct field_reader *reader, enum weir_status status)
{
    if (status == WEIR_EINVAL && reader->problems != NULL && reader->err != NULL &&
        reader->err->text[0] != '\0') {
        buffer_printf(reader->problems, "%s\n", reader->err->text);
        reader->err->text[0] = '\0';
    }
    return status;
}

static enum weir_status twice(const struct field_reader *reader, const struct yaml *node,
                              const struct yaml *before)
{
    char where[YAML_WHERE];
    return note(reader, err_set(reader->err, WEIR_EINVAL,
                                "%s: %s: found twice (first in line %" PRIu32 "), expected once",
                                yaml_where(node, where), node->key, before->key_line));
}

static enum weir_status shape_inside(const struct field_reader *reader, const struct field *field,
                                     struct yaml *node)
{
    return field->table != NULL && node->kind == YAML_MAP ? shape_map(reader, field->table, node)
                                                          : WEIR_OK;
}

/* A node with the key and place of `like`. */
static struct yaml *make_node(const struct field_reader *reader, enum yaml_kind kind,
                              const struct yaml *like)
{
    struct yaml *node = arena_try_zero(reader->arena, 1, sizeof(*node));
    if (node != NULL) {
        *node = *like;
        node->kind = kind;
        node->first = NULL;
        node->next = NULL;
        node->count = 0;
        node->text = NULL;
    }
    return node;
}

/* { key: "a" value: ... } becomes the entry a of `map`. */
static enum weir_status add_pair(const struct field_reader *reader, const struct field *field,
                                 struct yaml *map, struct yaml *pair)
{
    static const struct field pair_fields[] = {
        FIELD("key", NULL, "", "", 0),
        FIELD("value", NULL, "", "", 0),
    };
    static const struct field_table pair_table = FIELD_TABLE(pair_fields);
    if (pair->kind != YAML_MAP) {
        return note(reader, field_refuse(reader, pair, "{ key: ... value: ... }"));
    }
    for (const struct yaml *entry = pair->first; entry != NULL; entry = entry->next) {
        if (field_find(&pair_table, entry->key, false) == NULL) {
            return note(reader, field_unknown(&pair_table, entry, reader->err));
        }
    }
    const enum weir_status status = shape_map(reader, &pair_table, pair);
    if (status != WEIR_OK) {
        return status;
    }
    const struct yaml *key = yaml_get(pair, "key");
    struct yaml *value = yaml_get(pair, "value");
    if (key == NULL || key->kind != YAML_SCALAR || key->text[0] == '\0') {
        return note(reader, field_refuse(reader, pair, "a key in it"));
    }
    const struct yaml *before = yaml_get(map, key->text);
    if (value == NULL) {
        value = make_node(reader, field->table != NULL ? YAML_MAP : YAML_SCALAR, pair);
        if (value == NULL) {
            return err_nomem(reader->err, pair->file, sizeof(*value));
        }
        value->text = "";
        value->quoted = true;
    } else {
        unlink_entry(pair, value);
    }
    value->key = key->text;
    value->key_line = key->line;
    value->key_column = key->column;
    if (before != NULL) {
        return twice(reader, value, before);
    }
    append(map, value);
    return shape_inside(reader, field, value);
}

static enum weir_status add_item(const struct field_reader *reader, const struct field *field,
                                 struct yaml *whole, struct yaml *item)
{
    if (field->form == FORM_MAP) {
        return add_pair(reader, field, whole, item);
    }
    item->key = NULL;
    append(whole, item);
    return shape_inside(reader, field, item);
}

/* One occurrence of a repeated field: an item, or [items]. */
static enum weir_status add_occurrence(const struct field_reader *reader, const struct field *field,
                                       struct yaml *whole, struct yaml *occurrence)
{
    if (occurrence->kind != YAML_LIST) {
        return add_item(reader, field, whole, occurrence);
    }
    enum weir_status result = WEIR_OK;
    for (struct yaml *item = occurrence->first, *next; item != NULL; item = next) {
        next = item->next;
        const enum weir_status status = add_item(reader, field, whole, item);
        if (status == WEIR_ENOMEM) {
            return status;
        }
        result = status == WEIR_OK ? result : status;
    }
    return result;
}

static enum weir_status shape_entry(const struct field_reader *reader,
                                    const struct field_table *table, struct yaml *map,
                                    struct yaml *entry)
{
    const struct field *field = field_find(table, entry->key, false);
    struct yaml *before = yaml_get(map, entry->key);
    if (field == NULL || field->form == FORM_ANY) {
        append(map, entry);
        return WEIR_OK;
    }
    if (field->form == FORM_ONE) {
        if (before != NULL) {
            return twice(reader, entry, before);
        }
        append(map, entry);
        return shape_inside(reader, field, entry);
    }
    if (before == NULL) {
        before = make_node(reader, field->form == FORM_MAP ? YAML_MAP : YAML_LIST, entry);
        if (before == NULL) {
            return err_nomem(reader->err, entry->file, sizeof(*before));
        }
        append(map, before);
    }
    return add_occurrence(reader, field, before, entry);
}

static enum weir_status shape_map(const struct field_reader *reader,
                                  const struct field_table *table, struct yaml *map)
{
    struct yaml *entry = map->first;
    map->first = NULL;
    map->count = 0;
    enum weir_status result = WEIR_OK;
    for (struct yaml *next; entry != NULL; entry = next) {
        next = entry->next;
        const enum weir_status status = shape_entry(reader, table, map, entry);
        if (status == WEIR_ENOMEM) {
            return status;
        }
        result = status == WEIR_OK ? result : status;
    }
    return result;
}

enum weir_status overlay_shape(const struct field_reader *reader, const struct field_table *table,
                               struct yaml *map)
{
    return shape_map(reader, table, map);
}

/* ---- Merge ----------------------------------------------------------------------------------- */

static bool is_absent(const struct yaml *node)
{
    return node->kind == YAML_SCALAR && !node->quoted &&
           (node->text[0] == '\0' || strcmp(node->text, "~") == 0 ||
            strcmp(node->text, "null") == 0);
}

static void drop_choices(const struct field_table *table, struct yaml *base, const char *but)
{
    for (struct yaml *entry = base->first, *next; entry != NULL; entry = next) {
        next = entry->next;
        const struct field *field = field_find(table, entry->key, false);
        if (field != NULL && field->choice && strcmp(entry->key, but) != 0) {
            unlink_entry(base, entry);
        }
    }
}

static const char *name_of(const struct yaml *item)
{
    const struct yaml *name = yaml_get(item, "name");
    return name != NULL && name->kind == YAML_SCALAR ? name->text : NULL;
}

static struct yaml *find_named(const struct yaml *list, const char *name)
{
    for (struct yaml *item = list->first; name != NULL && item != NULL; item = item->next) {
        const char *found = name_of(item);
        if (found != NULL && strcmp(found, name) == 0) {
            return item;
        }
    }
    return NULL;
}

static void merge_named(const struct field *field, struct yaml *base, struct yaml *over)
{
    for (struct yaml *item = over->first, *next; item != NULL; item = next) {
        next = item->next;
        struct yaml *same = find_named(base, name_of(item));
        if (same != NULL) {
            overlay_merge(field->table, same, item);
        } else {
            append(base, item);
        }
    }
}

/* Puts `node` in the place of the entry of its key, if there is one. */
static void replace(struct yaml *base, struct yaml *before, struct yaml *node)
{
    if (before != NULL) {
        unlink_entry(base, before);
    }
    append(base, node);
}

static void merge_map(const struct field *field, struct yaml *base, struct yaml *over)
{
    for (struct yaml *entry = over->first, *next; entry != NULL; entry = next) {
        next = entry->next;
        struct yaml *before = yaml_get(base, entry->key);
        if (before != NULL && field->table != NULL && before->kind == YAML_MAP &&
            entry->kind == YAML_MAP) {
            overlay_merge(field->table, before, entry);
        } else {
            replace(base, before, entry);
        }
    }
}

static void merge_entry(const struct field *field, struct yaml *base, struct yaml *over)
{
    struct yaml *before = yaml_get(base, over->key);
    const bool maps = before != NULL && before->kind == YAML_MAP && over->kind == YAML_MAP;
    const bool lists = before != NULL && before->kind == YAML_LIST && over->kind == YAML_LIST;
    if (field != NULL && field->form == FORM_ONE && field->table != NULL && maps) {
        overlay_merge(field->table, before, over);
    } else if (field != NULL && field->form == FORM_MAP && maps) {
        merge_map(field, before, over);
    } else if (field != NULL && field->form == FORM_NAMED && lists) {
        merge_named(field, before, over);
    } else {
        replace(base, before, over);
    }
}

void overlay_merge(const struct field_table *table, struct yaml *base, struct yaml *over)
{
    for (struct yaml *entry = over->first, *next; entry != NULL; entry = next) {
        next = entry->next;
        const struct field *field = field_find(table, entry->key, false);
        if (is_absent(entry)) {
            continue;
        }
        if (field != NULL && field->choice) {
            drop_choices(table, base, entry->key);
        }
        merge_entry(field, base, entry);
    }
}
