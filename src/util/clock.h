/*
 * clock.h — what time it is, real or turned by hand.
 *
 * Everything that decides takes `now_ns` as a number; whoever calls it reads a
 * clock.  Tests hand the engine a manual clock and turn it themselves.
 */
#ifndef WEIR_UTIL_CLOCK_H
#define WEIR_UTIL_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define CLOCK_NEVER UINT64_MAX /* A time that does not come. */
#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

struct clock {
    bool manual;
    _Atomic uint64_t manual_ns;
};

void clock_init(struct clock *clock);                         /* The system's monotonic time. */
void clock_init_manual(struct clock *clock, uint64_t now_ns); /* Moves by clock_turn() only. */
void clock_turn(struct clock *clock, uint64_t now_ns);        /* Manual only; never backwards. */

uint64_t clock_now_ns(const struct clock *clock); /* Any thread. */
uint64_t clock_wall_ms(void);                     /* Since the epoch, for people and protocols. */

/* Sleeps until `at_ns`; a manual clock does not sleep at all. */
void clock_sleep_until(const struct clock *clock, uint64_t at_ns);

/* base + delay without wrapping: CLOCK_NEVER when it would. */
static inline uint64_t clock_add(uint64_t base_ns, uint64_t delay_ns)
{
    return delay_ns > UINT64_MAX - base_ns ? CLOCK_NEVER : base_ns + delay_ns;
}

#endif
