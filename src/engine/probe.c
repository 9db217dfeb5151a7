#include "engine/probe.h"

#include <string.h>

#include "engine/bucket.h"
#include "util/list.h"
#include "util/mem.h"

/* A pseudo-random number per position (splitmix64), so that content does not depend on order. */
static uint64_t mix(uint64_t seed, uint64_t at)
{
    uint64_t x = seed + (at + 1) * UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

enum weir_status probe_run_init(const struct probe *probe, struct probe_run *run,
                                struct weir_err *err)
{
    const struct signature *signature = probe->signature;
    run->inputs = mem_try_zero(signature->input_count, sizeof(*run->inputs));
    run->outputs = mem_try_zero(signature->output_count, sizeof(*run->outputs));
    run->wanted = mem_try_zero(signature->output_count, sizeof(*run->wanted));
    if (run->inputs == NULL || run->outputs == NULL || run->wanted == NULL) {
        probe_run_finish(probe, run);
        return err_nomem(err, "a trial run", sizeof(*run->inputs));
    }
    for (uint32_t i = 0; i < signature->output_count; i++) {
        run->wanted[i] = true;
    }
    return WEIR_OK;
}

static void release_all(struct tensor *tensors, uint32_t count)
{
    for (uint32_t i = 0; tensors != NULL && i < count; i++) {
        tensor_release(&tensors[i]);
    }
}

void probe_run_finish(const struct probe *probe, struct probe_run *run)
{
    release_all(run->inputs, probe->signature->input_count);
    release_all(run->outputs, probe->signature->output_count);
    mem_free(run->inputs);
    mem_free(run->outputs);
    mem_free(run->wanted);
    *run = (struct probe_run){ 0 };
}

struct shape probe_shape(const struct probe *probe, uint32_t index, int64_t rows, int64_t size)
{
    const struct shape *dims = &probe->config->inputs[index].dims;
    struct shape shape = { 0 };
    if (probe->config->max_batch_size > 0) {
        shape.dims[shape.rank++] = rows;
    }
    for (uint32_t i = 0; i < dims->rank; i++) {
        shape.dims[shape.rank++] = dims->dims[i] == -1 ? size : dims->dims[i];
    }
    return shape;
}

bool probe_has_sizes(const struct probe *probe)
{
    for (uint32_t i = 0; i < probe->config->input_count; i++) {
        const struct shape *dims = &probe->config->inputs[i].dims;
        for (uint32_t d = 0; d < dims->rank; d++) {
            if (dims->dims[d] == -1) {
                return true;
            }
        }
    }
    return false;
}

/* Puts the whole number, or for floats the fraction, at position `at`. */
static void store(enum dtype dtype, uint8_t *data, uint64_t at, uint64_t whole, double fraction)
{
    uint8_t *place = data + at * dtype_size(dtype);
    const float single = (float)fraction;
    const uint16_t fp16 = tensor_float_to_fp16(single);
    const uint16_t bf16 = tensor_float_to_bf16(single);
    const uint8_t truth = whole & 1;
    switch (dtype) {
    case DTYPE_BOOL:
        memcpy(place, &truth, sizeof(truth));
        break;
    case DTYPE_FP16:
        memcpy(place, &fp16, sizeof(fp16));
        break;
    case DTYPE_BF16:
        memcpy(place, &bf16, sizeof(bf16));
        break;
    case DTYPE_FP32:
        memcpy(place, &single, sizeof(single));
        break;
    case DTYPE_FP64:
        memcpy(place, &fraction, sizeof(fraction));
        break;
    default:
        memcpy(place, &whole, dtype_size(dtype)); /* Little-endian, as tensors are. */
        break;
    }
}

static void fill_strings(uint8_t *data, uint64_t elements, enum probe_fill fill, uint64_t seed)
{
    static const uint8_t one_byte[4] = { 1, 0, 0, 0 };
    for (uint64_t i = 0; i < elements; i++) {
        const uint64_t whole = (mix(seed, i) & 1) + (fill == PROBE_HIGH ? 1 : 0);
        memcpy(data + i * 5, one_byte, sizeof(one_byte));
        data[i * 5 + 4] = (uint8_t)('0' + (fill == PROBE_ZERO ? 0 : whole));
    }
}

static void fill_numbers(enum dtype dtype, uint8_t *data, uint64_t elements, enum probe_fill fill,
                         uint64_t seed)
{
    for (uint64_t i = 0; i < elements; i++) {
        const uint64_t random = mix(seed, i);
        const double fraction = (double)(random >> 11) * 0x1p-53;
        store(dtype, data, i, (random & 1) + (fill == PROBE_HIGH ? 1 : 0), fraction);
    }
}

enum weir_status probe_tensor(const struct probe *probe, enum dtype dtype,
                              const struct shape *shape, enum probe_fill fill, uint64_t seed,
                              struct tensor *out, struct weir_err *err)
{
    const uint64_t each = dtype == DTYPE_BYTES ? 5 : dtype_size(dtype);
    uint64_t elements;
    const enum weir_status status = shape_elements(shape, &elements, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (elements > PROBE_BYTES_MAX / each) {
        char text[SHAPE_TEXT];
        return err_set(err, WEIR_EINVAL, "a trial input of shape %s would be too large",
                       shape_format(shape, text));
    }
    struct tensor tensor = { .dtype = dtype, .shape = *shape, .size = elements * each };
    tensor.block = block_pool_take(probe->blocks, tensor.size == 0 ? 1 : tensor.size);
    if (tensor.block == NULL) {
        return err_nomem(err, "a trial input", tensor.size);
    }
    tensor.data = tensor.block->data;
    tensor.present = true;
    if (dtype == DTYPE_BYTES) {
        fill_strings(tensor.data, elements, fill, seed);
    } else if (fill == PROBE_ZERO) {
        memset(tensor.data, 0, tensor.size);
    } else {
        fill_numbers(dtype, tensor.data, elements, fill, seed);
    }
    *out = tensor;
    return WEIR_OK;
}

enum weir_status probe_inputs(const struct probe *probe, struct probe_run *run, int64_t rows,
                              int64_t size, enum probe_fill fill, uint64_t seed,
                              struct weir_err *err)
{
    for (uint32_t i = 0; i < probe->signature->input_count; i++) {
        const struct tensor_spec *spec = &probe->signature->inputs[i];
        tensor_release(&run->inputs[i]);
        if (spec->optional) {
            continue;
        }
        const struct shape shape = probe_shape(probe, i, rows, size);
        const enum weir_status status =
            probe_tensor(probe, spec->dtype, &shape, fill, mix(seed, i), &run->inputs[i], err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

/* A run whose parts know how many outputs there are. */
struct parted_run {
    struct backend_run run;
    uint32_t output_count;
};

static enum weir_status release_part(struct backend_run *run)
{
    struct parted_run *parted = list_entry(run, struct parted_run, run);
    release_all(run->outputs, parted->output_count);
    return WEIR_OK;
}

/* Of shapes that runs have as they are: not what would be padded. */
static void learn(const struct probe *probe, const struct probe_run *run, uint64_t ns)
{
    struct model *model = probe->learner;
    struct bucket_lengths lengths;
    if (model->buckets != NULL &&
        (!bucket_lengths(model->buckets, run->inputs, &lengths) || lengths.padded)) {
        return;
    }
    const uint64_t key = bucket_key(model, run->inputs);
    const uint64_t rows = bucket_rows(probe->signature, run->inputs);
    profile_observe(&model->profile, key, rows > 0 ? rows : 1, ns);
    if (profile_is_unnamed(&model->profile, key)) {
        struct profile_dims dims;
        bucket_describe(model, run->inputs, &dims);
        profile_name(&model->profile, key, &dims);
    }
}

static enum weir_status go(const struct probe *probe, struct probe_run *run, uint32_t output_count,
                           int64_t rows, struct weir_err *err)
{
    struct parted_run parted = {
        .run = {
            .rows = (uint64_t)rows,
            .inputs = run->inputs,
            .outputs = run->outputs,
            .wanted = run->wanted,
            .part = release_part,
            .trim = !probe->keep,
            .limit_ns = probe->config->load_limit_ns,
        },
        .output_count = output_count,
    };
    const bool learns = probe->learner != NULL && probe->plan == NULL;
    const uint64_t from_ns = learns ? clock_now_ns(probe->clock) : 0;
    step_begin_run(probe->step);
    enum weir_status status = backend_prepare(probe->context, &parted.run, err);
    status = status == WEIR_OK ? backend_run(probe->context, &parted.run, err) : status;
    status = status == WEIR_OK ? backend_finish(probe->context, &parted.run, err) : status;
    if (parted.run.death != DEATH_NONE && probe->death != NULL) {
        *probe->death = parted.run.death;
    }
    if (status == WEIR_OK && learns) {
        const uint64_t end_ns =
            parted.run.virtual_end_ns > 0 ? parted.run.virtual_end_ns : clock_now_ns(probe->clock);
        learn(probe, run, end_ns - from_ns);
    }
    return status;
}

/* Every row as the first request of a sequence. */
static enum weir_status fill_in(const struct probe *probe, struct tensor *inputs, int64_t rows,
                                struct weir_err *err)
{
    const uint32_t count = probe->plan->batched ? (uint32_t)rows : 1;
    struct plan_row *made = mem_try_zero(count, sizeof(*made));
    if (made == NULL) {
        return err_nomem(err, "a trial run", count * sizeof(*made));
    }
    for (uint32_t i = 0; i < count; i++) {
        made[i] = (struct plan_row){ .ready = true, .start = true, .id = { .number = 1 } };
    }
    const enum weir_status status =
        sequence_plan_fill(probe->plan, made, count, probe->blocks, inputs, err);
    mem_free(made);
    return status;
}

/* Runs what clients do not see along with what they do. */
static enum weir_status go_full(const struct probe *probe, struct probe_run *run, int64_t rows,
                                struct weir_err *err)
{
    const struct sequence_plan *plan = probe->plan;
    const struct probe all = { .signature = plan->full };
    struct probe_run full = { 0 };
    enum weir_status status = probe_run_init(&all, &full, err);
    if (status != WEIR_OK) {
        return status;
    }
    for (uint32_t i = 0; i < plan->shown.input_count; i++) {
        full.inputs[plan->inputs[i]] = run->inputs[i];
        full.inputs[plan->inputs[i]].block = NULL; /* Borrowed. */
    }
    status = fill_in(probe, full.inputs, rows, err);
    status = status == WEIR_OK ? go(probe, &full, plan->full->output_count, rows, err) : status;
    for (uint32_t i = 0; status == WEIR_OK && i < plan->shown.output_count; i++) {
        run->outputs[i] = full.outputs[plan->outputs[i]];
        full.outputs[plan->outputs[i]] = (struct tensor){ 0 };
    }
    probe_run_finish(&all, &full);
    return status;
}

enum weir_status probe_go(const struct probe *probe, struct probe_run *run, int64_t rows,
                          struct weir_err *err)
{
    release_all(run->outputs, probe->signature->output_count);
    return probe->plan != NULL ? go_full(probe, run, rows, err)
                               : go(probe, run, probe->signature->output_count, rows, err);
}
