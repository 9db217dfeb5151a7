#include "cmd/bench_shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/json.h"
#include "util/protowire.h"

#define NAME_BYTES 128
#define ASK_NS (10 * NS_PER_S)
#define SERVICE "/inference.GRPCInferenceService/"

struct plan_region {
    struct plan_region *next;
    struct session_options options; /* Of the server that knows it. */
    char name[NAME_BYTES];
    bool made;
    bool registered;
    struct request_region region;
};

/* ---- Telling the server ---------------------------------------------------------------------- */

static enum weir_status tell_rest(struct session *session, const char *name, const char *verb,
                                  const char *body, struct weir_err *err)
{
    char path[NAME_BYTES + 64];
    const struct bytes piece = bytes_of(body);
    const struct client_request request = { .method = "POST",
                                            .path = path,
                                            .fields = "Content-Type: application/json\r\n",
                                            .pieces = &piece,
                                            .piece_count = 1 };
    struct client_reply reply;
    (void)snprintf(path, sizeof(path), "/v2/systemsharedmemory/region/%s/%s", name, verb);
    enum weir_status status = client_call(&session->client, &request, &reply, err);
    if (status == WEIR_OK && reply.status != 200) {
        status = client_refusal(&reply, err);
        (void)err_prefix(err, "shared memory");
    }
    client_reply_finish(&reply);
    return status;
}

static enum weir_status tell_grpc(struct session *session, const char *method, const char *name,
                                  uint64_t bytes, struct weir_err *err)
{
    uint8_t message[2 * NAME_BYTES + 64];
    struct protowire_out out = { .at = message };
    protowire_put_bytes(&out, 1, bytes_of(name));
    if (bytes > 0) {
        protowire_put_bytes(&out, 2, bytes_of(name));
        protowire_put_number(&out, 4, bytes);
    }
    const struct bytes piece = { (const char *)message, (size_t)out.size };
    struct rpc_reply reply;
    const enum weir_status status = rpc_call(&session->rpc, method, &piece, 1, &reply, err);
    rpc_reply_finish(&reply);
    return status;
}

static enum weir_status register_region(struct session *session, const char *name, uint64_t bytes,
                                        struct weir_err *err)
{
    char body[NAME_BYTES + 80];
    if (session->options.grpc) {
        return tell_grpc(session, SERVICE "SystemSharedMemoryRegister", name, bytes, err);
    }
    (void)snprintf(body, sizeof(body), "{\"key\":\"/%s\",\"offset\":0,\"byte_size\":%llu}", name,
                   (unsigned long long)bytes);
    return tell_rest(session, name, "register", body, err);
}

static void unregister_region(struct plan_region *region)
{
    struct session session;
    if (session_open(&session, &region->options, NULL) == WEIR_OK) {
        const enum weir_status status =
            region->options.grpc
                ? tell_grpc(&session, SERVICE "SystemSharedMemoryUnregister", region->name, 0, NULL)
                : tell_rest(&session, region->name, "unregister", "", NULL);
        (void)status; /* A server that is gone knows of it no more. */
    }
    session_close(&session);
}

void shared_finish(struct plan_region *regions)
{
    for (; regions != NULL; regions = regions->next) {
        if (regions->registered) {
            unregister_region(regions);
        }
        if (regions->made) {
            (void)shm_unlink(regions->name);
        }
    }
}

/* ---- The object ------------------------------------------------------------------------------ */

static enum weir_status measure(struct arena *arena, const struct shared_wish *wish,
                                struct request_region *region, struct weir_err *err)
{
    const struct request_inputs_spec *spec = wish->spec;
    const struct request_inputs *inputs = wish->inputs;
    uint64_t *sizes = arena_try_zero(arena, (size_t)spec->model->output_count + 1, sizeof(*sizes));
    if (sizes == NULL) {
        return err_nomem(err, "outputs", 0);
    }
    for (uint32_t i = 0; i < inputs->variant_count; i++) {
        uint64_t size = 0;
        for (uint32_t k = 0; k < inputs->input_count; k++) {
            size += inputs->values[i * inputs->input_count + k].tensor.size;
        }
        region->input_stride = size > region->input_stride ? size : region->input_stride;
    }
    for (uint32_t i = 0; i < spec->model->output_count; i++) {
        const struct spec *output = &spec->model->outputs[i];
        struct shape shape;
        size_t size = 0;
        enum weir_status status = request_shape_of(output, spec, &shape, err);
        if (status == WEIR_OK) {
            status = tensor_bytes(output->dtype, &shape, &size, err);
        }
        if (status != WEIR_OK) {
            return status;
        }
        sizes[i] = size;
        region->output_stride += size;
    }
    region->output_bytes = sizes;
    region->output_offset = inputs->variant_count * region->input_stride;
    return WEIR_OK;
}

static enum weir_status failed(const char *name, struct weir_err *err)
{
    return err_set(err, WEIR_EIO, "shared memory %s: %s", name, strerror(errno));
}

static enum weir_status fill(struct plan_region *region, const struct request_inputs *inputs,
                             uint64_t bytes, struct weir_err *err)
{
    const int fd = shm_open(region->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return failed(region->name, err);
    }
    region->made = true;
    uint8_t *at = MAP_FAILED;
    if (ftruncate(fd, (off_t)bytes) == 0) {
        at = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    const enum weir_status status = at == MAP_FAILED ? failed(region->name, err) : WEIR_OK;
    (void)close(fd);
    if (status != WEIR_OK) {
        return status;
    }
    for (uint32_t i = 0; i < inputs->variant_count; i++) {
        uint8_t *to = at + i * region->region.input_stride;
        for (uint32_t k = 0; k < inputs->input_count; k++) {
            const struct tensor *tensor = &inputs->values[i * inputs->input_count + k].tensor;
            memcpy(to, tensor->data, tensor->size);
            to += tensor->size;
        }
    }
    (void)munmap(at, (size_t)bytes);
    return WEIR_OK;
}

/* In the list, so that it is given back whatever follows. */
static enum weir_status add_region(struct arena *arena, const struct shared_wish *wish,
                                   struct plan_region **regions, struct weir_err *err)
{
    static uint32_t count;
    struct plan_region *region = arena_try_zero(arena, 1, sizeof(*region));
    if (region == NULL) {
        return err_nomem(err, "shared memory", sizeof(*region));
    }
    const int size = snprintf(region->name, sizeof(region->name), "%sbench.%d.%u", wish->prefix,
                              (int)getpid(), count++);
    if (size >= (int)sizeof(region->name) || strchr(wish->prefix, '/') != NULL) {
        return err_set(err, WEIR_EINVAL,
                       "--shared-memory: found '%s', expected a short prefix without slashes",
                       wish->prefix);
    }
    region->options = wish->session->options;
    region->options.timeout_ns = ASK_NS;
    region->next = *regions;
    *regions = region;
    return WEIR_OK;
}

enum weir_status shared_make(struct arena *arena, const struct shared_wish *wish,
                             struct plan_region **regions, const struct request_region **out,
                             struct weir_err *err)
{
    enum weir_status status = add_region(arena, wish, regions, err);
    if (status != WEIR_OK) {
        return status;
    }
    struct plan_region *made = *regions;
    struct request_region *region = &made->region;
    status = measure(arena, wish, region, err);
    const uint64_t all =
        wish->inputs->variant_count * (region->input_stride + region->output_stride);
    const uint64_t bytes = all > 0 ? all : 1;
    if (status == WEIR_OK) {
        status = fill(made, wish->inputs, bytes, err);
    }
    if (status == WEIR_OK) {
        status = register_region(wish->session, made->name, bytes, err);
    }
    if (status == WEIR_OK) {
        made->registered = true;
        region->name = made->name;
        *out = region;
    }
    return status;
}
