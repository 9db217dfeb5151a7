#include "engine/pieces.h"

#include <inttypes.h>
#include <string.h>

#include "backend/backend.h"
#include "engine/batch.h"
#include "engine/request.h"
#include "util/mem.h"

#define ROOM_FIRST 8

enum weir_status pieces_init(struct pieces *pieces, const struct request *request,
                             const struct signature *signature, struct weir_err *err)
{
    *pieces = (struct pieces){ .request = request, .signature = signature };
    pieces->at = mem_try_zero(signature->input_count, sizeof(*pieces->at));
    return pieces->at == NULL ? err_nomem(err, "the pieces of a request", sizeof(*pieces->at))
                              : WEIR_OK;
}

void pieces_finish(struct pieces *pieces)
{
    for (uint32_t i = 0; i < pieces->count * pieces->signature->output_count; i++) {
        tensor_release(&pieces->outputs[i]);
    }
    mem_free(pieces->outputs);
    mem_free(pieces->at);
    *pieces = (struct pieces){ 0 };
}

static size_t row_bytes(const struct pieces *pieces, uint32_t input, uint64_t rows)
{
    return batch_row_bytes(&pieces->request->inputs[input], pieces->request->rows, rows,
                           pieces->at[input]);
}

struct tensor pieces_view(const struct pieces *pieces, uint32_t input, uint64_t rows)
{
    struct tensor view = pieces->request->inputs[input];
    view.block = NULL;
    if (view.present) {
        view.shape.dims[0] = (int64_t)rows;
        view.size = row_bytes(pieces, input, rows);
        view.data += pieces->at[input];
    }
    return view;
}

static bool make_room(struct pieces *pieces)
{
    if (pieces->count < pieces->room) {
        return true;
    }
    const uint32_t room = pieces->room == 0 ? ROOM_FIRST : 2 * pieces->room;
    size_t size;
    if (__builtin_mul_overflow(room * sizeof(struct tensor), pieces->signature->output_count,
                               &size)) {
        return false;
    }
    struct tensor *outputs = mem_try_resize(pieces->outputs, size);
    if (outputs == NULL) {
        return false;
    }
    pieces->outputs = outputs;
    pieces->room = room;
    return true;
}

enum weir_status pieces_add(struct pieces *pieces, uint64_t rows, struct tensor *outputs,
                            struct weir_err *err)
{
    const uint32_t each = pieces->signature->output_count;
    if (!make_room(pieces)) {
        return err_nomem(err, "the pieces of a request", each * sizeof(struct tensor));
    }
    struct tensor *place = pieces->outputs + (size_t)pieces->count * each;
    for (uint32_t i = 0; i < each; i++) {
        place[i] = outputs[i];
        outputs[i] = (struct tensor){ 0 };
    }
    for (uint32_t i = 0; i < pieces->signature->input_count; i++) {
        if (pieces->request->inputs[i].present) {
            pieces->at[i] += row_bytes(pieces, i, rows);
        }
    }
    pieces->count++;
    pieces->rows += rows;
    return WEIR_OK;
}

static const struct tensor *part_of(const struct pieces *pieces, uint32_t index, uint32_t output)
{
    return &pieces->outputs[(size_t)index * pieces->signature->output_count + output];
}

/* The shape of all parts together, and their bytes. */
static enum weir_status survey(const struct pieces *pieces, uint32_t output, struct tensor *out,
                               struct weir_err *err)
{
    struct tensor whole = *part_of(pieces, 0, output);
    struct shape expected = whole.shape;
    whole.shape.dims[0] = 0;
    whole.size = 0;
    for (uint32_t i = 0; i < pieces->count; i++) {
        const struct tensor *part = part_of(pieces, i, output);
        expected.dims[0] = part->shape.dims[0];
        if (part->present != whole.present || !shape_equal(&part->shape, &expected)) {
            char found[SHAPE_TEXT];
            return err_set(err, WEIR_ECONFLICT,
                           "output '%s' of rows that ran apart differs in shape: %s in piece "
                           "%" PRIu32,
                           pieces->signature->outputs[output].name,
                           shape_format(&part->shape, found), i + 1);
        }
        whole.shape.dims[0] += part->shape.dims[0];
        whole.size += part->size;
    }
    *out = whole;
    return WEIR_OK;
}

enum weir_status pieces_join(const struct pieces *pieces, uint32_t output,
                             struct block_pool *blocks, struct tensor *out, struct weir_err *err)
{
    struct tensor whole;
    const enum weir_status status = survey(pieces, output, &whole, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (!whole.present) {
        *out = (struct tensor){ 0 };
        return WEIR_OK;
    }
    whole.block = block_pool_take(blocks, whole.size == 0 ? 1 : whole.size);
    if (whole.block == NULL) {
        return err_nomem(err, "the outputs of a large request", whole.size);
    }
    whole.data = whole.block->data;
    size_t at = 0;
    for (uint32_t i = 0; i < pieces->count; i++) {
        const struct tensor *part = part_of(pieces, i, output);
        memcpy(whole.data + at, part->data, part->size);
        at += part->size;
    }
    *out = whole;
    return WEIR_OK;
}
