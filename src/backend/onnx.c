/*
 * Loads models into ONNX Runtime.
 *
 * One environment per process, one session per model version, shared by all its contexts: runs of
 * one session from several threads scale, several sessions only multiply the weights.  A run uses
 * the thread that calls it and, where the configuration says so, a pool that never spins.
 * Telemetry is switched off twice: by backend_start() before any environment exists, and here by
 * the API.  How a file becomes a session is onnx_session.c's.
 */
#include "backend/onnx.h"

#include <inttypes.h>
#include <onnxruntime_c_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/onnx_file.h"
#include "backend/onnx_memory.h"
#include "backend/onnx_provider.h"
#include "backend/onnx_session.h"
#include "util/err.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"

#define SIGNATURE_BYTES_MAX ((size_t)64 << 20) /* Names and shapes of one model. */
#define MAPPED_BYTES_MIN (UINT64_C(1) << 20)   /* Models with less are loaded as fast without. */
#define ENTRIES_MAX 4096                       /* Inputs, and outputs, of one model. */
#define HEAP_BYTES ((size_t)12 << 20)          /* Of the environment and a first session, and */
#define HEAP_BYTES_SURE ((size_t)7 << 20)      /* what the environment takes for itself. */

const struct OrtApi *onnx_api;

static pthread_mutex_t env_lock =
    PTHREAD_MUTEX_INITIALIZER; /* Guards env and onnx_api's setting. */
static OrtEnv *env;

/* --- The runtime ------------------------------------------------------------------------------ */

static void ORT_API_CALL on_log(void *param, OrtLoggingLevel severity, const char *category,
                                const char *logid, const char *place, const char *message)
{
    (void)param;
    (void)severity;
    (void)logid;
    (void)place;
    log_event(LOG_DEBUG, "ONNX Runtime says", LOG_STR("category", category),
              LOG_STR("message", message));
}

static void *populate_heap(void *heap)
{
    mem_populate(heap, HEAP_BYTES_SURE);
    return NULL;
}

/* Tens of thousands of small pieces: what operators there are.  Half as long as making them takes
 * the kernel to bring their pages, which another processor can do meanwhile. */
static OrtStatus *create_env(void)
{
    void *heap = mem_widen_heap(HEAP_BYTES);
    pthread_t helper;
    const bool helped = heap != NULL && pthread_create(&helper, NULL, populate_heap, heap) == 0;
    OrtStatus *failed =
        onnx_api->CreateEnvWithCustomLogger(on_log, NULL, ORT_LOGGING_LEVEL_ERROR, "weir", &env);
    if (helped) {
        (void)pthread_join(helper, NULL);
    }
    return failed;
}

static enum weir_status start_runtime_locked(struct weir_err *err)
{
    if (env != NULL) {
        return WEIR_OK;
    }
    onnx_api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (onnx_api == NULL) {
        return err_set(err, WEIR_EBACKEND, "ONNX Runtime %s is too old, 1.%d or later is needed",
                       onnx_version(), ORT_API_VERSION);
    }
    OrtStatus *failed = create_env();
    if (failed == NULL) {
        failed = onnx_api->DisableTelemetryEvents(env);
    }
    failed = failed != NULL ? failed : onnx_memory_register(env);
    return failed == NULL ? WEIR_OK : onnx_load_failed(failed, err);
}

static enum weir_status start_runtime(struct weir_err *err)
{
    pthread_mutex_lock(&env_lock);
    const enum weir_status status = start_runtime_locked(err);
    pthread_mutex_unlock(&env_lock);
    return status;
}

void onnx_stop(void)
{
    pthread_mutex_lock(&env_lock);
    if (env != NULL) {
        onnx_api->ReleaseEnv(env);
        env = NULL;
    }
    pthread_mutex_unlock(&env_lock);
}

const char *onnx_version(void)
{
    return OrtGetApiBase()->GetVersionString();
}

bool onnx_is_old(void)
{
    int major = 0;
    int minor = 0;
    const int read = sscanf(onnx_version(), "%d.%d", &major, &minor);
    return read != 2 || major < 1 || (major == 1 && minor < 30);
}

/* --- The session ------------------------------------------------------------------------------ */

static struct onnx_settings settings_of(const struct onnx_model *model)
{
    return (struct onnx_settings){
        .env = env,
        .threads = model->threads,
        .plans = model->plans,
        .account = model->account,
    };
}

static bool wants_mapping(const struct backend_weights *weights)
{
    return weights->mode == WEIGHTS_MAPPED || (weights->mode == WEIGHTS_AUTO && weights->on_demand);
}

/* With weights from a converted model.  Whatever keeps it from being so, the model can be loaded
 * plainly. */
static bool open_converted(struct onnx_model *model, const struct onnx_source *source)
{
    const struct backend_weights *weights = source->how->weights;
    const struct onnx_settings settings = settings_of(model);
    struct weir_err err = { 0 };
    if (weights == NULL || weights->cache_folder == NULL || onnx_providers_any(source->how) ||
        source->file.parameter_bytes < MAPPED_BYTES_MIN ||
        (weights->mode == WEIGHTS_AUTO && !weights->on_demand)) {
        return false;
    }
    enum weir_status status = onnx_weights_acquire(&settings, source, &model->weights, &err);
    if (status == WEIR_OK) {
        status = onnx_weights_open(model->weights, &settings, !wants_mapping(weights),
                                   &model->first, &err);
    }
    if (status != WEIR_OK) {
        log_event(LOG_DEBUG, "not loaded from the cache", LOG_STR("model", source->how->model_name),
                  LOG_STR("reason", err.text));
        onnx_weights_release(model->weights);
        model->weights = NULL;
        return false;
    }
    model->weights_bytes = onnx_weights_bytes(model->weights);
    model->mapped = wants_mapping(weights);
    model->promote_runs = weights->mode == WEIGHTS_AUTO ? weights->promote_runs : 0;
    if (!model->mapped) {
        model->uncounted_bytes = model->weights_bytes;
        onnx_weights_drop_pages(model->weights);
    }
    return true;
}

/* Packed or not, the weights have about the size that they have in the file. */
static void note_packed(struct onnx_model *model, uint64_t weights_bytes)
{
    uint64_t bytes;
    uint64_t bytes_peak;
    onnx_account_read(model->account, &bytes, &bytes_peak);
    model->uncounted_bytes = bytes < weights_bytes ? weights_bytes - bytes : 0;
}

static enum weir_status open_session(struct onnx_model *model, const struct onnx_source *source,
                                     struct weir_err *err)
{
    const struct onnx_settings settings = settings_of(model);
    const uint64_t mode = onnx_float_mode_enter(); /* The runtime changes it and leaves it so. */
    enum weir_status status = WEIR_OK;
    struct weir_err left_out = { 0 };
    if (!open_converted(model, source)) {
        status = onnx_session_open(&settings, source, &model->first, &left_out, err);
        note_packed(model, source->file.parameter_bytes);
    }
    onnx_float_mode_leave(mode);
    if (status != WEIR_OK) {
        return status;
    }
    if (left_out.text[0] != '\0') {
        model->base.signature.remark = arena_try_printf(
            &model->arena, "what stands behind it in execution_providers runs the model: %s",
            left_out.text);
        if (model->base.signature.remark == NULL) {
            return err_nomem(err, "a model's signature", strlen(left_out.text));
        }
    }
    atomic_init(&model->session, model->first);
    OrtStatus *failed =
        onnx_api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &model->memory);
    return failed == NULL ? WEIR_OK : onnx_load_failed(failed, err);
}

/* --- The signature ---------------------------------------------------------------------------- */

/* Inputs and outputs are described alike, by calls of other names. */
struct side {
    const char *word;
    OrtStatus *(ORT_API_CALL *count)(const OrtSession *session, size_t *out);
    OrtStatus *(ORT_API_CALL *name)(const OrtSession *session, size_t index,
                                    OrtAllocator *allocator, char **out);
    OrtStatus *(ORT_API_CALL *type)(const OrtSession *session, size_t index, OrtTypeInfo **out);
    const struct onnx_value *values; /* The file's own words on the same. */
    uint32_t value_count;
};

/* ONNXType as onnx_file.h says it. */
static const enum onnx_kind kinds[] = {
    [ONNX_TYPE_UNKNOWN] = ONNX_KIND_NOTHING,   [ONNX_TYPE_TENSOR] = ONNX_KIND_TENSOR,
    [ONNX_TYPE_SEQUENCE] = ONNX_KIND_SEQUENCE, [ONNX_TYPE_MAP] = ONNX_KIND_MAP,
    [ONNX_TYPE_OPAQUE] = ONNX_KIND_NOTHING,    [ONNX_TYPE_SPARSETENSOR] = ONNX_KIND_SPARSE,
    [ONNX_TYPE_OPTIONAL] = ONNX_KIND_OPTIONAL,
};

static enum weir_status read_name(struct onnx_model *model, const struct side *side, size_t index,
                                  const char **out, struct weir_err *err)
{
    OrtAllocator *allocator = NULL;
    char *name = NULL;
    OrtStatus *failed = onnx_api->GetAllocatorWithDefaultOptions(&allocator);
    failed = failed != NULL ? failed : side->name(model->session, index, allocator, &name);
    if (failed != NULL) {
        return onnx_load_failed(failed, err);
    }
    *out = arena_try_strndup(&model->arena, name, strlen(name));
    allocator->Free(allocator, name);
    return *out == NULL ? err_nomem(err, "a name", 0) : WEIR_OK;
}

static enum weir_status read_shape(struct onnx_model *model, const OrtTensorTypeAndShapeInfo *info,
                                   struct tensor_spec *spec, struct weir_err *err)
{
    const char *names[TENSOR_RANK_MAX] = { 0 };
    size_t rank = 0;
    OrtStatus *failed = onnx_api->GetDimensionsCount(info, &rank);
    if (failed == NULL && rank > TENSOR_RANK_MAX) {
        return err_set(err, WEIR_EINVAL, "'%s' has %zu dimensions, at most %d are possible",
                       spec->name, rank, TENSOR_RANK_MAX);
    }
    spec->shape.rank = (uint32_t)rank;
    failed = failed != NULL ? failed : onnx_api->GetDimensions(info, spec->shape.dims, rank);
    failed = failed != NULL ? failed : onnx_api->GetSymbolicDimensions(info, names, rank);
    if (failed != NULL) {
        return onnx_load_failed(failed, err);
    }
    for (size_t d = 0; d < rank; d++) {
        spec->shape.dims[d] = spec->shape.dims[d] < 0 ? -1 : spec->shape.dims[d];
        if (names[d] != NULL && names[d][0] != '\0') {
            spec->dim_names[d] = arena_try_strndup(&model->arena, names[d], strlen(names[d]));
            if (spec->dim_names[d] == NULL) {
                return err_nomem(err, "a dimension's name", strlen(names[d]));
            }
        }
    }
    return WEIR_OK;
}

/* The runtime calls an unknown rank 0: only the file tells it from a scalar. */
static bool file_says_no_shape(const struct side *side, const char *name)
{
    for (uint32_t i = 0; i < side->value_count; i++) {
        if (strcmp(side->values[i].name, name) == 0) {
            return !side->values[i].has_shape;
        }
    }
    return false;
}

static enum weir_status read_type(struct onnx_model *model, const struct side *side,
                                  const OrtTypeInfo *type, struct tensor_spec *spec,
                                  struct weir_err *err)
{
    enum ONNXType kind = ONNX_TYPE_UNKNOWN;
    const OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    OrtStatus *failed = onnx_api->GetOnnxTypeFromTypeInfo(type, &kind);
    if (failed == NULL && kind != ONNX_TYPE_TENSOR) {
        const bool known = (size_t)kind < sizeof(kinds) / sizeof(kinds[0]);
        return err_set(err, WEIR_EINVAL, "%s '%s' is %s, only tensors can be served", side->word,
                       spec->name, onnx_kind_text(known ? kinds[kind] : ONNX_KIND_NOTHING));
    }
    failed = failed != NULL ? failed : onnx_api->CastTypeInfoToTensorInfo(type, &info);
    failed = failed != NULL ? failed : onnx_api->GetTensorElementType(info, &element);
    if (failed != NULL) {
        return onnx_load_failed(failed, err);
    }
    /* The runtime's element types have the numbers of TensorProto.DataType. */
    if (!onnx_type_dtype((int32_t)element, &spec->dtype)) {
        return err_set(err, WEIR_EINVAL,
                       "%s '%s' has elements of type %s, which no client can send", side->word,
                       spec->name, onnx_type_text((int32_t)element));
    }
    const enum weir_status status = read_shape(model, info, spec, err);
    spec->any_rank = spec->shape.rank == 0 && file_says_no_shape(side, spec->name);
    return status;
}

static enum weir_status read_entry(struct onnx_model *model, const struct side *side, size_t index,
                                   struct tensor_spec *spec, struct weir_err *err)
{
    enum weir_status status = read_name(model, side, index, &spec->name, err);
    if (status != WEIR_OK) {
        return status;
    }
    OrtTypeInfo *type = NULL;
    OrtStatus *failed = side->type(model->session, index, &type);
    if (failed != NULL) {
        return onnx_load_failed(failed, err);
    }
    status = read_type(model, side, type, spec, err);
    onnx_api->ReleaseTypeInfo(type);
    return status;
}

static enum weir_status read_side(struct onnx_model *model, const struct side *side,
                                  struct tensor_spec **specs, uint32_t *count, struct weir_err *err)
{
    size_t entries = 0;
    OrtStatus *failed = side->count(model->session, &entries);
    if (failed != NULL) {
        return onnx_load_failed(failed, err);
    }
    if (entries > ENTRIES_MAX) {
        return err_set(err, WEIR_EINVAL, "%zu %ss, at most %d are possible", entries, side->word,
                       ENTRIES_MAX);
    }
    *specs = arena_try_zero(&model->arena, entries + 1, sizeof(**specs));
    if (*specs == NULL) {
        return err_nomem(err, "the signature", entries * sizeof(**specs));
    }
    *count = (uint32_t)entries;
    for (size_t i = 0; i < entries; i++) {
        const enum weir_status status = read_entry(model, side, i, &(*specs)[i], err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

/* The shape of a tensor of texts does not tell its size, nor then what a run takes. */
static bool takes_texts(const struct signature *signature)
{
    for (uint32_t i = 0; i < signature->input_count; i++) {
        if (signature->inputs[i].dtype == DTYPE_BYTES) {
            return true;
        }
    }
    return false;
}

/* `waits`: a run may wait for a device. */
static enum weir_status read_signature(struct onnx_model *model, const struct onnx_file *file,
                                       bool waits, struct weir_err *err)
{
    struct signature *signature = &model->base.signature;
    const struct side inputs = {
        "input",
        onnx_api->SessionGetInputCount,
        onnx_api->SessionGetInputName,
        onnx_api->SessionGetInputTypeInfo,
        file->inputs,
        file->input_count,
    };
    const struct side outputs = {
        "output",
        onnx_api->SessionGetOutputCount,
        onnx_api->SessionGetOutputName,
        onnx_api->SessionGetOutputTypeInfo,
        file->outputs,
        file->output_count,
    };
    enum weir_status status =
        read_side(model, &inputs, &signature->inputs, &signature->input_count, err);
    if (status == WEIR_OK) {
        status = read_side(model, &outputs, &signature->outputs, &signature->output_count, err);
    }
    signature->short_lived = file->bounded && !takes_texts(signature) && !waits;
    signature->weights_bytes = file->parameter_bytes;
    return status;
}

/* --- Rules for output shapes ------------------------------------------------------------------ */

/* Which input's dimension has this symbolic name? */
static bool find_named(const struct signature *signature, const char *name, int8_t *input,
                       int8_t *dim)
{
    for (uint32_t i = 0; i < signature->input_count && i < INT8_MAX; i++) {
        const struct tensor_spec *spec = &signature->inputs[i];
        for (uint32_t d = 0; d < spec->shape.rank; d++) {
            if (spec->dim_names[d] != NULL && strcmp(spec->dim_names[d], name) == 0) {
                *input = (int8_t)i;
                *dim = (int8_t)d;
                return true;
            }
        }
    }
    return false;
}

/* A leading dimension that nothing names is taken for the rows, like that of the first such
 * input. */
static bool find_rows(const struct signature *signature, int8_t *input, int8_t *dim)
{
    for (uint32_t i = 0; i < signature->input_count && i < INT8_MAX; i++) {
        const struct tensor_spec *spec = &signature->inputs[i];
        if (spec->shape.rank > 0 && spec->shape.dims[0] == -1) {
            *input = (int8_t)i;
            *dim = 0;
            return true;
        }
    }
    return false;
}

static enum onnx_rule make_rule(const struct signature *signature, const struct tensor_spec *spec,
                                struct onnx_output *output)
{
    if (spec->any_rank || spec->dtype == DTYPE_BYTES) {
        return ONNX_RULE_NONE;
    }
    for (uint32_t d = 0; d < spec->shape.rank; d++) {
        if (spec->shape.dims[d] >= 0) {
            continue;
        }
        int8_t *input = &output->from_input[d];
        int8_t *dim = &output->from_dim[d];
        const char *name = spec->dim_names[d];
        /* Exporters give names of their own to dimensions that they did not recognise as rows. */
        const bool found = (name != NULL && find_named(signature, name, input, dim)) ||
                           (d == 0 && find_rows(signature, input, dim));
        if (!found) {
            return ONNX_RULE_NONE;
        }
    }
    return ONNX_RULE_UNPROVEN;
}

static enum weir_status make_rules(struct onnx_model *model, struct weir_err *err)
{
    const struct signature *signature = &model->base.signature;
    model->outputs =
        arena_try_zero(&model->arena, signature->output_count + 1u, sizeof(*model->outputs));
    if (model->outputs == NULL) {
        return err_nomem(err, "the outputs", signature->output_count * sizeof(*model->outputs));
    }
    for (uint32_t i = 0; i < signature->output_count; i++) {
        const enum onnx_rule rule =
            make_rule(signature, &signature->outputs[i], &model->outputs[i]);
        atomic_init(&model->outputs[i].rule, (uint8_t)rule);
    }
    return WEIR_OK;
}

/* --- Load and unload -------------------------------------------------------------------------- */

static enum weir_status open_source(struct onnx_source *source, struct weir_err *err)
{
    const struct backend_load *how = source->how;
    enum weir_status status = file_map_open(how->folder_fd, source->file_name, &source->map, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (source->map.size > how->file_bytes_max) {
        return err_set(err, WEIR_EINVAL, "the file has %zu bytes, the limit is %" PRIu64,
                       source->map.size, how->file_bytes_max);
    }
    const struct bytes data = { (const char *)source->map.data, source->map.size };
    status = onnx_file_read(data, &source->file, err);
    if (status == WEIR_OK) {
        status = onnx_file_check_external(&source->file, how->folder_fd, err);
    }
    return status;
}

static void onnx_unload(struct backend_model *base)
{
    struct onnx_model *model = (struct onnx_model *)base;
    if (onnx_api != NULL) {
        onnx_api->ReleaseSession(model->packed);
        onnx_api->ReleaseSession(model->first);
        onnx_api->ReleaseMemoryInfo(model->memory);
    }
    onnx_weights_release(model->weights);
    onnx_account_close(model->account);
    arena_finish(&model->arena);
    mem_free(model);
}

static enum weir_status build(struct onnx_model *model, struct onnx_source *source,
                              struct weir_err *err)
{
    enum weir_status status = open_source(source, err);
    if (status == WEIR_OK) {
        model->threads = source->how->intra_threads;
        model->plans = onnx_plans_stay_few(&source->file);
        status = start_runtime(err);
    }
    if (status == WEIR_OK) {
        status = open_session(model, source, err);
    }
    if (status == WEIR_OK) {
        status = read_signature(model, &source->file, onnx_providers_any(source->how), err);
    }
    if (status == WEIR_OK) {
        status = make_rules(model, err);
    }
    return status;
}

static void onnx_memory(const struct backend_model *base, struct backend_memory *out)
{
    const struct onnx_model *model = (const struct onnx_model *)base;
    onnx_account_read(model->account, &out->heap_bytes, &out->heap_peak_bytes);
    out->heap_bytes += model->uncounted_bytes;
    out->heap_peak_bytes += model->uncounted_bytes;
    out->mapped_bytes = model->mapped ? model->weights_bytes : 0;
}

static uint64_t onnx_promotion(const struct backend_model *base)
{
    const struct onnx_model *model = (const struct onnx_model *)base;
    const bool due =
        model->promote_runs > 0 && !model->promoted &&
        atomic_load_explicit(&model->runs, memory_order_relaxed) >= model->promote_runs;
    return due ? model->weights_bytes : 0;
}

static enum weir_status onnx_promote(struct backend_model *base, struct weir_err *err)
{
    struct onnx_model *model = (struct onnx_model *)base;
    const struct onnx_settings settings = settings_of(model);
    struct onnx_account *before = onnx_account_enter(model->account);
    const uint64_t mode = onnx_float_mode_enter();
    const enum weir_status status =
        onnx_weights_open(model->weights, &settings, true, &model->packed, err);
    onnx_float_mode_leave(mode);
    (void)onnx_account_enter(before);
    model->promoted = true;
    if (status == WEIR_OK) {
        atomic_store(&model->session, model->packed);
        model->mapped = false;
        model->uncounted_bytes = model->weights_bytes;
        onnx_weights_drop_pages(model->weights);
    }
    return status;
}

static enum weir_status onnx_load(const struct backend_ops *ops, const struct backend_load *how,
                                  struct backend_model **out, struct weir_err *err)
{
    struct onnx_model *model = mem_try_zero(1, sizeof(*model));
    if (model == NULL) {
        return err_nomem(err, "a model", sizeof(*model));
    }
    arena_init(&model->arena, NULL, 0, SIGNATURE_BYTES_MAX);
    model->base.ops = ops;
    model->blocks = how->blocks;
    model->account = onnx_account_create();
    struct onnx_source source = {
        .how = how,
        .file_name = how->file_name == NULL ? "model.onnx" : how->file_name,
    };
    const enum weir_status status =
        model->account == NULL ? err_nomem(err, "a model", 0) : build(model, &source, err);
    onnx_file_finish(&source.file);
    file_map_close(&source.map);
    if (status != WEIR_OK) {
        onnx_unload(&model->base);
        const bool named =
            err != NULL && strncmp(err->text, source.file_name, strlen(source.file_name)) == 0;
        err_prefix(err, "model '%s' version %" PRIu64 "%s%s", how->model_name, how->version,
                   named ? "" : ", ", named ? "" : source.file_name);
        return status;
    }
    *out = &model->base;
    return WEIR_OK;
}

const struct backend_ops onnx_ops = {
    .name = "onnxruntime",
    .platform = "onnxruntime_onnx",
    .load = onnx_load,
    .unload = onnx_unload,
    .context_create = onnx_context_create,
    .context_destroy = onnx_context_destroy,
    .run = onnx_run,
    .terminate = onnx_terminate,
    .memory = onnx_memory,
    .promotion = onnx_promotion,
    .promote = onnx_promote,
};
