/*
 * seccomp: which calls of the kernel a child may make.
 *
 * One table lists the calls and what becomes of each; the program for the kernel
 * is made of it, row by row.  What stands there under __x86_64__ are calls that it
 * has from its youth and arm64 never had.
 *
 * Three answers.  Allowed: what the C library, a thread, and an allocator need,
 * and reading files.  Fatal: what no model, runtime or library has a reason for,
 * and code that took over a child would want first.  All others are refused
 * with ENOSYS, which is what an older kernel says: a C library that tries
 * something new falls back, and an innocent model is not convicted.  Some are
 * refused with another error, because callers know what to do with it.
 *
 * The kernel remembers which calls are allowed whatever their arguments, so the
 * list costs those nothing, however long it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "util/sandbox_impl.h"

#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define MACHINE AUDIT_ARCH_AARCH64
#endif

#ifdef MACHINE

/* What becomes of a call. */
enum verdict {
    ALLOW,
    KILL,     /* The process, as by a fault. */
    DENY,     /* EACCES */
    THREADS,  /* clone: threads are allowed, processes are fatal. */
    OWN,      /* The first argument is this process. */
    ASKING,   /* prlimit64: no new value. */
    NAMES,    /* prctl: names, of threads and of mappings. */
    PLAIN,    /* ioctl: what is asked of any descriptor; all, for devices. */
    SENDING,  /* sendto: not what connects, too. */
    SENDING2, /* sendmsg: likewise, its flags are one argument earlier. */
    READING,  /* open: what creates and changes nothing; for devices, what Landlock lets. */
    READING2, /* openat: likewise, one argument later. */
    OPENING,  /* openat2 hides its flags in memory: only beneath Landlock. */
};

struct row {
    uint32_t call;
    enum verdict verdict;
};

static const struct row rows[] = {
    /* Memory. */
    { SYS_brk, ALLOW },
    { SYS_mmap, ALLOW },
    { SYS_munmap, ALLOW },
    { SYS_mremap, ALLOW },
    { SYS_mprotect, ALLOW },
    { SYS_madvise, ALLOW },
    { SYS_mincore, ALLOW },
    { SYS_msync, ALLOW },
    { SYS_mlock, ALLOW },
    { SYS_mlock2, ALLOW },
    { SYS_munlock, ALLOW },
    { SYS_membarrier, ALLOW },
    { SYS_memfd_create, ALLOW },
    { SYS_mbind, ALLOW },
    { SYS_get_mempolicy, ALLOW },
    { SYS_set_mempolicy, ALLOW },
    /* Threads and their time. */
    { SYS_clone, THREADS },
    { SYS_exit, ALLOW },
    { SYS_exit_group, ALLOW },
    { SYS_futex, ALLOW },
    { SYS_set_robust_list, ALLOW },
    { SYS_get_robust_list, ALLOW },
    { SYS_set_tid_address, ALLOW },
    { SYS_rseq, ALLOW },
    { SYS_sched_yield, ALLOW },
    { SYS_sched_getaffinity, ALLOW },
    { SYS_sched_setaffinity, ALLOW },
    { SYS_sched_getparam, ALLOW },
    { SYS_sched_getscheduler, ALLOW },
    { SYS_sched_get_priority_max, ALLOW },
    { SYS_sched_get_priority_min, ALLOW },
    { SYS_getcpu, ALLOW },
    { SYS_setpriority, ALLOW },
    { SYS_getpriority, ALLOW },
    { SYS_nanosleep, ALLOW },
    { SYS_clock_nanosleep, ALLOW },
    { SYS_clock_gettime, ALLOW },
    { SYS_clock_getres, ALLOW },
    { SYS_gettimeofday, ALLOW },
    { SYS_restart_syscall, ALLOW },
    { SYS_prctl, NAMES },
    /* Signals. */
    { SYS_rt_sigaction, ALLOW },
    { SYS_rt_sigprocmask, ALLOW },
    { SYS_rt_sigreturn, ALLOW },
    { SYS_rt_sigpending, ALLOW },
    { SYS_rt_sigtimedwait, ALLOW },
    { SYS_rt_sigsuspend, ALLOW },
    { SYS_sigaltstack, ALLOW },
    { SYS_tgkill, OWN },
    { SYS_kill, OWN },
    /* Who and where am I. */
    { SYS_getpid, ALLOW },
    { SYS_gettid, ALLOW },
    { SYS_getppid, ALLOW },
    { SYS_getuid, ALLOW },
    { SYS_geteuid, ALLOW },
    { SYS_getgid, ALLOW },
    { SYS_getegid, ALLOW },
    { SYS_uname, ALLOW },
    { SYS_sysinfo, ALLOW },
    { SYS_getrusage, ALLOW },
    { SYS_times, ALLOW },
    { SYS_prlimit64, ASKING },
    { SYS_getrlimit, ALLOW },
    { SYS_getcwd, ALLOW },
    { SYS_getrandom, ALLOW },
    /* Reading files. */
    { SYS_openat, READING2 },
    { SYS_openat2, OPENING },
    { SYS_newfstatat, ALLOW },
    { SYS_fstat, ALLOW },
    { SYS_statx, ALLOW },
    { SYS_statfs, ALLOW },
    { SYS_fstatfs, ALLOW },
    { SYS_faccessat, ALLOW },
    { SYS_faccessat2, ALLOW },
    { SYS_readlinkat, ALLOW },
    { SYS_getdents64, ALLOW },
    { SYS_lseek, ALLOW },
    { SYS_fadvise64, ALLOW },
    { SYS_readahead, ALLOW },
    /* Descriptors that it has. */
    { SYS_read, ALLOW },
    { SYS_readv, ALLOW },
    { SYS_pread64, ALLOW },
    { SYS_preadv, ALLOW },
    { SYS_write, ALLOW },
    { SYS_writev, ALLOW },
    { SYS_pwrite64, ALLOW },
    { SYS_pwritev, ALLOW },
    { SYS_close, ALLOW },
    { SYS_close_range, ALLOW },
    { SYS_dup, ALLOW },
    { SYS_dup3, ALLOW },
    { SYS_fcntl, ALLOW },
    { SYS_flock, ALLOW },
    { SYS_ftruncate, ALLOW },
    { SYS_fallocate, ALLOW },
    { SYS_ioctl, PLAIN },
    { SYS_pipe2, ALLOW },
    { SYS_eventfd2, ALLOW },
    { SYS_timerfd_create, ALLOW },
    { SYS_timerfd_settime, ALLOW },
    { SYS_timerfd_gettime, ALLOW },
    { SYS_epoll_create1, ALLOW },
    { SYS_epoll_ctl, ALLOW },
    { SYS_epoll_pwait, ALLOW },
    { SYS_ppoll, ALLOW },
    { SYS_pselect6, ALLOW },
    /* Sockets are given, connected, and not made. */
    { SYS_sendmsg, SENDING2 },
    { SYS_recvmsg, ALLOW },
    { SYS_sendto, SENDING },
    { SYS_recvfrom, ALLOW },
    { SYS_shutdown, ALLOW },
    { SYS_getsockopt, ALLOW },
    { SYS_getsockname, ALLOW },
    { SYS_getpeername, ALLOW },
    { SYS_socketpair, DENY },
    { SYS_socket, DENY },
    { SYS_connect, DENY },
    { SYS_bind, DENY },
    { SYS_listen, DENY },
    { SYS_accept, DENY },
    { SYS_accept4, DENY },
    /* Other programs. */
    { SYS_execve, KILL },
    { SYS_execveat, KILL },
    { SYS_ptrace, KILL },
    { SYS_process_vm_readv, KILL },
    { SYS_process_vm_writev, KILL },
    { SYS_pidfd_getfd, KILL },
    { SYS_open_by_handle_at, KILL },
    { SYS_name_to_handle_at, KILL },
    /* Another view of the system. */
    { SYS_unshare, KILL },
    { SYS_setns, KILL },
    { SYS_mount, KILL },
    { SYS_umount2, KILL },
    { SYS_pivot_root, KILL },
    { SYS_chroot, KILL },
    { SYS_open_tree, KILL },
    { SYS_move_mount, KILL },
    { SYS_fsopen, KILL },
    { SYS_fsmount, KILL },
    { SYS_fsconfig, KILL },
    { SYS_fspick, KILL },
    { SYS_mount_setattr, KILL },
    { SYS_mknodat, KILL },
    /* The kernel and the machine. */
    { SYS_init_module, KILL },
    { SYS_finit_module, KILL },
    { SYS_delete_module, KILL },
    { SYS_kexec_load, KILL },
    { SYS_kexec_file_load, KILL },
    { SYS_reboot, KILL },
    { SYS_bpf, KILL },
    { SYS_userfaultfd, KILL },
    { SYS_perf_event_open, KILL },
    { SYS_keyctl, KILL },
    { SYS_add_key, KILL },
    { SYS_request_key, KILL },
    { SYS_swapon, KILL },
    { SYS_swapoff, KILL },
    { SYS_acct, KILL },
    { SYS_settimeofday, KILL },
    { SYS_clock_settime, KILL },
    { SYS_sethostname, KILL },
    { SYS_setdomainname, KILL },
    { SYS_quotactl, KILL },
    /* Other users. */
    { SYS_setuid, KILL },
    { SYS_setgid, KILL },
    { SYS_setreuid, KILL },
    { SYS_setregid, KILL },
    { SYS_setresuid, KILL },
    { SYS_setresgid, KILL },
    { SYS_setgroups, KILL },
    { SYS_setfsuid, KILL },
    { SYS_setfsgid, KILL },
    { SYS_capset, KILL },
#ifdef __x86_64__
    /* Of old. */
    { SYS_arch_prctl, ALLOW },
    { SYS_open, READING },
    { SYS_stat, ALLOW },
    { SYS_lstat, ALLOW },
    { SYS_access, ALLOW },
    { SYS_readlink, ALLOW },
    { SYS_getdents, ALLOW },
    { SYS_dup2, ALLOW },
    { SYS_pipe, ALLOW },
    { SYS_poll, ALLOW },
    { SYS_select, ALLOW },
    { SYS_epoll_create, ALLOW },
    { SYS_epoll_wait, ALLOW },
    { SYS_eventfd, ALLOW },
    { SYS_time, ALLOW },
    { SYS_fork, KILL },
    { SYS_vfork, KILL },
    { SYS_mknod, KILL },
    { SYS_iopl, KILL },
    { SYS_ioperm, KILL },
    { SYS_modify_ldt, KILL },
#endif
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

#define TEXT_MAX 1024
_Static_assert(ROWS * 2 + 300 < TEXT_MAX, "room for every row and some with conditions");

/* A program for the kernel's filter, as it is written. */
struct program {
    struct sock_filter text[TEXT_MAX];
    size_t size;
};

static void put(struct program *p, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
    p->text[p->size++] = (struct sock_filter){ code, yes, no, k };
}

static void answer(struct program *p, uint32_t value)
{
    put(p, BPF_RET | BPF_K, value, 0, 0);
}

static void refuse(struct program *p, int error)
{
    answer(p, SECCOMP_RET_ERRNO | (uint32_t)error);
}

static void load(struct program *p, size_t offset)
{
    put(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

/* Loads half of an argument; both machines are little-endian. */
static void load_argument(struct program *p, size_t number, bool high)
{
    load(p, offsetof(struct seccomp_data, args) + 8 * number + (high ? 4 : 0));
}

/* Allowed when the argument is one of the values, else `error`. */
static void allow_one_of(struct program *p, size_t argument, const uint32_t *values, size_t count,
                         int error)
{
    load_argument(p, argument, false);
    for (size_t i = 0; i < count; i++) {
        put(p, BPF_JMP | BPF_JEQ | BPF_K, values[i], 0, 1);
        answer(p, SECCOMP_RET_ALLOW);
    }
    refuse(p, error);
}

#define DENIED (SECCOMP_RET_ERRNO | EACCES)

/* Allowed when those `bits` of an argument are as in `wanted`, else `otherwise`. */
static void allow_bits(struct program *p, size_t argument, uint32_t bits, uint32_t wanted,
                       uint32_t otherwise)
{
    load_argument(p, argument, false);
    put(p, BPF_ALU | BPF_AND | BPF_K, bits, 0, 0);
    put(p, BPF_JMP | BPF_JEQ | BPF_K, wanted, 0, 1);
    answer(p, SECCOMP_RET_ALLOW);
    answer(p, otherwise);
}

static void put_threads(struct program *p)
{
    const uint32_t thread = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;
    const uint32_t apart = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                           CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
    allow_bits(p, 0, thread | apart, thread, SECCOMP_RET_KILL_PROCESS);
}

static void put_asking(struct program *p)
{
    load_argument(p, 2, false);
    put(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3);
    load_argument(p, 2, true);
    put(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1);
    answer(p, SECCOMP_RET_ALLOW);
    refuse(p, EPERM);
}

static void put_opening(struct program *p, size_t flags, bool any)
{
    const uint32_t changing = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
    if (any) {
        answer(p, SECCOMP_RET_ALLOW);
        return;
    }
    allow_bits(p, flags, changing, 0, DENIED);
}

static void put_verdict(struct program *p, enum verdict verdict, bool devices, bool files)
{
    static const uint32_t naming[] = { PR_SET_NAME, PR_GET_NAME, PR_SET_VMA };
    static const uint32_t asking[] = { TCGETS, FIONREAD, FIOCLEX, FIONBIO };
    const uint32_t own[] = { (uint32_t)getpid() };
    switch (verdict) {
    case ALLOW:
        answer(p, SECCOMP_RET_ALLOW);
        break;
    case KILL:
        answer(p, SECCOMP_RET_KILL_PROCESS);
        break;
    case DENY:
        answer(p, DENIED);
        break;
    case THREADS:
        put_threads(p);
        break;
    case OWN:
        allow_one_of(p, 0, own, 1, EPERM);
        break;
    case ASKING:
        put_asking(p);
        break;
    case NAMES:
        allow_one_of(p, 0, naming, 3, EPERM);
        break;
    case PLAIN:
        if (devices) {
            answer(p, SECCOMP_RET_ALLOW);
        } else {
            allow_one_of(p, 1, asking, 4, ENOTTY);
        }
        break;
    case SENDING:
        allow_bits(p, 3, MSG_FASTOPEN, 0, DENIED);
        break;
    case SENDING2:
        allow_bits(p, 2, MSG_FASTOPEN, 0, DENIED);
        break;
    case READING:
        put_opening(p, 1, devices && files);
        break;
    case READING2:
        put_opening(p, 2, devices && files);
        break;
    case OPENING:
        if (files) {
            answer(p, SECCOMP_RET_ALLOW);
        } else {
            refuse(p, ENOSYS);
        }
        break;
    }
}

static void put_row(struct program *p, const struct row *row, bool devices, bool files)
{
    const size_t test = p->size;
    put(p, BPF_JMP | BPF_JEQ | BPF_K, row->call, 0, 0);
    put_verdict(p, row->verdict, devices, files);
    p->text[test].jf = (uint8_t)(p->size - test - 1);
}

static void write_program(struct program *p, bool devices, bool files)
{
    load(p, offsetof(struct seccomp_data, arch));
    put(p, BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1, 0);
    answer(p, SECCOMP_RET_KILL_PROCESS);
    load(p, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
    /* The calls of the x32 interface have other numbers for the same things. */
    put(p, BPF_JMP | BPF_JGE | BPF_K, __X32_SYSCALL_BIT, 0, 1);
    answer(p, SECCOMP_RET_KILL_PROCESS);
#endif
    for (size_t i = 0; i < ROWS; i++) {
        put_row(p, &rows[i], devices, files);
    }
    refuse(p, ENOSYS);
}

enum weir_status sandbox_calls(const struct sandbox *sandbox, bool files,
                               struct sandbox_state *state, struct weir_err *err)
{
    struct program program = { .size = 0 };
    write_program(&program, sandbox->devices, files);
    const struct sock_fprog filter = { (unsigned short)program.size, program.text };
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0) {
        sandbox_say(state, true, "seccomp, %zu calls known", ROWS);
        return WEIR_OK;
    }
    if (errno == EINVAL) {
        sandbox_say(state, false, "the kernel has no seccomp filters");
        return WEIR_OK;
    }
    return err_set(err, WEIR_EIO, "sandbox: seccomp: %s", strerror(errno));
}

#else

enum weir_status sandbox_calls(const struct sandbox *sandbox, bool files,
                               struct sandbox_state *state, struct weir_err *err)
{
    (void)sandbox;
    (void)files;
    (void)err;
    sandbox_say(state, false, "no list of calls for this machine");
    return WEIR_OK;
}

#endif
