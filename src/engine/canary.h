/*
 * canary.h — runs that nobody asked for, which tell whether a model that nobody asks still answers.
 *
 * A model that has completed no run for its canary_interval gets one: its first model_warmup, else
 * zeros.  It rides alone, in the least urgent class, is no inference in the statistics, is not
 * learned from, kept or joined.  A model that works gets none, as its requests tell; nor does one
 * that is not loaded, an ensemble, whose steps have theirs, or one with sequences, of which a
 * canary would take a place.
 *
 * A canary that has succeeded before and now fails, or does not end within the interval and 10 s,
 * makes its model not ready (outage.h), until a run succeeds again, a canary's or a client's;
 * requests are taken all the while.  Zeros that were never accepted tell nothing, and are tried in
 * other sizes.  One that could not begin, because others were more urgent, tells nothing either.
 *
 * The thread of the home that is given, but where another promise is made.
 */
#ifndef WEIR_ENGINE_CANARY_H
#define WEIR_ENGINE_CANARY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/clock.h"
#include "util/err.h"
#include "util/list.h"

#define CANARY_INTERVAL_MIN_NS (100 * NS_PER_MS) /* Of those that are not 0. */
#define CANARY_PATIENCE_NS (10 * NS_PER_S)       /* It is waited for at least so long. */
#define CANARY_INTERVAL_SERVER CLOCK_NEVER       /* Of a model: the server's. */
#define CANARY_TEXT_BYTES 256

struct canary_run;
struct catalogue;
struct engine;
struct home;
struct model;
struct probe;
struct tensor;

/* A model's. */
struct canary {
    struct tensor *inputs;  /* Of its first model_warmup; owned; NULL: zeros. */
    struct canary_run *run; /* Under way, or NULL; the home's, as are the next three. */
    uint64_t since_ns;      /* The last one began, or the model was first seen; 0: it was not. */
    uint32_t size;          /* Of PROBE_SIZES, for zeros. */
    bool proved;            /* One has succeeded. */
    uint64_t failed_ns; /* The last one did; 0: not.  Guarded by the pool's lock, as is the next. */
    char text[CANARY_TEXT_BYTES]; /* How. */
};

struct canaries {
    struct engine *engine;
    struct home *home;
    struct list under_way; /* Of canary_run.node. */
    /* Of models that have none of their own; 0: off.  Any thread may write it. */
    _Atomic uint64_t interval_ns;
    bool stopped;
};

/* What it is given is borrowed. */
void canaries_init(struct canaries *canaries, struct engine *engine, struct home *home,
                   uint64_t interval_ns);

/* Begins what is due and gives up what takes too long; when to look again, CLOCK_NEVER: when a
 * canary has ended, or anything has changed.  The home's turn has to follow. */
uint64_t canaries_look(struct canaries *canaries, const struct catalogue *catalogue,
                       uint64_t now_ns);

/* No more begin, and those under way are asked to end. */
void canaries_stop(struct canaries *canaries);

/* Loader thread, after the warm-ups: keeps the first one's inputs.  WEIR_ENOMEM and what its files
 * say. */
WEIR_MUST_USE enum weir_status canary_keep(const struct probe *probe, int folder_fd,
                                           struct canary *canary, struct weir_err *err);
void canary_finish(struct canary *canary, uint32_t input_count); /* Zeroed is fine. */

/* Pool's lock held: the last run that came to its end was a canary that failed. */
bool canary_has_failed(const struct model *model);

#endif
