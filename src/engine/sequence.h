/*
 * sequence.h — a model's sequences: requests that belong together, in order.
 *
 *     push ──► fifo ──► head, ready in a lane ──► running ──► sent home ──► the next head
 *                │ no place free: backlog                        │ nothing more: idle, or over
 *
 * A sequence begins with a request that says START, ends after one that says END, and has at most
 * one request ready or running; those behind it wait in order of arrival, whichever connection
 * they came by, until its end is on its way home: so ends come home in order, too.  It holds a
 * *place* from its first head to its end:
 *
 *   DIRECT   a row of one instance, kept for its whole life (a *lane* per instance);
 *   OLDEST   one of so many candidates (one lane); heads share runs like any requests.
 *
 * Sequences without a place wait in the backlog, first come first served.
 *
 * Who owns what: everything here is guarded by the pool's lock, but for `states` of a sequence
 * whose head is running: those are its executor's (sequence_gather, sequence_scatter).  So a state
 * has one owner at any time, and no lock of its own.
 *
 * What ends a sequence early: a request of it that was accepted and did not succeed (failed,
 * canceled, its deadline passed), since what comes after would build on a step that is missing.
 * Those already waiting behind it, up to the next START, end with WEIR_ECONFLICT.  A request that
 * is refused was never part of it: it may be sent again.  A sequence without requests for the
 * configured time is dropped.  An unloaded version runs what was accepted and forgets the rest: once it is
 * offered no more, sequences without requests are dropped at once, so that those that wait for a place get theirs.
 */
#ifndef WEIR_ENGINE_SEQUENCE_H
#define WEIR_ENGINE_SEQUENCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/batch.h"
#include "engine/batcher.h"
#include "engine/model.h"
#include "engine/request.h"
#include "engine/sequence_plan.h"
#include "util/limits.h"
#include "util/list.h"
#include "util/map.h"

struct sequence_lane {
    struct list ready; /* Of request.line: heads that may run, in order of arrival. */
    uint32_t ready_count;
    struct instance *instance; /* DIRECT: it runs here only. */
    bool running;              /* DIRECT: that instance is out. */
    struct sequence **rows;    /* DIRECT: by row; NULL: free. */
    uint32_t row_free;         /* DIRECT: no row below it is free. */
    uint32_t places;           /* How many sequences it can hold. */
    uint32_t held;
};

struct sequence {
    struct list_node all;  /* In sequencer.all. */
    struct list_node wait; /* In sequencer.idle or backlog, among those to settle, or in none. */
    struct list fifo;      /* Of request.line: behind the head, in order of arrival. */
    struct request *head;  /* Ready; NULL: none, or it runs. */
    bool running;
    bool failed; /* How the last run ended. */
    bool over;
    struct sequence_lane *lane; /* Where its place is; NULL: it has none. */
    uint32_t row;               /* DIRECT. */
    bool open;                  /* The last request accepted leaves it going on. */
    bool begun;                 /* `states` are those of its last request. */
    uint64_t used_ns;           /* When it became idle. */
    size_t state_bytes;         /* Counted in sequencer.state_bytes. */
    struct bytes key;           /* Its id, in key_data. */
    char key_data[SEQUENCE_ID_BYTES_MAX + 1];
    struct tensor states[]; /* plan.state_count of one row each. */
};

struct sequencer {
    struct model *model;
    const struct sequence_plan *plan;
    struct map by_id;
    struct list all;
    struct list idle;    /* Nothing waits nor runs; longest idle first. */
    struct list backlog; /* No place yet, longest waiting first. */
    struct sequence_lane *lanes;
    uint32_t lane_count;
    uint32_t count;
    uint32_t count_max;
    bool retired; /* The model is offered no more. */
    uint64_t state_bytes_max;
    _Atomic uint64_t state_bytes; /* Executors add to it without the lock. */
    _Atomic uint64_t started;     /* Sequences since the load; any thread reads these. */
    _Atomic uint64_t dropped;     /* For idling. */
};

/* What could run next. */
struct sequence_turn {
    bool ready;                 /* Something could leave now. */
    uint64_t key_ns;            /* The oldest such head's arrival. */
    uint64_t again_ns;          /* Not ready: when to look again. */
    struct sequence_lane *lane; /* Ready: whose heads. */
    struct batch_plan riders;
};

/* After the model's instances were made.  Loader thread.  WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status sequencer_create(struct model *model, const struct limits *limits,
                                                struct sequencer **out, struct weir_err *err);
void sequencer_destroy(struct sequencer *s); /* No request may be left.  NULL is fine. */

/* Is the request one that a sequence model can take at all?  Home thread, no lock.  Sets rows. */
WEIR_MUST_USE enum weir_status sequencer_check(struct request *request, struct weir_err *err);

/* The rest is called with the pool's lock held. */

/* Puts a checked request in its sequence.  WEIR_EINVAL: it must begin with START; WEIR_EFULL:
 * too many sequences; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status sequencer_push(struct sequencer *s, struct request *request,
                                              uint64_t now_ns, struct weir_err *err);

/* The model is offered no more: nobody will go on with a sequence that nothing waits for. */
void sequencer_retire(struct sequencer *s, uint64_t now_ns);

/* Drops what has idled too long and says what could run. */
struct sequence_turn sequencer_next(struct sequencer *s, uint64_t now_ns);

/* The riders of `turn` leave its lane for `batch`. */
void sequencer_take(struct sequencer *s, const struct sequence_turn *turn, struct batch *batch);

/* A waiting request goes; those that cannot run without it are moved to `followers`. */
void sequencer_withdraw(struct sequencer *s, struct request *request, uint64_t now_ns,
                        struct list *followers);

/* A running request has come to its end, its status is set: notes what that means, and appends its
 * sequence to `sequences`.  The request may then go home. */
void sequencer_note(struct request *request, struct list *sequences);

/* The requests of these are on their way home; followers as above. */
void sequencer_settle(struct sequencer *s, struct list *sequences, uint64_t now_ns,
                      struct list *followers);

/* The run of a lane's instance is over. */
void sequencer_release(struct sequencer *s, const struct instance *instance);

/* A waiting request that has to leave by `now_ns`, or NULL with *next_ns the time when one will. */
struct request *sequencer_late(const struct sequencer *s, uint64_t now_ns, uint64_t *next_ns);

/* Executor, without the lock: inputs of one run, and its outputs to the members and their
 * sequences. */
WEIR_MUST_USE enum weir_status sequence_gather(struct instance *instance,
                                               const struct list *members, struct weir_err *err);
WEIR_MUST_USE enum weir_status sequence_scatter(struct instance *instance,
                                                const struct list *members, struct weir_err *err);
void sequence_want(struct instance *instance, const struct list *members);

/* Rows of a run of these members. */
uint32_t sequence_rows(const struct instance *instance, const struct list *members);

#endif
