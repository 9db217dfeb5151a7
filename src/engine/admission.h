/*
 * admission.h — would a request that comes now be served by its deadline?
 *
 * The line is laid out as it will be run: more urgent classes first, then batch by batch in order of
 * deadlines, each on the executor that is free first, each as large as its oldest member's deadline
 * allows.  The newcomer is checked
 * as a member of its batch, and so is everybody behind it.  Checking only the newcomer's own
 * deadline would let it wait for a batch that its oldest member's deadline makes tiny.
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
    bool outranked;                        /* More urgent requests than the newcomer wait. */
};

enum admission_verdict {
    ADMISSION_FITS,
    ADMISSION_LATE,   /* It would be late itself. */
    ADMISSION_CROWDS, /* Somebody in line would be late for it who is not otherwise. */
};

/* *end_ns is when the request's run is expected to end at the latest.  `waiting` (request.due) is in order
 * of deadlines, those without one last; `waiting_rows` are the rows of all. */
enum admission_verdict admission_check(const struct list *waiting, uint64_t waiting_rows,
                                       const struct request *request,
                                       const struct admission *admission, uint64_t *end_ns);

#endif
