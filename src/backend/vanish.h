/*
 * vanish.h — files that are shortened while they are mapped do not end the process.
 *
 * Touching a page that is no longer there raises a signal that ends the process.  In a thread that
 * has said whom it works for, the page reads as zeros instead, and whoever it worked for is told:
 * what was computed from it is worth nothing.
 */
#ifndef WEIR_BACKEND_VANISH_H
#define WEIR_BACKEND_VANISH_H

#include <stdatomic.h>
#include <stdbool.h>

/* Set when the thread touches a page that has vanished, and never taken back. */
struct vanish_mark {
    _Atomic bool lost;
};

/* Once, before other threads exist. */
void vanish_install(void);

/* From now on the calling thread works for `mark`, which must outlive that; NULL: for nobody, and
 * the signal ends the process.  Returns the one before. */
struct vanish_mark *vanish_watch(struct vanish_mark *mark);

#endif
