/*
 * The front door: what may come in, and how models are set up to be served.
 *
 * Every request is checked here against its model, whichever way it came, so that
 * backends and batches never meet a shape or a size that nobody looked at.
 */
#include "engine/engine.h"

#include <assert.h>
#include <string.h>

#include "engine/bucket.h"
#include "engine/cache.h"
#include "engine/outage.h"
#include "engine/placement.h"
#include "engine/pool.h"
#include "engine/pool_impl.h"
#include "engine/quarantine.h"
#include "engine/rate.h"
#include "engine/sequence.h"
#include "engine/stats.h"
#include "util/map.h"
#include "util/mem.h"

#define BLOCKS_KEPT_BYTES (UINT64_C(64) << 20)
#define RETRY_AFTER_MAX_MS 60000
#define RETRY_AFTER_UNKNOWN_MS 1000

/* The status of something that fails only where there is no memory for it. */
static enum weir_status said_why(enum weir_status status, const char *what, struct weir_err *err)
{
    return status == WEIR_OK ? WEIR_OK : err_set(err, status, "out of memory for %s", what);
}

/* That of the device, with the others of its pool. */
static enum weir_status add_pool(struct engine *engine, const struct engine_options *options,
                                 uint32_t device, struct weir_err *err)
{
    struct pool **pool = &engine->pools[engine->pool_count];
    const enum weir_status status = pool_create(engine, options, device, pool, err);
    if (status == WEIR_OK) {
        engine->pool_count++;
        engine->device_count += (*pool)->device_count;
    }
    return status;
}

enum weir_status engine_check_devices(const struct engine_options *options, struct weir_err *err)
{
    if (options->device_count < 1 || options->device_count > ENGINE_POOLS_MAX) {
        return err_set(err, WEIR_EINVAL, "%u devices, expected 1 to %d", options->device_count,
                       ENGINE_POOLS_MAX);
    }
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < options->device_count && status == WEIR_OK; i++) {
        uint32_t count;
        status = pool_count_devices(options, i, &count, err);
    }
    return status;
}

enum weir_status engine_create(const struct engine_options *options, struct engine **out,
                               struct weir_err *err)
{
    const enum weir_status checked = engine_check_devices(options, err);
    if (checked != WEIR_OK) {
        return checked;
    }
    struct engine *engine = mem_alloc(sizeof(*engine));
    engine->limits = options->limits;
    engine->clock = options->clock;
    engine->inline_runs = options->inline_runs;
    engine->threads = options->threads;
    engine->advise = options->advise;
    engine->advise_context = options->advise_context;
    engine->order = options->order != NULL ? *options->order : order_defaults();
    engine->pools = mem_alloc(options->device_count * sizeof(struct pool *));
    pthread_mutex_init(&engine->lock, NULL);
    list_init(&engine->homes);
    watchdog_init(&engine->watchdog, engine);
    engine->blocks = block_pool_create(BLOCKS_KEPT_BYTES);
    enum weir_status status = WEIR_OK;
    if (options->rate_limit) {
        status = rate_limiter_create(options->rate_limits, options->rate_limit_count,
                                     &engine->rates, err);
    }
    if (status == WEIR_OK) {
        status = said_why(cache_create(options->cache_bytes, &engine->cache), "the cache", err);
    }
    if (status == WEIR_OK) {
        status = said_why(quarantine_create(options->limits->quarantine_max,
                                            options->limits->quarantine_ns, &engine->quarantine),
                          "the quarantine", err);
    }
    for (uint32_t i = 0; i < options->device_count && status == WEIR_OK; i++) {
        if (engine_pool(engine, pool_name_of(&options->devices[i])) == NULL) {
            status = add_pool(engine, options, i, err);
        }
    }
    for (uint32_t i = 0; options->threads && i < engine->pool_count && status == WEIR_OK; i++) {
        status = pool_start(engine->pools[i], err);
    }
    if (status != WEIR_OK) {
        engine_destroy(engine);
        return status;
    }
    *out = engine;
    return WEIR_OK;
}

void engine_destroy(struct engine *engine)
{
    if (engine == NULL) {
        return;
    }
    watchdog_finish(&engine->watchdog);
    for (uint32_t i = 0; i < engine->pool_count; i++) {
        pool_destroy(engine->pools[i]);
    }
    assert(list_empty(&engine->homes));
    rate_limiter_destroy(engine->rates);
    cache_destroy(engine->cache);
    quarantine_destroy(engine->quarantine);
    block_pool_destroy(engine->blocks);
    pthread_mutex_destroy(&engine->lock);
    mem_free(engine->pools);
    mem_free(engine);
}

void engine_set_cache(struct engine *engine, uint64_t bytes_max)
{
    cache_set(engine->cache, bytes_max);
}

void engine_set_order(struct engine *engine, const struct order_options *order)
{
    for (uint32_t i = 0; i < engine->pool_count; i++) {
        struct pool *pool = engine->pools[i];
        pthread_mutex_lock(&pool->lock);
        order_set(&pool->order, order);
        pthread_mutex_unlock(&pool->lock);
    }
}

struct pool *engine_pool(const struct engine *engine, const char *name)
{
    for (uint32_t i = 0; i < engine->pool_count; i++) {
        if (strcmp(engine->pools[i]->name, name) == 0) {
            return engine->pools[i];
        }
    }
    return NULL;
}

static enum weir_status check_input(const struct tensor_spec *spec, const struct tensor *input,
                                    struct weir_err *err)
{
    char found[SHAPE_TEXT];
    char expected[SHAPE_TEXT];
    if (!input->present) {
        return spec->optional ? WEIR_OK
                              : err_set(err, WEIR_EINVAL, "input '%s' is missing", spec->name);
    }
    if (input->dtype != spec->dtype) {
        return err_set(err, WEIR_EINVAL, "input '%s' has datatype %s, expected %s", spec->name,
                       dtype_text(input->dtype), dtype_text(spec->dtype));
    }
    if (!spec->any_rank && !shape_fits(&input->shape, &spec->shape)) {
        return err_set(err, WEIR_EINVAL, "input '%s' has shape %s, expected %s", spec->name,
                       shape_format(&input->shape, found), shape_format(&spec->shape, expected));
    }
    if (input->dtype == DTYPE_BYTES) {
        return WEIR_OK; /* Its maker checked the elements: tensor_check_strings(). */
    }
    size_t size;
    const enum weir_status status = tensor_bytes(input->dtype, &input->shape, &size, err);
    if (status == WEIR_OK && size != input->size) {
        return err_set(err, WEIR_EINVAL, "input '%s' has %zu bytes, expected %zu for %s %s",
                       spec->name, input->size, size, dtype_text(input->dtype),
                       shape_format(&input->shape, found));
    }
    return status;
}

/* The configuration may allow less than the model's file. */
static enum weir_status check_declared(const struct model *model, uint32_t index,
                                       const struct tensor *input, struct weir_err *err)
{
    const struct model_config *config = model->config;
    const uint32_t skip = config->max_batch_size > 0 ? 1 : 0;
    if (!input->present || index >= config->input_count ||
        config->inputs[index].dims.rank + skip != input->shape.rank) {
        return WEIR_OK;
    }
    struct shape declared = { .rank = input->shape.rank, .dims = { -1 } };
    memcpy(declared.dims + skip, config->inputs[index].dims.dims,
           config->inputs[index].dims.rank * sizeof(declared.dims[0]));
    if (shape_fits(&input->shape, &declared)) {
        return WEIR_OK;
    }
    char found[SHAPE_TEXT];
    char expected[SHAPE_TEXT];
    return err_set(err, WEIR_EINVAL, "input '%s' has shape %s, expected %s by its configuration",
                   model->signature->inputs[index].name, shape_format(&input->shape, found),
                   shape_format(&declared, expected));
}

static bool wants_any(const struct signature *signature, const bool *wanted)
{
    for (uint32_t i = 0; i < signature->output_count; i++) {
        if (wanted[i]) {
            return true;
        }
    }
    return false;
}

/* Everything that equal requests have in common. */
static enum weir_status find_facts(struct request *request, struct request_facts *out,
                                   struct weir_err *err)
{
    const struct model *model = request->model;
    const struct signature *signature = model->signature;
    uint64_t input_bytes = 0;
    for (uint32_t i = 0; i < signature->input_count; i++) {
        enum weir_status status = check_input(&signature->inputs[i], &request->inputs[i], err);
        status = status == WEIR_OK ? check_declared(model, i, &request->inputs[i], err) : status;
        if (status != WEIR_OK) {
            return status;
        }
        input_bytes += request->inputs[i].present ? request->inputs[i].size : 0;
    }
    if (!wants_any(signature, request->wanted)) {
        return err_set(err, WEIR_EINVAL, "no output is asked for, expected at least one");
    }
    const int64_t rows_max = model->config->max_batch_size;
    const uint64_t rows = bucket_rows(signature, request->inputs);
    if (rows_max > 0 && !model->config->max_batch_inferred) {
        if (rows == 0) {
            return err_set(
                err, WEIR_EINVAL,
                "the inputs' leading dimensions differ or are 0, expected one batch size");
        }
        if (rows > (uint64_t)rows_max) {
            return err_set(err, WEIR_EINVAL,
                           "inference request batch-size must be <= %lld for '%s', found %llu",
                           (long long)rows_max, model->name, (unsigned long long)rows);
        }
    }
    *out = (struct request_facts){ .known = true,
                                   .rows = rows > 0 ? rows : 1,
                                   .same_rows = rows > 0,
                                   .shape_key = bucket_key(model, request->inputs),
                                   .input_bytes = input_bytes };
    return WEIR_OK;
}

enum weir_status engine_check(struct request *request, struct weir_err *err)
{
    const struct model *model = request->model;
    const struct signature *signature = model->signature;
    if (signature->streams && request->part == NULL) {
        return err_set(err, WEIR_EINVAL,
                       "model '%s' answers in several parts, which this call cannot take",
                       model->name);
    }
    struct request_facts own = { 0 };
    struct request_facts *facts = request->facts == NULL ? &own : request->facts;
    if (!facts->known) {
        const enum weir_status status = find_facts(request, facts, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    request->rows = facts->rows;
    request->batchable =
        facts->same_rows && model->batching && !signature->streams && !request->canary;
    request->shape_key = facts->shape_key;
    request->input_bytes = facts->input_bytes;
    return model->sequences != NULL ? sequencer_check(request, err) : WEIR_OK;
}

static void end_deliver(struct home_mail *mail)
{
    struct request *request = list_entry(mail, struct request, end_mail);
    heap_remove(&request->home->deadlines, &request->deadline);
    request->home->pending--;
    request->state = REQUEST_IDLE;
    request->ended(request);
}

/* A pipelined device may have to be waited for, which a loop must not. */
static bool may_run_inline(const struct engine *engine, const struct model *model)
{
    const struct pool *pool = model->pool;
    return engine->inline_runs && model->signature->short_lived && model->sequence_plan == NULL &&
           model->claim == NULL && model->config->intra_threads <= 1 && !pool->pipelined &&
           model->replica_count == 1;
}

static uint64_t leave_by(const struct request *request, uint64_t now_ns)
{
    const struct model_config *config = request->model->config;
    const uint32_t level = pool_level(config, request);
    const struct queue_policy *own =
        config->levels != NULL ? &config->levels[level > 0 ? level - 1 : 0] : NULL;
    uint64_t timeout_ns = own != NULL ? own->timeout_ns : config->queue_timeout_ns;
    const bool override = own != NULL ? own->timeout_override : config->timeout_override;
    /* In Triton's words there is nothing to override where nothing is set. */
    const bool may = override && (timeout_ns != CLOCK_NEVER || !config->proto);
    if (may && request->queue_timeout_ns < timeout_ns) {
        timeout_ns = request->queue_timeout_ns;
    }
    const uint64_t at_ns = clock_add(now_ns, timeout_ns);
    return request->deadline_ns < at_ns ? request->deadline_ns : at_ns;
}

/* True: the request's answer was there; it ends without having been in line. */
static bool answered_before(struct engine *engine, struct request *request)
{
    struct model *model = request->model;
    const uint64_t from_ns = request->times.submitted_ns;
    const bool found = cache_find(engine->cache, &request->key, request);
    const uint64_t now_ns = clock_now_ns(engine->clock);
    duration_add(found ? &model->stats.cache_hit : &model->stats.cache_miss, now_ns - from_ns);
    if (!found) {
        return false;
    }
    request->times.taken_ns = from_ns;
    request->times.gathered_ns = from_ns;
    request->times.computed_ns = from_ns;
    request->times.ended_ns = now_ns;
    request->batch_rows = request->rows;
    request->state = REQUEST_ENDED;
    stats_count_hit(model, request);
    return true;
}

void engine_set_deadline(struct request *request, uint64_t now_ns)
{
    const uint64_t allowed_ns = request->model->config->deadline_ns;
    if (request->deadline_ns == CLOCK_NEVER && allowed_ns > 0 && !request->canary) {
        request->deadline_ns = clock_add(now_ns - request->waited_ns, allowed_ns);
    }
}

/* It was never accepted: counted, and *err says why. */
static enum weir_status refused(const struct request *request, enum weir_status status)
{
    if (!request->canary) {
        atomic_fetch_add_explicit(&request->model->stats.refused, 1, memory_order_relaxed);
    }
    return status;
}

enum weir_status engine_submit(struct engine *engine, struct request *request, struct weir_err *err)
{
    struct home *home = request->home;
    struct model *model = request->model;
    assert(request->state == REQUEST_IDLE && request->ended != NULL);
    if (atomic_load_explicit(&engine->draining, memory_order_relaxed) && !request->admitted) {
        return err_set(err, WEIR_EDRAINING, "the server is shutting down");
    }
    enum weir_status status = engine_check(request, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = outage_check(model, err);
    if (status != WEIR_OK) {
        return refused(request, status);
    }
    const uint64_t now_ns = clock_now_ns(engine->clock);
    engine_set_deadline(request, now_ns);
    if (request->deadline_ns <= now_ns) {
        return refused(request, err_set(err, WEIR_ETIMEOUT,
                                        "the deadline had passed when the request arrived"));
    }
    request->times.submitted_ns = now_ns;
    request->leave_by_ns = leave_by(request, now_ns);
    request->end_mail.deliver = end_deliver;
    const bool cached = model->cached && cache_is_on(engine->cache);
    if ((cached || model->joining) && !request->canary) {
        request->keyed = cache_key(request, model->serial, &request->key);
        if (request->keyed && cached && answered_before(engine, request)) {
            home->pending++;
            home->at_once_ns = now_ns;
            home_send(home, &request->end_mail);
            return WEIR_OK;
        }
    }
    const bool run_inline = may_run_inline(engine, model) && !request->canary;
    status = pool_push(model->pool, request, run_inline, err);
    if (status != WEIR_OK) {
        return refused(request, status);
    }
    home->pending++;
    if (request->leave_by_ns != CLOCK_NEVER) {
        request->deadline.key = request->leave_by_ns;
        heap_push(&home->deadlines, &request->deadline);
    }
    return WEIR_OK;
}

void engine_cancel(struct engine *engine, struct request *request)
{
    (void)engine;
    (void)pool_stop_request(request->model->pool, request, WEIR_ECANCELED);
}

uint64_t engine_retry_after_ms(struct model *model)
{
    const uint64_t now_ns = clock_now_ns(model->pool->engine->clock);
    pthread_mutex_lock(&model->pool->lock);
    const uint64_t drain_ns = overload_drain_ns(model);
    const uint64_t pause_ns = circuit_left_ns(&model->circuit, now_ns);
    pthread_mutex_unlock(&model->pool->lock);
    const uint64_t pause_ms = (pause_ns + NS_PER_MS - 1) / NS_PER_MS;
    uint64_t ms = drain_ns == CLOCK_NEVER ? RETRY_AFTER_UNKNOWN_MS : drain_ns / NS_PER_MS + 1;
    ms = ms > pause_ms ? ms : pause_ms;
    return ms < RETRY_AFTER_MAX_MS ? ms : RETRY_AFTER_MAX_MS;
}

uint32_t engine_retry_after_s(const struct engine *engine, struct model *model)
{
    (void)engine;
    return (uint32_t)((engine_retry_after_ms(model) + 999) / 1000);
}

uint32_t engine_adaptive_limit(struct model *model)
{
    pthread_mutex_lock(&model->pool->lock);
    const uint32_t limit = limiter_limit(&model->overload.limiter);
    pthread_mutex_unlock(&model->pool->lock);
    return limit;
}

void engine_profile(struct model *model, struct profile *out)
{
    if (model->pool == NULL || model->graph != NULL) {
        *out = (struct profile){ 0 };
        return;
    }
    pthread_mutex_lock(&model->pool->lock);
    *out = model->profile;
    pthread_mutex_unlock(&model->pool->lock);
}

uint32_t engine_waiting_count(struct model *model)
{
    pthread_mutex_lock(&model->pool->lock);
    const uint32_t count = model->waiting_count;
    pthread_mutex_unlock(&model->pool->lock);
    return count;
}

uint32_t engine_runs_max(struct model *model)
{
    pthread_mutex_lock(&model->pool->lock);
    const uint32_t runs = model->runs_max;
    pthread_mutex_unlock(&model->pool->lock);
    return runs;
}

bool engine_is_working(struct model *model)
{
    if (model->graph != NULL) {
        return atomic_load(&model->runs) > 0;
    }
    pthread_mutex_lock(&model->pool->lock);
    const bool sequences = model->sequences != NULL && model->sequences->count > 0;
    const bool works = model->waiting_count > 0 || model->running > 0 || sequences;
    pthread_mutex_unlock(&model->pool->lock);
    return works;
}

uint32_t engine_sequence_count(struct model *model)
{
    pthread_mutex_lock(&model->pool->lock);
    const uint32_t count = model->sequences == NULL ? 0 : model->sequences->count;
    pthread_mutex_unlock(&model->pool->lock);
    return count;
}

void engine_retire(struct model *model)
{
    if (model->sequence_plan == NULL) {
        return;
    }
    struct pool *pool = model->pool;
    const uint64_t now_ns = clock_now_ns(pool->engine->clock);
    pthread_mutex_lock(&pool->lock);
    sequencer_retire(model->sequences, now_ns);
    pool_place(pool, model, now_ns);
    struct executor *executor = pool_executor_for_work(pool, now_ns);
    pthread_mutex_unlock(&pool->lock);
    if (executor != NULL) {
        pthread_cond_signal(&executor->wake);
    }
}

void engine_drain(struct engine *engine)
{
    atomic_store(&engine->draining, true);
}

/* What the model runs at once on each of its devices. */
static uint32_t instances_wanted(const struct model *model)
{
    if (model->config->instances > 0) {
        return model->config->instances;
    }
    if (model->config->intra_threads > 1) {
        return 1; /* It takes the cores that others would run on. */
    }
    const struct pool *pool = model->pool;
    return model->sequence_plan != NULL ? pool->thread_count / pool->device_count
                                        : pool->executors_each;
}

/* Makes the instances that the model must have, and as many of the others as there can be: for
 * further stages of pipelined runs, and the slot that loops use for inline runs. */
static enum weir_status make_instances(const struct engine *engine, struct model *model,
                                       struct weir_err *err)
{
    const struct pool *pool = model->pool;
    const bool configured = model->config->instances > 0 || model->sequence_plan != NULL;
    const bool pipelined = pool->pipelined && model->sequence_plan == NULL;
    const uint32_t each = instances_wanted(model);
    const uint32_t devices = model->replica_count;
    uint32_t wanted = each * devices;
    model->instance_count = wanted;
    const uint32_t needed = configured ? wanted : devices;
    stage_init(&model->stages, pipelined);
    model->slots_max = wanted;
    if (pipelined) {
        const uint32_t at_once =
            devices * (each < pool->executors_each ? each : pool->executors_each);
        const uint32_t deepest = at_once * STAGE_DEPTH_MAX;
        wanted = wanted > at_once * STAGE_DEPTH_FIRST ? wanted : at_once * STAGE_DEPTH_FIRST;
        model->slots_max = wanted > deepest ? wanted : deepest;
    } else if (!configured && may_run_inline(engine, model)) {
        model->slots_max = ++wanted;
    }
    model->instances = mem_try_zero(model->slots_max, sizeof(*model->instances));
    if (model->instances == NULL) {
        return err_nomem(err, "a model's instances", model->slots_max * sizeof(*model->instances));
    }
    for (uint32_t i = 0; i < wanted; i++) {
        struct instance *instance = &model->instances[i];
        const enum weir_status status = instance_init(instance, model, err);
        if (status != WEIR_OK && i < needed) {
            return status;
        }
        if (status != WEIR_OK) {
            model->slots_max = i; /* The device has no more. */
            break;
        }
        model->slot_count++;
        replica_put(instance);
    }
    if (devices == 1 && model->slots_max < model->instance_count) {
        model->instance_count = model->slots_max;
    }
    return WEIR_OK;
}

static void start_scaling(struct model *model)
{
    const uint32_t runs = model->instance_count < model->pool->executor_count
                              ? model->instance_count
                              : model->pool->executor_count;
    /* What a further run does depends on which device it is on: there is nothing to learn of their
     * number. */
    const bool learns =
        model->sequence_plan == NULL && !model->signature->streams && model->replica_count == 1;
    scaling_init(&model->scaling, learns ? runs : 0, model->config->instances > 0);
    pool_set_runs(model);
    model->width = pool_width(model->pool, model);
}

enum weir_status engine_adopt(struct engine *engine, struct model *model, struct weir_err *err)
{
    struct placement place;
    const enum weir_status placed = placement_find(engine, model->config, &place, err);
    if (placed != WEIR_OK) {
        return placed;
    }
    model->pool = place.pool;
    if (model->replica_count == 0 && model->backend != NULL) { /* It was loaded on one device. */
        model->replicas[0] =
            (struct replica){ .backend = model->backend, .device = place.devices[0] };
        model->replica_count = 1;
    }
    line_init(&model->line);
    model->leave_next_ns = CLOCK_NEVER;
    const bool own_max = model->config->requests_max > 0 && model->config->levels == NULL;
    model->requests_max =
        own_max ? model->config->requests_max : (uint32_t)engine->limits->requests_max;
    model->bytes_max = engine->limits->queue_bytes_max;
    overload_init(model);
    model->rows_fixed = bucket_rows_fixed(model->signature);
    model->serial = 1 + atomic_fetch_add(&engine->serials, 1);
    const bool lonely =
        model->signature->streams || model->sequence_plan != NULL || model->graph != NULL;
    model->joining = model->config->join && !lonely;
    model->cached = model->config->response_cache && !lonely;
    map_init(&model->joins);
    suspects_init(&model->suspects);
    if (model->graph != NULL) {
        return WEIR_OK; /* Its steps' models run, not itself. */
    }
    if (engine->threads && pool_watch_limit_ns(model, may_run_inline(engine, model)) > 0) {
        const enum weir_status status = watchdog_start(&engine->watchdog, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    if (engine->rates != NULL) {
        const enum weir_status status = rate_join(engine->rates, model, &model->claim, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    const enum weir_status made = make_instances(engine, model, err);
    if (made != WEIR_OK) {
        engine_abandon(engine, model);
        return made;
    }
    start_scaling(model);
    if (model->sequence_plan != NULL) {
        const enum weir_status status =
            sequencer_create(model, engine->limits, &model->sequences, err);
        if (status != WEIR_OK) {
            engine_abandon(engine, model);
            return status;
        }
    }
    return WEIR_OK;
}

void engine_abandon(struct engine *engine, struct model *model)
{
    assert(model->waiting_count == 0 && model->running == 0);
    if (model->sequences != NULL) {
        pool_forget(model->pool, model);
        sequencer_destroy(model->sequences);
        model->sequences = NULL;
    }
    for (uint32_t i = 0; i < model->slot_count; i++) {
        instance_finish(&model->instances[i]);
    }
    if (model->cached) {
        cache_forget(engine->cache, model->serial);
    }
    quarantine_forget(engine->quarantine, model->serial);
    map_finish(&model->joins);
    rate_leave(model->claim);
    model->claim = NULL;
    mem_free(model->instances);
    model->instances = NULL;
    model->instances_free = NULL;
    model->instance_count = 0;
    model->slot_count = 0;
    for (uint32_t i = 0; i < model->replica_count; i++) {
        model->replicas[i].free = 0;
    }
    model->replica_count = model->replica_count > 1 ? model->replica_count : 0;
}
