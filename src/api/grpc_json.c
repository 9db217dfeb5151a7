/*
 * Conversion by descriptor.  Members of a message are found at the offsets that protobuf-c gives.
 */
#include "api/grpc_json.h"

#include <stdlib.h>
#include <string.h>

#define GROWTH_MAX 8            /* Bytes of memory per byte of a message, */
#define GROWTH_FREE_BYTES 65536 /* and so many in any case. */

/* Two bytes on the wire can be an element of a hundred bytes in memory. */
struct growth {
    struct arena *arena;
    size_t left;
};

static void *take(void *context, size_t size)
{
    struct growth *growth = context;
    if (size > growth->left) {
        return NULL;
    }
    growth->left -= size;
    return arena_try_alloc(growth->arena, size);
}

static void keep(void *context, void *block)
{
    (void)context;
    (void)block;
}

ProtobufCMessage *grpc_message_read(const ProtobufCMessageDescriptor *descriptor, struct bytes data,
                                    struct arena *arena)
{
    struct growth growth = { arena, data.size * GROWTH_MAX + GROWTH_FREE_BYTES };
    ProtobufCAllocator allocator = { take, keep, &growth };
    return protobuf_c_message_unpack(descriptor, &allocator, data.size, (const uint8_t *)data.data);
}

ProtobufCMessage *grpc_message_create(const ProtobufCMessageDescriptor *descriptor,
                                      struct arena *arena)
{
    ProtobufCMessage *message = arena_try_alloc(arena, descriptor->sizeof_message);
    if (message != NULL) {
        protobuf_c_message_init(descriptor, message);
    }
    return message;
}

struct bytes grpc_message_write(const ProtobufCMessage *message, struct arena *arena)
{
    const size_t size = protobuf_c_message_get_packed_size(message);
    char *data = arena_try_aligned(arena, size + 1, 1);
    if (data != NULL) {
        protobuf_c_message_pack(message, (uint8_t *)data);
    }
    return (struct bytes){ data, size };
}

static void *member(const ProtobufCMessage *message, unsigned offset)
{
    return (char *)(uintptr_t)message + offset;
}

static bool is_string(const ProtobufCFieldDescriptor *field)
{
    return field->type == PROTOBUF_C_TYPE_STRING && field->label != PROTOBUF_C_LABEL_REPEATED;
}

struct bytes grpc_message_string(const ProtobufCMessage *message, const char *name)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);
    if (field == NULL || !is_string(field)) {
        return BYTES_LITERAL("");
    }
    const char *text = *(char *const *)member(message, field->offset);
    return bytes_of(text == NULL ? "" : text);
}

size_t grpc_message_count(const ProtobufCMessage *message, const char *name)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);
    return field == NULL || field->label != PROTOBUF_C_LABEL_REPEATED
               ? 0
               : *(const size_t *)member(message, field->quantifier_offset);
}

/* --- From JSON --- */

/* X(type of protobuf, what it is in C) */
#define INTEGERS(X)                          \
    X(PROTOBUF_C_TYPE_INT32, int32_t)        \
    X(PROTOBUF_C_TYPE_SINT32, int32_t)       \
    X(PROTOBUF_C_TYPE_SFIXED32, int32_t)     \
    X(PROTOBUF_C_TYPE_UINT32, uint32_t)      \
    X(PROTOBUF_C_TYPE_FIXED32, uint32_t)     \
    X(PROTOBUF_C_TYPE_INT64, int64_t)        \
    X(PROTOBUF_C_TYPE_SINT64, int64_t)       \
    X(PROTOBUF_C_TYPE_SFIXED64, int64_t)     \
    X(PROTOBUF_C_TYPE_UINT64, uint64_t)      \
    X(PROTOBUF_C_TYPE_FIXED64, uint64_t)

static int64_t integer_of(yyjson_val *value)
{
    if (yyjson_is_str(value)) {
        const char *text = yyjson_get_str(value);
        return text[0] == '-' ? strtoll(text, NULL, 10) : (int64_t)strtoull(text, NULL, 10);
    }
    return yyjson_is_uint(value) ? (int64_t)yyjson_get_uint(value) : yyjson_get_sint(value);
}

static size_t size_of(ProtobufCType type)
{
    switch (type) {
#define INTEGER_SIZE(name, c_type) \
    case name:                     \
        return sizeof(c_type);
        INTEGERS(INTEGER_SIZE)
#undef INTEGER_SIZE
    case PROTOBUF_C_TYPE_FLOAT:
        return sizeof(float);
    case PROTOBUF_C_TYPE_DOUBLE:
        return sizeof(double);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_ENUM:
        return sizeof(int);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return sizeof(void *);
    }
}

struct reader {
    struct arena *arena;
    bool failed; /* Memory is out. */
};

static void read_object(struct reader *r, yyjson_val *value, ProtobufCMessage *message);
static void read_field(struct reader *r, yyjson_val *value, const ProtobufCFieldDescriptor *field,
                       ProtobufCMessage *message);

static ProtobufCMessage *create(struct reader *r, const ProtobufCFieldDescriptor *field)
{
    ProtobufCMessage *message = grpc_message_create(field->descriptor, r->arena);
    r->failed = r->failed || message == NULL;
    return message;
}

static char *copy_text(struct reader *r, const char *text, size_t size)
{
    char *copy = arena_try_strndup(r->arena, text, size);
    r->failed = r->failed || copy == NULL;
    return copy;
}

static int enum_of(const ProtobufCEnumDescriptor *descriptor, yyjson_val *value)
{
    const ProtobufCEnumValue *found =
        yyjson_is_str(value)
            ? protobuf_c_enum_descriptor_get_value_by_name(descriptor, yyjson_get_str(value))
            : NULL;
    return found == NULL ? (int)integer_of(value) : found->value;
}

/* The member of a oneof (or the repeated one) that takes this scalar. */
static void read_scalar_message(struct reader *r, yyjson_val *value, ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        const ProtobufCType type = field->type;
        const bool fits = (yyjson_is_bool(value) && type == PROTOBUF_C_TYPE_BOOL) ||
                          (yyjson_is_str(value) && type == PROTOBUF_C_TYPE_STRING) ||
                          (yyjson_is_arr(value) && field->label == PROTOBUF_C_LABEL_REPEATED) ||
                          (yyjson_is_int(value) && type == PROTOBUF_C_TYPE_UINT32) ||
                          (yyjson_is_int(value) && type == PROTOBUF_C_TYPE_INT64) ||
                          (yyjson_is_real(value) && type == PROTOBUF_C_TYPE_DOUBLE);
        if (fits) {
            read_field(r, value, field, message);
            return;
        }
    }
}

static void read_one(struct reader *r, yyjson_val *value, const ProtobufCFieldDescriptor *field,
                     void *out)
{
    switch (field->type) {
#define INTEGER_READ(name, c_type)                  \
    case name:                                      \
        *(c_type *)out = (c_type)integer_of(value); \
        break;
        INTEGERS(INTEGER_READ)
#undef INTEGER_READ
    case PROTOBUF_C_TYPE_FLOAT:
        *(float *)out = (float)yyjson_get_num(value);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        *(double *)out = yyjson_get_num(value);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)out = yyjson_is_true(value);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        *(int *)out = enum_of(field->descriptor, value);
        break;
    case PROTOBUF_C_TYPE_STRING:
        *(char **)out = yyjson_is_str(value)
                            ? copy_text(r, yyjson_get_str(value), yyjson_get_len(value))
                            : copy_text(r, "", 0);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        *(ProtobufCBinaryData *)out = (ProtobufCBinaryData){ 0, NULL };
        break;
    case PROTOBUF_C_TYPE_MESSAGE: {
        ProtobufCMessage *inner = create(r, field);
        *(ProtobufCMessage **)out = inner;
        if (inner != NULL && yyjson_is_obj(value)) {
            read_object(r, value, inner);
        } else if (inner != NULL) {
            read_scalar_message(r, value, inner);
        }
        break;
    }
    }
}

/* One entry of a map: a message with `key` and `value`. */
static void read_entry(struct reader *r, yyjson_val *key, yyjson_val *value,
                       const ProtobufCFieldDescriptor *field, void *out)
{
    ProtobufCMessage *entry = create(r, field);
    *(ProtobufCMessage **)out = entry;
    if (entry != NULL) {
        read_field(r, key, &entry->descriptor->fields[0], entry);
        read_field(r, value, &entry->descriptor->fields[1], entry);
    }
}

static bool is_map(const ProtobufCFieldDescriptor *field)
{
    const ProtobufCMessageDescriptor *entry = field->descriptor;
    return field->type == PROTOBUF_C_TYPE_MESSAGE && entry->n_fields == 2 &&
           strcmp(entry->fields[0].name, "key") == 0 && strcmp(entry->fields[1].name, "value") == 0;
}

static void read_repeated(struct reader *r, yyjson_val *value,
                          const ProtobufCFieldDescriptor *field, ProtobufCMessage *message)
{
    const bool map = is_map(field);
    const bool single = !yyjson_is_arr(value) && !yyjson_is_obj(value);
    const size_t count = single ? 1 : yyjson_get_len(value);
    const size_t size = size_of(field->type);
    char *out = arena_try_zero(r->arena, count, size);
    if (out == NULL || (yyjson_is_obj(value) && !map)) {
        r->failed = r->failed || out == NULL;
        return;
    }
    *(size_t *)member(message, field->quantifier_offset) = count;
    *(void **)member(message, field->offset) = out;
    size_t index;
    size_t max;
    yyjson_val *key;
    yyjson_val *element;
    if (single) {
        read_one(r, value, field, out);
    } else if (yyjson_is_obj(value)) {
        yyjson_obj_foreach(value, index, max, key, element) {
            read_entry(r, key, element, field, out + index * size);
        }
    } else {
        yyjson_arr_foreach(value, index, max, element) {
            if (map) {
                read_entry(r, yyjson_obj_get(element, "name"), element, field, out + index * size);
            } else {
                read_one(r, element, field, out + index * size);
            }
        }
    }
}

static void read_field(struct reader *r, yyjson_val *value, const ProtobufCFieldDescriptor *field,
                       ProtobufCMessage *message)
{
    if (value == NULL || yyjson_is_null(value) || r->failed) {
        return;
    }
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        read_repeated(r, value, field, message);
        return;
    }
    read_one(r, value, field, member(message, field->offset));
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
        *(int *)member(message, field->quantifier_offset) = (int)field->id;
    }
}

static void read_object(struct reader *r, yyjson_val *value, ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        read_field(r, yyjson_obj_get(value, field->name), field, message);
    }
}

enum weir_status grpc_json_read(yyjson_val *value, const char *wrap, ProtobufCMessage *message,
                                struct arena *arena, struct weir_err *err)
{
    struct reader r = { .arena = arena };
    if (wrap == NULL) {
        read_object(&r, value, message);
    } else {
        read_field(&r, value,
                   protobuf_c_message_descriptor_get_field_by_name(message->descriptor, wrap),
                   message);
    }
    return r.failed ? err_nomem(err, "an answer", message->descriptor->sizeof_message) : WEIR_OK;
}

/* --- To JSON --- */

static void write_field(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                        struct buffer *out);

/* The member of a oneof that is set; NULL where the message is no such choice. */
static const ProtobufCFieldDescriptor *chosen(const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
            *(const int *)member(message, field->quantifier_offset) == (int)field->id) {
            return field;
        }
    }
    return NULL;
}

static void write_one(const ProtobufCFieldDescriptor *field, const void *at, struct buffer *out)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
        buffer_i64(out, *(const int32_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT32:
        buffer_u64(out, *(const uint32_t *)at);
        break;
    case PROTOBUF_C_TYPE_INT64:
        buffer_i64(out, *(const int64_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT64:
        buffer_u64(out, *(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        json_double(out, *(const double *)at);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        json_bool(out, *(const protobuf_c_boolean *)at != 0);
        break;
    case PROTOBUF_C_TYPE_STRING:
        json_string(out, *(const char *const *)at);
        break;
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessage *inner = *(const ProtobufCMessage *const *)at;
        const ProtobufCFieldDescriptor *choice = inner == NULL ? NULL : chosen(inner);
        if (choice != NULL) {
            write_one(choice, member(inner, choice->offset), out);
        } else if (inner == NULL || inner->descriptor->n_fields == 0) {
            buffer_text(out, "null");
        } else if (inner->descriptor->n_fields == 1 &&
                   inner->descriptor->fields[0].label == PROTOBUF_C_LABEL_REPEATED) {
            write_field(inner, &inner->descriptor->fields[0], out);
        } else {
            grpc_json_write(inner, NULL, out);
        }
        break;
    }
    default: /* Bytes have no form that any REST call takes. */
        buffer_text(out, "\"\"");
        break;
    }
}

static void write_entries(const ProtobufCMessage *const *entries, size_t count, struct buffer *out)
{
    buffer_char(out, '{');
    for (size_t i = 0; i < count; i++) {
        const ProtobufCFieldDescriptor *fields = entries[i]->descriptor->fields;
        json_comma(out);
        write_one(&fields[0], member(entries[i], fields[0].offset), out);
        buffer_char(out, ':');
        write_one(&fields[1], member(entries[i], fields[1].offset), out);
    }
    buffer_char(out, '}');
}

static void write_field(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                        struct buffer *out)
{
    if (field->label != PROTOBUF_C_LABEL_REPEATED) {
        write_one(field, member(message, field->offset), out);
        return;
    }
    const size_t count = *(const size_t *)member(message, field->quantifier_offset);
    const char *data = *(const char *const *)member(message, field->offset);
    if (is_map(field)) {
        write_entries((const ProtobufCMessage *const *)(const void *)data, count, out);
        return;
    }
    buffer_char(out, '[');
    for (size_t i = 0; i < count; i++) {
        json_comma(out);
        write_one(field, data + i * size_of(field->type), out);
    }
    buffer_char(out, ']');
}

void grpc_json_write(const ProtobufCMessage *message, const char *only, struct buffer *out)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    if (only != NULL) {
        write_field(message, protobuf_c_message_descriptor_get_field_by_name(descriptor, only),
                    out);
        return;
    }
    buffer_char(out, '{');
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        json_key(out, descriptor->fields[i].name);
        write_field(message, &descriptor->fields[i], out);
    }
    buffer_char(out, '}');
}
