/*
 * The order of the layers is not free.  Control groups and the badness for the
 * out-of-memory killer are files, so they come before Landlock; a network
 * namespace takes a privilege, so it comes before those go; Landlock and seccomp
 * want PR_SET_NO_NEW_PRIVS; changing the user forgets the wish to die with the
 * parent, so that is said after it; and the filter of calls refuses most of what
 * the others do, so it is last.
 *
 * Landlock decides which files may be read better than their modes do: where it
 * is in force a child of root keeps the one capability to read files that their
 * modes keep from others.  Without it a model in a folder of root's own could be
 * served, but not served isolated.  Where Landlock is missing that capability
 * goes with the rest.
 *
 * Cores are off by a limit of 1, not 0: a core pattern that is a pipe is fed
 * even with 0, and 1 is what the kernel takes for "not even then".  No file with
 * a header fits in it either.
 */
#include "util/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/sandbox_impl.h"

#define NOBODY 65534
#define BADNESS "500" /* Of 1000: before the server, which stays at what it was given. */

void sandbox_say(struct sandbox_state *state, bool in_force, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(state->how, sizeof(state->how), format, args);
    va_end(args);
    state->in_force = in_force;
}

static enum weir_status failed(struct weir_err *err, const char *what)
{
    return err_set(err, WEIR_EIO, "sandbox: %s: %s", what, strerror(errno));
}

static bool be_killed_first(void)
{
    const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    const bool written = write(fd, BADNESS, strlen(BADNESS)) > 0;
    close(fd);
    return written;
}

static enum weir_status limit(unsigned which, rlim_t most, const char *what, struct weir_err *err)
{
    struct rlimit now;
    if (getrlimit(which, &now) != 0) {
        return failed(err, what);
    }
    now.rlim_max = now.rlim_max < most ? now.rlim_max : most;
    now.rlim_cur = now.rlim_max;
    return setrlimit(which, &now) == 0 ? WEIR_OK : failed(err, what);
}

static enum weir_status limit_life(const struct sandbox *sandbox, bool *first, struct weir_err *err)
{
    const rlim_t files = sandbox->files_max == 0 ? SANDBOX_FILES_DEFAULT : sandbox->files_max;
    enum weir_status status = limit(RLIMIT_CORE, 1, "no core files", err);
    if (status == WEIR_OK) {
        status = limit(RLIMIT_NOFILE, files, "few descriptors", err);
    }
    *first = be_killed_first();
    return status;
}

/* A namespace without interfaces that are up.  Who is not root makes one inside a user namespace,
 * where that is allowed; root would be nobody in there, and could no more become anyone. */
static bool leave_network(void)
{
    return unshare(CLONE_NEWNET) == 0 ||
           (geteuid() != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0);
}

/* Keeps only what is in `kept` of the capabilities. */
static bool keep_capabilities(uint64_t kept)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { 0 };
    for (unsigned i = 0; i < 2; i++) {
        data[i].effective = data[i].permitted = (uint32_t)(kept >> (32 * i));
    }
    return syscall(SYS_capset, &head, data) == 0;
}

/* What no program could get back any more; needs CAP_SETPCAP, without which nothing can be gained
 * either, as there are no new privileges. */
static void forget_bounds(void)
{
    for (unsigned long number = 0; number < 64; number++) {
        (void)prctl(PR_CAPBSET_DROP, number, 0, 0, 0);
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static bool become(uid_t uid, gid_t gid)
{
    return setgroups(0, NULL) == 0 && setresgid(gid, gid, gid) == 0 &&
           setresuid(uid, uid, uid) == 0;
}

static enum weir_status drop_privileges(const struct sandbox *sandbox, bool files,
                                        struct sandbox_state *state, struct weir_err *err)
{
    const uint64_t past_modes = UINT64_C(1) << CAP_DAC_READ_SEARCH;
    const uid_t uid = sandbox->uid == 0 ? NOBODY : sandbox->uid;
    const gid_t gid = sandbox->gid == 0 ? NOBODY : sandbox->gid;
    const bool root = geteuid() == 0;
    forget_bounds();
    if (root && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) {
        return failed(err, "keeping a capability");
    }
    const bool changed = root && become(uid, gid);
    const int why = errno;
    const bool reads = changed && files && keep_capabilities(past_modes);
    if (!reads && !keep_capabilities(0)) {
        return failed(err, "dropping capabilities");
    }
    if (root && prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) != 0) {
        return failed(err, "keeping no capabilities");
    }
    if (changed) {
        sandbox_say(state, true, "user %ju, %s", (uintmax_t)uid,
                    reads ? "reads past file modes" : "no capabilities");
    } else if (root) {
        sandbox_say(state, false, "no capabilities, but still root (%s)", strerror(why));
    } else {
        sandbox_say(state, true, "user %ju, no capabilities", (uintmax_t)geteuid());
    }
    return WEIR_OK;
}

static enum weir_status die_with(pid_t parent, bool first, struct sandbox_state *state,
                                 struct weir_err *err)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) {
        return failed(err, "dying with the parent");
    }
    if (parent != 0 && getppid() != parent) {
        return err_set(err, WEIR_EIO, "sandbox: the parent process has ended");
    }
    sandbox_say(state, true, "dies with its parent, no cores%s",
                first ? "" : ", not the first to go when memory is short");
    return WEIR_OK;
}

static void say_network(bool apart, bool no_tcp, struct sandbox_state *state)
{
    sandbox_say(state, apart || no_tcp, "%s%s", apart ? "empty namespace" : "no namespace",
                no_tcp ? ", no TCP by Landlock" : "");
}

enum weir_status sandbox_enter(const struct sandbox *sandbox, struct sandbox_report *out,
                               struct weir_err *err)
{
    struct sandbox_report report = { 0 };
    struct sandbox_state *layers = report.layers;
    bool first = false;
    bool no_tcp = false;
    enum weir_status status = limit_life(sandbox, &first, err);
    if (status == WEIR_OK) {
        status = sandbox_memory(sandbox, &layers[SANDBOX_MEMORY], err);
    }
    const bool apart = status == WEIR_OK && leave_network();
    if (status == WEIR_OK && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        status = failed(err, "no new privileges");
    }
    if (status == WEIR_OK) {
        status = sandbox_files(sandbox, &layers[SANDBOX_FILES], &no_tcp, err);
    }
    const bool files = layers[SANDBOX_FILES].in_force;
    if (status == WEIR_OK) {
        say_network(apart, no_tcp, &layers[SANDBOX_NETWORK]);
        status = drop_privileges(sandbox, files, &layers[SANDBOX_PRIVILEGES], err);
    }
    if (status == WEIR_OK) {
        status = die_with(sandbox->parent, first, &layers[SANDBOX_LIFE], err);
    }
    if (status == WEIR_OK) {
        status = sandbox_calls(sandbox, files, &layers[SANDBOX_CALLS], err);
    }
    if (status == WEIR_OK) {
        *out = report;
    }
    return status;
}

const char *sandbox_describe(const struct sandbox_report *report, char *text, size_t size)
{
    static const char *const names[] = {
#define NAME(name, text) text,
        SANDBOX_LAYERS(NAME)
#undef NAME
    };
    size_t used = 0;
    if (size > 0) {
        text[0] = '\0';
    }
    for (size_t i = 0; i < SANDBOX_LAYER_COUNT && used < size; i++) {
        const struct sandbox_state *layer = &report->layers[i];
        const int wrote = snprintf(text + used, size - used, "%s%s: %s%s", i == 0 ? "" : "; ",
                                   names[i], layer->in_force ? "" : "none, ", layer->how);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    return text;
}
