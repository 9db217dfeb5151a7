/*
 * What a plug-in says is checked before it is believed: its table, its signature, the shapes of its
 * outputs.  What it does with memory cannot be checked here: a plug-in is trusted like Weir itself.
 */
#include "backend/plugin.h"

#include <assert.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <weir/plugin.h>

#include "backend/backend_impl.h"
#include "util/arena.h"
#include "util/log.h"
#include "util/mem.h"

#define NAME_BYTES_MAX 32
#define TENSORS_MAX 256
#define SPECS_BYTES_MAX ((size_t)1 << 20)
#define FOLDER_BYTES 64

#define SAME_DTYPE(name, text, size) \
    static_assert((int)WEIR_##name == (int)DTYPE_##name, "the ABI's element types are ours");
DTYPES(SAME_DTYPE)
#undef SAME_DTYPE

struct plugin {
    struct backend_ops ops; /* First: what is handed out. */
    const struct weir_plugin *table;
    void *library;
    char *path;
    pthread_mutex_t turn; /* Runs of one that cannot run concurrently. */
};

struct plugin_model {
    struct backend_model base;
    struct plugin *plugin;
    struct weir_plugin_model *theirs;
    struct block_pool *blocks;
    uint32_t contexts;
    uint32_t contexts_max; /* 0: no limit. */
    uint64_t host_bytes;   /* As it said before the load. */
    uint64_t device_bytes;
    struct arena arena; /* The signature. */
};

struct plugin_context {
    struct backend_context base;
    struct weir_plugin_context *theirs;
    struct weir_plugin_tensor *inputs;
    _Atomic bool stop;
};

/* Of one run: what the plug-in's calls come back with. */
struct weir_plugin_run_host {
    struct plugin_context *context;
    struct backend_run *run;
    struct weir_plugin_run theirs;
};

static struct plugin plugins[PLUGINS_MAX];
static uint32_t plugin_count;

static struct plugin *plugin_of(const struct backend_ops *ops)
{
    return (struct plugin *)(uintptr_t)ops;
}

static struct plugin_model *model_of(const struct plugin_context *context)
{
    return (struct plugin_model *)context->base.model;
}

/* ---- What Weir does for a plug-in ------------------------------------------------------------ */

static void host_log(enum weir_plugin_level level, const char *text)
{
    static const enum log_level levels[] = { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };
    const size_t known = sizeof(levels) / sizeof(*levels);
    log_event((size_t)level < known ? levels[level] : LOG_ERROR, "plug-in", LOG_STR("says", text));
}

WEIR_PRINTF(3, 4)
static enum weir_status host_fail(struct weir_err *err, enum weir_status status, const char *format,
                                  ...)
{
    char text[sizeof(err->text)];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return err_set(err, status, "%s", text);
}

static void *host_output(struct weir_plugin_run_host *host, uint32_t index, uint32_t rank,
                         const int64_t *dims)
{
    const struct plugin_model *model = model_of(host->context);
    const struct signature *signature = &model->base.signature;
    if (index >= signature->output_count || rank > TENSOR_RANK_MAX) {
        return NULL;
    }
    const struct tensor_spec *spec = &signature->outputs[index];
    struct tensor *out = &host->run->outputs[index];
    struct tensor made = { .dtype = spec->dtype, .present = true, .shape = { .rank = rank } };
    memcpy(made.shape.dims, dims, rank * sizeof(*dims));
    if (out->present || !shape_fits(&made.shape, &spec->shape) ||
        tensor_bytes(made.dtype, &made.shape, &made.size, NULL) != WEIR_OK) {
        return NULL;
    }
    made.block = block_pool_take(model->blocks, made.size);
    if (made.block == NULL) {
        return NULL;
    }
    made.data = made.block->data;
    *out = made;
    return made.data;
}

static bool host_is_wanted(struct weir_plugin_run_host *host)
{
    return !atomic_load_explicit(&host->context->stop, memory_order_relaxed);
}

static const struct weir_plugin_host host = {
    .abi = WEIR_PLUGIN_ABI,
    .size = sizeof(host),
    .log = host_log,
    .fail = host_fail,
    .output = host_output,
    .is_wanted = host_is_wanted,
};

/* ---- Models ---------------------------------------------------------------------------------- */

/* How the ABI says what is to be loaded. */
struct their_load {
    char folder[FOLDER_BYTES];
    struct weir_plugin_load load;
};

static enum weir_status say_load(const struct backend_load *how, struct their_load *out,
                                 struct weir_err *err)
{
    struct weir_plugin_setting *settings =
        mem_try_zero(how->setting_count + 1, sizeof(*settings)); /* +1: never of no size. */
    if (settings == NULL) {
        return err_nomem(err, "a model's settings", how->setting_count * sizeof(*settings));
    }
    for (uint32_t i = 0; i < how->setting_count; i++) {
        settings[i] = (struct weir_plugin_setting){ how->settings[i].key, how->settings[i].value };
    }
    (void)snprintf(out->folder, sizeof(out->folder), "/proc/self/fd/%d", how->folder_fd);
    out->load = (struct weir_plugin_load){
        .name = how->model_name,
        .version = how->version,
        .folder = out->folder,
        .file_name = how->file_name,
        .device = how->device,
        .settings = settings,
        .setting_count = how->setting_count,
    };
    return WEIR_OK;
}

static void unsay_load(struct their_load *load)
{
    mem_free((void *)(uintptr_t)load->load.settings);
}

/* What a function of theirs returned.  Vendors' libraries have numbers of their own, and a plug-in may
 * hand one on; or it says nothing of why it failed.  `err` was empty when it was called. */
static enum weir_status read_status(const struct weir_plugin *table, const char *function,
                                    enum weir_status theirs, struct weir_err *err)
{
    const int number = (int)theirs;
    const bool known = number >= 0 && number < WEIR_STATUS_COUNT;
    const bool silent = err == NULL || err->text[0] == '\0';
    const enum weir_status status = known ? theirs : WEIR_EBACKEND;
    if (!known && silent) {
        return err_set(err, status, "plug-in '%s': %s() returned %d, expected one of weir/status.h",
                       table->name, function, number);
    }
    if (status != WEIR_OK && silent) {
        return err_set(err, status, "plug-in '%s': %s() gave no reason (%s)", table->name, function,
                       weir_status_text(status));
    }
    if (status != WEIR_OK) {
        err->status = status;
    }
    return status;
}

static void empty(struct weir_err *err)
{
    if (err != NULL) {
        err->text[0] = '\0';
    }
}

static enum weir_status ask_needs(const struct plugin *plugin, const struct their_load *load,
                                  struct weir_plugin_needs *out, struct weir_err *err)
{
    const struct weir_plugin *table = plugin->table;
    *out = (struct weir_plugin_needs){ 0 };
    if (table->needs == NULL) {
        return WEIR_OK;
    }
    empty(err);
    return read_status(table, "needs", table->needs(&load->load, out, err), err);
}

enum weir_status plugin_needs(const struct backend_ops *ops, const struct backend_load *how,
                              struct weir_plugin_needs *out, struct weir_err *err)
{
    struct their_load load;
    enum weir_status status = say_load(how, &load, err);
    if (status == WEIR_OK) {
        status = ask_needs(plugin_of(ops), &load, out, err);
        unsay_load(&load);
    }
    return status;
}

static enum weir_status plugin_ask(const struct backend_ops *ops, const struct backend_load *how,
                                   struct backend_needs *out, struct weir_err *err)
{
    struct weir_plugin_needs needs;
    const enum weir_status status = plugin_needs(ops, how, &needs, err);
    if (status == WEIR_OK) {
        *out = (struct backend_needs){ .host_bytes = needs.host_bytes,
                                       .device_bytes = needs.device_bytes };
    }
    return status;
}

static enum weir_status read_spec(const struct plugin_model *model,
                                  const struct weir_plugin_spec *theirs, struct tensor_spec *out,
                                  struct arena *arena, struct weir_err *err)
{
    const char *plugin = model->plugin->table->name;
    if (theirs->name == NULL || theirs->name[0] == '\0') {
        return err_set(err, WEIR_EINVAL, "plug-in '%s': a tensor without a name", plugin);
    }
    if ((unsigned)theirs->dtype >= DTYPE_COUNT || theirs->dtype == WEIR_BYTES) {
        return err_set(err, WEIR_EINVAL,
                       "plug-in '%s': tensor '%s' has element type %d, expected one of fixed size",
                       plugin, theirs->name, (int)theirs->dtype);
    }
    if (theirs->rank > TENSOR_RANK_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "plug-in '%s': tensor '%s' has rank %" PRIu32 ", expected at most %d",
                       plugin, theirs->name, theirs->rank, TENSOR_RANK_MAX);
    }
    for (uint32_t i = 0; i < theirs->rank; i++) {
        if (theirs->dims[i] < -1 || theirs->dims[i] == 0) {
            return err_set(err, WEIR_EINVAL,
                           "plug-in '%s': tensor '%s' has a dimension of %" PRId64
                           ", expected -1 or above 0",
                           plugin, theirs->name, theirs->dims[i]);
        }
    }
    *out = (struct tensor_spec){ .dtype = (enum dtype)theirs->dtype,
                                 .shape = { .rank = theirs->rank } };
    memcpy(out->shape.dims, theirs->dims, theirs->rank * sizeof(*theirs->dims));
    out->name = arena_try_strndup(arena, theirs->name, strlen(theirs->name));
    return out->name != NULL ? WEIR_OK : err_nomem(err, "a model's signature", 0);
}

static enum weir_status read_specs(struct plugin_model *model,
                                   const struct weir_plugin_spec *theirs, uint32_t count,
                                   struct tensor_spec **out, struct weir_err *err)
{
    if (theirs == NULL || count == 0 || count > TENSORS_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "plug-in '%s': found %" PRIu32 " inputs or outputs, expected 1 to %d",
                       model->plugin->table->name, count, TENSORS_MAX);
    }
    struct tensor_spec *specs = arena_try_zero(&model->arena, count, sizeof(*specs));
    if (specs == NULL) {
        return err_nomem(err, "a model's signature", count * sizeof(*specs));
    }
    for (uint32_t i = 0; i < count; i++) {
        const enum weir_status status = read_spec(model, &theirs[i], &specs[i], &model->arena, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    *out = specs;
    return WEIR_OK;
}

static enum weir_status read_signature(struct plugin_model *model, struct weir_err *err)
{
    struct weir_plugin_signature theirs = { 0 };
    struct signature *signature = &model->base.signature;
    const struct weir_plugin *table = model->plugin->table;
    table->describe(model->theirs, &theirs);
    enum weir_status status =
        read_specs(model, theirs.inputs, theirs.input_count, &signature->inputs, err);
    if (status == WEIR_OK) {
        status = read_specs(model, theirs.outputs, theirs.output_count, &signature->outputs, err);
    }
    signature->input_count = theirs.input_count;
    signature->output_count = theirs.output_count;
    signature->short_lived = (table->capabilities & WEIR_PLUGIN_CAN_SHORT) != 0;
    return status;
}

static void plugin_unload(struct backend_model *base)
{
    struct plugin_model *model = (struct plugin_model *)base;
    if (model->theirs != NULL) {
        model->plugin->table->unload(model->theirs);
    }
    arena_finish(&model->arena);
    mem_free(model);
}

/* What a plug-in really takes nobody but itself could count. */
static void plugin_memory(const struct backend_model *base, struct backend_memory *out)
{
    const struct plugin_model *model = (const struct plugin_model *)base;
    out->heap_bytes = model->host_bytes;
    out->heap_peak_bytes = model->host_bytes;
    out->device_bytes = model->device_bytes;
}

static enum weir_status build(struct plugin_model *model, const struct backend_load *how,
                              struct weir_err *err)
{
    struct their_load load;
    struct weir_plugin_needs needs;
    enum weir_status status = say_load(how, &load, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = ask_needs(model->plugin, &load, &needs, err);
    if (status == WEIR_OK) {
        model->contexts_max = needs.contexts_max;
        model->base.signature.weights_bytes = needs.host_bytes;
        model->host_bytes = needs.host_bytes;
        model->device_bytes = needs.device_bytes;
        struct weir_plugin_model *theirs = NULL;
        empty(err);
        status = model->plugin->table->load(&load.load, &theirs, err);
        status = read_status(model->plugin->table, "load", status, err);
        model->theirs = status == WEIR_OK ? theirs : NULL;
    }
    unsay_load(&load);
    return status == WEIR_OK ? read_signature(model, err) : status;
}

static enum weir_status plugin_load(const struct backend_ops *ops, const struct backend_load *how,
                                    struct backend_model **out, struct weir_err *err)
{
    struct plugin_model *model = mem_try_zero(1, sizeof(*model));
    if (model == NULL) {
        return err_nomem(err, "a model", sizeof(*model));
    }
    arena_init(&model->arena, NULL, 0, SPECS_BYTES_MAX);
    model->base.ops = ops;
    model->plugin = plugin_of(ops);
    model->blocks = how->blocks;
    const enum weir_status status = build(model, how, err);
    if (status != WEIR_OK) {
        plugin_unload(&model->base);
        (void)err_prefix(err, "model '%s' version %" PRIu64, how->model_name, how->version);
        return status;
    }
    *out = &model->base;
    return WEIR_OK;
}

/* ---- Runs ------------------------------------------------------------------------------------ */

static void plugin_context_destroy(struct backend_context *base)
{
    struct plugin_context *context = (struct plugin_context *)base;
    struct plugin_model *model = model_of(context);
    if (context->theirs != NULL) {
        model->plugin->table->context_destroy(context->theirs);
        model->contexts--;
    }
    mem_free(context->inputs);
    mem_free(context);
}

static enum weir_status plugin_context_create(struct backend_model *base,
                                              struct backend_context **out, struct weir_err *err)
{
    struct plugin_model *model = (struct plugin_model *)base;
    const struct weir_plugin *table = model->plugin->table;
    if (model->contexts_max > 0 && model->contexts == model->contexts_max) {
        return err_set(err, WEIR_ECONFLICT,
                       "plug-in '%s' gives this model %" PRIu32
                       " contexts at most, and one more is asked for: lower instance_group.count",
                       table->name, model->contexts_max);
    }
    struct plugin_context *context = mem_try_zero(1, sizeof(*context));
    if (context == NULL) {
        return err_nomem(err, "a context", sizeof(*context));
    }
    context->base.model = base;
    struct weir_plugin_context *theirs = NULL;
    context->inputs = mem_try_zero(base->signature.input_count, sizeof(*context->inputs));
    enum weir_status status = WEIR_OK;
    if (context->inputs == NULL) {
        status = err_nomem(err, "a context", sizeof(*context->inputs));
    } else {
        empty(err);
        status = table->context_create(model->theirs, &theirs, err);
        status = read_status(table, "context_create", status, err);
    }
    if (status != WEIR_OK) {
        plugin_context_destroy(&context->base);
        return status;
    }
    context->theirs = theirs;
    model->contexts++;
    *out = &context->base;
    return WEIR_OK;
}

static void drop_outputs(const struct plugin_context *context, struct backend_run *run)
{
    for (uint32_t i = 0; i < context->base.model->signature.output_count; i++) {
        tensor_release(&run->outputs[i]);
    }
}

static void say_run(struct plugin_context *context, struct backend_run *run,
                    struct weir_plugin_run_host *out)
{
    for (uint32_t i = 0; i < context->base.model->signature.input_count; i++) {
        const struct tensor *input = &run->inputs[i];
        context->inputs[i] = (struct weir_plugin_tensor){
            .data = input->data,
            .size = input->size,
            .rank = input->shape.rank,
            .dims = input->shape.dims,
        };
    }
    *out = (struct weir_plugin_run_host){
        .context = context,
        .run = run,
        .theirs = {
            .host = out,
            .inputs = context->inputs,
            .wanted = run->wanted,
            .rows = run->rows,
        },
    };
}

typedef enum weir_status step_fn(struct weir_plugin_context *context,
                                 const struct weir_plugin_run *run, struct weir_err *err);

static enum weir_status step(struct backend_context *base, struct backend_run *run, step_fn *theirs,
                             const char *function, struct weir_err *err)
{
    struct plugin_context *context = (struct plugin_context *)base;
    struct weir_plugin_run_host said;
    say_run(context, run, &said);
    empty(err);
    const enum weir_status status = read_status(plugin_of(base->model->ops)->table, function,
                                                theirs(context->theirs, &said.theirs, err), err);
    if (status != WEIR_OK) {
        drop_outputs(context, run);
    }
    return status;
}

static enum weir_status plugin_prepare(struct backend_context *base, struct backend_run *run,
                                       struct weir_err *err)
{
    return step(base, run, plugin_of(base->model->ops)->table->prepare, "prepare", err);
}

static enum weir_status plugin_run(struct backend_context *base, struct backend_run *run,
                                   struct weir_err *err)
{
    struct plugin *plugin = plugin_of(base->model->ops);
    const bool alone = (plugin->table->capabilities & WEIR_PLUGIN_CAN_CONCURRENT) == 0;
    if (alone) {
        pthread_mutex_lock(&plugin->turn);
    }
    const enum weir_status status = step(base, run, plugin->table->run, "run", err);
    if (alone) {
        pthread_mutex_unlock(&plugin->turn);
    }
    return status;
}

static enum weir_status plugin_finish(struct backend_context *base, struct backend_run *run,
                                      struct weir_err *err)
{
    return step(base, run, plugin_of(base->model->ops)->table->finish, "finish", err);
}

static void plugin_terminate(struct backend_context *base, bool stop)
{
    struct plugin_context *context = (struct plugin_context *)base;
    const struct weir_plugin *table = plugin_of(base->model->ops)->table;
    const bool was = atomic_exchange_explicit(&context->stop, stop, memory_order_relaxed);
    if (table->terminate != NULL && was != stop) {
        table->terminate(context->theirs, stop);
    }
}

/* Whoever finishes must have made what was wanted. */
static enum weir_status check_outputs(struct backend_context *base, struct backend_run *run,
                                      struct weir_err *err)
{
    const struct signature *signature = &base->model->signature;
    for (uint32_t i = 0; i < signature->output_count; i++) {
        if (run->wanted[i] && !run->outputs[i].present) {
            drop_outputs((struct plugin_context *)base, run);
            return err_set(err, WEIR_EBACKEND, "plug-in '%s' made no output '%s'",
                           base->model->ops->name, signature->outputs[i].name);
        }
    }
    return WEIR_OK;
}

static enum weir_status plugin_run_last(struct backend_context *base, struct backend_run *run,
                                        struct weir_err *err)
{
    const enum weir_status status = plugin_run(base, run, err);
    return status == WEIR_OK ? check_outputs(base, run, err) : status;
}

static enum weir_status plugin_finish_last(struct backend_context *base, struct backend_run *run,
                                           struct weir_err *err)
{
    const enum weir_status status = plugin_finish(base, run, err);
    return status == WEIR_OK ? check_outputs(base, run, err) : status;
}

/* ---- Libraries ------------------------------------------------------------------------------- */

static bool name_is_good(const char *name)
{
    const size_t size = name == NULL ? 0 : strnlen(name, NAME_BYTES_MAX + 1);
    return size >= 1 && size <= NAME_BYTES_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == size;
}

static enum weir_status check_table(const char *path, const struct weir_plugin *table,
                                    struct weir_err *err)
{
    if (table == NULL || table->abi != WEIR_PLUGIN_ABI) {
        return err_set(err, WEIR_EINVAL, "%s: plug-in ABI %" PRIu32 ", expected %d", path,
                       table == NULL ? 0 : table->abi, WEIR_PLUGIN_ABI);
    }
    if (table->size < sizeof(*table)) {
        return err_set(err, WEIR_EINVAL,
                       "%s: its table has %" PRIu32 " bytes, expected at least %zu", path,
                       table->size, sizeof(*table));
    }
    if (!name_is_good(table->name)) {
        return err_set(err, WEIR_EINVAL,
                       "%s: its name is no backend's name, expected 1 to %d of a-z 0-9 _ -", path,
                       NAME_BYTES_MAX);
    }
    if (table->load == NULL || table->unload == NULL || table->describe == NULL ||
        table->context_create == NULL || table->context_destroy == NULL || table->run == NULL) {
        return err_set(err, WEIR_EINVAL,
                       "%s: plug-in '%s' lacks one of load, unload, describe, context_create, "
                       "context_destroy and run",
                       path, table->name);
    }
    return backend_find(table->name) == NULL
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL, "%s: there is a backend '%s' already", path,
                         table->name);
}

static enum weir_status open_library(const char *path, void **library,
                                     const struct weir_plugin **table, struct weir_err *err)
{
    *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*library == NULL) {
        const char *why = dlerror();
        return err_set(err, WEIR_ENOENT, "%s cannot be loaded: %s%s", path,
                       why == NULL ? "no reason given" : why,
                       strchr(path, '/') == NULL ? "; a file of this folder is written ./NAME"
                                                 : "");
    }
    const struct weir_plugin *(*entry)(void) = NULL;
    void *symbol = dlsym(*library, WEIR_PLUGIN_SYMBOL);
    memcpy(&entry, &symbol, sizeof(entry)); /* ISO C has no cast from data to function. */
    if (entry == NULL) {
        return err_set(err, WEIR_EINVAL, "%s is no plug-in: it exports no %s()", path,
                       WEIR_PLUGIN_SYMBOL);
    }
    *table = entry();
    return check_table(path, *table, err);
}

static void fill_ops(struct plugin *plugin)
{
    const struct weir_plugin *table = plugin->table;
    plugin->ops = (struct backend_ops){
        .name = table->name,
        .platform = "",
        .load = plugin_load,
        .needs = table->needs == NULL ? NULL : plugin_ask,
        .unload = plugin_unload,
        .context_create = plugin_context_create,
        .context_destroy = plugin_context_destroy,
        .prepare = table->prepare == NULL ? NULL : plugin_prepare,
        .run = table->finish == NULL ? plugin_run_last : plugin_run,
        .finish = table->finish == NULL ? NULL : plugin_finish_last,
        .terminate = plugin_terminate,
        .memory = plugin_memory,
    };
}

enum weir_status plugin_add(const char *path, struct weir_err *err)
{
    if (plugin_count == PLUGINS_MAX) {
        return err_set(err, WEIR_EINVAL, "%s: more than %d plug-ins", path, PLUGINS_MAX);
    }
    struct plugin *plugin = &plugins[plugin_count];
    *plugin = (struct plugin){ .table = NULL };
    enum weir_status status = open_library(path, &plugin->library, &plugin->table, err);
    if (status == WEIR_OK && plugin->table->start != NULL) {
        empty(err);
        status = plugin->table->start(&host, err);
        status = read_status(plugin->table, "start", status, err);
        if (status != WEIR_OK) {
            (void)err_prefix(err, "%s: plug-in '%s' does not start", path, plugin->table->name);
        }
    }
    if (status != WEIR_OK) {
        if (plugin->library != NULL) {
            (void)dlclose(plugin->library);
        }
        return status;
    }
    plugin->path = mem_strdup(path);
    pthread_mutex_init(&plugin->turn, NULL);
    fill_ops(plugin);
    plugin_count++;
    return WEIR_OK;
}

void plugin_remove_all(void)
{
    while (plugin_count > 0) {
        struct plugin *plugin = &plugins[--plugin_count];
        if (plugin->table->stop != NULL) {
            plugin->table->stop();
        }
        pthread_mutex_destroy(&plugin->turn);
        (void)dlclose(plugin->library);
        mem_free(plugin->path);
    }
}

const struct backend_ops *plugin_find(const char *name)
{
    for (uint32_t i = 0; i < plugin_count; i++) {
        if (strcmp(plugins[i].table->name, name) == 0) {
            return &plugins[i].ops;
        }
    }
    return NULL;
}

const struct backend_ops *plugin_at(uint32_t index)
{
    return index < plugin_count ? &plugins[index].ops : NULL;
}

const char *plugin_path(const struct backend_ops *ops)
{
    for (uint32_t i = 0; i < plugin_count; i++) {
        if (&plugins[i].ops == ops) {
            return plugins[i].path;
        }
    }
    return NULL;
}
