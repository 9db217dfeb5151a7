/*
 * order.h — whose turn it is on a device: classes with guaranteed shares, clients by weight.
 *
 * Two accounts of the same device time:
 *
 *   - a *class* is how urgent a request is, 0 the most.  The most urgent class that has work goes
 *     first, but each is sure of a share: while it could run and others do, it earns credit, which
 *     its own runs spend.  Who has earned a run goes before everybody.
 *   - a *client* is whom a request is for.  Inside a class, who has used the least time for its
 *     weight goes first.  Who comes starts at the least time of those that are here; who was away and
 *     has used less is ahead of it by 20 ms at most, and who has used more is forgiven after a second.
 *
 * Pure: no clock, no allocation, calls nobody.  Guarded by the pool's lock.
 */
#ifndef WEIR_ENGINE_ORDER_H
#define WEIR_ENGINE_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "util/heap.h"
#include "util/list.h"

#define ORDER_CLASSES 8
#define ORDER_CLASS_DEFAULT 3 /* Of requests that say nothing: priority 4. */
#define ORDER_CLIENTS 256     /* Told apart at a time; what is more shares one account. */
#define ORDER_SHARE_ALL 1000  /* Shares are per mille. */
#define ORDER_SHARE_DEFAULT 100
#define ORDER_TIME_PER_NS 64 /* Unit of a client's time: so that weights divide it finely. */
#define ORDER_RECENT_NS (5 * NS_PER_S) /* A class with a request in this time has traffic. */

struct order_options {
    uint32_t shares[ORDER_CLASSES]; /* Device time that a class is sure of, per mille. */
    uint64_t ageing_ns; /* A request goes up one class per so long a wait; at least 1. */
    uint64_t budget_ns; /* Longest run that may keep a more urgent class waiting. */
};

struct order_client {
    uint64_t key;
    uint32_t weight;
    uint32_t held;    /* Requests waiting and running. */
    uint64_t time;    /* Device time used for its weight; see ORDER_TIME_PER_NS. */
    uint64_t idle_ns; /* Holds nothing since. */
    /* In order.active while it holds something, or did since somebody came. */
    struct heap_node active;
    struct list lanes;         /* Of lane.node (line.h): where it waits. */
    struct order_client *next; /* In the same bucket. */
};

struct order_class {
    int64_t credit_ns; /* Time it should have had by now; below 0: had more. */
    uint64_t run_ns;   /* The last run that it led took so long. */
    uint64_t seen_ns;  /* Its last request came; 0: none yet. */
};

struct pool_order {
    struct order_options options;
    struct order_class classes[ORDER_CLASSES];
    double shares[ORDER_CLASSES];                   /* options.shares as a part of 1. */
    uint32_t owed;                                  /* Bit per class that has earned a run. */
    uint64_t run_ns;                                /* The last run of all took so long. */
    uint64_t longest_ns;                            /* The longest of late. */
    struct order_client clients[ORDER_CLIENTS + 1]; /* The last one: all that are too many. */
    uint32_t client_count;
    struct order_client *buckets[ORDER_CLIENTS];
    struct order_client *recent; /* Asked for last. */
    struct heap active;          /* Of order_client.active. */
    uint64_t weights;            /* Of those that hold something. */
    uint64_t rest;               /* Time of the last one that was taken out of it. */
};

/* Shares of 10 %, ageing of 10 s, a budget of 10 ms. */
struct order_options order_defaults(void);

void order_init(struct pool_order *order, const struct order_options *options);

/* Other options from now on; the accounts go on. */
void order_set(struct pool_order *order, const struct order_options *options);

/* The account of a client; `weight` 0 is 1.  Never NULL. */
struct order_client *order_client(struct pool_order *order, uint64_t key, uint32_t weight);

/* One more request of the client is here, of this class. */
void order_enter(struct pool_order *order, struct order_client *client, uint32_t class_index,
                 uint64_t now_ns);
/* So many fewer. */
void order_leave(struct pool_order *order, struct order_client *client, uint32_t count,
                 uint64_t now_ns);

/* The client's part of the device's time, if all that hold something want theirs. */
double order_part(const struct pool_order *order, const struct order_client *client);

/* The class that goes next of those in `mask`, which is not empty. */
uint32_t order_class(const struct pool_order *order, uint32_t mask);

/* A run of `ns`, led by this class, begins while the classes in `rivals` could have run instead;
 * or it is over, and the time was not known before. */
void order_run(struct pool_order *order, uint32_t class_index, uint32_t rivals, uint64_t ns);

/* Time of it goes to a class, which led because it was `owed` or got it otherwise. */
void order_spend(struct pool_order *order, uint32_t class_index, uint64_t ns, bool owed);

/* It has taken so much longer, or shorter, than was said at its begin. */
void order_rerun(struct pool_order *order, uint32_t class_index, uint32_t rivals, int64_t ns,
                 bool owed);

/* Time goes to a client.  Its lanes are to be put in order anew: line_retime(). */
void order_charge(struct pool_order *order, struct order_client *client, int64_t ns);

bool order_owed(const struct pool_order *order, uint32_t class_index);

/* The longest that a run led by this class may take: a more urgent one has traffic; CLOCK_NEVER:
 * none has. */
uint64_t order_run_max_ns(const struct pool_order *order, uint32_t class_index, uint64_t now_ns);

#endif
