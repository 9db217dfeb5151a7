/*
 * What a message said, in the terms of a call.
 *
 * Names are compared with the model's only when all is read: fields may come in any
 * order, and no lease is held while a slow client sends.
 */
#include "api/infer_proto.h"

#include "api/kserve_shared.h"

#define SHOWN(text) ((text).size > 128 ? 128 : (int)(text).size), (text).data

static enum weir_status bind_parameter(struct infer_proto *proto, struct infer_call *call,
                                       const struct infer_proto_parameter *parameter,
                                       struct weir_err *err)
{
    if (!parameter->has_value) {
        return err_set(err, WEIR_EINVAL,
                       "parameter '%.*s' has no value: found none of bool_param, int64_param, "
                       "string_param, double_param and uint64_param",
                       SHOWN(parameter->key));
    }
    if (!bytes_equal(parameter->key, BYTES_LITERAL("triton_enable_empty_final_response"))) {
        return kserve_parameter(call, parameter->key, &parameter->value, err);
    }
    if (parameter->value.kind != INFER_BOOL) {
        return err_set(err, WEIR_EINVAL, "parameter '%.*s': expected bool_param",
                       SHOWN(parameter->key));
    }
    proto->empty_final = parameter->value.boolean;
    return WEIR_OK;
}

static bool is_shared(const struct infer_proto_shared *shared)
{
    return shared->region.key.size > 0;
}

static enum weir_status read_number(const struct infer_proto_parameter *parameter,
                                    struct bytes tensor, uint64_t *out, struct weir_err *err)
{
    if (!parameter->has_value || parameter->value.kind != INFER_UINT) {
        return err_set(err, WEIR_EINVAL,
                       "'%.*s': invalid value for '%.*s' parameter, expected int64_param of at "
                       "least 0",
                       SHOWN(tensor), SHOWN(parameter->key));
    }
    *out = parameter->value.number;
    return WEIR_OK;
}

static enum weir_status read_where(const struct infer_call *call,
                                   const struct infer_proto_shared *shared, struct bytes tensor,
                                   struct kserve_where *out, struct weir_err *err)
{
    if (kserve_shared_allowed(call, err) != WEIR_OK) {
        (void)err_prefix(err, "'%.*s'", SHOWN(tensor));
        return WEIR_EUNSUPPORTED;
    }
    if (!shared->region.has_value || shared->region.value.kind != INFER_STRING) {
        return err_set(err, WEIR_EINVAL,
                       "'%.*s': invalid value for 'shared_memory_region' parameter, expected "
                       "string_param",
                       SHOWN(tensor));
    }
    if (shared->size.key.size == 0) {
        return err_set(err, WEIR_EINVAL,
                       "'%.*s': 'shared_memory_byte_size' parameter must be specified along with "
                       "'shared_memory_region'",
                       SHOWN(tensor));
    }
    *out = (struct kserve_where){ .region = shared->region.value.text };
    enum weir_status status = read_number(&shared->size, tensor, &out->size, err);
    if (status == WEIR_OK && shared->offset.key.size > 0) {
        status = read_number(&shared->offset, tensor, &out->offset, err);
    }
    return status;
}

/* An input that comes from shared memory. */
static enum weir_status bind_shared(struct infer_call *call, const struct infer_proto_input *input,
                                    struct tensor *tensor, const struct kserve_where *where,
                                    struct weir_err *err)
{
    if (input->typed) {
        return err_set(err, WEIR_EINVAL,
                       "unexpected 'contents' provided when using shared memory for input tensor "
                       "'%.*s' for model '%s'",
                       SHOWN(input->name), call->model->name);
    }
    return kserve_share_input(call, tensor, input->name, where, err);
}

static enum weir_status check_typed(const struct infer_proto *proto,
                                    const struct infer_proto_input *input,
                                    const struct infer_call *call, enum dtype dtype,
                                    struct weir_err *err)
{
    const struct infer_proto_values *values = &input->values;
    if (proto->raws != NULL) {
        return err_set(err, WEIR_EINVAL,
                       "contents field must not be specified when using raw_input_contents for "
                       "'%.*s' for model '%s'",
                       SHOWN(input->name), call->model->name);
    }
    if (values->mixed) {
        return err_set(err, WEIR_EINVAL,
                       "unexpected explicit tensor data for input tensor '%.*s' for model '%s', "
                       "binary data was already supplied.",
                       SHOWN(input->name), call->model->name);
    }
    if (values->field != 0 && !infer_proto_values_suit(values->field, dtype)) {
        return err_set(err, WEIR_EINVAL,
                       "unexpected explicit tensor data for input tensor '%.*s' for model '%s' of "
                       "type '%s', expected datatype '%s'",
                       SHOWN(input->name), call->model->name,
                       infer_proto_values_type(values->field), dtype_text(dtype));
    }
    return WEIR_OK;
}

/* Gives the tensor its bytes, which it holds from then on also where they are refused. */
static enum weir_status lend(struct infer_call *call, struct tensor *tensor, struct bytes name,
                             struct infer_proto_room *room, struct weir_err *err)
{
    const struct bytes data = { (const char *)room->data, room->size };
    tensor->block = room->block;
    room->block = NULL;
    return kserve_lend(call, tensor, name, data, err);
}

static enum weir_status bind_input(struct infer_proto *proto, struct infer_call *call,
                                   struct infer_proto_input *input, struct infer_proto_raw **raw,
                                   struct weir_err *err)
{
    struct tensor *tensor;
    struct kserve_where where;
    const bool shared = is_shared(&input->shared);
    enum weir_status status =
        shared ? read_where(call, &input->shared, input->name, &where, err) : WEIR_OK;
    if (status == WEIR_OK) {
        status = kserve_input(call, input->name, input->datatype, &input->shape, &tensor, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    if (shared) {
        return bind_shared(call, input, tensor, &where, err);
    }
    if (input->typed) {
        status = check_typed(proto, input, call, tensor->dtype, err);
        if (status != WEIR_OK) {
            return status;
        }
        infer_proto_values_fit(&input->values, tensor->dtype);
        if (input->values.beyond) {
            return err_set(err, WEIR_EINVAL,
                           "input '%.*s': a number in its contents is beyond its type %s",
                           SHOWN(input->name), dtype_text(tensor->dtype));
        }
        return lend(call, tensor, input->name, &input->values.room, err);
    }
    if (*raw == NULL) {
        return err_set(err, WEIR_EINVAL,
                       "unable to find data for input tensor '%.*s' for model '%s' in request.",
                       SHOWN(input->name), call->model->name);
    }
    struct infer_proto_room *room = &(*raw)->room;
    *raw = (*raw)->next;
    return lend(call, tensor, input->name, room, err);
}

static enum weir_status bind_output(struct infer_call *call, const struct infer_proto_output *asked,
                                    struct weir_err *err)
{
    struct infer_output *output;
    struct kserve_where where;
    const bool shared = is_shared(&asked->shared);
    enum weir_status status = kserve_output(call, asked->name, &output, err);
    if (status == WEIR_OK && shared) {
        status = read_where(call, &asked->shared, asked->name, &where, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    output->binary = true;
    if (!asked->classified) {
        return shared ? kserve_share_output(call, output, &where, err) : WEIR_OK;
    }
    const struct infer_value *classes = &asked->classes.value;
    if (!asked->classes.has_value || classes->kind != INFER_UINT || classes->number == 0 ||
        classes->number > UINT32_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "output '%.*s': invalid value for 'classification' parameter, expected "
                       "int64_param with a number of classes > 0",
                       SHOWN(asked->name));
    }
    output->classes = (uint32_t)classes->number;
    return shared ? kserve_share_output(call, output, &where, err) : WEIR_OK;
}

enum weir_status infer_proto_bind(struct infer_proto *proto, struct infer_call *call,
                                  struct weir_err *err)
{
    call->id = proto->id;
    call->binary_default = true;
    enum weir_status status = WEIR_OK;
    for (const struct infer_proto_parameter *it = proto->parameters;
         it != NULL && status == WEIR_OK; it = it->next) {
        status = bind_parameter(proto, call, it, err);
    }
    call->binary_default = true; /* There is no other kind of output here. */
    struct infer_proto_raw *raw = proto->raws;
    for (struct infer_proto_input *it = proto->inputs; it != NULL && status == WEIR_OK;
         it = it->next) {
        status = bind_input(proto, call, it, &raw, err);
    }
    if (status == WEIR_OK && raw != NULL) {
        return err_set(err, WEIR_EINVAL,
                       "raw_input_contents: found more of them than inputs, expected one for each");
    }
    for (const struct infer_proto_output *it = proto->outputs; it != NULL && status == WEIR_OK;
         it = it->next) {
        status = bind_output(call, it, err);
    }
    return status == WEIR_OK ? kserve_complete(call, err) : status;
}

uint64_t infer_proto_bind_bytes(const struct infer_proto *proto)
{
    uint64_t bytes = 0;
    const struct infer_proto_raw *raw = proto->raws;
    for (const struct infer_proto_input *it = proto->inputs; it != NULL; it = it->next) {
        enum dtype dtype;
        const bool strings = dtype_of(it->datatype, &dtype) && dtype == DTYPE_BYTES;
        const uint32_t width = it->values.width;
        const bool wide = width > 0 && dtype_of(it->datatype, &dtype) && dtype_size(dtype) < width;
        if (is_shared(&it->shared)) {
            return UINT64_MAX; /* Nobody knows before it is looked up. */
        }
        if (it->typed) {
            bytes += strings || wide ? it->values.room.size : 0;
        } else if (raw != NULL) {
            bytes += strings ? raw->room.size : 0;
            raw = raw->next;
        }
    }
    return bytes;
}
