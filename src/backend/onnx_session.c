/*
 * The file is mapped, read by onnx_file.c and only then handed over, from the
 * mapping; a model with external data must be opened by path, because ONNX Runtime looks for
 * the data beside it.  /proc/self/fd names the folder that was checked,
 * whatever happened to its name since.
 *
 * The runtime refuses to share weights that a session read for itself, but takes ones that are
 * handed to it under their names.  The converted graph only says that its weights lie elsewhere,
 * and they are handed over from the mapping.
 */
#include "backend/onnx_session.h"

#include <onnxruntime_c_api.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "backend/onnx_memory.h"
#include "backend/onnx_provider.h"
#include "util/list.h"
#include "util/mem.h"

#define MAPPED_BYTES_MIN "4096" /* Smaller weights stay in the graph. */
#define PATH_BYTES 512
#define PACKED_ALIGN 64 /* Weights that begin elsewhere are copied. */

struct onnx_weights {
    struct list_node node; /* In `shared`, under shared_lock. */
    uint32_t holders;      /* Under shared_lock. */
    struct onnx_cached files;
    struct onnx_file graph;
    OrtValue **values; /* graph.external_count */
    void **copies;     /* The same; NULL where the weight is used from the mapping. */
    OrtPrepackedWeightsContainer *packed;
};

static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list shared = { { &shared.head, &shared.head } };

/* ---- Options --------------------------------------------------------------------------------- */

struct option {
    const char *key;
    const char *value;
};

static const struct option session_options[] = {
    { "session.intra_op.allow_spinning", "0" },
    { "session.inter_op.allow_spinning", "0" },
    { "session.set_denormal_as_zero", "1" },
    { "session.use_env_allocators", "1" },
};

static const struct option convert_options[] = {
    { "session.disable_prepacking", "1" },
    { "session.optimized_model_external_initializers_file_name", "weights" },
    { "session.optimized_model_external_initializers_min_size_in_bytes", MAPPED_BYTES_MIN },
};

static const struct option mapped_options[] = { { "session.disable_prepacking", "1" } };

static OrtStatus *add_options(OrtSessionOptions *options, const struct option *list, size_t count)
{
    OrtStatus *failed = NULL;
    for (size_t i = 0; i < count && failed == NULL; i++) {
        failed = onnx_api->AddSessionConfigEntry(options, list[i].key, list[i].value);
    }
    return failed;
}

#define ADD_OPTIONS(options, list) add_options(options, list, sizeof(list) / sizeof((list)[0]))

static bool same_name(const char *a, const char *b)
{
    return a != NULL && b != NULL && strcmp(a, b) == 0;
}

/*
 * The plan saves a U-Net a seventh of its time, so it is worth having where a client cannot make
 * plans pile up: where nothing varies, or one leading dimension that all inputs share.  A plan for
 * n rows then costs its client the sending of n rows, so plans grow as the square root of what is
 * sent.
 */
bool onnx_plans_stay_few(const struct onnx_file *file)
{
    const struct onnx_value *free = NULL; /* The first input with a variable leading dimension. */
    for (uint32_t i = 0; i < file->input_count; i++) {
        const struct onnx_value *input = &file->inputs[i];
        for (uint32_t d = 1; d < input->shape.rank; d++) {
            if (input->shape.dims[d] < 0) {
                return false;
            }
        }
        const bool varies = input->shape.rank > 0 && input->shape.dims[0] < 0;
        if (!input->has_shape ||
            (varies && free != NULL && !same_name(free->dim_names[0], input->dim_names[0]))) {
            return false;
        }
        free = varies && free == NULL ? input : free;
    }
    return true;
}

/* ---- Threads of a session -------------------------------------------------------------------- */

struct helper {
    pthread_t thread;
    struct onnx_account *account;
    OrtThreadWorkerFn work;
    void *argument;
};

static void *helper_main(void *argument)
{
    struct helper *helper = argument;
    (void)onnx_account_enter(helper->account);
    helper->work(helper->argument);
    return NULL;
}

/* What helps in a run works for the same model. */
static OrtCustomThreadHandle start_helper(void *account, OrtThreadWorkerFn work, void *argument)
{
    struct helper *helper = mem_try_alloc(sizeof(*helper));
    if (helper == NULL) {
        return NULL; /* The runtime reports it. */
    }
    *helper = (struct helper){ .account = account, .work = work, .argument = argument };
    if (pthread_create(&helper->thread, NULL, helper_main, helper) != 0) {
        mem_free(helper);
        return NULL;
    }
    return (OrtCustomThreadHandle)helper;
}

static void join_helper(OrtCustomThreadHandle handle)
{
    struct helper *helper = (struct helper *)(uintptr_t)handle;
    (void)pthread_join(helper->thread, NULL);
    mem_free(helper);
}

static OrtStatus *set_options(OrtSessionOptions *options, const struct onnx_settings *settings,
                              GraphOptimizationLevel level)
{
    const OrtApi *api = onnx_api;
    const int threads = settings->threads > 1024 ? 1024 : (int)settings->threads;
    OrtStatus *failed = api->SetIntraOpNumThreads(options, threads);
    failed = failed != NULL ? failed : api->SetInterOpNumThreads(options, 1);
    failed = failed != NULL ? failed : api->SetSessionExecutionMode(options, ORT_SEQUENTIAL);
    failed = failed != NULL ? failed : api->SetSessionGraphOptimizationLevel(options, level);
    if (!settings->plans) {
        failed = failed != NULL ? failed : api->DisableMemPattern(options);
    }
    failed =
        failed != NULL ? failed : api->SessionOptionsSetCustomCreateThreadFn(options, start_helper);
    failed = failed != NULL
                 ? failed
                 : api->SessionOptionsSetCustomThreadCreationOptions(options, settings->account);
    failed =
        failed != NULL ? failed : api->SessionOptionsSetCustomJoinThreadFn(options, join_helper);
    return failed != NULL ? failed : ADD_OPTIONS(options, session_options);
}

/* *out is set in any case; NULL after a failure to make it. */
static OrtStatus *make_options(const struct onnx_settings *settings, GraphOptimizationLevel level,
                               OrtSessionOptions **out)
{
    *out = NULL;
    OrtStatus *failed = onnx_api->CreateSessionOptions(out);
    return failed != NULL ? failed : set_options(*out, settings, level);
}

/* ---- Plain sessions -------------------------------------------------------------------------- */

static OrtStatus *create_session(const struct onnx_settings *settings,
                                 const struct onnx_source *source, const OrtSessionOptions *options,
                                 OrtSession **out)
{
    if (source->file.external_count == 0) {
        return onnx_api->CreateSessionFromArray(settings->env, source->map.data, source->map.size,
                                                options, out);
    }
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", source->how->folder_fd, source->file_name);
    return onnx_api->CreateSession(settings->env, path, options, out);
}

enum weir_status onnx_session_open(const struct onnx_settings *settings,
                                   const struct onnx_source *source, OrtSession **out,
                                   struct weir_err *left_out, struct weir_err *err)
{
    OrtSessionOptions *options;
    OrtStatus *failed = make_options(settings, ORT_ENABLE_ALL, &options);
    enum weir_status status = failed == NULL ? WEIR_OK : onnx_load_failed(failed, err);
    if (status == WEIR_OK) {
        status = onnx_providers_add(source->how, options, left_out, err);
    }
    if (status == WEIR_OK) {
        failed = create_session(settings, source, options, out);
        status = failed == NULL ? WEIR_OK : onnx_load_failed(failed, err);
    }
    onnx_api->ReleaseSessionOptions(options);
    return status;
}

/* ---- Conversion ------------------------------------------------------------------------------ */

struct conversion {
    const struct onnx_settings *settings;
    const struct onnx_source *source;
};

static enum weir_status convert(void *context, const char *folder, struct weir_err *err)
{
    const struct conversion *conversion = context;
    OrtSessionOptions *options;
    OrtSession *session = NULL;
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%s/graph.onnx", folder);
    OrtStatus *failed = make_options(conversion->settings, ORT_ENABLE_ALL, &options);
    failed = failed != NULL ? failed : ADD_OPTIONS(options, convert_options);
    failed = failed != NULL ? failed : onnx_api->SetOptimizedModelFilePath(options, path);
    failed = failed != NULL
                 ? failed
                 : create_session(conversion->settings, conversion->source, options, &session);
    onnx_api->ReleaseSession(session);
    onnx_api->ReleaseSessionOptions(options);
    return failed == NULL ? WEIR_OK : onnx_load_failed(failed, err);
}

/* ---- Shared weights -------------------------------------------------------------------------- */

static void destroy(struct onnx_weights *weights)
{
    for (uint32_t i = 0; weights->values != NULL && i < weights->graph.external_count; i++) {
        onnx_api->ReleaseValue(weights->values[i]);
    }
    for (uint32_t i = 0; weights->copies != NULL && i < weights->graph.external_count; i++) {
        mem_free(weights->copies[i]);
    }
    onnx_api->ReleasePrepackedWeightsContainer(weights->packed);
    mem_free(weights->values);
    mem_free(weights->copies);
    onnx_file_finish(&weights->graph);
    onnx_cached_close(&weights->files);
    mem_free(weights);
}

/* The weight that an entry of the graph's externals is about; they are few, and in the same
 * order. */
static const struct onnx_weight *find_weight(const struct onnx_file *graph, uint32_t external,
                                             uint32_t *at)
{
    for (; *at < graph->weight_count; (*at)++) {
        const struct onnx_weight *weight = &graph->weights[*at];
        if (weight->external && strcmp(weight->name, graph->externals[external].tensor) == 0) {
            return weight;
        }
    }
    return NULL;
}

/* Where the weight's bytes are: in the mapping, or copied where it begins at an odd place there. */
static enum weir_status place_weight(struct onnx_weights *weights, uint32_t index, void **out,
                                     struct weir_err *err)
{
    const struct onnx_external *item = &weights->graph.externals[index];
    uint64_t end;
    if (strcmp(item->location, "weights") != 0 ||
        __builtin_add_overflow(item->offset, item->bytes, &end) ||
        end > weights->files.weights.size) {
        return err_set(err, WEIR_EIO, "the converted model is damaged");
    }
    const uint8_t *mapped = weights->files.weights.data + item->offset;
    *out = (void *)(uintptr_t)mapped;
    if ((uintptr_t)mapped % PACKED_ALIGN == 0) {
        return WEIR_OK;
    }
    weights->copies[index] = mem_try_aligned(item->bytes);
    if (weights->copies[index] == NULL) {
        return err_nomem(err, "a weight", item->bytes);
    }
    memcpy(weights->copies[index], mapped, item->bytes);
    *out = weights->copies[index];
    return WEIR_OK;
}

static enum weir_status make_values(struct onnx_weights *weights, struct weir_err *err)
{
    const struct onnx_file *graph = &weights->graph;
    OrtMemoryInfo *info = NULL;
    uint32_t at = 0;
    weights->values = mem_try_zero(graph->external_count + 1U, sizeof(struct OrtValue *));
    weights->copies = mem_try_zero(graph->external_count + 1U, sizeof(void *));
    if (weights->values == NULL || weights->copies == NULL) {
        return err_nomem(err, "a model's weights", graph->external_count * sizeof(void *));
    }
    OrtStatus *failed = onnx_api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &info);
    enum weir_status status = failed == NULL ? WEIR_OK : onnx_load_failed(failed, err);
    for (uint32_t i = 0; i < graph->external_count && status == WEIR_OK; i++) {
        const struct onnx_weight *weight = find_weight(graph, i, &at);
        void *data = NULL;
        status = weight == NULL ? err_set(err, WEIR_EUNAVAILABLE, "a weight is not in the graph")
                                : place_weight(weights, i, &data, err);
        if (status == WEIR_OK) {
            /* The runtime's element types have the numbers of TensorProto.DataType. */
            failed = onnx_api->CreateTensorWithDataAsOrtValue(
                info, data, weight->bytes, weight->shape.dims, weight->shape.rank,
                (ONNXTensorElementDataType)weight->type, &weights->values[i]);
            status = failed == NULL ? WEIR_OK : onnx_load_failed(failed, err);
        }
    }
    onnx_api->ReleaseMemoryInfo(info);
    return status;
}

/* Takes `files`, in any case. */
static enum weir_status create(struct onnx_cached *files, struct onnx_weights **out,
                               struct weir_err *err)
{
    struct onnx_weights *weights = mem_try_zero(1, sizeof(*weights));
    if (weights == NULL) {
        onnx_cached_close(files);
        return err_nomem(err, "a model's weights", sizeof(*weights));
    }
    weights->files = *files;
    weights->holders = 1;
    *files = (struct onnx_cached){ 0 };
    const struct bytes graph = { (const char *)weights->files.graph.data,
                                 weights->files.graph.size };
    enum weir_status status = onnx_file_read(graph, &weights->graph, err);
    status = status == WEIR_OK ? make_values(weights, err) : status;
    OrtStatus *failed =
        status == WEIR_OK ? onnx_api->CreatePrepackedWeightsContainer(&weights->packed) : NULL;
    status = failed == NULL ? status : onnx_load_failed(failed, err);
    if (status != WEIR_OK) {
        destroy(weights);
        return status;
    }
    *out = weights;
    return WEIR_OK;
}

static struct onnx_weights *find_shared_locked(const struct onnx_cached *files)
{
    for (struct list_node *n = list_first(&shared); n != NULL; n = list_next(&shared, n)) {
        struct onnx_weights *weights = list_entry(n, struct onnx_weights, node);
        if (weights->files.device == files->device && weights->files.inode == files->inode) {
            return weights;
        }
    }
    return NULL;
}

/* Takes `files`, in any case. */
static enum weir_status share(struct onnx_cached *files, struct onnx_weights **out,
                              struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    pthread_mutex_lock(&shared_lock);
    struct onnx_weights *weights = find_shared_locked(files);
    if (weights != NULL) {
        weights->holders++;
        onnx_cached_close(files);
    } else {
        status = create(files, &weights, err);
        if (status == WEIR_OK) {
            list_append(&shared, &weights->node);
        }
    }
    pthread_mutex_unlock(&shared_lock);
    if (status == WEIR_OK) {
        *out = weights;
    }
    return status;
}

enum weir_status onnx_weights_acquire(const struct onnx_settings *settings,
                                      const struct onnx_source *source, struct onnx_weights **out,
                                      struct weir_err *err)
{
    struct conversion conversion = { settings, source };
    struct onnx_cached files = { 0 };
    const struct onnx_cache cache = { source->how->weights->cache_folder,
                                      source->how->weights->cache_bytes_max };
    const struct onnx_cache_source of = {
        .folder_fd = source->how->folder_fd,
        .file_name = source->file_name,
        .file = &source->file,
        .bytes = source->file.parameter_bytes,
    };
    const enum weir_status status = onnx_cache_open(&cache, &of, convert, &conversion, &files, err);
    return status == WEIR_OK ? share(&files, out, err) : status;
}

void onnx_weights_release(struct onnx_weights *weights)
{
    if (weights == NULL) {
        return;
    }
    pthread_mutex_lock(&shared_lock);
    const bool last = --weights->holders == 0;
    if (last) {
        list_remove(&weights->node);
    }
    pthread_mutex_unlock(&shared_lock);
    if (last) {
        destroy(weights);
    }
}

uint64_t onnx_weights_bytes(const struct onnx_weights *weights)
{
    return weights->files.weights.size + weights->files.graph.size;
}

void onnx_weights_drop_pages(const struct onnx_weights *weights)
{
    const struct file_map *map = &weights->files.weights;
    (void)madvise((void *)(uintptr_t)map->data, map->size, MADV_DONTNEED);
}

static OrtStatus *add_weights(OrtSessionOptions *options, const struct onnx_weights *weights)
{
    OrtStatus *failed = NULL;
    for (uint32_t i = 0; i < weights->graph.external_count && failed == NULL; i++) {
        failed = onnx_api->AddInitializer(options, weights->graph.externals[i].tensor,
                                          weights->values[i]);
    }
    return failed;
}

/* The runtime wants to see the file of weights, which it does not read. */
static OrtStatus *name_folder(OrtSessionOptions *options, const struct onnx_weights *weights)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", weights->files.folder_fd);
    return onnx_api->AddSessionConfigEntry(
        options, "session.model_external_initializers_file_folder_path", path);
}

enum weir_status onnx_weights_open(struct onnx_weights *weights,
                                   const struct onnx_settings *settings, bool packed,
                                   OrtSession **out, struct weir_err *err)
{
    const struct file_map *graph = &weights->files.graph;
    OrtSessionOptions *options;
    OrtStatus *failed = make_options(settings, ORT_DISABLE_ALL, &options);
    failed = failed != NULL ? failed : add_weights(options, weights);
    failed = failed != NULL ? failed : name_folder(options, weights);
    if (failed == NULL && packed) {
        failed = onnx_api->CreateSessionFromArrayWithPrepackedWeightsContainer(
            settings->env, graph->data, graph->size, options, weights->packed, out);
    } else if (failed == NULL) {
        failed = ADD_OPTIONS(options, mapped_options);
        failed = failed != NULL ? failed
                                : onnx_api->CreateSessionFromArray(settings->env, graph->data,
                                                                   graph->size, options, out);
    }
    onnx_api->ReleaseSessionOptions(options);
    return failed == NULL ? WEIR_OK : onnx_load_failed(failed, err);
}
