/*
 * Landlock: which files may be opened, whoever's they are.
 *
 * The C library has no wrappers for it, and the kernel's header may be older
 * than the kernel that we meet, so the calls are made by number and the few
 * facts of the interface stand here.  A right that the running kernel does not
 * know is not asked for: the version of its interface says how many there are.
 *
 * A child may read its model, and what the C library and the runtime look up
 * about the machine.  It may not read /proc/self, where its environment is.
 * Nothing is writable; what it hands back goes through descriptors it has.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/sandbox_impl.h"

/* The struct of the newest version that is used, 6. */
struct attributes {
    uint64_t files;
    uint64_t network; /* From 4. */
    uint64_t scoped;  /* From 6. */
};

#define RIGHT(number) (UINT64_C(1) << (number))
#define READ_FILE RIGHT(2)
#define READ_FOLDER RIGHT(3)
#define WRITE_FILE RIGHT(1)
#define CONTROL_DEVICE RIGHT(15)
#define ON_FILES (READ_FILE | WRITE_FILE | CONTROL_DEVICE) /* What a rule on a file may hold. */
#define NO_TCP (RIGHT(0) | RIGHT(1))                       /* bind, connect */
#define SCOPED (RIGHT(0) | RIGHT(1)) /* abstract sockets and signals of others */

/* How many rights on files versions 1, 2, ... know: from the first, refer, truncate, and (with the
 * network between) ioctl on devices. */
static const unsigned file_rights[] = { 13, 14, 15, 15, 16 };

#define READING (READ_FILE | READ_FOLDER)
#define DRIVING (READING | WRITE_FILE | CONTROL_DEVICE)

/* What is looked up about the machine; what is not there is passed over. */
static const char *const machine[] = {
    "/proc/cpuinfo", "/proc/meminfo",  "/sys/devices/system", "/dev/null",
    "/dev/urandom",  "/etc/localtime", "/usr/share/zoneinfo",
};

static const char *const libraries[] = {
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache",
};

/* What runtimes of accelerators read ... */
static const char *const device_facts[] = {
    "/proc/driver/nvidia", "/proc/devices",           "/proc/self/maps",    "/sys/bus/pci",
    "/sys/class/drm",      "/sys/devices/pci0000:00", "/sys/module/nvidia", "/sys/class/accel",
};

/* ... and drive. */
static const char *const device_files[] = {
    "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/dri",
    "/dev/kfd",       "/dev/accel",      "/dev/nvidia-caps",
};
#define NVIDIA_MAX 32 /* /dev/nvidia0 and on. */

static enum weir_status failed(struct weir_err *err, const char *what)
{
    return err_set(err, WEIR_EIO, "sandbox: Landlock: %s: %s", what, strerror(errno));
}

static bool allow(int ruleset, int fd, uint64_t rights)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return false;
    }
    const struct landlock_path_beneath_attr rule = {
        .allowed_access = S_ISDIR(info.st_mode) ? rights : rights & ON_FILES,
        .parent_fd = fd,
    };
    return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0;
}

static bool allow_path(int ruleset, const char *path, uint64_t rights)
{
    const int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0) {
        return true;
    }
    const bool allowed = allow(ruleset, fd, rights);
    close(fd);
    return allowed;
}

static bool allow_paths(int ruleset, const char *const *paths, size_t count, uint64_t rights)
{
    bool allowed = true;
    for (size_t i = 0; i < count && allowed; i++) {
        allowed = allow_path(ruleset, paths[i], rights);
    }
    return allowed;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool allow_devices(int ruleset, uint64_t known)
{
    bool allowed = allow_paths(ruleset, device_facts, COUNT(device_facts), READING) &&
                   allow_paths(ruleset, device_files, COUNT(device_files), DRIVING & known);
    for (unsigned i = 0; i < NVIDIA_MAX && allowed; i++) {
        char path[32];
        (void)snprintf(path, sizeof(path), "/dev/nvidia%u", i);
        allowed = allow_path(ruleset, path, DRIVING & known);
    }
    return allowed;
}

static bool allow_all(int ruleset, const struct sandbox *sandbox, uint64_t known)
{
    bool allowed = allow_paths(ruleset, machine, COUNT(machine), READING);
    for (size_t i = 0; i < sandbox->readable_count && allowed; i++) {
        allowed = allow(ruleset, sandbox->readable[i], READING);
    }
    if (allowed && (sandbox->libraries || sandbox->devices)) {
        allowed = allow_paths(ruleset, libraries, COUNT(libraries), READING);
    }
    return allowed && (!sandbox->devices || allow_devices(ruleset, known));
}

static size_t version_index(long version)
{
    const size_t last = COUNT(file_rights) - 1;
    return (size_t)version - 1 < last ? (size_t)version - 1 : last;
}

enum weir_status sandbox_files(const struct sandbox *sandbox, struct sandbox_state *state,
                               bool *network, struct weir_err *err)
{
    const long version =
        syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 1) {
        sandbox_say(state, false, "no Landlock (%s)", strerror(errno));
        return WEIR_OK;
    }
    const struct attributes wanted = {
        .files = RIGHT(file_rights[version_index(version)]) - 1,
        .network = version >= 4 ? NO_TCP : 0,
        .scoped = version >= 6 ? SCOPED : 0,
    };
    const size_t size = version >= 6 ? sizeof(wanted) : sizeof(uint64_t) * (version >= 4 ? 2 : 1);
    const int ruleset = (int)syscall(SYS_landlock_create_ruleset, &wanted, size, 0);
    if (ruleset < 0) {
        return failed(err, "making rules");
    }
    enum weir_status status = WEIR_OK;
    if (!allow_all(ruleset, sandbox, wanted.files)) {
        status = failed(err, "allowing a folder");
    } else if (syscall(SYS_landlock_restrict_self, ruleset, 0) != 0) {
        status = failed(err, "entering");
    }
    close(ruleset);
    if (status == WEIR_OK) {
        *network = version >= 4;
        sandbox_say(state, true, "Landlock %ld", version);
    }
    return status;
}
