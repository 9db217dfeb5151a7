/*
 * The report has three parts: what the file says, whether Weir can serve it, and
 * with which configuration.  The second is a sentence (NULL: it can) and never a
 * failure: who inspects a broken model wants to see the rest of it.
 */
#include "server/inspect.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/bucket.h"
#include "engine/effective.h"
#include "engine/repository.h"
#include "engine/sequence_plan.h"
#include "server/inspect_impl.h"
#include "util/file.h"
#include "util/json.h"
#include "util/mem.h"

#define MODEL_FILE "model.onnx"
#define OPERATORS_SHOWN 12

static const char *const batching_texts[] = {
#define MODE_TEXT(name, text) text,
    BATCHING_MODES(MODE_TEXT)
#undef MODE_TEXT
};

/* ---- Finding the file ------------------------------------------------------------------------ */

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* The last part of a path, without slashes behind it and without its ending if it has that one. */
static void name_of(const char *path, const char *ending, char *out, size_t size)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') {
        begin--;
    }
    const size_t cut = strlen(ending);
    if (cut > 0 && end - begin > cut && strncmp(path + end - cut, ending, cut) == 0) {
        end -= cut;
    }
    (void)snprintf(out, size, "%.*s", (int)(end - begin), path + begin);
}

static uint64_t latest_version(const char *folder)
{
    uint64_t latest = 0;
    DIR *entries = opendir(folder);
    for (struct dirent *entry = entries == NULL ? NULL : readdir(entries); entry != NULL;
         entry = readdir(entries)) {
        uint64_t version;
        if (repository_version_of(entry->d_name, &version) && version > latest) {
            latest = version;
        }
    }
    if (entries != NULL) {
        (void)closedir(entries);
    }
    return latest;
}

/* Reads the configuration's files, or says in the problem what is wrong with them. */
static void read_config(struct inspection *self, const char *folder)
{
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!modelconfig_look(&self->look, self->name, fd, NULL, &self->problem);
        self->config = self->look.config;
        (void)close(fd);
    }
}

static enum weir_status locate(struct inspection *self, const char *path, struct weir_err *err)
{
    int size = snprintf(self->file, sizeof(self->file), "%s", path);
    if (!is_folder(path)) {
        name_of(path, ".onnx", self->name, sizeof(self->name));
    } else if (latest_version(path) > 0) {
        self->version = latest_version(path);
        name_of(path, "", self->name, sizeof(self->name));
        (void)snprintf(self->folder, sizeof(self->folder), "%s", path);
        read_config(self, path);
        if (self->config != NULL && inspect_is_plain(self->config)) {
            self->file[0] = '\0';
            return WEIR_OK;
        }
        const char *file = self->config != NULL ? self->config->file_name : NULL;
        size = snprintf(self->file, sizeof(self->file), "%s/%llu/%s", path,
                        (unsigned long long)self->version, file == NULL ? MODEL_FILE : file);
    } else {
        name_of(path, "", self->name, sizeof(self->name));
        size = snprintf(self->file, sizeof(self->file), "%s/" MODEL_FILE, path);
        if (!exists(self->file)) {
            (void)snprintf(self->folder, sizeof(self->folder), "%s", path);
            read_config(self, path);
            return err_set(err, WEIR_ENOENT,
                           "%s: found neither versions (folders 1, 2, ...) nor " MODEL_FILE
                           ", expected a model's folder",
                           path);
        }
    }
    return size > 0 && (size_t)size < sizeof(self->file)
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL, "the path is too long");
}

/* ---- Can it be served? ----------------------------------------------------------------------- */

static enum weir_status make_specs(struct arena *arena, const struct onnx_value *values,
                                   uint32_t count, const char *side, struct tensor_spec **out,
                                   struct weir_err *err)
{
    struct tensor_spec *specs = arena_try_zero(arena, count + 1u, sizeof(*specs));
    if (specs == NULL) {
        return err_nomem(err, "a signature", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct onnx_value *value = &values[i];
        if (value->kind != ONNX_KIND_TENSOR) {
            return err_set(err, WEIR_EINVAL, "%s '%s' is %s, only tensors can be served", side,
                           value->name, onnx_kind_text(value->kind));
        }
        if (!onnx_type_dtype(value->type, &specs[i].dtype)) {
            return err_set(err, WEIR_EINVAL,
                           "%s '%s' has elements of type %s, which no client can send", side,
                           value->name, onnx_type_text(value->type));
        }
        specs[i].name = value->name;
        specs[i].shape = value->shape;
        specs[i].any_rank = !value->has_shape;
        memcpy(specs[i].dim_names, value->dim_names, sizeof(value->dim_names));
    }
    *out = specs;
    return WEIR_OK;
}

static enum weir_status make_signature(struct inspection *self, struct weir_err *err)
{
    struct onnx_file *onnx = &self->onnx;
    self->signature =
        (struct signature){ .input_count = onnx->input_count, .output_count = onnx->output_count };
    const enum weir_status status = make_specs(&onnx->arena, onnx->inputs, onnx->input_count,
                                               "input", &self->signature.inputs, err);
    return status != WEIR_OK ? status
                             : make_specs(&onnx->arena, onnx->outputs, onnx->output_count, "output",
                                          &self->signature.outputs, err);
}

static enum weir_status check_external(const struct inspection *self, struct weir_err *err)
{
    char folder[PATH_BYTES];
    (void)snprintf(folder, sizeof(folder), "%s", self->file);
    char *slash = strrchr(folder, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    const int fd = open(slash == NULL       ? "."
                        : folder[0] == '\0' ? "/"
                                            : folder,
                        O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(err, WEIR_EIO, "the folder of the file cannot be opened");
    }
    const enum weir_status status = onnx_file_check_external(&self->onnx, fd, err);
    (void)close(fd);
    return status;
}

/* As a load does it: shapes as clients see them, without the tensors that the engine fills in. */
static enum weir_status show_signature(struct inspection *self, struct weir_err *err)
{
    struct model_config *config = self->config;
    struct reshape_rule *rules = NULL;
    uint32_t count = 0;
    enum weir_status status = effective_rules(config, &self->signature, &rules, &count, err);
    for (uint32_t i = 0; status == WEIR_OK && i < count; i++) {
        struct tensor_spec *specs =
            rules[i].output ? self->signature.outputs : self->signature.inputs;
        reshape_show(&rules[i], &specs[rules[i].index]);
    }
    if (status == WEIR_OK && config->sequence.strategy != SEQUENCE_NONE) {
        struct signature *full = arena_try_zero(config->arena, 1, sizeof(*full));
        struct sequence_plan *plan = NULL;
        if (full == NULL) {
            return err_nomem(err, "a signature", sizeof(*full));
        }
        *full = self->signature;
        status = sequence_plan_create(config, full, &plan, err);
        self->signature = status == WEIR_OK ? plan->shown : self->signature;
    }
    return status;
}

enum weir_status inspect_complete(struct inspection *self, struct weir_err *err)
{
    if (self->config == NULL) {
        self->look.config = effective_create();
        self->config = self->look.config;
    }
    if (self->config == NULL) {
        return err_nomem(err, "a configuration", sizeof(*self->config));
    }
    const struct backend_ops *ops = NULL;
    enum weir_status status = effective_backend(self->config, &ops, err);
    status = status == WEIR_OK ? show_signature(self, err) : status;
    if (status == WEIR_OK) {
        status = effective_complete(self->config, &self->signature, &self->why_not, err);
    }
    struct bucket_plan *buckets = NULL; /* Would they fit? */
    if (status == WEIR_OK) {
        status = bucket_plan_create(self->config, &self->signature, self->why_not, &buckets, err);
    }
    bucket_plan_destroy(buckets);
    return status;
}

static void judge(struct inspection *self)
{
    if (self->problem.text[0] != '\0') {
        return; /* The configuration is broken: nothing follows from it. */
    }
    enum weir_status status = make_signature(self, &self->problem);
    if (status == WEIR_OK) {
        status = check_external(self, &self->problem);
    }
    if (status == WEIR_OK) {
        (void)!inspect_complete(self, &self->problem);
    }
}

enum weir_status inspect_look(struct inspection *self, const char *path, struct weir_err *err)
{
    enum weir_status status = locate(self, path, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (self->file[0] == '\0') {
        inspect_plain_judge(self);
        return WEIR_OK;
    }
    struct file_map map = { 0 };
    status = file_map_open(AT_FDCWD, self->file, &map, err);
    if (status != WEIR_OK) {
        return status;
    }
    self->file_bytes = map.size;
    status = onnx_file_read((struct bytes){ (const char *)map.data, map.size }, &self->onnx, err);
    file_map_close(&map);
    if (status != WEIR_OK) {
        (void)err_prefix(err, "%s", self->file);
        return status;
    }
    judge(self);
    return WEIR_OK;
}

/* ---- For people ------------------------------------------------------------------------------ */

/* "[batch,1,256,256]": names where the file has them. */
static void write_shape(struct buffer *out, const struct onnx_value *value)
{
    if (!value->has_shape) {
        buffer_text(out, "any shape");
        return;
    }
    buffer_char(out, '[');
    for (uint32_t i = 0; i < value->shape.rank; i++) {
        buffer_text(out, i == 0 ? "" : ",");
        if (value->shape.dims[i] < 0 && value->dim_names[i] != NULL) {
            buffer_text(out, value->dim_names[i]);
        } else {
            buffer_i64(out, value->shape.dims[i]);
        }
    }
    buffer_char(out, ']');
}

/* FP32 where a client can send it, else ONNX's own word. */
static const char *type_text(const struct onnx_value *value)
{
    enum dtype dtype;
    return onnx_type_dtype(value->type, &dtype) ? dtype_text(dtype) : onnx_type_text(value->type);
}

static void write_values(struct buffer *out, const char *verb, const struct onnx_value *values,
                         uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        buffer_printf(out, "  %s  %s  ", verb, values[i].name);
        if (values[i].kind == ONNX_KIND_TENSOR) {
            buffer_printf(out, "%s ", type_text(&values[i]));
            write_shape(out, &values[i]);
        } else {
            buffer_text(out, onnx_kind_text(values[i].kind));
        }
        buffer_char(out, '\n');
    }
}

static void write_opsets(struct buffer *out, const struct onnx_file *onnx)
{
    for (uint32_t i = 0; i < onnx->opset_count; i++) {
        const struct onnx_opset *opset = &onnx->opsets[i];
        buffer_printf(out, ", opset %s%s%lld", opset->domain, opset->domain[0] == '\0' ? "" : " ",
                      (long long)opset->version);
    }
}

static void write_operators(struct buffer *out, const struct onnx_file *onnx)
{
    buffer_printf(out, "  nodes: %llu;", (unsigned long long)onnx->node_count);
    for (uint32_t i = 0; i < onnx->operator_count && i < OPERATORS_SHOWN; i++) {
        buffer_printf(out, "%s %llu %s", i == 0 ? "" : ",",
                      (unsigned long long)onnx->operators[i].count, onnx->operators[i].name);
    }
    if (onnx->operator_count > OPERATORS_SHOWN) {
        buffer_printf(out, " and %u more kinds", onnx->operator_count - OPERATORS_SHOWN);
    }
    buffer_char(out, '\n');
}

static void write_tensor_config(struct buffer *out, const char *key, const struct io_config *list,
                                uint32_t count)
{
    buffer_printf(out, "  %s:\n", key);
    for (uint32_t i = 0; i < count; i++) {
        char dims[SHAPE_TEXT];
        buffer_printf(out, "    - { name: %s, data_type: %s, dims: %s }\n", list[i].name,
                      dtype_text(list[i].dtype), shape_format(&list[i].dims, dims));
    }
}

static void write_config(struct buffer *out, const struct inspection *self)
{
    const struct model_config *config = self->config;
    buffer_text(out,
                self->version > 0
                    ? "\nconfiguration (what the files say, and what they leave out as inferred):\n"
                    : "\nconfiguration that would be inferred:\n");
    if (config->backend != NULL) {
        buffer_printf(out, "  backend: %s\n", config->backend);
    }
    buffer_printf(out, "  max_batch_size: %lld\n", (long long)config->max_batch_size);
    write_tensor_config(out, "input", config->inputs, config->input_count);
    write_tensor_config(out, "output", config->outputs, config->output_count);
    const char *batching = batching_texts[config->batching];
    buffer_printf(out, "  batching: %s", batching);
    if (self->why_not != NULL) {
        buffer_printf(out, "   # off: %s", self->why_not);
    } else if (config->max_batch_size > 0 && config->batching == BATCHING_AUTO) {
        buffer_text(out, "   # if the load proves that rows are independent");
    }
    buffer_char(out, '\n');
    if (config->remark != NULL) {
        buffer_printf(out, "  # %s\n", config->remark);
    }
}

static void write_file(struct buffer *out, const struct inspection *self)
{
    const struct onnx_file *onnx = &self->onnx;
    char size[32];
    buffer_printf(out, "%s   %s, IR version %lld", self->file,
                  bytes_format_size(self->file_bytes, size), (long long)onnx->ir_version);
    write_opsets(out, onnx);
    buffer_printf(out, "%s%s\n\n", onnx->producer[0] == '\0' ? "" : ", made by ", onnx->producer);
    write_values(out, "takes", onnx->inputs, onnx->input_count);
    write_values(out, "gives", onnx->outputs, onnx->output_count);
    buffer_printf(out, "\n  weights: %llu parameters in %u tensors, %s%s",
                  (unsigned long long)onnx->parameters, onnx->weight_count,
                  bytes_format_size(onnx->parameter_bytes, size),
                  onnx->external_count == 0 ? "\n" : "");
    if (onnx->external_count > 0) {
        buffer_printf(out, ", %u of them in other files (%s)\n", onnx->external_count,
                      onnx->externals[0].location);
    }
    write_operators(out, onnx);
    if (!onnx->bounded) {
        buffer_text(out, "  a run's time or output size can depend on the input's values\n");
    }
}

static void report_text(struct buffer *out, const struct inspection *self)
{
    if (self->file[0] != '\0') {
        write_file(out, self);
    } else {
        inspect_plain_text(self, out);
    }
    if (self->look.problems.size > 0) {
        buffer_printf(out, "\ncannot be served:\n%.*s", (int)self->look.problems.size,
                      self->look.problems.data);
    } else if (self->problem.text[0] != '\0') {
        buffer_printf(out, "\ncannot be served: %s\n", self->problem.text);
    } else {
        write_config(out, self);
    }
    inspect_profile_text(self, out);
}

/* ---- For programs ---------------------------------------------------------------------------- */

static void text_member(struct buffer *out, const char *key, const char *value)
{
    json_key(out, key);
    json_string(out, value);
}

static void u64_member(struct buffer *out, const char *key, uint64_t value)
{
    json_key(out, key);
    buffer_u64(out, value);
}

static void value_json(struct buffer *out, const struct onnx_value *value)
{
    json_comma(out);
    buffer_char(out, '{');
    text_member(out, "name", value->name);
    text_member(out, "kind", onnx_kind_text(value->kind));
    if (value->kind == ONNX_KIND_TENSOR) {
        char shape[SHAPE_TEXT];
        text_member(out, "datatype", type_text(value));
        json_key(out, "shape");
        buffer_text(out, value->has_shape ? shape_format(&value->shape, shape) : "null");
    }
    buffer_char(out, '}');
}

static void values_json(struct buffer *out, const char *key, const struct onnx_value *values,
                        uint32_t count)
{
    json_key(out, key);
    buffer_char(out, '[');
    for (uint32_t i = 0; i < count; i++) {
        value_json(out, &values[i]);
    }
    buffer_char(out, ']');
}

static void census_json(struct buffer *out, const struct onnx_file *onnx)
{
    json_key(out, "opsets");
    buffer_char(out, '{');
    for (uint32_t i = 0; i < onnx->opset_count; i++) {
        json_key(out, onnx->opsets[i].domain);
        buffer_i64(out, onnx->opsets[i].version);
    }
    buffer_char(out, '}');
    json_key(out, "operators");
    buffer_char(out, '{');
    for (uint32_t i = 0; i < onnx->operator_count; i++) {
        u64_member(out, onnx->operators[i].name, onnx->operators[i].count);
    }
    buffer_char(out, '}');
    json_key(out, "external");
    buffer_char(out, '[');
    for (uint32_t i = 0; i < onnx->external_count; i++) {
        json_comma(out);
        buffer_char(out, '{');
        text_member(out, "tensor", onnx->externals[i].tensor);
        text_member(out, "location", onnx->externals[i].location);
        u64_member(out, "bytes", onnx->externals[i].bytes);
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

static void verdict_json(struct buffer *out, const struct inspection *self)
{
    json_key(out, "servable");
    json_bool(out, self->problem.text[0] == '\0');
    if (self->problem.text[0] != '\0') {
        text_member(out, "problem", self->problem.text);
        return;
    }
    const struct model model = { .name = self->name,
                                 .version = self->version,
                                 .config = self->config,
                                 .signature = &self->signature };
    json_key(out, "batching");
    json_string(out, batching_texts[self->config->batching]);
    if (self->why_not != NULL) {
        text_member(out, "unbatched_because", self->why_not);
    }
    json_key(out, "config");
    modelconfig_to_json(&model, out);
}

static void file_json(struct buffer *out, const struct inspection *self)
{
    const struct onnx_file *onnx = &self->onnx;
    text_member(out, "file", self->file);
    u64_member(out, "file_bytes", self->file_bytes);
    json_key(out, "ir_version");
    buffer_i64(out, onnx->ir_version);
    text_member(out, "producer", onnx->producer);
    values_json(out, "inputs", onnx->inputs, onnx->input_count);
    values_json(out, "outputs", onnx->outputs, onnx->output_count);
    u64_member(out, "parameters", onnx->parameters);
    u64_member(out, "parameter_bytes", onnx->parameter_bytes);
    u64_member(out, "weights", onnx->weight_count);
    u64_member(out, "nodes", onnx->node_count);
    json_key(out, "bounded");
    json_bool(out, onnx->bounded);
    census_json(out, onnx);
}

static void report_json(struct buffer *out, const struct inspection *self)
{
    buffer_char(out, '{');
    text_member(out, "name", self->name);
    if (self->file[0] != '\0') {
        file_json(out, self);
    } else {
        inspect_plain_json(self, out);
    }
    verdict_json(out, self);
    inspect_profile_json(self, out);
    buffer_text(out, "}\n");
}

void inspect_finish(struct inspection *self)
{
    inspect_plain_finish(self);
    modelconfig_look_finish(&self->look);
    onnx_file_finish(&self->onnx);
}

enum weir_status inspect_report(const char *path, bool json, struct buffer *out,
                                struct weir_err *err)
{
    struct inspection self = { 0 };
    const enum weir_status status = inspect_look(&self, path, err);
    if (status == WEIR_OK && json) {
        report_json(out, &self);
    } else if (status == WEIR_OK) {
        report_text(out, &self);
    }
    inspect_finish(&self);
    return status;
}
