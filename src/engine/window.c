/*
 * The window's rule.
 *
 * A request may lead the next batch when its deadline allows a run, reserve included, of as many
 * rows as are useful: those of the batch that keeps up with its own kind of deadline when there is
 * no end of requests (pace_rows_useful), but no more than wait behind it.  So nobody is let go
 * while the whole line fits one run, and each is measured by its own deadline where they differ.
 */
#include "engine/window.h"

#include <stdbool.h>

#include "engine/request.h"
#include "util/clock.h"

static const struct request *request_at(const struct list_node *node)
{
    return list_entry(node, struct request, due);
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t left_ns(const struct request *request, uint64_t now_ns)
{
    return request->deadline_ns > now_ns ? request->deadline_ns - now_ns : 0;
}

static bool rides_with(const struct request *request, const struct request *leader)
{
    return request == leader ||
           (leader->batchable && request->batchable && request->shape_key == leader->shape_key);
}

/* Rows of the head's shape. */
static uint64_t rows_like(const struct list *waiting, const struct request *head)
{
    uint64_t rows = 0;
    for (const struct list_node *n = list_first(waiting); n != NULL; n = list_next(waiting, n)) {
        rows += rides_with(request_at(n), head) ? request_at(n)->rows : 0;
    }
    return rows;
}

static bool may_lead(const struct request *request, const struct window_rules *rules, uint64_t rest,
                     uint64_t now_ns)
{
    if (rest <= request->rows) {
        return !window_hopeless(request, &rules->cost,
                                now_ns); /* Nobody is better off without it. */
    }
    const uint64_t within = pace_rows_within(&rules->cost, left_ns(request, now_ns));
    const uint64_t allowed_ns = request->deadline_ns - request->times.submitted_ns;
    const uint64_t useful = pace_rows_useful(&rules->cost, allowed_ns);
    return within >= request->rows && within >= smaller(smaller(useful, rest), rules->rows_max);
}

/* The first from `node` on that may be let go for a run of that leader's, or NULL. */
static const struct request *next_guest(const struct list *waiting, const struct list_node *node,
                                        const struct request *leader)
{
    while (node != NULL &&
           (request_at(node)->class < leader->class || !rides_with(request_at(node), leader))) {
        node = list_next(waiting, node);
    }
    return node == NULL ? NULL : request_at(node);
}

uint32_t window_skip(const struct list *waiting, const struct request *leader,
                     uint64_t waiting_rows, const struct window_rules *rules, uint64_t now_ns)
{
    const struct request *request = next_guest(waiting, list_first(waiting), leader);
    const uint64_t most = smaller(waiting_rows, rules->rows_max);
    if (request == NULL || pace_rows_within(&rules->cost, left_ns(request, now_ns)) >= most) {
        return 0;
    }
    uint64_t rest = rows_like(waiting, leader);
    uint32_t skip = 0;
    while (request != NULL && request->deadline_ns != CLOCK_NEVER &&
           !may_lead(request, rules, rest, now_ns)) {
        rest -= request->rows;
        skip++;
        request = next_guest(waiting, list_next(waiting, &request->due), leader);
    }
    return skip;
}

uint64_t window_rows(const struct request *leader, const struct window_rules *rules,
                     uint64_t now_ns)
{
    if (leader->deadline_ns == CLOCK_NEVER) {
        return rules->rows_max;
    }
    const uint64_t within = pace_rows_within(&rules->cost, left_ns(leader, now_ns));
    const uint64_t most = smaller(within, rules->rows_max);
    return most > leader->rows ? most : leader->rows;
}

bool window_hopeless(const struct request *request, const struct pace_cost *cost, uint64_t at_ns)
{
    return request->deadline_ns != CLOCK_NEVER &&
           clock_add(at_ns, pace_run_ns(cost, request->rows)) > request->deadline_ns;
}
