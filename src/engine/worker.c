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

static void run_jobs(struct worker *worker)
{
    struct mail *mail = mailbox_receive(&worker->mailbox);
    while (mail != NULL) {
        struct mail *next = mail->next;
        struct worker_job *job = list_entry(mail, struct worker_job, mail);
        job->run(job);
        mail = next;
    }
}

/* Sleeps until woken or next_ns.  True: a stop is wished, allowed, and nothing has come in meanwhile. */
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
    for (;;) {
        run_jobs(worker);
        uint64_t next_ns = CLOCK_NEVER;
        const bool may_stop = worker->turn == NULL || worker->turn(worker->context, &next_ns);
        if (sleep_until(worker, next_ns, may_stop)) {
            return NULL;
        }
    }
}

enum weir_status worker_start(struct worker *worker, const char *name, worker_turn_fn *turn,
                              void *context, struct weir_err *err)
{
    *worker = (struct worker){ .turn = turn, .context = context };
    mailbox_init(&worker->mailbox, wake, worker);
    pthread_mutex_init(&worker->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    const int failed = pthread_create(&worker->thread, NULL, work, worker);
    if (failed != 0) {
        pthread_cond_destroy(&worker->wake);
        pthread_mutex_destroy(&worker->lock);
        return err_set(err, WEIR_ENOMEM, "cannot start the thread '%s': %s", name,
                       strerror(failed));
    }
    (void)pthread_setname_np(worker->thread, name);
    return WEIR_OK;
}

void worker_send(struct worker *worker, struct worker_job *job)
{
    mailbox_send(&worker->mailbox, &job->mail);
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
