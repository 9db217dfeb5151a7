#include "engine/loader.h"

#include "engine/entry.h"
#include "engine/pool.h"
#include "util/err.h"

#define LOOK_NS (10 * NS_PER_MS) /* How soon it is seen that a job has begun. */

/* ---- Writing off ----------------------------------------------------------------------------- */

/* What is in memory and held by a thread that may never let go is not waited for. */
static void note_held(struct entry_host *host, struct resident *resident)
{
    if (resident->model != NULL && resident->held++ == 0) {
        host->residents--;
    }
}

static void note_free(struct entry_host *host, struct resident *resident)
{
    if (resident->model != NULL && --resident->held == 0) {
        host->residents++;
    }
}

/* False: it has just come back, or there is no thread that could go on. */
static bool write_off(struct entry_host *host, struct loader_job *job)
{
    struct entry *entry = job->resident->entry;
    entry->lost++; /* Before the new thread begins with the next one. */
    if (!worker_replace(&host->loaders[job->loader], &job->job, &job->hung)) {
        entry->lost--;
        return false;
    }
    list_remove(&job->node);
    job->lost = true;
    host->jobs--;
    host->lost++;
    host->dirty = true;
    note_held(host, job->resident);
    job->ops->lost(job);
    return true;
}

static bool is_limited_run(const struct loader_job *job)
{
    return job->run_limit_ns > 0 && atomic_load(&job->step.is_run);
}

/* By when its step is to be over; of one that has not begun, when to look again. */
static uint64_t due_ns(const struct loader_job *job, uint64_t now_ns)
{
    const uint64_t limit_ns = is_limited_run(job) ? job->run_limit_ns : job->limit_ns;
    const uint64_t began_ns = atomic_load(&job->step.began_ns);
    return limit_ns == 0 ? CLOCK_NEVER
                         : clock_add(began_ns == 0 ? now_ns + LOOK_NS : began_ns, limit_ns);
}

/* A run may begin at any time, and nobody says when. */
static uint64_t look_ns(const struct loader_job *job, uint64_t at_ns, uint64_t now_ns)
{
    const uint64_t run_ns =
        job->run_limit_ns == 0 ? CLOCK_NEVER : clock_add(now_ns, job->run_limit_ns);
    return at_ns < run_ns ? at_ns : run_ns;
}

static struct loader_job *find_due(const struct entry_host *host, uint64_t now_ns,
                                   uint64_t *next_ns)
{
    for (struct list_node *node = list_first(&host->out); node != NULL;
         node = list_next(&host->out, node)) {
        struct loader_job *job = list_entry(node, struct loader_job, node);
        const uint64_t at_ns = due_ns(job, now_ns);
        if (at_ns <= now_ns) {
            return job;
        }
        const uint64_t again_ns = look_ns(job, at_ns, now_ns);
        *next_ns = again_ns < *next_ns ? again_ns : *next_ns;
    }
    return NULL;
}

void loader_watch(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns)
{
    for (struct loader_job *job = find_due(host, now_ns, next_ns); job != NULL;
         job = find_due(host, now_ns, next_ns)) {
        if (!write_off(host, job)) {
            *next_ns = clock_add(now_ns, LOOK_NS);
            return;
        }
        *next_ns = now_ns; /* Others may have waited for it. */
    }
}

enum weir_status loader_explain(const struct loader_job *job, struct weir_err *err)
{
    if (is_limited_run(job)) {
        return err_set(err, WEIR_EUNAVAILABLE,
                       "a trial run took longer than its run_limit and does not end; with "
                       "'isolation: process' it could be ended");
    }
    return err_set(err, WEIR_EUNAVAILABLE,
                   "%s takes longer than its load_limit of %.1f s and may never end; with "
                   "'isolation: process' it could be ended",
                   job->ops->what, (double)job->limit_ns / NS_PER_S);
}

void loader_tell_lost(struct loader_job *job)
{
    const struct resident *resident = job->resident;
    const struct engine *engine = resident->entry->host->engine;
    struct slot *slot = entry_find_slot(resident->entry, resident->version);
    if (slot == NULL || slot->failed) {
        return; /* There is something else to be told of it. */
    }
    (void)loader_explain(job, &slot->why);
    if (slot->model == NULL) {
        slot->announce = true;
        return;
    }
    if (slot->model != resident->model) {
        (void)err_prefix(&slot->why, "what was loaded before");
    }
    engine_advise(engine, slot->model, LOG_WARNING, slot->why.text);
}

void loader_tell_back(const struct loader_job *job)
{
    struct slot *slot = entry_find_slot(job->resident->entry, job->resident->version);
    if (!job->lost || slot == NULL || slot->failed) {
        return;
    }
    if (slot->model != NULL) {
        entry_set_remark(slot);
    } else {
        slot->why = (struct weir_err){ 0 };
    }
}

/* ---- Out and back ---------------------------------------------------------------------------- */

static void come_back(struct worker_job *work)
{
    struct loader_job *job = list_entry(work, struct loader_job, job);
    struct entry *entry = job->resident->entry;
    struct entry_host *host = entry->host;
    list_remove(&job->node);
    if (job->lost) {
        pthread_join(job->hung, NULL);
        host->lost--;
        entry->lost--;
        host->dirty = true;
        note_free(host, job->resident);
    } else {
        host->jobs--;
    }
    job->ops->done(job);
}

static void run(struct worker_job *work)
{
    struct loader_job *job = list_entry(work, struct loader_job, job);
    step_begin(&job->step);
    job->ops->run(job);
    entry_return_job(job->resident->entry->host, work, come_back);
}

void loader_send(struct entry_host *host, struct loader_job *job)
{
    job->step.clock = host->clock;
    atomic_store(&job->step.began_ns, 0);
    job->lost = false;
    job->job.run = run;
    list_append(&host->out, &job->node);
    host->jobs++;
    worker_send(&host->loaders[job->loader], &job->job);
}

void loader_send_loaded(struct resident *resident, struct loader_job *job,
                        const struct loader_ops *ops)
{
    const struct model *model = resident->model;
    *job = (struct loader_job){
        .ops = ops,
        .resident = resident,
        .loader = model->pool->index,
        .limit_ns = lifecycle_limit_ns(model->config),
    };
    loader_send(resident->entry->host, job);
}
