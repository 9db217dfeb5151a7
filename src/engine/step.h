/*
 * step.h — since when somebody has been at one piece of work, for another thread that watches it.
 */
#ifndef WEIR_ENGINE_STEP_H
#define WEIR_ENGINE_STEP_H

#include <stdatomic.h>
#include <stddef.h>

#include "util/clock.h"

struct step {
    const struct clock *clock;
    _Atomic uint64_t began_ns; /* 0: there is none. */
};

/* Who works: a new piece begins.  NULL: nobody watches. */
static inline void step_begin(struct step *step)
{
    if (step != NULL) {
        atomic_store(&step->began_ns, clock_now_ns(step->clock));
    }
}

#endif
