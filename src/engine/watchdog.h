/*
 * watchdog.h — looks at runs in this process that take longer than their model allows.
 *
 * A run over its run_limit is asked to stop.  One that has not done so WATCHDOG_GRACE_NS later is
 * written off (pool_watch.c): what it was to answer gets its error, and nobody waits for it any
 * more.  Runs of models with `isolation: process` have their own watch, which ends them
 * (backend/process_watch.h).
 *
 * One thread per engine, started with the first model that has a limit or may run on loops.  It
 * sleeps until the earliest run under way could be over its limit.
 */
#ifndef WEIR_ENGINE_WATCHDOG_H
#define WEIR_ENGINE_WATCHDOG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/clock.h"
#include "util/err.h"

#define WATCHDOG_GRACE_NS NS_PER_S

struct engine;

/* X(name): what is due for a run. */
#define WATCHDOG_ACTS(X) X(NOTHING) X(STOP) X(WRITE_OFF)

enum watchdog_act {
#define WATCHDOG_ACT_ENUM(name) WATCHDOG_##name,
    WATCHDOG_ACTS(WATCHDOG_ACT_ENUM)
#undef WATCHDOG_ACT_ENUM
};

/* Of a run since `began_ns`, which has been asked to stop or not; *next_ns is when to look again,
 * CLOCK_NEVER once it is to be written off. */
enum watchdog_act watchdog_judge(uint64_t began_ns, uint64_t limit_ns, bool asked, uint64_t now_ns,
                                 uint64_t *next_ns);

struct watchdog {
    struct engine *engine;
    pthread_mutex_t lock; /* Guards the next four. */
    pthread_cond_t changed;
    pthread_t thread;
    bool started;
    bool stopping;
    /* It looks by then; CLOCK_NEVER: not by itself.  Written under the lock. */
    _Atomic uint64_t wake_ns;
};

void watchdog_init(struct watchdog *dog, struct engine *engine);

/* Starts the thread where it is not.  WEIR_ENOMEM: the system has none left. */
WEIR_MUST_USE enum weir_status watchdog_start(struct watchdog *dog, struct weir_err *err);

/* Any thread: a run may have to be looked at by then.  What the look goes by was stored before,
 * sequentially consistent. */
void watchdog_note(struct watchdog *dog, uint64_t due_ns);

void watchdog_finish(struct watchdog *dog); /* Before the pools go. */

#endif
