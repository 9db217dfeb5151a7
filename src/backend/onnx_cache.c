/*
 * An entry is made in a folder of its own and moved into its place, so that it is there as a whole
 * or not at all.  It is not forced to disk, which would take longer than the conversion: after a
 * crash of the machine its files may be anything, hence an entry serves only until the next start.
 *
 * A model is known by what the file system says of its files.  A change that follows another within
 * the tick of the file system's clock could go unnoticed, so what changed just now is not
 * converted.
 */
#include "backend/onnx_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "backend/onnx.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/map.h"

#define FORMAT 1
#define KEY_BYTES 32
#define KEY_DIGITS 16
#define PATH_BYTES 512
#define SOURCE_BYTES_MAX ((size_t)1 << 20)
#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_BYTES_MAX 64
#define TICK_NS (100 * NS_PER_MS)     /* Clocks of file systems are finer, */
#define COARSE_TICK_NS (2 * NS_PER_S) /* but for those that count in seconds. */

static const char *const entry_files[] = { "graph.onnx", "weights", "source" };

#define ENTRY_FILES (sizeof(entry_files) / sizeof(entry_files[0]))

void onnx_cached_close(struct onnx_cached *cached)
{
    if (cached->graph.data != NULL) {
        (void)close(cached->folder_fd);
    }
    file_map_close(&cached->graph);
    file_map_close(&cached->weights);
    *cached = (struct onnx_cached){ 0 };
}

/* ---- What is converted ----------------------------------------------------------------------- */

static uint64_t stamp_ns(const struct timespec *at)
{
    return (uint64_t)at->tv_sec * NS_PER_S + (uint64_t)at->tv_nsec;
}

static bool changed_just_now(const struct stat *info)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    const bool coarse = info->st_ctim.tv_nsec == 0 && info->st_mtim.tv_nsec == 0;
    const uint64_t tick_ns = coarse ? COARSE_TICK_NS : TICK_NS;
    return stamp_ns(&info->st_ctim) + tick_ns > stamp_ns(&now);
}

static enum weir_status describe_file(int folder_fd, const char *name, struct buffer *out,
                                      struct weir_err *err)
{
    struct stat info;
    if (fstatat(folder_fd, name, &info, 0) != 0) {
        return err_set(err, WEIR_EIO, "%s: %s", name, strerror(errno));
    }
    if (changed_just_now(&info)) {
        return err_set(err, WEIR_EUNAVAILABLE, "%s has just changed", name);
    }
    buffer_printf(out, "%s %ju %ju %jd %" PRIu64 " %" PRIu64 "\n", name, (uintmax_t)info.st_dev,
                  (uintmax_t)info.st_ino, (intmax_t)info.st_size, stamp_ns(&info.st_mtim),
                  stamp_ns(&info.st_ctim));
    return WEIR_OK;
}

/* The text of the entry's file `source`. */
static enum weir_status describe(const struct onnx_cache_source *source, struct buffer *out,
                                 struct weir_err *err)
{
    struct buffer boot;
    buffer_init(out, SOURCE_BYTES_MAX);
    enum weir_status status = file_read(AT_FDCWD, BOOT_ID_FILE, BOOT_ID_BYTES_MAX, &boot, err);
    if (status == WEIR_OK) {
        buffer_printf(out, "format %d\nruntime %s\nboot %.*s", FORMAT, onnx_version(),
                      (int)boot.size, boot.data);
        status = describe_file(source->folder_fd, source->file_name, out, err);
    }
    buffer_finish(&boot);
    const char *before = "";
    for (uint32_t i = 0; i < source->file->external_count && status == WEIR_OK; i++) {
        const char *location = source->file->externals[i].location;
        if (strcmp(location, before) != 0) {
            status = describe_file(source->folder_fd, location, out, err);
        }
        before = location;
    }
    return status == WEIR_OK && out->failed ? err_nomem(err, "a model's description", out->size)
                                            : status;
}

/* The entry's name: one for each place of a model, so that a new model there replaces the old
 * one. */
static enum weir_status make_key(const struct onnx_cache_source *source, char out[KEY_BYTES],
                                 struct weir_err *err)
{
    struct stat info;
    if (fstat(source->folder_fd, &info) != 0) {
        return err_set(err, WEIR_EIO, "the model's folder: %s", strerror(errno));
    }
    const uint64_t hash = map_hash_keyed((uint64_t)info.st_dev, (uint64_t)info.st_ino,
                                         source->file_name, strlen(source->file_name));
    (void)snprintf(out, KEY_BYTES, "%016" PRIx64, hash);
    return WEIR_OK;
}

/* ---- The folder ------------------------------------------------------------------------------ */

/* Makes the folder and those above it where they are missing. */
static void make_folders(const char *path)
{
    char part[PATH_MAX];
    for (const char *at = strchr(path + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        (void)snprintf(part, sizeof(part), "%.*s", (int)(at - path), path);
        (void)mkdir(part, 0700);
    }
    (void)mkdir(path, 0700);
}

static enum weir_status open_cache(const char *folder, int *out, struct weir_err *err)
{
    struct stat info;
    make_folders(folder);
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) {
        const int code = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return err_set(err, WEIR_EIO, "%s: %s", folder, strerror(code));
    }
    if (info.st_uid != geteuid() || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        (void)close(fd);
        return err_set(err, WEIR_EIO, "%s: found a folder that others can write to", folder);
    }
    *out = fd;
    return WEIR_OK;
}

static void remove_entry(int cache_fd, const char *name)
{
    const int fd = openat(cache_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) {
        for (size_t i = 0; i < ENTRY_FILES; i++) {
            (void)unlinkat(fd, entry_files[i], 0);
        }
        (void)close(fd);
        (void)unlinkat(cache_fd, name, AT_REMOVEDIR);
    }
}

/* A walk over the entries. */
struct survey {
    int cache_fd;
    uint64_t bytes;     /* Of all. */
    uint64_t oldest_ns; /* When the one was last used that was used longest ago; */
    char oldest[KEY_BYTES * 2];
};

/* Whatever else somebody keeps in the folder is left alone. */
static bool is_ours(const char *name)
{
    return strncmp(name, FILE_OWN_PREFIX, sizeof(FILE_OWN_PREFIX) - 1) == 0 ||
           (strlen(name) == KEY_DIGITS && strspn(name, "0123456789abcdef") == KEY_DIGITS);
}

static uint64_t entry_bytes(int cache_fd, const char *name)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < ENTRY_FILES; i++) {
        struct stat info;
        char path[PATH_BYTES];
        (void)snprintf(path, sizeof(path), "%s/%s", name, entry_files[i]);
        if (fstatat(cache_fd, path, &info, AT_SYMLINK_NOFOLLOW) == 0) {
            bytes += (uint64_t)info.st_size;
        }
    }
    return bytes;
}

static enum weir_status look_at_entry(void *context, const char *name, bool folder)
{
    struct survey *survey = context;
    struct stat info;
    if (!folder || !is_ours(name) || strlen(name) >= sizeof(survey->oldest) ||
        fstatat(survey->cache_fd, name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
        return WEIR_OK;
    }
    const uint64_t bytes = entry_bytes(survey->cache_fd, name);
    if (bytes > 0 && (survey->oldest[0] == '\0' || stamp_ns(&info.st_mtim) < survey->oldest_ns)) {
        survey->oldest_ns = stamp_ns(&info.st_mtim);
        (void)snprintf(survey->oldest, sizeof(survey->oldest), "%s", name);
    }
    survey->bytes += bytes;
    return WEIR_OK;
}

/* Removes what was used longest ago until `bytes` more may come. */
static enum weir_status make_room(int cache_fd, uint64_t bytes, uint64_t bytes_max,
                                  struct weir_err *err)
{
    struct statvfs disk;
    if (bytes > bytes_max) {
        return err_set(err, WEIR_ETOOBIG, "the model is larger than the cache");
    }
    for (;;) {
        struct survey survey = { .cache_fd = cache_fd };
        const enum weir_status status = file_list(cache_fd, look_at_entry, &survey, err);
        if (status != WEIR_OK) {
            return status;
        }
        const bool fits = survey.bytes <= bytes_max - bytes;
        const bool space =
            fstatvfs(cache_fd, &disk) != 0 || (uint64_t)disk.f_bavail * disk.f_frsize / 2 > bytes;
        if (fits && space) {
            return WEIR_OK;
        }
        if (survey.bytes == 0) {
            return err_set(err, WEIR_EIO, "the cache's disk is full");
        }
        remove_entry(cache_fd, survey.oldest);
        if (entry_bytes(cache_fd, survey.oldest) > 0) {
            return err_set(err, WEIR_EIO, "%s cannot be removed from the cache", survey.oldest);
        }
    }
}

/* ---- Entries --------------------------------------------------------------------------------- */

/* On success `entry_fd` is the result's. */
static enum weir_status map_entry(int entry_fd, struct onnx_cached *out, struct weir_err *err)
{
    struct stat info;
    struct onnx_cached cached = { 0 };
    enum weir_status status = file_map_open(entry_fd, "graph.onnx", &cached.graph, err);
    status = status == WEIR_OK ? file_map_open(entry_fd, "weights", &cached.weights, err) : status;
    if (status == WEIR_OK && fstatat(entry_fd, "weights", &info, AT_SYMLINK_NOFOLLOW) != 0) {
        status = err_set(err, WEIR_EIO, "weights: %s", strerror(errno));
    }
    if (status == WEIR_OK && cached.graph.data == NULL) {
        status = err_set(err, WEIR_EIO, "graph.onnx is empty");
    }
    if (status != WEIR_OK) {
        file_map_close(&cached.graph);
        file_map_close(&cached.weights);
        return status;
    }
    cached.folder_fd = entry_fd;
    cached.device = (uint64_t)info.st_dev;
    cached.inode = (uint64_t)info.st_ino;
    *out = cached;
    return WEIR_OK;
}

/* WEIR_ENOENT: there is none, or of something else. */
static enum weir_status find(int cache_fd, const char *key, const struct buffer *source,
                             struct onnx_cached *out, struct weir_err *err)
{
    const int entry_fd = openat(cache_fd, key, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (entry_fd < 0) {
        return err_set(err, WEIR_ENOENT, "the model is not in the cache");
    }
    struct buffer found;
    enum weir_status status = file_read(entry_fd, "source", SOURCE_BYTES_MAX, &found, err);
    if (status == WEIR_OK &&
        (found.size != source->size || memcmp(found.data, source->data, source->size) != 0)) {
        status = err_set(err, WEIR_ENOENT, "the model in the cache is another one");
    }
    buffer_finish(&found);
    (void)futimens(entry_fd, NULL); /* When it was used last. */
    status = status == WEIR_OK ? map_entry(entry_fd, out, err) : status;
    if (status != WEIR_OK) {
        (void)close(entry_fd);
    }
    return status;
}

static enum weir_status write_source(int cache_fd, const char *name, const struct buffer *source,
                                     struct weir_err *err)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/source", name);
    const int fd = openat(cache_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    const bool whole = fd >= 0 && write(fd, source->data, source->size) == (ssize_t)source->size;
    const bool closed = fd >= 0 && close(fd) == 0;
    return whole && closed ? WEIR_OK : err_set(err, WEIR_EIO, "source: %s", strerror(errno));
}

/* Puts a whole entry into its place, and what was there away. */
static enum weir_status publish(int cache_fd, const char *made, const char *key,
                                struct weir_err *err)
{
    remove_entry(cache_fd, key);
    if (renameat(cache_fd, made, cache_fd, key) != 0) {
        return err_set(err, WEIR_EIO, "%s: %s", key, strerror(errno));
    }
    return WEIR_OK;
}

static enum weir_status make(int cache_fd, const char *key, const struct buffer *source,
                             onnx_convert_fn *convert, void *context, struct weir_err *err)
{
    static _Atomic unsigned counter;
    char name[KEY_BYTES];
    char path[PATH_BYTES];
    (void)snprintf(name, sizeof(name), FILE_OWN_PREFIX "%ld-%u", (long)getpid(),
                   atomic_fetch_add(&counter, 1));
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", cache_fd, name);
    remove_entry(cache_fd, name); /* Of an earlier process of the same number. */
    if (mkdirat(cache_fd, name, 0700) != 0) {
        return err_set(err, WEIR_EIO, "%s: %s", name, strerror(errno));
    }
    enum weir_status status = convert(context, path, err);
    status = status == WEIR_OK ? write_source(cache_fd, name, source, err) : status;
    status = status == WEIR_OK ? publish(cache_fd, name, key, err) : status;
    if (status != WEIR_OK) {
        remove_entry(cache_fd, name);
    }
    return status;
}

/* Nothing may have changed while it was converted. */
static enum weir_status compare(const struct onnx_cache_source *source, const struct buffer *before,
                                struct weir_err *err)
{
    struct buffer after;
    enum weir_status status = describe(source, &after, err);
    if (status == WEIR_OK &&
        (after.size != before->size || memcmp(after.data, before->data, before->size) != 0)) {
        status = err_set(err, WEIR_EUNAVAILABLE, "the model changed while it was converted");
    }
    buffer_finish(&after);
    return status;
}

static enum weir_status find_or_make(const struct onnx_cache *cache, int cache_fd,
                                     const struct onnx_cache_source *source,
                                     onnx_convert_fn *convert, void *context,
                                     struct onnx_cached *out, struct weir_err *err)
{
    char key[KEY_BYTES];
    struct buffer text;
    enum weir_status status = describe(source, &text, err);
    status = status == WEIR_OK ? make_key(source, key, err) : status;
    if (status == WEIR_OK) {
        status = find(cache_fd, key, &text, out, NULL);
        if (status != WEIR_OK) {
            status = make_room(cache_fd, source->bytes, cache->bytes_max, err);
            status = status == WEIR_OK ? make(cache_fd, key, &text, convert, context, err) : status;
            status = status == WEIR_OK ? compare(source, &text, err) : status;
            status = status == WEIR_OK ? find(cache_fd, key, &text, out, err) : status;
        }
    }
    buffer_finish(&text);
    return status;
}

enum weir_status onnx_cache_open(const struct onnx_cache *cache,
                                 const struct onnx_cache_source *source, onnx_convert_fn *convert,
                                 void *context, struct onnx_cached *out, struct weir_err *err)
{
    int cache_fd = -1;
    enum weir_status status = open_cache(cache->folder, &cache_fd, err);
    if (status == WEIR_OK) {
        status = find_or_make(cache, cache_fd, source, convert, context, out, err);
        (void)close(cache_fd);
    }
    return status;
}
