/*
 * request.h — one inference, from submit to its one end.
 *
 *          submit            pull              settle
 *   IDLE ─────────► WAITING ───────► RUNNING ─────────► ENDED ──► (home) IDLE
 *                      │ cancel, deadline,                 ▲
 *                      │ drain, unload                     │
 *                      └───────────────────────────────────┘
 *
 * IDLE and ENDED belong to the home; WAITING is guarded by the pool's lock and linked in its
 * model's queue; RUNNING belongs to the executor.  A request that is equal to one that waits or
 * runs may be JOINED to it instead (join.h): it ends with it, or by itself, or takes its place in
 * line.  Between a submit that returned WEIR_OK and its end the request, its input memory and its
 * arrays must stay where they are: canceling is a wish, the end still comes, once, by way of the
 * home's mailbox.
 *
 * The memory is the submitter's (usually in its exchange's arena).
 */
#ifndef WEIR_ENGINE_REQUEST_H
#define WEIR_ENGINE_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tensor/tensor.h"
#include "util/err.h"
#include "util/heap.h"
#include "util/list.h"
#include "util/mailbox.h"

struct home;
struct lane; /* line.h */
struct model;
struct batch;
struct order_client; /* order.h */
struct run;          /* pipeline/run.c */
struct sequence;

#define SEQUENCE_ID_BYTES_MAX 128

/* What makes two requests equal, digested (cache.h). */
struct request_key {
    uint64_t words[2];
};

/* Which sequence a request belongs to: a number or a text; zeroed: none. */
struct sequence_id {
    uint64_t number;
    struct bytes text; /* Empty: the number counts. */
};

/* X(name) */
#define REQUEST_STATES(X) X(IDLE) X(WAITING) X(JOINED) X(RUNNING) X(ENDED)

enum request_state {
#define REQUEST_STATE_ENUM(name) REQUEST_##name,
    REQUEST_STATES(REQUEST_STATE_ENUM)
#undef REQUEST_STATE_ENUM
};

/* What travels to a home: embed it; `deliver` runs on the home's thread. */
struct home_mail {
    struct mail mail;
    void (*deliver)(struct home_mail *self);
};

/* When what happened, in ns of the engine's clock; 0: did not.  Stages of a request's time are
 * differences: queue = taken - submitted, gather = gathered - taken, compute = computed - gathered,
 * scatter = ended - computed. */
struct request_times {
    uint64_t submitted_ns;
    uint64_t taken_ns;
    uint64_t gathered_ns;
    uint64_t computed_ns;
    uint64_t ended_ns;
};

/* One part of a streamed answer.  Owned by the receiver once delivered: request_part_release(). */
struct request_part {
    struct home_mail home_mail;
    struct request *request;
    uint32_t output_count;
    struct tensor outputs[]; /* Model's outputs; absent where not wanted. */
};

/* What engine_check() finds about a request; equal ones have the same. */
struct request_facts {
    bool known;
    uint64_t rows;
    bool same_rows; /* Of all inputs: it may share a batch. */
    uint64_t shape_key;
    uint64_t input_bytes;
};

struct request {
    /* Filled in by the submitter after request_init(). */
    struct home *home;
    struct model *model;    /* A lease, taken by the submitter, given back after the end. */
    struct tensor *inputs;  /* The model's inputs, in the signature's order. */
    struct tensor *outputs; /* Room for the model's outputs; filled at the end on WEIR_OK. */
    const bool *wanted;     /* Per output. */
    uint32_t priority;      /* As on the wire: 1 most urgent; 0: the model's default. */
    uint64_t client; /* Whose it is: a digest of the client's key; 0: nobody in particular. */
    uint32_t priority_best; /* Most urgent priority it may have, as on the wire; 0: any. */
    uint32_t client_weight; /* Share of device time against other clients; 0 is 1. */
    uint64_t deadline_ns;   /* CLOCK_NEVER: none. */
    uint64_t waited_ns; /* In its socket, at most; the model's deadline begins so much earlier. */
    uint64_t queue_timeout_ns;      /* Longest wait in line; CLOCK_NEVER: the model's. */
    struct sequence_id sequence_id; /* Only sequence models look at these three. */
    bool sequence_start;
    bool sequence_end;
    bool admitted; /* A step of a request that was accepted: also while the engine drains. */
    bool canary;   /* Nobody's (canary.h): it rides alone and is no inference in the statistics. */
    void (*ended)(struct request *self); /* At home, once. */
    /* At home; NULL: models that stream are refused. */
    void (*part)(struct request *self, struct request_part *part);
    /* At home, at most once, before ended(): answer the client now, as late_status and
     * request_late_text() say.  May be NULL. */
    void (*late)(struct request *self);
    void *user;
    /* Of requests with the same model, types, shapes and outputs, or to be filled in for them;
     * looked at during the submit.  NULL: none. */
    struct request_facts *facts;

    /* The end; the home's from ended() on, as is `err`. */
    enum weir_status status;
    /* In late(): WEIR_ETIMEOUT: the deadline passed while it ran; WEIR_EBACKEND: its run does not
     * end. */
    enum weir_status late_status;
    struct request_times times;
    uint64_t batch_rows; /* Rows of the batch it rode in. */
    uint32_t parts_sent;

    /* The engine's; first what is looked at in every request of a run. */
    bool batchable; /* Its shape lets it share a batch. */
    bool leads;     /* Others may join it. */
    bool keyed;     /* Equal requests may be answered together or from the cache. */
    bool limited;   /* Counted in its model's overload.in_hand. */
    struct home_mail end_mail;
    enum request_state state; /* Guarded by the pool's lock while not IDLE. */
    /* WEIR_OK, or why it shall stop: WEIR_ECANCELED, WEIR_ETIMEOUT, WEIR_EBACKEND (written off).
     * Guarded by the pool's lock. */
    enum weir_status stop;
    struct list_node line; /* In its lane, in a batch, or among those that end. */
    struct request *rides; /* The next one of a batch that is planned. */
    uint64_t rows;         /* Leading dimension, or 1. */
    uint64_t shape_key;    /* Only equal keys share a batch. */
    uint64_t input_bytes;
    struct order_client *payer; /* Who is charged; from WAITING to ENDED. */
    struct lane *lane;          /* Where it stands, or stood until it ran; NULL: in no line. */
    struct batch *batch;        /* While RUNNING. */
    uint32_t class;             /* How urgent it is, 0 the most; grows less with the wait. */
    uint32_t parts_unread;      /* Guarded by the pool's lock. */
    uint64_t since_ns;          /* In this class. */
    uint64_t due_ns;            /* Its deadline, or when it would have aged. */
    struct list_node due;       /* In line.due, while WAITING with a deadline. */
    uint64_t leave_by_ns;       /* Deadline or queue time-out, whichever is first. */
    struct heap_node deadline;  /* In the home's heap. */
    struct sequence *sequence;  /* Of sequence models, from submit to end. */
    struct run *run;            /* Of ensembles, from submit to end. */
    struct request *leader;     /* While JOINED. */
    struct list followers;      /* Of request.line: those joined to it; where `leads`. */
    struct request_key key; /* Where `keyed`, or where it was compared with others' (trial.c). */
    struct home_mail late_mail; /* Its run was written off. */
    uint8_t deaths;             /* Runs it took part in whose child died for what it was given. */
    uint8_t returns;            /* Runs it took part in whose device was lost. */
    bool trial;                 /* Let in though it seems to be late (overload.c). */

    struct weir_err err; /* Sentence when status is not WEIR_OK. */
};

/* Zeroes what the engine needs; all other fields are then the submitter's to fill. */
void request_init(struct request *request);

/* What late() tells the client. */
const char *request_late_text(const struct request *request);

/* Home thread: done with a part.  Lets its outputs go and lets the run go on. */
void request_part_release(struct request_part *part);

#endif
