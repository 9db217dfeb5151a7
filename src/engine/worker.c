#include "engine/worker.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "util/clock.h"
#include "util/list.h"

static void wake(void *context)
{
    struct worker *worker = context;
    pthread_mutex_lock(&worker->lock);
    worker->woken = true;
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->lock);
}

/* Lock held: is the calling thread the one that runs the jobs? */
static bool is_its_thread(const struct worker *worker)
{
    return pthread_equal(worker->thread, pthread_self()) != 0;
}

/* What has come in, or was left by the thread before.  False: another thread is in this one's
 * place. */
static bool run_jobs(struct worker *worker)
{
    pthread_mutex_lock(&worker->lock);
    if (worker->round == NULL) {
        worker->round = mailbox_receive(&worker->mailbox);
    }
    while (is_its_thread(worker) && worker->round != NULL) {
        struct worker_job *job = list_entry(worker->round, struct worker_job, mail);
        worker->round = worker->round->next;
        worker->running = job;
        pthread_mutex_unlock(&worker->lock);
        job->run(job);
        pthread_mutex_lock(&worker->lock);
        if (is_its_thread(worker)) {
            worker->running = NULL;
        }
    }
    const bool stays = is_its_thread(worker);
    pthread_mutex_unlock(&worker->lock);
    return stays;
}

/* Sleeps until woken or next_ns.  True: a stop is wished, allowed, and nothing has come in
 * meanwhile. */
static bool sleep_until(struct worker *worker, uint64_t next_ns, bool may_stop)
{
    const struct timespec at = {
        .tv_sec = (time_t)(next_ns / NS_PER_S),
        .tv_nsec = (long)(next_ns % NS_PER_S),
    };
    pthread_mutex_lock(&worker->lock);
    int waited = 0;
    while (!worker->woken && !(worker->stopping && may_stop) && waited != ETIMEDOUT) {
        waited = next_ns == CLOCK_NEVER ? pthread_cond_wait(&worker->wake, &worker->lock)
                                        : pthread_cond_timedwait(&worker->wake, &worker->lock, &at);
    }
    const bool stop = worker->stopping && may_stop && !worker->woken;
    worker->woken = false;
    pthread_mutex_unlock(&worker->lock);
    return stop;
}

static void *work(void *context)
{
    struct worker *worker = context;
    (void)pthread_setname_np(pthread_self(), worker->name);
    while (run_jobs(worker)) {
        uint64_t next_ns = CLOCK_NEVER;
        const bool may_stop = worker->turn == NULL || worker->turn(worker->context, &next_ns);
        if (sleep_until(worker, next_ns, may_stop)) {
            break;
        }
    }
    return NULL;
}

/* Lock held: a thread that asks whether it is the worker's waits for the answer. */
static int start_thread(struct worker *worker)
{
    pthread_t thread;
    const int failed = pthread_create(&thread, NULL, work, worker);
    worker->thread = failed == 0 ? thread : worker->thread;
    return failed;
}

enum weir_status worker_start(struct worker *worker, const char *name, worker_turn_fn *turn,
                              void *context, struct weir_err *err)
{
    *worker = (struct worker){ .name = name, .turn = turn, .context = context };
    mailbox_init(&worker->mailbox, wake, worker);
    pthread_mutex_init(&worker->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_lock(&worker->lock);
    const int failed = start_thread(worker);
    pthread_mutex_unlock(&worker->lock);
    if (failed != 0) {
        worker_finish(worker);
        return err_set(err, WEIR_ENOMEM, "cannot start the thread '%s': %s", name,
                       strerror(failed));
    }
    return WEIR_OK;
}

void worker_send(struct worker *worker, struct worker_job *job)
{
    mailbox_send(&worker->mailbox, &job->mail);
}

bool worker_replace(struct worker *worker, const struct worker_job *job, pthread_t *hung)
{
    pthread_mutex_lock(&worker->lock);
    const pthread_t before = worker->thread;
    const bool replaced = worker->running == job && start_thread(worker) == 0;
    worker->running = replaced ? NULL : worker->running;
    pthread_mutex_unlock(&worker->lock);
    if (replaced) {
        *hung = before;
    }
    return replaced;
}

void worker_stop(struct worker *worker)
{
    pthread_mutex_lock(&worker->lock);
    worker->stopping = true;
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->lock);
    pthread_join(worker->thread, NULL);
}

void worker_finish(struct worker *worker)
{
    pthread_cond_destroy(&worker->wake);
    pthread_mutex_destroy(&worker->lock);
}
