/*
 * How much the process's resident set grew by a load, and shrank by an unload, is what a person
 * sees in top.  It is approximate, since other threads allocate meanwhile and pages of a mapped
 * file come in later; budgets go by what backends count (model_memory()).
 */
#include "engine/lifecycle.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/bucket.h"
#include "engine/effective.h"
#include "engine/placement.h"
#include "engine/pool.h"
#include "engine/profile_store.h"
#include "engine/tryout.h"
#include "util/arena.h"
#include "util/err.h"
#include "util/file.h"
#include "util/mem.h"
#include "util/memstat.h"

#define LABEL_FILE_BYTES_MAX (UINT64_C(16) << 20)
#define LABELS_MAX 1000000

/* A load in progress; what is set is released when it fails. */
struct load {
    const struct lifecycle_load *how;
    int model_fd;
    int version_fd;
    struct model *model;
    const char *no_batch;       /* Why the model was found to be no batching one. */
    struct sequence_plan *plan; /* Of a model with sequences; NULL: none. */
    struct backend_isolation isolation;
    struct backend_weights weights;
};

static enum weir_status configure(const struct lifecycle_load *how, int model_fd,
                                  struct model_config **out, struct weir_err *err)
{
    struct model_config *config;
    const enum weir_status status = how->options->configure(
        how->options->configure_context, how->name, model_fd, how->override, &config, err);
    if (status != WEIR_OK) {
        return status;
    }
    struct placement place;
    enum weir_status placed = placement_find(how->engine, config, &place, err);
    if (placed == WEIR_OK && place.no_gpu) {
        config->instances = config->instances_no_gpu;
        placed = effective_remark(config, err,
                                  "KIND_GPU: this server has no device of the pool 'gpu': the "
                                  "model runs on the CPU, where its speed differs and its results "
                                  "may in the last digits");
    }
    if (placed != WEIR_OK) {
        config->release(config);
        return placed;
    }
    *out = config;
    return WEIR_OK;
}

enum weir_status lifecycle_configure(const struct lifecycle_load *how, struct model_config **out,
                                     struct weir_err *err)
{
    int model_fd;
    enum weir_status status =
        repository_open(&how->repository, how->root, how->name, 0, &model_fd, err);
    if (status == WEIR_OK) {
        status = configure(how, model_fd, out, err);
        (void)close(model_fd);
    }
    return status;
}

uint64_t lifecycle_limit_ns(const struct model_config *config)
{
    return config->isolation == ISOLATE_PROCESS || config->ensemble.step_count > 0
               ? 0
               : config->load_limit_ns;
}

static uint64_t resident_bytes(void)
{
    struct memstat now;
    memstat_read(&now);
    return now.resident_bytes;
}

/* The model and, behind it, its name. */
static enum weir_status create_model(struct load *load, struct weir_err *err)
{
    const size_t name_bytes = strlen(load->how->name) + 1;
    struct model *model = mem_try_zero(1, sizeof(*model) + name_bytes);
    if (model == NULL) {
        return err_nomem(err, "a model", sizeof(*model));
    }
    char *name = (char *)(model + 1);
    memcpy(name, load->how->name, name_bytes);
    model->name = name;
    model->version = load->how->version;
    model->unleased = load->how->unleased;
    model->owner = load->how->owner;
    atomic_init(&model->leases, 1);
    load->model = model;
    return WEIR_OK;
}

static enum weir_status open_and_configure(struct load *load, struct weir_err *err)
{
    const struct lifecycle_load *how = load->how;
    enum weir_status status =
        repository_open(&how->repository, how->root, how->name, 0, &load->model_fd, err);
    if (status == WEIR_OK) {
        status = repository_open(&how->repository, how->root, how->name, how->version,
                                 &load->version_fd, err);
    }
    if (status == WEIR_OK) {
        status = configure(how, load->model_fd, &load->model->config, err);
    }
    return status;
}

/* Valid as long as *load is; on one of the devices that the model is placed on. */
static struct backend_load backend_load_of(struct load *load, const struct pool *pool,
                                           uint32_t device)
{
    const struct lifecycle_load *how = load->how;
    const struct model_config *config = load->model->config;
    load->isolation = (struct backend_isolation){
        .scope = config->isolation_scope,
        .group = config->isolation_group,
        .memory_max = config->memory_limit,
        .run_limit_ns = config->run_limit_ns,
        .load_limit_ns = config->load_limit_ns,
    };
    load->weights = (struct backend_weights){
        .mode = config->weights,
        .on_demand = how->options->control == CONTROL_DEMAND,
        .promote_runs = config->promote_after,
        .cache_folder = how->options->model_cache,
        .cache_bytes_max = how->options->model_cache_bytes_max,
    };
    return (struct backend_load){
        .model_name = how->name,
        .version = how->version,
        .folder_fd = load->version_fd,
        .file_name = config->file_name,
        .device = pool->devices[device].name,
        .intra_threads = config->intra_threads,
        .contexts_max = (config->instances > 0 ? config->instances : pool->executors_each + 1) *
                        STAGE_DEPTH_MAX,
        .settings = config->settings,
        .setting_count = config->setting_count,
        .file_bytes_max = how->options->model_bytes_max,
        .weights = &load->weights,
        .providers = config->providers,
        .provider_count = config->provider_count,
        .clock = how->engine->clock,
        .blocks = how->engine->blocks,
        .isolation = config->isolation == ISOLATE_PROCESS ? &load->isolation : NULL,
    };
}

static enum weir_status load_replica(struct load *load, const struct pool *pool, uint32_t device,
                                     struct weir_err *err)
{
    struct model *model = load->model;
    struct backend_model *backend;
    const struct backend_load how = backend_load_of(load, pool, device);
    step_begin(load->how->step);
    enum weir_status status = backend_load(model->ops, &how, &backend, err);
    if (status == WEIR_OK) {
        status = effective_reshape(model->config, &backend, err);
        if (status != WEIR_OK) {
            backend_unload(backend);
        }
    }
    if (status == WEIR_OK) {
        model->replicas[model->replica_count++] =
            (struct replica){ .backend = backend, .device = device };
    }
    return status;
}

/* On each of its devices.  One that the model cannot be had on is left out where there are
 * others. */
static enum weir_status load_replicas(struct load *load, const struct placement *place,
                                      struct weir_err *err)
{
    struct model *model = load->model;
    struct weir_err why = { 0 };
    const char *left_out = NULL;
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < place->count; i++) {
        struct weir_err failed = { 0 };
        failed.status = load_replica(load, place->pool, place->devices[i], &failed);
        if (failed.status != WEIR_OK) {
            why = left_out == NULL ? failed : why;
            left_out = place->pool->devices[place->devices[i]].name;
        }
    }
    if (model->replica_count == 0) {
        return err_set(err, why.status, "%s", why.text);
    }
    if (left_out != NULL) {
        status =
            effective_remark(model->config, err, "device '%s' is left out: %s", left_out, why.text);
    }
    model->backend = model->replicas[0].backend;
    return status;
}

/* Where executors of the model's memory nodes may run. */
static bool find_near(const struct pool *pool, uint64_t nodes, cpu_set_t *out)
{
    CPU_ZERO(out);
    for (uint32_t i = 0; i < pool->thread_max && nodes != 0; i++) {
        const struct executor *executor = &pool->executors[i];
        const int32_t node = executor->seat.node;
        if (node != SEAT_NODE_ANY && (nodes >> node & 1) != 0) {
            CPU_OR(out, out, &executor->pinned->cpus);
        }
    }
    return CPU_COUNT(out) > 0;
}

/* Memory is where it is first touched: the loader works near those that will run the model. */
static enum weir_status load_near(struct load *load, struct weir_err *err)
{
    struct placement place;
    cpu_set_t near;
    cpu_set_t before;
    enum weir_status status = placement_find(load->how->engine, load->model->config, &place, err);
    if (status == WEIR_OK && place.count > 1) {
        load->model->config->device = place.pool->name; /* What is learned holds for all of it. */
    }
    const bool moves = status == WEIR_OK &&
                       find_near(place.pool, load->model->config->numa_nodes, &near) &&
                       pthread_getaffinity_np(pthread_self(), sizeof(before), &before) == 0;
    if (moves) {
        (void)pthread_setaffinity_np(pthread_self(), sizeof(near), &near);
    }
    status = status == WEIR_OK ? load_replicas(load, &place, err) : status;
    if (moves) {
        (void)pthread_setaffinity_np(pthread_self(), sizeof(before), &before);
    }
    return status;
}

static enum weir_status load_backend(struct load *load, struct weir_err *err)
{
    struct model *model = load->model;
    struct model_config *config = model->config;
    enum weir_status status = effective_backend(config, &model->ops, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = load_near(load, err);
    if (status != WEIR_OK) {
        return status;
    }
    model->signature = backend_signature(model->backend);
    if (model->signature->remark != NULL) {
        status = effective_remark(config, err, "%s", model->signature->remark);
        if (status != WEIR_OK) {
            return status;
        }
    }
    if (config->sequence.strategy == SEQUENCE_NONE) {
        return effective_complete(config, model->signature, &load->no_batch, err);
    }
    status = sequence_plan_create(config, model->signature, &load->plan, err);
    if (status == WEIR_OK) {
        model->sequence_plan = load->plan;
        model->signature = &load->plan->shown;
        status = effective_complete(config, model->signature, &load->no_batch, err);
    }
    return status == WEIR_OK ? sequence_plan_complete(load->plan, config, load->model_fd, err)
                             : status;
}

static enum weir_status take_parts(struct load *load, struct weir_err *err)
{
    const struct lifecycle_load *how = load->how;
    struct model *model = load->model;
    if (how->part_count != model->config->ensemble.step_count) {
        return err_set(err, WEIR_EINVAL, "the configuration changed while it was being loaded");
    }
    model->parts = mem_try_zero(how->part_count, sizeof(struct model *));
    if (model->parts == NULL) {
        return err_nomem(err, "an ensemble", how->part_count * sizeof(struct model *));
    }
    for (uint32_t i = 0; i < how->part_count; i++) {
        model_acquire(how->parts[i]);
        model->parts[model->part_count++] = how->parts[i];
    }
    return WEIR_OK;
}

/* What Triton refuses, too: an ensemble has nothing to run by itself. */
static enum weir_status check_ensemble(const struct model_config *config, struct weir_err *err)
{
    const bool backend = config->backend != NULL && config->backend[0] != '\0';
    const bool platform = config->platform != NULL && config->platform[0] != '\0';
    if (backend) {
        return err_set(err, WEIR_EINVAL,
                       "backend '%s' in an ensemble: expected none, its steps' models have theirs",
                       config->backend);
    }
    if (platform && strcmp(config->platform, "ensemble") != 0) {
        return err_set(err, WEIR_EINVAL,
                       "platform '%s' and ensemble_scheduling do not belong together, expected "
                       "'ensemble' or none",
                       config->platform);
    }
    const char *misplaced = config->instances > 0                        ? "instance_group"
                            : config->warmup_count > 0                   ? "model_warmup"
                            : config->sequence.strategy != SEQUENCE_NONE ? "sequence_batching"
                            : config->bucket_count > 0                   ? "shape_buckets"
                            : config->dynamic_batching                   ? "dynamic_batching"
                                                                         : NULL;
    return misplaced == NULL
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL,
                         "%s in an ensemble: expected in the configurations of its steps' models",
                         misplaced);
}

static enum weir_status load_ensemble(struct load *load, struct weir_err *err)
{
    struct model *model = load->model;
    if (load->how->options->compose == NULL) {
        return err_set(err, WEIR_EUNSUPPORTED, "ensembles are not supported here");
    }
    enum weir_status status = check_ensemble(model->config, err);
    model->config->platform = "ensemble";
    status = status == WEIR_OK ? take_parts(load, err) : status;
    status = status == WEIR_OK ? load->how->options->compose(model, err) : status;
    model->batching_reason = "an ensemble's steps share runs, not the ensemble";
    return status;
}

/* Splits the text of a label file, in place, into lines. */
static enum weir_status split_labels(struct arena *arena, char *text, size_t size,
                                     struct io_config *io, struct weir_err *err)
{
    uint32_t count = 0;
    for (size_t i = 0; i < size; i++) {
        count += text[i] == '\n' || i + 1 == size ? 1 : 0;
        if (count > LABELS_MAX) {
            return err_set(err, WEIR_ETOOBIG, "more than %d labels", LABELS_MAX);
        }
    }
    const char **labels = arena_try_alloc(arena, count * sizeof(*labels));
    if (labels == NULL) {
        return err_nomem(err, "labels", count * sizeof(*labels));
    }
    char *line = text;
    for (uint32_t i = 0; i < count; i++) {
        char *end = memchr(line, '\n', (size_t)(text + size - line));
        end = end == NULL ? text + size : end;
        labels[i] = line;
        *end = '\0';
        if (end > line && end[-1] == '\r') {
            end[-1] = '\0';
        }
        line = end + 1;
    }
    io->labels = labels;
    io->label_count = count;
    return WEIR_OK;
}

static enum weir_status read_labels(struct load *load, struct io_config *io, struct weir_err *err)
{
    struct arena *arena = load->model->config->arena;
    struct buffer text = { 0 };
    enum weir_status status =
        file_read(load->model_fd, io->label_file, LABEL_FILE_BYTES_MAX, &text, err);
    if (status == WEIR_OK) {
        char *copy = arena_try_strndup(arena, text.data, text.size);
        status = copy == NULL ? err_nomem(err, "labels", text.size)
                              : split_labels(arena, copy, text.size, io, err);
    }
    buffer_finish(&text);
    if (status != WEIR_OK) {
        (void)err_prefix(err, "label_filename of output '%s'", io->name);
    }
    return status;
}

static enum weir_status read_all_labels(struct load *load, struct weir_err *err)
{
    struct model_config *config = load->model->config;
    for (uint32_t i = 0; i < config->output_count; i++) {
        struct io_config *io = &config->outputs[i];
        if (io->label_file == NULL || io->label_file[0] == '\0') {
            continue;
        }
        const enum weir_status status = read_labels(load, io, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

static enum weir_status try_out(struct load *load, struct weir_err *err)
{
    const struct tryout tryout = {
        .engine = load->how->engine,
        .model = load->model,
        .model_fd = load->model_fd,
        .no_batch = load->no_batch,
        .awaited = load->how->awaited,
        .step = load->how->step,
    };
    const struct lifecycle_load *how = load->how;
    struct model *model = load->model;
    model->rows_fixed = bucket_rows_fixed(model->signature);
    model->profile.rows_cap_start = model->config->safe_rows;
    const enum weir_status status =
        profile_store_create(how->options->profile_store, how->options->roots[how->root], model,
                             load->version_fd, &model->profile_store, err);
    return status == WEIR_OK ? tryout_run(&tryout, err) : status;
}

static void free_model(struct model *model)
{
    if (model == NULL) {
        return;
    }
    if (model->signature != NULL) {
        canary_finish(&model->canary, model->signature->input_count);
    }
    bucket_plan_destroy(model->buckets);
    profile_store_destroy(model->profile_store);
    for (uint32_t i = 1; i < model->replica_count; i++) {
        backend_unload(model->replicas[i].backend);
    }
    backend_unload(model->backend);
    if (model->graph != NULL) {
        model->graph_free(model->graph);
    }
    for (uint32_t i = 0; i < model->part_count; i++) {
        model_release(model->parts[i]);
    }
    mem_free(model->parts);
    if (model->config != NULL) {
        model->config->release(model->config);
    }
    mem_free(model);
}

static void close_folders(struct load *load)
{
    if (load->model_fd >= 0) {
        (void)close(load->model_fd);
    }
    if (load->version_fd >= 0) {
        (void)close(load->version_fd);
    }
}

enum weir_status lifecycle_needs(const struct lifecycle_load *how, struct backend_needs *out,
                                 struct weir_err *err)
{
    struct load load = { .how = how, .model_fd = -1, .version_fd = -1 };
    struct placement place;
    enum weir_status status = create_model(&load, err);
    status = status == WEIR_OK ? open_and_configure(&load, err) : status;
    if (status == WEIR_OK) {
        status = effective_backend(load.model->config, &load.model->ops, err);
    }
    if (status == WEIR_OK) {
        status = placement_find(how->engine, load.model->config, &place, err);
    }
    if (status == WEIR_OK) {
        const struct backend_load backend = backend_load_of(&load, place.pool, place.devices[0]);
        status = backend_needs(load.model->ops, &backend, out, err);
    }
    close_folders(&load);
    free_model(load.model);
    return status;
}

enum weir_status lifecycle_load(const struct lifecycle_load *how, struct model **out,
                                struct weir_err *err)
{
    struct load load = { .how = how, .model_fd = -1, .version_fd = -1 };
    const uint64_t started_ns = clock_now_ns(how->engine->clock);
    const uint64_t before = resident_bytes();
    enum weir_status status = create_model(&load, err);
    status = status == WEIR_OK ? open_and_configure(&load, err) : status;
    const bool ensemble = status == WEIR_OK && load.model->config->ensemble.step_count > 0;
    if (status == WEIR_OK) {
        status = ensemble ? load_ensemble(&load, err) : load_backend(&load, err);
    }
    status = status == WEIR_OK ? read_all_labels(&load, err) : status;
    status = status == WEIR_OK && !ensemble ? try_out(&load, err) : status;
    status = status == WEIR_OK ? engine_adopt(how->engine, load.model, err) : status;
    close_folders(&load);
    if (status != WEIR_OK) {
        free_model(load.model);
        return status;
    }
    const uint64_t after = resident_bytes();
    load.model->loaded_bytes = after > before ? after - before : 0;
    load.model->load_ns = clock_now_ns(how->engine->clock) - started_ns;
    *out = load.model;
    return WEIR_OK;
}

void lifecycle_unload(struct engine *engine, struct model *model, struct lifecycle_freed *out)
{
    assert(atomic_load(&model->leases) == 0);
    out->before = resident_bytes();
    profile_store_write(model->profile_store, model);
    engine_abandon(engine, model);
    free_model(model);
    block_pool_trim(engine->blocks);
    mem_trim();
    out->after = resident_bytes();
    out->bytes = out->before > out->after ? out->before - out->after : 0;
}
