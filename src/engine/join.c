#include "engine/join.h"

#include <assert.h>

#include "engine/pool_impl.h"
#include "engine/stats.h"
#include "util/map.h"

static struct request *follower_of(struct list_node *node)
{
    return list_entry(node, struct request, line);
}

static struct bytes name_of(const struct request *request)
{
    return (struct bytes){ (const char *)request->key.words, sizeof(request->key.words) };
}

static void retire(struct request *leader)
{
    (void)map_remove(&leader->model->joins, name_of(leader));
    leader->leads = false;
}

bool join_attach(struct pool *pool, struct request *request)
{
    struct request *leader = map_get(&request->model->joins, name_of(request));
    if (leader == NULL) {
        return false;
    }
    if (leader->state == REQUEST_WAITING && request->class < leader->class) {
        line_remove(&leader->model->line, leader);
        leader->class = request->class; /* The most urgent counts. */
        line_push(&leader->model->line, leader);
        pool_place(pool, leader->model, request->times.submitted_ns);
    }
    request->state = REQUEST_JOINED;
    request->leader = leader;
    list_append(&leader->followers, &request->line);
    pool->joined++;
    atomic_fetch_add_explicit(&request->model->stats.joined, 1, memory_order_relaxed);
    return true;
}

void join_lead(struct request *request)
{
    list_init(&request->followers);
    /* Without memory for the entry it runs alone. */
    request->leads = map_add(&request->model->joins, name_of(request), request) == WEIR_OK;
}

/* JOINED -> ENDED without an answer. */
static void drop(struct request *request, enum weir_status status, uint64_t now_ns)
{
    list_remove(&request->line);
    request->state = REQUEST_ENDED;
    request->times.ended_ns = now_ns;
    request->status = err_set(&request->err, status, "%s", pool_stop_text(status));
}

static void end_follower(struct pool *pool, struct request *request, enum weir_status status,
                         uint64_t now_ns, struct list *ended)
{
    drop(request, status, now_ns);
    pool->joined--;
    stats_count_failure(&request->model->stats, status, now_ns - request->times.submitted_ns);
    list_append(ended, &request->line);
}

static enum weir_status lateness(const struct request *request, uint64_t now_ns)
{
    return request->deadline_ns <= now_ns ? WEIR_ETIMEOUT : WEIR_EFULL;
}

/* The first follower that is not late, or NULL. */
static struct request *heir_of(struct pool *pool, struct request *leader, uint64_t now_ns,
                               struct list *ended)
{
    for (struct list_node *n = list_first(&leader->followers); n != NULL;
         n = list_first(&leader->followers)) {
        struct request *request = follower_of(n);
        if (request->leave_by_ns > now_ns) {
            list_remove(n);
            return request;
        }
        end_follower(pool, request, lateness(request, now_ns), now_ns, ended);
    }
    return NULL;
}

void join_hand_over(struct pool *pool, struct request *leader, uint64_t now_ns, struct list *ended)
{
    retire(leader);
    struct request *heir = heir_of(pool, leader, now_ns, ended);
    if (heir == NULL) {
        return;
    }
    heir->class = leader->class;
    pool->joined--;
    pool_line_up(pool, heir, now_ns);
    join_lead(heir);
    list_splice(&heir->followers, &leader->followers);
    for (struct list_node *n = list_first(&heir->followers); n != NULL;
         n = list_next(&heir->followers, n)) {
        follower_of(n)->leader = heir;
    }
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void copy_answer(const struct request *leader, struct request *follower, uint64_t now_ns)
{
    const uint64_t from_ns = follower->times.submitted_ns;
    list_remove(&follower->line);
    follower->state = REQUEST_ENDED;
    follower->status = leader->status;
    follower->times.taken_ns = later(from_ns, leader->times.taken_ns);
    follower->times.gathered_ns = later(from_ns, leader->times.gathered_ns);
    follower->times.computed_ns = later(from_ns, leader->times.computed_ns);
    follower->times.ended_ns = later(from_ns, now_ns);
    follower->batch_rows = leader->batch_rows;
    follower->keyed = false; /* The leader's answer is kept, once. */
    if (leader->status != WEIR_OK) {
        (void)err_set(&follower->err, leader->status, "%s", leader->err.text);
        return;
    }
    for (uint32_t i = 0; i < leader->model->signature->output_count; i++) {
        follower->outputs[i] = leader->outputs[i];
        block_acquire(leader->outputs[i].block);
    }
}

void join_answer(struct pool *pool, struct request *leader, uint64_t now_ns, struct list *ended)
{
    retire(leader);
    for (struct list_node *n = list_first(&leader->followers); n != NULL;
         n = list_first(&leader->followers)) {
        struct request *follower = follower_of(n);
        if (follower->leave_by_ns <= leader->times.taken_ns) {
            /* Its home has not come to it yet. */
            drop(follower, lateness(follower, now_ns), now_ns);
        } else {
            copy_answer(leader, follower, now_ns);
        }
        list_append(ended, n);
        pool->joined--;
    }
}

bool join_goes_on(struct request *leader)
{
    if (!leader->leads) {
        return false;
    }
    if (list_empty(&leader->followers)) {
        retire(leader); /* Its run may be terminated: whoever comes now needs another one. */
        return false;
    }
    return true;
}

bool join_stop(struct pool *pool, struct request *request, enum weir_status why, uint64_t now_ns,
               struct list *ended)
{
    struct request *leader = request->leader;
    assert(request->state == REQUEST_JOINED);
    const bool runs = leader->state == REQUEST_RUNNING;
    if (runs && why == WEIR_EFULL) {
        return true;
    }
    end_follower(pool, request, why, now_ns, ended);
    if (runs && leader->stop != WEIR_OK && !join_goes_on(leader)) {
        pool_unwant(leader);
    }
    return false;
}
