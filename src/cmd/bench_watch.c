/*
 * schedstat counts nanoseconds, where the usual times count ticks of 10 ms.  It is kept per thread;
 * threads that end between two looks take theirs with them, which a server's do not.
 */
#include "cmd/bench_watch.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t own_ns(void)
{
    struct timespec at;
    return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at) != 0
               ? 0
               : (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
}

static uint64_t thread_ns(pid_t pid, const char *thread)
{
    char path[320];
    uint64_t ns = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", (int)pid, thread);
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%" SCNu64, &ns) != 1) {
            ns = 0;
        }
        (void)fclose(file);
    }
    return ns;
}

static uint64_t process_ns(pid_t pid)
{
    char path[64];
    uint64_t ns = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return 0;
    }
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (entry->d_name[0] != '.') {
            ns += thread_ns(pid, entry->d_name);
        }
    }
    (void)closedir(folder);
    return ns;
}

bool watch_is_there(pid_t pid)
{
    return process_ns(pid) > 0;
}

void watch_cpu_begin(struct watch_cpu *watch, pid_t pid)
{
    watch->pid = pid;
    watch->begun_ns = pid == 0 ? own_ns() : process_ns(pid);
}

uint64_t watch_cpu_end(const struct watch_cpu *watch)
{
    const uint64_t ns = watch->pid == 0 ? own_ns() : process_ns(watch->pid);
    return ns > watch->begun_ns ? ns - watch->begun_ns : 0;
}

uint64_t watch_memory(pid_t pid)
{
    char path[64];
    char line[128];
    uint64_t kib = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "Pss: %" SCNu64, &kib) == 1) {
            break;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return kib * 1024;
}
