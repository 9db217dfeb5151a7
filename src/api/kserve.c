/*
 * Checks that every protocol shares.
 *
 * What the engine checks at submit (shapes, batch sizes) is not repeated here;
 * what can only be said in the client's words (names, types, counts, sizes) is.
 */
#include "api/kserve.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/answer_memory.h"
#include "api/api.h"
#include "api/kserve_shared.h"
#include "pipeline/run.h"
#include "util/list.h"
#include "util/mem.h"

#define ARENA_TENSOR_BYTES 16384 /* Larger tensors get a block of the pool. */
#define MOVE_BYTES_MAX 262144
#define NAMES_BYTES 160
#define DEADLINE_US_MAX (UINT64_MAX / NS_PER_US)

/* Enough of a client's text for a sentence. */
#define SHOWN(text) ((text).size > 128 ? 128 : (int)(text).size), (text).data

/* X(key, kind text, reader) */
#define PARAMETERS(X)                                          \
    X("sequence_id", read_sequence_id)                         \
    X("sequence_start", read_sequence_start)                   \
    X("sequence_end", read_sequence_end)                       \
    X("priority", read_priority)                               \
    X("timeout", read_timeout)                                 \
    X("binary_data_output", read_binary_default)               \
    X("weir_timing", read_timing)                              \
    X("headers", refuse_reserved)

typedef enum weir_status parameter_fn(struct infer_call *call, const char *key,
                                      const struct infer_value *value, struct weir_err *err);

static const char *kind_text(enum infer_kind kind)
{
    static const char *const texts[] = {
        [INFER_BOOL] = "a boolean",        [INFER_UINT] = "a number",
        [INFER_INT] = "a negative number", [INFER_DOUBLE] = "a number with a fraction",
        [INFER_STRING] = "a string",
    };
    return texts[kind];
}

static enum weir_status expect(const struct infer_value *value, enum infer_kind kind,
                               const char *key, const char *expected, struct weir_err *err)
{
    if (value->kind == kind) {
        return WEIR_OK;
    }
    return err_set(err, WEIR_EINVAL, "parameter '%s': found %s, expected %s", key,
                   kind_text(value->kind), expected);
}

/* 0 and "" are no sequence.  Models without sequences take each request by itself, whatever it says. */
static enum weir_status read_sequence_id(struct infer_call *call, const char *key,
                                         const struct infer_value *value, struct weir_err *err)
{
    struct sequence_id *id = &call->request.sequence_id;
    if (value->kind != INFER_STRING) {
        const enum weir_status status =
            expect(value, INFER_UINT, key, "a whole number or a string", err);
        if (status == WEIR_OK) {
            *id = (struct sequence_id){ .number = value->number };
        }
        return status;
    }
    const char *text = arena_try_strndup(call->arena, value->text.data, value->text.size);
    if (text == NULL) {
        return err_nomem(err, "a sequence_id", value->text.size);
    }
    *id = (struct sequence_id){ .text = { text, value->text.size } };
    return WEIR_OK;
}

static enum weir_status read_sequence_start(struct infer_call *call, const char *key,
                                            const struct infer_value *value, struct weir_err *err)
{
    const enum weir_status status = expect(value, INFER_BOOL, key, "a boolean", err);
    if (status == WEIR_OK) {
        call->request.sequence_start = value->boolean;
    }
    return status;
}

static enum weir_status read_sequence_end(struct infer_call *call, const char *key,
                                          const struct infer_value *value, struct weir_err *err)
{
    const enum weir_status status = expect(value, INFER_BOOL, key, "a boolean", err);
    if (status == WEIR_OK) {
        call->request.sequence_end = value->boolean;
    }
    return status;
}

static enum weir_status read_priority(struct infer_call *call, const char *key,
                                      const struct infer_value *value, struct weir_err *err)
{
    const enum weir_status status = expect(value, INFER_UINT, key, "a whole number", err);
    if (status == WEIR_OK) {
        /* Out of range is the model's default, as 0 is. */
        call->priority = value->number > UINT32_MAX ? 0 : (uint32_t)value->number;
    }
    return status;
}

static enum weir_status read_timeout(struct infer_call *call, const char *key,
                                     const struct infer_value *value, struct weir_err *err)
{
    const enum weir_status status =
        expect(value, INFER_UINT, key, "a whole number of microseconds", err);
    if (status == WEIR_OK && value->number != 0 && value->number <= DEADLINE_US_MAX) {
        call->timeout_ns = value->number * NS_PER_US;
    }
    return status;
}

static enum weir_status read_binary_default(struct infer_call *call, const char *key,
                                            const struct infer_value *value, struct weir_err *err)
{
    const enum weir_status status = expect(value, INFER_BOOL, key, "a boolean", err);
    if (status == WEIR_OK) {
        call->binary_default = value->boolean;
    }
    return status;
}

static enum weir_status read_timing(struct infer_call *call, const char *key,
                                    const struct infer_value *value, struct weir_err *err)
{
    const enum weir_status status = expect(value, INFER_BOOL, key, "a boolean", err);
    if (status == WEIR_OK) {
        call->timing = value->boolean;
    }
    return status;
}

static enum weir_status refuse_reserved(struct infer_call *call, const char *key,
                                        const struct infer_value *value, struct weir_err *err)
{
    (void)call;
    (void)value;
    return err_set(err, WEIR_EINVAL, "parameter '%s' is reserved and should not be specified", key);
}

static const struct {
    struct bytes key;
    parameter_fn *read;
} parameters[] = {
#define PARAMETER_ROW(key, read) { { key, sizeof(key) - 1 }, read },
    PARAMETERS(PARAMETER_ROW)
#undef PARAMETER_ROW
};

#define PARAMETER_COUNT (sizeof parameters / sizeof parameters[0])

enum weir_status kserve_parameter(struct infer_call *call, struct bytes key,
                                  const struct infer_value *value, struct weir_err *err)
{
    for (size_t i = 0; i < PARAMETER_COUNT; i++) {
        if (bytes_equal(key, parameters[i].key)) {
            return parameters[i].read(call, parameters[i].key.data, value, err);
        }
    }
    if (key.size >= 7 && memcmp(key.data, "triton_", 7) == 0) {
        return err_set(err, WEIR_EINVAL,
                       "parameter '%.*s': parameter keys starting with 'triton_' are reserved for "
                       "Triton usage and should not be specified.",
                       SHOWN(key));
    }
    return WEIR_OK; /* A custom parameter; no backend here asks for any. */
}

const char *const infer_stages[INFER_STAGES] = { "queue", "gather", "compute", "total" };

static uint64_t between(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns == 0 || to_ns < from_ns ? 0 : to_ns - from_ns;
}

struct infer_timing kserve_timing(const struct infer_call *call, uint64_t now_ns)
{
    const struct request_times *times = &call->request.times;
    return (struct infer_timing){ {
        between(times->submitted_ns, times->taken_ns),
        between(times->taken_ns, times->gathered_ns),
        between(times->gathered_ns, times->computed_ns),
        between(call->received_ns, now_ns),
    } };
}

enum weir_status kserve_open(struct infer_call *call, struct model *model, struct arena *arena,
                             struct block_pool *blocks, uint64_t received_ns, struct weir_err *err)
{
    const struct signature *signature = model->signature;
    const size_t inputs = signature->input_count;
    const size_t outputs = signature->output_count;
    struct tensor *tensors = arena_try_zero(arena, inputs + outputs, sizeof *tensors);
    struct infer_output *asked = arena_try_alloc(arena, (outputs + 1) * sizeof *asked);
    bool *wanted = arena_try_zero(arena, outputs + 1, sizeof *wanted);
    if (tensors == NULL || asked == NULL || wanted == NULL) {
        return err_nomem(err, "the tensors of a request", (inputs + outputs) * sizeof *tensors);
    }
    request_init(&call->request);
    call->request.model = model;
    call->request.inputs = tensors;
    call->request.outputs = tensors + inputs;
    call->request.wanted = wanted;
    call->arena = arena;
    call->blocks = blocks;
    call->model = model;
    call->id = (struct bytes){ NULL, 0 };
    call->received_ns = received_ns;
    call->deadline_ns = CLOCK_NEVER;
    call->timeout_ns = 0;
    call->priority = 0;
    call->client = (struct client){ 0 };
    call->binary_default = false;
    call->timing = false;
    call->shm = NULL;
    call->places = NULL;
    call->outputs = asked;
    call->output_count = 0;
    call->lent_count = 0;
    call->answer = NULL;
    return WEIR_OK;
}

static bool find_spec(const struct tensor_spec *specs, uint32_t count, struct bytes name,
                      uint32_t *out)
{
    for (uint32_t i = 0; i < count; i++) {
        if (bytes_equal(bytes_of(specs[i].name), name)) {
            *out = i;
            return true;
        }
    }
    return false;
}

/* 'a', 'b', ... as far as they fit: what was expected. */
static const char *list_names(const struct tensor_spec *specs, uint32_t count, char *out)
{
    size_t size = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < count && size < NAMES_BYTES - 8; i++) {
        const int wrote =
            snprintf(out + size, NAMES_BYTES - size, "%s'%s'", i == 0 ? "" : ",", specs[i].name);
        if (wrote < 0 || (size_t)wrote >= NAMES_BYTES - size) {
            (void)snprintf(out + size, NAMES_BYTES - size, "...");
            break;
        }
        size += (size_t)wrote;
    }
    return out;
}

enum weir_status kserve_input(struct infer_call *call, struct bytes name, struct bytes datatype,
                              const struct shape *shape, struct tensor **out, struct weir_err *err)
{
    const struct signature *signature = call->model->signature;
    uint32_t index;
    if (!find_spec(signature->inputs, signature->input_count, name, &index)) {
        char names[NAMES_BYTES];
        return err_set(err, WEIR_EINVAL,
                       "unexpected inference input '%.*s' for model '%s', expected %s", SHOWN(name),
                       call->model->name,
                       list_names(signature->inputs, signature->input_count, names));
    }
    struct tensor *tensor = &call->request.inputs[index];
    const struct tensor_spec *spec = &signature->inputs[index];
    if (tensor->present) {
        return err_set(err, WEIR_EINVAL, "input '%s' already exists in request", spec->name);
    }
    if (!bytes_equal(datatype, bytes_of(dtype_text(spec->dtype)))) {
        return err_set(err, WEIR_EINVAL,
                       "inference input '%s' data-type is '%.*s', but model '%s' expects '%s'",
                       spec->name, SHOWN(datatype), call->model->name, dtype_text(spec->dtype));
    }
    if (!spec->any_rank && !shape_fits(shape, &spec->shape)) {
        char expected[SHAPE_TEXT];
        char found[SHAPE_TEXT];
        return err_set(err, WEIR_EINVAL,
                       "unexpected shape for input '%s' for model '%s'. Expected %s, got %s",
                       spec->name, call->model->name, shape_format(&spec->shape, expected),
                       shape_format(shape, found));
    }
    uint64_t elements;
    if (shape_elements(shape, &elements, err) != WEIR_OK) {
        (void)err_prefix(err, "input '%s'", spec->name);
        return WEIR_EINVAL;
    }
    tensor->dtype = spec->dtype;
    tensor->place = PLACE_HOST;
    tensor->shape = *shape;
    tensor->present = true;
    *out = tensor;
    return WEIR_OK;
}

enum weir_status kserve_room(struct infer_call *call, struct tensor *tensor, size_t size,
                             struct weir_err *err)
{
    if (size <= ARENA_TENSOR_BYTES) {
        tensor->data = arena_try_aligned(call->arena, size, MEM_ALIGN);
    } else {
        tensor->block = block_pool_take(call->blocks, size);
        tensor->data = tensor->block == NULL ? NULL : tensor->block->data;
    }
    if (tensor->data == NULL) {
        return err_nomem(err, "an input", size);
    }
    tensor->size = size;
    return WEIR_OK;
}

enum weir_status kserve_check_size(const struct infer_call *call, const struct tensor *tensor,
                                   struct bytes name, uint64_t size, const char *where,
                                   struct weir_err *err)
{
    if (tensor->dtype == DTYPE_BYTES) {
        return WEIR_OK;
    }
    size_t expected;
    const enum weir_status status = tensor_bytes(tensor->dtype, &tensor->shape, &expected, err);
    if (status != WEIR_OK || expected == size) {
        return status;
    }
    char shape[SHAPE_TEXT];
    return err_set(err, WEIR_EINVAL,
                   "input byte size mismatch for input '%.*s' for model '%s'. Expected %zu (%s of "
                   "shape %s), got %" PRIu64 "%s",
                   SHOWN(name), call->model->name, expected, dtype_text(tensor->dtype),
                   shape_format(&tensor->shape, shape), size, where);
}

/* Tensors begin at a cache line; but large ones stay where they are if their elements are aligned,
 * since moving them costs more than unaligned vector loads. */
static bool lies_well(const struct tensor *tensor, struct bytes data)
{
    const uintptr_t at = (uintptr_t)data.data;
    if (tensor->dtype == DTYPE_BYTES || data.size == 0 || at % MEM_ALIGN == 0) {
        return true;
    }
    return data.size > MOVE_BYTES_MAX && at % dtype_size(tensor->dtype) == 0;
}

enum weir_status kserve_lend(struct infer_call *call, struct tensor *tensor, struct bytes name,
                             struct bytes data, struct weir_err *err)
{
    enum weir_status status = kserve_check_size(call, tensor, name, data.size, "", err);
    if (status != WEIR_OK) {
        return status;
    }
    if (!lies_well(tensor, data)) {
        status = kserve_room(call, tensor, data.size, err);
        if (status == WEIR_OK) {
            memcpy(tensor->data, data.data, data.size);
        }
        return status;
    }
    /* The engine only reads inputs. */
    tensor->data = (uint8_t *)(uintptr_t)data.data;
    tensor->size = data.size;
    if (tensor->dtype == DTYPE_BYTES) {
        status = tensor_check_strings(tensor, err);
        if (status != WEIR_OK) {
            (void)err_prefix(err, "input '%.*s'", SHOWN(name));
        }
    }
    return status;
}

enum weir_status kserve_output(struct infer_call *call, struct bytes name,
                               struct infer_output **out, struct weir_err *err)
{
    const struct signature *signature = call->model->signature;
    uint32_t index;
    if (!find_spec(signature->outputs, signature->output_count, name, &index)) {
        char names[NAMES_BYTES];
        return err_set(err, WEIR_EINVAL,
                       "unexpected inference output '%.*s' for model '%s', expected %s",
                       SHOWN(name), call->model->name,
                       list_names(signature->outputs, signature->output_count, names));
    }
    for (uint32_t i = 0; i < call->output_count; i++) {
        if (call->outputs[i].index == index) {
            return err_set(err, WEIR_EINVAL, "output '%s' already exists in request",
                           signature->outputs[index].name);
        }
    }
    struct infer_output *asked = &call->outputs[call->output_count++];
    *asked = (struct infer_output){ .index = index };
    *out = asked;
    return WEIR_OK;
}

/* In Triton's words: how many came, which, and which are missing. */
static enum weir_status complain_missing(const struct infer_call *call, struct weir_err *err)
{
    const struct signature *signature = call->model->signature;
    char got[NAMES_BYTES] = "";
    char missing[NAMES_BYTES] = "";
    uint32_t count = 0;
    uint32_t required = 0;
    for (uint32_t i = 0; i < signature->input_count; i++) {
        const bool present = call->request.inputs[i].present;
        char *list = present ? got : missing;
        const size_t size = strlen(list);
        count += present;
        required += !signature->inputs[i].optional;
        if (present || !signature->inputs[i].optional) {
            (void)snprintf(list + size, NAMES_BYTES - size, "%s'%s'", size == 0 ? "" : ",",
                           signature->inputs[i].name);
        }
    }
    return err_set(err, WEIR_EINVAL,
                   "expected %u inputs but got %u inputs for model '%s'. Got input(s) [%s], but "
                   "missing required input(s) [%s]. Please provide all required input(s).",
                   required, count, call->model->name, got, missing);
}

static bool is_half(enum dtype dtype)
{
    return dtype == DTYPE_FP16 || dtype == DTYPE_BF16;
}

static enum weir_status check_output(const struct infer_call *call,
                                     const struct infer_output *asked, struct weir_err *err)
{
    const struct tensor_spec *spec = &call->model->signature->outputs[asked->index];
    const char *type = dtype_text(spec->dtype);
    if (asked->classes > 0 &&
        (is_half(spec->dtype) || spec->dtype == DTYPE_BOOL || spec->dtype == DTYPE_BYTES)) {
        return err_set(err, WEIR_EINVAL,
                       "output '%s': classification needs an integer, FP32 or FP64 tensor, found "
                       "%s",
                       spec->name, type);
    }
    if (!asked->binary && asked->shared == NULL && asked->classes == 0 && is_half(spec->dtype)) {
        return err_set(err, WEIR_EINVAL,
                       "sending %s data via JSON is not supported. Please use the binary data "
                       "format for output '%s'",
                       type, spec->name);
    }
    return WEIR_OK;
}

enum weir_status kserve_complete(struct infer_call *call, struct weir_err *err)
{
    const struct signature *signature = call->model->signature;
    for (uint32_t i = 0; i < signature->input_count; i++) {
        if (!call->request.inputs[i].present && !signature->inputs[i].optional) {
            return complain_missing(call, err);
        }
    }
    if (call->output_count == 0) {
        for (uint32_t i = 0; i < signature->output_count; i++) {
            call->outputs[i] = (struct infer_output){ .index = i, .binary = call->binary_default };
        }
        call->output_count = signature->output_count;
    }
    for (uint32_t i = 0; i < call->output_count; i++) {
        const enum weir_status status = check_output(call, &call->outputs[i], err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    kserve_want(call);
    return WEIR_OK;
}

bool kserve_is_plain(const struct infer_call *call)
{
    const struct request *request = &call->request;
    return call->id.size == 0 && call->timeout_ns == 0 && call->priority == 0 && !call->timing &&
           call->places == NULL && request->sequence_id.number == 0 &&
           request->sequence_id.text.size == 0 && !request->sequence_start &&
           !request->sequence_end;
}

void kserve_want(struct infer_call *call)
{
    bool *wanted = (bool *)(uintptr_t)call->request.wanted; /* Ours until the submit. */
    for (uint32_t i = 0; i < call->output_count; i++) {
        wanted[call->outputs[i].index] = true;
    }
}

static void request_ended(struct request *request)
{
    struct infer_call *call = list_entry(request, struct infer_call, request);
    if (call->id.size > 0) {
        list_remove(&call->named);
    }
    call->ended(call);
}

static void request_late(struct request *request)
{
    struct infer_call *call = list_entry(request, struct infer_call, request);
    if (call->late != NULL) {
        call->late(call);
    }
}

static void request_part(struct request *request, struct request_part *part)
{
    struct infer_call *call = list_entry(request, struct infer_call, request);
    call->part(call, part);
}

/* Under a configuration in Triton's words `timeout` is the longest wait in line, where the model
 * allows one; else it is a deadline. */
static void set_timeout(struct infer_call *call)
{
    struct request *request = &call->request;
    const struct model_config *config = call->model->config;
    request->queue_timeout_ns = CLOCK_NEVER;
    if (call->timeout_ns == 0) {
        return;
    }
    if (config->proto) {
        request->queue_timeout_ns = call->timeout_ns;
        return;
    }
    const uint64_t at_ns = clock_add(call->received_ns, call->timeout_ns);
    request->deadline_ns = at_ns < request->deadline_ns ? at_ns : request->deadline_ns;
}

enum weir_status kserve_submit(struct infer_call *call, struct api_loop *loop, struct weir_err *err)
{
    struct request *request = &call->request;
    request->home = &loop->home;
    request->priority = call->priority;
    request->priority_best = call->client.priority_best;
    request->client = call->client.digest;
    request->client_weight = call->client.weight;
    request->deadline_ns = call->deadline_ns;
    request->waited_ns = loop->loop->now_ns - loop->loop->came_ns;
    set_timeout(call);
    request->ended = request_ended;
    request->late = request_late;
    request->part = call->part == NULL ? NULL : request_part;
    request->facts = answer_memory_facts(call);
    const enum weir_status status = pipeline_submit(loop->home.engine, request, err);
    if (status == WEIR_OK && call->id.size > 0) {
        list_append(&loop->named, &call->named);
    }
    return status;
}

void kserve_cancel(struct infer_call *call)
{
    pipeline_cancel(call->request.home->engine, &call->request);
}

void kserve_written(struct infer_call *call)
{
    if (call->model == NULL) {
        return;
    }
    const struct signature *signature = call->model->signature;
    for (uint32_t i = 0; i < signature->input_count; i++) {
        block_release(call->request.inputs[i].block);
    }
    call->lent_count = signature->output_count;
    kserve_release_shared(call);
    model_release(call->model);
    call->model = NULL;
}

void kserve_close(struct infer_call *call)
{
    kserve_written(call);
    for (uint32_t i = 0; i < call->lent_count; i++) {
        block_release(call->request.outputs[i].block);
    }
    call->lent_count = 0;
}

void kserve_shape(const struct model *model, bool output, uint32_t index, struct shape *out)
{
    const struct signature *signature = model->signature;
    const struct model_config *config = model->config;
    const struct tensor_spec *spec =
        output ? &signature->outputs[index] : &signature->inputs[index];
    const struct io_config *configs = output ? config->outputs : config->inputs;
    const uint32_t count = output ? config->output_count : config->input_count;
    *out = spec->shape;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t batch = config->max_batch_size > 0 ? 1 : 0;
        if (strcmp(configs[i].name, spec->name) == 0 && configs[i].has_dims &&
            configs[i].dims.rank + batch == spec->shape.rank) {
            memcpy(out->dims + batch, configs[i].dims.dims,
                   configs[i].dims.rank * sizeof out->dims[0]);
        }
    }
}
