/*
 * The table of ModelConfig itself; those of its larger messages are in modelconfig_*.c.
 */
#include "server/modelconfig.h"

#include <inttypes.h>
#include <string.h>

#include "engine/effective.h"
#include "server/modelconfig_tables.h"
#include "server/overlay.h"
#include "server/pbtxt.h"
#include "util/arena.h"
#include "util/clock.h"
#include "util/file.h"

#define VERSIONS_MAX 64
#define WARNING_BYTES_MAX 4096

static const struct field latest_fields[] = {
    FIELD_RANGE("num_versions", field_u32, "count", "how many of the highest are served",
                AT(model_config, policy_count), 1, UINT32_MAX),
};
static const struct field_table latest_table = FIELD_TABLE(latest_fields);

static enum weir_status read_latest(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    struct model_config *config = target;
    config->policy = VERSION_LATEST;
    config->policy_count = 1;
    return field_read_table(reader, field->table, node, target);
}

static const struct field_table no_table = { NULL, 0 };

static enum weir_status read_all(const struct field_reader *reader, const struct field *field,
                                 const struct yaml *node, void *target)
{
    ((struct model_config *)target)->policy = VERSION_ALL;
    return field_read_table(reader, field->table, node, target);
}

static enum weir_status read_versions(const struct field_reader *reader, const struct field *field,
                                      const struct yaml *node, void *target)
{
    (void)field;
    struct model_config *config = target;
    if (node->kind != YAML_LIST || node->count < 1 || node->count > VERSIONS_MAX) {
        return field_refuse(reader, node, "a list of 1 to 64 versions");
    }
    uint32_t count = 0;
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        const enum weir_status status = yaml_i64(item, node->file, 1, INT64_MAX,
                                                 &config->policy_versions[count++], reader->err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    config->policy_count = count;
    return WEIR_OK;
}

static const struct field specific_fields[] = {
    FIELD_FORM(FORM_LIST, "versions", read_versions, "list of versions", "those that are served",
               NULL),
};
static const struct field_table specific_table = FIELD_TABLE(specific_fields);

static enum weir_status read_specific(const struct field_reader *reader, const struct field *field,
                                      const struct yaml *node, void *target)
{
    struct model_config *config = target;
    config->policy = VERSION_SPECIFIC;
    config->policy_count = 0;
    const enum weir_status status = field_read_table(reader, field->table, node, target);
    return status == WEIR_OK && config->policy_count == 0
               ? field_refuse(reader, node, "versions: a list of versions")
               : status;
}

static const struct field policy_fields[] = {
    FIELD_CHOICE("latest", read_latest, "map",
                 "the highest versions (the default, with num_versions: 1)", 0, &latest_table),
    FIELD_CHOICE("all", read_all, "{}", "every version", 0, &no_table),
    FIELD_CHOICE("specific", read_specific, "map", "the versions named", 0, &specific_table),
};
static const struct field_table policy_table = FIELD_TABLE(policy_fields);

static enum weir_status read_policy(const struct field_reader *reader, const struct field *field,
                                    const struct yaml *node, void *target)
{
    static const char expected[] = "one of latest, all, specific";
    struct model_config *config = target;
    if (node->kind == YAML_SCALAR) {
        const bool all = strcmp(node->text, "all") == 0;
        if (!all && strcmp(node->text, "latest") != 0) {
            return field_refuse(reader, node, expected);
        }
        config->policy = all ? VERSION_ALL : VERSION_LATEST;
        config->policy_count = 1;
        return WEIR_OK;
    }
    return field_read_table(reader, field->table, node, target);
}

static const struct field parameter_fields[] = {
    FIELD("string_value", field_text, "text", "the value", 0),
};
static const struct field_table parameter_table = FIELD_TABLE(parameter_fields);

/* Triton's parameters of the ONNX Runtime and what they are here. */
static const struct {
    const char *key;
    const char *unset;   /* The value that changes nothing. */
    const char *warning; /* NULL: honoured. */
} knobs[] = {
    { "intra_op_thread_count", "0", NULL },
    { "inter_op_thread_count", "0", "no effect: a run's operators run one after the other" },
    { "execution_mode", "0", "no effect: a run's operators run one after the other" },
    { "enable_mem_arena", "1", "no effect: the server manages the runtime's memory" },
    { "enable_mem_pattern", "1", "no effect: the server manages the runtime's memory" },
    { "cudnn_conv_algo_search", "", "no effect: see options of execution_providers" },
    { "gpu_mem_limit", "", "no effect: see memory_limit of execution_providers" },
    { "arena_extend_strategy", "", "no effect: see options of execution_providers" },
    { "do_copy_in_default_stream", "", "no effect: see options of execution_providers" },
};

#define THREADS_MAX 1024

static enum weir_status read_knob(const struct field_reader *reader, const struct yaml *item,
                                  const struct yaml *value, struct model_config *config)
{
    for (size_t i = 0; i < sizeof(knobs) / sizeof(knobs[0]); i++) {
        if (strcmp(item->key, knobs[i].key) != 0 || strcmp(value->text, knobs[i].unset) == 0) {
            continue;
        }
        uint64_t threads = 0;
        if (knobs[i].warning != NULL) {
            field_warn(reader, item, knobs[i].warning);
        } else if (!bytes_to_u64(bytes_of(value->text), THREADS_MAX, &threads)) {
            return field_refuse(reader, value, "a number of threads from 0 to 1024");
        } else {
            config->intra_threads = (uint32_t)threads;
        }
    }
    return WEIR_OK;
}

/* `key: value`, or as protobuf's JSON has it `key: { string_value: value }`. */
static enum weir_status read_parameters(const struct field_reader *reader,
                                        const struct field *field, const struct yaml *node,
                                        void *target)
{
    (void)field;
    struct model_config *config = target;
    if (node->kind != YAML_MAP) {
        return field_refuse(reader, node, "a map of texts");
    }
    struct setting *settings = arena_try_zero(reader->arena, node->count, sizeof(*settings));
    if (settings == NULL) {
        return err_nomem(reader->err, node->file, node->count * sizeof(*settings));
    }
    uint32_t count = 0;
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        const struct yaml *value = item;
        if (item->kind == YAML_MAP && item->count == 1) {
            value = yaml_get(item, "string_value");
            value = value == NULL && reader->loose ? yaml_get(item, "stringValue") : value;
        }
        if (value == NULL || value->kind != YAML_SCALAR) {
            return field_refuse(reader, item, "a text, or { string_value: TEXT }");
        }
        settings[count++] = (struct setting){ item->key, value->text };
        const enum weir_status status = read_knob(reader, item, value, config);
        if (status != WEIR_OK) {
            return status;
        }
    }
    config->settings = settings;
    config->setting_count = count;
    return WEIR_OK;
}

#define TEXT(name, text) text,
static const char *const batching_words[] = { BATCHING_MODES(TEXT) };
static const char *const overload_words[] = { OVERLOAD_MODES(TEXT) };
static const char *const limit_words[] = { LIMIT_MODES(TEXT) };
static const char *const isolation_words[] = { ISOLATION_MODES(TEXT) };
static const char *const scope_words[] = { ISOLATION_SCOPES(TEXT) };
static const char *const update_words[] = { UPDATE_MODES(TEXT) };
static const char *const required_words[] = { REQUIRED_MODES(TEXT) };
static const char *const weights_words[] = { WEIGHTS_MODES(TEXT) };
#undef TEXT

#define WORDS(words, expected)                                    \
    {                                                             \
        "", (words), sizeof(words) / sizeof(*(words)), (expected) \
    }
static const struct field_words batching_modes = WORDS(batching_words, "auto, insist or off");
static const struct field_words overload_modes = WORDS(overload_words, "drop or queue");
static const struct field_words limit_modes = WORDS(limit_words, "auto, all or off");
static const struct field_words isolation_modes = WORDS(isolation_words, "none or process");
static const struct field_words isolation_scopes = WORDS(scope_words, "model, group or instance");
static const struct field_words update_modes = WORDS(update_words, "keep or replace");
static const struct field_words required_modes = WORDS(required_words, "auto, true or false");
static const struct field_words weights_modes = WORDS(weights_words, "auto, mapped or prepacked");
#undef WORDS

static enum weir_status read_name(const struct field_reader *reader, const struct field *field,
                                  const struct yaml *node, void *target)
{
    const char *name = NULL;
    const struct field row = { .key = field->key };
    const enum weir_status status = field_text(reader, &row, node, &name);
    if (status != WEIR_OK) {
        return status;
    }
    if (name[0] != '\0' && strcmp(name, reader->subject) != 0) {
        char where[YAML_WHERE];
        return err_set(reader->err, WEIR_EINVAL,
                       "%s: unexpected directory name '%s' for model '%s', directory name must "
                       "equal model name",
                       yaml_where(node, where), reader->subject, name);
    }
    *(const char **)field_place(field, target) = name;
    return WEIR_OK;
}

static const struct field graph_fields[] = {
    FIELD_WARNED("level", "no effect: the runtime optimizes as far as it can"),
};
static const struct field_table graph_table = FIELD_TABLE(graph_fields);

static const struct field optimization_fields[] = {
    FIELD_NESTED("graph", field_message, "map", "of the runtime's rewriting", &graph_table),
    FIELD_NOTHING("input_pinned_memory", "map", "no effect on a CPU"),
    FIELD_NOTHING("output_pinned_memory", "map", "no effect on a CPU"),
    FIELD_WARNED("priority", "no effect: only TensorRT has priorities of streams"),
    FIELD_WARNED("cuda", "no effect: see options of execution_providers"),
    FIELD_WARNED("execution_accelerators", "no effect: the runtime's own kernels are used"),
    FIELD_WARNED("gather_kernel_buffer_threshold", "no effect: inputs are gathered on the host"),
    FIELD_WARNED("eager_batching", "no effect: rows are gathered when a run begins"),
};
static const struct field_table optimization_table = FIELD_TABLE(optimization_fields);

static const struct field transaction_fields[] = {
    FIELD("decoupled", field_bool, "true or false", "the model answers in any number of parts",
          AT(model_config, decoupled)),
};
static const struct field_table transaction_table = FIELD_TABLE(transaction_fields);

static const struct field cache_fields[] = {
    FIELD("enable", field_bool, "true or false",
          "equal requests may be answered from the cache (--cache-bytes)",
          AT(model_config, response_cache)),
};
static const struct field_table cache_table = FIELD_TABLE(cache_fields);

static const struct field model_fields[] = {
    FIELD("name", read_name, "text", "the folder's name, if given", AT(model_config, name)),
    FIELD("backend", field_text, "onnxruntime or sim", "what runs the model",
          AT(model_config, backend)),
    FIELD("platform", field_text, "onnxruntime_onnx, ensemble", "the same in Triton's older words",
          AT(model_config, platform)),
    FIELD_RANGE("max_batch_size", field_i64, "rows",
                "of one run; 0: the model has no batch dimension; inferred: 64 or 0",
                AT(model_config, max_batch_size), 0, INT32_MAX),
    FIELD_FORM(FORM_NAMED, "input", modelconfig_inputs, "list",
               "inputs, to check or narrow what the model says", &modelconfig_input_table),
    FIELD_FORM(FORM_NAMED, "output", modelconfig_outputs, "list", "outputs, and their labels",
               &modelconfig_output_table),
    FIELD_CHOICE("dynamic_batching", modelconfig_dynamic, "map", "how requests are gathered", 0,
                 &modelconfig_dynamic_table),
    FIELD_CHOICE("sequence_batching", modelconfig_sequence, "map",
                 "requests of a sequence go to one place, in order", 0,
                 &modelconfig_sequence_table),
    FIELD_CHOICE("ensemble_scheduling", modelconfig_ensemble, "map",
                 "the model is a graph of other models", 0, &modelconfig_ensemble_table),
    FIELD_FORM(FORM_LIST, "instance_group", modelconfig_groups, "list",
               "runs at once; as many as are found to pay", &modelconfig_group_table),
    FIELD("instances", modelconfig_instances, "count or auto",
          "runs at once; auto: as many as are found to pay", AT(model_config, instances)),
    FIELD_NESTED("version_policy", read_policy, "latest, all or specific",
                 "which versions are served", &policy_table),
    FIELD_FORM(FORM_LIST, "model_warmup", modelconfig_warmups, "list",
               "runs that must succeed before the model is ready", &modelconfig_warmup_table),
    FIELD_FORM(FORM_MAP, "parameters", read_parameters, "map of texts", "settings of the backend",
               &parameter_table),
    FIELD("default_model_filename", field_text, "file", "in the version's folder; model.onnx",
          AT(model_config, file_name)),
    FIELD_NESTED("response_cache", field_message, "map", "answers that are kept", &cache_table),
    FIELD_NESTED("model_transaction_policy", field_message, "map", "how often it answers",
                 &transaction_table),
    FIELD_ENUM("batching", &batching_modes, "auto, insist or off",
               "auto: on where a proof at load shows that rows are independent",
               AT(model_config, batching)),
    FIELD("queue_delay", field_duration, "duration such as 2ms",
          "longest wait of a request for company", AT(model_config, queue_delay_ns)),
    FIELD("deadline", field_duration, "duration such as 20ms",
          "of requests that bring none, from their arrival; 0: none",
          AT(model_config, deadline_ns)),
    FIELD_ENUM("overload", &overload_modes, "drop or queue",
               "drop: who cannot be served by its deadline is told at once",
               AT(model_config, overload)),
    FIELD_ENUM("adaptive_limit", &limit_modes, "auto, all or off",
               "requests in hand are limited by the time that those with deadlines, or all, take",
               AT(model_config, adaptive_limit)),
    FIELD("join", field_bool, "true or false", "equal requests in flight share one run",
          AT(model_config, join)),
    FIELD_FORM(FORM_LIST, "shape_buckets", modelconfig_buckets, "map, or a list of them",
               "lengths that are padded so that different ones share a run",
               &modelconfig_bucket_table),
    FIELD("device", field_text, "text", "where it runs: a device, or all of a pool; cpu",
          AT(model_config, device)),
    FIELD_FORM(FORM_LIST, "devices", modelconfig_devices, "list of names",
               "several devices of one pool, instead", NULL),
    FIELD("numa_node", modelconfig_numa_node, "number", "memory node whose processors run it; any",
          AT(model_config, numa_nodes)),
    FIELD("peak_memory", field_size, "size such as 512MiB",
          "of its device, that loading takes; until it was measured", AT(model_config, peak_bytes)),
    FIELD("safe_rows", field_u32, "count",
          "of one run, that its device has memory for; 0: found out", AT(model_config, safe_rows)),
    FIELD("memory_group", field_text, "text", "group of models that share a budget",
          AT(model_config, memory_group)),
    FIELD_ENUM("update", &update_modes, "keep or replace",
               "a reload without room beside what serves is refused, or that is unloaded first",
               AT(model_config, update)),
    FIELD_RANGE("intra_threads", field_u32, "count", "threads of one run; 1",
                AT(model_config, intra_threads), 1, 1024),
    FIELD_ENUM("isolation", &isolation_modes, "none or process",
               "process: a crash of the model is not the server's", AT(model_config, isolation)),
    FIELD_ENUM("isolation_scope", &isolation_scopes, "model, group or instance",
               "what shares a process", AT(model_config, isolation_scope)),
    FIELD("isolation_group", field_text, "text", "models that name the same share a process",
          AT(model_config, isolation_group)),
    FIELD("memory_limit", field_size, "size such as 1GiB", "of its process; 0: none",
          AT(model_config, memory_limit)),
    FIELD("run_limit", field_duration, "duration such as 5s",
          "a run that takes longer is ended; 0: none", AT(model_config, run_limit_ns)),
    FIELD("load_limit", field_duration, "duration such as 10min",
          "a load with a longer step has failed, and is ended or written off; 0: none",
          AT(model_config, load_limit_ns)),
    FIELD(
        "canary_interval", field_duration, "duration such as 30s",
        "without a run for so long (at least 100ms) it gets one of its own; the server's; 0: none",
        AT(model_config, canary_interval_ns)),
    FIELD_ENUM("required", &required_modes, "auto, true or false",
               "the server is ready only while it is; auto: if it is loaded at the start",
               AT(model_config, required)),
    FIELD_FORM(FORM_LIST, "execution_providers", modelconfig_providers, "list of names or maps",
               "what runs the graph, in the order of preference", &modelconfig_provider_table),
    FIELD_ENUM("weights", &weights_modes, "auto, mapped or prepacked",
               "mapped: loads at once and runs slower; auto: so on demand, until the model is hot",
               AT(model_config, weights)),
    FIELD_RANGE("promote_after", field_u32, "count",
                "runs that make a model with mapped weights hot; 200; 0: never",
                AT(model_config, promote_after), 0, UINT32_MAX),
    FIELD_NESTED("optimization", field_message, "map", "hints", &optimization_table),
    FIELD_WARNED("runtime", "no effect: the backend is built in"),
    FIELD_WARNED("cc_model_filenames", "no effect: there is no GPU whose capability would choose"),
    FIELD_WARNED("metric_tags", "no effect: metrics have the labels model and version"),
    FIELD_WARNED("model_metrics", "no effect: metrics are the same for all models"),
    FIELD_REFUSED("batch_input", "inputs made from the shapes of a ragged batch"),
    FIELD_REFUSED("batch_output", "outputs scattered by the shapes of a ragged batch"),
    FIELD_REFUSED("model_operations",
                  "libraries of custom operators would be foreign code in the server's process"),
    FIELD_REFUSED("model_repository_agents", "a model is loaded from its folder as it is"),
};
static const struct field_table model_table = FIELD_TABLE(model_fields);

/* ---- Reading --------------------------------------------------------------------------------- */

/* ---- Reading --------------------------------------------------------------------------------- */

/* The warnings of all files, one after the other, in one sentence. */
static enum weir_status set_remark(struct model_config *config, const struct buffer *warnings,
                                   struct weir_err *err)
{
    if (warnings->size == 0) {
        return WEIR_OK;
    }
    struct buffer joined;
    buffer_init(&joined, 2 * WARNING_BYTES_MAX);
    for (size_t i = 0; i + 1 < warnings->size; i++) {
        if (warnings->data[i] == '\n') {
            buffer_text(&joined, "; ");
        } else {
            buffer_char(&joined, warnings->data[i]);
        }
    }
    config->remark = arena_try_strndup(config->arena, joined.data, joined.size);
    const bool failed = joined.failed || config->remark == NULL;
    buffer_finish(&joined);
    return failed ? err_nomem(err, "a model's configuration", warnings->size) : WEIR_OK;
}

/* The first mistake, and how many there are beside it. */
static enum weir_status tell_problems(const struct buffer *problems, bool file,
                                      struct weir_err *err)
{
    uint32_t count = 0;
    for (size_t i = 0; i < problems->size; i++) {
        count += problems->data[i] == '\n' ? 1 : 0;
    }
    const char *end = memchr(problems->data, '\n', problems->size);
    const int size = (int)(end - problems->data);
    if (count == 1) {
        return err_set(err, WEIR_EINVAL, "%.*s", size, problems->data);
    }
    return err_set(err, WEIR_EINVAL, "%.*s (and %" PRIu32 " more%s)", size, problems->data,
                   count - 1, file ? ": weir inspect lists them" : "");
}

/* Protobuf's JSON has 64-bit integers in quotes; texts do not mind.  Depth: the tree's. */
static void unquote_numbers(struct yaml *node)
{
    for (struct yaml *entry = node->first; entry != NULL; entry = entry->next) {
        unquote_numbers(entry);
    }
    if (node->kind == YAML_SCALAR && node->quoted) {
        const char *digits = node->text + (node->text[0] == '-' ? 1 : 0);
        uint64_t ignored;
        node->quoted = !bytes_to_u64(bytes_of(digits), UINT64_MAX, &ignored);
    }
}

/* What no single setting can say. */
static void check_whole(struct model_config *config, const char *name, const struct yaml *root,
                        struct buffer *problems)
{
    bool reshape = false;
    for (uint32_t i = 0; i < config->input_count; i++) {
        reshape = reshape || config->inputs[i].has_reshape;
    }
    for (uint32_t i = 0; i < config->output_count; i++) {
        reshape = reshape || config->outputs[i].has_reshape;
    }
    if (config->ensemble.step_count > 0 && reshape) {
        buffer_printf(problems,
                      "%s: found reshape in ensemble '%s', expected it in the configurations of "
                      "its steps' models\n",
                      root->file, name);
    }
    const bool grouped = config->isolation_group != NULL;
    if (grouped && config->isolation_scope != ISOLATION_GROUP) {
        buffer_printf(problems, "%s: found isolation_group, expected isolation_scope: group, too\n",
                      root->file);
    }
    if (!grouped && config->isolation_scope == ISOLATION_GROUP) {
        buffer_printf(problems, "%s: found no isolation_group, expected the group's name\n",
                      root->file);
    }
    if (config->isolation == ISOLATE_NONE && config->memory_limit > 0) {
        buffer_printf(problems,
                      "%s: found memory_limit without isolation: process, expected both: only a "
                      "process of its own has a limit\n",
                      root->file);
    }
    if (config->timeout_delay) {
        config->queue_timeout_ns = CLOCK_NEVER;
    }
}

/* Reads the tree by the table; `problems` gets all mistakes, one per line. */
static enum weir_status read_tree(struct model_config *config, const char *name, struct yaml *root,
                                  bool loose, struct buffer *problems, struct weir_err *err)
{
    if (loose) {
        unquote_numbers(root);
    }
    struct weir_err own = { 0 };
    struct buffer warnings;
    buffer_init(&warnings, WARNING_BYTES_MAX);
    const struct field_reader reader = {
        .subject = name,
        .arena = config->arena,
        .err = &own,
        .loose = loose,
        .warnings = &warnings,
        .problems = problems,
    };
    enum weir_status status = field_read_table(&reader, &model_table, root, config);
    if (status == WEIR_EINVAL && own.text[0] != '\0') {
        buffer_printf(problems, "%s\n", own.text);
    }
    if (status == WEIR_OK) {
        check_whole(config, name, root, problems);
        status = problems->size > 0 ? WEIR_EINVAL : WEIR_OK;
    }
    if (status == WEIR_OK) {
        status = set_remark(config, &warnings, err);
    } else if (status == WEIR_EINVAL && problems->size > 0) {
        status = tell_problems(problems, !loose, err);
    } else {
        status = err_set(err, status, "%s", own.text);
    }
    buffer_finish(&warnings);
    return status;
}

/* A file's tree by its ending; *out stays NULL when it is not there. */
static enum weir_status read_file(struct arena *arena, int folder_fd, const char *file, bool proto,
                                  struct yaml **out, struct weir_err *err)
{
    struct buffer text = { 0 };
    enum weir_status status = file_read(folder_fd, file, MODELCONFIG_BYTES_MAX, &text, err);
    const struct bytes bytes = { text.data == NULL ? "" : text.data, text.size };
    if (status == WEIR_OK) {
        status = proto ? pbtxt_parse(arena, file, bytes, out, err)
                       : yaml_parse(arena, file, bytes, out, err);
    } else if (status == WEIR_ENOENT) {
        status = WEIR_OK;
    }
    buffer_finish(&text);
    return status;
}

/* config.pbtxt in the form of the table; a mistake in its form is among the problems. */
static enum weir_status shape(struct arena *arena, const char *name, struct yaml *root,
                              struct buffer *problems, struct weir_err *err)
{
    struct weir_err own = { 0 };
    const struct field_reader reader = {
        .subject = name,
        .arena = arena,
        .err = &own,
        .problems = problems,
    };
    const enum weir_status status = overlay_shape(&reader, &model_table, root);
    return status == WEIR_ENOMEM ? err_set(err, status, "%s", own.text) : WEIR_OK;
}

/* Both files as one tree; neither is an empty one. */
static enum weir_status read_folder(struct modelconfig_look *look, const char *name, int folder_fd,
                                    struct weir_err *err)
{
    struct arena *arena = look->config->arena;
    struct yaml *proto = NULL;
    struct yaml *over = NULL;
    enum weir_status status = read_file(arena, folder_fd, "config.pbtxt", true, &proto, err);
    if (status == WEIR_OK && proto != NULL) {
        status = shape(arena, name, proto, &look->problems, err);
    }
    if (status == WEIR_OK) {
        status = read_file(arena, folder_fd, "model.yaml", false, &over, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    look->config->proto = proto != NULL;
    if (proto != NULL && over != NULL && over->kind == YAML_MAP) {
        overlay_merge(&model_table, proto, over);
        over = proto;
    }
    look->root = over != NULL ? over : proto;
    return WEIR_OK;
}

static enum weir_status read_override(struct modelconfig_look *look, const char *override,
                                      struct weir_err *err)
{
    struct model_config *config = look->config;
    const size_t size = strlen(override);
    if (size > MODELCONFIG_BYTES_MAX) {
        return err_set(err, WEIR_EINVAL, "config override: found %zu bytes, expected at most %d",
                       size, MODELCONFIG_BYTES_MAX);
    }
    config->json = arena_try_strndup(config->arena, override, size);
    if (config->json == NULL) {
        return err_nomem(err, "a config override", size);
    }
    config->proto = true;
    return yaml_parse(config->arena, "config override", bytes_of(override), &look->root, err);
}

void modelconfig_look_finish(struct modelconfig_look *look)
{
    buffer_finish(&look->problems);
    effective_release(look->config);
    *look = (struct modelconfig_look){ 0 };
}

enum weir_status modelconfig_look(struct modelconfig_look *look, const char *name, int folder_fd,
                                  const char *override, struct weir_err *err)
{
    *look = (struct modelconfig_look){ .config = effective_create() };
    buffer_init(&look->problems, MODELCONFIG_BYTES_MAX);
    if (look->config == NULL) {
        return err_nomem(err, "a model's configuration", sizeof(*look->config));
    }
    struct weir_err own = { 0 };
    enum weir_status status = override != NULL ? read_override(look, override, &own)
                                               : read_folder(look, name, folder_fd, &own);
    if (status != WEIR_OK) {
        if (status == WEIR_EINVAL) {
            buffer_printf(&look->problems, "%s\n", own.text);
        }
        return err_set(err, status, "%s", own.text);
    }
    if (look->root == NULL) {
        return WEIR_OK;
    }
    return read_tree(look->config, name, look->root, override != NULL, &look->problems, err);
}

enum weir_status modelconfig_parse(struct model_config *config, const char *name, const char *file,
                                   struct bytes text, bool loose, struct weir_err *err)
{
    struct yaml *root = NULL;
    enum weir_status status = yaml_parse(config->arena, file, text, &root, err);
    if (status == WEIR_OK) {
        struct buffer problems;
        buffer_init(&problems, MODELCONFIG_BYTES_MAX);
        status = read_tree(config, name, root, loose, &problems, err);
        buffer_finish(&problems);
    }
    return status;
}

enum weir_status modelconfig_parse_pbtxt(struct model_config *config, const char *name,
                                         const char *file, struct bytes text, struct weir_err *err)
{
    struct yaml *root = NULL;
    enum weir_status status = pbtxt_parse(config->arena, file, text, &root, err);
    if (status != WEIR_OK) {
        return status;
    }
    struct buffer problems;
    buffer_init(&problems, MODELCONFIG_BYTES_MAX);
    config->proto = true;
    status = shape(config->arena, name, root, &problems, err);
    status = status == WEIR_OK ? read_tree(config, name, root, false, &problems, err) : status;
    buffer_finish(&problems);
    return status;
}

enum weir_status modelconfig_read(void *context, const char *name, int folder_fd,
                                  const char *override, struct model_config **out,
                                  struct weir_err *err)
{
    (void)context;
    struct modelconfig_look look;
    const enum weir_status status = modelconfig_look(&look, name, folder_fd, override, err);
    if (status == WEIR_OK) {
        *out = look.config;
        look.config = NULL;
    }
    modelconfig_look_finish(&look);
    return status;
}

void modelconfig_document(struct buffer *out)
{
    field_document(&model_table, 0, out);
}
