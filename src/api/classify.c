/*
 * The best k of n through a heap of k with the worst on top: n log k, and no
 * memory but the heap.  Equal values stand in order of their index; NaN is worse
 * than any number.
 */
#include "api/classify.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "util/mem.h"

#define ELEMENTS_MAX 1000000
#define TEXT_BYTES_MAX (UINT32_C(1) << 30)

struct candidate {
    double value;
    uint32_t index;
};

/* X(type, C type) */
#define NUMBERS(X)     \
    X(UINT8, uint8_t)   \
    X(UINT16, uint16_t) \
    X(UINT32, uint32_t) \
    X(UINT64, uint64_t) \
    X(INT8, int8_t)     \
    X(INT16, int16_t)   \
    X(INT32, int32_t)   \
    X(INT64, int64_t)   \
    X(FP32, float)      \
    X(FP64, double)

static double number_at(const struct tensor *tensor, size_t at)
{
    const uint8_t *from = tensor->data + at * dtype_size(tensor->dtype);
    switch (tensor->dtype) {
#define NUMBER_CASE(name, type)             \
    case DTYPE_##name: {                    \
        type value;                         \
        memcpy(&value, from, sizeof value); \
        return (double)value;               \
    }
        NUMBERS(NUMBER_CASE)
#undef NUMBER_CASE
    default:
        return 0; /* No other type is classified: kserve_complete(). */
    }
}

static bool worse(const struct candidate *a, const struct candidate *b)
{
    return a->value < b->value || (!(a->value > b->value) && a->index > b->index);
}

/* Restores the heap (worst on top) below `at`. */
static void sink(struct candidate *heap, uint32_t count, uint32_t at)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count) {
            return;
        }
        if (child + 1 < count && worse(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!worse(&heap[child], &heap[at])) {
            return;
        }
        const struct candidate moved = heap[at];
        heap[at] = heap[child];
        heap[child] = moved;
        at = child;
    }
}

/* Leaves the best `count` of the `n` elements from `first` in `heap`, best first. */
static void select_best(const struct tensor *tensor, size_t first, uint32_t n,
                        struct candidate *heap, uint32_t count)
{
    for (uint32_t i = 0; i < n; i++) {
        struct candidate found = { number_at(tensor, first + i), i };
        found.value = isnan(found.value) ? (double)-INFINITY : found.value;
        if (i < count) {
            heap[i] = found;
            if (i + 1 == count) {
                for (uint32_t at = count / 2; at-- > 0;) {
                    sink(heap, count, at);
                }
            }
        } else if (worse(&heap[0], &found)) {
            heap[0] = found;
            sink(heap, count, 0);
        }
    }
    for (uint32_t left = count; left > 1; left--) {
        const struct candidate worst = heap[0];
        heap[0] = heap[left - 1];
        heap[left - 1] = worst;
        sink(heap, left - 1, 0);
    }
}

static void write_class(struct buffer *out, const struct tensor *tensor, size_t at, uint32_t index,
                        const struct io_config *config)
{
    const size_t start = out->size;
    buffer_append(out, (const char[4]){ 0 }, 4); /* Its length, known later. */
    if (tensor->dtype == DTYPE_FP32 || tensor->dtype == DTYPE_FP64) {
        buffer_printf(out, "%f:%" PRIu32, number_at(tensor, at), index);
    } else if (tensor->dtype == DTYPE_UINT64) {
        uint64_t value;
        memcpy(&value, tensor->data + at * sizeof value, sizeof value);
        buffer_printf(out, "%" PRIu64 ":%" PRIu32, value, index);
    } else if (tensor->dtype == DTYPE_INT64) {
        int64_t value;
        memcpy(&value, tensor->data + at * sizeof value, sizeof value);
        buffer_printf(out, "%" PRId64 ":%" PRIu32, value, index);
    } else {
        buffer_printf(out, "%.0f:%" PRIu32, number_at(tensor, at), index);
    }
    if (config != NULL && index < config->label_count) {
        buffer_char(out, ':');
        buffer_text(out, config->labels[index]);
    }
    if (!out->failed) {
        const uint32_t size = (uint32_t)(out->size - start - 4);
        for (unsigned i = 0; i < 4; i++) {
            out->data[start + i] = (char)(size >> (8 * i));
        }
    }
}

static enum weir_status classify_rows(const struct infer_call *call, const struct tensor *tensor,
                                      uint64_t rows, uint32_t n, uint32_t count, struct buffer *out,
                                      struct weir_err *err)
{
    const struct model *model = call->model;
    struct candidate *heap = mem_try_zero((size_t)count + 1, sizeof *heap);
    if (heap == NULL) {
        return err_nomem(err, "a classification", count * sizeof *heap);
    }
    const char *name = model->signature->outputs[tensor - call->request.outputs].name;
    const struct io_config *config = model_output_config(model, name);
    for (uint64_t row = 0; row < rows; row++) {
        select_best(tensor, row * n, n, heap, count);
        for (uint32_t i = 0; i < count; i++) {
            write_class(out, tensor, row * n + heap[i].index, heap[i].index, config);
        }
    }
    mem_free(heap);
    return out->failed ? err_nomem(err, "a classification", out->size) : WEIR_OK;
}

static enum weir_status replace(struct infer_call *call, struct tensor *tensor,
                                const struct shape *shape, const struct buffer *text,
                                struct weir_err *err)
{
    struct tensor made = {
        .dtype = DTYPE_BYTES,
        .place = PLACE_HOST,
        .shape = *shape,
        .present = true,
    };
    const enum weir_status status = kserve_room(call, &made, text->size, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (text->size > 0) {
        memcpy(made.data, text->data, text->size);
    }
    tensor_release(tensor);
    *tensor = made;
    return WEIR_OK;
}

enum weir_status classify_output(struct infer_call *call, const struct infer_output *output,
                                 struct weir_err *err)
{
    struct tensor *tensor = &call->request.outputs[output->index];
    const bool batched = call->model->config->max_batch_size > 0 && tensor->shape.rank > 0;
    const uint64_t rows = batched ? (uint64_t)tensor->shape.dims[0] : 1;
    uint64_t elements = 0;
    enum weir_status status = shape_elements(&tensor->shape, &elements, err);
    if (status != WEIR_OK) {
        return status;
    }
    const uint64_t n = rows == 0 ? 0 : elements / rows;
    if (n > ELEMENTS_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "classification of output '%s': found %" PRIu64
                       " elements per row, expected at most %d",
                       call->model->signature->outputs[output->index].name, n, ELEMENTS_MAX);
    }
    const uint32_t count = output->classes < n ? output->classes : (uint32_t)n;
    const struct shape shape = batched ? (struct shape){ 2, { (int64_t)rows, (int64_t)count } }
                                       : (struct shape){ 1, { (int64_t)count } };
    struct buffer text;
    buffer_init(&text, TEXT_BYTES_MAX);
    status = classify_rows(call, tensor, rows, (uint32_t)n, count, &text, err);
    if (status == WEIR_OK) {
        status = replace(call, tensor, &shape, &text, err);
    }
    buffer_finish(&text);
    return status;
}
