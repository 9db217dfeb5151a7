/*
 * The effective configuration, value by value.
 *
 * It is the JSON that clients get from /config, walked side by side with the tree
 * of what the files say: a value that the tree has comes from there, one that it
 * has not was read from the model or is a default.
 */
#include "server/inspect.h"

#include <stdio.h>
#include <string.h>

#include "server/inspect_impl.h"
#include "util/json.h"

#define PATH_TEXT 256
#define JSON_BYTES_MAX (4 << 20)
#define BUCKETS_TEXT 256

#define DIM "\x1b[2m"
#define BOLD "\x1b[1m"
#define RED "\x1b[1;31m"
#define PLAIN "\x1b[0m"

/* A value and where it comes from. */
typedef void source_fn(void *context, const char *path, struct bytes value, const char *source,
                       bool said);

struct walk {
    const struct inspection *self;
    source_fn *each;
    void *context;
    char path[PATH_TEXT];
};

static bool is_unset(yyjson_val *value)
{
    if (yyjson_is_arr(value)) {
        return yyjson_arr_size(value) == 0;
    }
    if (yyjson_is_obj(value)) {
        return yyjson_obj_size(value) == 0;
    }
    return yyjson_is_null(value) || yyjson_is_false(value) ||
           (yyjson_is_str(value) && yyjson_get_len(value) == 0) ||
           (yyjson_is_num(value) && yyjson_get_num(value) == 0);
}

static bool has_objects(yyjson_val *value)
{
    return yyjson_is_arr(value) && yyjson_is_obj(yyjson_arr_get_first(value));
}

/* Where a value that no file gives comes from. */
static const char *inferred(const struct walk *walk)
{
    const char *path = walk->path;
    const struct inspection *self = walk->self;
    const bool known = self->signature.input_count + self->signature.output_count > 0;
    const bool tensor = strncmp(path, "input[", 6) == 0 || strncmp(path, "output[", 7) == 0;
    if (known && ((tensor && (strstr(path, ".dims") != NULL || strstr(path, "_type") != NULL ||
                              strstr(path, ".name") != NULL)) ||
                  strcmp(path, "max_batch_size") == 0)) {
        return self->simulated != NULL ? "parameters" : "model file";
    }
    return strcmp(path, "name") == 0 ? "folder" : "default";
}

/* Blocks that /config has for Triton's clients alone. */
static bool is_filler(const char *path)
{
    const char *end = strrchr(path, '.');
    return strncmp(path, "optimization.", 13) == 0 || (end != NULL && strcmp(end, ".format") == 0);
}

static void tell(struct walk *walk, yyjson_val *value, const struct yaml *node)
{
    char where[YAML_WHERE];
    char *text = yyjson_val_write(value, 0, NULL);
    const bool worth =
        strcmp(walk->path, "max_batch_size") == 0 || (!is_unset(value) && !is_filler(walk->path));
    if (text != NULL && (node != NULL || worth)) {
        walk->each(walk->context, walk->path, bytes_of(text),
                   node != NULL ? yaml_where(node, where) : inferred(walk), node != NULL);
    }
    free(text);
}

/* The tree's entry for a member; what is written in short holds for all that follows from it. */
static const struct yaml *entry_of(const struct walk *walk, const struct yaml *node,
                                   const char *key)
{
    if (node == NULL || node->kind == YAML_SCALAR) {
        return node;
    }
    const struct yaml *entry = yaml_get(node, key);
    if (entry == NULL && strcmp(walk->path, "dynamic_batching") == 0 &&
        strcmp(key, "max_queue_delay_microseconds") == 0) {
        return yaml_get(walk->self->look.root, "queue_delay");
    }
    return entry;
}

/* Of a list the item of the same name, else of the same place. */
static const struct yaml *item_of(const struct yaml *node, yyjson_val *item, size_t index)
{
    const char *name = yyjson_get_str(yyjson_obj_get(item, "name"));
    if (node == NULL || node->kind != YAML_LIST) {
        return NULL;
    }
    const struct yaml *at_index = NULL;
    bool named = false;
    size_t i = 0;
    for (const struct yaml *entry = node->first; entry != NULL; entry = entry->next, i++) {
        const struct yaml *own = yaml_get(entry, "name");
        named = named || own != NULL;
        if (own != NULL && own->kind == YAML_SCALAR && name != NULL &&
            strcmp(own->text, name) == 0) {
            return entry;
        }
        at_index = i == index ? entry : at_index;
    }
    return named ? NULL : at_index;
}

/* Depth: that of the JSON, which modelconfig_to_json() made. */
static void walk_value(struct walk *walk, yyjson_val *value, const struct yaml *node)
{
    const size_t used = strlen(walk->path);
    if (yyjson_is_obj(value) && yyjson_obj_size(value) > 0) {
        yyjson_val *key;
        yyjson_val *member;
        size_t i;
        size_t count;
        yyjson_obj_foreach(value, i, count, key, member) {
            const struct yaml *entry = entry_of(walk, node, yyjson_get_str(key));
            (void)snprintf(walk->path + used, PATH_TEXT - used, "%s%s", used == 0 ? "" : ".",
                           yyjson_get_str(key));
            walk_value(walk, member, entry);
            walk->path[used] = '\0';
        }
    } else if (has_objects(value)) {
        yyjson_val *item;
        size_t i;
        size_t count;
        yyjson_arr_foreach(value, i, count, item) {
            (void)snprintf(walk->path + used, PATH_TEXT - used, "[%zu]", i);
            walk_value(walk, item, item_of(node, item, i));
            walk->path[used] = '\0';
        }
    } else {
        tell(walk, value, node);
    }
}

/* "x[1] to 64, 128; mask[1]": as much as fits. */
static const char *buckets_text(const struct model_config *config, char out[BUCKETS_TEXT])
{
    struct buffer text;
    buffer_init(&text, BUCKETS_TEXT - 1);
    for (uint32_t i = 0; i < config->bucket_count; i++) {
        const struct bucket_config *bucket = &config->buckets[i];
        buffer_printf(&text, "%s%s[%u]", i == 0 ? "" : "; ", bucket->input, bucket->dim);
        for (uint32_t s = 0; s < bucket->size_count; s++) {
            buffer_printf(&text, "%s%u", s == 0 ? " to " : ", ", bucket->sizes[s]);
        }
    }
    (void)snprintf(out, BUCKETS_TEXT, "%.*s", (int)text.size, text.size == 0 ? "" : text.data);
    buffer_finish(&text);
    return config->bucket_count == 0 ? "none" : out;
}

/* Weir's own settings, which Triton's message has no place for. */
static void walk_own(struct walk *walk)
{
#define TEXT(name, text) text,
    static const char *const modes[] = { BATCHING_MODES(TEXT) };
    static const char *const overloads[] = { OVERLOAD_MODES(TEXT) };
    static const char *const limits[] = { LIMIT_MODES(TEXT) };
    static const char *const isolations[] = { ISOLATION_MODES(TEXT) };
    static const char *const weights[] = { WEIGHTS_MODES(TEXT) };
#undef TEXT
    const struct model_config *config = walk->self->config;
    char buckets[BUCKETS_TEXT];
    char deadline[32];
    (void)snprintf(deadline, sizeof(deadline), config->deadline_ns > 0 ? "%gms" : "none",
                   (double)config->deadline_ns / (double)NS_PER_MS);
    char threads[16];
    (void)snprintf(threads, sizeof(threads), "%u", config->intra_threads);
    const struct {
        const char *key;
        const char *value;
    } rows[] = {
        { "batching", modes[config->batching] },
        { "deadline", deadline },
        { "overload", overloads[config->overload] },
        { "adaptive_limit", limits[config->adaptive_limit] },
        { "join", config->join ? "true" : "false" },
        { "device", config->device },
        { "intra_threads", threads },
        { "isolation", isolations[config->isolation] },
        { "weights", weights[config->weights] },
        { "shape_buckets", buckets_text(config, buckets) },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char where[YAML_WHERE];
        const struct yaml *node = yaml_get(walk->self->look.root, rows[i].key);
        walk->each(walk->context, rows[i].key, bytes_of(rows[i].value),
                   node != NULL ? yaml_where(node, where) : "default", node != NULL);
    }
}

static enum weir_status walk_config(const struct inspection *self, source_fn *each, void *context,
                                    struct weir_err *err)
{
    struct buffer json;
    yyjson_doc *doc = NULL;
    const struct model model = { .name = self->name,
                                 .version = self->version,
                                 .config = self->config,
                                 .signature = &self->signature };
    struct walk walk = { .self = self, .each = each, .context = context };
    buffer_init(&json, JSON_BYTES_MAX);
    modelconfig_to_json(&model, &json);
    const enum weir_status status =
        json.failed ? err_nomem(err, "a configuration", JSON_BYTES_MAX)
                    : json_read((struct bytes){ json.data, json.size }, &doc, err);
    if (status == WEIR_OK) {
        walk_value(&walk, yyjson_doc_get_root(doc), self->look.root);
        walk_own(&walk);
        yyjson_doc_free(doc);
    }
    buffer_finish(&json);
    return status;
}

/* ---- Reports --------------------------------------------------------------------------------- */

struct report {
    struct buffer *out;
    bool color;
};

static void table_row(void *context, const char *path, struct bytes value, const char *source,
                      bool said)
{
    const struct report *report = context;
    const char *mark = !report->color ? "" : said ? BOLD : DIM;
    buffer_printf(report->out, "%s%-46s %-24.*s%s  %s\n", mark, path, (int)value.size, value.data,
                  report->color ? PLAIN : "", source);
}

static void lines(struct buffer *out, const char *title, struct bytes text, char separator,
                  bool color)
{
    if (text.size == 0) {
        return;
    }
    buffer_printf(out, "\n%s%s%s\n", color ? RED : "", title, color ? PLAIN : "");
    const char *end = text.data + text.size;
    for (const char *at = text.data; at < end;) {
        const char *stop = memchr(at, separator, (size_t)(end - at));
        stop = stop == NULL ? end : stop;
        buffer_printf(out, "  %.*s\n", (int)(stop - at), at);
        at = stop + (stop < end ? 1 : 0);
        at += at < end && *at == ' ' ? 1 : 0;
    }
}

static struct bytes mistakes(const struct inspection *self)
{
    const struct buffer *problems = &self->look.problems;
    return problems->size > 0 ? (struct bytes){ problems->data, problems->size }
                              : bytes_of(self->problem.text);
}

static enum weir_status report_table(const struct inspection *self, bool color, struct buffer *out,
                                     struct weir_err *err)
{
    struct report report = { out, color };
    buffer_printf(out, "%s\n\n%-46s %-24s  %s\n",
                  self->folder[0] != '\0' ? self->folder : self->file, "setting", "value", "from");
    const enum weir_status status = walk_config(self, table_row, &report, err);
    const char *remark = self->config->remark;
    lines(out, "warnings:", bytes_of(remark == NULL ? "" : remark), ';', color);
    lines(out, "cannot be served:", mistakes(self), '\n', color);
    return status;
}

static void member_row(void *context, const char *path, struct bytes value, const char *source,
                       bool said)
{
    struct buffer *out = context;
    (void)value;
    (void)said;
    json_key(out, path);
    json_string(out, source);
}

static void lines_json(struct buffer *out, const char *key, struct bytes text, char separator)
{
    json_key(out, key);
    buffer_char(out, '[');
    const char *end = text.data + text.size;
    for (const char *at = text.data; text.size > 0 && at < end;) {
        const char *stop = memchr(at, separator, (size_t)(end - at));
        stop = stop == NULL ? end : stop;
        json_comma(out);
        json_text(out, (struct bytes){ at, (size_t)(stop - at) });
        at = stop + (stop < end ? 1 : 0);
        at += at < end && *at == ' ' ? 1 : 0;
    }
    buffer_char(out, ']');
}

static enum weir_status report_json(const struct inspection *self, struct buffer *out,
                                    struct weir_err *err)
{
    const struct model model = { .name = self->name,
                                 .version = self->version,
                                 .config = self->config,
                                 .signature = &self->signature };
    buffer_char(out, '{');
    json_key(out, "name");
    json_string(out, self->name);
    json_key(out, "servable");
    json_bool(out, mistakes(self).size == 0);
    lines_json(out, "problems", mistakes(self), '\n');
    const char *remark = self->config->remark;
    lines_json(out, "warnings", bytes_of(remark == NULL ? "" : remark), ';');
    json_key(out, "config");
    modelconfig_to_json(&model, out);
    json_key(out, "sources");
    buffer_char(out, '{');
    const enum weir_status status = walk_config(self, member_row, out, err);
    buffer_text(out, "}}\n");
    return status;
}

enum weir_status inspect_config(const char *path, bool json, bool color, struct buffer *out,
                                bool *servable, struct weir_err *err)
{
    struct inspection self = { 0 };
    struct weir_err own = { 0 };
    enum weir_status status = inspect_look(&self, path, &own);
    if (self.config == NULL) {
        status = err_set(err, status == WEIR_OK ? WEIR_EINVAL : status, "%s",
                         own.text[0] != '\0' ? own.text : self.problem.text);
        inspect_finish(&self);
        return status;
    }
    if (status != WEIR_OK && self.problem.text[0] == '\0') {
        self.problem = own;
    }
    *servable = mistakes(&self).size == 0;
    status = json ? report_json(&self, out, err) : report_table(&self, color, out, err);
    inspect_finish(&self);
    return status;
}
