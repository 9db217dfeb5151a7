/*
 * sandbox.h — what a child that runs a model gives up before it loads it.
 *
 * sandbox_enter() is called by the child itself while it has one thread, after
 * it was forked and before it reads anything that came with a model; there is
 * no way back.  Its layers hold independently of each other:
 *
 *   life        dies when the thread that forked it ends; no core files; few
 *               descriptors; the kernel's first choice when memory is short
 *   memory      a control group of its own where one can be made, else RLIMIT_DATA
 *   files       Landlock: reads what is named here, writes nothing
 *   network     an empty network namespace, and no TCP by Landlock
 *   privileges  no new ones; as root: becomes an unprivileged user
 *   calls       seccomp: an allow list; what only hijacked code asks for kills
 *
 * Where the kernel or the surroundings lack a layer the others hold, and what
 * is missing is told, by sandbox_describe().  A layer that is there and fails
 * half-way is an error: the child must end.
 *
 * A call that is not on the list is not carried out.  Starting programs and
 * processes, tracing, kernel modules, namespaces, mounts and the like end the
 * child with SIGSYS, which counts as a fault of the model; all others get the
 * error that an older kernel would give, so that a C library that tries
 * something new falls back and no innocent model is convicted.
 */
#ifndef WEIR_UTIL_SANDBOX_H
#define WEIR_UTIL_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/err.h"

#define SANDBOX_FILES_DEFAULT 256

/* X(name, text) */
#define SANDBOX_LAYERS(X)         \
    X(LIFE, "life")               \
    X(MEMORY, "memory")           \
    X(FILES, "files")             \
    X(NETWORK, "network")         \
    X(PRIVILEGES, "privileges")   \
    X(CALLS, "calls")

enum sandbox_layer {
#define SANDBOX_LAYER_ENUM(name, text) SANDBOX_##name,
    SANDBOX_LAYERS(SANDBOX_LAYER_ENUM)
#undef SANDBOX_LAYER_ENUM
    SANDBOX_LAYER_COUNT
};

/* What is wanted; zeroed is the strictest. */
struct sandbox {
    /* Descriptors of folders and files that may be opened for reading, with all beneath them;
     * O_PATH is enough.  They stay open. */
    const int *readable;
    size_t readable_count;
    uint64_t memory_max; /* Bytes; 0: no limit. */
    uint32_t files_max;  /* Descriptors open at a time; 0: SANDBOX_FILES_DEFAULT. */
    uid_t uid;           /* Who a child of root becomes; 0: nobody (65534). */
    gid_t gid;           /* Likewise. */
    pid_t parent;        /* Who forked the child: it may have ended already.  0: not checked. */
    /* A plug-in or an execution provider: may also read the system's shared libraries, to open more
     * of them while it loads. */
    bool libraries;
    bool devices; /* An accelerator's runtime: its device files and any ioctl, too. */
};

/* One layer, as it came out. */
struct sandbox_state {
    bool in_force;
    char how[96]; /* By what, or why not: "Landlock 7", "no cgroup, RLIMIT_DATA". */
};

struct sandbox_report {
    struct sandbox_state layers[SANDBOX_LAYER_COUNT];
};

/* WEIR_OK: every layer that can be had is in force; which, is in *out.  WEIR_EIO: one that should
 * hold does not, or the parent is gone; end the process.  Allocates nothing. */
WEIR_MUST_USE enum weir_status sandbox_enter(const struct sandbox *sandbox,
                                             struct sandbox_report *out, struct weir_err *err);

/* One line for the log, "life: ..., memory: ..., files: none (no Landlock), ...", into `text`;
 * returns it. */
const char *sandbox_describe(const struct sandbox_report *report, char *text, size_t size);
#define SANDBOX_TEXT_BYTES 768

/* For whoever learnt that a child in a sandbox has ended: removes what it left in the file system
 * of control groups.  True: the kernel ended it, or another of its group, for passing memory_max.
 * Any thread; a few calls of the kernel. */
bool sandbox_bury(pid_t child);

/* Removes what children left whom nobody buried, because their server was killed. */
void sandbox_sweep(void);

#endif
