/*
 * faults.h — memory that runs out at the nth allocation, for builds with -Dalloc_fault=true.
 *
 *     uint64_t made = 0;
 *     for (uint64_t nth = 1; made + 1 >= nth; nth++) {
 *         (void)mem_fault_arm(nth);
 *         what is to be tried: it succeeds, or fails and says so
 *         made = mem_fault_arm(0);
 *         the same again, which succeeds
 *     }
 *
 * The loop ends after the first round that needed fewer allocations than the number that was to
 * fail; in other builds that is the first one.
 */
#ifndef WEIR_TESTS_FAULTS_H
#define WEIR_TESTS_FAULTS_H

#include <stdbool.h>

#include "util/mem.h"

/* Is this such a build? */
static inline bool faults_are_built(void)
{
    (void)mem_fault_arm(1);
    void *memory = mem_try_alloc(1);
    (void)mem_fault_arm(0);
    mem_free(memory);
    return memory == NULL;
}

#endif
