/*
 * loop.h — one event loop, one thread, and what it owns.
 *
 * A loop owns its listeners, connections and exchanges, and every request that
 * was submitted from it before and after its time in the engine.  Nothing on a
 * loop blocks.  Other threads reach it through its mailbox only.
 *
 * One turn of a loop: read sockets and fire timers, receive mail, then the turn hooks in order of
 * registration (mail that they send to their own loop is received in the same turn), then one write
 * per connection that has something to say.  A loop with nothing to do sleeps without waking up,
 * but where requests come one close behind the other it first looks for more (look.h); with spin_ns
 * it does so behind every turn, at the price of a processor that is busy between requests.  Where
 * its owner says that nothing could be done about what sockets bring, it lets them wait (moderation),
 * so that one turn serves many requests.
 */
#ifndef WEIR_NET_LOOP_H
#define WEIR_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "net/look.h"
#include "util/clock.h"
#include "util/err.h"
#include "util/heap.h"
#include "util/limits.h"
#include "util/list.h"
#include "util/mailbox.h"

struct http_net; /* The connections' part of a loop, known to conn.h. */

/* Asked at the end of a turn in which all exchanges wait for their handler's answer: until when
 * sockets may wait, 0: not at all.  Mail and times go on. */
typedef uint64_t loop_moderate_fn(void *context);

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

/* Bulk work off the loop (large JSON, compression, file reads): `run` on a worker thread, then
 * `done` on the loop.  Both are always called, once.  Workers are few and shared by all loops. */
struct loop_work {
    uv_work_t request;
    void (*run)(struct loop_work *self);
    void (*done)(struct loop_work *self);
};

/* Owned by the thread in loop_run(); before and after it, by whoever calls init and finish. */
struct loop {
    uv_loop_t uv;
    uint64_t now_ns;    /* Monotonic; read when a turn begins. */
    uint64_t came_ns;   /* What this turn reads came then or later: now_ns less waited_ns. */
    uint64_t waited_ns; /* So long sockets had to wait before the next turn. */
    const struct limits *limits;
    struct mailbox mailbox; /* Of struct loop_mail. */
    int wake_fd;            /* An eventfd: see loop_wake(). */
    uv_poll_t wake;
    uv_prepare_t turn;
    uv_timer_t timer;
    struct heap timers; /* Of struct loop_timer. */
    uint64_t timer_ns;  /* When `timer` fires; CLOCK_NEVER when it is not started. */
    struct list hooks;
    struct list dirty; /* Connections with something to write. */
    struct list connections;
    uint64_t connection_count;
    struct http_net *net;    /* NULL before the first listener. */
    void *user;              /* The server's per-loop context. */
    bool fresh;              /* now_ns was read in this turn. */
    uint32_t ended_count;    /* Exchanges that ended in this turn. */
    uint64_t exchange_count; /* And those that have not. */
    uint64_t asked_count;    /* Of these, those that wait for their handler's answer. */
    uint64_t work_count;     /* Of loop_work(), under way. */
    bool newcomers;          /* libuv does not poll all connections before it next sleeps. */
    struct look look;
    uv_idle_t looking; /* Active while the loop looks for more, and so does not sleep. */
    uint64_t looks_until_ns;
    uint64_t spin_ns;           /* How long to look behind every turn; 0: as `look` says. */
    loop_moderate_fn *moderate; /* NULL: sockets never wait. */
    void *moderate_context;
    _Atomic bool stopping;
};

/* `limits` is borrowed for the loop's life.  WEIR_EIO when the system has no descriptors left. */
WEIR_MUST_USE enum weir_status loop_init(struct loop *loop, const struct limits *limits,
                                         struct weir_err *err);

/* Before loop_run(): sets spin_ns. */
void loop_set_spin(struct loop *loop, uint64_t spin_ns);

/* Before loop_run(). */
void loop_set_moderation(struct loop *loop, loop_moderate_fn *moderate, void *context);

/* Turns until loop_stop(); call on the thread that is to own the loop. */
void loop_run(struct loop *loop);

/* Any thread, but not a signal handler: ends loop_run() after the current turn. */
void loop_stop(struct loop *loop);

/* After loop_run(), on any one thread: closes listeners and connections and turns until the
 * handlers have finished every exchange (canceled ones too).  So whatever holds exchanges must
 * still be able to end them.  Afterwards nothing comes in any more; loop_send() still works. */
void loop_close(struct loop *loop);

/* After loop_close(): one more turn, which waits for something to happen; for those who still have
 * work out. */
void loop_turn_once(struct loop *loop);

/* After loop_close() (or in its place): frees.  No other thread may send any more. */
void loop_finish(struct loop *loop);

/* Any thread: the loop begins another turn. */
void loop_wake(struct loop *loop);

/* Any thread: gives `mail` to the loop. */
void loop_send(struct loop *loop, struct loop_mail *mail);

/* Loop thread only, all below.  Setting a timer that is set moves it. */
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at_ns);
void loop_timer_clear(struct loop *loop, struct loop_timer *timer);
void loop_hook_add(struct loop *loop, struct loop_hook *hook);
void loop_work(struct loop *loop, struct loop_work *work);

/* For callbacks of libuv handles that others put on loop->uv: brings now_ns up to date. */
void loop_turn_begin(struct loop *loop);

#endif
