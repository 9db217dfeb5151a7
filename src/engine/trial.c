/*
 * From a death to verdicts.
 *
 * The executor whose run died holds the trial itself, one suspect after the other: its thread is
 * what the run had anyway, and its batch is where the members are counted.  Requests of other runs
 * that equal a suspect change into that batch, so that whoever is waited for or canceled there is
 * so here, too.
 *
 * Every loop here ends: a run that blames nobody is repeated only while the circuit is closed, a
 * suspect runs alone once, and who comes back from a trial carries the number of its deaths.
 */
#include "engine/trial.h"

#include <stdio.h>

#include "engine/batch_impl.h"
#include "engine/cache.h"
#include "engine/engine.h"
#include "engine/outage.h"
#include "engine/pool.h"
#include "engine/quarantine.h"
#include "engine/request.h"
#include "util/mem.h"

static struct request *request_of(struct list_node *node)
{
    return list_entry(node, struct request, line);
}

static uint64_t now_ns(const struct instance *instance)
{
    return clock_now_ns(instance->model->pool->engine->clock);
}

/* What a sequence's request does depends on more than its inputs: equal ones say nothing. */
static bool comparable(const struct model *model)
{
    return model->sequences == NULL;
}

/* ---- What is known of the child -------------------------------------------------------------- */

static void note_death(struct instance *instance, uint64_t began_ns)
{
    struct model *model = instance->model;
    struct weir_err err = { WEIR_OK, "" };
    pthread_mutex_lock(&model->pool->lock);
    const bool open = circuit_refuses(&model->circuit, now_ns(instance));
    model->last_death = instance->run.death;
    circuit_died(&model->circuit, began_ns, now_ns(instance));
    outage_note(model);
    const bool opened = !open && outage_check_locked(model, &err) != WEIR_OK;
    pthread_mutex_unlock(&model->pool->lock);
    if (instance->run.told != DEATH_NONE) {
        atomic_fetch_add_explicit(&model->stats.deaths[instance->run.told], 1,
                                  memory_order_relaxed);
    }
    if (opened) {
        engine_advise(model->pool->engine, model, LOG_WARNING, err.text);
    }
}

void trial_note_alive(struct model *model, enum weir_status status)
{
    if (!atomic_load_explicit(&model->troubled, memory_order_relaxed)) {
        return;
    }
    pthread_mutex_lock(&model->pool->lock);
    if (status == WEIR_ECANCELED) {
        circuit_give_up(&model->circuit);
    } else {
        circuit_ran(&model->circuit);
    }
    outage_note(model);
    pthread_mutex_unlock(&model->pool->lock);
}

/* Waits until the back-off lets another child start.  WEIR_EUNAVAILABLE: none shall. */
static enum weir_status await_child(struct instance *instance, struct weir_err *err)
{
    struct model *model = instance->model;
    pthread_mutex_lock(&model->pool->lock);
    const enum weir_status status = outage_check_locked(model, err);
    const uint64_t start_ns = circuit_start_ns(&model->circuit);
    pthread_mutex_unlock(&model->pool->lock);
    if (status == WEIR_OK) {
        clock_sleep_until(model->pool->engine->clock, start_ns);
    }
    return status;
}

/* ---- Suspects -------------------------------------------------------------------------------- */

static const struct request_key *key_of(struct request *request)
{
    if (!request->keyed) {
        request->key = cache_digest(request, request->model->serial);
    }
    return &request->key;
}

static bool is_quarantined(const struct model *model, const struct request_key *key,
                           struct weir_err *err)
{
    const struct engine *engine = model->pool->engine;
    if (!quarantine_refuses(engine->quarantine, key, clock_now_ns(engine->clock))) {
        return false;
    }
    (void)err_set(err, WEIR_EQUARANTINED,
                  "the input made the process of model '%s' fail before: it is not run any more",
                  model->name);
    return true;
}

/* Lock held: the request leaves its batch for that of the suspect's trial, and waits there. */
static void wait_with(struct suspect *suspect, struct batch *from, struct request *request)
{
    struct batch *to = suspect->batch;
    list_remove(&request->line);
    list_append(&suspect->waiting, &request->line);
    if (to == from) {
        return;
    }
    const bool followed = request->leads && !list_empty(&request->followers);
    const uint32_t wanting = request->stop == WEIR_OK || followed ? 1 : 0;
    from->count--;
    from->rows -= request->rows;
    from->wanting -= wanting;
    to->count++;
    to->rows += request->rows;
    to->wanting += wanting;
    if (to->payer != request->payer || to->class != request->class) {
        to->payer = NULL;
    }
    request->batch = to;
}

/* One member's last try. */
struct verdict {
    enum weir_status status;
    struct weir_err err;
    bool guilty;
    enum backend_death death; /* Of the probation child; NONE: it did not die. */
};

/* The context was stopped when nobody wanted the batch any more: it runs again. */
static void rearm(struct instance *instance, bool for_nobody)
{
    struct pool *pool = instance->model->pool;
    pthread_mutex_lock(&pool->lock);
    if (for_nobody || instance->batch.wanting > 0) {
        backend_rearm(instance->context);
    }
    pthread_mutex_unlock(&pool->lock);
}

/* Runs the one member of `alone` in a child of its own, whoever waits for it: its verdict matters
 * to others, too. */
static enum weir_status probe(struct instance *instance, const struct list *alone,
                              struct weir_err *err)
{
    rearm(instance, true);
    instance->run.probation = true;
    const enum weir_status status = batch_attempt(instance, alone, err);
    instance->run.probation = false;
    return status;
}

static struct verdict judge(struct instance *instance, const struct list *alone,
                            const struct request *request)
{
    struct verdict verdict = { 0 };
    enum suspect_fate fate = SUSPECT_AGAIN;
    if (comparable(request->model) && is_quarantined(request->model, &request->key, &verdict.err)) {
        verdict.status = WEIR_EQUARANTINED; /* Another trial was quicker. */
        verdict.guilty = true;
        return verdict;
    }
    while (fate == SUSPECT_AGAIN) {
        verdict.status = await_child(instance, &verdict.err);
        if (verdict.status != WEIR_OK) {
            return verdict;
        }
        const uint64_t began_ns = now_ns(instance);
        verdict.status = probe(instance, alone, &verdict.err);
        if (instance->run.death == DEATH_NONE && verdict.status != WEIR_EUNAVAILABLE) {
            trial_note_alive(instance->model, verdict.status);
            return verdict;
        }
        note_death(instance, began_ns);
        if (instance->run.death == DEATH_NONE) {
            return verdict;
        }
        fate = suspect_fate(request, instance->run.death, true);
    }
    verdict.death = instance->run.death;
    verdict.guilty = fate == SUSPECT_CONVICT;
    if (verdict.guilty) {
        verdict.status = err_set(&verdict.err, WEIR_EQUARANTINED,
                                 "the input made the process of model '%s' fail twice (%s), the "
                                 "second time alone: it is not run any more",
                                 request->model->name, backend_death_text(instance->run.death));
    }
    return verdict;
}

static void convict(const struct model *model, const struct suspect *suspect,
                    enum backend_death death)
{
    const struct engine *engine = model->pool->engine;
    struct quarantine_entry entry = {
        .key = suspect->key, .serial = model->serial, .version = model->version, .death = death
    };
    (void)snprintf(entry.model, sizeof(entry.model), "%s", model->name);
    quarantine_add(engine->quarantine, &entry, clock_now_ns(engine->clock));
    engine_advise(engine, model, LOG_WARNING,
                  "an input made its process fail twice, the second time alone: it is quarantined");
}

/* The suspect ends; those that waited for it end with it, or are appended to `again`. */
static void try_suspect(struct instance *instance, struct suspect *suspect, struct list *again)
{
    struct model *model = instance->model;
    struct batch *batch = &instance->batch;
    struct list alone;
    struct list waited;
    list_init(&alone);
    list_init(&waited);
    list_remove(&suspect->request->line);
    list_append(&alone, &suspect->request->line);
    const struct verdict verdict = judge(instance, &alone, suspect->request);
    if (verdict.death != DEATH_NONE && verdict.guilty && comparable(model)) {
        convict(model, suspect, verdict.death);
    }
    batch_end(batch, suspect->request, verdict.status, &verdict.err);
    if (!comparable(model)) {
        return;
    }
    pthread_mutex_lock(&model->pool->lock);
    suspects_remove(&model->suspects, suspect, &waited);
    pthread_mutex_unlock(&model->pool->lock);
    if (verdict.guilty) {
        batch_end_all(batch, &waited, verdict.status, &verdict.err);
    } else {
        list_splice(again, &waited);
    }
}

/* Those that equal one that is under trial already wait for it; the others are suspects. */
static uint32_t name_suspects(struct instance *instance, struct list *members,
                              struct suspect *suspects)
{
    struct model *model = instance->model;
    uint32_t count = 0;
    pthread_mutex_lock(&model->pool->lock);
    struct list_node *next;
    for (struct list_node *n = list_first(members); n != NULL; n = next) {
        struct request *request = request_of(n);
        next = list_next(members, n);
        struct suspect *other =
            comparable(model) ? suspects_find(&model->suspects, &request->key) : NULL;
        if (other != NULL) {
            wait_with(other, &instance->batch, request);
            continue;
        }
        struct suspect *suspect = &suspects[count++];
        *suspect =
            (struct suspect){ .key = request->key, .batch = &instance->batch, .request = request };
        if (comparable(model)) {
            suspects_add(&model->suspects, suspect);
        }
    }
    pthread_mutex_unlock(&model->pool->lock);
    return count;
}

/* Runs on with those whom a verdict has let go. */
static void go_on(struct instance *instance, struct list *members)
{
    struct weir_err err = { WEIR_OK, "" };
    if (list_empty(members)) {
        return;
    }
    const enum weir_status status = await_child(instance, &err);
    if (status != WEIR_OK) {
        batch_end_all(&instance->batch, members, status, &err);
    } else {
        rearm(instance, false); /* For those who joined the batch since. */
        batch_carry(instance, members);
    }
}

static void try_all(struct instance *instance, struct list *members)
{
    uint32_t count = 0;
    for (struct list_node *n = list_first(members); n != NULL; n = list_next(members, n)) {
        request_of(n)->deaths++;
        (void)key_of(request_of(n));
        count++;
    }
    struct suspect *suspects = mem_try_zero(count, sizeof(*suspects));
    if (suspects == NULL) {
        struct weir_err err;
        const enum weir_status status = err_nomem(&err, "a trial", count * sizeof(*suspects));
        batch_end_all(&instance->batch, members, status, &err);
        return;
    }
    struct list again;
    list_init(&again);
    count = name_suspects(instance, members, suspects);
    for (uint32_t i = 0; i < count; i++) {
        try_suspect(instance, &suspects[i], &again);
    }
    mem_free(suspects);
    go_on(instance, &again);
}

/* Those that cannot be run again end. */
static void let_fail(struct instance *instance, struct list *members)
{
    const enum backend_death death = instance->run.death;
    struct weir_err err;
    (void)err_set(&err, WEIR_EBACKEND, "the process of model '%s' %s during the run",
                  instance->model->name, backend_death_text(death));
    struct list_node *next;
    for (struct list_node *n = list_first(members); n != NULL; n = next) {
        next = list_next(members, n);
        if (suspect_fate(request_of(n), death, false) == SUSPECT_FAIL) {
            batch_end(&instance->batch, request_of(n), WEIR_EBACKEND, &err);
        }
    }
}

void trial_hold(struct instance *instance, struct list *members, uint64_t began_ns,
                enum weir_status status, const struct weir_err *err)
{
    struct weir_err why = *err;
    note_death(instance, began_ns);
    while (instance->run.death != DEATH_NONE && !backend_death_suspects(instance->run.death)) {
        let_fail(instance, members);
        if (list_empty(members)) {
            return;
        }
        status = await_child(instance, &why);
        if (status != WEIR_OK) {
            batch_end_all(&instance->batch, members, status, &why);
            return;
        }
        const uint64_t again_ns = now_ns(instance);
        status = batch_attempt(instance, members, &why);
        if (instance->run.death == DEATH_NONE && status != WEIR_EUNAVAILABLE) {
            trial_note_alive(instance->model, status);
            batch_conclude(instance, members, status, &why);
            return;
        }
        note_death(instance, again_ns);
    }
    if (instance->run.death == DEATH_NONE) { /* There is no child to be had. */
        batch_end_all(&instance->batch, members, status, &why);
        return;
    }
    let_fail(instance, members);
    if (!list_empty(members)) {
        try_all(instance, members);
    }
}

/* ---- Before a run ---------------------------------------------------------------------------- */

/* True: nothing may run; else it may now, by the back-off, too. */
static bool is_out(struct instance *instance, struct weir_err *err)
{
    struct model *model = instance->model;
    if (!atomic_load_explicit(&model->troubled, memory_order_relaxed)) {
        return false;
    }
    pthread_mutex_lock(&model->pool->lock);
    enum weir_status status = outage_check_locked(model, err);
    if (status == WEIR_OK && !circuit_enter(&model->circuit, now_ns(instance))) {
        status = err_set(err, WEIR_EUNAVAILABLE,
                         "model '%s': its %s %u times without a completed run between, "
                         "and another run is tried now",
                         model->name,
                         model->config->isolation == ISOLATE_PROCESS ? "process ended"
                                                                     : "device was lost",
                         model->circuit.deaths);
    }
    const uint64_t start_ns = circuit_start_ns(&model->circuit);
    pthread_mutex_unlock(&model->pool->lock);
    if (status == WEIR_OK) {
        clock_sleep_until(model->pool->engine->clock, start_ns);
    }
    return status != WEIR_OK;
}

static void screen_one(struct instance *instance, struct request *request)
{
    struct model *model = instance->model;
    const struct request_key *key = key_of(request);
    pthread_mutex_lock(&model->pool->lock);
    struct suspect *suspect = suspects_find(&model->suspects, key);
    if (suspect != NULL) {
        wait_with(suspect, &instance->batch, request);
    }
    pthread_mutex_unlock(&model->pool->lock);
    /* In this order: who is convicted is quarantined before it ceases to be a suspect. */
    struct weir_err err;
    if (suspect == NULL && is_quarantined(model, key, &err)) {
        batch_end(&instance->batch, request, WEIR_EQUARANTINED, &err);
    }
}

void trial_screen(struct instance *instance)
{
    struct model *model = instance->model;
    struct batch *batch = &instance->batch;
    struct weir_err err = { WEIR_OK, "" };
    const bool out = is_out(instance, &err);
    const bool watched = model->config->isolation == ISOLATE_PROCESS && comparable(model) &&
                         (quarantine_count(model->pool->engine->quarantine) > 0 ||
                          atomic_load_explicit(&model->suspects.count, memory_order_relaxed) > 0);
    if (!out && !watched) {
        return;
    }
    batch->gathered_ns = now_ns(instance); /* For those that do not run. */
    batch->computed_ns = batch->gathered_ns;
    if (out) {
        batch_end_all(batch, &batch->members, WEIR_EUNAVAILABLE, &err);
        return;
    }
    struct list_node *next;
    for (struct list_node *n = list_first(&batch->members); n != NULL; n = next) {
        next = list_next(&batch->members, n);
        screen_one(instance, request_of(n));
    }
    if (list_empty(&batch->members)) {
        trial_note_alive(model, WEIR_ECANCELED); /* Should this have been the run to be tried. */
    }
}
