/*
 * process_memory.h — sealed memory that two processes share, and turns taken in it.
 */
#ifndef WEIR_BACKEND_PROCESS_MEMORY_H
#define WEIR_BACKEND_PROCESS_MEMORY_H

#include "backend/process_shared.h"

/* A mapped memory file. */
struct process_area {
    uint8_t *data; /* Page-aligned; NULL: none. */
    size_t size;
    uint32_t generation; /* Counts replacements; 0: none. */
};

/* Who may write to an area besides the one who made it. */
enum process_area_use { AREA_SHARED, AREA_READ_ONLY };

/* Makes and maps a zeroed memory file of `size` bytes that can neither grow nor shrink; *fd is the
 * caller's.  WEIR_ENOMEM, WEIR_EIO. */
WEIR_MUST_USE enum weir_status process_area_create(struct process_area *area, size_t size,
                                                   enum process_area_use use, int *fd,
                                                   struct weir_err *err);

/* Maps one that was passed, for as much as it may be used; closes `fd` in any case.  WEIR_EIO: it
 * has fewer than `size` bytes or may shrink. */
WEIR_MUST_USE enum weir_status process_area_map(struct process_area *area, size_t size, int fd,
                                                struct weir_err *err);
void process_area_finish(struct process_area *area); /* Zeroed ones are fine. */

/* The size to make one of that must hold `bytes`: a few, so that replacements are few. */
size_t process_area_size(uint64_t bytes);

/* One side's way of waiting; zeroed at first. */
struct process_wait {
    uint64_t ended_ns; /* When this side's last turn ended ... */
    uint64_t last_ns;  /* ... and how long the other's was then. */
};

/* Ends a turn: *turn becomes `next`, and whoever sleeps on it is woken. */
void process_turn_end(struct process_head *head, _Atomic uint32_t *other_sleeps, uint32_t next,
                      struct process_wait *wait);

/* Until *turn is no longer `mine`: looks for a few microseconds where that was long enough the last
 * time, then sleeps.  Returns what it is then. */
uint32_t process_turn_wait(struct process_head *head, _Atomic uint32_t *self_sleeps, uint32_t mine,
                           struct process_wait *wait);

/* Wakes all who sleep on a word in shared memory. */
void process_wake(_Atomic uint32_t *word);

/* Sleeps while *word is `seen`, at most `ns`. */
void process_sleep(_Atomic uint32_t *word, uint32_t seen, uint64_t ns);

#endif
