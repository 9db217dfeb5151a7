/*
 * admission.h — would a request that comes now be served by its deadline?
 *
 * The line is laid out as it will be run: more urgent classes first, then batch by batch in order
 * of deadlines, each on the executor that is free first, each as large as its oldest member's
 * deadline allows.  The newcomer is checked as a member of its batch, and so is everybody behind
 * it.  Checking only the newcomer's own deadline would let it wait for a batch that its oldest
 * member's deadline makes tiny.
 *
 * Pure: reads a model's line, changes nothing, knows no clock.  The caller holds the pool's lock.
 */
#ifndef WEIR_ENGINE_ADMISSION_H
#define WEIR_ENGINE_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/pace.h"
#include "util/list.h"

#define ADMISSION_SLOTS_MAX 16

struct request;

struct admission {
    struct pace_cost cost;
    uint64_t rows_max; /* Of one run; at least 1. */
    uint64_t now_ns;
    double share;    /* Of the executors' time that the model gets, above 0. */
    double arriving; /* Rows per ns that come for this model. */
    uint64_t free_ns[ADMISSION_SLOTS_MAX]; /* When each executor may start a run of it. */
    uint32_t slots;                        /* At least 1. */
    bool own;                              /* Only its own client's requests count. */
    bool outranked;                        /* More urgent requests than the newcomer wait. */
};

/* The line as far as it is laid out. */
struct admission_layout {
    uint64_t free_ns[ADMISSION_SLOTS_MAX]; /* Without the batch that is open. */
    uint32_t slot;                         /* Where that one runs. */
    uint64_t start_ns;
    uint64_t rows;        /* 0: none is open. */
    uint64_t rows_max;    /* Its earliest deadline allows no more, */
    uint64_t deadline_ns; /* which is this. */
};

/* All of a line, for newcomers that stand at its end.  Zeroed: not known. */
struct admission_tail {
    struct admission_layout layout;
    uint32_t class;
    uint64_t deadline_ns; /* Of who came last. */
    uint64_t until_ns;    /* It holds until then, or until somebody leaves: set it to 0. */
};

enum admission_verdict {
    ADMISSION_FITS,
    ADMISSION_LATE,   /* It would be late itself. */
    ADMISSION_CROWDS, /* Somebody in line would be late for it who is not otherwise. */
};

/* On ADMISSION_FITS the caller puts it in line.  *end_ns is when the request's run is expected to
 * end at the latest.  `waiting` (request.due) is in order of deadlines, those without one last;
 * `waiting_rows` are the rows of all. */
enum admission_verdict admission_check(const struct list *waiting, uint64_t waiting_rows,
                                       const struct request *request,
                                       const struct admission *admission,
                                       struct admission_tail *tail, uint64_t *end_ns);

#endif
