/*
 * External data: the bytes of a tensor that lie beside the model file.
 *
 * The name in the file was chosen by whoever made the file.  It may name nothing but a plain
 * file beneath the version's folder: every folder on the way is opened without following links,
 * and a file with a second name (a hard link to something outside) is refused, which ONNX
 * Runtime itself would read.
 */
#include "backend/onnx_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/err.h"

#define COMPONENT_BYTES 256

static enum weir_status refuse(const struct onnx_external *item, const char *why,
                               struct weir_err *err)
{
    return err_set(err, WEIR_EINVAL, "external data '%.200s' of tensor '%.80s' %s", item->location,
                   item->tensor, why);
}

static const char *fault_in_name(const char *location)
{
    if (strstr(location, "_ORT_MEM_ADDR_") != NULL) {
        return "is a memory address, not a file";
    }
    if (location[0] == '/' || strchr(location, '\\') != NULL) {
        return "is not a relative path";
    }
    for (const char *at = location; *at != '\0'; at += strspn(at, "/")) {
        const size_t size = strcspn(at, "/");
        if (size == 2 && memcmp(at, "..", 2) == 0) {
            return "leaves the model's folder";
        }
        if (size >= COMPONENT_BYTES) {
            return "has a name that is too long";
        }
        at += size;
    }
    return NULL;
}

/* Opens without following a link anywhere; -1 and errno when it cannot. */
static int open_plain(int folder_fd, const char *location)
{
    int at_fd = dup(folder_fd);
    const char *at = location;
    while (at_fd >= 0) {
        char component[COMPONENT_BYTES];
        const size_t size = strcspn(at, "/");
        memcpy(component, at, size);
        component[size] = '\0';
        at += size;
        at += strspn(at, "/");
        const bool last = *at == '\0';
        const int kind = last ? O_NONBLOCK : O_DIRECTORY;
        const int next_fd = openat(at_fd, component, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | kind);
        const int why = errno;
        close(at_fd);
        errno = why;
        if (last) {
            return next_fd;
        }
        at_fd = next_fd;
    }
    return -1;
}

static enum weir_status check_extent(const struct onnx_external *item, const struct stat *info,
                                     struct weir_err *err)
{
    uint64_t end;
    if (item->length != 0 && item->length != item->bytes) {
        return err_set(err, WEIR_EINVAL,
                       "external data '%.200s' of tensor '%.80s' has length %" PRIu64
                       ", the tensor's shape needs %" PRIu64,
                       item->location, item->tensor, item->length, item->bytes);
    }
    if (__builtin_add_overflow(item->offset, item->bytes, &end) || end > (uint64_t)info->st_size) {
        return err_set(err, WEIR_EINVAL,
                       "external data '%.200s' of tensor '%.80s' needs %" PRIu64
                       " bytes from offset %" PRIu64 ", the file has %" PRIu64,
                       item->location, item->tensor, item->bytes, item->offset,
                       (uint64_t)info->st_size);
    }
    return WEIR_OK;
}

static enum weir_status check_one(const struct onnx_external *item, int folder_fd,
                                  struct weir_err *err)
{
    const char *fault = fault_in_name(item->location);
    if (fault != NULL) {
        return refuse(item, fault, err);
    }
    const int fd = open_plain(folder_fd, item->location);
    if (fd < 0) {
        const int why = errno;
        if (why == ELOOP) {
            return refuse(item, "is a link", err);
        }
        if (why == ENOTDIR) {
            return refuse(item, "leads through a link or something that is no folder", err);
        }
        if (why == ENOENT) {
            (void)refuse(item, "is not there", err);
            if (err != NULL) {
                err->status = WEIR_ENOENT;
            }
            return WEIR_ENOENT;
        }
        return refuse(item, strerror(why), err);
    }
    struct stat info;
    enum weir_status status = WEIR_OK;
    if (fstat(fd, &info) != 0) {
        status = refuse(item, strerror(errno), err);
    } else if (!S_ISREG(info.st_mode)) {
        status = refuse(item, "is not a regular file", err);
    } else if (info.st_nlink != 1) {
        status = refuse(item, "has another name elsewhere (a hard link)", err);
    } else {
        status = check_extent(item, &info, err);
    }
    close(fd);
    return status;
}

enum weir_status onnx_file_check_external(const struct onnx_file *file, int folder_fd,
                                          struct weir_err *err)
{
    for (uint32_t i = 0; i < file->external_count; i++) {
        const enum weir_status status = check_one(&file->externals[i], folder_fd, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}
