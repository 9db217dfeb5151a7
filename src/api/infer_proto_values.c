/*
 * A message usually says type and shape before the values; then the room is made
 * once, of the right size, and each number is written as narrow as its tensor has it.  Where the
 * type comes behind the values, they are kept as wide as their field has them and narrowed at the
 * end; where the shape does, the room doubles.
 *
 * What a size that a client gives can reserve is bounded by the bytes that the message
 * has left, which are bounded by the server's limits; pages are touched only as values arrive.
 */
#include "api/infer_proto_values.h"

#include <string.h>

#include "util/mem.h"

#define ARENA_ROOM_BYTES 16384 /* More gets a block of the pool. */
#define ROOM_BYTES_MIN 64
#define STRING_PREFIX 4

enum wire_kind { KIND_VARINT, KIND_FIXED, KIND_STRING };

static const struct {
    enum wire_kind kind;
    enum dtype dtype; /* Of numbers at full width. */
} fields[] = {
    [1] = { KIND_VARINT, DTYPE_BOOL },   [2] = { KIND_VARINT, DTYPE_INT32 },
    [3] = { KIND_VARINT, DTYPE_INT64 },  [4] = { KIND_VARINT, DTYPE_UINT32 },
    [5] = { KIND_VARINT, DTYPE_UINT64 }, [6] = { KIND_FIXED, DTYPE_FP32 },
    [7] = { KIND_FIXED, DTYPE_FP64 },    [8] = { KIND_STRING, DTYPE_BYTES },
};

#define FIELD_COUNT (sizeof fields / sizeof fields[0])

/* Which field a type's values come in; 0: none. */
static const uint8_t field_of[DTYPE_COUNT] = {
    [DTYPE_BOOL] = 1,   [DTYPE_INT8] = 2,  [DTYPE_INT16] = 2,  [DTYPE_INT32] = 2,
    [DTYPE_INT64] = 3,  [DTYPE_UINT8] = 4, [DTYPE_UINT16] = 4, [DTYPE_UINT32] = 4,
    [DTYPE_UINT64] = 5, [DTYPE_FP32] = 6,  [DTYPE_FP64] = 7,   [DTYPE_BYTES] = 8,
};

enum weir_status infer_proto_room_reserve(struct infer_proto_room *room,
                                          const struct infer_proto_memory *memory, size_t capacity,
                                          struct weir_err *err)
{
    if (capacity <= room->capacity && room->data != NULL) {
        return WEIR_OK;
    }
    struct block *block = NULL;
    uint8_t *data;
    if (capacity <= ARENA_ROOM_BYTES) {
        data = arena_try_aligned(memory->arena, capacity, MEM_ALIGN);
    } else {
        block = block_pool_take(memory->blocks, capacity);
        data = block == NULL ? NULL : block->data;
    }
    if (data == NULL) {
        return err_nomem(err, "an input", capacity);
    }
    if (room->size > 0) {
        memcpy(data, room->data, room->size);
    }
    block_release(room->block);
    room->data = data;
    room->block = block;
    room->capacity = capacity;
    return WEIR_OK;
}

void infer_proto_room_release(struct infer_proto_room *room)
{
    block_release(room->block);
    *room = (struct infer_proto_room){ 0 };
}

/* Room for `extra` more bytes. */
static enum weir_status grow(struct infer_proto_room *room, const struct infer_proto_memory *memory,
                             size_t extra, struct weir_err *err)
{
    if (extra <= room->capacity - room->size) {
        return WEIR_OK;
    }
    size_t needed;
    if (__builtin_add_overflow(room->size, extra, &needed) || needed > SIZE_MAX / 2) {
        return err_nomem(err, "an input", extra);
    }
    const size_t doubled = needed < ROOM_BYTES_MIN ? ROOM_BYTES_MIN : 2 * needed;
    return infer_proto_room_reserve(room, memory, doubled, err);
}

const char *infer_proto_values_type(uint32_t field)
{
    return field == 0 || field >= FIELD_COUNT ? "none" : dtype_text(fields[field].dtype);
}

bool infer_proto_values_suit(uint32_t field, enum dtype dtype)
{
    return field_of[dtype] != 0 && field_of[dtype] == field;
}

/* What wire_bytes of the field's values can become at most.  A further string has two bytes at
 * least before it and gets four; the first one's are read already. */
static size_t values_bytes_max(enum wire_kind kind, uint32_t width, uint64_t wire_bytes)
{
    size_t bytes = (size_t)wire_bytes;
    const size_t factor = kind == KIND_VARINT ? width : kind == KIND_STRING ? 2 : 1;
    if (__builtin_mul_overflow(bytes, factor, &bytes) || bytes > SIZE_MAX - STRING_PREFIX) {
        return SIZE_MAX;
    }
    return kind == KIND_STRING ? bytes + STRING_PREFIX : bytes;
}

static enum weir_status begin_first(struct infer_proto_values *values,
                                    const struct infer_proto_memory *memory, uint32_t field,
                                    uint64_t wire_bytes, const enum dtype *dtype,
                                    size_t tensor_bytes, struct weir_err *err)
{
    const bool suits = dtype != NULL && infer_proto_values_suit(field, *dtype);
    values->field = field;
    values->width = (uint32_t)dtype_size(suits ? *dtype : fields[field].dtype);
    const size_t bytes_max = values_bytes_max(fields[field].kind, values->width, wire_bytes);
    size_t capacity = suits && tensor_bytes > 0 ? tensor_bytes : (size_t)wire_bytes;
    capacity = capacity < bytes_max ? capacity : bytes_max;
    return infer_proto_room_reserve(&values->room, memory, capacity, err);
}

enum weir_status infer_proto_values_begin(struct infer_proto_values *values,
                                          const struct infer_proto_memory *memory, uint32_t field,
                                          uint64_t wire_bytes, const enum dtype *dtype,
                                          size_t tensor_bytes, struct weir_err *err)
{
    values->number = (struct protowire_varint){ 0 };
    values->ignored = field == 0 || field >= FIELD_COUNT;
    if (values->ignored) {
        return WEIR_OK;
    }
    if (values->field == 0) {
        return begin_first(values, memory, field, wire_bytes, dtype, tensor_bytes, err);
    }
    values->ignored = values->field != field;
    values->mixed = values->mixed || values->ignored;
    return WEIR_OK;
}

/* Little-endian, as on the wire. */
static void store(uint8_t *to, uint32_t width, uint64_t number)
{
    switch (width) {
    case 1:
        *to = (uint8_t)number;
        break;
    case 2:
        memcpy(to, &(uint16_t){ (uint16_t)number }, 2);
        break;
    case 4:
        memcpy(to, &(uint32_t){ (uint32_t)number }, 4);
        break;
    default:
        memcpy(to, &number, 8);
        break;
    }
}

/* True when a number of int_contents or uint_contents is one of `width` bytes. */
static bool fits(uint32_t field, uint32_t width, uint64_t number)
{
    if (width >= sizeof(uint32_t) || fields[field].kind != KIND_VARINT ||
        fields[field].dtype == DTYPE_BOOL) {
        return true;
    }
    const uint32_t bits = 8 * width;
    const int32_t value = (int32_t)(uint32_t)number;
    return field == field_of[DTYPE_INT8] ? value >= -(1 << (bits - 1)) && value < 1 << (bits - 1)
                                         : (uint32_t)number >> bits == 0;
}

enum weir_status infer_proto_values_number(struct infer_proto_values *values,
                                           const struct infer_proto_memory *memory, uint64_t number,
                                           struct weir_err *err)
{
    if (values->ignored) {
        return WEIR_OK;
    }
    const enum weir_status status = grow(&values->room, memory, values->width, err);
    if (status == WEIR_OK) {
        const bool boolean = fields[values->field].dtype == DTYPE_BOOL;
        values->beyond = values->beyond || !fits(values->field, values->width, number);
        store(values->room.data + values->room.size, values->width, boolean ? number != 0 : number);
        values->room.size += values->width;
    }
    return status;
}

static enum weir_status append(struct infer_proto_room *room,
                               const struct infer_proto_memory *memory, const void *data,
                               size_t size, struct weir_err *err)
{
    const enum weir_status status = grow(room, memory, size, err);
    if (status == WEIR_OK && size > 0) {
        memcpy(room->data + room->size, data, size);
        room->size += size;
    }
    return status;
}

static enum weir_status append_varints(struct infer_proto_values *values,
                                       const struct infer_proto_memory *memory, struct bytes bytes,
                                       struct weir_err *err)
{
    const uint8_t *at = (const uint8_t *)bytes.data;
    const uint8_t *end = at + bytes.size;
    while (at < end) {
        switch (protowire_varint_read(&values->number, &at, end)) {
        case VARINT_MORE:
            return WEIR_OK;
        case VARINT_BAD:
            return err_set(err, WEIR_EINVAL,
                           "malformed protobuf message: a packed number of more than 64 bits");
        case VARINT_DONE:
            break;
        }
        const enum weir_status status =
            infer_proto_values_number(values, memory, values->number.value, err);
        if (status != WEIR_OK) {
            return status;
        }
        values->number = (struct protowire_varint){ 0 };
    }
    return WEIR_OK;
}

enum weir_status infer_proto_values_packed(struct infer_proto_values *values,
                                           const struct infer_proto_memory *memory,
                                           struct bytes bytes, struct weir_err *err)
{
    if (values->ignored) {
        return WEIR_OK;
    }
    return fields[values->field].kind == KIND_VARINT
               ? append_varints(values, memory, bytes, err)
               : append(&values->room, memory, bytes.data, bytes.size, err);
}

enum weir_status infer_proto_values_packed_end(struct infer_proto_values *values,
                                               struct weir_err *err)
{
    const bool cut =
        values->number.shift > 0 || (values->width > 0 && values->room.size % values->width != 0);
    if (!values->ignored && cut) {
        return err_set(err, WEIR_EINVAL,
                       "malformed protobuf message: packed numbers end within a number");
    }
    return WEIR_OK;
}

enum weir_status infer_proto_values_string(struct infer_proto_values *values,
                                           const struct infer_proto_memory *memory, uint64_t size,
                                           struct weir_err *err)
{
    if (values->ignored) {
        return WEIR_OK;
    }
    if (size > UINT32_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "bytes_contents: found an element of %llu bytes, expected at most %u",
                       (unsigned long long)size, UINT32_MAX);
    }
    const uint32_t prefix = (uint32_t)size;
    return append(&values->room, memory, &prefix, STRING_PREFIX, err);
}

void infer_proto_values_fit(struct infer_proto_values *values, enum dtype dtype)
{
    const uint32_t from = values->width;
    const uint32_t to = (uint32_t)dtype_size(dtype);
    if (to == 0 || from <= to) {
        return;
    }
    uint8_t *data = values->room.data;
    const size_t count = values->room.size / from;
    for (size_t i = 0; i < count; i++) {
        uint32_t number = 0;
        memcpy(&number, data + i * from, from < sizeof(number) ? from : sizeof(number));
        values->beyond = values->beyond || !fits(values->field, to, number);
        memmove(data + i * to, data + i * from, to); /* Little-endian: the low bytes are first. */
    }
    values->width = to;
    values->room.size = count * to;
}
