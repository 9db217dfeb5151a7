/*
 * A loop of the api's.
 *
 * Each is a home of the engine's.  Its hook runs at the end of every turn, so that all answers
 * which came home in that turn are written together.
 *
 * Where every executor computes and loops have no processor of their own, each turn takes one from a
 * run, and leaves it with cold caches; what it reads has to wait in any case.  So the sockets wait,
 * until shortly before an executor is free: docs/decisions/0007.
 */
#include <assert.h>
#include <string.h>

#include "api/api.h"
#include "api/call.h"
#include "api/infer_json.h"
#include "api/infer_recall.h"
#include "api/kserve_grpc_job.h"
#include "api/moderation.h"
#include "engine/pool.h"
#include "util/mem.h"

static void receive_wake(struct loop_mail *mail)
{
    struct api_loop *self = list_entry(mail, struct api_loop, wake);
    /* Before the hook looks, so that what is sent from here on wakes again. */
    atomic_store_explicit(&self->woken, false, memory_order_release);
}

/* Any thread: the home has mail. */
static void wake_loop(void *context)
{
    struct api_loop *self = context;
    if (!atomic_exchange_explicit(&self->woken, true, memory_order_acq_rel)) {
        loop_send(self->loop, &self->wake);
    }
}

static void fire_timer(struct loop_timer *timer)
{
    struct api_loop *self = list_entry(timer, struct api_loop, timer);
    self->timer_ns = CLOCK_NEVER; /* The hook at the end of this turn does the rest. */
}

static void set_timer(struct api_loop *self)
{
    const uint64_t next_ns = home_next_ns(&self->home);
    if (next_ns == self->timer_ns) {
        return;
    }
    self->timer_ns = next_ns;
    if (next_ns == CLOCK_NEVER) {
        loop_timer_clear(self->loop, &self->timer);
    } else {
        loop_timer_set(self->loop, &self->timer, next_ns);
    }
}

static void turn(struct loop_hook *hook)
{
    struct api_loop *self = list_entry(hook, struct api_loop, hook);
    home_turn(&self->home);
    if (!list_empty(&self->home.inline_models) || self->home.kick != 0) {
        /* Answering brought further requests; their short runs are for a next round of this
         * turn. */
        wake_loop(self);
    }
    set_timer(self);
    atomic_store_explicit(&self->connections, self->loop->connection_count, memory_order_relaxed);
    const uint64_t now_ns = clock_now_ns(self->api->options.engine->clock);
    if (now_ns > self->loop->now_ns) {
        histogram_observe(&self->turn_time, now_ns - self->loop->now_ns);
    }
}

/* Until when the loop may let its sockets wait.  It is the only one: the end of a run wakes those
 * whose requests it had, and an executor must not sleep while other loops let its work wait. */
static uint64_t moderate(void *context)
{
    const struct api_loop *self = context;
    const struct home *home = &self->home;
    const uint64_t loops = atomic_load_explicit(&self->api->loop_count, memory_order_relaxed);
    if (loops != 1 || home->pending < self->loop->exchange_count ||
        !pool_is_crowded(home->engine->pools[0], loops)) {
        return 0;
    }
    const struct pool_taken taken = home_taken(home);
    return moderation_until_ns(&taken, home->at_once_ns, clock_now_ns(home->engine->clock));
}

void api_loop_attach(struct api_loop *self, struct api *api, struct loop *loop)
{
    const uint32_t index = atomic_load_explicit(&api->loop_count, memory_order_relaxed);
    assert(index < API_LOOPS_MAX);
    memset(self, 0, sizeof *self);
    self->api = api;
    self->loop = loop;
    self->wake.receive = receive_wake;
    self->hook.turn = turn;
    self->timer.fire = fire_timer;
    pulse_init(&self->pulse, loop);
    self->timer_ns = CLOCK_NEVER;
    list_init(&self->spare_jobs);
    self->memories = mem_alloc(API_MEMORIES * sizeof *self->memories);
    self->recalls = mem_alloc(API_RECALLS * sizeof *self->recalls);
    buffer_init(&self->scratch, api->options.limits->response_bytes_max);
    list_init(&self->named);
    list_init(&self->unloaded);
    list_init(&self->streams);
    home_init(&self->home, api->options.engine, wake_loop, self);
    loop->user = self;
    loop_hook_add(loop, &self->hook);
    loop_set_moderation(loop, moderate, self);
    api->loops[index] = self;
    atomic_store_explicit(&api->loop_count, index + 1, memory_order_release);
}

void api_loop_drain(struct api_loop *self)
{
    self->draining = true;
    /* Those that end are taken out by their done(), later or at once. */
    struct list_node *node = list_first(&self->streams);
    while (node != NULL) {
        struct call *call = list_entry(node, struct call, stream);
        node = list_next(&self->streams, node);
        call->grpc->reader->drain(call->grpc);
    }
}

static void receive_tell(struct loop_mail *mail)
{
    struct api_loop *self = list_entry(mail, struct api_loop, tell);
    for (struct list_node *node = list_first(&self->streams); node != NULL;
         node = list_next(&self->streams, node)) {
        struct grpc_call *grpc = list_entry(node, struct call, stream)->grpc;
        if (grpc->reader->tell != NULL) {
            grpc->reader->tell(grpc);
        }
    }
}

void api_loop_tell(struct api_loop *self)
{
    self->tell.receive = receive_tell;
    loop_send(self->loop, &self->tell);
}

void api_loop_detach(struct api_loop *self)
{
    while (self->jobs > 0) {
        loop_turn_once(self->loop); /* Their calls are gone; they come home all the same. */
    }
    kserve_grpc_job_finish_loop(self);
    home_finish(&self->home);
    buffer_finish(&self->scratch);
    mem_free(self->memories);
    mem_free(self->recalls);
}
