/*
 * Looking is worth it where the other side answers within the time that falling asleep and being
 * woken takes; where it takes longer, every look is time taken from others.  So a side looks only
 * when the last answer came soon, and not at all where it has one core.
 */
#include "backend/process_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "util/err.h"

#define AREA_BYTES_MIN ((size_t)64 << 10)
#define SPIN_NS (8 * NS_PER_US)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* ---- Areas ----------------------------------------------------------------------------------- */

static enum weir_status map(struct process_area *area, size_t size, int rights, int fd,
                            struct weir_err *err)
{
    void *data = mmap(NULL, size, rights, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        return err_nomem(err, "memory shared with a model's process", size);
    }
    area->data = data;
    area->size = size;
    return WEIR_OK;
}

enum weir_status process_area_create(struct process_area *area, size_t size,
                                     enum process_area_use use, int *fd, struct weir_err *err)
{
    const int seals = SEALS | F_SEAL_SEAL | (use == AREA_READ_ONLY ? F_SEAL_FUTURE_WRITE : 0);
    const int made = memfd_create("weir", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (made < 0) {
        return err_set(err, WEIR_EIO, "no memory file for a model's process (error %d)", errno);
    }
    enum weir_status status = size <= PTRDIFF_MAX && ftruncate(made, (off_t)size) == 0
                                  ? WEIR_OK
                                  : err_nomem(err, "memory shared with a model's process", size);
    status = status == WEIR_OK ? map(area, size, PROT_READ | PROT_WRITE, made, err) : status;
    if (status == WEIR_OK && fcntl(made, F_ADD_SEALS, seals) != 0) {
        process_area_finish(area);
        status = err_set(err, WEIR_EIO, "a memory file cannot be sealed (error %d)", errno);
    }
    if (status != WEIR_OK) {
        (void)close(made);
        return status;
    }
    *fd = made;
    return WEIR_OK;
}

enum weir_status process_area_map(struct process_area *area, size_t size, int fd,
                                  struct weir_err *err)
{
    struct stat stat;
    const int seals = fd < 0 ? 0 : fcntl(fd, F_GET_SEALS);
    const bool good = fd >= 0 && fstat(fd, &stat) == 0 && stat.st_size >= 0 &&
                      (uint64_t)stat.st_size >= size && seals >= 0 && (seals & SEALS) == SEALS;
    const int rights =
        good && (seals & F_SEAL_FUTURE_WRITE) != 0 ? PROT_READ : PROT_READ | PROT_WRITE;
    const enum weir_status status =
        good ? map(area, size, rights, fd, err)
             : err_set(err, WEIR_EIO, "no sealed memory file of %zu bytes was passed", size);
    if (fd >= 0) {
        (void)close(fd);
    }
    return status;
}

void process_area_finish(struct process_area *area)
{
    if (area->data != NULL) {
        (void)munmap(area->data, area->size);
    }
    area->data = NULL;
    area->size = 0;
}

size_t process_area_size(uint64_t bytes)
{
    size_t size = AREA_BYTES_MIN;
    while (size < bytes && size <= SIZE_MAX / 4) {
        size *= 2;
    }
    return size;
}

/* ---- Turns ----------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void process_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void process_sleep(_Atomic uint32_t *word, uint32_t seen, uint64_t ns)
{
    const struct timespec at_most = { .tv_sec = (time_t)(ns / NS_PER_S),
                                      .tv_nsec = (long)(ns % NS_PER_S) };
    (void)syscall(SYS_futex, word, FUTEX_WAIT, seen, ns == CLOCK_NEVER ? NULL : &at_most, NULL, 0);
}

void process_turn_end(struct process_head *head, _Atomic uint32_t *other_sleeps, uint32_t next,
                      struct process_wait *wait)
{
    wait->ended_ns = now_ns();
    atomic_store(&head->turn, next);
    if (atomic_load(other_sleeps) != 0) {
        process_wake(&head->turn);
    }
}

/* Of those that the process may use. */
static bool may_spin(void)
{
    static _Atomic int cores;
    int known = atomic_load_explicit(&cores, memory_order_relaxed);
    if (known == 0) {
        cpu_set_t usable;
        known = sched_getaffinity(0, sizeof(usable), &usable) == 0 ? CPU_COUNT(&usable) : 1;
        atomic_store_explicit(&cores, known, memory_order_relaxed);
    }
    return known > 1;
}

uint32_t process_turn_wait(struct process_head *head, _Atomic uint32_t *self_sleeps, uint32_t mine,
                           struct process_wait *wait)
{
    uint32_t turn = atomic_load_explicit(&head->turn, memory_order_acquire);
    if (wait->last_ns < SPIN_NS && may_spin()) {
        while (turn == mine && now_ns() - wait->ended_ns < SPIN_NS) {
            relax();
            turn = atomic_load_explicit(&head->turn, memory_order_acquire);
        }
    }
    if (turn == mine) {
        atomic_store(self_sleeps, 1);
        for (turn = atomic_load(&head->turn); turn == mine; turn = atomic_load(&head->turn)) {
            process_sleep(&head->turn, mine, CLOCK_NEVER);
        }
        atomic_store_explicit(self_sleeps, 0, memory_order_relaxed);
    }
    wait->last_ns = now_ns() - wait->ended_ns;
    return turn;
}
