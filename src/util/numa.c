#include "util/numa.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIST_BYTES 4096
#define PATH_BYTES 512

/* A number at *text, which moves behind it. */
static bool take_number(const char **text, unsigned long *out)
{
    char *end;
    if (**text < '0' || **text > '9') {
        return false;
    }
    *out = strtoul(*text, &end, 10);
    *text = end;
    return *out < NUMA_CPUS_MAX;
}

bool numa_parse(const char *text, cpu_set_t *out)
{
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    while (*text != '\0' && *text != '\n') {
        unsigned long first;
        if (!take_number(&text, &first)) {
            return false;
        }
        unsigned long last = first;
        if (*text == '-') {
            text++;
            if (!take_number(&text, &last) || last < first) {
                return false;
            }
        }
        for (unsigned long cpu = first; cpu <= last; cpu++) {
            CPU_SET(cpu, &cpus);
        }
        if (*text == ',' && text[1] != '\0') {
            text++;
        } else if (*text != '\0' && *text != '\n') {
            return false;
        }
    }
    *out = cpus;
    return true;
}

/* The list in the file "SYSTEM/FOLDERnNUMBER/NAME"; false: there is none. */
static bool read_list(const char *system, const char *folder, int32_t number, const char *name,
                      cpu_set_t *out)
{
    char path[PATH_BYTES];
    char text[LIST_BYTES];
    (void)snprintf(path, sizeof(path), "%s/%s%d/%s", system, folder, number, name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    const ssize_t size = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    if (size < 0) {
        return false;
    }
    text[size] = '\0';
    return numa_parse(text, out);
}

/* How many threads of its core come before it. */
static uint32_t rank_of(const char *system, int32_t cpu)
{
    cpu_set_t siblings;
    uint32_t rank = 0;
    if (!read_list(system, "cpu/cpu", cpu, "topology/thread_siblings_list", &siblings)) {
        return 0;
    }
    for (int32_t i = 0; i < cpu; i++) {
        rank += CPU_ISSET((unsigned)i, &siblings) ? 1 : 0;
    }
    return rank;
}

static void add_node(struct numa *numa, const char *system, int32_t node, const cpu_set_t *cpus)
{
    for (int32_t cpu = 0; cpu < NUMA_CPUS_MAX; cpu++) {
        if (CPU_ISSET((unsigned)cpu, cpus)) {
            numa->cpus[numa->count++] =
                (struct numa_cpu){ .cpu = cpu, .node = node, .rank = rank_of(system, cpu) };
            numa->nodes |= UINT64_C(1) << node;
        }
    }
}

/* How many of the same node come before it. */
static uint32_t turn_of(const struct numa *numa, const struct numa_cpu *cpu)
{
    uint32_t turn = 0;
    for (uint32_t i = 0; i < numa->count; i++) {
        const struct numa_cpu *other = &numa->cpus[i];
        const bool before =
            other->rank < cpu->rank || (other->rank == cpu->rank && other->cpu < cpu->cpu);
        turn += other->node == cpu->node && before ? 1 : 0;
    }
    return turn;
}

static int by_turn(const void *a, const void *b)
{
    const struct numa_cpu *left = a;
    const struct numa_cpu *right = b;
    if (left->turn != right->turn) {
        return left->turn < right->turn ? -1 : 1;
    }
    return left->node < right->node ? -1 : 1;
}

static void put_in_order(struct numa *numa)
{
    for (uint32_t i = 0; i < numa->count; i++) {
        numa->cpus[i].turn = turn_of(numa, &numa->cpus[i]);
    }
    qsort(numa->cpus, numa->count, sizeof(numa->cpus[0]), by_turn);
}

void numa_read(const char *system, const cpu_set_t *allowed, struct numa *out)
{
    cpu_set_t mine;
    CPU_ZERO(&mine);
    if (allowed != NULL) {
        mine = *allowed;
    } else if (sched_getaffinity(0, sizeof(mine), &mine) != 0) {
        CPU_SET(0, &mine);
    }
    out->nodes = 0;
    out->count = 0;
    cpu_set_t left = mine;
    for (int32_t node = 0; node < NUMA_NODES_MAX; node++) {
        cpu_set_t cpus;
        if (read_list(system, "node/node", node, "cpulist", &cpus)) {
            CPU_AND(&cpus, &cpus, &left);
            CPU_XOR(&left, &left, &cpus);
            add_node(out, system, node, &cpus);
        }
    }
    add_node(out, system, 0, &left); /* Those of which nothing is said. */
    put_in_order(out);
}

void numa_node_cpus(const struct numa *numa, int32_t node, cpu_set_t *out)
{
    CPU_ZERO(out);
    for (uint32_t i = 0; i < numa->count; i++) {
        if (numa->cpus[i].node == node) {
            CPU_SET((unsigned)numa->cpus[i].cpu, out);
        }
    }
}
