/*
 * line.h — the requests that wait for one model, in the order in which they may lead and ride.
 *
 * A line has a *lane* for each class and client that waits in it.  In a lane the earliest due goes
 * first: a request is due by its deadline or, without one, when it would have aged.  A class knows
 * its lanes by the device time of their clients, least first, and its requests by how long they
 * have stood there, longest first.  Those with a deadline stand also in `due`, of all classes,
 * earliest first.
 *
 * Getting in costs a few list operations from the tail, getting out the same; nothing here walks
 * the line but line_gather(), over those that ride.  Guarded by the pool's lock.
 */
#ifndef WEIR_ENGINE_LINE_H
#define WEIR_ENGINE_LINE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/batcher.h"
#include "engine/order.h"
#include "util/heap.h"
#include "util/list.h"

struct request;

struct lane {
    struct heap_node turn; /* In line_class.lanes, by its client's time. */
    struct list_node node; /* In the client's lanes. */
    struct list_node peer; /* In line_class.all. */
    struct line_class *class;
    struct order_client *client; /* NULL: nobody waits here. */
    struct list timed;           /* Of request.line: with a deadline, by request.due_ns. */
    struct list untimed;         /* The others, by the same. */

    /* While riders are chosen. */
    uint64_t walk;              /* Of which line_gather() the rest is. */
    struct list_node *timed_at; /* Next to be asked; NULL: none. */
    struct list_node *untimed_at;
    struct lane *walked; /* That was looked at before this one. */
};

struct line_class {
    struct heap lanes;
    struct list all;     /* The same, of lane.peer. */
    struct lane own;     /* The first client's; further ones are allocated. */
    struct lane *recent; /* Somebody was put there last; or NULL. */
    uint32_t lane_count;
};

struct model_line {
    uint32_t mask;        /* Bit per class with requests. */
    uint64_t age_next_ns; /* Nobody goes up before. */
    uint64_t walks;       /* Calls of line_gather(). */
    struct list due;      /* Of request.due. */
    struct line_class classes[ORDER_CLASSES];
};

void line_init(struct model_line *line);

/* Puts a request in line: its class, payer, due_ns and since_ns are set. */
void line_push(struct model_line *line, struct request *request);
void line_remove(struct model_line *line, struct request *request);

/* Moves the requests from `first` to `last`, which stand one behind the other in a lane, to `to`.
 * False: they do not stand at the front of those without deadline. */
bool line_take_row(struct model_line *line, const struct request *first, const struct request *last,
                   struct list *to);

/* Who leads a run of this class if that class goes: the earliest due of the client with the least
 * time.  The class has requests. */
struct request *line_leader(const struct model_line *line, uint32_t class_index);

void line_age_now(struct model_line *line, uint64_t ageing_ns, uint64_t now_ns);

/* Who is first of a lane and has stood in its class for `ageing_ns` goes up one. */
static inline void line_age(struct model_line *line, uint64_t ageing_ns, uint64_t now_ns)
{
    if (now_ns >= line->age_next_ns) {
        line_age_now(line, ageing_ns, now_ns);
    }
}

/* Offers the leader's company to a batch that has begun with it until it is full: the leader's
 * class, then the others, most urgent first.  In a class clients take turns by their time, `row_ns`
 * for a row; inside a client the earliest due goes first.  Classes less urgent than the leader's
 * may make the run longer by `rows_guests` rows in all. */
void line_gather(struct model_line *line, struct batcher *batcher, uint64_t row_ns,
                 uint64_t rows_guests);

/* The client's time has changed: its lanes find their places. */
void line_retime_lanes(struct order_client *client);

static inline void line_retime(struct order_client *client)
{
    if (!list_empty(&client->lanes)) {
        line_retime_lanes(client);
    }
}

/* Everybody is of one class and client, nobody has a deadline. */
static inline bool line_is_plain(const struct model_line *line)
{
    return (line->mask & (line->mask - 1)) == 0 && list_empty(&line->due) && line->mask != 0 &&
           line->classes[__builtin_ctz(line->mask)].lane_count == 1;
}

/* All that wait, by class and lane.  NULL: the end. */
struct request *line_first(const struct model_line *line);
struct request *line_next(const struct model_line *line, const struct request *request);

#endif
