/*
 * file.h — reading files from a folder that must not be left.
 *
 * Everything inside a model repository is opened relative to the repository's
 * root with openat2(RESOLVE_BENEATH), so no name, link or race can reach
 * outside it.  Where the kernel lacks openat2 each component is opened with
 * O_NOFOLLOW instead (links inside the repository are then refused, and so is
 * "..").  The operator's own files, which may be anywhere, are opened with
 * AT_FDCWD as the root: then any path goes.
 * Blocking: loader, workers and tools, never a loop.
 */
#ifndef WEIR_UTIL_FILE_H
#define WEIR_UTIL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/bytes.h"
#include "util/err.h"

/* Opens `path` (relative, any number of components) beneath the folder `root_fd` for reading: a
 * regular file, or with `folder` a folder.  WEIR_ENOENT, WEIR_EINVAL when it would leave the root
 * or is something else, WEIR_EIO.  The caller closes *out. */
WEIR_MUST_USE enum weir_status file_open_beneath(int root_fd, const char *path, bool folder,
                                                 int *out, struct weir_err *err);

/* Reads a whole regular file of at most size_max bytes into `out` (initialised by the callee with
 * that limit, finished by the caller; empty after a failure).  WEIR_ENOENT, WEIR_EINVAL,
 * WEIR_ETOOBIG, WEIR_EIO, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status file_read(int root_fd, const char *path, size_t size_max,
                                         struct buffer *out, struct weir_err *err);

/* A read-only mapping of a regular file; `data` is NULL for an empty file.  Who shortens the file
 * meanwhile takes its pages away: touching them is a SIGBUS. */
struct file_map {
    const uint8_t *data;
    size_t size;
};
WEIR_MUST_USE enum weir_status file_map_open(int root_fd, const char *path, struct file_map *out,
                                             struct weir_err *err);
void file_map_close(struct file_map *map);

/* Writes `data` to `path` through a temporary file beside it and a rename, so that readers see all
 * of it or what was there before.  A path that is a link, a device or a pipe is written to as it
 * is.  WEIR_EIO, WEIR_ENOENT for a folder that is not there. */
WEIR_MUST_USE enum weir_status file_write(const char *path, const void *data, size_t size,
                                          struct weir_err *err);

/* Could file_write() write there?  Leaves nothing behind.  WEIR_EIO, WEIR_ENOENT. */
WEIR_MUST_USE enum weir_status file_try(const char *path, struct weir_err *err);

/* Calls `visit` for each entry of the folder, "." and ".." left out, in byte order of their names;
 * stops at the first status that is not WEIR_OK and returns it.  `folder` follows links.  More than
 * 100,000 entries are WEIR_ETOOBIG; WEIR_EIO, WEIR_ENOMEM.  `folder_fd` stays as it is. */
typedef enum weir_status file_visit_fn(void *context, const char *name, bool folder);
WEIR_MUST_USE enum weir_status file_list(int folder_fd, file_visit_fn *visit, void *context,
                                         struct weir_err *err);

/* What the server itself writes into folders that it watches begins with this. */
#define FILE_OWN_PREFIX ".weir-"

/* A fingerprint of all names, sizes and change times beneath the folder, to notice edits: poll mode
 * and "is this model modified".  Linked files count with what they lead to, linked folders are not
 * entered, and what the server writes itself is passed over.  *bytes is how large the files are in
 * all.  More than 8 levels or 10,000 entries are WEIR_ETOOBIG; WEIR_EIO, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status file_fingerprint(int folder_fd, uint64_t *out, uint64_t *bytes,
                                                struct weir_err *err);

#endif
