/*
 * look.h — whether a loop that has nothing to do looks for more before it sleeps.
 *
 * To fall asleep and be woken costs a thread more than to answer a small request, and leaves its
 * caches cold.  So where requests come one at a time, each soon after the answer to the one before,
 * a loop looks for the next one for LOOK_AHEAD_NS at most.  A look in vain is not repeated for some
 * requests, and for twice as many after each further one: who is not answered sooner by it pays
 * next to nothing.  Where several requests come in a turn, as to a server that is busy, the
 * sleep is shared by them: nothing is looked for, nor behind the next few.  Nor is it where a
 * request is still with the engine, whose executor may need the processor.
 *
 * Pure: no clock, no memory, no lock.
 */
#ifndef WEIR_NET_LOOK_H
#define WEIR_NET_LOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "util/clock.h"

#define LOOK_AHEAD_NS (50 * NS_PER_US)
#define LOOK_NAPS_MIN 8
#define LOOK_NAPS_MAX 1024

struct look {
    uint32_t naps;      /* Requests behind which it sleeps at once, still. */
    uint32_t naps_next; /* After the next look in vain. */
};

void look_init(struct look *look);

/* Behind a turn that has ended so many exchanges, `open` are left: how long to look, 0: not at
 * all. */
uint64_t look_for_ns(struct look *look, uint32_t ended, uint64_t open);

/* The look is over: it found something, or nothing. */
void look_over(struct look *look, bool found);

#endif
