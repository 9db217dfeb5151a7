#include "engine/watchdog.h"

#include <string.h>

#include "engine/engine.h"
#include "engine/pool.h"

enum watchdog_act watchdog_judge(uint64_t began_ns, uint64_t limit_ns, bool asked, uint64_t now_ns,
                                 uint64_t *next_ns)
{
    const uint64_t stop_ns = clock_add(began_ns, limit_ns);
    const uint64_t end_ns = clock_add(stop_ns, WATCHDOG_GRACE_NS);
    if (now_ns >= end_ns) {
        *next_ns = CLOCK_NEVER;
        return WATCHDOG_WRITE_OFF;
    }
    *next_ns = now_ns >= stop_ns ? end_ns : stop_ns;
    return now_ns >= stop_ns && !asked ? WATCHDOG_STOP : WATCHDOG_NOTHING;
}

void watchdog_init(struct watchdog *dog, struct engine *engine)
{
    *dog = (struct watchdog){ .engine = engine };
    atomic_init(&dog->wake_ns, CLOCK_NEVER);
    pthread_mutex_init(&dog->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&dog->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

/* Lock held: sleeps until it is time, or there is something new. */
static void sleep_until(struct watchdog *dog, uint64_t wake_ns)
{
    if (wake_ns == CLOCK_NEVER) {
        pthread_cond_wait(&dog->changed, &dog->lock);
        return;
    }
    const struct timespec at = {
        .tv_sec = (time_t)(wake_ns / NS_PER_S),
        .tv_nsec = (long)(wake_ns % NS_PER_S),
    };
    (void)pthread_cond_timedwait(&dog->changed, &dog->lock, &at);
}

/* Looks at all pools; when to do so again. */
static uint64_t look(const struct engine *engine, uint64_t now_ns)
{
    uint64_t next_ns = CLOCK_NEVER;
    for (uint32_t i = 0; i < engine->pool_count; i++) {
        const uint64_t due_ns = pool_watch(engine->pools[i], now_ns);
        next_ns = due_ns < next_ns ? due_ns : next_ns;
    }
    return next_ns;
}

static void *watch(void *argument)
{
    struct watchdog *dog = argument;
    (void)pthread_setname_np(pthread_self(), "weir-watchdog");
    pthread_mutex_lock(&dog->lock);
    while (!dog->stopping) {
        const uint64_t now_ns = clock_now_ns(dog->engine->clock);
        if (now_ns < atomic_load(&dog->wake_ns)) {
            sleep_until(dog, atomic_load(&dog->wake_ns));
            continue;
        }
        /* Runs that begin during the look tell so: their times are not lost. */
        atomic_store(&dog->wake_ns, CLOCK_NEVER);
        pthread_mutex_unlock(&dog->lock);
        const uint64_t next_ns = look(dog->engine, now_ns);
        pthread_mutex_lock(&dog->lock);
        if (next_ns < atomic_load(&dog->wake_ns)) {
            atomic_store(&dog->wake_ns, next_ns);
        }
    }
    pthread_mutex_unlock(&dog->lock);
    return NULL;
}

enum weir_status watchdog_start(struct watchdog *dog, struct weir_err *err)
{
    pthread_mutex_lock(&dog->lock);
    const int failed = dog->started ? 0 : pthread_create(&dog->thread, NULL, watch, dog);
    dog->started = dog->started || failed == 0;
    pthread_mutex_unlock(&dog->lock);
    return failed == 0 ? WEIR_OK
                       : err_set(err, WEIR_ENOMEM,
                                 "run_limit: the system gives no further thread to watch it: %s",
                                 strerror(failed));
}

void watchdog_note(struct watchdog *dog, uint64_t due_ns)
{
    /* Either this finds that the watch has no time any more, or its look finds the run: both store,
     * then load, in the one order of all of them. */
    if (due_ns >= atomic_load(&dog->wake_ns)) {
        return;
    }
    pthread_mutex_lock(&dog->lock);
    if (due_ns < atomic_load(&dog->wake_ns)) {
        atomic_store(&dog->wake_ns, due_ns);
        pthread_cond_signal(&dog->changed);
    }
    pthread_mutex_unlock(&dog->lock);
}

void watchdog_finish(struct watchdog *dog)
{
    pthread_mutex_lock(&dog->lock);
    dog->stopping = true;
    pthread_cond_signal(&dog->changed);
    pthread_mutex_unlock(&dog->lock);
    if (dog->started) {
        pthread_join(dog->thread, NULL);
    }
    pthread_cond_destroy(&dog->changed);
    pthread_mutex_destroy(&dog->lock);
}
