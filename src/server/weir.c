/*
 * The library: an engine without a network.
 *
 * A call needs a home.  Homes are kept on a list and each is used by one call at
 * a time, on the thread that waits for it: that thread submits, sleeps on the
 * home's condition, and takes the answer, with no thread in between; a model
 * that is short enough runs on the caller's own thread.  A home on the list
 * holds no catalogue snapshot, so it keeps no model loaded.
 */
#include "weir/weir.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/plugin.h"
#include "backend/process_watch.h"
#include "engine/engine.h"
#include "engine/registry.h"
#include "pipeline/graph.h"
#include "pipeline/run.h"
#include "server/caller.h"
#include "server/devices.h"
#include "server/modelconfig.h"
#include "util/mem.h"

struct weir {
    struct limits limits;
    struct clock clock;
    struct engine *engine;
    struct registry *registry;
    struct registry_options options;
    const char *roots[1];
    char *repository;
    struct devices devices;
    pthread_mutex_t lock;   /* Guards callers. */
    struct caller *callers; /* Not in use. */
};

struct weir_result {
    struct weir_tensor *tensors;
    struct tensor *outputs; /* What holds their memory. */
    uint32_t count;
    struct weir_times times;
    struct model *model; /* Leased: the names are its. */
};

struct weir_call {
    struct weir *weir;
    struct caller *caller;
    struct model *model;
    struct request request;
    struct tensor *inputs; /* In the signature's order. */
    struct tensor *outputs;
    bool *wanted;
    bool ended;
};

/* The public element types in the table's terms. */
static const enum dtype dtypes[] = {
    [WEIR_BOOL] = DTYPE_BOOL,     [WEIR_UINT8] = DTYPE_UINT8,   [WEIR_UINT16] = DTYPE_UINT16,
    [WEIR_UINT32] = DTYPE_UINT32, [WEIR_UINT64] = DTYPE_UINT64, [WEIR_INT8] = DTYPE_INT8,
    [WEIR_INT16] = DTYPE_INT16,   [WEIR_INT32] = DTYPE_INT32,   [WEIR_INT64] = DTYPE_INT64,
    [WEIR_FP16] = DTYPE_FP16,     [WEIR_FP32] = DTYPE_FP32,     [WEIR_FP64] = DTYPE_FP64,
    [WEIR_BF16] = DTYPE_BF16,     [WEIR_BYTES] = DTYPE_BYTES,
};

static bool dtype_known(enum weir_dtype dtype)
{
    return (unsigned)dtype < sizeof(dtypes) / sizeof(*dtypes);
}

static enum weir_dtype dtype_public(enum dtype dtype)
{
    for (unsigned i = 0; i < sizeof(dtypes) / sizeof(*dtypes); i++) {
        if (dtypes[i] == dtype) {
            return (enum weir_dtype)i;
        }
    }
    return WEIR_BYTES;
}

const char *weir_dtype_text(enum weir_dtype dtype)
{
    return dtype_known(dtype) ? dtype_text(dtypes[dtype]) : "unknown";
}

struct weir_tensor weir_tensor_of(const char *name, enum weir_dtype dtype, const void *data,
                                  uint32_t rank, const int64_t *dims)
{
    struct weir_tensor tensor = { .name = name, .dtype = dtype, .rank = rank, .data = data };
    if (rank > WEIR_RANK_MAX || !dtype_known(dtype)) {
        return tensor;
    }
    struct shape shape = { .rank = rank };
    for (uint32_t i = 0; i < rank; i++) {
        tensor.dims[i] = dims[i];
        shape.dims[i] = dims[i];
    }
    if (dtype == WEIR_BYTES || tensor_bytes(dtypes[dtype], &shape, &tensor.size, NULL) != WEIR_OK) {
        tensor.size = 0;
    }
    return tensor;
}

const char *weir_version(void)
{
    return WEIR_VERSION;
}

static struct caller *caller_take(struct weir *weir)
{
    pthread_mutex_lock(&weir->lock);
    struct caller *caller = weir->callers;
    if (caller != NULL) {
        weir->callers = caller->next;
    }
    pthread_mutex_unlock(&weir->lock);
    return caller != NULL ? caller : caller_create(weir->engine);
}

static void caller_give(struct weir *weir, struct caller *caller)
{
    home_rest(&caller->home);
    pthread_mutex_lock(&weir->lock);
    caller->next = weir->callers;
    weir->callers = caller;
    pthread_mutex_unlock(&weir->lock);
}

static uint32_t processors(void)
{
    const long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : (uint32_t)count;
}

/* One model by order, or all: until none is on its way. */
static enum weir_status load(struct weir *weir, const char *model, struct weir_err *err)
{
    struct caller *caller = caller_take(weir);
    if (caller == NULL) {
        return err_nomem(err, "a caller", sizeof(*caller));
    }
    const enum weir_status status = caller_order(
        caller, weir->registry, model != NULL ? REGISTRY_LOAD : REGISTRY_REFRESH, model, err);
    while (status == WEIR_OK && model == NULL &&
           !caller_models_settled(registry_catalogue(weir->registry, &caller->home))) {
        caller_wait(caller);
    }
    caller_give(weir, caller);
    return status;
}

static enum weir_status start(struct weir *weir, const struct weir_options *options,
                              struct weir_err *err)
{
    const struct config config = {
        .executors = options->executors > 0 ? options->executors : processors(),
        .processors = "off",
        .devices = { (const char **)(uintptr_t)options->devices, options->device_count },
    };
    enum weir_status status = devices_read(&weir->devices, &config, err);
    if (status != WEIR_OK) {
        return status;
    }
    const struct engine_options engine = { .devices = weir->devices.list,
                                           .device_count = weir->devices.count,
                                           .limits = &weir->limits,
                                           .clock = &weir->clock,
                                           .threads = true,
                                           .inline_runs = true };
    status = engine_create(&engine, &weir->engine, err);
    if (status != WEIR_OK) {
        return status;
    }
    weir->roots[0] = weir->repository;
    weir->options = (struct registry_options){
        .roots = weir->roots,
        .root_count = 1,
        .control = options->model != NULL ? CONTROL_EXPLICIT : CONTROL_ALL,
        .models_max = weir->limits.models_max,
        .model_bytes_max = weir->limits.model_bytes_max,
        .configure = modelconfig_read,
        .compose = graph_compose,
    };
    return registry_create(weir->engine, &weir->options, &weir->registry, err);
}

/* Plug-ins are found without a lock by whoever loads a model, so they change only while there is no
 * engine. */
static struct {
    pthread_mutex_t lock;
    uint32_t engines;
} sharing = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool plugin_is_there(const char *path)
{
    const struct backend_ops *ops;
    for (uint32_t i = 0; (ops = plugin_at(i)) != NULL; i++) {
        if (strcmp(plugin_path(ops), path) == 0) {
            return true;
        }
    }
    return false;
}

/* One engine less uses them. */
static void leave_plugins(void)
{
    pthread_mutex_lock(&sharing.lock);
    if (--sharing.engines == 0) {
        plugin_remove_all();
    }
    pthread_mutex_unlock(&sharing.lock);
}

static enum weir_status join_plugins(const struct weir_options *options, struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    pthread_mutex_lock(&sharing.lock);
    for (uint32_t i = 0; i < options->plugin_count && status == WEIR_OK; i++) {
        const char *path = options->plugins[i];
        if (plugin_is_there(path)) {
            continue;
        }
        status = sharing.engines == 0
                     ? plugin_add(path, err)
                     : err_set(err, WEIR_ECONFLICT,
                               "plug-in '%s': other engines are open without it", path);
    }
    sharing.engines++;
    pthread_mutex_unlock(&sharing.lock);
    if (status != WEIR_OK) {
        leave_plugins();
    }
    return status;
}

/* Not yet started. */
static enum weir_status create(const struct weir_options *options, struct weir **out,
                               struct weir_err *err)
{
    struct weir *weir = mem_try_zero(1, sizeof(*weir));
    char *repository = mem_try_strdup(options->repository);
    const enum weir_status status = weir == NULL || repository == NULL
                                        ? err_nomem(err, "an engine", sizeof(*weir))
                                        : join_plugins(options, err);
    if (status != WEIR_OK) {
        mem_free(weir);
        mem_free(repository);
        return status;
    }
    weir->repository = repository;
    limits_init(&weir->limits);
    clock_init(&weir->clock);
    pthread_mutex_init(&weir->lock, NULL);
    *out = weir;
    return WEIR_OK;
}

enum weir_status weir_open(const struct weir_options *options, struct weir **out,
                           struct weir_err *err)
{
    if (options->repository == NULL) {
        return err_set(err, WEIR_EINVAL, "options.repository is NULL, expected a folder of models");
    }
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, backend_start);
    if (options->program != NULL) {
        process_set_program(options->program);
    }
    struct weir *weir = NULL;
    enum weir_status status = create(options, &weir, err);
    if (status == WEIR_OK) {
        status = start(weir, options, err);
    }
    if (status == WEIR_OK) {
        status = load(weir, options->model, err);
    }
    if (status != WEIR_OK) {
        weir_close(weir);
        return status;
    }
    *out = weir;
    return WEIR_OK;
}

static _Atomic bool left_threads;

bool weir_left_threads(void)
{
    return left_threads;
}

void weir_close(struct weir *weir)
{
    if (weir == NULL) {
        return;
    }
    for (struct caller *caller = weir->callers; caller != NULL; caller = caller->next) {
        caller_finish(caller);
    }
    if (!registry_destroy(weir->registry, CLOCK_NEVER)) {
        left_threads = true; /* What they use stays. */
        return;
    }
    engine_destroy(weir->engine);
    while (weir->callers != NULL) {
        struct caller *caller = weir->callers;
        weir->callers = caller->next;
        caller_destroy(caller);
    }
    devices_finish(&weir->devices);
    pthread_mutex_destroy(&weir->lock);
    mem_free(weir->repository);
    mem_free(weir);
    leave_plugins();
}

static void describe(const struct tensor_spec *specs, uint32_t count, struct weir_tensor *out)
{
    for (uint32_t i = 0; i < count; i++) {
        out[i] = (struct weir_tensor){ .name = specs[i].name,
                                       .dtype = dtype_public(specs[i].dtype),
                                       .rank = specs[i].shape.rank };
        memcpy(out[i].dims, specs[i].shape.dims, specs[i].shape.rank * sizeof(int64_t));
    }
}

/* The public description, and the lease that keeps its names alive. */
struct description {
    struct weir_model model;
    struct model *lease;
    struct weir_tensor tensors[];
};

static enum weir_status lease(struct weir *weir, const char *name, uint64_t version,
                              struct model **out, struct weir_err *err)
{
    struct catalogue *catalogue = registry_snapshot(weir->registry);
    const enum weir_status status = catalogue_lease(catalogue, bytes_of(name), version, out, err);
    catalogue_release(catalogue);
    return status;
}

enum weir_status weir_model_describe(struct weir *weir, const char *name, uint64_t version,
                                     struct weir_model **out, struct weir_err *err)
{
    struct model *model;
    const enum weir_status status = lease(weir, name, version, &model, err);
    if (status != WEIR_OK) {
        return status;
    }
    const struct signature *signature = model->signature;
    const size_t tensors = (size_t)signature->input_count + signature->output_count;
    struct description *made =
        mem_try_zero(1, sizeof(*made) + tensors * sizeof(struct weir_tensor));
    if (made == NULL) {
        model_release(model);
        return err_nomem(err, "a description", tensors * sizeof(struct weir_tensor));
    }
    describe(signature->inputs, signature->input_count, made->tensors);
    describe(signature->outputs, signature->output_count, made->tensors + signature->input_count);
    made->lease = model;
    made->model = (struct weir_model){
        .name = model->name,
        .version = model->version,
        .platform = model->config->platform,
        .input_count = signature->input_count,
        .inputs = made->tensors,
        .output_count = signature->output_count,
        .outputs = made->tensors + signature->input_count,
    };
    *out = &made->model;
    return WEIR_OK;
}

void weir_model_free(struct weir_model *model)
{
    if (model != NULL) {
        struct description *made = (struct description *)(void *)model;
        model_release(made->lease);
        mem_free(made);
    }
}

static void call_free(struct weir_call *call)
{
    if (call->caller != NULL) {
        caller_give(call->weir, call->caller);
    }
    if (call->model != NULL) {
        model_release(call->model);
    }
    mem_free(call->inputs);
    mem_free(call->outputs);
    mem_free(call->wanted);
    mem_free(call);
}

static void call_ended(struct request *request)
{
    ((struct weir_call *)request->user)->ended = true;
}

static int find_spec(const struct tensor_spec *specs, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(specs[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static enum weir_status take_input(struct weir_call *call, const struct weir_tensor *from,
                                   struct weir_err *err)
{
    const struct signature *signature = call->model->signature;
    const int at = find_spec(signature->inputs, signature->input_count, from->name);
    if (at < 0) {
        return err_set(err, WEIR_EINVAL, "model '%s' has no input '%s'", call->model->name,
                       from->name);
    }
    struct tensor *input = &call->inputs[at];
    if (input->present) {
        return err_set(err, WEIR_EINVAL, "input '%s' is given twice", from->name);
    }
    if (!dtype_known(from->dtype) || from->rank > WEIR_RANK_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "input '%s' has datatype %d and rank %u, expected a "
                       "weir_dtype and at most %d",
                       from->name, (int)from->dtype, from->rank, WEIR_RANK_MAX);
    }
    *input = (struct tensor){ .dtype = dtypes[from->dtype],
                              .present = true,
                              .shape = { .rank = from->rank },
                              .data = (uint8_t *)(uintptr_t)from->data,
                              .size = from->size };
    memcpy(input->shape.dims, from->dims, from->rank * sizeof(int64_t));
    return input->dtype == DTYPE_BYTES ? tensor_check_strings(input, err) : WEIR_OK;
}

static enum weir_status take_wanted(struct weir_call *call, const struct weir_call_options *options,
                                    struct weir_err *err)
{
    const struct signature *signature = call->model->signature;
    const bool all = options->outputs == NULL;
    for (uint32_t i = 0; all && i < signature->output_count; i++) {
        call->wanted[i] = true;
    }
    for (uint32_t i = 0; !all && i < options->output_count; i++) {
        const int at = find_spec(signature->outputs, signature->output_count, options->outputs[i]);
        if (at < 0) {
            return err_set(err, WEIR_EINVAL, "model '%s' has no output '%s'", call->model->name,
                           options->outputs[i]);
        }
        call->wanted[at] = true;
    }
    return WEIR_OK;
}

static enum weir_status fill(struct weir_call *call, const struct weir_tensor *inputs,
                             uint32_t input_count, const struct weir_call_options *options,
                             struct weir_err *err)
{
    const struct signature *signature = call->model->signature;
    call->inputs = mem_try_zero(signature->input_count + 1u, sizeof(*call->inputs));
    call->outputs = mem_try_zero(signature->output_count + 1u, sizeof(*call->outputs));
    call->wanted = mem_try_zero(signature->output_count + 1u, sizeof(*call->wanted));
    if (call->inputs == NULL || call->outputs == NULL || call->wanted == NULL) {
        return err_nomem(err, "a call", sizeof(*call));
    }
    enum weir_status status = take_wanted(call, options, err);
    for (uint32_t i = 0; i < input_count && status == WEIR_OK; i++) {
        status = take_input(call, &inputs[i], err);
    }
    return status;
}

enum weir_status weir_start(struct weir *weir, const char *model, const struct weir_tensor *inputs,
                            uint32_t input_count, const struct weir_call_options *options,
                            struct weir_call **out, struct weir_err *err)
{
    static const struct weir_call_options usual = { 0 };
    options = options != NULL ? options : &usual;
    struct weir_call *call = mem_try_zero(1, sizeof(*call));
    if (call == NULL) {
        return err_nomem(err, "a call", sizeof(*call));
    }
    call->weir = weir;
    enum weir_status status = lease(weir, model, options->version, &call->model, err);
    if (status == WEIR_OK) {
        status = fill(call, inputs, input_count, options, err);
    }
    if (status == WEIR_OK) {
        call->caller = caller_take(weir);
        status = call->caller != NULL ? WEIR_OK : err_nomem(err, "a caller", sizeof(struct caller));
    }
    if (status == WEIR_OK) {
        struct request *request = &call->request;
        request_init(request);
        request->home = &call->caller->home;
        request->model = call->model;
        request->inputs = call->inputs;
        request->outputs = call->outputs;
        request->wanted = call->wanted;
        request->priority = options->priority;
        request->deadline_ns = options->timeout_ns == 0
                                   ? CLOCK_NEVER
                                   : clock_add(clock_now_ns(&weir->clock), options->timeout_ns);
        request->ended = call_ended;
        request->user = call;
        status = pipeline_submit(weir->engine, request, err);
    }
    if (status != WEIR_OK) {
        call_free(call);
        return status;
    }
    home_turn(&call->caller->home);
    *out = call;
    return WEIR_OK;
}

static enum weir_status make_result(struct weir_call *call, struct weir_result **out,
                                    struct weir_err *err)
{
    const struct signature *signature = call->model->signature;
    const struct request_times *t = &call->request.times;
    struct weir_result *result = mem_try_zero(1, sizeof(*result));
    struct weir_tensor *tensors = mem_try_zero(signature->output_count + 1u, sizeof(*tensors));
    if (result == NULL || tensors == NULL) {
        mem_free(result);
        mem_free(tensors);
        for (uint32_t i = 0; i < signature->output_count; i++) {
            tensor_release(&call->outputs[i]);
        }
        return err_nomem(err, "a result", sizeof(*result));
    }
    for (uint32_t i = 0; i < signature->output_count; i++) {
        const struct tensor *output = &call->outputs[i];
        if (output->present) {
            struct weir_tensor *tensor = &tensors[result->count++];
            *tensor = (struct weir_tensor){ .name = signature->outputs[i].name,
                                            .dtype = dtype_public(output->dtype),
                                            .rank = output->shape.rank,
                                            .data = output->data,
                                            .size = output->size };
            memcpy(tensor->dims, output->shape.dims, output->shape.rank * sizeof(int64_t));
        }
    }
    result->tensors = tensors;
    result->outputs = call->outputs;
    call->outputs = NULL;
    result->model = call->model;
    call->model = NULL;
    result->times = (struct weir_times){ .queue_ns = t->taken_ns - t->submitted_ns,
                                         .gather_ns = t->gathered_ns - t->taken_ns,
                                         .compute_ns = t->computed_ns - t->gathered_ns,
                                         .total_ns = t->ended_ns - t->submitted_ns,
                                         .batch_rows = call->request.batch_rows };
    *out = result;
    return WEIR_OK;
}

enum weir_status weir_wait(struct weir_call *call, struct weir_result **out, struct weir_err *err)
{
    home_turn(&call->caller->home);
    while (!call->ended) {
        caller_wait(call->caller);
    }
    enum weir_status status = call->request.status;
    status = status == WEIR_OK ? make_result(call, out, err)
                               : err_set(err, status, "%s", call->request.err.text);
    call_free(call);
    return status;
}

void weir_cancel(struct weir_call *call)
{
    if (!call->ended) {
        pipeline_cancel(call->weir->engine, &call->request);
    }
}

enum weir_status weir_infer(struct weir *weir, const char *model, const struct weir_tensor *inputs,
                            uint32_t input_count, const struct weir_call_options *options,
                            struct weir_result **out, struct weir_err *err)
{
    struct weir_call *call = NULL;
    const enum weir_status status =
        weir_start(weir, model, inputs, input_count, options, &call, err);
    return status == WEIR_OK ? weir_wait(call, out, err) : status;
}

uint32_t weir_result_count(const struct weir_result *result)
{
    return result->count;
}

const struct weir_tensor *weir_result_at(const struct weir_result *result, uint32_t index)
{
    return index < result->count ? &result->tensors[index] : NULL;
}

const struct weir_tensor *weir_result_output(const struct weir_result *result, const char *name)
{
    for (uint32_t i = 0; i < result->count; i++) {
        if (strcmp(result->tensors[i].name, name) == 0) {
            return &result->tensors[i];
        }
    }
    return NULL;
}

struct weir_times weir_result_times(const struct weir_result *result)
{
    return result->times;
}

void weir_result_free(struct weir_result *result)
{
    if (result == NULL) {
        return;
    }
    for (uint32_t i = 0; i < result->model->signature->output_count; i++) {
        tensor_release(&result->outputs[i]);
    }
    model_release(result->model);
    mem_free(result->outputs);
    mem_free(result->tensors);
    mem_free(result);
}
