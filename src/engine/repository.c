/*
 * A root is listed first, its models are looked at one by one later, so that
 * one unreadable folder spoils only itself.
 *
 * Two fingerprints per model tell what a change is about: that of a version's
 * folder changes when its files do; that of all else (model.yaml, labels,
 * warm-up data) changes every version.
 */
#include "engine/repository.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/file.h"
#include "util/map.h"

#define PATH_BYTES (REPOSITORY_NAME_MAX + 32)

struct scan_node {
    struct scan_node *next;
    struct repository_model model;
};

/* A scan in progress. */
struct scan {
    const struct repository *repository;
    struct arena *arena;
    struct weir_err *err;
    struct map by_name; /* Of struct scan_node. */
    struct scan_node *first;
    struct scan_node **last;
    uint32_t count;
    uint32_t root;
    int root_fd;
    bool fingerprints;
};

bool repository_name_ok(struct bytes name)
{
    if (name.size < 1 || name.size > REPOSITORY_NAME_MAX || name.data[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < name.size; i++) {
        const char c = name.data[i];
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool digit = c >= '0' && c <= '9';
        if (!letter && !digit && c != '.' && c != '_' && c != '-') {
            return false;
        }
    }
    return true;
}

bool repository_version_of(const char *text, uint64_t *out)
{
    uint64_t version;
    if (text[0] == '0' || !bytes_to_u64(bytes_of(text), INT64_MAX, &version)) {
        return false;
    }
    *out = version;
    return true;
}

static enum weir_status open_root(const struct repository *repository, uint32_t root, int *out,
                                  struct weir_err *err)
{
    const char *path = repository->roots[root];
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(err, WEIR_EIO, "cannot open the model repository '%s': %s", path,
                       strerror(errno));
    }
    *out = fd;
    return WEIR_OK;
}

enum weir_status repository_open(const struct repository *repository, uint32_t root,
                                 const char *name, uint64_t version, int *out, struct weir_err *err)
{
    char path[PATH_BYTES];
    const int size =
        version == 0 ? snprintf(path, sizeof(path), "%s", name)
                     : snprintf(path, sizeof(path), "%s/%llu", name, (unsigned long long)version);
    if (size < 0 || (size_t)size >= sizeof(path)) {
        return err_set(err, WEIR_EINVAL, "the model name '%s' is too long", name);
    }
    int root_fd;
    enum weir_status status = open_root(repository, root, &root_fd, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = file_open_beneath(root_fd, path, true, out, err);
    (void)close(root_fd);
    return status;
}

/* The fingerprint of one folder beneath `fd`. */
static enum weir_status fingerprint(int fd, const char *name, uint64_t *out, uint64_t *bytes,
                                    struct weir_err *err)
{
    int folder_fd;
    enum weir_status status = file_open_beneath(fd, name, true, &folder_fd, err);
    if (status == WEIR_OK) {
        status = file_fingerprint(folder_fd, out, bytes, err);
        (void)close(folder_fd);
    }
    return status;
}

static enum weir_status add_model(struct scan *scan, const char *name, const char *problem,
                                  uint64_t print)
{
    struct scan_node *node = arena_try_zero(scan->arena, 1, sizeof(*node));
    char *copy = arena_try_strndup(scan->arena, name, strlen(name));
    if (node == NULL || copy == NULL) {
        return err_nomem(scan->err, "the list of models", sizeof(*node));
    }
    node->model = (struct repository_model){ copy, problem, scan->root, print };
    *scan->last = node;
    scan->last = &node->next;
    scan->count++;
    const enum weir_status status = map_add(&scan->by_name, bytes_of(copy), node);
    return status == WEIR_OK ? WEIR_OK : err_nomem(scan->err, "the list of models", sizeof(*node));
}

static enum weir_status visit_model(void *context, const char *name, bool folder)
{
    struct scan *scan = context;
    if (name[0] == '.' || !folder) {
        return WEIR_OK;
    }
    struct scan_node *known = map_get(&scan->by_name, bytes_of(name));
    if (known != NULL) {
        known->model.problem = "model appears in two or more repositories";
        return WEIR_OK;
    }
    if (scan->count >= scan->repository->models_max) {
        return scan->count > scan->repository->models_max
                   ? WEIR_OK
                   : add_model(scan, name, "not looked at: there are more models than models_max",
                               0);
    }
    if (!repository_name_ok(bytes_of(name))) {
        return add_model(scan, name,
                         "the folder's name is no model name: expected 1 to 128 of A-Z a-z 0-9 . "
                         "_ - and no leading dot",
                         0);
    }
    uint64_t print = 0;
    uint64_t bytes;
    if (scan->fingerprints && fingerprint(scan->root_fd, name, &print, &bytes, NULL) != WEIR_OK) {
        print = 0; /* The closer look will say what is wrong with it. */
    }
    return add_model(scan, name, NULL, print);
}

static enum weir_status scan_roots(struct scan *scan)
{
    for (uint32_t i = 0; i < scan->repository->root_count; i++) {
        scan->root = i;
        enum weir_status status = open_root(scan->repository, i, &scan->root_fd, scan->err);
        if (status != WEIR_OK) {
            return status;
        }
        status = file_list(scan->root_fd, visit_model, scan, scan->err);
        (void)close(scan->root_fd);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

enum weir_status repository_scan(const struct repository *repository, bool fingerprints,
                                 struct arena *arena, struct repository_list *out,
                                 struct weir_err *err)
{
    struct scan scan = {
        .repository = repository,
        .arena = arena,
        .err = err,
        .fingerprints = fingerprints,
    };
    scan.last = &scan.first;
    map_init(&scan.by_name);
    const enum weir_status status = scan_roots(&scan);
    map_finish(&scan.by_name);
    if (status != WEIR_OK) {
        return status;
    }
    struct repository_list list = { .count = scan.count };
    list.models = arena_try_zero(arena, scan.count, sizeof(*list.models));
    if (list.models == NULL) {
        return err_nomem(err, "the list of models", scan.count * sizeof(*list.models));
    }
    uint32_t at = 0;
    for (const struct scan_node *node = scan.first; node != NULL; node = node->next) {
        list.models[at++] = node->model;
    }
    assert(at == list.count);
    *out = list;
    return WEIR_OK;
}

/* A closer look in progress. */
struct look {
    struct repository_version *versions; /* REPOSITORY_VERSIONS_MAX of them. */
    uint32_t count;
    uint64_t config;
    int model_fd;
    const char *name;
    struct weir_err *err;
};

static enum weir_status add_version(struct look *look, const char *folder, uint64_t version)
{
    if (look->count == REPOSITORY_VERSIONS_MAX) {
        return err_set(look->err, WEIR_EINVAL, "model '%s' has more than %d versions", look->name,
                       REPOSITORY_VERSIONS_MAX);
    }
    struct repository_version *found = &look->versions[look->count];
    found->version = version;
    const enum weir_status status =
        fingerprint(look->model_fd, folder, &found->fingerprint, &found->bytes, look->err);
    look->count += status == WEIR_OK ? 1 : 0;
    return status;
}

/* Joins a file's or folder's fingerprint to that of the configuration, independent of order. */
static enum weir_status add_config(struct look *look, const char *name, bool folder)
{
    struct stat found;
    uint64_t parts[5] = { 0 };
    if (fstatat(look->model_fd, name, &found, AT_SYMLINK_NOFOLLOW) != 0) {
        return WEIR_OK; /* Gone since it was listed. */
    }
    if (folder) {
        uint64_t bytes;
        const enum weir_status status =
            fingerprint(look->model_fd, name, &parts[0], &bytes, look->err);
        if (status != WEIR_OK) {
            return status;
        }
    } else {
        parts[0] = (uint64_t)found.st_size;
        parts[1] = (uint64_t)found.st_ino;
        parts[2] = (uint64_t)found.st_mtim.tv_sec;
        parts[3] = (uint64_t)found.st_mtim.tv_nsec;
    }
    parts[4] = map_hash(name, strlen(name));
    look->config += map_hash(parts, sizeof(parts));
    return WEIR_OK;
}

static enum weir_status visit_part(void *context, const char *name, bool folder)
{
    struct look *look = context;
    uint64_t version;
    if (name[0] == '.') {
        return WEIR_OK;
    }
    if (folder && repository_version_of(name, &version)) {
        return add_version(look, name, version);
    }
    return add_config(look, name, folder);
}

/* Finds the one root that has the model. */
static enum weir_status find_root(const struct repository *repository, const char *name,
                                  uint32_t *root, int *out, struct weir_err *err)
{
    int found_fd = -1;
    for (uint32_t i = 0; i < repository->root_count; i++) {
        int fd;
        const enum weir_status status = repository_open(repository, i, name, 0, &fd, err);
        if (status == WEIR_ENOENT) {
            continue;
        }
        if (status == WEIR_OK && found_fd < 0) {
            found_fd = fd;
            *root = i;
            continue;
        }
        if (found_fd >= 0) {
            (void)close(found_fd);
        }
        if (status != WEIR_OK) {
            return status;
        }
        (void)close(fd);
        return err_set(err, WEIR_EINVAL, "model appears in two or more repositories");
    }
    if (found_fd < 0) {
        return err_set(err, WEIR_ENOENT,
                       "failed to load '%s', failed to poll from model repository: no folder of "
                       "that name",
                       name);
    }
    *out = found_fd;
    return WEIR_OK;
}

static int by_version(const void *a, const void *b)
{
    const struct repository_version *left = a;
    const struct repository_version *right = b;
    return left->version < right->version ? -1 : left->version > right->version;
}

enum weir_status repository_look(const struct repository *repository, const char *name,
                                 struct arena *arena, struct repository_look *out,
                                 struct weir_err *err)
{
    if (!repository_name_ok(bytes_of(name))) {
        return err_set(err, WEIR_EINVAL,
                       "'%s' is no model name: expected 1 to 128 of A-Z a-z 0-9 . _ - and no "
                       "leading dot",
                       name);
    }
    struct look look = { .model_fd = -1, .name = name, .err = err };
    look.versions = arena_try_zero(arena, REPOSITORY_VERSIONS_MAX, sizeof(*look.versions));
    if (look.versions == NULL) {
        return err_nomem(err, "the list of versions",
                         REPOSITORY_VERSIONS_MAX * sizeof(*look.versions));
    }
    uint32_t root = 0;
    enum weir_status status = find_root(repository, name, &root, &look.model_fd, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = file_list(look.model_fd, visit_part, &look, err);
    (void)close(look.model_fd);
    if (status != WEIR_OK) {
        return status;
    }
    if (look.count == 0) {
        return err_set(err, WEIR_EINVAL,
                       "failed to load '%s', no version is available: expected a folder such as "
                       "%s/1 with the model in it",
                       name, name);
    }
    qsort(look.versions, look.count, sizeof(*look.versions), by_version);
    *out = (struct repository_look){ root, look.versions, look.count, look.config };
    return WEIR_OK;
}
