#include "engine/executor.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "engine/pool.h"

void executor_settle_in(const struct executor *executor)
{
    char name[16];
    (void)snprintf(name, sizeof(name), "weir-%.9s",
                   executor->pool->devices[executor->seat.device].name);
    (void)pthread_setname_np(pthread_self(), name);
    if (executor->pinned != NULL) {
        const cpu_set_t *cpus = &executor->pinned->cpus;
        (void)pthread_setaffinity_np(pthread_self(), sizeof(*cpus), cpus);
    }
}

/* A simulated run begins when all it needed was there, not when this thread had woken up: then late
 * wake-ups do not add up, and a device can be told from the machine that simulates it. */
static void begin_in_time(const struct executor *executor, struct instance *instance)
{
    const struct model *model = instance->model;
    struct batch *batch = &instance->batch;
    if (!model->signature->timeline || model->config->queue_delay_ns > 0 || model->claim != NULL) {
        return;
    }
    uint64_t due_ns = executor->free_ns;
    due_ns = instance->run.virtual_end_ns > due_ns ? instance->run.virtual_end_ns : due_ns;
    for (struct list_node *n = list_first(&batch->members); n != NULL;
         n = list_next(&batch->members, n)) {
        const struct request *request = list_entry(n, struct request, line);
        due_ns = request->times.submitted_ns > due_ns ? request->times.submitted_ns : due_ns;
    }
    if (due_ns <= batch->taken_ns && batch->taken_ns - due_ns <= BACKEND_LATE_NS) {
        batch->taken_ns = due_ns;
        instance->run.begin_ns = due_ns;
    }
}

/* A run lasts longer than the few microseconds of a loop that is woken on the same processor: equal, the
 * kernel would let the run go on, and answers and refusals would be late by milliseconds. */
static void let_loops_go_first(const struct pool *pool)
{
    const int usual = getpriority(PRIO_PROCESS, 0); /* Linux: of this thread alone. */
    (void)setpriority(PRIO_PROCESS, 0, usual + (int)pool->nice);
}

static void *executor_main(void *argument)
{
    struct executor *executor = argument;
    struct pool *pool = executor->pool;
    executor_settle_in(executor);
    let_loops_go_first(pool);
    for (struct instance *instance = pool_next(pool, executor); instance != NULL;
         instance = pool_next(pool, executor)) {
        begin_in_time(executor, instance);
        batch_run(instance);
        executor->free_ns = instance->model->signature->timeline ? instance->batch.computed_ns : 0;
        pool_settle(pool, instance, clock_now_ns(pool->engine->clock));
        if (pool_pauses(pool)) {
            (void)sched_yield(); /* To the loop that the answers have woken. */
        }
    }
    return NULL;
}

enum weir_status executor_start(struct executor *executor, struct weir_err *err)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&executor->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    const int failed = pthread_create(&executor->thread, NULL, executor_main, executor);
    if (failed != 0) {
        pthread_cond_destroy(&executor->wake);
        return err_set(err, WEIR_ENOMEM, "device '%s': the system gives no further thread: %s",
                       executor->pool->name, strerror(failed));
    }
    executor->started = true;
    return WEIR_OK;
}

void executor_join(struct executor *executor)
{
    if (!executor->started) {
        return;
    }
    pthread_mutex_lock(&executor->pool->lock);
    pthread_cond_signal(&executor->wake);
    pthread_mutex_unlock(&executor->pool->lock);
    pthread_join(executor->thread, NULL);
    pthread_cond_destroy(&executor->wake);
}
