/*
 * Which dimensions belong together is told by their symbolic names in the model
 * file: who pads the tokens has to pad the mask as well, and gets an output as long
 * as what was padded.
 */
#include "engine/bucket.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/model.h"
#include "util/map.h"
#include "util/mem.h"

#define NAMES_BYTES 256

/* ---- Plans ----------------------------------------------------------------------------------- */

static bool same_symbol(const char *a, const char *b)
{
    return a != NULL && b != NULL && strcmp(a, b) == 0;
}

static int find_group(const struct bucket_plan *plan, const char *symbol)
{
    for (uint32_t i = 0; i < plan->group_count; i++) {
        if (same_symbol(plan->groups[i].symbol, symbol)) {
            return (int)i;
        }
    }
    return -1;
}

static int find_input(const struct signature *signature, const char *name)
{
    for (uint32_t i = 0; i < signature->input_count; i++) {
        if (strcmp(signature->inputs[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static enum weir_status check_dimension(const struct bucket_config *bucket,
                                        const struct tensor_spec *spec, struct weir_err *err)
{
    char shape[SHAPE_TEXT];
    if (spec->dtype == DTYPE_BYTES) {
        return err_set(err, WEIR_EINVAL, "shape_buckets: input '%s' holds texts, expected numbers",
                       spec->name);
    }
    if (spec->any_rank || bucket->dim < 1 || bucket->dim >= spec->shape.rank) {
        return err_set(err, WEIR_EINVAL,
                       "shape_buckets: found dim %" PRIu32 " of input '%s', expected one of its "
                       "shape %s behind the first, which is the batch",
                       bucket->dim, spec->name,
                       spec->any_rank ? "of any rank" : shape_format(&spec->shape, shape));
    }
    if (spec->shape.dims[bucket->dim] != -1) {
        return err_set(err, WEIR_EINVAL,
                       "shape_buckets: dim %" PRIu32 " of input '%s' is fixed in its shape %s, "
                       "expected a variable one",
                       bucket->dim, spec->name, shape_format(&spec->shape, shape));
    }
    return WEIR_OK;
}

/* The value as an element of that type. */
static void store_pad(enum dtype dtype, double value, uint8_t out[8])
{
    const float single = (float)value;
    const int64_t whole = (int64_t)value; /* Little-endian, as tensors are. */
    const uint16_t fp16 = tensor_float_to_fp16(single);
    const uint16_t bf16 = tensor_float_to_bf16(single);
    const void *from = dtype == DTYPE_FP32   ? (const void *)&single
                       : dtype == DTYPE_FP64 ? (const void *)&value
                       : dtype == DTYPE_FP16 ? (const void *)&fp16
                       : dtype == DTYPE_BF16 ? (const void *)&bf16
                                             : (const void *)&whole;
    memcpy(out, from, dtype_size(dtype));
}

/* "ids, mask": as many as fit. */
static const char *input_names(const struct signature *signature, char out[NAMES_BYTES])
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < signature->input_count && used < NAMES_BYTES; i++) {
        used += (size_t)snprintf(out + used, NAMES_BYTES - used, "%s%s", i == 0 ? "" : ", ",
                                 signature->inputs[i].name);
    }
    return out;
}

static enum weir_status add_bucket(struct bucket_plan *plan, const struct bucket_config *bucket,
                                   struct weir_err *err)
{
    const int index = find_input(plan->signature, bucket->input);
    if (index < 0) {
        char names[NAMES_BYTES];
        return err_set(err, WEIR_EINVAL,
                       "shape_buckets: the model has no input '%s', expected one of: %s",
                       bucket->input, input_names(plan->signature, names));
    }
    const struct tensor_spec *spec = &plan->signature->inputs[index];
    const enum weir_status status = check_dimension(bucket, spec, err);
    if (status != WEIR_OK) {
        return status;
    }
    const char *symbol = spec->dim_names[bucket->dim];
    int group = find_group(plan, symbol);
    if ((group < 0) != (bucket->size_count > 0)) {
        return err_set(err, WEIR_EINVAL,
                       "shape_buckets: dim %" PRIu32 " of input '%s': found sizes %s, expected "
                       "them once for each symbolic dimension",
                       bucket->dim, spec->name, group < 0 ? "nowhere" : "again");
    }
    if (group < 0) {
        group = (int)plan->group_count++;
        plan->groups[group] = (struct bucket_group){ symbol, bucket->sizes, bucket->size_count };
    }
    struct bucket_tensor *tensor = &plan->inputs[index];
    tensor->group[bucket->dim] = (uint8_t)(group + 1);
    store_pad(spec->dtype, bucket->pad, tensor->pad);
    return WEIR_OK;
}

/* Names the tensors, and finds the other dimensions of the groups' names. */
static enum weir_status complete(const struct bucket_plan *plan, const struct tensor_spec *specs,
                                 uint32_t count, struct bucket_tensor *tensors,
                                 struct weir_err *err)
{
    for (uint32_t i = 0; i < count; i++) {
        tensors[i].name = specs[i].name;
        for (uint32_t d = 1; d < specs[i].shape.rank; d++) {
            const int group = find_group(plan, specs[i].dim_names[d]);
            if (group >= 0 && specs[i].shape.dims[d] == -1) {
                tensors[i].group[d] = (uint8_t)(group + 1);
            }
            tensors[i].any = tensors[i].any || tensors[i].group[d] > 0;
        }
        if (tensors[i].any && specs[i].dtype == DTYPE_BYTES) {
            return err_set(err, WEIR_EINVAL,
                           "shape_buckets: '%s' holds texts and has a dimension of buckets, "
                           "expected numbers",
                           specs[i].name);
        }
    }
    return WEIR_OK;
}

/* A length without a name may be that of an output whose dimension has none either. */
static enum weir_status check_nameless(const struct bucket_plan *plan, struct weir_err *err)
{
    bool nameless = false;
    for (uint32_t i = 0; i < plan->group_count; i++) {
        nameless = nameless || plan->groups[i].symbol == NULL;
    }
    for (uint32_t i = 0; i < plan->signature->output_count && nameless; i++) {
        const struct tensor_spec *spec = &plan->signature->outputs[i];
        for (uint32_t d = 1; d < spec->shape.rank; d++) {
            if (spec->shape.dims[d] == -1 && spec->dim_names[d] == NULL) {
                return err_set(err, WEIR_EINVAL,
                               "shape_buckets: dimensions of the model have no symbolic names, so "
                               "nothing tells whether output '%s' has to be cut back",
                               spec->name);
            }
        }
    }
    return WEIR_OK;
}

static enum weir_status check_model(const struct model_config *config, const char *no_batch,
                                    struct weir_err *err)
{
    if (config->sequence.strategy != SEQUENCE_NONE) {
        return err_set(err, WEIR_EINVAL,
                       "found both shape_buckets and sequence_batching, expected one of them");
    }
    if (config->max_batch_size <= 0) {
        return err_set(err, WEIR_EINVAL,
                       "shape_buckets: expected a model with a batch dimension, but %s",
                       no_batch != NULL ? no_batch : "max_batch_size is 0");
    }
    return WEIR_OK;
}

enum weir_status bucket_plan_create(const struct model_config *config,
                                    const struct signature *signature, const char *no_batch,
                                    struct bucket_plan **out, struct weir_err *err)
{
    *out = NULL;
    if (config->bucket_count == 0) {
        return WEIR_OK;
    }
    enum weir_status status = check_model(config, no_batch, err);
    if (status != WEIR_OK) {
        return status;
    }
    const uint32_t tensors = signature->input_count + signature->output_count;
    struct bucket_plan *plan = mem_try_zero(1, sizeof(*plan));
    struct bucket_tensor *memory = mem_try_zero(tensors, sizeof(*memory));
    if (plan == NULL || memory == NULL) {
        mem_free(plan);
        mem_free(memory);
        return err_nomem(err, "shape buckets", tensors * sizeof(*memory));
    }
    plan->signature = signature;
    plan->inputs = memory;
    plan->outputs = memory + signature->input_count;
    for (uint32_t i = 0; i < config->bucket_count && status == WEIR_OK; i++) {
        status = add_bucket(plan, &config->buckets[i], err);
    }
    if (status == WEIR_OK) {
        status = complete(plan, signature->inputs, signature->input_count, plan->inputs, err);
    }
    if (status == WEIR_OK) {
        status = complete(plan, signature->outputs, signature->output_count, plan->outputs, err);
    }
    status = status == WEIR_OK ? check_nameless(plan, err) : status;
    if (status != WEIR_OK) {
        bucket_plan_destroy(plan);
        return status;
    }
    *out = plan;
    return WEIR_OK;
}

void bucket_plan_destroy(struct bucket_plan *plan)
{
    if (plan != NULL) {
        mem_free(plan->inputs);
        mem_free(plan);
    }
}

/* ---- Lengths and keys ------------------------------------------------------------------------ */

static int64_t next_size(const struct bucket_group *group, int64_t length)
{
    for (uint32_t i = 0; i < group->size_count; i++) {
        if (group->sizes[i] >= length) {
            return group->sizes[i];
        }
    }
    return length;
}

/* An input's share of the lengths; false when they differ from those found before. */
static bool note_lengths(const struct bucket_tensor *tensor, const struct shape *shape,
                         int64_t *own)
{
    for (uint32_t d = 1; d < shape->rank; d++) {
        if (tensor->group[d] == 0) {
            continue;
        }
        int64_t *length = &own[tensor->group[d] - 1];
        if (*length >= 0 && *length != shape->dims[d]) {
            return false;
        }
        *length = shape->dims[d];
    }
    return true;
}

bool bucket_lengths(const struct bucket_plan *plan, const struct tensor *inputs,
                    struct bucket_lengths *out)
{
    for (uint32_t i = 0; i < plan->group_count; i++) {
        out->own[i] = -1;
    }
    for (uint32_t i = 0; i < plan->signature->input_count; i++) {
        if (plan->inputs[i].any && inputs[i].present &&
            !note_lengths(&plan->inputs[i], &inputs[i].shape, out->own)) {
            return false;
        }
    }
    out->padded = false;
    for (uint32_t i = 0; i < plan->group_count; i++) {
        out->to[i] = out->own[i] < 0 ? -1 : next_size(&plan->groups[i], out->own[i]);
        out->padded = out->padded || out->to[i] != out->own[i];
    }
    return true;
}

struct shape bucket_shape(const struct bucket_tensor *tensor, const struct shape *shape,
                          const int64_t *lengths)
{
    struct shape out = *shape;
    for (uint32_t d = 1; d < shape->rank; d++) {
        if (tensor->group[d] > 0 && lengths[tensor->group[d] - 1] >= 0) {
            out.dims[d] = lengths[tensor->group[d] - 1];
        }
    }
    return out;
}

bool bucket_cuts(const struct bucket_tensor *tensor, const struct bucket_lengths *lengths)
{
    for (uint32_t d = 1; tensor->any && d < TENSOR_RANK_MAX; d++) {
        const uint32_t group = tensor->group[d];
        if (group > 0 && lengths->own[group - 1] != lengths->to[group - 1]) {
            return true;
        }
    }
    return false;
}

bool bucket_rows_fixed(const struct signature *signature)
{
    for (uint32_t i = 0; i < signature->input_count; i++) {
        const struct tensor_spec *spec = &signature->inputs[i];
        if (spec->optional || spec->any_rank) {
            return false;
        }
        for (uint32_t d = 1; d < spec->shape.rank; d++) {
            if (spec->shape.dims[d] < 0) {
                return false;
            }
        }
    }
    return true;
}

/* The shape that the input has in a run. */
static struct shape run_shape(const struct model *model, const struct bucket_lengths *lengths,
                              uint32_t index, const struct shape *shape)
{
    return lengths == NULL ? *shape
                           : bucket_shape(&model->buckets->inputs[index], shape, lengths->to);
}

uint64_t bucket_rows(const struct signature *signature, const struct tensor *inputs)
{
    int64_t rows = 0;
    for (uint32_t i = 0; i < signature->input_count; i++) {
        if (!inputs[i].present) {
            continue;
        }
        const int64_t leading = inputs[i].shape.rank > 0 ? inputs[i].shape.dims[0] : 0;
        if (leading <= 0 || (rows > 0 && leading != rows)) {
            return 0;
        }
        rows = leading;
    }
    return (uint64_t)rows;
}

uint64_t bucket_key(const struct model *model, const struct tensor *inputs)
{
    if (model->rows_fixed) {
        return 0;
    }
    struct bucket_lengths space;
    const struct bucket_lengths *lengths =
        model->buckets != NULL && bucket_lengths(model->buckets, inputs, &space) ? &space : NULL;
    int64_t words[2 + TENSOR_RANK_MAX];
    uint64_t key = 0;
    for (uint32_t i = 0; i < model->signature->input_count; i++) {
        const struct shape shape = run_shape(model, lengths, i, &inputs[i].shape);
        uint32_t count = 0;
        words[count++] = (int64_t)key;
        words[count++] = inputs[i].present ? (int64_t)shape.rank : -1;
        for (uint32_t d = 1; inputs[i].present && d < shape.rank; d++) {
            words[count++] = shape.dims[d];
        }
        key = map_hash(words, count * sizeof(*words));
    }
    return key;
}

void bucket_describe(const struct model *model, const struct tensor *inputs,
                     struct profile_dims *out)
{
    *out = (struct profile_dims){ .known = true };
    struct bucket_lengths space;
    const struct bucket_lengths *lengths =
        model->buckets != NULL && bucket_lengths(model->buckets, inputs, &space) ? &space : NULL;
    for (uint32_t i = 0; i < model->signature->input_count && !model->rows_fixed; i++) {
        const struct tensor_spec *spec = &model->signature->inputs[i];
        const struct shape shape = run_shape(model, lengths, i, &inputs[i].shape);
        if (spec->any_rank || !inputs[i].present) {
            out->count = PROFILE_DIMS_NONE;
            return;
        }
        for (uint32_t d = 1; d < spec->shape.rank; d++) {
            if (spec->shape.dims[d] != -1) {
                continue;
            }
            if (out->count == PROFILE_DIMS_MAX) {
                out->count = PROFILE_DIMS_NONE;
                return;
            }
            out->dims[out->count++] = shape.dims[d];
        }
    }
}

/* The inputs that have those dimensions; one row each. */
static bool rebuild(const struct model *model, const struct profile_dims *dims,
                    struct tensor *inputs)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < model->signature->input_count; i++) {
        const struct tensor_spec *spec = &model->signature->inputs[i];
        if (spec->any_rank) {
            return false;
        }
        inputs[i] = (struct tensor){ .dtype = spec->dtype, .shape = spec->shape, .present = true };
        if (spec->shape.rank > 0) {
            inputs[i].shape.dims[0] = 1;
        }
        for (uint32_t d = 1; d < spec->shape.rank; d++) {
            if (spec->shape.dims[d] != -1) {
                continue;
            }
            if (used == dims->count || dims->dims[used] < 0) {
                return false;
            }
            inputs[i].shape.dims[d] = dims->dims[used++];
        }
    }
    return used == dims->count;
}

bool bucket_key_of(const struct model *model, const struct profile_dims *dims, uint64_t *out)
{
    if (model->rows_fixed) {
        *out = 0;
        return dims->count == 0;
    }
    struct tensor *inputs = mem_try_zero(model->signature->input_count, sizeof(*inputs));
    const bool fits =
        inputs != NULL && dims->count <= PROFILE_DIMS_MAX && rebuild(model, dims, inputs);
    if (fits) {
        *out = bucket_key(model, inputs);
    }
    mem_free(inputs);
    return fits;
}

/* ---- Padding and cutting --------------------------------------------------------------------- */

/* Two tensors with elements of the same size. */
struct box {
    const uint8_t *from;
    uint8_t *to;
    const struct shape *from_shape;
    const struct shape *to_shape;
    uint32_t last;     /* The last dimension in which they differ. */
    size_t each_bytes; /* Of one step in it. */
};

static size_t smaller(int64_t a, int64_t b)
{
    return (size_t)(a < b ? a : b);
}

/* Copies what both have, from dimension `d` on; returns by how much each moves on.  Depth: the
 * rank. */
static void copy_box(const struct box *box, uint32_t d, const uint8_t *from, uint8_t *to,
                     size_t from_bytes, size_t to_bytes)
{
    const int64_t from_count = box->from_shape->dims[d];
    const int64_t to_count = box->to_shape->dims[d];
    const size_t count = smaller(from_count, to_count);
    if (d == box->last) {
        memcpy(to, from, count * box->each_bytes);
        return;
    }
    const size_t from_step = from_count == 0 ? 0 : from_bytes / (size_t)from_count;
    const size_t to_step = to_count == 0 ? 0 : to_bytes / (size_t)to_count;
    for (size_t i = 0; i < count; i++) {
        copy_box(box, d + 1, from + i * from_step, to + i * to_step, from_step, to_step);
    }
}

static void copy_common(const struct tensor *from, const struct tensor *to)
{
    struct box box = { .from_shape = &from->shape, .to_shape = &to->shape };
    box.each_bytes = dtype_size(from->dtype);
    box.last = from->shape.rank - 1;
    while (box.last > 0 && from->shape.dims[box.last] == to->shape.dims[box.last]) {
        box.each_bytes *= (size_t)from->shape.dims[box.last];
        box.last--;
    }
    if (from->size > 0 && to->size > 0) {
        copy_box(&box, 0, from->data, to->data, from->size, to->size);
    }
}

static void fill(uint8_t *out, size_t size, const uint8_t *element, size_t element_bytes)
{
    static const uint8_t zeros[8];
    if (memcmp(element, zeros, element_bytes) == 0) {
        memset(out, 0, size);
        return;
    }
    for (size_t at = 0; at < size; at += element_bytes) {
        memcpy(out + at, element, element_bytes);
    }
}

static size_t bytes_of_shape(const struct shape *shape, size_t element_bytes)
{
    size_t size = element_bytes;
    for (uint32_t d = 0; d < shape->rank; d++) {
        size *= (size_t)shape->dims[d]; /* Memory of that size is there. */
    }
    return size;
}

void bucket_pad(const struct bucket_tensor *tensor, const struct tensor *from,
                const struct shape *to, uint8_t *out)
{
    const size_t each = dtype_size(from->dtype);
    const struct tensor padded = { .shape = *to, .data = out, .size = bytes_of_shape(to, each) };
    fill(out, padded.size, tensor->pad, each);
    copy_common(from, &padded);
}

enum weir_status bucket_cut(const struct bucket_tensor *tensor,
                            const struct bucket_lengths *lengths, const struct tensor *from,
                            struct block_pool *blocks, struct tensor *out, struct weir_err *err)
{
    const struct shape expected = bucket_shape(tensor, &from->shape, lengths->to);
    if (!shape_equal(&expected, &from->shape)) {
        char found[SHAPE_TEXT];
        char wanted[SHAPE_TEXT];
        return err_set(
            err, WEIR_EBACKEND, "output '%s' has shape %s where its input was padded, expected %s",
            tensor->name, shape_format(&from->shape, found), shape_format(&expected, wanted));
    }
    struct tensor cut = *from;
    cut.shape = bucket_shape(tensor, &from->shape, lengths->own);
    cut.size = bytes_of_shape(&cut.shape, dtype_size(from->dtype));
    cut.block = block_pool_take(blocks, cut.size == 0 ? 1 : cut.size);
    if (cut.block == NULL) {
        return err_nomem(err, "an output cut to its length", cut.size);
    }
    cut.data = cut.block->data;
    copy_common(from, &cut);
    *out = cut;
    return WEIR_OK;
}
