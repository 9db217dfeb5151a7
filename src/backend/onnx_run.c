/*
 * Runs of a model in ONNX Runtime.
 *
 * Inputs are lent to the runtime where they lie.  Outputs whose shape is known
 * beforehand go straight into blocks of the pool, which saves the runtime an
 * allocation and us an object; the others stay in the runtime's memory, and the
 * block lent to the caller lets go of them later, on whatever thread.  Copied are
 * strings, which the runtime keeps each as an object of its own, and inputs that a
 * model passes through, whose memory goes back to its lender after the run.
 *
 * A rule for an output's shape that turns out wrong (onnx.h) makes the runtime refuse the
 * run; it is repeated without the rule, and the rule is dropped for good.
 */
#include "backend/onnx.h"

#include <assert.h>
#include <onnxruntime_c_api.h>
#include <string.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "backend/onnx_memory.h"
#include "util/err.h"
#include "util/mem.h"

/* Memory that was lent to the runtime, which the next run often uses again: what the runtime knows
 * of it is kept, and means nothing until it is lent again. */
struct onnx_loan {
    OrtValue *value; /* NULL: none. */
    const void *data;
    size_t size;
    enum dtype dtype;
    struct shape shape;
};

/* One run at a time.  The arrays are scratch of the run in progress, but for the loans. */
struct onnx_context {
    struct backend_context base;
    OrtRunOptions *options;
    _Atomic bool stopping;     /* Any thread; between terminate and rearm. */
    const char **input_names;  /* signature.input_count, packed: only present ones. */
    const char **output_names; /* signature.output_count, packed: only wanted ones. */
    uint32_t *output_indices;  /* Where each of the packed ones belongs. */
    OrtValue **inputs;
    OrtValue **outputs;
    struct onnx_loan *input_loans; /* By packed index, as the values that are theirs. */
    struct onnx_loan *output_loans;
};

#define TRIAL_BYTE 0xA7 /* Fills the memory of an output on trial. */

/* Memory of the runtime, lent as a block. */
struct lent_value {
    struct block block;
    OrtValue *value;
};

static const ONNXTensorElementDataType element_types[DTYPE_COUNT] = {
    [DTYPE_BOOL] = ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
    [DTYPE_UINT8] = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
    [DTYPE_UINT16] = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
    [DTYPE_UINT32] = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
    [DTYPE_UINT64] = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
    [DTYPE_INT8] = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
    [DTYPE_INT16] = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
    [DTYPE_INT32] = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
    [DTYPE_INT64] = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
    [DTYPE_FP16] = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
    [DTYPE_FP32] = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
    [DTYPE_FP64] = ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
    [DTYPE_BF16] = ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
    [DTYPE_BYTES] = ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
};

static struct onnx_model *model_of(const struct onnx_context *context)
{
    return (struct onnx_model *)context->base.model;
}

/* --- Floating-point mode ---------------------------------------------------------------------- */

/* Numbers too small for full precision become zero: computing with them costs up to a
 * hundredfold.  The runtime sets this on its own threads only. */
uint64_t onnx_float_mode_enter(void)
{
#if defined(__SSE2__)
    const uint32_t before = _mm_getcsr();
    _mm_setcsr(before | 0x8040U); /* Flush to zero, denormals are zero. */
    return before;
#elif defined(__aarch64__)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | UINT64_C(1) << 24));
    return before;
#else
    return 0;
#endif
}

void onnx_float_mode_leave(uint64_t before)
{
#if defined(__SSE2__)
    _mm_setcsr((uint32_t)before);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
#else
    (void)before;
#endif
}

/* --- Inputs ----------------------------------------------------------------------------------- */

static OrtStatus *fill_strings(OrtValue *value, const struct tensor *tensor)
{
    struct bytes item;
    size_t at = 0;
    for (size_t index = 0; tensor_next_string(tensor, &at, &item); index++) {
        char *place = NULL;
        OrtStatus *failed =
            onnx_api->GetResizedStringTensorElementBuffer(value, index, item.size, &place);
        if (failed != NULL) {
            return failed;
        }
        if (item.size > 0) {
            memcpy(place, item.data, item.size);
        }
    }
    return NULL;
}

static OrtStatus *wrap_strings(const struct tensor *tensor, OrtValue **out)
{
    OrtAllocator *allocator = NULL;
    OrtStatus *failed = onnx_api->GetAllocatorWithDefaultOptions(&allocator);
    failed =
        failed != NULL
            ? failed
            : onnx_api->CreateTensorAsOrtValue(allocator, tensor->shape.dims, tensor->shape.rank,
                                               ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING, out);
    return failed != NULL ? failed : fill_strings(*out, tensor);
}

/* Lends `data` to the runtime; `shape` is checked by whoever made it. */
static OrtStatus *wrap_numbers(const struct onnx_model *model, enum dtype dtype,
                               const struct shape *shape, void *data, size_t size,
                               struct onnx_loan *loan, OrtValue **out)
{
    static uint64_t nothing; /* A tensor without elements still needs an address. */
    const bool same = loan->value != NULL && loan->data == data && loan->size == size &&
                      loan->dtype == dtype && shape_equal(&loan->shape, shape);
    if (!same) {
        OrtValue *before = loan->value;
        *loan = (struct onnx_loan){ .data = data, .size = size, .dtype = dtype, .shape = *shape };
        onnx_api->ReleaseValue(before); /* NULL is fine. */
        OrtStatus *failed = onnx_api->CreateTensorWithDataAsOrtValue(
            model->memory, data == NULL ? &nothing : data, size, shape->dims, shape->rank,
            element_types[dtype], &loan->value);
        if (failed != NULL) {
            return failed;
        }
    }
    *out = loan->value;
    return NULL;
}

static OrtStatus *wrap_inputs(struct onnx_context *context, const struct backend_run *run,
                              size_t *count)
{
    const struct onnx_model *model = model_of(context);
    const struct signature *signature = &model->base.signature;
    *count = 0;
    for (uint32_t i = 0; i < signature->input_count; i++) {
        const struct tensor *input = &run->inputs[i];
        if (!input->present) {
            continue;
        }
        OrtStatus *failed =
            input->dtype == DTYPE_BYTES
                ? wrap_strings(input, &context->inputs[*count])
                : wrap_numbers(model, input->dtype, &input->shape, input->data, input->size,
                               &context->input_loans[*count], &context->inputs[*count]);
        if (failed != NULL) {
            return failed;
        }
        context->input_names[*count] = signature->inputs[i].name;
        (*count)++;
    }
    return NULL;
}

/* All but what is lent. */
static void release_values(OrtValue **values, const struct onnx_loan *loans, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (values[i] != NULL && values[i] != loans[i].value) {
            onnx_api->ReleaseValue(values[i]);
        }
        values[i] = NULL;
    }
}

static void release_loans(struct onnx_loan *loans, uint32_t count)
{
    for (uint32_t i = 0; loans != NULL && i < count; i++) {
        onnx_api->ReleaseValue(loans[i].value);
    }
    mem_free(loans);
}

/* --- Outputs ---------------------------------------------------------------------------------- */

/* What the rule says; false when it cannot say it for these inputs. */
static bool expected_shape(const struct onnx_model *model, uint32_t index,
                           const struct backend_run *run, struct shape *out)
{
    const struct onnx_output *rule = &model->outputs[index];
    *out = model->base.signature.outputs[index].shape;
    for (uint32_t d = 0; d < out->rank; d++) {
        if (out->dims[d] >= 0) {
            continue;
        }
        const struct shape *from = &run->inputs[rule->from_input[d]].shape;
        if ((uint32_t)rule->from_dim[d] >= from->rank) {
            return false;
        }
        out->dims[d] = from->dims[rule->from_dim[d]];
    }
    return true;
}

/* Leaves the output to the runtime where nothing is known about it. */
static enum weir_status place_output(struct onnx_context *context, uint32_t packed,
                                     struct backend_run *run, struct weir_err *err)
{
    struct onnx_model *model = model_of(context);
    const uint32_t index = context->output_indices[packed];
    const struct tensor_spec *spec = &model->base.signature.outputs[index];
    struct shape shape;
    size_t size;
    const uint8_t rule = atomic_load_explicit(&model->outputs[index].rule, memory_order_relaxed);
    if ((rule != ONNX_RULE_PROVEN && rule != ONNX_RULE_TRIAL) ||
        !expected_shape(model, index, run, &shape) ||
        tensor_bytes(spec->dtype, &shape, &size, NULL) != WEIR_OK) {
        return WEIR_OK;
    }
    struct block *block = block_pool_take(model->blocks, size);
    if (block == NULL) {
        return err_nomem(err, "an output", size);
    }
    if (rule == ONNX_RULE_TRIAL) {
        memset(block->data, TRIAL_BYTE, size);
    }
    struct tensor *output = &run->outputs[index];
    *output = (struct tensor){
        .dtype = spec->dtype,
        .shape = shape,
        .data = block->data,
        .size = size,
        .present = true,
        .block = block,
    };
    OrtStatus *failed = wrap_numbers(model, spec->dtype, &shape, block->data, size,
                                     &context->output_loans[packed], &context->outputs[packed]);
    return failed == NULL ? WEIR_OK : onnx_run_failed(failed, err);
}

static enum weir_status place_outputs(struct onnx_context *context, struct backend_run *run,
                                      uint32_t count, struct weir_err *err)
{
    for (uint32_t packed = 0; packed < count; packed++) {
        const enum weir_status status = place_output(context, packed, run, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

static void release_lent_value(struct block *block)
{
    struct lent_value *lent = (struct lent_value *)block;
    onnx_api->ReleaseValue(lent->value);
    mem_free(lent);
}

static void store_le32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)(value >> 16);
    at[3] = (uint8_t)(value >> 24);
}

/* The runtime gives all strings in a row, and where each starts.  They are fetched to the end of
 * the block and move forward, each behind its length: what moves never overtakes what waits. */
static void lay_out_strings(uint8_t *data, size_t count, size_t text_size, const size_t *offsets)
{
    const uint8_t *texts = data + 4 * count;
    uint8_t *at = data;
    for (size_t i = 0; i < count; i++) {
        const size_t end = i + 1 < count ? offsets[i + 1] : text_size;
        const size_t size = end - offsets[i];
        memmove(at + 4, texts + offsets[i], size);
        store_le32(at, (uint32_t)size);
        at += 4 + size;
    }
}

static OrtStatus *fetch_strings(const OrtValue *value, struct block *block, size_t count,
                                size_t text_size, size_t *offsets)
{
    if (count == 0) {
        return NULL;
    }
    OrtStatus *failed =
        onnx_api->GetStringTensorContent(value, block->data + 4 * count, text_size, offsets, count);
    if (failed == NULL) {
        lay_out_strings(block->data, count, text_size, offsets);
    }
    return failed;
}

/* Copies the strings into wire layout; `output` has its shape already. */
static enum weir_status take_strings(struct onnx_model *model, const OrtValue *value,
                                     struct tensor *output, struct weir_err *err)
{
    size_t text_size = 0;
    uint64_t count = 0;
    const enum weir_status status = shape_elements(&output->shape, &count, err);
    if (status != WEIR_OK) {
        return status;
    }
    OrtStatus *failed = onnx_api->GetStringTensorDataLength(value, &text_size);
    if (failed != NULL) {
        return onnx_run_failed(failed, err);
    }
    if (text_size > UINT32_MAX) {
        return err_set(err, WEIR_ENOMEM, "an output of %zu bytes of text is too large", text_size);
    }
    const size_t size = text_size + 4 * (size_t)count;
    struct block *block = block_pool_take(model->blocks, size);
    size_t *offsets = mem_try_zero((size_t)count + 1, sizeof(*offsets));
    if (block == NULL || offsets == NULL) {
        block_release(block);
        mem_free(offsets);
        return err_nomem(err, "an output", size);
    }
    failed = fetch_strings(value, block, (size_t)count, text_size, offsets);
    mem_free(offsets);
    if (failed != NULL) {
        block_release(block);
        return onnx_run_failed(failed, err);
    }
    output->data = block->data;
    output->size = size;
    output->block = block;
    return WEIR_OK;
}

/* True when an output is an input that the model passes through: the caller's own memory. */
static bool is_input(const struct onnx_model *model, const struct backend_run *run,
                     const void *data)
{
    const uintptr_t at = (uintptr_t)data;
    for (uint32_t i = 0; i < model->base.signature.input_count; i++) {
        const uintptr_t start = (uintptr_t)run->inputs[i].data;
        if (at >= start && at - start < run->inputs[i].size) {
            return true;
        }
    }
    return false;
}

static enum weir_status copy_numbers(struct onnx_model *model, const void *data, size_t size,
                                     struct tensor *output, struct weir_err *err)
{
    struct block *block = block_pool_take(model->blocks, size);
    if (block == NULL) {
        return err_nomem(err, "an output", size);
    }
    memcpy(block->data, data, size);
    output->data = block->data;
    output->size = size;
    output->block = block;
    return WEIR_OK;
}

/* Lends the runtime's memory, for which it takes `*value`; copies what is an input's. */
static enum weir_status take_numbers(struct onnx_model *model, const struct backend_run *run,
                                     OrtValue **value, struct tensor *output, struct weir_err *err)
{
    size_t size = 0;
    const enum weir_status status = tensor_bytes(output->dtype, &output->shape, &size, err);
    if (status != WEIR_OK) {
        return status;
    }
    void *data = NULL;
    OrtStatus *failed = onnx_api->GetTensorMutableData(*value, &data);
    if (failed != NULL) {
        return onnx_run_failed(failed, err);
    }
    if (is_input(model, run, data)) {
        return copy_numbers(model, data, size, output, err);
    }
    struct lent_value *lent = mem_try_alloc(sizeof(*lent));
    if (lent == NULL) {
        return err_nomem(err, "an output", sizeof(*lent));
    }
    lent->value = *value;
    *value = NULL;
    block_init(&lent->block, data, size, release_lent_value);
    output->data = data;
    output->size = size;
    output->block = &lent->block;
    return WEIR_OK;
}

static enum weir_status read_output_shape(const OrtValue *value, const char *name,
                                          struct shape *out, struct weir_err *err)
{
    OrtTensorTypeAndShapeInfo *info = NULL;
    size_t rank = 0;
    OrtStatus *failed = onnx_api->GetTensorTypeAndShape(value, &info);
    failed = failed != NULL ? failed : onnx_api->GetDimensionsCount(info, &rank);
    const bool fits = rank <= TENSOR_RANK_MAX;
    if (failed == NULL && fits) {
        out->rank = (uint32_t)rank;
        failed = onnx_api->GetDimensions(info, out->dims, rank);
    }
    onnx_api->ReleaseTensorTypeAndShapeInfo(info);
    if (failed != NULL) {
        return onnx_run_failed(failed, err);
    }
    return fits ? WEIR_OK
                : err_set(err, WEIR_EBACKEND,
                          "output '%s' has %zu dimensions, at most %d are "
                          "possible",
                          name, rank, TENSOR_RANK_MAX);
}

static void set_rule(struct onnx_output *output, enum onnx_rule rule)
{
    atomic_store_explicit(&output->rule, (uint8_t)rule, memory_order_relaxed);
}

/* The runtime chose this shape: is it what the rule says? */
static void judge_rule(struct onnx_model *model, uint32_t index, const struct backend_run *run,
                       const struct shape *found)
{
    struct onnx_output *output = &model->outputs[index];
    struct shape expected;
    const uint8_t rule = atomic_load_explicit(&output->rule, memory_order_relaxed);
    if (rule == ONNX_RULE_NONE || rule == ONNX_RULE_REFUTED) {
        return;
    }
    const bool right =
        expected_shape(model, index, run, &expected) && shape_equal(&expected, found);
    if (!right) {
        set_rule(output, ONNX_RULE_REFUTED);
    } else if (rule == ONNX_RULE_UNPROVEN) {
        set_rule(output, ONNX_RULE_TRIAL);
    }
}

static bool untouched(const struct tensor *output)
{
    for (size_t i = 0; i < output->size; i++) {
        if (output->data[i] != TRIAL_BYTE) {
            return false;
        }
    }
    return true;
}

/* Looks at the memory of outputs on trial; false when one was not written. */
static bool trials_passed(struct onnx_context *context, const struct backend_run *run,
                          uint32_t count)
{
    bool passed = true;
    for (uint32_t packed = 0; packed < count; packed++) {
        struct onnx_output *rule = &model_of(context)->outputs[context->output_indices[packed]];
        const struct tensor *output = &run->outputs[context->output_indices[packed]];
        const uint8_t state = atomic_load_explicit(&rule->rule, memory_order_relaxed);
        /* Not only TRIAL: another context's run may have refuted it meanwhile. */
        if (!output->present || output->size == 0 || state == ONNX_RULE_PROVEN) {
            continue;
        }
        if (untouched(output)) {
            set_rule(rule, ONNX_RULE_REFUTED);
            passed = false;
        } else if (state == ONNX_RULE_TRIAL) {
            set_rule(rule, ONNX_RULE_PROVEN);
        }
    }
    return passed;
}

static enum weir_status take_output(struct onnx_context *context, uint32_t packed,
                                    struct backend_run *run, struct weir_err *err)
{
    struct onnx_model *model = model_of(context);
    const uint32_t index = context->output_indices[packed];
    const struct tensor_spec *spec = &model->base.signature.outputs[index];
    struct tensor *output = &run->outputs[index];
    if (output->present) {
        return WEIR_OK; /* Written in place. */
    }
    struct tensor made = { .dtype = spec->dtype, .present = true };
    OrtValue **value = &context->outputs[packed];
    enum weir_status status = read_output_shape(*value, spec->name, &made.shape, err);
    if (status == WEIR_OK) {
        judge_rule(model, index, run, &made.shape);
        status = spec->dtype == DTYPE_BYTES ? take_strings(model, *value, &made, err)
                                            : take_numbers(model, run, value, &made, err);
    }
    if (status == WEIR_OK) {
        *output = made;
    }
    return status;
}

static enum weir_status take_outputs(struct onnx_context *context, struct backend_run *run,
                                     uint32_t count, struct weir_err *err)
{
    for (uint32_t packed = 0; packed < count; packed++) {
        const enum weir_status status = take_output(context, packed, run, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

/* --- The run ---------------------------------------------------------------------------------- */

static void drop_outputs(struct onnx_context *context, struct backend_run *run)
{
    const uint32_t count = context->base.model->signature.output_count;
    release_values(context->outputs, context->output_loans, count);
    for (uint32_t i = 0; i < count; i++) {
        tensor_release(&run->outputs[i]);
    }
}

static OrtStatus *call(struct onnx_context *context, size_t inputs, uint32_t outputs)
{
    const struct onnx_model *model = model_of(context);
    OrtSession *session = atomic_load_explicit(&model->session, memory_order_acquire);
    const uint64_t mode = onnx_float_mode_enter();
    struct onnx_account *before = onnx_account_enter(model->account);
    OrtStatus *failed = onnx_api->Run(session, context->options, context->input_names,
                                      (const OrtValue *const *)context->inputs, inputs,
                                      context->output_names, outputs, context->outputs);
    (void)onnx_account_enter(before);
    onnx_float_mode_leave(mode);
    return failed;
}

static bool any_placed(const struct onnx_context *context, const struct backend_run *run)
{
    for (uint32_t i = 0; i < context->base.model->signature.output_count; i++) {
        if (run->outputs[i].present) {
            return true;
        }
    }
    return false;
}

/* Would the run perhaps succeed if the runtime chose the shapes? */
static bool blames_shape(OrtStatus *failed)
{
    return strstr(onnx_api->GetErrorMessage(failed), "hape") != NULL;
}

static uint32_t pack_wanted(struct onnx_context *context, const struct backend_run *run)
{
    const struct signature *signature = &context->base.model->signature;
    uint32_t count = 0;
    for (uint32_t i = 0; i < signature->output_count; i++) {
        if (run->wanted[i]) {
            context->output_names[count] = signature->outputs[i].name;
            context->output_indices[count] = i;
            count++;
        }
    }
    return count;
}

static enum weir_status run_wrapped(struct onnx_context *context, struct backend_run *run,
                                    size_t inputs, struct weir_err *err)
{
    const uint32_t outputs = pack_wanted(context, run);
    const enum weir_status status = place_outputs(context, run, outputs, err);
    if (status != WEIR_OK) {
        return status;
    }
    OrtStatus *failed = call(context, inputs, outputs);
    const bool repeat = failed == NULL ? !trials_passed(context, run, outputs)
                                       : blames_shape(failed) && any_placed(context, run);
    if (repeat) {
        onnx_api->ReleaseStatus(failed);
        drop_outputs(context, run);
        failed = call(context, inputs, outputs);
    }
    if (failed == NULL) {
        return take_outputs(context, run, outputs, err);
    }
    if (context->stopping) {
        onnx_api->ReleaseStatus(failed);
        return err_set(err, WEIR_ECANCELED, "the run was stopped");
    }
    return onnx_kernel_failed(failed, &run->faulted, err);
}

enum weir_status onnx_run(struct backend_context *base, struct backend_run *run,
                          struct weir_err *err)
{
    struct onnx_context *context = (struct onnx_context *)base;
    const struct signature *signature = &base->model->signature;
    struct onnx_model *model = model_of(context);
    size_t inputs = 0;
    OrtStatus *failed = wrap_inputs(context, run, &inputs);
    enum weir_status status =
        failed != NULL ? onnx_run_failed(failed, err) : run_wrapped(context, run, inputs, err);
    if (status == WEIR_OK && onnx_account_lost(model->account)) {
        status = err_set(err, WEIR_EBACKEND,
                         "the model's file was shortened while it was in use: load it again");
    }
    if (status != WEIR_OK) {
        drop_outputs(context, run);
    }
    release_values(context->inputs, context->input_loans, signature->input_count);
    release_values(context->outputs, context->output_loans, signature->output_count);
    (void)atomic_fetch_add_explicit(&model->runs, 1, memory_order_relaxed);
    if (run->trim) {
        onnx_account_trim(model->account);
    } else {
        onnx_account_tick(model->account);
    }
    return status;
}

void onnx_terminate(struct backend_context *base, bool stop)
{
    struct onnx_context *context = (struct onnx_context *)base;
    context->stopping = stop;
    OrtStatus *failed = stop ? onnx_api->RunOptionsSetTerminate(context->options)
                             : onnx_api->RunOptionsUnsetTerminate(context->options);
    assert(failed == NULL);
    (void)failed;
}

/* --- Contexts --------------------------------------------------------------------------------- */

enum weir_status onnx_context_create(struct backend_model *model, struct backend_context **out,
                                     struct weir_err *err)
{
    const size_t inputs = model->signature.input_count + 1u;
    const size_t outputs = model->signature.output_count + 1u;
    struct onnx_context *context = mem_try_zero(1, sizeof(*context));
    if (context == NULL) {
        return err_nomem(err, "a context", sizeof(*context));
    }
    context->base.model = model;
    context->input_names = mem_try_zero(inputs, sizeof(*context->input_names));
    context->output_names = mem_try_zero(outputs, sizeof(*context->output_names));
    context->output_indices = mem_try_zero(outputs, sizeof(*context->output_indices));
    context->inputs = mem_try_zero(inputs, sizeof(*context->inputs));
    context->outputs = mem_try_zero(outputs, sizeof(*context->outputs));
    context->input_loans = mem_try_zero(inputs, sizeof(*context->input_loans));
    context->output_loans = mem_try_zero(outputs, sizeof(*context->output_loans));
    enum weir_status status = WEIR_OK;
    if (context->input_names == NULL || context->output_names == NULL ||
        context->output_indices == NULL || context->inputs == NULL || context->outputs == NULL ||
        context->input_loans == NULL || context->output_loans == NULL) {
        status = err_nomem(err, "a context", sizeof(*context));
    } else {
        OrtStatus *failed = onnx_api->CreateRunOptions(&context->options);
        status = failed == NULL ? WEIR_OK : onnx_load_failed(failed, err);
    }
    if (status != WEIR_OK) {
        onnx_context_destroy(&context->base);
        return status;
    }
    *out = &context->base;
    return WEIR_OK;
}

void onnx_context_destroy(struct backend_context *base)
{
    struct onnx_context *context = (struct onnx_context *)base;
    onnx_api->ReleaseRunOptions(context->options);
    mem_free(context->input_names);
    mem_free(context->output_names);
    mem_free(context->output_indices);
    mem_free(context->inputs);
    mem_free(context->outputs);
    release_loans(context->input_loans, base->model->signature.input_count + 1U);
    release_loans(context->output_loans, base->model->signature.output_count + 1U);
    mem_free(context);
}
