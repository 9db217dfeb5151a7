/*
 * Dynamic batching.
 *
 * The leader was chosen before; requests of its shape ride along in the order in which they are
 * offered.  The batch is whatever waits at the moment an executor is free: a timer
 * was measured to gain next to nothing and to cost a lot, so the delay is 0
 * unless somebody configures one.
 *
 * The walk stops at the first rider that does not fit instead of looking for a
 * smaller one behind it: filling the gaps would let small requests overtake a
 * large one without end.
 *
 * Who rides must be in time with those that ride already, and does not let others ride that
 * would make it late.  What the leader's deadline allows is the caller's to say (rows_max).
 */
#include "engine/batcher.h"

#include <assert.h>

#include "engine/pace.h"
#include "engine/request.h"
#include "util/clock.h"

static struct request *request_at(const struct list_node *node)
{
    return list_entry(node, struct request, line);
}

/* The largest preferred size that `rows` reaches, or 0. */
static uint64_t preferred_reached(const struct batch_rules *rules, uint64_t rows)
{
    uint64_t reached = 0;
    for (uint32_t i = 0; i < rules->preferred_count; i++) {
        reached = rules->preferred[i] <= rows ? rules->preferred[i] : reached;
    }
    return reached;
}

/* The most rows of a run that this request's deadline allows. */
static uint64_t rows_due(const struct batcher *b, const struct request *request)
{
    const uint64_t deadline_ns = request->deadline_ns;
    if (deadline_ns == CLOCK_NEVER || b->rules->cost == NULL) {
        return UINT64_MAX;
    }
    return pace_rows_within(b->rules->cost, deadline_ns > b->now_ns ? deadline_ns - b->now_ns : 0);
}

void batcher_note(struct batcher *b, const struct request *rider)
{
    const uint64_t arrived_ns = rider->times.submitted_ns;
    b->oldest_ns = arrived_ns < b->oldest_ns ? arrived_ns : b->oldest_ns;
    if (preferred_reached(b->rules, b->load.rows) == b->load.rows) {
        b->exact = b->load;
    }
}

void batcher_begin(struct batcher *b, const struct batch_rules *rules, struct request *leader,
                   uint64_t now_ns)
{
    const uint64_t most = rules->rows_max;
    *b = (struct batcher){
        .rules = rules,
        .now_ns = now_ns,
        .leader = leader,
        .last = leader,
        .load = { 1, leader->rows },
        .shape_key = leader->shape_key,
        .rows_fit = rules->rows_short > 0 && rules->rows_short < most ? rules->rows_short : most,
        .oldest_ns = leader->times.submitted_ns,
        .patient = rules->delay_ns > 0 || rules->preferred_count > 0,
    };
    b->full = !leader->batchable || leader->rows >= b->rows_fit;
    batcher_note(b, leader);
}

bool batcher_in_time(struct batcher *b, const struct request *request, uint64_t rows)
{
    const uint64_t due = rows_due(b, request);
    if (due < rows) {
        return false;
    }
    b->rows_fit = due < b->rows_fit ? due : b->rows_fit;
    return true;
}

void batcher_narrow(struct batcher *b, uint64_t rows)
{
    const uint64_t most = rows < UINT64_MAX - b->load.rows ? b->load.rows + rows : UINT64_MAX;
    b->rows_fit = most < b->rows_fit ? most : b->rows_fit;
    b->full = b->full || b->load.rows >= b->rows_fit;
}

struct batch_plan batcher_end(const struct batcher *b)
{
    const bool preferred = b->exact.count > 0;
    const struct batch_load load = preferred && !b->full ? b->exact : b->load;
    const uint64_t delay_ns = b->rules->delay_ns;
    return (struct batch_plan){
        .leader = b->leader,
        .count = load.count,
        .rows = load.rows,
        .shape_key = b->leader->shape_key,
        .leave_ns =
            b->full || preferred || delay_ns == 0 ? b->now_ns : clock_add(b->oldest_ns, delay_ns),
    };
}

struct batch_plan batcher_plan(const struct list *waiting, const struct batch_rules *rules,
                               uint64_t now_ns)
{
    assert(!list_empty(waiting));
    struct batcher b;
    batcher_begin(&b, rules, request_at(list_first(waiting)), now_ns);
    for (const struct list_node *node = list_next(waiting, list_first(waiting));
         node != NULL && !b.full; node = list_next(waiting, node)) {
        (void)batcher_offer(&b, request_at(node));
    }
    return batcher_end(&b);
}
