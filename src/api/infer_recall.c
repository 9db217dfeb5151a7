/*
 * What stands before the tensors is compared byte for byte, and so are the tags and sizes between
 * them.
 */
#include "api/infer_recall.h"

#include <string.h>

#include "util/protowire.h"

#define REQUEST_RAW 7 /* The field raw_input_contents. */

/* The tag and size before a tensor of `size` bytes, as every encoder writes them. */
static size_t tensor_head(char out[16], size_t size)
{
    struct protowire_out write = { .at = (uint8_t *)out };
    protowire_put_begin(&write, REQUEST_RAW, size);
    return (size_t)write.size;
}

/* Whether what stands behind the head is exactly tensors of these sizes. */
static bool find_tensors(const struct infer_recall *self, struct bytes message,
                         struct bytes tensors[INFER_RECALL_TENSORS])
{
    char head[16];
    size_t at = self->head_size;
    for (uint32_t i = 0; i < self->input_count; i++) {
        const size_t size = self->inputs[i].size;
        const size_t head_size = tensor_head(head, size);
        if (message.size - at < head_size + size ||
            memcmp(message.data + at, head, head_size) != 0) {
            return false;
        }
        tensors[i] = (struct bytes){ message.data + at + head_size, size };
        at += head_size + size;
    }
    return at == message.size;
}

bool infer_recall_is(const struct infer_recall *self, struct bytes message, uint64_t generation,
                     struct bytes tensors[INFER_RECALL_TENSORS])
{
    return self->model != NULL && self->message_size == message.size &&
           self->generation == generation &&
           memcmp(message.data, self->head, self->head_size) == 0 &&
           find_tensors(self, message, tensors);
}

static enum weir_status copy_tensor(struct infer_call *call, struct tensor *tensor,
                                    const char *name, struct bytes data, struct weir_err *err)
{
    const enum weir_status status = kserve_room(call, tensor, data.size, err);
    if (status != WEIR_OK || data.size == 0) {
        return status;
    }
    memcpy(tensor->data, data.data, data.size);
    if (tensor->dtype != DTYPE_BYTES) {
        return WEIR_OK; /* Its size was right for its shape the last time, too. */
    }
    const struct bytes copy = { (const char *)tensor->data, data.size };
    return kserve_lend(call, tensor, bytes_of(name), copy, err);
}

enum weir_status infer_recall_bind(struct infer_recall *self, struct infer_call *call,
                                   const struct bytes *tensors, struct weir_err *err)
{
    const struct signature *signature = call->model->signature;
    for (uint32_t i = 0; i < self->input_count; i++) {
        const uint32_t index = self->inputs[i].index;
        struct tensor *tensor = &call->request.inputs[index];
        tensor->dtype = signature->inputs[index].dtype;
        tensor->place = PLACE_HOST;
        tensor->shape = self->inputs[i].shape;
        tensor->present = true;
        const enum weir_status status =
            copy_tensor(call, tensor, signature->inputs[index].name, tensors[i], err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    memcpy(call->outputs, self->outputs, self->output_count * sizeof *call->outputs);
    call->output_count = self->output_count;
    call->binary_default = true;
    kserve_want(call);
    answer_memory_join(&self->answer, call);
    return WEIR_OK;
}

static bool read_varint(struct bytes message, size_t *at, uint64_t *out)
{
    struct protowire_varint number = { 0 };
    const uint8_t *from = (const uint8_t *)message.data + *at;
    const uint8_t *next = from;
    if (protowire_varint_read(&number, &next, (const uint8_t *)message.data + message.size) !=
        VARINT_DONE) {
        return false;
    }
    *at += (size_t)(next - from);
    *out = number.value;
    return true;
}

/* Passes over a field of bytes; false when it is another one, or cut. */
static bool next_field(struct bytes message, size_t *at, uint64_t *field, uint64_t *size)
{
    uint64_t tag;
    if (!read_varint(message, at, &tag) || (tag & 7) != PROTOWIRE_TYPE_BYTES ||
        !read_varint(message, at, size) || *size > message.size - *at) {
        return false;
    }
    *field = tag >> 3;
    *at += (size_t)*size;
    return true;
}

/* Where the first tensor begins, and how large all are. */
static bool take_sizes(struct infer_recall *self, struct bytes message)
{
    uint64_t field;
    uint64_t size;
    self->input_count = 0;
    self->head_size = 0;
    for (size_t at = 0; at < message.size;) {
        if (!next_field(message, &at, &field, &size) || self->input_count == INFER_RECALL_TENSORS) {
            return false;
        }
        if (field == REQUEST_RAW) {
            self->inputs[self->input_count++].size = (size_t)size;
        } else {
            self->head_size = at; /* One behind a tensor makes find_tensors() refuse. */
        }
    }
    return true;
}

bool infer_recall_begin(struct infer_recall *self, struct bytes message)
{
    struct bytes tensors[INFER_RECALL_TENSORS];
    self->model = NULL;
    answer_memory_begin(&self->answer);
    if (!take_sizes(self, message) || self->head_size > sizeof self->head ||
        !find_tensors(self, message, tensors)) {
        return false;
    }
    self->message_size = message.size;
    memcpy(self->head, message.data, self->head_size);
    return true;
}

void infer_recall_end(struct infer_recall *self, uint64_t serial, struct infer_call *call,
                      const uint32_t *input_indices, uint32_t input_count, uint64_t generation)
{
    if (self->answer.serial != serial || !kserve_is_plain(call) ||
        input_count != self->input_count || call->output_count > INFER_RECALL_TENSORS) {
        return;
    }
    for (uint32_t i = 0; i < input_count; i++) {
        self->inputs[i].index = input_indices[i];
        self->inputs[i].shape = call->request.inputs[input_indices[i]].shape;
    }
    memcpy(self->outputs, call->outputs, call->output_count * sizeof *call->outputs);
    self->output_count = call->output_count;
    self->generation = generation;
    self->model = call->model;
    answer_memory_join(&self->answer, call);
}
