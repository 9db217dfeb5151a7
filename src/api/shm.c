/*
 * Regions of shared memory.
 *
 * A key is a name, not a path: one component, without a leading dot, opened
 * beneath the folder's own descriptor without following links, and what it opens
 * must be a regular file with one name.  So a client reaches objects that are there under names
 * that the operator allows, and nothing else of the system.
 *
 * The lock guards the map and the sums; a region's count of holders is atomic, its descriptor is
 * closed by the last of them.
 */
#include "api/shm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/map.h"
#include "util/mem.h"

#define KEY_MAX 255

#define SHOWN(text) ((text).size > 128 ? 128 : (int)(text).size), (text).data

/* Names in the folder that belong to others by convention, whatever the prefix allows. */
static const char *const foreign[] = { "triton_python_backend_shm_region_", "sem.", "weir" };

struct shm_region {
    _Atomic uint32_t holders;
    int fd;
    uint64_t offset;
    uint64_t size;
    char *key;
    char name[];
};

struct shm {
    int folder_fd;
    const char *prefix;
    const struct limits *limits;
    _Atomic uint64_t booked;
    pthread_mutex_t lock;
    struct map regions; /* By name; the map holds them. */
    uint64_t bytes;     /* Of all regions. */
};

enum weir_status shm_create(const char *folder, const char *prefix, const struct limits *limits,
                            struct shm **out, struct weir_err *err)
{
    struct shm *shm = mem_try_zero(1, sizeof(*shm));
    if (shm == NULL) {
        return err_nomem(err, "shared memory", sizeof(*shm));
    }
    shm->folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (shm->folder_fd < 0) {
        const enum weir_status status =
            err_set(err, WEIR_EIO, "shared memory: cannot open %s: %s", folder, strerror(errno));
        mem_free(shm);
        return status;
    }
    shm->prefix = strcmp(prefix, "*") == 0 ? "" : prefix;
    shm->limits = limits;
    pthread_mutex_init(&shm->lock, NULL);
    map_init(&shm->regions);
    *out = shm;
    return WEIR_OK;
}

void shm_destroy(struct shm *shm)
{
    if (shm == NULL) {
        return;
    }
    shm_unregister_all(shm);
    map_finish(&shm->regions);
    pthread_mutex_destroy(&shm->lock);
    (void)close(shm->folder_fd);
    mem_free(shm);
}

/* ---- Registering ----------------------------------------------------------------------------- */

static bool begins_with(struct bytes text, const char *prefix)
{
    const size_t size = strlen(prefix);
    return text.size >= size && memcmp(text.data, prefix, size) == 0;
}

/* The name of the object that a key is, without the slash that POSIX puts before it. */
static enum weir_status read_key(const struct shm *shm, struct bytes key, struct bytes *out,
                                 struct weir_err *err)
{
    struct bytes name = key;
    if (name.size > 0 && name.data[0] == '/') {
        name.data++;
        name.size--;
    }
    bool plain = name.size > 0 && name.size <= KEY_MAX && name.data[0] != '.';
    for (size_t i = 0; i < name.size && plain; i++) {
        const char c = name.data[i];
        plain = c > ' ' && c <= '~' && c != '/' && c != '\\';
    }
    if (!plain) {
        return err_set(err, WEIR_EINVAL,
                       "the key is no name of a shared memory object: expected 1 to %d printable "
                       "characters without '/' (one at the beginning is fine) and no leading dot",
                       KEY_MAX);
    }
    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
        if (begins_with(name, foreign[i])) {
            return err_set(err, WEIR_EINVAL, "keys that begin with '%s' are reserved", foreign[i]);
        }
    }
    if (!begins_with(name, shm->prefix)) {
        return err_set(err, WEIR_EFORBIDDEN,
                       "key '%.*s' is not allowed here: expected one that begins with '%s' (option "
                       "shared_memory)",
                       SHOWN(key), shm->prefix);
    }
    *out = name;
    return WEIR_OK;
}

/* A regular file with one name, the user's, that is long enough. */
static enum weir_status check_object(int fd, struct bytes key, uint64_t end, int64_t user,
                                     struct weir_err *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_nlink != 1) {
        return err_set(err, WEIR_EFORBIDDEN, "key '%.*s' is no shared memory object of its own",
                       SHOWN(key));
    }
    if (user > 0 && (int64_t)info.st_uid != user) {
        return err_set(err, WEIR_EFORBIDDEN, "key '%.*s' is another user's shared memory object",
                       SHOWN(key));
    }
    if (info.st_size < 0 || (uint64_t)info.st_size < end) {
        return err_set(err, WEIR_EINVAL,
                       "key '%.*s' has %lld bytes, expected at least %" PRIu64
                       " (offset and byte_size)",
                       SHOWN(key), (long long)info.st_size, end);
    }
    return WEIR_OK;
}

static enum weir_status open_object(const struct shm *shm, struct bytes key, uint64_t end,
                                    int64_t user, int *out, struct weir_err *err)
{
    struct bytes name = { NULL, 0 };
    enum weir_status status = read_key(shm, key, &name, err);
    if (status != WEIR_OK) {
        return status;
    }
    char path[KEY_MAX + 1];
    memcpy(path, name.data, name.size);
    path[name.size] = '\0';
    const int fd =
        openat(shm->folder_fd, path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return err_set(err, errno == EMFILE || errno == ENFILE ? WEIR_EFULL : WEIR_EINVAL,
                       "unable to open shared memory region: '%.*s': %s", SHOWN(key),
                       errno == ELOOP ? "it is a link" : strerror(errno));
    }
    status = check_object(fd, key, end, user, err);
    if (status != WEIR_OK) {
        (void)close(fd);
        return status;
    }
    *out = fd;
    return WEIR_OK;
}

static struct shm_region *make_region(struct bytes name, struct bytes key)
{
    struct shm_region *region = mem_try_zero(1, sizeof(*region) + name.size + 1);
    if (region == NULL) {
        return NULL;
    }
    region->key = mem_try_strndup(key.data, key.size);
    if (region->key == NULL) {
        mem_free(region);
        return NULL;
    }
    memcpy(region->name, name.data, name.size);
    region->fd = -1;
    atomic_init(&region->holders, 1);
    return region;
}

/* With the lock held. */
static enum weir_status add_region(struct shm *shm, struct shm_region *region, struct weir_err *err)
{
    const struct bytes name = bytes_of(region->name);
    if (map_get(&shm->regions, name) != NULL) {
        return err_set(err, WEIR_EINVAL, "shared memory region '%.*s' already in manager",
                       SHOWN(name));
    }
    if (shm->regions.count >= shm->limits->shared_regions_max) {
        return err_set(err, WEIR_EFULL, "there are %" PRIu64 " shared memory regions, the limit",
                       shm->limits->shared_regions_max);
    }
    const uint64_t bytes_max = shm->limits->shared_bytes_max; /* May have become less. */
    if (shm->bytes > bytes_max || region->size > bytes_max - shm->bytes) {
        return err_set(err, WEIR_EFULL,
                       "shared memory regions have %" PRIu64 " bytes, with this one %" PRIu64
                       " more: expected at most %" PRIu64 " (shared_bytes_max)",
                       shm->bytes, region->size, bytes_max);
    }
    if (map_add(&shm->regions, name, region) != WEIR_OK) {
        return err_nomem(err, "a shared memory region", sizeof(*region));
    }
    shm->bytes += region->size;
    return WEIR_OK;
}

static bool is_printable(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < ' ' || text.data[i] > '~') {
            return false;
        }
    }
    return true;
}

static enum weir_status check_names(struct bytes name, uint64_t offset, uint64_t size,
                                    uint64_t *end, struct weir_err *err)
{
    if (name.size == 0 || name.size > SHM_NAME_MAX || !is_printable(name)) {
        return err_set(err, WEIR_EINVAL,
                       "the region's name has %zu bytes, expected 1 to %d printable characters of "
                       "ASCII",
                       name.size, SHM_NAME_MAX);
    }
    if (size == 0) {
        return err_set(err, WEIR_EINVAL, "shared memory region '%.*s': byte_size is 0",
                       SHOWN(name));
    }
    if (__builtin_add_overflow(offset, size, end) || *end > INT64_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "shared memory region '%.*s': offset and byte_size are beyond 2^63",
                       SHOWN(name));
    }
    return WEIR_OK;
}

enum weir_status shm_register(struct shm *shm, struct bytes name, struct bytes key, uint64_t offset,
                              uint64_t size, int64_t user, struct weir_err *err)
{
    uint64_t end = 0;
    enum weir_status status = check_names(name, offset, size, &end, err);
    if (status != WEIR_OK) {
        return status;
    }
    struct shm_region *region = make_region(name, key);
    if (region == NULL) {
        return err_nomem(err, "a shared memory region", sizeof(*region));
    }
    region->offset = offset;
    region->size = size;
    status = open_object(shm, key, end, user, &region->fd, err);
    if (status == WEIR_OK) {
        pthread_mutex_lock(&shm->lock);
        status = add_region(shm, region, err);
        pthread_mutex_unlock(&shm->lock);
    }
    if (status != WEIR_OK) {
        shm_release(region);
    }
    return status;
}

void shm_release(struct shm_region *region)
{
    if (region == NULL || atomic_fetch_sub(&region->holders, 1) != 1) {
        return;
    }
    if (region->fd >= 0) {
        (void)close(region->fd);
    }
    mem_free(region->key);
    mem_free(region);
}

void shm_unregister(struct shm *shm, struct bytes name)
{
    pthread_mutex_lock(&shm->lock);
    struct shm_region *region = map_remove(&shm->regions, name);
    shm->bytes -= region == NULL ? 0 : region->size;
    pthread_mutex_unlock(&shm->lock);
    shm_release(region);
}

void shm_unregister_all(struct shm *shm)
{
    for (;;) {
        size_t at = 0;
        pthread_mutex_lock(&shm->lock);
        struct shm_region *region = map_next(&shm->regions, &at);
        if (region != NULL) {
            (void)map_remove(&shm->regions, bytes_of(region->name));
            shm->bytes -= region->size;
        }
        pthread_mutex_unlock(&shm->lock);
        if (region == NULL) {
            return;
        }
        shm_release(region);
    }
}

static void tell(const struct shm_region *region,
                 void (*each)(void *context, const struct shm_info *info), void *context)
{
    const struct shm_info info = { region->name, region->key, region->offset, region->size };
    each(context, &info);
}

uint32_t shm_walk(struct shm *shm, struct bytes name,
                  void (*each)(void *context, const struct shm_info *info), void *context)
{
    uint32_t count = 0;
    size_t at = 0;
    pthread_mutex_lock(&shm->lock);
    const struct shm_region *region =
        name.data != NULL ? map_get(&shm->regions, name) : map_next(&shm->regions, &at);
    while (region != NULL) {
        tell(region, each, context);
        count++;
        region = name.data != NULL ? NULL : map_next(&shm->regions, &at);
    }
    pthread_mutex_unlock(&shm->lock);
    return count;
}

/* ---- Using ----------------------------------------------------------------------------------- */

enum weir_status shm_acquire(struct shm *shm, struct bytes name, uint64_t offset, uint64_t size,
                             struct shm_region **out, struct weir_err *err)
{
    pthread_mutex_lock(&shm->lock);
    struct shm_region *region = map_get(&shm->regions, name);
    if (region != NULL) {
        atomic_fetch_add(&region->holders, 1);
    }
    pthread_mutex_unlock(&shm->lock);
    if (region == NULL) {
        return err_set(err, WEIR_EINVAL, "unable to find shared memory region: '%.*s'",
                       SHOWN(name));
    }
    if (offset > region->size || size > region->size - offset) {
        const enum weir_status status =
            err_set(err, WEIR_EINVAL,
                    "invalid offset + byte size for shared memory region: '%.*s': %" PRIu64
                    " bytes at %" PRIu64 ", the region has %" PRIu64,
                    SHOWN(name), size, offset, region->size);
        shm_release(region);
        return status;
    }
    *out = region;
    return WEIR_OK;
}

static enum weir_status complain(const struct shm_region *region, struct weir_err *err)
{
    return err_set(err, WEIR_EINVAL,
                   "shared memory region '%.128s' is shorter than when it was registered",
                   region->name);
}

enum weir_status shm_read(const struct shm_region *region, uint64_t offset, void *data, size_t size,
                          struct weir_err *err)
{
    assert(offset <= region->size && size <= region->size - offset);
    size_t done = 0;
    while (done < size) {
        const ssize_t got = pread(region->fd, (char *)data + done, size - done,
                                  (off_t)(region->offset + offset + done));
        if (got == 0) {
            return complain(region, err);
        }
        if (got < 0 && errno != EINTR) {
            return err_set(err, WEIR_EIO, "reading shared memory region '%.128s': %s", region->name,
                           strerror(errno));
        }
        done += got < 0 ? 0 : (size_t)got;
    }
    return WEIR_OK;
}

/* Writing beyond the end would make the object longer again: what its owner cut off stays cut off,
 * but for a cut between these two calls, which costs nobody but the owner. */
enum weir_status shm_write(const struct shm_region *region, uint64_t offset, const void *data,
                           size_t size, struct weir_err *err)
{
    assert(offset <= region->size && size <= region->size - offset);
    struct stat info;
    if (fstat(region->fd, &info) != 0 || (uint64_t)info.st_size < region->offset + offset + size) {
        return complain(region, err);
    }
    size_t done = 0;
    while (done < size) {
        const ssize_t put = pwrite(region->fd, (const char *)data + done, size - done,
                                   (off_t)(region->offset + offset + done));
        if (put <= 0 && !(put < 0 && errno == EINTR)) {
            return err_set(err, WEIR_EIO, "writing shared memory region '%.128s': %s", region->name,
                           strerror(errno));
        }
        done += put < 0 ? 0 : (size_t)put;
    }
    return WEIR_OK;
}

struct shm_totals shm_total(struct shm *shm)
{
    pthread_mutex_lock(&shm->lock);
    const struct shm_totals totals = { .regions = shm->regions.count, .bytes = shm->bytes };
    pthread_mutex_unlock(&shm->lock);
    return (struct shm_totals){ totals.regions, totals.bytes, atomic_load(&shm->booked) };
}

enum weir_status shm_book(struct shm *shm, uint64_t bytes, struct weir_err *err)
{
    const uint64_t limit = shm->limits->bodies_bytes_max;
    const uint64_t before = atomic_fetch_add(&shm->booked, bytes);
    if (bytes <= limit && before <= limit - bytes) {
        return WEIR_OK;
    }
    shm_unbook(shm, bytes);
    return err_set(err, WEIR_EFULL,
                   "inputs from shared memory under way have %" PRIu64 " bytes, with these %" PRIu64
                   " more: expected at most %" PRIu64 " (bodies_bytes_max)",
                   before, bytes, limit);
}

void shm_unbook(struct shm *shm, uint64_t bytes)
{
    atomic_fetch_sub(&shm->booked, bytes);
}
