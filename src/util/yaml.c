/*
 * YAML through libyaml's events.
 *
 * The events build the tree directly; libyaml's own document loader would copy
 * everything once more and resolve aliases, which we refuse.  Nesting is followed
 * with a pointer to the parent, never by recursion, and every node is counted, so
 * a hostile file costs no more than its megabyte and ten thousand nodes.
 */
#include "util/yaml.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#define TEXT_BYTES_MAX 1048576
#define NODES_MAX 10000
#define DEPTH_MAX 32
#define QUOTED_BYTES_MAX 80 /* Of a value, in a sentence. */

/* A list or map that is being filled. */
struct level {
    struct yaml *node;
    struct yaml **tail; /* Where the next entry is linked. */
    const char *key;    /* In a map: the key whose value comes next; NULL when a key comes. */
    uint32_t key_line;
};

struct builder {
    struct arena *arena;
    const char *name;
    struct weir_err *err;
    struct yaml *root;
    struct level levels[DEPTH_MAX];
    uint32_t depth;
    uint32_t nodes;
};

static uint32_t line_of(const yaml_mark_t *mark)
{
    return (uint32_t)mark->line + 1;
}

static enum weir_status refuse(struct builder *b, uint32_t line, const char *what)
{
    return err_set(b->err, WEIR_EINVAL, "%s:%" PRIu32 ": %s", b->name, line, what);
}

static enum weir_status out_of_memory(struct builder *b)
{
    return err_nomem(b->err, b->name, sizeof(struct yaml));
}

static enum weir_status check_plain(struct builder *b, uint32_t line, const yaml_char_t *anchor,
                                    const yaml_char_t *tag)
{
    if (anchor != NULL) {
        return refuse(b, line, "found an anchor (&), expected plain data");
    }
    if (tag != NULL) {
        return refuse(b, line, "found a tag (!), expected plain data");
    }
    return WEIR_OK;
}

/* Links `node` into the list or map that is open, or makes it the root. */
static void link_node(struct builder *b, struct yaml *node)
{
    if (b->depth == 0) {
        b->root = node;
        return;
    }
    struct level *level = &b->levels[b->depth - 1];
    node->key = level->key;
    node->key_line = level->key_line;
    level->key = NULL;
    level->key_line = 0;
    *level->tail = node;
    level->tail = &node->next;
    level->node->count++;
}

static enum weir_status add_node(struct builder *b, enum yaml_kind kind, uint32_t line,
                                 struct yaml **out)
{
    if (++b->nodes > NODES_MAX) {
        return refuse(b, line, "found more than 10000 nodes, expected fewer");
    }
    struct yaml *node = arena_try_zero(b->arena, 1, sizeof *node);
    if (node == NULL) {
        return out_of_memory(b);
    }
    node->kind = kind;
    node->file = b->name;
    node->line = line;
    link_node(b, node);
    *out = node;
    return WEIR_OK;
}

static bool expects_key(const struct builder *b)
{
    return b->depth > 0 && b->levels[b->depth - 1].node->kind == YAML_MAP &&
           b->levels[b->depth - 1].key == NULL;
}

static enum weir_status copy_text(struct builder *b, const yaml_event_t *event, const char **out)
{
    const char *text = (const char *)event->data.scalar.value;
    const size_t size = event->data.scalar.length;
    if (memchr(text, '\0', size) != NULL) {
        return refuse(b, line_of(&event->start_mark), "found a NUL in a text, expected none");
    }
    const char *copy = arena_try_strndup(b->arena, text, size);
    if (copy == NULL) {
        return out_of_memory(b);
    }
    *out = copy;
    return WEIR_OK;
}

static enum weir_status on_key(struct builder *b, const yaml_event_t *event)
{
    struct level *level = &b->levels[b->depth - 1];
    const uint32_t line = line_of(&event->start_mark);
    const char *key = NULL;
    const enum weir_status status = copy_text(b, event, &key);
    if (status != WEIR_OK) {
        return status;
    }
    if (key[0] == '\0') {
        return refuse(b, line, "found an empty key, expected a name");
    }
    const struct yaml *before = yaml_get(level->node, key);
    if (before != NULL) {
        return err_set(b->err, WEIR_EINVAL,
                       "%s:%" PRIu32 ": %s: found twice (first in line %" PRIu32 "), expected once",
                       b->name, line, key, before->key_line);
    }
    level->key = key;
    level->key_line = line;
    return WEIR_OK;
}

static enum weir_status on_scalar(struct builder *b, const yaml_event_t *event)
{
    const uint32_t line = line_of(&event->start_mark);
    enum weir_status status =
        check_plain(b, line, event->data.scalar.anchor, event->data.scalar.tag);
    if (status != WEIR_OK) {
        return status;
    }
    if (expects_key(b)) {
        return on_key(b, event);
    }
    const char *text = NULL;
    struct yaml *node = NULL;
    status = copy_text(b, event, &text);
    if (status == WEIR_OK) {
        status = add_node(b, YAML_SCALAR, line, &node);
    }
    if (status == WEIR_OK) {
        node->text = text;
        node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    }
    return status;
}

static enum weir_status open_level(struct builder *b, enum yaml_kind kind, uint32_t line,
                                   const yaml_char_t *anchor, const yaml_char_t *tag)
{
    enum weir_status status = check_plain(b, line, anchor, tag);
    if (status != WEIR_OK) {
        return status;
    }
    if (expects_key(b)) {
        return refuse(b, line, "found a list or map as a key, expected a name");
    }
    if (b->depth == DEPTH_MAX) {
        return refuse(b, line, "found more than 32 levels, expected fewer");
    }
    struct yaml *node = NULL;
    status = add_node(b, kind, line, &node);
    if (status == WEIR_OK) {
        b->levels[b->depth++] = (struct level){ .node = node, .tail = &node->first };
    }
    return status;
}

static enum weir_status on_event(struct builder *b, const yaml_event_t *event)
{
    const uint32_t line = line_of(&event->start_mark);
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(b, event);
    case YAML_SEQUENCE_START_EVENT:
        return open_level(b, YAML_LIST, line, event->data.sequence_start.anchor,
                          event->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return open_level(b, YAML_MAP, line, event->data.mapping_start.anchor,
                          event->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        b->depth--;
        return WEIR_OK;
    case YAML_ALIAS_EVENT:
        return refuse(b, line, "found an alias (*), expected plain data");
    case YAML_DOCUMENT_START_EVENT:
        return b->root == NULL ? WEIR_OK : refuse(b, line, "found a second document, expected one");
    default:
        return WEIR_OK;
    }
}

/* libyaml's marks are where it noticed, its context where the thing began. */
static enum weir_status complain(struct builder *b, const yaml_parser_t *parser)
{
    if (parser->error == YAML_MEMORY_ERROR) {
        return out_of_memory(b);
    }
    const char *problem = parser->problem == NULL ? "no valid YAML" : parser->problem;
    if (parser->error == YAML_READER_ERROR) {
        return err_set(b->err, WEIR_EINVAL, "%s: byte %zu: %s", b->name, parser->problem_offset,
                       problem);
    }
    const uint32_t line = line_of(&parser->problem_mark);
    if (parser->context == NULL) {
        return refuse(b, line, problem);
    }
    return err_set(b->err, WEIR_EINVAL, "%s:%" PRIu32 ": %s (%s)", b->name, line, problem,
                   parser->context);
}

static enum weir_status build(struct builder *b, yaml_parser_t *parser)
{
    for (;;) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event)) {
            return complain(b, parser);
        }
        const bool last = event.type == YAML_STREAM_END_EVENT;
        const enum weir_status status = on_event(b, &event);
        yaml_event_delete(&event);
        if (last || status != WEIR_OK) {
            return status;
        }
    }
}

/* A file of nothing, or of nothing but comments, has no settings. */
static bool is_nothing(const struct yaml *root)
{
    return root->kind == YAML_SCALAR && !root->quoted && root->text[0] == '\0';
}

enum weir_status yaml_parse(struct arena *arena, const char *name, struct bytes text,
                            struct yaml **out, struct weir_err *err)
{
    struct builder b = { .arena = arena, .name = name, .err = err };
    if (text.size > TEXT_BYTES_MAX) {
        return err_set(err, WEIR_EINVAL, "%s: found %zu bytes, expected at most %d", name,
                       text.size, TEXT_BYTES_MAX);
    }
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        return out_of_memory(&b);
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)(text.size == 0 ? "" : text.data),
                                 text.size);
    enum weir_status status = build(&b, &parser);
    yaml_parser_delete(&parser);
    if (status == WEIR_OK && b.root == NULL) {
        struct yaml *empty = NULL;
        status = add_node(&b, YAML_MAP, 1, &empty);
    }
    if (status != WEIR_OK) {
        return status;
    }
    if (is_nothing(b.root)) {
        b.root->kind = YAML_MAP;
        b.root->text = NULL;
    }
    *out = b.root;
    return WEIR_OK;
}

static const char *place(const char *file, uint32_t line, uint32_t column, char out[YAML_WHERE])
{
    (void)snprintf(out, YAML_WHERE, "%.120s:%" PRIu32, file, line);
    if (column > 0) {
        const size_t used = strlen(out);
        (void)snprintf(out + used, YAML_WHERE - used, ":%" PRIu32, column);
    }
    return out;
}

const char *yaml_where(const struct yaml *node, char out[YAML_WHERE])
{
    const bool keyed = node->key != NULL && node->key_line > 0;
    return place(node->file, keyed ? node->key_line : node->line,
                 keyed ? node->key_column : node->column, out);
}

struct yaml *yaml_get(const struct yaml *map, const char *key)
{
    if (map == NULL || map->kind != YAML_MAP) {
        return NULL;
    }
    for (struct yaml *entry = map->first; entry != NULL; entry = entry->next) {
        if (strcmp(entry->key, key) == 0) {
            return entry;
        }
    }
    return NULL;
}

static bool is_null(const struct yaml *node)
{
    return !node->quoted && (node->text[0] == '\0' || strcmp(node->text, "~") == 0 ||
                             strcmp(node->text, "null") == 0);
}

/* "weir.yaml:3: port: found 'x', expected a whole number" */
static enum weir_status mismatch(const struct yaml *node, const char *name, const char *expected,
                                 struct weir_err *err)
{
    static const char *const kinds[] = { "nothing", "a list", "a map" };
    const char *key = node->key == NULL ? "" : node->key;
    const char *colon = node->key == NULL ? "" : ": ";
    char where[YAML_WHERE];
    (void)place(name, node->line, node->column, where);
    if (node->kind != YAML_SCALAR || is_null(node)) {
        return err_set(err, WEIR_EINVAL, "%s: %s%sfound %s, expected %s", where, key, colon,
                       kinds[node->kind], expected);
    }
    return err_set(err, WEIR_EINVAL, "%s: %s%sfound %s'%.*s', expected %s", where, key, colon,
                   node->quoted ? "the text " : "", QUOTED_BYTES_MAX, node->text, expected);
}

/* A scalar that may be something other than text. */
static bool is_plain(const struct yaml *node)
{
    return node->kind == YAML_SCALAR && !node->quoted;
}

enum weir_status yaml_bool(const struct yaml *node, const char *name, bool *out,
                           struct weir_err *err)
{
    const bool yes = is_plain(node) && strcmp(node->text, "true") == 0;
    if (!yes && !(is_plain(node) && strcmp(node->text, "false") == 0)) {
        return mismatch(node, name, "true or false", err);
    }
    *out = yes;
    return WEIR_OK;
}

/* Digits with an optional minus; false when it is anything else or does not fit. */
static bool text_to_i64(const char *text, int64_t *out)
{
    const bool negative = text[0] == '-';
    const uint64_t max = (uint64_t)INT64_MAX + negative;
    uint64_t magnitude = 0;
    if (!bytes_to_u64(bytes_of(text + negative), max, &magnitude)) {
        return false;
    }
    *out = negative ? (int64_t)(UINT64_C(0) - magnitude) : (int64_t)magnitude;
    return true;
}

enum weir_status yaml_i64(const struct yaml *node, const char *name, int64_t min, int64_t max,
                          int64_t *out, struct weir_err *err)
{
    int64_t value = 0;
    if (is_plain(node) && text_to_i64(node->text, &value) && value >= min && value <= max) {
        *out = value;
        return WEIR_OK;
    }
    char expected[96];
    (void)snprintf(expected, sizeof expected, "a whole number from %" PRId64 " to %" PRId64, min,
                   max);
    return mismatch(node, name, expected, err);
}

/* Only what JSON calls a number, and a leading '+' or '.': no hexadecimal, no infinity. */
static bool text_to_double(const char *text, double *out)
{
    if (text[0] == '\0' || text[strspn(text, "0123456789+-.eE")] != '\0') {
        return false;
    }
    char *end = NULL;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value)) {
        return false;
    }
    *out = value;
    return true;
}

enum weir_status yaml_double(const struct yaml *node, const char *name, double min, double max,
                             double *out, struct weir_err *err)
{
    double value = 0;
    if (is_plain(node) && text_to_double(node->text, &value) && value >= min && value <= max) {
        *out = value;
        return WEIR_OK;
    }
    char expected[96];
    (void)snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
    return mismatch(node, name, expected, err);
}

/* Quotes are welcome here, because "64 KiB" looks as if it needed them. */
enum weir_status yaml_size(const struct yaml *node, const char *name, uint64_t *out,
                           struct weir_err *err)
{
    if (node->kind != YAML_SCALAR || !bytes_to_size(bytes_of(node->text), out)) {
        return mismatch(node, name, "a size such as 64KiB, 1.5GiB or 4096", err);
    }
    return WEIR_OK;
}

enum weir_status yaml_duration_ns(const struct yaml *node, const char *name, uint64_t *out,
                                  struct weir_err *err)
{
    if (node->kind != YAML_SCALAR || !bytes_to_duration_ns(bytes_of(node->text), out)) {
        return mismatch(node, name, "a duration such as 500us, 1.5s or 10min", err);
    }
    return WEIR_OK;
}

enum weir_status yaml_string(const struct yaml *node, const char *name, const char **out,
                             struct weir_err *err)
{
    if (node->kind != YAML_SCALAR || is_null(node)) {
        return mismatch(node, name, "a text", err);
    }
    *out = node->text;
    return WEIR_OK;
}
