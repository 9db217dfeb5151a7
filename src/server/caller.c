#include "server/caller.h"

#include <time.h>

#include "util/clock.h"
#include "util/err.h"
#include "util/mem.h"

static void wake(void *context)
{
    struct caller *caller = context;
    pthread_mutex_lock(&caller->lock);
    caller->mail = true;
    pthread_cond_signal(&caller->woken);
    pthread_mutex_unlock(&caller->lock);
}

struct caller *caller_create(struct engine *engine)
{
    struct caller *caller = mem_try_zero(1, sizeof(*caller));
    if (caller == NULL) {
        return NULL;
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&caller->lock, NULL);
    pthread_cond_init(&caller->woken, &monotonic);
    pthread_condattr_destroy(&monotonic);
    home_init(&caller->home, engine, wake, caller);
    return caller;
}

void caller_finish(struct caller *caller)
{
    home_finish(&caller->home);
}

void caller_destroy(struct caller *caller)
{
    pthread_cond_destroy(&caller->woken);
    pthread_mutex_destroy(&caller->lock);
    mem_free(caller);
}

void caller_wait(struct caller *caller)
{
    if (!list_empty(&caller->home.inline_models) || caller->home.kick != 0) {
        /* What came home brought further requests: an ensemble's steps. */
        home_turn(&caller->home);
        return;
    }
    const uint64_t at_ns = home_next_ns(&caller->home);
    const struct timespec at = { .tv_sec = (time_t)(at_ns / NS_PER_S),
                                 .tv_nsec = (long)(at_ns % NS_PER_S) };
    pthread_mutex_lock(&caller->lock);
    int late = 0;
    while (!caller->mail && late == 0) {
        late = at_ns == CLOCK_NEVER ? pthread_cond_wait(&caller->woken, &caller->lock)
                                    : pthread_cond_timedwait(&caller->woken, &caller->lock, &at);
    }
    caller->mail = false;
    pthread_mutex_unlock(&caller->lock);
    home_turn(&caller->home);
}

/* An order to the registry, and that it was carried out. */
struct waited_order {
    struct registry_order order;
    bool done;
};

static void order_done(struct registry_order *order)
{
    ((struct waited_order *)order)->done = true;
}

enum weir_status caller_order(struct caller *caller, struct registry *registry,
                              enum registry_order_kind kind, const char *model,
                              struct weir_err *err)
{
    struct waited_order waited = { .order = {
                                       .home = &caller->home, .name = model, .done = order_done } };
    waited.order.kind = kind;
    registry_order(registry, &waited.order);
    home_turn(&caller->home);
    while (!waited.done) {
        caller_wait(caller);
    }
    return waited.order.status == WEIR_OK
               ? WEIR_OK
               : err_set(err, waited.order.status, "%s", waited.order.err.text);
}

bool caller_models_settled(const struct catalogue *catalogue)
{
    for (uint32_t i = 0; i < catalogue->count; i++) {
        if (!catalogue_entry_is_settled(&catalogue->list[i])) {
            return false;
        }
    }
    return true;
}
