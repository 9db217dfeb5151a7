/*
 * A home's turn.
 *
 * Mail first, so that what has ended no longer has a deadline; then deadlines;
 * then the short runs that this turn's requests made worth running right here;
 * last one wake-up per pool for everything else the turn put in line.
 *
 * What a home sends to itself (an inline run ending, a withdrawn request) does
 * not go through the mailbox: no atomic, no wake-up.
 */
#include "engine/home.h"

#include <assert.h>
#include <sched.h>

#include "engine/catalogue.h"
#include "engine/engine.h"
#include "engine/pool.h"

#define INLINE_TURN_NS NS_PER_MS /* A loop computes no longer than this in one turn. */

/* The home whose turn this thread is in. */
static _Thread_local struct home *turning;

void home_init(struct home *home, struct engine *engine, mailbox_wake_fn *wake, void *context)
{
    *home = (struct home){ .engine = engine };
    mailbox_init(&home->mailbox, wake, context);
    list_init(&home->inline_models);
    pthread_mutex_lock(&engine->lock);
    list_append(&engine->homes, &home->node);
    pthread_mutex_unlock(&engine->lock);
}

void home_finish(struct home *home)
{
    assert(home->pending == 0);
    pthread_mutex_lock(&home->engine->lock);
    list_remove(&home->node);
    pthread_mutex_unlock(&home->engine->lock);
    while (atomic_load_explicit(&home->senders, memory_order_acquire) > 0) {
        sched_yield(); /* A wake-up is a few microseconds. */
    }
    home_turn(home); /* What others sent before the home was off the list. */
    catalogue_release(home->catalogue);
    *home = (struct home){ 0 };
}

void home_rest(struct home *home)
{
    catalogue_release(home->catalogue);
    home->catalogue = NULL;
}

void home_send_chain(struct home *home, struct mail *first, struct mail *last)
{
    if (turning != home) {
        /* The owner may take the mail and finish the home before the wake-up has returned. */
        atomic_fetch_add_explicit(&home->senders, 1, memory_order_relaxed);
        (void)mailbox_send_chain(&home->mailbox, first, last);
        atomic_fetch_sub_explicit(&home->senders, 1, memory_order_release);
        return;
    }
    struct mail **end = &home->local;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    last->next = NULL;
    *end = first;
}

void home_send(struct home *home, struct home_mail *mail)
{
    mail->mail.next = NULL;
    home_send_chain(home, &mail->mail, &mail->mail);
}

static void deliver(struct mail *mail)
{
    while (mail != NULL) {
        struct mail *next = mail->next; /* Delivering gives the memory away. */
        struct home_mail *message = list_entry(mail, struct home_mail, mail);
        message->deliver(message);
        mail = next;
    }
}

/* Everything that has come, and what delivering it brought about. */
static void deliver_all(struct home *home)
{
    for (;;) {
        struct mail *received = mailbox_receive(&home->mailbox);
        struct mail *local = home->local;
        home->local = NULL;
        if (local == NULL && received == NULL) {
            return;
        }
        deliver(received); /* Of a run that was written off here: before its end. */
        deliver(local);
    }
}

/* The queue's time-out comes first where there is one; a request that runs by then has only its
 * deadline left. */
static void expire_one(struct home *home, struct request *request, uint64_t now_ns)
{
    struct pool *pool = request->model->pool;
    if (request->deadline_ns <= now_ns) {
        if (pool_stop_request(pool, request, WEIR_ETIMEOUT) && request->late != NULL) {
            request->late(request);
        }
    } else if (pool_stop_request(pool, request, WEIR_EFULL) &&
               request->deadline_ns != CLOCK_NEVER) {
        request->deadline.key = request->deadline_ns;
        heap_push(&home->deadlines, &request->deadline);
    }
}

static void expire(struct home *home, uint64_t now_ns)
{
    for (struct heap_node *top = heap_top(&home->deadlines); top != NULL && top->key <= now_ns;
         top = heap_top(&home->deadlines)) {
        heap_remove(&home->deadlines, top);
        expire_one(home, list_entry(top, struct request, deadline), now_ns);
    }
}

/* Runs one model's line here while runs are short and the turn has time left.  Returns the time. */
static uint64_t run_inline(struct home *home, struct model *model, uint64_t now_ns,
                           uint64_t until_ns)
{
    struct pool *pool = model->pool;
    while (now_ns < until_ns) {
        struct instance *instance = pool_pull_model(pool, model, now_ns);
        if (instance == NULL) {
            break;
        }
        batch_run(instance);
        atomic_fetch_add_explicit(&model->stats.inline_runs, instance->batch.runs,
                                  memory_order_relaxed);
        now_ns = clock_now_ns(home->engine->clock);
        home->at_once_ns = now_ns;
        pool_settle(pool, instance, now_ns);
    }
    pool_release_inline(pool, model, now_ns);
    return now_ns;
}

static void kick(struct home *home)
{
    for (uint32_t i = 0; home->kick != 0; i++, home->kick >>= 1) {
        if ((home->kick & 1) != 0) {
            pool_kick(home->engine->pools[i]);
        }
    }
}

void home_turn(struct home *home)
{
    struct home *outer = turning;
    turning = home;
    deliver_all(home);
    if (heap_top(&home->deadlines) != NULL) {
        expire(home, clock_now_ns(home->engine->clock));
    }
    if (!list_empty(&home->inline_models)) {
        uint64_t now_ns = clock_now_ns(home->engine->clock);
        const uint64_t until_ns = now_ns + INLINE_TURN_NS;
        for (struct list_node *node = list_pop(&home->inline_models); node != NULL;
             node = list_pop(&home->inline_models)) {
            now_ns =
                run_inline(home, list_entry(node, struct model, inline_node), now_ns, until_ns);
        }
    }
    deliver_all(home);
    kick(home);
    turning = outer;
}

struct pool_taken home_taken(const struct home *home)
{
    struct pool_taken first = { .until_ns = CLOCK_NEVER };
    for (uint32_t i = 0; i < home->engine->pool_count; i++) {
        const struct pool_taken taken = pool_taken(home->engine->pools[i]);
        first = taken.until_ns < first.until_ns ? taken : first;
    }
    return first;
}

uint64_t home_next_ns(const struct home *home)
{
    const struct heap_node *top = heap_top(&home->deadlines);
    return top == NULL ? CLOCK_NEVER : top->key;
}
