/*
 * shm.h — memory of clients on the same machine, which tensors are read from and written to.
 *
 * A *region* is a stretch of a POSIX shared memory object (a file in /dev/shm)
 * under a name that clients give it.  Regions are read and written by system call
 * and never mapped: a client that truncates its object while a request is under way makes that
 * request fail, not the server, and what was checked cannot change afterwards, since it is a copy.
 * Any thread.
 */
#ifndef WEIR_API_SHM_H
#define WEIR_API_SHM_H

#include <stdint.h>

#include "util/bytes.h"
#include "util/err.h"
#include "util/limits.h"

#define SHM_FOLDER "/dev/shm"
#define SHM_NAME_MAX 256 /* Bytes of a region's name. */

struct shm;
struct shm_region; /* Counted. */

/* What a client said of a region. */
struct shm_info {
    const char *name;
    const char *key; /* As it was given. */
    uint64_t offset;
    uint64_t size;
};

/* Objects in `folder` (SHM_FOLDER) whose names begin with `prefix`, borrowed, "*": all.  WEIR_EIO:
 * there is no such folder; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status shm_create(const char *folder, const char *prefix,
                                          const struct limits *limits, struct shm **out,
                                          struct weir_err *err);
void shm_destroy(struct shm *shm); /* No region may be held.  NULL is fine. */

/* `user`: whose the object must be; -1: anybody's; 0 (root) may use all.  WEIR_EINVAL: a name
 * that is taken or none, a key that is no plain name, no such object, one that is shorter than
 * offset + size; WEIR_EFORBIDDEN: an object that clients may not use; WEIR_EFULL: the limits;
 * WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status shm_register(struct shm *shm, struct bytes name, struct bytes key,
                                            uint64_t offset, uint64_t size, int64_t user,
                                            struct weir_err *err);

/* The name is free at once; requests that use the region go on.  An unknown one is fine. */
void shm_unregister(struct shm *shm, struct bytes name);
void shm_unregister_all(struct shm *shm);

/* Calls `each` for the region of that name, or for all where name.data is NULL; how many there
 * were.  `each` may not call the shm. */
uint32_t shm_walk(struct shm *shm, struct bytes name,
                  void (*each)(void *context, const struct shm_info *info), void *context);

/* Holds a region for a request: `size` bytes from `offset` on must lie within it.  WEIR_EINVAL. */
WEIR_MUST_USE enum weir_status shm_acquire(struct shm *shm, struct bytes name, uint64_t offset,
                                           uint64_t size, struct shm_region **out,
                                           struct weir_err *err);
void shm_release(struct shm_region *region); /* NULL is fine. */

/* Blocking, as fast as memory.  WEIR_EINVAL: the object was truncated; WEIR_EIO.  The range was
 * checked by shm_acquire(). */
WEIR_MUST_USE enum weir_status shm_read(const struct shm_region *region, uint64_t offset,
                                        void *data, size_t size, struct weir_err *err);
WEIR_MUST_USE enum weir_status shm_write(const struct shm_region *region, uint64_t offset,
                                         const void *data, size_t size, struct weir_err *err);

/* What there is now, for metrics. */
struct shm_totals {
    uint64_t regions;
    uint64_t bytes;
    uint64_t booked;
};
struct shm_totals shm_total(struct shm *shm);

/* Bytes that requests under way have copied out of regions, against limits->bodies_bytes_max.
 * WEIR_EFULL. */
WEIR_MUST_USE enum weir_status shm_book(struct shm *shm, uint64_t bytes, struct weir_err *err);
void shm_unbook(struct shm *shm, uint64_t bytes);

#endif
