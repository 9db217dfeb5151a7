/*
 * Lanes.
 *
 * Most models serve one class and one client at a time: then there is one lane,
 * the class's own, and everything below is the first or last element of a list.
 * Further lanes are allocated; without memory for one, a request stands in the class's own lane
 * with somebody else, and is still charged to whom it is for.
 *
 * A lane holds requests with a deadline apart from those without, so that both kinds come in at
 * the tail; its order is the two merged.
 */
#include "engine/line.h"

#include <assert.h>

#include "engine/request.h"
#include "util/clock.h"
#include "util/mem.h"

static struct request *request_at(const struct list_node *node)
{
    return list_entry(node, struct request, line);
}

static struct lane *lane_at(const struct heap_node *node)
{
    return list_entry(node, struct lane, turn);
}

static bool is_timed(const struct request *request)
{
    return request->deadline_ns != CLOCK_NEVER;
}

static void lane_init(struct lane *lane, struct line_class *class)
{
    *lane = (struct lane){ .class = class };
    list_init(&lane->timed);
    list_init(&lane->untimed);
}

void line_init(struct model_line *line)
{
    *line = (struct model_line){ 0 };
    list_init(&line->due);
    for (uint32_t i = 0; i < ORDER_CLASSES; i++) {
        list_init(&line->classes[i].all);
        lane_init(&line->classes[i].own, &line->classes[i]);
    }
}

/* A zeroed lane for the class, or NULL. */
static struct lane *new_lane(struct line_class *class)
{
    if (class->own.client == NULL) {
        return &class->own;
    }
    struct lane *lane = mem_try_alloc(sizeof(*lane));
    if (lane != NULL) {
        lane_init(lane, class);
    }
    return lane;
}

static struct lane *open_lane(struct line_class *class, struct order_client *client)
{
    struct lane *lane = new_lane(class);
    if (lane == NULL) {
        return &class->own;
    }
    lane->client = client;
    lane->turn.key = client->time;
    heap_push(&class->lanes, &lane->turn);
    list_append(&client->lanes, &lane->node);
    list_append(&class->all, &lane->peer);
    class->lane_count++;
    return lane;
}

static void close_lane(struct lane *lane)
{
    struct line_class *class = lane->class;
    heap_remove(&class->lanes, &lane->turn);
    list_remove(&lane->node);
    list_remove(&lane->peer);
    class->lane_count--;
    class->recent = class->recent == lane ? NULL : class->recent;
    lane->client = NULL;
    if (lane != &class->own) {
        mem_free(lane);
    }
}

static struct lane *lane_of(struct line_class *class, struct order_client *client)
{
    if (class->recent != NULL && class->recent->client == client) {
        return class->recent;
    }
    for (struct list_node *n = list_first(&client->lanes); n != NULL;
         n = list_next(&client->lanes, n)) {
        struct lane *lane = list_entry(n, struct lane, node);
        if (lane->class == class) {
            return lane;
        }
    }
    return open_lane(class, client);
}

/* Each from the tail, where nearly all belong. */
static void stand_due(struct list *list, struct request *request)
{
    struct list_node *before = &list->head;
    while (before->prev != &list->head && request_at(before->prev)->due_ns > request->due_ns) {
        before = before->prev;
    }
    list_insert_before(before, &request->line);
}

static void stand_by_deadline(struct list *due, struct request *request)
{
    struct list_node *before = &due->head;
    while (before->prev != &due->head &&
           list_entry(before->prev, struct request, due)->deadline_ns > request->deadline_ns) {
        before = before->prev;
    }
    list_insert_before(before, &request->due);
}

void line_push(struct model_line *line, struct request *request)
{
    struct line_class *class = &line->classes[request->class];
    struct lane *lane = lane_of(class, request->payer);
    class->recent = lane;
    request->lane = lane;
    if (is_timed(request)) {
        stand_due(&lane->timed, request);
        stand_by_deadline(&line->due, request);
    } else {
        stand_due(&lane->untimed, request);
    }
    line->mask |= 1U << request->class;
}

void line_remove(struct model_line *line, struct request *request)
{
    struct lane *lane = request->lane;
    list_remove(&request->line);
    if (is_timed(request)) {
        list_remove(&request->due);
    }
    request->lane = NULL;
    if (list_empty(&lane->untimed) && list_empty(&lane->timed)) {
        struct line_class *class = lane->class;
        close_lane(lane);
        line->mask &= class->lane_count > 0 ? ~0U : ~(1U << request->class);
    }
}

bool line_take_row(struct model_line *line, const struct request *first, const struct request *last,
                   struct list *to)
{
    struct lane *lane = first->lane;
    const uint32_t class_index = first->class;
    if (is_timed(first) || first->line.prev != &lane->untimed.head) {
        return false;
    }
    struct list_node *rest = last->line.next;
    struct list_node *from = lane->untimed.head.next;
    struct list_node *until = rest->prev;
    lane->untimed.head.next = rest;
    rest->prev = &lane->untimed.head;
    from->prev = to->head.prev;
    until->next = &to->head;
    to->head.prev->next = from;
    to->head.prev = until;
    if (list_empty(&lane->untimed) && list_empty(&lane->timed)) {
        struct line_class *class = lane->class;
        close_lane(lane);
        line->mask &= class->lane_count > 0 ? ~0U : ~(1U << class_index);
    }
    return true;
}

/* The earlier due of two heads, either of which may be NULL. */
static struct request *earlier(const struct list_node *timed, const struct list_node *untimed)
{
    if (timed == NULL || untimed == NULL) {
        return request_at(timed == NULL ? untimed : timed);
    }
    struct request *a = request_at(timed);
    struct request *b = request_at(untimed);
    return a->due_ns <= b->due_ns ? a : b;
}

static struct request *head_of(const struct lane *lane)
{
    return earlier(list_first(&lane->timed), list_first(&lane->untimed));
}

struct request *line_leader(const struct model_line *line, uint32_t class_index)
{
    return head_of(lane_at(heap_top(&line->classes[class_index].lanes)));
}

static void age_lane(struct model_line *line, struct lane *lane, uint64_t ageing_ns,
                     uint64_t now_ns)
{
    for (bool more = true; more;) {
        struct request *first = head_of(lane);
        const uint64_t at_ns = clock_add(first->since_ns, ageing_ns);
        if (at_ns > now_ns) {
            line->age_next_ns = at_ns < line->age_next_ns ? at_ns : line->age_next_ns;
            return;
        }
        more = first->line.next != first->line.prev ||
               (!list_empty(&lane->timed) && !list_empty(&lane->untimed));
        line_remove(line, first); /* The lane goes with the last one. */
        first->class --;
        first->since_ns = now_ns;
        line_push(line, first);
    }
}

void line_age_now(struct model_line *line, uint64_t ageing_ns, uint64_t now_ns)
{
    line->age_next_ns = clock_add(now_ns, ageing_ns);
    for (uint32_t mask = line->mask & ~1U; mask != 0; mask &= mask - 1) {
        const struct list *all = &line->classes[__builtin_ctz(mask)].all;
        struct list_node *next;
        for (struct list_node *n = list_first(all); n != NULL; n = next) {
            next = list_next(all, n);
            age_lane(line, list_entry(n, struct lane, peer), ageing_ns, now_ns);
        }
    }
}

/* --- Riders --- */

/* The one after those that were asked in this walk, or NULL. */
static struct request *ask_next(struct lane *lane)
{
    if (lane->timed_at == NULL && lane->untimed_at == NULL) {
        return NULL;
    }
    struct request *request = earlier(lane->timed_at, lane->untimed_at);
    if (&request->line == lane->timed_at) {
        lane->timed_at = list_next(&lane->timed, lane->timed_at);
    } else {
        lane->untimed_at = list_next(&lane->untimed, lane->untimed_at);
    }
    return request;
}

static void begin_walk(struct lane *lane)
{
    lane->timed_at = list_first(&lane->timed);
    lane->untimed_at = list_first(&lane->untimed);
}

/* One lane: everybody in it, in its order. */
static void gather_lane(struct lane *lane, struct batcher *b)
{
    if (list_empty(&lane->timed)) {
        for (const struct list_node *n = list_first(&lane->untimed); n != NULL && !b->full;
             n = list_next(&lane->untimed, n)) {
            if (request_at(n) != b->leader) {
                (void)batcher_offer(b, request_at(n));
            }
        }
        return;
    }
    begin_walk(lane);
    for (struct request *next = ask_next(lane); next != NULL && !b->full; next = ask_next(lane)) {
        if (next != b->leader) {
            (void)batcher_offer(b, next);
        }
    }
}

/* The next of the lane that rides; NULL: none does any more. */
static struct request *ride_next(struct lane *lane, struct batcher *b)
{
    struct request *next = ask_next(lane);
    while (next != NULL && next != b->leader && !b->full && !batcher_offer(b, next)) {
        next = ask_next(lane);
    }
    return b->full && next != b->last ? NULL : next;
}

/* Several: each time the lane whose client has the least time, were those that ride already
 * charged. */
static void gather_in_turn(struct line_class *class, struct batcher *b, uint64_t walk,
                           uint64_t row_ns)
{
    struct lane *walked = NULL;
    while (!b->full && heap_top(&class->lanes) != NULL) {
        struct lane *lane = lane_at(heap_top(&class->lanes));
        if (lane->walk != walk) {
            lane->walk = walk;
            lane->walked = walked;
            walked = lane;
            begin_walk(lane);
        }
        const struct request *rider = ride_next(lane, b);
        if (rider == NULL) {
            heap_remove(&class->lanes, &lane->turn);
            continue;
        }
        const uint64_t cost = row_ns * rider->rows * ORDER_TIME_PER_NS / lane->client->weight;
        heap_move(&class->lanes, &lane->turn, clock_add(lane->turn.key, cost));
    }
    for (; walked != NULL; walked = walked->walked) {
        heap_move(&class->lanes, &walked->turn, walked->client->time);
    }
}

static void gather_class(struct model_line *line, uint32_t class_index, struct batcher *b,
                         uint64_t row_ns)
{
    struct line_class *class = &line->classes[class_index];
    if (class->lane_count == 1) {
        gather_lane(lane_at(heap_top(&class->lanes)), b);
    } else {
        gather_in_turn(class, b, ++line->walks, row_ns);
    }
}

void line_gather(struct model_line *line, struct batcher *b, uint64_t row_ns, uint64_t rows_guests)
{
    const uint32_t own = b->leader->class;
    if (!b->full) {
        gather_class(line, own, b, row_ns);
    }
    bool narrowed = false;
    for (uint32_t mask = line->mask & ~(1U << own); mask != 0 && !b->full; mask &= mask - 1) {
        const uint32_t class_index = (uint32_t)__builtin_ctz(mask);
        if (class_index > own && !narrowed) {
            batcher_narrow(b, rows_guests);
            narrowed = true;
        }
        if (!b->full) {
            gather_class(line, class_index, b, row_ns);
        }
    }
}

void line_retime_lanes(struct order_client *client)
{
    for (struct list_node *n = list_first(&client->lanes); n != NULL;
         n = list_next(&client->lanes, n)) {
        struct lane *lane = list_entry(n, struct lane, node);
        if (lane->turn.key != client->time) {
            heap_move(&lane->class->lanes, &lane->turn, client->time);
        }
    }
}

/* --- Everybody --- */

static struct request *first_of(const struct lane *lane)
{
    const struct list_node *timed = list_first(&lane->timed);
    return request_at(timed != NULL ? timed : list_first(&lane->untimed));
}

static struct request *first_from(const struct model_line *line, uint32_t class_index)
{
    const uint32_t left = class_index < ORDER_CLASSES ? line->mask >> class_index : 0;
    if (left == 0) {
        return NULL;
    }
    const struct line_class *class = &line->classes[class_index + (uint32_t)__builtin_ctz(left)];
    return first_of(list_entry(list_first(&class->all), struct lane, peer));
}

struct request *line_first(const struct model_line *line)
{
    return first_from(line, 0);
}

struct request *line_next(const struct model_line *line, const struct request *request)
{
    const struct lane *lane = request->lane;
    const struct list_node *next =
        list_next(is_timed(request) ? &lane->timed : &lane->untimed, &request->line);
    if (next == NULL && is_timed(request)) {
        next = list_first(&lane->untimed);
    }
    if (next != NULL) {
        return request_at(next);
    }
    const struct list_node *peer = list_next(&lane->class->all, &lane->peer);
    return peer != NULL ? first_of(list_entry(peer, struct lane, peer))
                        : first_from(line, request->class + 1);
}
