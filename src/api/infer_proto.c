/*
 * A walk over the message's tokens.  `open` says which message is open; for each there
 * is one function that says what a field of bytes is, and one that takes a number.  A
 * string field goes to its sink until it ends.  What the schema does not know is
 * passed over, and of a field that comes twice the later one counts, as protobuf has it.
 */
#include "api/infer_proto.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "net/body.h"

#define SLICE_BYTES 65536 /* Typed contents may grow eightfold before they are counted. */
#define SHOWN(text) ((text).size > 128 ? 128 : (int)(text).size), (text).data

enum message { IN_REQUEST, IN_INPUT, IN_OUTPUT, IN_ENTRY, IN_VALUE, IN_CONTENTS };

enum sink { TO_NOTHING, TO_TEXT, TO_RAW, TO_SHAPE, TO_VALUES, TO_STRING };

void infer_proto_begin(struct infer_proto *proto, struct arena *arena, struct block_pool *blocks,
                       const struct limits *limits, uint64_t message_size)
{
    *proto = (struct infer_proto){
        .memory = { arena, blocks },
        .limits = limits,
        .open = IN_REQUEST,
        .sink = TO_NOTHING,
    };
    protowire_init(&proto->wire, message_size);
}

/* A zeroed piece for the next of something that there is `max` of at most. */
static enum weir_status add(struct infer_proto *proto, uint32_t *count, uint32_t max, size_t size,
                            const char *what, void **out, struct weir_err *err)
{
    if (*count == max) {
        return err_set(err, WEIR_ETOOBIG, "found more than %" PRIu32 " %s in a request", max, what);
    }
    void *piece = arena_try_zero(proto->memory.arena, 1, size);
    if (piece == NULL) {
        return err_nomem(err, what, size);
    }
    ++*count;
    *out = piece;
    return WEIR_OK;
}

static enum weir_status add_input(struct infer_proto *proto, struct weir_err *err)
{
    void *made;
    const enum weir_status status = add(proto, &proto->input_count, INFER_PROTO_TENSORS_MAX,
                                        sizeof *proto->input, "inputs", &made, err);
    if (status == WEIR_OK) {
        struct infer_proto_input **place =
            proto->inputs == NULL ? &proto->inputs : &proto->input->next;
        proto->input = *place = made;
    }
    return status;
}

static enum weir_status add_output(struct infer_proto *proto, struct weir_err *err)
{
    void *made;
    const enum weir_status status = add(proto, &proto->output_count, INFER_PROTO_TENSORS_MAX,
                                        sizeof *proto->output, "requested outputs", &made, err);
    if (status == WEIR_OK) {
        struct infer_proto_output **place =
            proto->outputs == NULL ? &proto->outputs : &proto->output->next;
        proto->output = *place = made;
    }
    return status;
}

static enum weir_status add_raw(struct infer_proto *proto, uint64_t size, struct weir_err *err)
{
    void *made;
    const enum weir_status status = add(proto, &proto->raw_count, INFER_PROTO_TENSORS_MAX,
                                        sizeof *proto->raw, "raw_input_contents", &made, err);
    if (status != WEIR_OK) {
        return status;
    }
    struct infer_proto_raw **place = proto->raws == NULL ? &proto->raws : &proto->raw->next;
    proto->raw = *place = made;
    proto->sink = TO_RAW;
    return infer_proto_room_reserve(&proto->raw->room, &proto->memory, (size_t)size, err);
}

static enum weir_status begin_text(struct infer_proto *proto, struct bytes *to, uint64_t size,
                                   struct weir_err *err)
{
    if (size > INFER_PROTO_TEXT_MAX) {
        return err_set(err, WEIR_ETOOBIG,
                       "found a name, an id or a parameter of %" PRIu64 " bytes, expected at most "
                       "%d",
                       size, INFER_PROTO_TEXT_MAX);
    }
    proto->text_at = arena_try_aligned(proto->memory.arena, (size_t)size, 1);
    if (proto->text_at == NULL) {
        return err_nomem(err, "a request's text", size);
    }
    proto->text = to;
    proto->text_size = 0;
    proto->sink = TO_TEXT;
    return WEIR_OK;
}

static enum weir_status end_text(struct infer_proto *proto, struct weir_err *err)
{
    const struct bytes text = { proto->text_at, proto->text_size };
    for (size_t at = 0; at < text.size;) {
        const bool ascii = (unsigned char)text.data[at] < 0x80;
        const size_t size =
            ascii ? 1 : bytes_utf8_size((struct bytes){ text.data + at, text.size - at });
        if (size == 0) {
            return err_set(err, WEIR_EINVAL,
                           "malformed protobuf message: a string that is not UTF-8: '%.*s'",
                           SHOWN(text));
        }
        at += size;
    }
    *proto->text = text;
    return WEIR_OK;
}

static void enter(struct infer_proto *proto, enum message message)
{
    protowire_enter(&proto->wire);
    proto->open = (uint8_t)message;
}

static enum weir_status skip(struct infer_proto *proto)
{
    protowire_skip(&proto->wire);
    return WEIR_OK;
}

static enum weir_status begin_entry(struct infer_proto *proto)
{
    proto->entry = (struct infer_proto_parameter){ 0 };
    proto->owner = proto->open;
    enter(proto, IN_ENTRY);
    return WEIR_OK;
}

static enum weir_status begin_in_request(struct infer_proto *proto, uint32_t field, uint64_t size,
                                         struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    switch (field) {
    case 1:
        return begin_text(proto, &proto->model_name, size, err);
    case 2:
        return begin_text(proto, &proto->model_version, size, err);
    case 3:
        return begin_text(proto, &proto->id, size, err);
    case 4:
        return begin_entry(proto);
    case 5:
        status = add_input(proto, err);
        enter(proto, IN_INPUT);
        return status;
    case 6:
        status = add_output(proto, err);
        enter(proto, IN_OUTPUT);
        return status;
    case 7:
        return add_raw(proto, size, err);
    default:
        return skip(proto);
    }
}

static enum weir_status begin_in_input(struct infer_proto *proto, uint32_t field, uint64_t size,
                                       struct weir_err *err)
{
    switch (field) {
    case 1:
        return begin_text(proto, &proto->input->name, size, err);
    case 2:
        return begin_text(proto, &proto->input->datatype, size, err);
    case 3:
        proto->sink = TO_SHAPE;
        return WEIR_OK;
    case 4:
        return begin_entry(proto);
    case 5:
        proto->input->typed = true;
        enter(proto, IN_CONTENTS);
        return WEIR_OK;
    default:
        return skip(proto);
    }
}

static enum weir_status begin_in_output(struct infer_proto *proto, uint32_t field, uint64_t size,
                                        struct weir_err *err)
{
    switch (field) {
    case 1:
        return begin_text(proto, &proto->output->name, size, err);
    case 2:
        return begin_entry(proto);
    default:
        return skip(proto);
    }
}

static enum weir_status begin_in_entry(struct infer_proto *proto, uint32_t field, uint64_t size,
                                       struct weir_err *err)
{
    switch (field) {
    case 1:
        return begin_text(proto, &proto->entry.key, size, err);
    case 2:
        enter(proto, IN_VALUE);
        return WEIR_OK;
    default:
        return skip(proto);
    }
}

static enum weir_status begin_in_value(struct infer_proto *proto, uint32_t field, uint64_t size,
                                       struct weir_err *err)
{
    if (field != 3) {
        return skip(proto);
    }
    proto->entry.has_value = true;
    proto->entry.value = (struct infer_value){ .kind = INFER_STRING };
    return begin_text(proto, &proto->entry.value.text, size, err);
}

/* Values of `field` begin, `wire_bytes` of them at most. */
static enum weir_status begin_values(struct infer_proto *proto, uint32_t field, uint64_t wire_bytes,
                                     struct weir_err *err)
{
    struct infer_proto_input *input = proto->input;
    enum dtype dtype;
    uint64_t elements;
    size_t bytes = 0;
    const bool known = dtype_of(input->datatype, &dtype);
    const bool shaped =
        input->shape.rank > 0 && shape_elements(&input->shape, &elements, NULL) == WEIR_OK;
    if (known && shaped && dtype == DTYPE_BYTES) {
        bytes = (size_t)(wire_bytes + 4 * elements);
    } else if (known && shaped && tensor_bytes(dtype, &input->shape, &bytes, NULL) != WEIR_OK) {
        bytes = 0;
    }
    return infer_proto_values_begin(&input->values, &proto->memory, field, wire_bytes,
                                    known ? &dtype : NULL, bytes, err);
}

static enum weir_status begin_in_contents(struct infer_proto *proto, uint32_t field, uint64_t size,
                                          struct weir_err *err)
{
    const bool string = field == 8;
    const uint64_t wire_bytes = string ? protowire_left(&proto->wire) : size;
    enum weir_status status = begin_values(proto, field, wire_bytes, err);
    if (status == WEIR_OK && string) {
        struct infer_proto_values *values = &proto->input->values;
        const size_t before = values->room.size;
        status = infer_proto_values_string(values, &proto->memory, size, err);
        proto->values_bytes += values->room.size - before;
    }
    proto->sink = string ? TO_STRING : TO_VALUES;
    return status;
}

static enum weir_status begin_field(struct infer_proto *proto, uint32_t field, uint64_t size,
                                    struct weir_err *err)
{
    switch ((enum message)proto->open) {
    case IN_REQUEST:
        return begin_in_request(proto, field, size, err);
    case IN_INPUT:
        return begin_in_input(proto, field, size, err);
    case IN_OUTPUT:
        return begin_in_output(proto, field, size, err);
    case IN_ENTRY:
        return begin_in_entry(proto, field, size, err);
    case IN_VALUE:
        return begin_in_value(proto, field, size, err);
    case IN_CONTENTS:
        return begin_in_contents(proto, field, size, err);
    }
    return WEIR_OK;
}

static enum weir_status add_dim(struct infer_proto *proto, uint64_t dim, struct weir_err *err)
{
    struct shape *shape = &proto->input->shape;
    if (shape->rank == TENSOR_RANK_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "input '%.*s': found a shape of more than %d dimensions, expected at most "
                       "%d",
                       SHOWN(proto->input->name), TENSOR_RANK_MAX, TENSOR_RANK_MAX);
    }
    shape->dims[shape->rank++] = (int64_t)dim;
    return WEIR_OK;
}

static enum weir_status read_dims(struct infer_proto *proto, struct bytes bytes,
                                  struct weir_err *err)
{
    const uint8_t *at = (const uint8_t *)bytes.data;
    const uint8_t *end = at + bytes.size;
    while (at < end) {
        switch (protowire_varint_read(&proto->dim, &at, end)) {
        case VARINT_MORE:
            return WEIR_OK;
        case VARINT_BAD:
            return err_set(err, WEIR_EINVAL,
                           "malformed protobuf message: a dimension of more than 64 bits");
        case VARINT_DONE:
            break;
        }
        const enum weir_status status = add_dim(proto, proto->dim.value, err);
        if (status != WEIR_OK) {
            return status;
        }
        proto->dim = (struct protowire_varint){ 0 };
    }
    return WEIR_OK;
}

static enum weir_status end_dims(const struct infer_proto *proto, struct weir_err *err)
{
    if (proto->dim.shift == 0) {
        return WEIR_OK;
    }
    return err_set(err, WEIR_EINVAL, "malformed protobuf message: a shape ends within a number");
}

static enum weir_status take_values(struct infer_proto *proto, struct bytes bytes,
                                    struct weir_err *err)
{
    struct infer_proto_values *values = &proto->input->values;
    const size_t before = values->room.size;
    const enum weir_status status = infer_proto_values_packed(values, &proto->memory, bytes, err);
    proto->values_bytes += values->room.size - before;
    return status;
}

static enum weir_status take_bytes(struct infer_proto *proto, struct bytes bytes,
                                   struct weir_err *err)
{
    struct infer_proto_room *room;
    switch ((enum sink)proto->sink) {
    case TO_TEXT:
        memcpy(proto->text_at + proto->text_size, bytes.data, bytes.size);
        proto->text_size += bytes.size;
        break;
    case TO_RAW:
        room = &proto->raw->room;
        if (bytes.data != (const char *)room->data + room->size) {
            memcpy(room->data + room->size, bytes.data, bytes.size);
        }
        room->size += bytes.size;
        break;
    case TO_SHAPE:
        return read_dims(proto, bytes, err);
    case TO_VALUES:
    case TO_STRING:
        return take_values(proto, bytes, err);
    case TO_NOTHING:
        break;
    }
    return WEIR_OK;
}

static bool key_is(const struct infer_proto *proto, const char *key)
{
    return bytes_equal(proto->entry.key, bytes_of(key));
}

static void end_shared(const struct infer_proto *proto, struct infer_proto_shared *shared)
{
    if (key_is(proto, "shared_memory_region")) {
        shared->region = proto->entry;
    } else if (key_is(proto, "shared_memory_offset")) {
        shared->offset = proto->entry;
    } else if (key_is(proto, "shared_memory_byte_size")) {
        shared->size = proto->entry;
    }
}

/* A parameter is complete. */
static enum weir_status end_entry(struct infer_proto *proto, struct weir_err *err)
{
    void *made;
    enum weir_status status;
    proto->open = proto->owner;
    switch ((enum message)proto->owner) {
    case IN_INPUT:
        end_shared(proto, &proto->input->shared);
        return WEIR_OK;
    case IN_OUTPUT:
        end_shared(proto, &proto->output->shared);
        if (key_is(proto, "classification")) {
            proto->output->classified = true;
            proto->output->classes = proto->entry;
        }
        return WEIR_OK;
    default:
        break;
    }
    status = add(proto, &proto->parameter_count, INFER_PROTO_PARAMETERS_MAX, sizeof proto->entry,
                 "parameters", &made, err);
    if (status == WEIR_OK) {
        struct infer_proto_parameter **place =
            proto->parameters == NULL ? &proto->parameters : &proto->parameter->next;
        proto->parameter = *place = made;
        *proto->parameter = proto->entry;
    }
    return status;
}

static enum weir_status end_field(struct infer_proto *proto, struct weir_err *err)
{
    const enum sink sink = (enum sink)proto->sink;
    proto->sink = TO_NOTHING;
    switch (sink) {
    case TO_TEXT:
        return end_text(proto, err);
    case TO_SHAPE:
        return end_dims(proto, err);
    case TO_VALUES:
        return infer_proto_values_packed_end(&proto->input->values, err);
    case TO_RAW:
    case TO_STRING:
        return WEIR_OK;
    case TO_NOTHING:
        break;
    }
    switch ((enum message)proto->open) {
    case IN_CONTENTS:
        proto->open = IN_INPUT;
        break;
    case IN_VALUE:
        proto->open = IN_ENTRY;
        break;
    case IN_ENTRY:
        return end_entry(proto, err);
    default:
        proto->open = IN_REQUEST;
        break;
    }
    return WEIR_OK;
}

static struct infer_value value_of_int(uint64_t number)
{
    return (int64_t)number < 0 ? (struct infer_value){ .kind = INFER_INT }
                               : (struct infer_value){ .kind = INFER_UINT, .number = number };
}

/* A parameter's value; another one behind it would replace it. */
static void take_value(struct infer_proto *proto, const struct protowire_token *token)
{
    struct infer_value value;
    if (token->kind == PROTOWIRE_VARINT && token->field == 1) {
        value = (struct infer_value){ .kind = INFER_BOOL, .boolean = token->number != 0 };
    } else if (token->kind == PROTOWIRE_VARINT && token->field == 2) {
        value = value_of_int(token->number);
    } else if (token->kind == PROTOWIRE_FIXED64 && token->field == 4) {
        value = (struct infer_value){ .kind = INFER_DOUBLE };
    } else if (token->kind == PROTOWIRE_VARINT && token->field == 5) {
        value = (struct infer_value){ .kind = INFER_UINT, .number = token->number };
    } else {
        return;
    }
    proto->entry.value = value;
    proto->entry.has_value = true;
}

/* A number of `contents` that is not packed. */
static enum weir_status take_content(struct infer_proto *proto, const struct protowire_token *token,
                                     struct weir_err *err)
{
    static const uint8_t kinds[] = {
        [1] = PROTOWIRE_VARINT, [2] = PROTOWIRE_VARINT, [3] = PROTOWIRE_VARINT,
        [4] = PROTOWIRE_VARINT, [5] = PROTOWIRE_VARINT, [6] = PROTOWIRE_FIXED32,
        [7] = PROTOWIRE_FIXED64
    };
    if (token->field >= sizeof kinds || kinds[token->field] != (uint8_t)token->kind) {
        return WEIR_OK;
    }
    /* What follows is one number per two bytes at best, and the one that is read already. */
    const uint64_t wire_bytes = protowire_left(&proto->wire) + 8;
    enum weir_status status = begin_values(proto, token->field, wire_bytes, err);
    if (status == WEIR_OK) {
        struct infer_proto_values *values = &proto->input->values;
        const size_t before = values->room.size;
        status = infer_proto_values_number(values, &proto->memory, token->number, err);
        proto->values_bytes += values->room.size - before;
    }
    return status;
}

static enum weir_status take_number(struct infer_proto *proto, const struct protowire_token *token,
                                    struct weir_err *err)
{
    switch ((enum message)proto->open) {
    case IN_INPUT:
        return token->kind == PROTOWIRE_VARINT && token->field == 3
                   ? add_dim(proto, token->number, err)
                   : WEIR_OK;
    case IN_VALUE:
        take_value(proto, token);
        return WEIR_OK;
    case IN_CONTENTS:
        return take_content(proto, token, err);
    default:
        return WEIR_OK;
    }
}

/* A field of bytes begins; most that are not tensors are in the chunk as a whole. */
static enum weir_status read_field(struct infer_proto *proto, const struct protowire_token *token,
                                   struct weir_err *err)
{
    struct bytes bytes;
    enum weir_status status = begin_field(proto, token->field, token->number, err);
    if (status != WEIR_OK || proto->sink == TO_NOTHING || !protowire_take(&proto->wire, &bytes)) {
        return status;
    }
    if (bytes.size > 0) {
        status = take_bytes(proto, bytes, err);
    }
    return status == WEIR_OK ? end_field(proto, err) : status;
}

/* Everything that the chunk, which is fed, completes. */
static enum weir_status walk(struct infer_proto *proto, struct weir_err *err)
{
    struct protowire_token token;
    for (;;) {
        enum weir_status status = protowire_next(&proto->wire, &token, err);
        if (status != WEIR_OK) {
            return status;
        }
        switch (token.kind) {
        case PROTOWIRE_MORE:
            return WEIR_OK;
        case PROTOWIRE_BEGIN:
            status = read_field(proto, &token, err);
            break;
        case PROTOWIRE_BYTES:
            status = take_bytes(proto, token.bytes, err);
            break;
        case PROTOWIRE_END:
            status = end_field(proto, err);
            break;
        default:
            status = take_number(proto, &token, err);
            break;
        }
        if (status != WEIR_OK) {
            return status;
        }
    }
}

static enum weir_status hold(struct infer_proto *proto, uint64_t size, struct weir_err *err)
{
    const enum weir_status status = body_try_hold(size, proto->limits, err);
    proto->held_bytes += status == WEIR_OK ? size : 0;
    return status;
}

enum weir_status infer_proto_read(struct infer_proto *proto, struct bytes chunk,
                                  struct weir_err *err)
{
    while (chunk.size > 0) {
        const size_t size = chunk.size < SLICE_BYTES ? chunk.size : SLICE_BYTES;
        const size_t before = proto->values_bytes;
        enum weir_status status = hold(proto, size, err);
        if (status == WEIR_OK) {
            protowire_feed(&proto->wire, (struct bytes){ chunk.data, size });
            status = walk(proto, err);
        }
        const size_t became = proto->values_bytes - before;
        if (status == WEIR_OK && became > size) {
            status = hold(proto, became - size, err);
        }
        if (status != WEIR_OK) {
            return status;
        }
        chunk.data += size;
        chunk.size -= size;
    }
    return WEIR_OK;
}

bool infer_proto_place(const struct infer_proto *proto, char **at, size_t *room)
{
    const uint64_t due = protowire_due(&proto->wire);
    if (proto->sink != TO_RAW || due == 0) {
        return false;
    }
    *at = (char *)proto->raw->room.data + proto->raw->room.size;
    *room = (size_t)due;
    return true;
}

enum weir_status infer_proto_end(struct infer_proto *proto, struct weir_err *err)
{
    /* The end of a message is a token of its own when nothing comes behind it. */
    const enum weir_status status = walk(proto, err);
    if (status == WEIR_OK && !protowire_is_done(&proto->wire)) {
        return err_set(err, WEIR_EINVAL, "malformed protobuf message: it ends too early");
    }
    return status;
}

void infer_proto_close(struct infer_proto *proto)
{
    for (struct infer_proto_input *it = proto->inputs; it != NULL; it = it->next) {
        infer_proto_room_release(&it->values.room);
    }
    for (struct infer_proto_raw *it = proto->raws; it != NULL; it = it->next) {
        infer_proto_room_release(&it->room);
    }
    body_let_go(proto->held_bytes);
    proto->inputs = NULL;
    proto->raws = NULL;
    proto->held_bytes = 0;
}
