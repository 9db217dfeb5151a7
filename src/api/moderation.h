/*
 * moderation.h — until when a loop lets its sockets wait while every executor computes.
 *
 * What comes is read an eighth of a run before the first run's expected end, so that it is in line
 * when that executor pulls, or at its end where the executor pauses for that; where the run takes longer
 * than expected, sockets wait for an eighth more.
 * Why: docs/decisions/0007.
 *
 * Pure: no clock, no memory, no lock.
 */
#ifndef WEIR_API_MODERATION_H
#define WEIR_API_MODERATION_H

#include <stdint.h>

#include "engine/pool.h"
#include "util/clock.h"

#define MODERATION_MAX_NS (3 * NS_PER_MS) /* What waits may have to be refused, within 5 ms. */
#define MODERATION_AHEAD_MAX_NS (500 * NS_PER_US) /* Of an eighth of a run. */
/* Who is answered without an executor is not to wait: so long after such an answer. */
#define MODERATION_PAUSE_NS (100 * NS_PER_MS)

/* `at_once_ns`: the last such answer.  0: not at all. */
uint64_t moderation_until_ns(const struct pool_taken *taken, uint64_t at_once_ns, uint64_t now_ns);

#endif
