/*
 * Dynamic batching.
 *
 * The oldest request leads; requests of its shape ride along in order of arrival.
 * The batch is whatever waits at the moment an executor is free: a timer was
 * measured to gain next to nothing and to cost a lot, so the delay is 0 unless
 * somebody configures one.
 *
 * The walk stops at the first rider that does not fit instead of looking for a
 * smaller one behind it: filling the gaps would let small requests overtake a
 * large one without end.
 */
#include "engine/batcher.h"

#include <assert.h>

#include "engine/request.h"
#include "util/clock.h"

/* Riders and rows counted so far. */
struct load {
    uint32_t count;
    uint64_t rows;
};

static const struct request *request_at(const struct list_node *node)
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

/* Everything of the leader's shape that fits; `exact` is the load when it last matched a
 * preferred size. */
static struct load survey(const struct list *waiting, const struct batch_rules *rules,
                          struct load *exact, bool *full)
{
    const struct request *leader = request_at(list_first(waiting));
    struct load load = { 1, leader->rows };
    *full = !leader->batchable || leader->rows >= rules->rows_max;
    *exact = preferred_reached(rules, load.rows) == load.rows ? load : (struct load){ 0 };
    for (const struct list_node *node = list_next(waiting, &leader->line); node != NULL && !*full;
         node = list_next(waiting, node)) {
        const struct request *rider = request_at(node);
        if (!rider->batchable || rider->shape_key != leader->shape_key) {
            continue;
        }
        if (rider->rows > rules->rows_max - load.rows) {
            *full = true;
            break;
        }
        load.count++;
        load.rows += rider->rows;
        *full = load.rows == rules->rows_max;
        if (preferred_reached(rules, load.rows) == load.rows) {
            *exact = load;
        }
    }
    return load;
}

struct batch_plan batcher_plan(const struct list *waiting, const struct batch_rules *rules,
                               uint64_t now_ns)
{
    assert(!list_empty(waiting));
    const struct request *leader = request_at(list_first(waiting));
    struct load exact;
    bool full;
    struct load load = survey(waiting, rules, &exact, &full);
    const bool preferred = exact.count > 0;
    if (preferred && !full) {
        load = exact;
    }
    const uint64_t waits_until = clock_add(leader->times.submitted_ns, rules->delay_ns);
    return (struct batch_plan){
        .count = load.count,
        .rows = load.rows,
        .shape_key = leader->shape_key,
        .leave_ns = full || preferred || rules->delay_ns == 0 ? now_ns : waits_until,
    };
}
