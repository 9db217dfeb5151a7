/*
 * bench_watch.h — CPU time and memory while a run goes on: of this thread, or of a server on the
 * same machine.
 */
#ifndef WEIR_CMD_BENCH_WATCH_H
#define WEIR_CMD_BENCH_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct watch_cpu {
    pid_t pid; /* 0: the calling thread. */
    uint64_t begun_ns;
};

/* There is such a process, and it can be looked at. */
bool watch_is_there(pid_t pid);

void watch_cpu_begin(struct watch_cpu *watch, pid_t pid);

/* CPU time since then, in ns; 0 when the process cannot be looked at. */
uint64_t watch_cpu_end(const struct watch_cpu *watch);

/* The proportional set of a process in bytes; 0: unknown. */
uint64_t watch_memory(pid_t pid);

#endif
