/*
 * Packets keep their bounds, so a message is whole or not there, and descriptors cannot get out of
 * step.
 */
#include "backend/process_message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/process_shared.h"
#include "util/err.h"

#define SETTINGS_MAX 4096
#define NO_TEXT UINT64_MAX

enum weir_status message_pair(int ends[2], struct weir_err *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        return err_set(err, WEIR_EIO, "no socket for a model's process (error %d)", errno);
    }
    return WEIR_OK;
}

enum weir_status message_room(struct buffer *out)
{
    buffer_init(out, PROCESS_MESSAGE_MAX);
    return buffer_reserve(out, PROCESS_MESSAGE_MAX) ? WEIR_OK : WEIR_ENOMEM;
}

enum weir_status message_send(int socket, const struct buffer *message, const int *fds,
                              uint32_t fd_count)
{
    if (message->failed || message->size > PROCESS_MESSAGE_MAX || fd_count > PROCESS_FDS_MAX) {
        return WEIR_ETOOBIG;
    }
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * PROCESS_FDS_MAX)] = { 0 };
    struct iovec bytes = { message->data, message->size };
    struct msghdr header = { .msg_iov = &bytes, .msg_iovlen = 1 };
    if (fd_count > 0) {
        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(rights), fds, sizeof(int) * fd_count);
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket, &header, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)message->size ? WEIR_OK : WEIR_EIO;
}

static void take_fds(struct msghdr *header, int fds[PROCESS_FDS_MAX])
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            memcpy(fds, CMSG_DATA(c),
                   c->cmsg_len - CMSG_LEN(0)); /* At most what there is room for. */
        }
    }
}

enum weir_status message_receive(int socket, struct buffer *out, int fds[PROCESS_FDS_MAX])
{
    for (uint32_t i = 0; i < PROCESS_FDS_MAX; i++) {
        fds[i] = -1;
    }
    buffer_clear(out);
    if (!buffer_reserve(out, PROCESS_MESSAGE_MAX)) {
        return WEIR_ENOMEM;
    }
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * PROCESS_FDS_MAX)];
    struct iovec bytes = { out->data, PROCESS_MESSAGE_MAX };
    struct msghdr header = {
        .msg_iov = &bytes,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof(control),
    };
    ssize_t got;
    do {
        got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got > 0) {
        take_fds(&header, fds);
    }
    if (got <= 0 || (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        message_close(fds);
        return WEIR_EIO;
    }
    out->size = (size_t)got;
    return WEIR_OK;
}

void message_close(int fds[PROCESS_FDS_MAX])
{
    for (uint32_t i = 0; i < PROCESS_FDS_MAX; i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
            fds[i] = -1;
        }
    }
}

/* ---- Numbers and texts ----------------------------------------------------------------------- */

void message_u64(struct buffer *out, uint64_t value)
{
    buffer_append(out, &value, sizeof(value));
}

void message_text(struct buffer *out, const char *text)
{
    message_u64(out, text == NULL ? NO_TEXT : strlen(text));
    if (text != NULL) {
        buffer_append(out, text, strlen(text));
    }
}

struct message_reader message_read(const struct buffer *message)
{
    return (struct message_reader){ .at = message->data, .left = message->size };
}

uint64_t message_get_u64(struct message_reader *reader)
{
    uint64_t value = 0;
    if (reader->failed || reader->left < sizeof(value)) {
        reader->failed = true;
        return 0;
    }
    memcpy(&value, reader->at, sizeof(value));
    reader->at += sizeof(value);
    reader->left -= sizeof(value);
    return value;
}

uint64_t message_get_bounded(struct message_reader *reader, uint64_t max)
{
    const uint64_t value = message_get_u64(reader);
    if (value > max) {
        reader->failed = true;
        return 0;
    }
    return value;
}

struct bytes message_get_bytes(struct message_reader *reader)
{
    const uint64_t size = message_get_u64(reader);
    if (reader->failed || size == NO_TEXT) {
        return (struct bytes){ NULL, 0 };
    }
    if (size > reader->left) {
        reader->failed = true;
        return (struct bytes){ NULL, 0 };
    }
    const struct bytes text = { reader->at, (size_t)size };
    reader->at += size;
    reader->left -= (size_t)size;
    return text;
}

const char *message_get_text(struct message_reader *reader, struct arena *arena)
{
    const struct bytes bytes = message_get_bytes(reader);
    if (bytes.data == NULL) {
        return NULL;
    }
    const char *text = arena_try_strndup(arena, bytes.data, bytes.size);
    reader->no_memory = text == NULL;
    reader->failed = reader->no_memory;
    return text;
}

static void *get_room(struct message_reader *reader, struct arena *arena, size_t count, size_t size)
{
    void *room = reader->failed ? NULL : arena_try_zero(arena, count + 1, size);
    reader->no_memory = reader->no_memory || (room == NULL && !reader->failed);
    reader->failed = room == NULL;
    return room;
}

/* ---- Loads ----------------------------------------------------------------------------------- */

static void put_settings(struct buffer *out, const struct setting *settings, uint32_t count)
{
    message_u64(out, count);
    for (uint32_t i = 0; i < count; i++) {
        message_text(out, settings[i].key);
        message_text(out, settings[i].value);
    }
}

static const struct setting *get_settings(struct message_reader *reader, struct arena *arena,
                                          uint32_t *count)
{
    *count = (uint32_t)message_get_bounded(reader, SETTINGS_MAX);
    struct setting *settings = get_room(reader, arena, *count, sizeof(*settings));
    for (uint32_t i = 0; i < *count && !reader->failed; i++) {
        settings[i].key = message_get_text(reader, arena);
        settings[i].value = message_get_text(reader, arena);
    }
    return settings;
}

static void put_providers(struct buffer *out, const struct backend_load *how)
{
    message_u64(out, how->provider_count);
    for (uint32_t i = 0; i < how->provider_count; i++) {
        const struct backend_provider *provider = &how->providers[i];
        message_text(out, provider->name);
        message_u64(out, provider->device_id);
        message_u64(out, provider->memory_limit);
        put_settings(out, provider->options, provider->option_count);
    }
}

static const struct backend_provider *get_providers(struct message_reader *reader,
                                                    struct arena *arena, uint32_t *count)
{
    *count = (uint32_t)message_get_bounded(reader, SETTINGS_MAX);
    struct backend_provider *providers = get_room(reader, arena, *count, sizeof(*providers));
    for (uint32_t i = 0; i < *count && !reader->failed; i++) {
        struct backend_provider *provider = &providers[i];
        provider->name = message_get_text(reader, arena);
        provider->device_id = (uint32_t)message_get_bounded(reader, UINT32_MAX);
        provider->memory_limit = message_get_u64(reader);
        provider->options = get_settings(reader, arena, &provider->option_count);
        reader->failed = reader->failed || provider->name == NULL;
    }
    return providers;
}

void message_load(struct buffer *out, const char *backend, const struct backend_load *how)
{
    message_text(out, backend);
    message_text(out, how->model_name);
    message_u64(out, how->version);
    message_text(out, how->file_name);
    message_text(out, how->device);
    message_u64(out, how->intra_threads);
    message_u64(out, how->contexts_max);
    message_u64(out, how->file_bytes_max);
    put_settings(out, how->settings, how->setting_count);
    put_providers(out, how);
}

void message_get_load(struct message_reader *reader, struct arena *arena, const char **backend,
                      struct backend_load *how)
{
    *backend = message_get_text(reader, arena);
    how->model_name = message_get_text(reader, arena);
    how->version = message_get_u64(reader);
    how->file_name = message_get_text(reader, arena);
    how->device = message_get_text(reader, arena);
    how->intra_threads = (uint32_t)message_get_bounded(reader, UINT32_MAX);
    how->contexts_max = (uint32_t)message_get_bounded(reader, UINT32_MAX);
    how->file_bytes_max = message_get_u64(reader);
    how->settings = get_settings(reader, arena, &how->setting_count);
    how->providers = get_providers(reader, arena, &how->provider_count);
}

/* ---- Signatures ------------------------------------------------------------------------------ */

static void put_specs(struct buffer *out, const struct tensor_spec *specs, uint32_t count)
{
    message_u64(out, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct tensor_spec *spec = &specs[i];
        message_text(out, spec->name);
        message_u64(out, spec->dtype);
        message_u64(out, spec->any_rank);
        message_u64(out, spec->optional);
        message_u64(out, spec->shape.rank);
        for (uint32_t d = 0; d < spec->shape.rank; d++) {
            message_u64(out, (uint64_t)spec->shape.dims[d]);
            message_text(out, spec->dim_names[d]);
        }
    }
}

void message_signature(struct buffer *out, const struct signature *signature)
{
    put_specs(out, signature->inputs, signature->input_count);
    put_specs(out, signature->outputs, signature->output_count);
    message_u64(out, signature->streams);
    message_u64(out, signature->queues);
    message_u64(out, signature->timeline);
    message_u64(out, signature->weights_bytes);
    message_text(out, signature->remark);
}

static void get_spec(struct message_reader *reader, struct arena *arena, struct tensor_spec *out)
{
    out->name = message_get_text(reader, arena);
    reader->failed = reader->failed || out->name == NULL;
    out->dtype = (enum dtype)message_get_bounded(reader, DTYPE_COUNT - 1);
    out->any_rank = message_get_bounded(reader, 1) != 0;
    out->optional = message_get_bounded(reader, 1) != 0;
    out->shape.rank = (uint32_t)message_get_bounded(reader, TENSOR_RANK_MAX);
    for (uint32_t d = 0; d < out->shape.rank; d++) {
        out->shape.dims[d] = (int64_t)message_get_u64(reader);
        out->dim_names[d] = message_get_text(reader, arena);
        reader->failed =
            reader->failed || out->shape.dims[d] < -1 || out->shape.dims[d] > TENSOR_ELEMENTS_MAX;
    }
}

static struct tensor_spec *get_specs(struct message_reader *reader, struct arena *arena,
                                     uint32_t *count)
{
    *count = (uint32_t)message_get_bounded(reader, PROCESS_TENSORS_MAX);
    struct tensor_spec *specs = get_room(reader, arena, *count, sizeof(*specs));
    for (uint32_t i = 0; i < *count && !reader->failed; i++) {
        get_spec(reader, arena, &specs[i]);
    }
    return specs;
}

enum weir_status message_get_signature(struct message_reader *reader, struct arena *arena,
                                       struct signature *out, struct weir_err *err)
{
    struct signature made = { 0 };
    made.inputs = get_specs(reader, arena, &made.input_count);
    made.outputs = get_specs(reader, arena, &made.output_count);
    made.streams = message_get_bounded(reader, 1) != 0;
    made.queues = message_get_bounded(reader, 1) != 0;
    made.timeline = message_get_bounded(reader, 1) != 0;
    made.weights_bytes = message_get_u64(reader);
    made.remark = message_get_text(reader, arena);
    if (reader->no_memory) {
        return err_nomem(err, "a signature", reader->left);
    }
    if (reader->failed || made.output_count == 0) {
        return err_set(err, WEIR_EBACKEND, "the model's process gave a signature that is none");
    }
    *out = made;
    return WEIR_OK;
}
