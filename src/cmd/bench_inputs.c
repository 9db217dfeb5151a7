/*
 * Tensors to send.  Numbers are small on purpose: floats in 0..1, integers in 0..99, so that they
 * are indices, tokens and pixels that most models take.
 */
#include <inttypes.h>
#include <string.h>

#include "cmd/bench_request.h"
#include "cmd/scalar.h"
#include "util/mem.h"

#define VARIANTS_BYTES_MAX ((size_t)64 << 20) /* Fewer variants rather than more than this. */
#define INTEGER_MAX 100
#define TEXT_BYTES 16

static uint64_t draw(uint64_t *state)
{
    /* splitmix64 */
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

enum weir_status request_shape_of(const struct spec *spec, const struct request_inputs_spec *wish,
                                  struct shape *out, struct weir_err *err)
{
    struct shape shape = spec->shape;
    for (uint32_t i = 0; i < wish->shape_count; i++) {
        const struct request_shape *told = &wish->shapes[i];
        if (strlen(spec->name) == told->name_size &&
            memcmp(spec->name, told->name, told->name_size) == 0) {
            if (!shape_fits(&told->shape, &spec->shape)) {
                char text[SHAPE_TEXT];
                return err_set(err, WEIR_EINVAL, "--shape %s: the model takes %s", told->name,
                               shape_format(&spec->shape, text));
            }
            *out = told->shape;
            return WEIR_OK;
        }
    }
    if (shape.rank > 0 && shape.dims[0] == -1) {
        shape.dims[0] = wish->rows;
    }
    for (uint32_t i = 0; i < shape.rank; i++) {
        if (shape.dims[i] < 0) {
            char text[SHAPE_TEXT];
            return err_set(err, WEIR_EINVAL, "'%s' has shape %s: say which with --shape %s=1,...",
                           spec->name, shape_format(&spec->shape, text), spec->name);
        }
    }
    *out = shape;
    return WEIR_OK;
}

static uint32_t count_given(const struct request_inputs_spec *spec, const char *name)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < spec->given_count; i++) {
        count += strcmp(spec->given[i].name, name) == 0;
    }
    return count;
}

/* What was given for an input of a variant; what was given several times takes turns. */
static const struct value *find_given(const struct request_inputs_spec *spec, const char *name,
                                      uint32_t variant)
{
    const uint32_t count = count_given(spec, name);
    uint32_t left = count > 0 ? variant % count : 0;
    for (uint32_t i = 0; i < spec->given_count && count > 0; i++) {
        if (strcmp(spec->given[i].name, name) == 0 && left-- == 0) {
            return &spec->given[i];
        }
    }
    return NULL;
}

static void fill_numbers(struct tensor *tensor, uint64_t count, bool zero, uint64_t *random)
{
    const bool is_float = scalar_is_float(tensor->dtype);
    if (zero) {
        memset(tensor->data, 0, tensor->size);
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t bits = draw(random);
        const double value = is_float                      ? (double)(bits >> 40) * 0x1p-24
                             : tensor->dtype == DTYPE_BOOL ? (double)(bits & 1)
                                                           : (double)(bits % INTEGER_MAX);
        scalar_set(tensor->dtype, tensor->data, (size_t)i, value);
    }
}

static void fill_texts(struct tensor *tensor, uint64_t count, bool zero, uint64_t *random)
{
    uint8_t *at = tensor->data;
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t size = zero ? 0 : TEXT_BYTES;
        memcpy(at, (const uint8_t[4]){ size }, 4);
        at += 4;
        for (uint8_t k = 0; k < size; k++) {
            *at++ = (uint8_t)('a' + draw(random) % 26);
        }
    }
}

static enum weir_status fill(struct arena *arena, const struct request_inputs_spec *spec,
                             const struct spec *input, uint64_t *random, struct tensor *out,
                             struct weir_err *err)
{
    struct tensor tensor = { .dtype = input->dtype, .present = true };
    uint64_t count = 0;
    enum weir_status status = request_shape_of(input, spec, &tensor.shape, err);
    if (status == WEIR_OK) {
        status = shape_elements(&tensor.shape, &count, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    const size_t each =
        input->dtype == DTYPE_BYTES ? 4 + (spec->zero ? 0 : TEXT_BYTES) : dtype_size(input->dtype);
    if (__builtin_mul_overflow(count, each, &tensor.size) ||
        (tensor.data = arena_try_aligned(arena, tensor.size + 1, MEM_ALIGN)) == NULL) {
        return err_nomem(err, input->name, tensor.size);
    }
    if (input->dtype == DTYPE_BYTES) {
        fill_texts(&tensor, count, spec->zero, random);
    } else {
        fill_numbers(&tensor, count, spec->zero, random);
    }
    *out = tensor;
    return WEIR_OK;
}

/* One set of inputs. */
static enum weir_status fill_set(struct arena *arena, const struct request_inputs_spec *spec,
                                 uint32_t variant, uint64_t *random, struct value *out,
                                 size_t *bytes, struct weir_err *err)
{
    for (uint32_t i = 0; i < spec->model->input_count; i++) {
        const struct spec *input = &spec->model->inputs[i];
        const struct value *given = find_given(spec, input->name, variant);
        out[i].name = input->name;
        if (given != NULL) {
            out[i].tensor = given->tensor;
        } else {
            const enum weir_status status = fill(arena, spec, input, random, &out[i].tensor, err);
            if (status != WEIR_OK) {
                return status;
            }
        }
        *bytes += out[i].tensor.size;
    }
    return WEIR_OK;
}

/* As many as asked for, unless nothing tells them apart: then as often as an input was given. */
static uint32_t variants_of(const struct request_inputs_spec *spec)
{
    uint32_t most = 1;
    for (uint32_t i = 0; i < spec->model->input_count; i++) {
        const uint32_t count = count_given(spec, spec->model->inputs[i].name);
        if (count == 0 && !spec->zero) {
            return spec->variants;
        }
        most = count > most ? count : most;
    }
    return most;
}

enum weir_status request_inputs_make(struct arena *arena, const struct request_inputs_spec *spec,
                                     struct request_inputs *out, struct weir_err *err)
{
    struct request_inputs inputs = { .input_count = spec->model->input_count };
    const uint32_t variants = variants_of(spec);
    uint64_t random = spec->seed;
    inputs.values =
        arena_try_zero(arena, (size_t)variants * inputs.input_count + 1, sizeof(*inputs.values));
    if (inputs.values == NULL) {
        return err_nomem(err, "inputs", variants);
    }
    while (
        inputs.variant_count == 0 ||
        (inputs.variant_count < variants &&
         inputs.bytes / inputs.variant_count * (inputs.variant_count + 1) <= VARIANTS_BYTES_MAX)) {
        const enum weir_status status =
            fill_set(arena, spec, inputs.variant_count, &random,
                     inputs.values + inputs.variant_count * inputs.input_count, &inputs.bytes, err);
        if (status != WEIR_OK) {
            return status;
        }
        inputs.variant_count++;
    }
    *out = inputs;
    return WEIR_OK;
}
