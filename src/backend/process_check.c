/*
 * A process that was taken over by its model can say anything here.  What it can not do is make the
 * server read outside the area, or believe a tensor that the model's signature does not allow.
 */
#include "backend/process_check.h"

#include <inttypes.h>
#include <string.h>

#include "util/err.h"
#include "util/mem.h"

static enum weir_status lies(const struct tensor_spec *spec, const char *what, uint64_t found,
                             struct weir_err *err)
{
    return err_set(err, WEIR_EBACKEND,
                   "the model's process gave output '%s' with %s (found %" PRIu64 ")", spec->name,
                   what, found);
}

enum weir_status process_check(const struct tensor_spec *spec, const struct process_tensor *said,
                               uint8_t *data, size_t size, struct tensor *out, struct weir_err *err)
{
    if (said->dtype != (uint32_t)spec->dtype) {
        return lies(spec, "another element type than its signature's", said->dtype, err);
    }
    if (said->rank > TENSOR_RANK_MAX) {
        return lies(spec, "an impossible rank", said->rank, err);
    }
    struct tensor made = {
        .dtype = spec->dtype,
        .shape = { .rank = said->rank },
        .present = true,
    };
    memcpy(made.shape.dims, said->dims, sizeof(made.shape.dims));
    uint64_t elements;
    if (shape_elements(&made.shape, &elements, NULL) != WEIR_OK ||
        (!spec->any_rank && !shape_fits(&made.shape, &spec->shape))) {
        return lies(spec, "a shape that its signature does not allow, of rank", said->rank, err);
    }
    if (said->offset % MEM_ALIGN != 0 || said->offset > size || said->size > size - said->offset) {
        return lies(spec, "bytes outside its memory", said->offset, err);
    }
    made.size = (size_t)said->size;
    size_t expected = made.size;
    if (spec->dtype != DTYPE_BYTES &&
        (tensor_bytes(spec->dtype, &made.shape, &expected, NULL) != WEIR_OK ||
         expected != made.size)) {
        return lies(spec, "a length that does not fit its shape", said->size, err);
    }
    made.data = data + said->offset;
    *out = made;
    return WEIR_OK;
}

enum weir_status process_check_status(uint32_t said)
{
    static const enum weir_status known[] = { WEIR_OK,       WEIR_EINVAL,       WEIR_ENOMEM,
                                              WEIR_ETOOBIG,  WEIR_ECANCELED,    WEIR_ECONFLICT,
                                              WEIR_EBACKEND, WEIR_EUNSUPPORTED, WEIR_EUNAVAILABLE };
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        if (said == (uint32_t)known[i]) {
            return known[i];
        }
    }
    return WEIR_EBACKEND;
}
