/*
 * Files.
 *
 * All that is opened beneath a root goes through one function, so that one place
 * decides what "beneath" means.  Files are opened without waiting (O_NONBLOCK)
 * and then looked at: a FIFO in a model's folder must not hold up the loader.
 */
#include "util/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/arena.h"
#include "util/mem.h"

#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
#define OPEN_TRIES_MAX 16 /* openat2 gives up when a rename races with it. */
#define READ_BYTES_MIN 4096
#define ENTRIES_MAX 100000
#define FINGERPRINT_DEPTH_MAX 8
#define FINGERPRINT_ENTRIES_MAX 10000
#define TEMPORARY_TRIES_MAX 100

static enum weir_status complain(struct weir_err *err, const char *path, int code)
{
    switch (code) {
    case ENOENT:
    case ENOTDIR:
        return err_set(err, WEIR_ENOENT, "%s: no such file or folder", path);
    case EXDEV:
        return err_set(err, WEIR_EINVAL, "%s: leads out of its root, expected to stay beneath it",
                       path);
    case ELOOP:
        return err_set(err, WEIR_EINVAL, "%s: found a link that cannot be followed", path);
    case ENAMETOOLONG:
        return err_set(err, WEIR_EINVAL, "%.64s...: found a name that is too long", path);
    case ENOMEM:
        return err_nomem(err, path, 0);
    default:
        return err_set(err, WEIR_EIO, "%s: %s", path, strerror(code));
    }
}

/* Returns a descriptor, or a negative error number. */
static int open_by_kernel(int root_fd, const char *path, int flags)
{
    struct open_how how = {
        .flags = (unsigned)flags,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    long fd = -1;
    int tries = 0;
    do {
        fd = syscall(SYS_openat2, root_fd, path, &how, sizeof how);
    } while (fd < 0 && (errno == EAGAIN || errno == EINTR) && ++tries < OPEN_TRIES_MAX);
    return fd < 0 ? -errno : (int)fd;
}

/* Splits the first component off `path`; false when there is none left. */
static bool take_component(const char **path, struct bytes *out)
{
    *path += strspn(*path, "/");
    *out = (struct bytes){ *path, strcspn(*path, "/") };
    *path += out->size;
    return out->size > 0;
}

static bool is_last(const char *path)
{
    return path[strspn(path, "/")] == '\0';
}

/* Opens one component without following it.  A link shows as ELOOP or, asked for as a folder, as
 * ENOTDIR. */
static int open_component(int fd, struct bytes name, int flags)
{
    char text[NAME_MAX + 1];
    if (name.size > NAME_MAX) {
        return -ENAMETOOLONG;
    }
    if (bytes_equal(name, BYTES_LITERAL(".."))) {
        return -EXDEV;
    }
    memcpy(text, name.data, name.size);
    text[name.size] = '\0';
    const int next = openat(fd, text, flags | O_NOFOLLOW);
    if (next >= 0) {
        return next;
    }
    const int code = errno;
    struct stat info;
    const bool link = code == ENOTDIR && fstatat(fd, text, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
                      S_ISLNK(info.st_mode);
    return link ? -ELOOP : -code;
}

/* For kernels before 5.6 and sandboxes that do not know openat2. */
static int open_by_steps(int root_fd, const char *path, int flags)
{
    if (path[0] == '/') {
        return -EXDEV;
    }
    if (path[0] == '\0') {
        return -ENOENT;
    }
    int fd = openat(root_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    struct bytes name;
    while (fd >= 0 && take_component(&path, &name)) {
        const int step = is_last(path) ? flags : O_PATH | O_DIRECTORY | O_CLOEXEC;
        const int next = open_component(fd, name, step);
        (void)close(fd);
        fd = next;
    }
    return fd;
}

static int open_any(int root_fd, const char *path, int flags)
{
    if (root_fd == AT_FDCWD) {
        const int fd = open(path, flags);
        return fd < 0 ? -errno : fd;
    }
    const int fd = open_by_kernel(root_fd, path, flags);
    return fd == -ENOSYS || fd == -EPERM ? open_by_steps(root_fd, path, flags) : fd;
}

enum weir_status file_open_beneath(int root_fd, const char *path, bool folder, int *out,
                                   struct weir_err *err)
{
    const int fd = open_any(root_fd, path, OPEN_FLAGS | (folder ? O_DIRECTORY : 0));
    if (fd < 0) {
        return complain(err, path, -fd);
    }
    struct stat info;
    if (fstat(fd, &info) != 0) {
        const int code = errno;
        (void)close(fd);
        return complain(err, path, code);
    }
    if (!folder && !S_ISREG(info.st_mode)) {
        (void)close(fd);
        return err_set(err, WEIR_EINVAL, "%s: found %s, expected a regular file", path,
                       S_ISDIR(info.st_mode) ? "a folder" : "a device or pipe");
    }
    *out = fd;
    return WEIR_OK;
}

static enum weir_status open_sized(int root_fd, const char *path, int *fd, size_t *size,
                                   struct weir_err *err)
{
    const enum weir_status status = file_open_beneath(root_fd, path, false, fd, err);
    if (status != WEIR_OK) {
        return status;
    }
    struct stat info;
    if (fstat(*fd, &info) != 0) {
        const int code = errno;
        (void)close(*fd);
        return complain(err, path, code);
    }
    *size = info.st_size < 0 ? 0 : (size_t)info.st_size;
    return WEIR_OK;
}

static enum weir_status complain_size(const char *path, size_t size_max, struct weir_err *err)
{
    char text[32];
    return err_set(err, WEIR_ETOOBIG, "%s: found more than %s, expected at most that", path,
                   bytes_format_size(size_max, text));
}

/* Up to `size` bytes in one go; the number read, or -1. */
static ssize_t read_some(int fd, char *data, size_t size)
{
    ssize_t got;
    do {
        got = read(fd, data, size);
    } while (got < 0 && errno == EINTR);
    return got;
}

/* Fills `out` to its limit and then looks for one byte more, because files grow and some, such as
 * those of /proc, do not say how long they are. */
static enum weir_status read_to_end(int fd, const char *path, size_t size, struct buffer *out,
                                    struct weir_err *err)
{
    for (;;) {
        char beyond;
        size_t room = out->size < size ? size - out->size : READ_BYTES_MIN;
        room = room > out->size_max - out->size ? out->size_max - out->size : room;
        if (room > 0 && !buffer_reserve(out, room)) {
            return err_nomem(err, path, out->size + room);
        }
        const ssize_t got =
            room > 0 ? read_some(fd, out->data + out->size, room) : read_some(fd, &beyond, 1);
        if (got < 0) {
            return complain(err, path, errno);
        }
        if (got == 0) {
            return WEIR_OK;
        }
        if (room == 0) {
            return complain_size(path, out->size_max, err);
        }
        out->size += (size_t)got;
    }
}

enum weir_status file_read(int root_fd, const char *path, size_t size_max, struct buffer *out,
                           struct weir_err *err)
{
    buffer_init(out, size_max);
    int fd = -1;
    size_t size = 0;
    enum weir_status status = open_sized(root_fd, path, &fd, &size, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = size > size_max ? complain_size(path, size_max, err)
                             : read_to_end(fd, path, size, out, err);
    (void)close(fd);
    if (status != WEIR_OK) {
        buffer_finish(out);
    }
    return status;
}

enum weir_status file_map_open(int root_fd, const char *path, struct file_map *out,
                               struct weir_err *err)
{
    int fd = -1;
    size_t size = 0;
    const enum weir_status status = open_sized(root_fd, path, &fd, &size, err);
    if (status != WEIR_OK) {
        return status;
    }
    void *data = size == 0 ? NULL : mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    const int code = errno;
    (void)close(fd);
    if (data == MAP_FAILED) {
        return complain(err, path, code);
    }
    *out = (struct file_map){ data, size };
    return WEIR_OK;
}

void file_map_close(struct file_map *map)
{
    if (map != NULL && map->data != NULL) {
        (void)munmap((void *)(uintptr_t)map->data, map->size);
        *map = (struct file_map){ 0 };
    }
}

/* 0, or an error number. */
static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        const ssize_t done = write(fd, data, size);
        if (done < 0 && errno != EINTR) {
            return errno;
        }
        if (done > 0) {
            data += done;
            size -= (size_t)done;
        }
    }
    return 0;
}

/* Writes and closes; 0, or the first error number.  Errors of a full disk may show only at the
 * end. */
static int write_and_close(int fd, const void *data, size_t size, bool sync)
{
    int code = write_all(fd, data, size);
    if (code == 0 && sync && fsync(fd) != 0) {
        code = errno;
    }
    if (close(fd) != 0 && code == 0) {
        code = errno;
    }
    return code;
}

/* Creates a file beside `path` and puts its name into `name`; a descriptor or minus an errno. */
static int create_beside(const char *path, char name[PATH_MAX])
{
    static _Atomic unsigned counter;
    for (int i = 0; i < TEMPORARY_TRIES_MAX; i++) {
        const unsigned number = atomic_fetch_add(&counter, 1);
        const int size = snprintf(name, PATH_MAX, "%s.%ld-%u.tmp", path, (long)getpid(), number);
        if (size < 0 || size >= PATH_MAX) {
            return -ENAMETOOLONG;
        }
        const int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST) {
            return fd >= 0 ? fd : -errno;
        }
    }
    return -EEXIST;
}

/* What is no plain file must stay what it is: replacing /dev/stdout by a rename would be fatal. */
static bool is_special(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

enum weir_status file_write(const char *path, const void *data, size_t size, struct weir_err *err)
{
    if (is_special(path)) {
        const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
        const int code = fd < 0 ? errno : write_and_close(fd, data, size, false);
        return code == 0 ? WEIR_OK : complain(err, path, code);
    }
    char name[PATH_MAX];
    const int fd = create_beside(path, name);
    if (fd < 0) {
        return complain(err, path, -fd);
    }
    int code = write_and_close(fd, data, size, true);
    if (code == 0 && rename(name, path) != 0) {
        code = errno;
    }
    if (code != 0) {
        (void)unlink(name);
        return complain(err, path, code);
    }
    return WEIR_OK;
}

enum weir_status file_try(const char *path, struct weir_err *err)
{
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        return err_set(err, WEIR_EINVAL, "%s: found a folder, expected a file", path);
    }
    if (is_special(path)) {
        return access(path, W_OK) == 0 ? WEIR_OK : complain(err, path, errno);
    }
    char name[PATH_MAX];
    const int fd = create_beside(path, name);
    if (fd < 0) {
        return complain(err, path, -fd);
    }
    (void)close(fd);
    (void)unlink(name);
    return WEIR_OK;
}

struct entry {
    const char *name;
    bool folder;
};

struct listing {
    struct arena names;
    struct entry *entries;
    size_t count;
    size_t capacity;
};

static bool make_room(struct listing *l)
{
    if (l->count < l->capacity) {
        return true;
    }
    const size_t capacity = l->capacity == 0 ? 64 : 2 * l->capacity;
    struct entry *entries = mem_try_resize(l->entries, capacity * sizeof *entries);
    if (entries == NULL) {
        return false;
    }
    l->entries = entries;
    l->capacity = capacity;
    return true;
}

static bool is_folder(int folder_fd, const struct dirent *item)
{
    if (item->d_type != DT_UNKNOWN && item->d_type != DT_LNK) {
        return item->d_type == DT_DIR;
    }
    struct stat info;
    return fstatat(folder_fd, item->d_name, &info, 0) == 0 && S_ISDIR(info.st_mode);
}

static enum weir_status add_entry(struct listing *l, int folder_fd, const struct dirent *item,
                                  struct weir_err *err)
{
    if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0) {
        return WEIR_OK;
    }
    if (l->count == ENTRIES_MAX) {
        return err_set(err, WEIR_ETOOBIG, "found more than %d entries in a folder", ENTRIES_MAX);
    }
    const char *name = arena_try_strndup(&l->names, item->d_name, strlen(item->d_name));
    if (name == NULL || !make_room(l)) {
        return err_nomem(err, "the entries of a folder", l->count * sizeof *l->entries);
    }
    l->entries[l->count++] = (struct entry){ name, is_folder(folder_fd, item) };
    return WEIR_OK;
}

static enum weir_status collect(struct listing *l, int folder_fd, DIR *stream, struct weir_err *err)
{
    for (;;) {
        errno = 0;
        const struct dirent *item = readdir(stream);
        if (item == NULL) {
            return errno == 0 ? WEIR_OK : complain(err, "reading a folder", errno);
        }
        const enum weir_status status = add_entry(l, folder_fd, item, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

/* A stream of its own position, which closing leaves the caller's descriptor alone. */
static DIR *open_stream(int folder_fd)
{
    const int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (fd >= 0 && stream == NULL) {
        const int code = errno;
        (void)close(fd);
        errno = code;
    }
    return stream;
}

enum weir_status file_list(int folder_fd, file_visit_fn *visit, void *context, struct weir_err *err)
{
    DIR *stream = open_stream(folder_fd);
    if (stream == NULL) {
        return complain(err, "reading a folder", errno);
    }
    struct listing l = { 0 };
    arena_init(&l.names, NULL, 0, 0);
    enum weir_status status = collect(&l, folder_fd, stream, err);
    (void)closedir(stream);
    if (l.count > 0) {
        qsort(l.entries, l.count, sizeof *l.entries, compare_names);
    }
    for (size_t i = 0; i < l.count && status == WEIR_OK; i++) {
        status = visit(context, l.entries[i].name, l.entries[i].folder);
    }
    mem_free(l.entries);
    arena_finish(&l.names);
    return status;
}

struct fingerprint {
    uint64_t hash;
    uint64_t bytes;
    uint32_t entries;
    uint32_t depth;
    int folder_fd;
    struct weir_err *err;
};

/* FNV-1a: edits are to be noticed, not attacks fended off. */
static void mix(struct fingerprint *f, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) {
        f->hash = (f->hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
}

static void mix_stat(struct fingerprint *f, const struct stat *info)
{
    const int64_t values[] = {
        (int64_t)info->st_mode & S_IFMT, info->st_size,        info->st_mtim.tv_sec,
        info->st_mtim.tv_nsec,           info->st_ctim.tv_sec, info->st_ctim.tv_nsec,
    };
    mix(f, values, sizeof values);
}

static enum weir_status visit_entry(void *context, const char *name, bool folder);

/* Of a folder only what is in it counts: its own times change with every file that comes and goes
 * meanwhile. */
static enum weir_status enter_folder(struct fingerprint *f, const char *name)
{
    if (f->depth == FINGERPRINT_DEPTH_MAX) {
        return err_set(f->err, WEIR_ETOOBIG, "%s: found more than %d levels of folders", name,
                       FINGERPRINT_DEPTH_MAX);
    }
    const int fd = openat(f->folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? WEIR_OK : complain(f->err, name, errno);
    }
    const int outer = f->folder_fd;
    f->folder_fd = fd;
    f->depth++;
    const enum weir_status status = file_list(fd, visit_entry, f, f->err);
    f->depth--;
    f->folder_fd = outer;
    mix(f, "/", 1);
    (void)close(fd);
    return status;
}

static enum weir_status visit_entry(void *context, const char *name, bool folder)
{
    (void)folder;
    struct fingerprint *f = context;
    if (strncmp(name, FILE_OWN_PREFIX, sizeof(FILE_OWN_PREFIX) - 1) == 0) {
        return WEIR_OK;
    }
    if (++f->entries > FINGERPRINT_ENTRIES_MAX) {
        return err_set(f->err, WEIR_ETOOBIG, "found more than %d files and folders",
                       FINGERPRINT_ENTRIES_MAX);
    }
    struct stat info;
    if (fstatat(f->folder_fd, name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? WEIR_OK : complain(f->err, name, errno);
    }
    mix(f, name, strlen(name) + 1);
    if (S_ISDIR(info.st_mode)) {
        return enter_folder(f, name);
    }
    mix_stat(f, &info);
    if (S_ISLNK(info.st_mode) && fstatat(f->folder_fd, name, &info, 0) == 0) {
        mix_stat(f, &info);
    }
    f->bytes += S_ISREG(info.st_mode) ? (uint64_t)info.st_size : 0;
    return WEIR_OK;
}

enum weir_status file_fingerprint(int folder_fd, uint64_t *out, uint64_t *bytes,
                                  struct weir_err *err)
{
    struct fingerprint f = {
        .hash = UINT64_C(0xcbf29ce484222325),
        .depth = 1,
        .folder_fd = folder_fd,
        .err = err,
    };
    const enum weir_status status = file_list(folder_fd, visit_entry, &f, err);
    if (status != WEIR_OK) {
        return status;
    }
    *out = f.hash;
    *bytes = f.bytes;
    return WEIR_OK;
}
