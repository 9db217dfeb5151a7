/*
 * A repository may be somebody else's: the file is created anew under a name that
 * nothing else has and moved into its place, so that a link that lies there is
 * replaced instead of followed.
 */
#include "engine/profile_store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/backend.h"
#include "engine/pool.h"
#include "engine/profile_file.h"
#include "util/file.h"
#include "util/mem.h"

#define FILE_NAME_BYTES 192
#define PROCESSOR_BYTES 96
#define FNV_OFFSET UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

struct profile_store {
    char *folder; /* The repository's root, or the folder for profiles. */
    bool beside;  /* The file is in the model's folder beneath. */
    char name[FILE_NAME_BYTES];
    char processor[PROCESSOR_BYTES];
    uint64_t files;
    uint64_t settings;
    uint64_t tick; /* Of the profile when it was read or written. */
};

/* ---- Identity -------------------------------------------------------------------------------- */

/* FNV-1a: another model is to be noticed, not an attack fended off. */
static uint64_t mix(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ bytes[i]) * FNV_PRIME;
    }
    return hash;
}

static uint64_t mix_text(uint64_t hash, const char *text)
{
    return text == NULL ? mix(hash, "", 1) : mix(hash, text, strlen(text) + 1);
}

struct digest {
    int folder_fd;
    uint64_t hash;
};

/* Times of changes, not those of copies: an image's layers keep only the first. */
static enum weir_status mix_file(void *context, const char *name, bool folder)
{
    struct digest *digest = context;
    struct stat info;
    if (!folder && fstatat(digest->folder_fd, name, &info, 0) == 0) {
        const int64_t values[] = { info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec };
        digest->hash = mix_text(digest->hash, name);
        digest->hash = mix(digest->hash, values, sizeof(values));
    }
    return WEIR_OK;
}

static uint64_t digest_settings(const struct model_config *config)
{
    const int64_t numbers[] = { config->intra_threads, config->max_batch_size };
    uint64_t hash = mix(FNV_OFFSET, numbers, sizeof(numbers));
    hash = mix_text(hash, config->backend);
    hash = mix_text(hash, config->file_name);
    for (uint32_t i = 0; i < config->provider_count; i++) {
        hash = mix_text(hash, config->providers[i].name);
    }
    for (uint32_t i = 0; i < config->setting_count; i++) {
        hash = mix_text(hash, config->settings[i].key);
        hash = mix_text(hash, config->settings[i].value);
    }
    return hash;
}

/* The processor's name as the kernel has it. */
static void read_processor(char out[PROCESSOR_BYTES])
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    (void)snprintf(out, PROCESSOR_BYTES, "unknown");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        const char *value = strchr(line, ':');
        const bool named =
            strncmp(line, "model name", 10) == 0 || strncmp(line, "CPU part", 8) == 0; /* On ARM. */
        if (named && value != NULL && value[1] == ' ') {
            (void)snprintf(out, PROCESSOR_BYTES, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
            break;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
}

static struct profile_identity identity_of(const struct profile_store *store,
                                           const struct model *model)
{
    return (struct profile_identity){
        .model = model->name,
        .version = model->version,
        .files = store->files,
        .settings = store->settings,
        .device = model->config->device,
        .processor = store->processor,
        .runtime = backend_versions(),
    };
}

/* ---- Life ------------------------------------------------------------------------------------ */

enum weir_status profile_store_create(const char *store, const char *root,
                                      const struct model *model, int version_fd,
                                      struct profile_store **out, struct weir_err *err)
{
    *out = NULL;
    if (store == NULL || strcmp(store, PROFILE_STORE_OFF) == 0) {
        return WEIR_OK;
    }
    struct digest digest = { version_fd, FNV_OFFSET };
    const enum weir_status status = file_list(version_fd, mix_file, &digest, err);
    if (status != WEIR_OK) {
        return status;
    }
    const bool beside = strcmp(store, PROFILE_STORE_MODEL) == 0;
    struct profile_store *made = mem_try_zero(1, sizeof(*made));
    char *folder = made == NULL ? NULL : mem_try_strdup(beside ? root : store);
    if (folder == NULL) {
        mem_free(made);
        return err_nomem(err, "a profile's place", sizeof(*made));
    }
    made->folder = folder;
    made->beside = beside;
    made->files = digest.hash;
    made->settings = digest_settings(model->config);
    read_processor(made->processor);
    if (beside) {
        (void)snprintf(made->name, sizeof(made->name), ".weir-profile.%" PRIu64 ".json",
                       model->version);
    } else {
        (void)snprintf(made->name, sizeof(made->name), "%s.%" PRIu64 ".json", model->name,
                       model->version);
    }
    *out = made;
    return WEIR_OK;
}

void profile_store_destroy(struct profile_store *store)
{
    if (store != NULL) {
        mem_free(store->folder);
        mem_free(store);
    }
}

/* The folder that the file is in; minus one: there is none, or it cannot be opened. */
static int open_folder(const struct profile_store *store, const struct model *model)
{
    const int fd = open(store->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int beneath = -1;
    if (fd < 0 || !store->beside) {
        return fd;
    }
    if (file_open_beneath(fd, model->name, true, &beneath, NULL) != WEIR_OK) {
        beneath = -1;
    }
    (void)close(fd);
    return beneath;
}

/* ---- Reading and writing --------------------------------------------------------------------- */

enum weir_status profile_store_read(struct profile_store *store, struct model *model,
                                    char rows[PROFILE_ROWS_BYTES], struct weir_err *err)
{
    const struct profile_identity identity = identity_of(store, model);
    struct buffer text = { 0 };
    struct profile_file *file = mem_try_zero(1, sizeof(*file));
    const int fd = open_folder(store, model);
    enum weir_status status = file == NULL ? err_nomem(err, "a profile", sizeof(*file))
                              : fd < 0     ? err_set(err, WEIR_ENOENT, "there is no profile")
                                           : WEIR_OK;
    if (status == WEIR_OK) {
        status = file_read(fd, store->name, PROFILE_FILE_BYTES_MAX, &text, err);
    }
    if (status == WEIR_OK) {
        const struct bytes bytes = { text.data == NULL ? "" : text.data, text.size };
        status = profile_file_read(bytes, &identity, file, err);
        if (status == WEIR_EINVAL || status == WEIR_ECONFLICT) {
            (void)err_prefix(err, "%s", store->name);
        }
    }
    if (status == WEIR_OK) {
        profile_file_apply(file, model);
        memcpy(rows, file->rows, sizeof(file->rows));
        store->tick = model->profile.tick;
    }
    buffer_finish(&text);
    mem_free(file);
    if (fd >= 0) {
        (void)close(fd);
    }
    return status;
}

bool profile_store_is_due(const struct profile_store *store, struct model *model)
{
    if (store == NULL || model->pool == NULL) {
        return false;
    }
    pthread_mutex_lock(&model->pool->lock);
    const bool due = model->profile.tick != store->tick;
    pthread_mutex_unlock(&model->pool->lock);
    return due;
}

/* Puts the text into the folder as a whole, or not at all. */
static void replace(int folder_fd, const char *name, const struct buffer *text)
{
    char temporary[FILE_NAME_BYTES + 32];
    (void)snprintf(temporary, sizeof(temporary), ".weir-%s.%ld", name, (long)getpid());
    (void)unlinkat(folder_fd, temporary, 0); /* Of an earlier process that was killed. */
    const int fd =
        openat(folder_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0) {
        return;
    }
    const bool whole = write(fd, text->data, text->size) == (ssize_t)text->size;
    if (close(fd) != 0 || !whole || renameat(folder_fd, temporary, folder_fd, name) != 0) {
        (void)unlinkat(folder_fd, temporary, 0);
    }
}

static const char *rows_of(const struct model *model)
{
    const char *reason = model->batching_reason;
    return !model->rows_tried                  ? ""
           : model->batching || reason == NULL ? PROFILE_ROWS_INDEPENDENT
                                               : reason;
}

void profile_store_write(struct profile_store *store, struct model *model)
{
    if (!profile_store_is_due(store, model)) {
        return;
    }
    struct profile *copy = mem_try_zero(1, sizeof(*copy));
    const int fd = copy == NULL ? -1 : open_folder(store, model);
    if (fd >= 0) {
        pthread_mutex_lock(&model->pool->lock);
        *copy = model->profile;
        pthread_mutex_unlock(&model->pool->lock);
        const struct profile_identity identity = identity_of(store, model);
        struct buffer text;
        buffer_init(&text, PROFILE_FILE_BYTES_MAX);
        profile_file_write(copy, &identity, rows_of(model), &text);
        if (!text.failed) {
            replace(fd, store->name, &text);
        }
        buffer_finish(&text);
        store->tick = copy->tick;
        (void)close(fd);
    }
    mem_free(copy);
}
