#include "api/kserve_shared.h"

#include <inttypes.h>

#include "api/shm.h"

#define SHOWN(text) ((text).size > 128 ? 128 : (int)(text).size), (text).data

/* A region held by a call. */
struct kserve_place {
    struct kserve_place *next;
    struct shm_region *region;
    uint64_t offset;
    uint64_t size;
    uint64_t booked;
};

enum weir_status kserve_shared_allowed(const struct infer_call *call, struct weir_err *err)
{
    if (call->shm != NULL) {
        return WEIR_OK;
    }
    return err_set(err, WEIR_EUNSUPPORTED,
                   "'shared_memory_region': shared memory is not supported here (option "
                   "shared_memory); send the tensor as binary data");
}

static enum weir_status take_place(struct infer_call *call, const struct kserve_where *where,
                                   struct kserve_place **out, struct weir_err *err)
{
    enum weir_status status = kserve_shared_allowed(call, err);
    if (status != WEIR_OK) {
        return status;
    }
    struct kserve_place *place = arena_try_zero(call->arena, 1, sizeof(*place));
    if (place == NULL) {
        return err_nomem(err, "a tensor's place", sizeof(*place));
    }
    status = shm_acquire(call->shm, where->region, where->offset, where->size, &place->region, err);
    if (status != WEIR_OK) {
        return status;
    }
    place->offset = where->offset;
    place->size = where->size;
    place->next = call->places;
    call->places = place;
    *out = place;
    return WEIR_OK;
}

enum weir_status kserve_share_input(struct infer_call *call, struct tensor *tensor,
                                    struct bytes name, const struct kserve_where *where,
                                    struct weir_err *err)
{
    struct kserve_place *place;
    enum weir_status status = take_place(call, where, &place, err);
    if (status == WEIR_OK) {
        status = kserve_check_size(call, tensor, name, where->size, " in 'shared_memory_byte_size'",
                                   err);
    }
    status = status == WEIR_OK ? shm_book(call->shm, where->size, err) : status;
    if (status != WEIR_OK) {
        return status;
    }
    place->booked = where->size;
    status = kserve_room(call, tensor, (size_t)where->size, err);
    if (status == WEIR_OK) {
        status = shm_read(place->region, place->offset, tensor->data, tensor->size, err);
    }
    if (status == WEIR_OK && tensor->dtype == DTYPE_BYTES) {
        status = tensor_check_strings(tensor, err);
        if (status != WEIR_OK) {
            (void)err_prefix(err, "input '%.*s'", SHOWN(name));
        }
    }
    return status;
}

enum weir_status kserve_share_output(struct infer_call *call, struct infer_output *output,
                                     const struct kserve_where *where, struct weir_err *err)
{
    struct kserve_place *place;
    const char *name = call->model->signature->outputs[output->index].name;
    if (output->classes > 0) {
        return err_set(err, WEIR_EINVAL,
                       "output '%s': 'classification' and 'shared_memory_region' were asked for, "
                       "expected one of them",
                       name);
    }
    if (call->model->signature->streams) {
        return err_set(err, WEIR_EINVAL,
                       "output '%s': model '%s' answers in several parts, which do not go into "
                       "shared memory",
                       name, call->model->name);
    }
    const enum weir_status status = take_place(call, where, &place, err);
    if (status == WEIR_OK) {
        output->shared = place;
    }
    return status;
}

bool kserve_shares_outputs(const struct infer_call *call)
{
    for (uint32_t i = 0; call->places != NULL && i < call->output_count; i++) {
        if (call->outputs[i].shared != NULL) {
            return true;
        }
    }
    return false;
}

enum weir_status kserve_write_shared(struct infer_call *call, struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < call->output_count && status == WEIR_OK; i++) {
        const struct kserve_place *place = call->outputs[i].shared;
        const uint32_t index = call->outputs[i].index;
        const struct tensor *tensor = &call->request.outputs[index];
        if (place == NULL || !tensor->present) {
            continue;
        }
        if (tensor->size > place->size) {
            return err_set(err, WEIR_EINVAL,
                           "shared memory size specified with the request for output '%s' (%" PRIu64
                           " bytes) should be at least %zu bytes to hold the results",
                           call->model->signature->outputs[index].name, place->size, tensor->size);
        }
        status = shm_write(place->region, place->offset, tensor->data, tensor->size, err);
    }
    return status;
}

void kserve_release_shared(struct infer_call *call)
{
    for (struct kserve_place *place = call->places; place != NULL; place = place->next) {
        shm_unbook(call->shm, place->booked);
        shm_release(place->region);
    }
    call->places = NULL;
}
