/*
 * home.h — where requests come from and where they end.
 *
 * A home is a mailbox with a wake function and a heap of deadlines; a loop, a
 * library caller and (later) the task table each own one.  One thread at a time
 * owns a home and makes all calls here, except `wake`, which other threads call.
 */
#ifndef WEIR_ENGINE_HOME_H
#define WEIR_ENGINE_HOME_H

#include <stdatomic.h>
#include <stdint.h>

#include "engine/request.h"
#include "util/heap.h"
#include "util/list.h"
#include "util/mailbox.h"

struct engine;
struct pool_taken; /* pool.h */
struct catalogue;

struct home {
    struct engine *engine;
    struct mailbox mailbox;      /* Of struct home_mail, from other threads. */
    _Atomic uint32_t senders;    /* Threads between sending to this home and having woken it. */
    struct mail *local;          /* The same from the home's own thread, newest first. */
    struct heap deadlines;       /* Of request.deadline: requests not yet ended. */
    struct list_node node;       /* In the engine's list, under its lock. */
    struct catalogue *catalogue; /* The snapshot this home reads; held. */
    uint64_t catalogue_generation;
    struct home_mail refresh;  /* The registry's: tells an idle home to let an old snapshot go. */
    _Atomic bool refreshing;   /* That mail is on its way. */
    uint64_t pending;          /* Requests submitted and not ended. */
    struct list inline_models; /* Of model.inline_node: short work this home runs itself. */
    uint64_t kick;       /* Bit per pool: there is work for its executors since the last turn. */
    uint64_t at_once_ns; /* The last time that a request was answered here without an executor. */
};

/* `wake(context)` is called by other threads when there is mail: it must make the owner call
 * home_turn() soon. */
void home_init(struct home *home, struct engine *engine, mailbox_wake_fn *wake, void *context);
/* pending must be 0.  Leaves the engine's list first, then delivers the mail that is still there
 * and lets the snapshot go. */
void home_finish(struct home *home);

/* Delivers mail, expires deadlines and runs small batches inline (see pool.h).  The owner calls it
 * when woken, when home_next_ns() is reached and, on a loop, at the end of each turn. */
void home_turn(struct home *home);

/* When home_turn() is due at the latest; CLOCK_NEVER when nothing is timed. */
uint64_t home_next_ns(const struct home *home);

/* Which executor is expected to be free first, of all devices': until then nothing that comes can
 * begin. */
struct pool_taken home_taken(const struct home *home);

/* Lets the catalogue snapshot go, so that an idle home keeps no model loaded. */
void home_rest(struct home *home);

/* Any thread: `mail` is delivered on the home's thread. */
void home_send(struct home *home, struct home_mail *mail);

/* Any thread: a chain of struct home_mail linked through mail.next, ending with NULL. */
void home_send_chain(struct home *home, struct mail *first, struct mail *last);

#endif
