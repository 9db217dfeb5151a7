/*
 * loop.h — one event loop, one thread, and what it owns.
 *
 * A loop owns its listeners, connections and exchanges, and every request that
 * was submitted from it before and after its time in the engine.  Nothing on a
 * loop blocks.  Other threads reach it through its mailbox only.
 *
 * One turn of a loop: receive mail, read sockets, then the turn hooks in order
 * of registration, then one write per connection that has something to say.
 */
#ifndef WEIR_NET_LOOP_H
#define WEIR_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "util/clock.h"
#include "util/err.h"
#include "util/heap.h"
#include "util/limits.h"
#include "util/list.h"
#include "util/mailbox.h"

/* A message to a loop: embed it, set `receive`, loop_send().  Runs on the loop's thread. */
struct loop_mail {
    struct mail mail;
    void (*receive)(struct loop_mail *self);
};

/* A time on a loop: embed it, loop_timer_set().  Fires once, on the loop's thread. */
struct loop_timer {
    struct heap_node node;
    void (*fire)(struct loop_timer *self);
};

/* Called at the end of each turn, before the writes. */
struct loop_hook {
    struct list_node node;
    void (*turn)(struct loop_hook *self);
};

/* Bulk work off the loop (large JSON, compression, file reads): `run` on a worker thread, then `done`
 * on the loop.  Both are always called, once.  Workers are few and shared by all loops. */
struct loop_work {
    uv_work_t request;
    void (*run)(struct loop_work *self);
    void (*done)(struct loop_work *self);
};

struct loop {
    uv_loop_t uv;
    uint64_t now_ns;               /* Monotonic; refreshed when a turn's reads begin. */
    const struct limits *limits;
    struct mailbox mailbox;        /* Of struct loop_mail. */
    uv_async_t wake;
    uv_check_t check;
    uv_timer_t timer;
    struct heap timers;            /* Of struct loop_timer. */
    struct list hooks;
    struct list dirty;             /* Connections with something to write. */
    struct list connections;
    uint64_t connection_count;
    void *user;                    /* The server's per-loop context. */
    bool stopping;
};

/* `limits` is borrowed for the loop's life.  WEIR_EIO when the system has no descriptors left. */
WEIR_MUST_USE enum weir_status loop_init(struct loop *loop, const struct limits *limits,
                                         struct weir_err *err);

/* Turns until loop_stop(); call on the thread that is to own the loop. */
void loop_run(struct loop *loop);

/* Any thread: ends loop_run() after the current turn. */
void loop_stop(struct loop *loop);

/* After loop_run(): closes what is left and frees. */
void loop_finish(struct loop *loop);

/* Any thread: gives `mail` to the loop. */
void loop_send(struct loop *loop, struct loop_mail *mail);

/* Loop thread only, all below.  Setting a timer that is set moves it. */
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at_ns);
void loop_timer_clear(struct loop *loop, struct loop_timer *timer);
void loop_hook_add(struct loop *loop, struct loop_hook *hook);
void loop_work(struct loop *loop, struct loop_work *work);

#endif
