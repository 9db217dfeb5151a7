/*
 * A limit on a child's memory.
 *
 * A control group counts what is really used, and the kernel ends who passes
 * it.  Version 2 lets only folders be limited that hold no process beside, so
 * the group is made beside the server's own where systemd has delegated that
 * folder (Delegate=memory with DelegateSubgroup=), or beneath the root; version 1
 * lets it be made beneath the server's own.  The group is named after the child,
 * so that sandbox_bury() finds it without being told.
 *
 * Elsewhere (not root, no delegation, a read-only file system in a container)
 * RLIMIT_DATA counts what may be written and is the child's alone, beyond what
 * it has already: then allocations fail instead.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "util/sandbox_impl.h"

/* A file system of control groups.  The names of files are what differs. */
struct hierarchy {
    const char *mount;
    const char *line;   /* How its line in /proc/self/cgroup goes on after the number. */
    const char *limit;  /* File: bytes. */
    const char *swap;   /* File: bytes in swap, or with memory; may be absent. */
    bool swap_none;     /* The former: 0 is written; else the same limit again. */
    const char *events; /* File with the line "oom_kill COUNT". */
    bool beside;        /* The group may be made beside the own one. */
};

static const struct hierarchy hierarchies[] = {
    { "/sys/fs/cgroup", ":", "memory.max", "memory.swap.max", true, "memory.events", true },
    { "/sys/fs/cgroup/memory", "memory:", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes",
      false, "memory.oom_control", false },
};
#define PREFIX "weir-" /* Of groups, before the process's number. */
#define HIERARCHIES (sizeof(hierarchies) / sizeof(hierarchies[0]))

/* Reads a small file whole, with a NUL. */
static bool read_text(const char *path, char *text, size_t size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    const ssize_t got = read(fd, text, size - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    return got > 0;
}

static bool write_number(const char *folder, const char *file, uint64_t number)
{
    char path[PATH_MAX];
    char text[24];
    const int size = snprintf(text, sizeof(text), "%" PRIu64, number);
    if (snprintf(path, sizeof(path), "%s/%s", folder, file) >= (int)sizeof(path)) {
        return false;
    }
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    const bool written = write(fd, text, (size_t)size) == size;
    close(fd);
    return written;
}

/* The own group's path of /proc/self/cgroup: "4:memory:/a/b" or, version 2, "0::/a/b". */
static bool own_group(const struct hierarchy *h, char *out, size_t size)
{
    char text[4096];
    if (!read_text("/proc/self/cgroup", text, sizeof(text))) {
        return false;
    }
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        const char *after = strchr(line, ':');
        const size_t length = strlen(h->line);
        if (after != NULL && strncmp(after + 1, h->line, length) == 0) {
            const char *path = after + 1 + length;
            const bool root = strcmp(path, "/") == 0;
            return snprintf(out, size, "%s%s", h->mount, root ? "" : path) < (int)size;
        }
    }
    return false;
}

static bool is_delegated(const char *folder)
{
    char one;
    return (getxattr(folder, "user.delegate", &one, 1) == 1 && one == '1') ||
           (getxattr(folder, "trusted.delegate", &one, 1) == 1 && one == '1');
}

/* The folder in which groups of children are made. */
static bool base_of(const struct hierarchy *h, char *base, size_t size)
{
    if (!own_group(h, base, size)) {
        return false;
    }
    char *last = strrchr(base, '/');
    if (h->beside && (size_t)(last - base) > strlen(h->mount)) {
        *last = '\0';
        return is_delegated(base);
    }
    return true;
}

/* Where the group of `child` is or would be. */
static bool group_of(const struct hierarchy *h, pid_t child, char *out, size_t size)
{
    char base[PATH_MAX];
    return base_of(h, base, sizeof(base)) &&
           snprintf(out, size, "%s/" PREFIX "%jd", base, (intmax_t)child) < (int)size;
}

static bool enter_group(const struct hierarchy *h, uint64_t bytes)
{
    char path[PATH_MAX];
    if (!group_of(h, getpid(), path, sizeof(path))) {
        return false;
    }
    (void)rmdir(path); /* Of an earlier process with this number, whose server was killed. */
    if (mkdir(path, 0755) != 0) {
        return false;
    }
    if (write_number(path, h->limit, bytes) && write_number(path, "cgroup.procs", 0)) {
        (void)write_number(path, h->swap, h->swap_none ? 0 : bytes);
        return true;
    }
    (void)rmdir(path);
    return false;
}

/* What RLIMIT_DATA counts, as it is now. */
static uint64_t data_bytes(void)
{
    char text[4096];
    const char *line = NULL;
    if (read_text("/proc/self/status", text, sizeof(text))) {
        line = strstr(text, "\nVmData:");
    }
    return line == NULL ? 0 : (uint64_t)strtoull(line + strlen("\nVmData:"), NULL, 10) * 1024;
}

enum weir_status sandbox_memory(const struct sandbox *sandbox, struct sandbox_state *state,
                                struct weir_err *err)
{
    const uint64_t mib = sandbox->memory_max >> 20;
    if (sandbox->memory_max == 0) {
        sandbox_say(state, false, "no limit wanted");
        return WEIR_OK;
    }
    for (size_t i = 0; i < HIERARCHIES; i++) {
        if (enter_group(&hierarchies[i], sandbox->memory_max)) {
            sandbox_say(state, true, "%" PRIu64 " MiB by control group", mib);
            return WEIR_OK;
        }
    }
    struct rlimit most;
    uint64_t bytes;
    if (__builtin_add_overflow(data_bytes(), sandbox->memory_max, &bytes)) {
        bytes = UINT64_MAX;
    }
    if (getrlimit(RLIMIT_DATA, &most) == 0) {
        most.rlim_max = most.rlim_max < bytes ? most.rlim_max : bytes;
        most.rlim_cur = most.rlim_max;
        if (setrlimit(RLIMIT_DATA, &most) == 0) {
            sandbox_say(state, true, "%" PRIu64 " MiB by RLIMIT_DATA", mib);
            return WEIR_OK;
        }
    }
    return err_set(err, WEIR_EIO, "sandbox: RLIMIT_DATA: %s", strerror(errno));
}

bool sandbox_bury(pid_t child)
{
    bool passed = false;
    for (size_t i = 0; i < HIERARCHIES; i++) {
        char path[PATH_MAX];
        char events[PATH_MAX + 32];
        char text[1024];
        if (!group_of(&hierarchies[i], child, path, sizeof(path))) {
            continue;
        }
        (void)snprintf(events, sizeof(events), "%s/%s", path, hierarchies[i].events);
        if (read_text(events, text, sizeof(text))) {
            const char *kills = strstr(text, "oom_kill ");
            passed =
                passed || (kills != NULL && strtoul(kills + strlen("oom_kill "), NULL, 10) > 0);
        }
        (void)rmdir(path);
    }
    return passed;
}

static void sweep(const char *base)
{
    DIR *folder = opendir(base);
    for (struct dirent *e; folder != NULL && (e = readdir(folder)) != NULL;) {
        char *end = NULL;
        const bool group = strncmp(e->d_name, PREFIX, strlen(PREFIX)) == 0;
        const long child = group ? strtol(e->d_name + strlen(PREFIX), &end, 10) : 0;
        if (child > 0 && *end == '\0' && kill((pid_t)child, 0) != 0 && errno == ESRCH) {
            (void)unlinkat(dirfd(folder), e->d_name, AT_REMOVEDIR); /* Only if nobody is in it. */
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
}

void sandbox_sweep(void)
{
    for (size_t i = 0; i < HIERARCHIES; i++) {
        char base[PATH_MAX];
        if (base_of(&hierarchies[i], base, sizeof(base))) {
            sweep(base);
        }
    }
}
