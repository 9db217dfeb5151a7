/*
 * Credit and time.
 *
 * A class leads out of turn once it has earned what its runs cost: so the more
 * urgent ones are kept waiting by whole runs, seldom, and not by each of them.
 * What a class gets in its turn is not held against it later; what it has earned it keeps for a
 * second without requests, but never more than two of the longest runs.  So over any time in
 * which it could run, a class gets its share but for about one run.
 *
 * Clients are start-time fair: the least time of those that are here is the
 * time now.  Who comes starts there, a little before it if it has used less: the few requests that a
 * light client sends close together would else take turns with one that never stops.
 */
#include "engine/order.h"

#include <assert.h>
#include <stddef.h>

#include "util/clock.h"

#define FORGIVEN_NS NS_PER_S      /* Who was away so long owes nothing. */
#define SAVED_NS (20 * NS_PER_MS) /* Device time that a client saves up at most. */
#define FADING_NS \
    (4 * NS_PER_S) /* Of device time, in which the longest run is all but forgotten. */

struct order_options order_defaults(void)
{
    struct order_options options = { .ageing_ns = 10 * NS_PER_S, .budget_ns = 10 * NS_PER_MS };
    for (uint32_t i = 0; i < ORDER_CLASSES; i++) {
        options.shares[i] = ORDER_SHARE_DEFAULT;
    }
    return options;
}

void order_set(struct pool_order *order, const struct order_options *options)
{
    order->options = *options;
    for (uint32_t i = 0; i < ORDER_CLASSES; i++) {
        order->shares[i] = (double)options->shares[i] / ORDER_SHARE_ALL;
    }
}

void order_init(struct pool_order *order, const struct order_options *options)
{
    *order = (struct pool_order){ .run_ns = 0 };
    order_set(order, options);
    for (uint32_t i = 0; i <= ORDER_CLIENTS; i++) {
        list_init(&order->clients[i].lanes);
        order->clients[i].weight = 1;
    }
    order->recent = &order->clients[ORDER_CLIENTS];
}

static struct order_client **bucket_of(struct pool_order *order, uint64_t key)
{
    return &order->buckets[(key ^ (key >> 32)) % ORDER_CLIENTS];
}

/* The account that has been idle longest leaves its bucket; NULL: none is idle. */
static struct order_client *forget_one(struct pool_order *order)
{
    struct order_client *client = NULL;
    for (uint32_t i = 0; i < ORDER_CLIENTS; i++) {
        struct order_client *other = &order->clients[i];
        if (other->held == 0 && (client == NULL || other->idle_ns < client->idle_ns)) {
            client = other;
        }
    }
    if (client == NULL) {
        return NULL;
    }
    struct order_client **link = bucket_of(order, client->key);
    while (*link != client) {
        link = &(*link)->next;
    }
    *link = client->next;
    heap_remove(&order->active, &client->active);
    return client;
}

static struct order_client *client_at(struct heap_node *node)
{
    return list_entry(node, struct order_client, active);
}

/* The least time of those that are here.  Who has gone is taken out now: most come back before
 * anybody asks. */
static uint64_t time_now(struct pool_order *order)
{
    struct heap_node *least = heap_top(&order->active);
    while (least != NULL && client_at(least)->held == 0) {
        order->rest = least->key;
        heap_remove(&order->active, least);
        least = heap_top(&order->active);
    }
    return least != NULL ? least->key : order->rest;
}

/* An account that nobody needs, or the one that many share. */
static struct order_client *open_account(struct pool_order *order, uint64_t key)
{
    struct order_client *client = order->client_count < ORDER_CLIENTS
                                      ? &order->clients[order->client_count++]
                                      : forget_one(order);
    if (client == NULL) {
        return &order->clients[ORDER_CLIENTS];
    }
    struct order_client **bucket = bucket_of(order, key);
    client->key = key;
    client->time = time_now(order); /* Nothing is saved up by a new name. */
    client->idle_ns = 0;
    client->next = *bucket;
    *bucket = client;
    return client;
}

struct order_client *order_client(struct pool_order *order, uint64_t key, uint32_t weight)
{
    struct order_client *shared = &order->clients[ORDER_CLIENTS];
    struct order_client *client = order->recent;
    if (client == shared || client->key != key) {
        client = *bucket_of(order, key);
        while (client != NULL && client->key != key) {
            client = client->next;
        }
        client = client != NULL ? client : open_account(order, key);
        order->recent = client;
    }
    if (client != shared) {
        const uint32_t had = client->weight;
        client->weight = weight > 0 ? weight : 1;
        order->weights += client->held > 0 ? (uint64_t)client->weight - had : 0;
    }
    return client;
}

static void set_credit(struct pool_order *order, uint32_t class_index, int64_t ns)
{
    struct order_class *class = &order->classes[class_index];
    const uint32_t bit = 1U << class_index;
    const uint64_t run_ns = class->run_ns > 0 ? class->run_ns : order->run_ns;
    const int64_t most = 2 * (int64_t)(run_ns > order->longest_ns ? run_ns : order->longest_ns);
    class->credit_ns = ns < most ? ns : most;
    order->owed = ns > 0 && (uint64_t)ns >= run_ns ? order->owed | bit : order->owed & ~bit;
}

static bool is_alone(const struct pool_order *order, const struct order_client *client)
{
    return heap_top(&order->active) == &client->active && client->active.child == NULL;
}

/* The time of a client that held nothing; `least` is the time now. */
static uint64_t time_of_return(const struct order_client *client, uint64_t least, uint64_t now_ns)
{
    const uint64_t saved = SAVED_NS * ORDER_TIME_PER_NS / client->weight;
    const uint64_t first = least > saved ? least - saved : 0;
    if (client->time > least && now_ns > clock_add(client->idle_ns, FORGIVEN_NS)) {
        return least;
    }
    return client->time > first ? client->time : first;
}

void order_enter(struct pool_order *order, struct order_client *client, uint32_t class_index,
                 uint64_t now_ns)
{
    struct order_class *class = &order->classes[class_index];
    if (class->credit_ns != 0 && now_ns > clock_add(class->seen_ns, FORGIVEN_NS)) {
        set_credit(order, class_index, 0);
    }
    class->seen_ns = now_ns;
    order->weights += client->held == 0 ? client->weight : 0;
    if (client->held++ > 0 || is_alone(order, client)) {
        return;
    }
    heap_remove(&order->active, &client->active);
    client->time = time_of_return(client, time_now(order), now_ns);
    client->active.key = client->time;
    heap_push(&order->active, &client->active);
}

void order_leave(struct pool_order *order, struct order_client *client, uint32_t count,
                 uint64_t now_ns)
{
    assert(client->held >= count);
    client->held -= count;
    client->idle_ns = now_ns;
    order->weights -= count > 0 && client->held == 0 ? client->weight : 0;
}

double order_part(const struct pool_order *order, const struct order_client *client)
{
    const uint64_t all = order->weights + (client->held == 0 ? client->weight : 0);
    return (double)client->weight / (double)all;
}

uint32_t order_class(const struct pool_order *order, uint32_t mask)
{
    uint32_t best = (uint32_t)__builtin_ctz(mask);
    uint32_t owed = order->owed & mask;
    if (owed == 0) {
        return best;
    }
    best = (uint32_t)__builtin_ctz(owed);
    for (owed &= owed - 1; owed != 0; owed &= owed - 1) {
        const uint32_t i = (uint32_t)__builtin_ctz(owed);
        best = order->classes[i].credit_ns > order->classes[best].credit_ns ? i : best;
    }
    return best;
}

static void earn(struct pool_order *order, uint32_t rivals, int64_t ns)
{
    if ((rivals & (rivals - 1)) == 0) {
        return; /* Nobody else could have run. */
    }
    for (uint32_t left = rivals; left != 0; left &= left - 1) {
        const uint32_t i = (uint32_t)__builtin_ctz(left);
        const int64_t share = (int64_t)((double)ns * order->shares[i]);
        set_credit(order, i, order->classes[i].credit_ns + share);
    }
}

void order_run(struct pool_order *order, uint32_t class_index, uint32_t rivals, uint64_t ns)
{
    const double fading = (double)order->longest_ns * (double)ns * (1.0 / FADING_NS);
    const uint64_t faded_ns = ns < FADING_NS ? order->longest_ns - (uint64_t)fading : 0;
    order->run_ns = ns;
    order->longest_ns = ns > faded_ns ? ns : faded_ns;
    order->classes[class_index].run_ns = ns;
    earn(order, rivals, (int64_t)ns);
}

void order_spend(struct pool_order *order, uint32_t class_index, uint64_t ns, bool owed)
{
    const int64_t had = order->classes[class_index].credit_ns;
    const int64_t left = had - (int64_t)ns;
    if (owed || had > 0) { /* Else it owes nothing for its turn, and had nothing. */
        set_credit(order, class_index, owed || left > 0 ? left : 0);
    }
}

/* What was charged by another run since may be less than what this one gives back. */
static uint64_t corrected(uint64_t run_ns, int64_t by_ns)
{
    return by_ns < 0 && run_ns < (uint64_t)-by_ns ? 0 : run_ns + (uint64_t)by_ns;
}

void order_rerun(struct pool_order *order, uint32_t class_index, uint32_t rivals, int64_t ns,
                 bool owed)
{
    struct order_class *class = &order->classes[class_index];
    order->run_ns = corrected(order->run_ns, ns);
    class->run_ns = corrected(class->run_ns, ns);
    earn(order, rivals, ns);
    if (owed) {
        set_credit(order, class_index, class->credit_ns - ns);
    }
}

void order_charge(struct pool_order *order, struct order_client *client, int64_t ns)
{
    const uint64_t time = (uint64_t)(ns < 0 ? -ns : ns) * ORDER_TIME_PER_NS;
    const uint64_t its = client->weight == 1 ? time : time / client->weight;
    client->time = ns >= 0 ? client->time + its : its < client->time ? client->time - its : 0;
    if (client->active.in && client->active.key != client->time) {
        heap_move(&order->active, &client->active, client->time);
    }
}

bool order_owed(const struct pool_order *order, uint32_t class_index)
{
    return (order->owed & 1U << class_index) != 0;
}

uint64_t order_run_max_ns(const struct pool_order *order, uint32_t class_index, uint64_t now_ns)
{
    for (uint32_t i = 0; i < class_index; i++) {
        const uint64_t seen_ns = order->classes[i].seen_ns;
        if (seen_ns > 0 && now_ns <= clock_add(seen_ns, ORDER_RECENT_NS)) {
            return order->options.budget_ns;
        }
    }
    return CLOCK_NEVER;
}
