/*
 * balance.h — how evenly the devices of a pool are used.
 *
 * The score is Jain's index of fairness over the time that each device was busy of late:
 *
 *     J(x) = (x1 + ... + xn)^2 / (n (x1^2 + ... + xn^2))
 *
 * 1: all were busy for as long as each other, 1/n: only one of n was.  (R. Jain, D. Chiu, W. Hawe,
 * "A Quantitative
 * Measure of Fairness and Discrimination for Resource Allocation in Shared Computer Systems", DEC-TR-301, 1984.)  It is
 * taken over time, not over requests: a device that is half as fast does half as much and is as
 * busy.
 *
 * "Of late": what was BALANCE_WINDOW_NS ago counts 1/e.  Pure: no clock, no allocation; in a pool
 * it is guarded by the pool's lock.
 */
#ifndef WEIR_ENGINE_BALANCE_H
#define WEIR_ENGINE_BALANCE_H

#include <stdint.h>

#include "util/clock.h"

#define BALANCE_DEVICES_MAX 64
#define BALANCE_WINDOW_NS (10 * NS_PER_S)

struct balance {
    uint32_t count; /* Devices, at most BALANCE_DEVICES_MAX. */
    uint64_t noted_ns;
    double busy_ns[BALANCE_DEVICES_MAX]; /* As of noted_ns. */
};

void balance_init(struct balance *balance, uint32_t count);

/* The device was busy for `ns`, until about `now_ns`. */
void balance_note(struct balance *balance, uint32_t device, uint64_t ns, uint64_t now_ns);

/* 1/count to 1; 1 where nothing ran yet. */
double balance_score(const struct balance *balance);

#endif
