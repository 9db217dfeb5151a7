/*
 * step.h — since when somebody has been at one piece of work, for another thread that watches it.
 */
#ifndef WEIR_ENGINE_STEP_H
#define WEIR_ENGINE_STEP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "util/clock.h"

struct step {
    const struct clock *clock;
    _Atomic uint64_t began_ns; /* 0: there is none. */
    _Atomic bool is_run;       /* It is a run of the model; who watches reads this first. */
};

/* Who works: a new piece begins.  NULL: nobody watches. */
static inline void step_begin(struct step *step)
{
    if (step != NULL) {
        atomic_store(&step->is_run, false);
        atomic_store(&step->began_ns, clock_now_ns(step->clock));
    }
}

/* The same of a run, for which another limit may hold: not of what came before it. */
static inline void step_begin_run(struct step *step)
{
    if (step != NULL) {
        atomic_store(&step->began_ns, clock_now_ns(step->clock));
        atomic_store(&step->is_run, true);
    }
}

#endif
