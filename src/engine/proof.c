/*
 * Content and sizes are guesses: a model may refuse an index of 1 or a picture
 * of 8 by 8.  A trial that fails says nothing, so the next guess is tried; the
 * first one that runs decides.
 */
#include "engine/proof.h"

#include <math.h>
#include <string.h>

#include "util/err.h"

#define SEED_FIRST UINT64_C(1)
#define SEED_SECOND UINT64_C(1000003)

/* The three runs of one trial. */
struct trial {
    struct probe_run first;
    struct probe_run second;
    struct probe_run both;
};

static bool close_enough(double a, double b, double rtol, double atol)
{
    if (isnan(a) || isnan(b)) {
        return isnan(a) && isnan(b);
    }
    return a == b || fabs(a - b) <= atol + rtol * fabs(b);
}

static double read_float(enum dtype dtype, const uint8_t *at)
{
    uint16_t half;
    float single;
    double value;
    switch (dtype) {
    case DTYPE_FP16:
        memcpy(&half, at, sizeof(half));
        return (double)tensor_fp16_to_float(half);
    case DTYPE_BF16:
        memcpy(&half, at, sizeof(half));
        return (double)tensor_bf16_to_float(half);
    case DTYPE_FP32:
        memcpy(&single, at, sizeof(single));
        return (double)single;
    default:
        memcpy(&value, at, sizeof(value));
        return value;
    }
}

bool proof_close(enum dtype dtype, const uint8_t *a, const uint8_t *b, size_t size)
{
    const bool half = dtype == DTYPE_FP16 || dtype == DTYPE_BF16;
    if (!half && dtype != DTYPE_FP32 && dtype != DTYPE_FP64) {
        return size == 0 || memcmp(a, b, size) == 0;
    }
    const size_t each = dtype_size(dtype);
    for (size_t at = 0; at < size; at += each) {
        if (!close_enough(read_float(dtype, a + at), read_float(dtype, b + at), half ? 1e-2 : 1e-4,
                          half ? 1e-3 : 1e-5)) {
            return false;
        }
    }
    return true;
}

/* Joins the inputs of two runs of one row each. */
static enum weir_status join_inputs(const struct probe *probe, struct trial *trial,
                                    struct weir_err *err)
{
    for (uint32_t i = 0; i < probe->signature->input_count; i++) {
        const struct tensor *first = &trial->first.inputs[i];
        const struct tensor *second = &trial->second.inputs[i];
        if (!first->present) {
            continue;
        }
        struct tensor *both = &trial->both.inputs[i];
        *both = *first;
        both->shape.dims[0] = 2;
        both->size = first->size + second->size;
        both->block = block_pool_take(probe->blocks, both->size == 0 ? 1 : both->size);
        if (both->block == NULL) {
            *both = (struct tensor){ 0 };
            return err_nomem(err, "a trial input", first->size + second->size);
        }
        both->data = both->block->data;
        memcpy(both->data, first->data, first->size);
        memcpy(both->data + first->size, second->data, second->size);
    }
    return WEIR_OK;
}

/* True when `tensor` is `rows` rows of the shape that `other` has a row of. */
static bool rows_are(const struct tensor *tensor, int64_t rows, const struct tensor *other)
{
    struct shape expected = other->shape;
    if (expected.rank == 0) {
        return false;
    }
    expected.dims[0] = rows;
    return shape_equal(&tensor->shape, &expected);
}

static enum weir_status compare_output(const struct tensor_spec *spec, const struct tensor *first,
                                       const struct tensor *second, const struct tensor *both,
                                       struct weir_err *why)
{
    char together[SHAPE_TEXT];
    char alone[SHAPE_TEXT];
    if (!first->present || !second->present || !both->present) {
        return err_set(why, WEIR_ECONFLICT, "output '%s' is sometimes missing", spec->name);
    }
    if (!rows_are(both, 2, first) || !rows_are(first, 1, both) || !rows_are(second, 1, both)) {
        return err_set(why, WEIR_ECONFLICT,
                       "output '%s' has not one row per row: shape %s for two rows, %s for one",
                       spec->name, shape_format(&both->shape, together),
                       shape_format(&first->shape, alone));
    }
    if (both->size != first->size + second->size ||
        !proof_close(spec->dtype, both->data, first->data, first->size) ||
        !proof_close(spec->dtype, both->data + first->size, second->data, second->size)) {
        return err_set(why, WEIR_ECONFLICT,
                       "rows are not independent: output '%s' of a row changes with the other rows",
                       spec->name);
    }
    return WEIR_OK;
}

static enum weir_status run_trial(const struct probe *probe, struct trial *trial, int64_t size,
                                  enum probe_fill fill, struct weir_err *err)
{
    enum weir_status status = probe_inputs(probe, &trial->first, 1, size, fill, SEED_FIRST, err);
    if (status == WEIR_OK) {
        status = probe_inputs(probe, &trial->second, 1, size, fill, SEED_SECOND, err);
    }
    if (status == WEIR_OK) {
        status = join_inputs(probe, trial, err);
    }
    status = status == WEIR_OK ? probe_go(probe, &trial->first, 1, err) : status;
    status = status == WEIR_OK ? probe_go(probe, &trial->second, 1, err) : status;
    return status == WEIR_OK ? probe_go(probe, &trial->both, 2, err) : status;
}

static enum weir_status compare(const struct probe *probe, const struct trial *trial,
                                struct weir_err *why)
{
    for (uint32_t i = 0; i < probe->signature->output_count; i++) {
        const enum weir_status status =
            compare_output(&probe->signature->outputs[i], &trial->first.outputs[i],
                           &trial->second.outputs[i], &trial->both.outputs[i], why);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

/* One guess: *decided when it ran to its end. */
static enum weir_status try_guess(const struct probe *probe, int64_t size, enum probe_fill fill,
                                  bool *decided, struct weir_err *why)
{
    struct trial trial = { 0 };
    enum weir_status status = probe_run_init(probe, &trial.first, why);
    status = status == WEIR_OK ? probe_run_init(probe, &trial.second, why) : status;
    status = status == WEIR_OK ? probe_run_init(probe, &trial.both, why) : status;
    status = status == WEIR_OK ? run_trial(probe, &trial, size, fill, why) : status;
    if (status == WEIR_OK) {
        *decided = true;
        status = compare(probe, &trial, why);
    }
    probe_run_finish(probe, &trial.first);
    probe_run_finish(probe, &trial.second);
    probe_run_finish(probe, &trial.both);
    return status;
}

enum weir_status proof_rows(const struct probe *probe, struct weir_err *why)
{
    static const int64_t sizes[PROBE_SIZE_COUNT] = PROBE_SIZES;
    const uint32_t size_count = probe_has_sizes(probe) ? PROBE_SIZE_COUNT : 1;
    enum weir_status first_status = WEIR_OK;
    for (uint32_t i = 0; i < size_count; i++) {
        for (enum probe_fill fill = PROBE_LOW; fill <= PROBE_HIGH; fill++) {
            struct weir_err err = { 0 };
            bool decided = false;
            const enum weir_status status = try_guess(probe, sizes[i], fill, &decided, &err);
            if (decided) {
                *why = err;
                return status;
            }
            if (first_status == WEIR_OK) {
                first_status = status;
                *why = err;
            }
        }
    }
    (void)err_prefix(why, "could not be proved");
    return first_status;
}

/* ---- Padding --------------------------------------------------------------------------------- */

/* A length below some size, so that there is something to pad. */
static int64_t short_length(const struct bucket_plan *plan)
{
    for (uint32_t i = 0; i < plan->groups[0].size_count; i++) {
        if (plan->groups[0].sizes[i] > 1) {
            return (int64_t)plan->groups[0].sizes[i] - 1;
        }
    }
    return 1;
}

static enum weir_status pad_inputs(const struct probe *probe, const struct bucket_plan *plan,
                                   const struct bucket_lengths *lengths,
                                   const struct probe_run *from, struct probe_run *to,
                                   struct weir_err *err)
{
    for (uint32_t i = 0; i < probe->signature->input_count; i++) {
        const struct tensor *own = &from->inputs[i];
        struct tensor padded = *own;
        if (!own->present) {
            continue;
        }
        padded.shape = bucket_shape(&plan->inputs[i], &own->shape, lengths->to);
        if (own->dtype != DTYPE_BYTES) {
            const enum weir_status status =
                tensor_bytes(own->dtype, &padded.shape, &padded.size, err);
            if (status != WEIR_OK) {
                return status;
            }
        }
        padded.block = block_pool_take(probe->blocks, padded.size == 0 ? 1 : padded.size);
        if (padded.block == NULL) {
            return err_nomem(err, "a trial input", padded.size);
        }
        padded.data = padded.block->data;
        if (plan->inputs[i].any) {
            bucket_pad(&plan->inputs[i], own, &padded.shape, padded.data);
        } else {
            memcpy(padded.data, own->data, own->size);
        }
        to->inputs[i] = padded;
    }
    return WEIR_OK;
}

static enum weir_status compare_padded(const struct probe *probe, const struct bucket_plan *plan,
                                       uint32_t index, const struct bucket_lengths *lengths,
                                       const struct tensor *own, const struct tensor *padded,
                                       struct weir_err *why)
{
    const char *name = probe->signature->outputs[index].name;
    struct tensor cut = { 0 };
    const struct tensor *found = padded;
    if (own->present != padded->present) {
        return err_set(why, WEIR_ECONFLICT, "output '%s' is sometimes missing", name);
    }
    if (own->present && bucket_cuts(&plan->outputs[index], lengths)) {
        const enum weir_status status =
            bucket_cut(&plan->outputs[index], lengths, padded, probe->blocks, &cut, why);
        if (status != WEIR_OK) {
            return status == WEIR_ENOMEM ? status : WEIR_ECONFLICT;
        }
        found = &cut;
    }
    const bool same =
        !own->present || (shape_equal(&own->shape, &found->shape) && own->size == found->size &&
                          proof_close(own->dtype, found->data, own->data, own->size));
    tensor_release(&cut);
    return same ? WEIR_OK
                : err_set(why, WEIR_ECONFLICT, "padding changes output '%s' of a row", name);
}

/* One guess: *decided when both runs came to their end. */
static enum weir_status try_padding(const struct probe *probe, const struct bucket_plan *plan,
                                    struct trial *trial, enum probe_fill fill, bool *decided,
                                    struct weir_err *why)
{
    struct bucket_lengths lengths;
    enum weir_status status =
        probe_inputs(probe, &trial->first, 1, short_length(plan), fill, SEED_FIRST, why);
    if (status != WEIR_OK) {
        return status;
    }
    if (!bucket_lengths(plan, trial->first.inputs, &lengths)) {
        return err_set(why, WEIR_EINVAL, "lengths contradict each other");
    }
    status = pad_inputs(probe, plan, &lengths, &trial->first, &trial->both, why);
    status = status == WEIR_OK ? probe_go(probe, &trial->first, 1, why) : status;
    status = status == WEIR_OK ? probe_go(probe, &trial->both, 1, why) : status;
    *decided = status == WEIR_OK;
    for (uint32_t i = 0; i < probe->signature->output_count && status == WEIR_OK; i++) {
        status = compare_padded(probe, plan, i, &lengths, &trial->first.outputs[i],
                                &trial->both.outputs[i], why);
    }
    return status;
}

enum weir_status proof_padding(const struct probe *probe, const struct bucket_plan *plan,
                               struct weir_err *why)
{
    enum weir_status status = WEIR_OK;
    bool decided = false;
    for (enum probe_fill fill = PROBE_LOW; fill <= PROBE_HIGH && !decided; fill++) {
        struct trial trial = { 0 };
        status = probe_run_init(probe, &trial.first, why);
        status = status == WEIR_OK ? probe_run_init(probe, &trial.both, why) : status;
        if (status == WEIR_OK) {
            status = try_padding(probe, plan, &trial, fill, &decided, why);
        }
        probe_run_finish(probe, &trial.first);
        probe_run_finish(probe, &trial.both);
    }
    if (!decided) {
        (void)err_prefix(why, "could not be proved");
    }
    return status;
}
