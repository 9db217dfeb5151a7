/*
 * pulse.h — does a loop turn?
 *
 * Each look at a loop sends it a mail, unless one is on its way; the loop receives it in its next
 * turn.  One that has been on its way for longer than the looker's patience tells that the loop is
 * stuck.  Nobody wakes a loop that nobody looks at.
 */
#ifndef WEIR_NET_PULSE_H
#define WEIR_NET_PULSE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "net/loop.h"

struct pulse {
    struct loop_mail mail;
    struct loop *loop;
    _Atomic uint64_t sent_ns; /* The mail is on its way; 0: it is not. */
    _Atomic bool over;        /* The loop has ended, as it was meant to. */
};

void pulse_init(struct pulse *pulse, struct loop *loop);

/* The loop ends in order: it is not expected to turn any more, and gets no mail. */
void pulse_end(struct pulse *pulse);

/* Any thread, before loop_finish().  False: the loop has not turned for `patience_ns` although it
 * had mail. */
bool pulse_look(struct pulse *pulse, uint64_t now_ns, uint64_t patience_ns);

#endif
