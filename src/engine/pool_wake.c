/*
 * How executors sleep and wake.
 *
 * Waking is a chain: a kick wakes one executor, and each one that finds more work than it takes
 * wakes the next, so that nobody is woken for nothing.
 *
 * Waking a thread on an idle core costs some 40 us.  Where requests come closer to each other than
 * that, one executor looks out for the next for as long before it sleeps, if the machine has a core
 * to spare for it: on two it was measured to take more from loops and clients than it gave.  Where
 * requests are not so dense, or none come, executors sleep: an idle server uses no CPU.
 */
#include <sched.h>

#include "engine/executor.h"
#include "engine/pool.h"
#include "engine/pool_impl.h"

#define SPIN_NS (50 * NS_PER_US)
#define CPUS_OTHERS 2        /* That a loop and the rest of the machine need. */
#define GAP_MAX_NS NS_PER_MS /* What a longer gap between requests counts for. */
#define GAP_WEIGHT 8         /* One in so many: of a new gap in the average. */

static uint32_t count_cpus(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    const bool known = sched_getaffinity(0, sizeof(set), &set) == 0;
    return known ? (uint32_t)CPU_COUNT(&set) : 1;
}

void pool_wake_init(struct pool *pool)
{
    list_init(&pool->idle);
    pool->watch_ns = CLOCK_NEVER;
    pool->gap_ns = GAP_MAX_NS;
    pool->cpu_count = count_cpus();
}

void pool_note_arrival(struct pool *pool, uint64_t now_ns)
{
    const uint64_t gap_ns = now_ns > pool->arrived_ns ? now_ns - pool->arrived_ns : 0;
    pool->gap_ns += (gap_ns < GAP_MAX_NS ? gap_ns : GAP_MAX_NS) / GAP_WEIGHT;
    pool->gap_ns -= pool->gap_ns / GAP_WEIGHT;
    pool->arrived_ns = now_ns;
}

/* Lock held: where executors differ, one asleep that can run something, or NULL. */
static struct list_node *suited(struct pool *pool, uint64_t now_ns)
{
    for (struct list_node *n = list_first(&pool->idle); n != NULL; n = list_next(&pool->idle, n)) {
        const struct puller sleeper = { pool, list_entry(n, struct executor, idle)->seat, now_ns };
        if (pool_has_work(&sleeper)) {
            return n;
        }
    }
    return NULL;
}

/* Lock held: an executor to wake for the work there is, or NULL. */
struct executor *pool_executor_for_work(struct pool *pool, uint64_t now_ns)
{
    const struct puller nobody = { pool, pool_no_seat, now_ns };
    const bool works = pool_has_work(&nobody);
    if (!works) {
        const struct heap_node *later = heap_top(&pool->delayed);
        if (later == NULL || later->key >= pool->watch_ns) {
            return NULL; /* What is delayed has somebody who wakes up for it. */
        }
    }
    if (pool->spinning) {
        atomic_fetch_add_explicit(&pool->calls, 1, memory_order_relaxed);
        return NULL; /* It looks again in any case, and wakes others if there is more. */
    }
    struct list_node *node =
        works && !pool->uniform ? suited(pool, now_ns) : list_first(&pool->idle);
    if (node == NULL) {
        return NULL;
    }
    list_remove(node);
    pool->idle_count--;
    return list_entry(node, struct executor, idle);
}

struct pool_taken pool_taken(struct pool *pool)
{
    struct pool_taken taken = { .pauses = pool_pauses(pool) };
    const uint64_t now_ns = clock_now_ns(pool->engine->clock);
    const struct puller nobody = { pool, pool_no_seat, now_ns };
    pthread_mutex_lock(&pool->lock);
    const struct list_node *first = list_first(&pool->runs);
    const bool full = pool->places_taken >= pool->executor_count;
    if (!list_empty(&pool->missing) || (pool->idle_count > 0 && (pool->pipelined || !full))) {
        taken.until_ns = 0;
    } else if (full && first != NULL) {
        const struct batch *batch = list_entry(first, struct batch, run);
        taken.until_ns = batch->expected_ns;
        taken.run_ns = batch->lasts_ns;
    } else if (!full && pool_has_work(&nobody)) { /* Who has just ended a run is about to pull. */
        taken.until_ns = clock_add(now_ns, pool->run_ns);
        taken.run_ns = pool->run_ns;
    }
    pthread_mutex_unlock(&pool->lock);
    return taken;
}

bool pool_pauses(const struct pool *pool)
{
    return pool->cpu_count == 1;
}

bool pool_is_crowded(const struct pool *pool, uint64_t others)
{
    return pool->executor_count + others > pool->cpu_count;
}

void pool_kick(struct pool *pool)
{
    const uint64_t now_ns = clock_now_ns(pool->engine->clock);
    pthread_mutex_lock(&pool->lock);
    struct executor *executor = pool_executor_for_work(pool, now_ns);
    pthread_mutex_unlock(&pool->lock);
    if (executor != NULL) {
        pthread_cond_signal(&executor->wake);
    }
}

/* Lock held: sleeps until woken, or until `wake_ns`. */
static void sleep_idle(struct pool *pool, struct executor *executor, uint64_t wake_ns)
{
    list_prepend(&pool->idle, &executor->idle);
    pool->idle_count++;
    if (wake_ns == CLOCK_NEVER) {
        pthread_cond_wait(&executor->wake, &pool->lock);
    } else {
        const struct timespec at = {
            .tv_sec = (time_t)(wake_ns / NS_PER_S),
            .tv_nsec = (long)(wake_ns % NS_PER_S),
        };
        pool->watch_ns = wake_ns < pool->watch_ns ? wake_ns : pool->watch_ns;
        (void)pthread_cond_timedwait(&executor->wake, &pool->lock, &at);
        if (pool->watch_ns == wake_ns) {
            pool->watch_ns = CLOCK_NEVER; /* Who sleeps longer is woken for nothing at most. */
        }
    }
    if (list_linked(&executor->idle)) { /* Nobody woke it: the time did. */
        list_remove(&executor->idle);
        pool->idle_count--;
    }
}

/* Lock held: the next request is likely sooner than a sleeping thread would be awake, and a core is
 * there that neither a run nor a loop needs. */
static bool may_spin(const struct pool *pool, uint64_t now_ns)
{
    return !pool->spinning && !pool->pipelined && pool->waiting == 0 && pool->gap_ns <= SPIN_NS &&
           now_ns <= clock_add(pool->arrived_ns, SPIN_NS) &&
           pool->cpu_count >= pool->batches + CPUS_OTHERS + 1;
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Lock held, and given up meanwhile. */
static void spin(struct pool *pool)
{
    const struct clock *clock = pool->engine->clock;
    const uint32_t calls = atomic_load_explicit(&pool->calls, memory_order_relaxed);
    pool->spinning = true;
    pthread_mutex_unlock(&pool->lock);
    const uint64_t until_ns = clock_now_ns(clock) + SPIN_NS;
    while (atomic_load_explicit(&pool->calls, memory_order_relaxed) == calls &&
           clock_now_ns(clock) < until_ns) {
        cpu_relax();
    }
    const bool called = atomic_load_explicit(&pool->calls, memory_order_relaxed) != calls;
    pthread_mutex_lock(&pool->lock);
    pool->spinning = false;
    if (!called && pool->gap_ns < 2 * SPIN_NS) {
        pool->gap_ns = 2 * SPIN_NS; /* They are not as dense as they were. */
    }
}

/* Lock held: what this executor was woken for and cannot run, another one may. */
static void wake_suited(struct pool *pool, uint64_t now_ns)
{
    struct list_node *node = pool->uniform ? NULL : suited(pool, now_ns);
    if (node != NULL) {
        list_remove(node);
        pool->idle_count--;
        pthread_cond_signal(&list_entry(node, struct executor, idle)->wake);
    }
}

struct instance *pool_next(struct pool *pool, struct executor *executor)
{
    struct instance *instance = NULL;
    bool spun = false;
    uint64_t now_ns = 0;
    struct list ended;
    list_init(&ended);
    pthread_mutex_lock(&pool->lock);
    pool_park(pool, executor);
    while (!pool->stopping && instance == NULL) {
        uint64_t wake_ns = CLOCK_NEVER;
        now_ns = clock_now_ns(pool->engine->clock);
        const struct puller puller = { pool, executor->seat, now_ns };
        instance = pool_pull_locked(&puller, &wake_ns, &ended);
        if (!list_empty(&ended)) {
            pthread_mutex_unlock(&pool->lock);
            pool_send_home(&ended);
            pthread_mutex_lock(&pool->lock);
        } else if (instance == NULL && !spun && may_spin(pool, now_ns)) {
            spun = true;
            spin(pool);
        } else if (instance == NULL) {
            wake_suited(pool, now_ns);
            sleep_idle(pool, executor, wake_ns);
            spun = false;
        }
    }
    if (instance != NULL) {
        instance->executor = executor;
    }
    struct executor *more = instance == NULL ? NULL : pool_executor_for_work(pool, now_ns);
    pthread_mutex_unlock(&pool->lock);
    if (more != NULL) {
        pthread_cond_signal(&more->wake);
    }
    return instance;
}
