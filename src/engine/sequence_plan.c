/*
 * Controls and states are found by name at load, so that a run only walks two short arrays.
 *
 * Rows that are nobody's (the direct strategy leaves a sequence in its row, and a run may come
 * between two of its requests) are zeros with READY off: the model is told to look away, and
 * nothing of another sequence's state can reach them.
 */
#include "engine/sequence_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "util/arena.h"
#include "util/bytes.h"
#include "util/err.h"
#include "util/file.h"
#include "util/mem.h"

#define PATH_BYTES 512
#define STRING_HEAD 4 /* Bytes of a BYTES element's length. */

/* What a list of tensors is called, and which of them are taken. */
struct side {
    const char *what;
    const struct tensor_spec *specs;
    uint32_t count;
    bool *taken;
};

static enum weir_status take(const struct side *side, const char *who, const char *name,
                             uint32_t *out, struct weir_err *err)
{
    for (uint32_t i = 0; i < side->count; i++) {
        if (strcmp(side->specs[i].name, name) != 0) {
            continue;
        }
        if (side->taken[i]) {
            return err_set(err, WEIR_EINVAL, "sequence_batching: %s '%s' is named twice",
                           side->what, name);
        }
        side->taken[i] = true;
        *out = i;
        return WEIR_OK;
    }
    return err_set(err, WEIR_EINVAL, "sequence_batching: %s '%s': the model has no such %s", who,
                   name, side->what);
}

/* A number as one element of a control. */
static void put_number(enum dtype dtype, double value, uint8_t *out)
{
    const int32_t whole = (int32_t)value;
    const float single = (float)value;
    const uint8_t truth = value != 0;
    memset(out, 0, 8);
    if (dtype == DTYPE_INT32) {
        memcpy(out, &whole, sizeof(whole));
    } else if (dtype == DTYPE_FP32) {
        memcpy(out, &single, sizeof(single));
    } else {
        memcpy(out, &truth, sizeof(truth));
    }
}

static bool control_takes(enum sequence_control_kind kind, enum dtype dtype)
{
    if (kind != SEQUENCE_CORRID) {
        return dtype == DTYPE_INT32 || dtype == DTYPE_FP32 || dtype == DTYPE_BOOL;
    }
    return dtype == DTYPE_UINT64 || dtype == DTYPE_INT64 || dtype == DTYPE_UINT32 ||
           dtype == DTYPE_INT32 || dtype == DTYPE_BYTES;
}

static enum weir_status add_control(struct sequence_plan *plan, const struct side *inputs,
                                    const struct sequence_control *from, struct weir_err *err)
{
    struct plan_control *control = &plan->controls[plan->control_count];
    const enum weir_status status =
        take(inputs, "control_input", from->input, &control->input, err);
    if (status != WEIR_OK) {
        return status;
    }
    const enum dtype dtype = inputs->specs[control->input].dtype;
    if (from->dtype != dtype || !control_takes(from->kind, dtype)) {
        return err_set(err, WEIR_EINVAL,
                       "sequence_batching: control_input '%s' is given as %s, the model takes %s",
                       from->input, dtype_text(from->dtype), dtype_text(dtype));
    }
    for (uint32_t i = 0; i < plan->control_count; i++) {
        if (plan->controls[i].kind == from->kind) {
            return err_set(err, WEIR_EINVAL,
                           "sequence_batching: control_input '%s' is the second of its kind",
                           from->input);
        }
    }
    control->kind = from->kind;
    control->dtype = dtype;
    put_number(dtype, from->false_true[0], control->off);
    put_number(dtype, from->false_true[1], control->on);
    plan->control_count++;
    return WEIR_OK;
}

static enum weir_status add_state(struct sequence_plan *plan, const struct side *inputs,
                                  const struct side *outputs, const struct sequence_state *from,
                                  struct weir_err *err)
{
    struct plan_state *state = &plan->states[plan->state_count];
    enum weir_status status = take(inputs, "state", from->input, &state->input, err);
    status = status == WEIR_OK ? take(outputs, "state", from->output, &state->output, err) : status;
    if (status != WEIR_OK) {
        return status;
    }
    const struct tensor_spec *in = &inputs->specs[state->input];
    const struct tensor_spec *out = &outputs->specs[state->output];
    if (from->dtype != in->dtype || in->dtype != out->dtype) {
        return err_set(err, WEIR_EINVAL,
                       "sequence_batching: state '%s' is given as %s, the model takes %s and gives "
                       "%s as '%s'",
                       in->name, dtype_text(from->dtype), dtype_text(in->dtype),
                       dtype_text(out->dtype), out->name);
    }
    state->name = in->name;
    plan->state_count++;
    return WEIR_OK;
}

/* The tensors that are not taken, and where they stand in the full signature. */
static void show(const struct side *side, struct tensor_spec *specs, uint32_t *map, uint32_t *count)
{
    *count = 0;
    for (uint32_t i = 0; i < side->count; i++) {
        if (!side->taken[i]) {
            map[*count] = i;
            specs[(*count)++] = side->specs[i];
        }
    }
}

static bool allocate(struct arena *arena, const struct sequence_config *config,
                     const struct signature *full, struct sequence_plan *plan)
{
    const size_t ins = full->input_count + 1u;
    const size_t outs = full->output_count + 1u;
    plan->shown.inputs = arena_try_zero(arena, ins, sizeof(*plan->shown.inputs));
    plan->shown.outputs = arena_try_zero(arena, outs, sizeof(*plan->shown.outputs));
    plan->inputs = arena_try_zero(arena, ins, sizeof(*plan->inputs));
    plan->outputs = arena_try_zero(arena, outs, sizeof(*plan->outputs));
    plan->controls = arena_try_zero(arena, config->control_count + 1u, sizeof(*plan->controls));
    plan->states = arena_try_zero(arena, config->state_count + 1u, sizeof(*plan->states));
    return plan->shown.inputs != NULL && plan->shown.outputs != NULL && plan->inputs != NULL &&
           plan->outputs != NULL && plan->controls != NULL && plan->states != NULL;
}

enum weir_status sequence_plan_create(const struct model_config *config,
                                      const struct signature *full, struct sequence_plan **out,
                                      struct weir_err *err)
{
    const struct sequence_config *sequence = &config->sequence;
    struct arena *arena = config->arena;
    struct sequence_plan *plan = arena_try_zero(arena, 1, sizeof(*plan));
    struct side inputs = { "input", full->inputs, full->input_count,
                           arena_try_zero(arena, full->input_count + 1u, sizeof(bool)) };
    struct side outputs = { "output", full->outputs, full->output_count,
                            arena_try_zero(arena, full->output_count + 1u, sizeof(bool)) };
    if (plan == NULL || inputs.taken == NULL || outputs.taken == NULL ||
        !allocate(arena, sequence, full, plan)) {
        return err_nomem(err, "a sequence model", sizeof(*plan));
    }
    if (full->streams) {
        return err_set(err, WEIR_EINVAL,
                       "sequence_batching: the model answers in several parts, which sequences "
                       "cannot do");
    }
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < sequence->control_count && status == WEIR_OK; i++) {
        status = add_control(plan, &inputs, &sequence->controls[i], err);
    }
    for (uint32_t i = 0; i < sequence->state_count && status == WEIR_OK; i++) {
        status = add_state(plan, &inputs, &outputs, &sequence->states[i], err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    plan->full = full;
    plan->shown.weights_bytes = full->weights_bytes;
    show(&inputs, plan->shown.inputs, plan->inputs, &plan->shown.input_count);
    show(&outputs, plan->shown.outputs, plan->outputs, &plan->shown.output_count);
    if (plan->shown.output_count == 0) {
        return err_set(err, WEIR_EINVAL,
                       "sequence_batching: every output is a state, nothing is left for clients");
    }
    *out = plan;
    return WEIR_OK;
}

/* A control is one element per row, in as many dimensions as the model likes. */
static enum weir_status check_control(const struct sequence_plan *plan,
                                      const struct plan_control *control, struct weir_err *err)
{
    const struct tensor_spec *spec = &plan->full->inputs[control->input];
    bool fits = !plan->batched || (spec->shape.rank > 0 && spec->shape.dims[0] == -1);
    for (uint32_t d = plan->batched ? 1 : 0; d < spec->shape.rank; d++) {
        fits = fits && (spec->shape.dims[d] == 1 || spec->shape.dims[d] == -1);
    }
    if (fits) {
        return WEIR_OK;
    }
    char shape[SHAPE_TEXT];
    return err_set(err, WEIR_EINVAL,
                   "sequence_batching: control_input '%s' has shape %s, expected one element%s",
                   spec->name, shape_format(&spec->shape, shape),
                   plan->batched ? " per row of the batch" : "");
}

/* The shape of an initial state: with one row where there are rows. */
static struct shape initial_shape(const struct sequence_plan *plan,
                                  const struct sequence_state *from, const struct tensor_spec *spec)
{
    const uint32_t skip = plan->batched ? 1 : 0;
    struct shape shape = { 0 };
    struct shape dims = from->has_initial_dims ? from->initial_dims : from->dims;
    if (!from->has_initial_dims && dims.rank == 0 && spec->shape.rank > skip) {
        dims.rank = spec->shape.rank - skip;
        memcpy(dims.dims, spec->shape.dims + skip, dims.rank * sizeof(dims.dims[0]));
    }
    if (plan->batched) {
        shape.dims[shape.rank++] = 1;
    }
    for (uint32_t i = 0; i < dims.rank && shape.rank < TENSOR_RANK_MAX; i++) {
        const bool open = dims.dims[i] < 0;
        const bool fixed = open && i + skip < spec->shape.rank && spec->shape.dims[i + skip] > 0;
        shape.dims[shape.rank++] = !open ? dims.dims[i] : fixed ? spec->shape.dims[i + skip] : 1;
    }
    return shape;
}

static enum weir_status read_initial(struct arena *arena, int model_fd, const char *file,
                                     struct tensor *tensor, struct weir_err *err)
{
    char path[PATH_BYTES];
    const int length = snprintf(path, sizeof(path), "initial_state/%s", file);
    if (length < 0 || (size_t)length >= sizeof(path)) {
        return err_set(err, WEIR_EINVAL, "the file name is too long");
    }
    struct buffer content = { 0 };
    enum weir_status status = file_read(model_fd, path, tensor->size, &content, err);
    if (status == WEIR_OK && content.size != tensor->size && tensor->dtype != DTYPE_BYTES) {
        status = err_set(err, WEIR_EINVAL, "its file has %zu bytes, expected %zu", content.size,
                         tensor->size);
    }
    if (status == WEIR_OK) {
        tensor->size = content.size;
        tensor->data = arena_try_aligned(arena, content.size + 1, MEM_ALIGN);
        status = tensor->data == NULL ? err_nomem(err, "an initial state", content.size) : WEIR_OK;
    }
    if (status == WEIR_OK && content.size > 0) {
        memcpy(tensor->data, content.data, content.size);
    }
    buffer_finish(&content);
    return status == WEIR_OK && tensor->dtype == DTYPE_BYTES ? tensor_check_strings(tensor, err)
                                                             : status;
}

static enum weir_status make_initial(struct sequence_plan *plan, struct arena *arena, int model_fd,
                                     const struct sequence_state *from, struct plan_state *state,
                                     struct weir_err *err)
{
    const struct tensor_spec *spec = &plan->full->inputs[state->input];
    struct tensor *tensor = &state->initial;
    *tensor = (struct tensor){ .dtype = spec->dtype, .present = true };
    tensor->shape = initial_shape(plan, from, spec);
    char found[SHAPE_TEXT];
    char expected[SHAPE_TEXT];
    if (!spec->any_rank && !shape_fits(&tensor->shape, &spec->shape)) {
        return err_set(err, WEIR_EINVAL, "it begins with shape %s, the model takes %s",
                       shape_format(&tensor->shape, found), shape_format(&spec->shape, expected));
    }
    uint64_t elements;
    const enum weir_status status = shape_elements(&tensor->shape, &elements, err);
    if (status != WEIR_OK) {
        return status;
    }
    const size_t each = spec->dtype == DTYPE_BYTES ? STRING_HEAD : dtype_size(spec->dtype);
    tensor->size = elements * each; /* At most TENSOR_ELEMENTS_MAX of them. */
    if (from->initial_file != NULL) {
        if (spec->dtype == DTYPE_BYTES) {
            tensor->size = (size_t)arena->bytes_max;
        }
        return read_initial(arena, model_fd, from->initial_file, tensor, err);
    }
    tensor->data = arena_try_aligned(arena, tensor->size + 1, MEM_ALIGN);
    if (tensor->data == NULL) {
        return err_nomem(err, "an initial state", tensor->size);
    }
    memset(tensor->data, 0, tensor->size);
    return WEIR_OK;
}

static bool varies(const struct tensor_spec *spec, bool batched)
{
    for (uint32_t d = batched ? 1 : 0; d < spec->shape.rank; d++) {
        if (spec->shape.dims[d] < 0) {
            return true;
        }
    }
    return spec->any_rank;
}

enum weir_status sequence_plan_complete(struct sequence_plan *plan,
                                        const struct model_config *config, int model_fd,
                                        struct weir_err *err)
{
    plan->batched = config->max_batch_size > 0;
    for (uint32_t i = 0; i < plan->control_count; i++) {
        const enum weir_status status = check_control(plan, &plan->controls[i], err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    for (uint32_t i = 0; i < plan->state_count; i++) {
        struct plan_state *state = &plan->states[i];
        const enum weir_status status =
            make_initial(plan, config->arena, model_fd, &config->sequence.states[i], state, err);
        if (status != WEIR_OK) {
            (void)err_prefix(err, "sequence_batching: state '%s'", state->name);
            return status;
        }
        plan->states_vary =
            plan->states_vary || varies(&plan->full->inputs[state->input], plan->batched);
    }
    return WEIR_OK;
}

static uint64_t id_max(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_INT32:
        return INT32_MAX;
    case DTYPE_UINT32:
        return UINT32_MAX;
    case DTYPE_INT64:
        return INT64_MAX;
    default:
        return UINT64_MAX;
    }
}

enum weir_status sequence_plan_check_id(const struct sequence_plan *plan,
                                        const struct sequence_id *id, struct weir_err *err)
{
    for (uint32_t i = 0; i < plan->control_count; i++) {
        const struct plan_control *control = &plan->controls[i];
        if (control->kind != SEQUENCE_CORRID || control->dtype == DTYPE_BYTES) {
            continue;
        }
        if (id->text.size > 0) {
            return err_set(err, WEIR_EINVAL,
                           "sequence_id '%.*s' is a text, the model takes %s numbers",
                           (int)id->text.size, id->text.data, dtype_text(control->dtype));
        }
        if (id->number > id_max(control->dtype)) {
            return err_set(err, WEIR_EINVAL,
                           "sequence_id %" PRIu64 " is above %" PRIu64
                           ", the largest %s that the model takes",
                           id->number, id_max(control->dtype), dtype_text(control->dtype));
        }
    }
    return WEIR_OK;
}

const struct tensor *sequence_plan_state(const struct sequence_plan *plan,
                                         const struct plan_row *row, uint32_t state)
{
    if (!row->ready) {
        return NULL;
    }
    return row->states != NULL ? &row->states[state] : &plan->states[state].initial;
}

/* One row's id as a BYTES element. */
static size_t format_id(const struct plan_row *row, char *out)
{
    uint32_t size = (uint32_t)row->id.text.size;
    if (!row->ready) {
        size = 0;
    } else if (size > 0) {
        memcpy(out + STRING_HEAD, row->id.text.data, size);
    } else {
        size = (uint32_t)snprintf(out + STRING_HEAD, SEQUENCE_ID_BYTES_MAX, "%" PRIu64,
                                  row->id.number);
    }
    memcpy(out, &size, STRING_HEAD);
    return STRING_HEAD + size;
}

static size_t control_value(const struct plan_control *control, const struct plan_row *row,
                            void *out)
{
    const size_t each = dtype_size(control->dtype);
    const uint64_t number = row->ready ? row->id.number : 0;
    bool on = false;
    switch (control->kind) {
    case SEQUENCE_CORRID:
        if (control->dtype == DTYPE_BYTES) {
            return format_id(row, out);
        }
        memcpy(out, &number, each); /* Little-endian, and checked to fit. */
        return each;
    case SEQUENCE_START:
        on = row->start;
        break;
    case SEQUENCE_END:
        on = row->end;
        break;
    case SEQUENCE_READY:
        on = row->ready;
        break;
    }
    memcpy(out, on && row->ready ? control->on : control->off, each);
    return each;
}

static struct shape control_shape(const struct sequence_plan *plan,
                                  const struct plan_control *control, uint32_t count)
{
    struct shape shape = plan->full->inputs[control->input].shape;
    for (uint32_t d = 0; d < shape.rank; d++) {
        shape.dims[d] = d == 0 && plan->batched ? count : 1;
    }
    return shape;
}

/* The rows of a run, whose inputs are made in `blocks`. */
struct fill {
    const struct sequence_plan *plan;
    const struct plan_row *rows;
    uint32_t count;
    struct block_pool *blocks;
};

static enum weir_status fill_control(const struct fill *fill, const struct plan_control *control,
                                     struct tensor *input, struct weir_err *err)
{
    const uint32_t count = fill->count;
    const size_t most = control->dtype == DTYPE_BYTES ? STRING_HEAD + (size_t)SEQUENCE_ID_BYTES_MAX
                                                      : dtype_size(control->dtype);
    struct block *block = block_pool_take(fill->blocks, count * most);
    if (block == NULL) {
        return err_nomem(err, "a control tensor", count * most);
    }
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        size += control_value(control, &fill->rows[i], block->data + size);
    }
    *input = (struct tensor){ .dtype = control->dtype,
                              .shape = control_shape(fill->plan, control, count),
                              .data = block->data,
                              .size = size,
                              .present = true,
                              .block = block };
    return WEIR_OK;
}

static size_t hole_bytes(const struct tensor *like)
{
    if (like->dtype != DTYPE_BYTES) {
        return like->size;
    }
    size_t elements = 1;
    for (uint32_t d = 0; d < like->shape.rank; d++) {
        elements *= (size_t)like->shape.dims[d]; /* One row of a tensor that exists: it fits. */
    }
    return elements * STRING_HEAD;
}

static enum weir_status fill_state(const struct fill *fill, uint32_t index, struct tensor *input,
                                   struct weir_err *err)
{
    const uint32_t count = fill->count;
    const struct tensor *like = NULL;
    size_t size = 0;
    for (uint32_t i = 0; i < count && like == NULL; i++) {
        like = sequence_plan_state(fill->plan, &fill->rows[i], index);
    }
    if (count == 1) {
        *input = *like;
        input->block = NULL; /* Borrowed. */
        return WEIR_OK;
    }
    const size_t hole = hole_bytes(like);
    for (uint32_t i = 0; i < count; i++) {
        const struct tensor *state = sequence_plan_state(fill->plan, &fill->rows[i], index);
        size += state != NULL ? state->size : hole; /* Bounded by the sequences' bytes. */
    }
    struct block *block = block_pool_take(fill->blocks, size + 1);
    if (block == NULL) {
        return err_nomem(err, "the states of a batch", size);
    }
    *input = *like;
    input->shape.dims[0] = count;
    input->data = block->data;
    input->size = size;
    input->block = block;
    uint8_t *at = block->data;
    for (uint32_t i = 0; i < count; i++) {
        const struct tensor *state = sequence_plan_state(fill->plan, &fill->rows[i], index);
        if (state != NULL && state->size > 0) {
            memcpy(at, state->data, state->size);
        } else if (state == NULL) {
            memset(at, 0, hole);
        }
        at += state != NULL ? state->size : hole;
    }
    return WEIR_OK;
}

enum weir_status sequence_plan_fill(const struct sequence_plan *plan, const struct plan_row *rows,
                                    uint32_t count, struct block_pool *blocks,
                                    struct tensor *inputs, struct weir_err *err)
{
    const struct fill fill = { plan, rows, count, blocks };
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < plan->control_count && status == WEIR_OK; i++) {
        const struct plan_control *control = &plan->controls[i];
        status = fill_control(&fill, control, &inputs[control->input], err);
    }
    for (uint32_t i = 0; i < plan->state_count && status == WEIR_OK; i++) {
        status = fill_state(&fill, i, &inputs[plan->states[i].input], err);
    }
    return status;
}
