/*
 * numa.h — which processors there are, and which memory is near to them.
 *
 * A *node* is a part of the memory with the processors that reach it fastest; machines with one
 * socket have one.  A *seat* is where a thread may run.  Read once from the system's files (/sys),
 * of which a test may have its own.
 */
#ifndef WEIR_UTIL_NUMA_H
#define WEIR_UTIL_NUMA_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

#define NUMA_NODES_MAX 64
#define NUMA_CPUS_MAX CPU_SETSIZE
#define NUMA_SYSTEM "/sys/devices/system"

struct numa_cpu {
    int32_t cpu;
    int32_t node;
    uint32_t rank; /* Of its core's threads: 0 is the first. */
    uint32_t turn; /* Of its node's. */
};

struct numa {
    uint64_t nodes; /* Bit per node that has processors of this process. */
    uint32_t count;
    /* Those that this process may run on, in the order that threads should take: nodes in turn, in
     * each first one thread of each core. */
    struct numa_cpu cpus[NUMA_CPUS_MAX];
};

struct numa_seat {
    cpu_set_t cpus;
    int32_t node;
};

/* `system` is NUMA_SYSTEM; `allowed` the processors that count, NULL: those of the calling thread.
 * What the system does not say counts as one node. */
void numa_read(const char *system, const cpu_set_t *allowed, struct numa *out);

/* "0-3,8": false where it is no such list.  An empty one is none. */
WEIR_MUST_USE bool numa_parse(const char *text, cpu_set_t *out);

/* All processors of that node. */
void numa_node_cpus(const struct numa *numa, int32_t node, cpu_set_t *out);

#endif
