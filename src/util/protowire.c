/*
 * Each state reads one thing and may stop in the middle of it.  Where a message ends
 * is known from the start of it, so a field that would reach beyond is refused as soon as its size
 * is read, and a reader may trust every size it is told.
 */
#include "util/protowire.h"

#include <assert.h>
#include <inttypes.h>

#define FIELD_MAX ((UINT32_C(1) << 29) - 1)
#define VARINT_SHIFT_LAST 63 /* The tenth byte has one bit. */

enum state { AT_TAG, AT_VARINT, AT_FIXED, AT_SIZE, AT_BEGIN, AT_BYTES, AT_SKIPPED };

void protowire_init(struct protowire *wire, uint64_t message_size)
{
    static const uint8_t nothing[1];
    *wire = (struct protowire){ .at = nothing, .end = nothing, .ends = { message_size } };
}

void protowire_feed(struct protowire *wire, struct bytes chunk)
{
    assert(wire->at == wire->end);
    if (chunk.size == 0) {
        return;
    }
    wire->at = (const uint8_t *)chunk.data;
    wire->end = wire->at + chunk.size;
}

uint64_t protowire_left(const struct protowire *wire)
{
    return wire->ends[wire->depth] - wire->offset;
}

uint64_t protowire_due(const struct protowire *wire)
{
    return wire->state == AT_BYTES && wire->at == wire->end ? wire->left : 0;
}

bool protowire_is_done(const struct protowire *wire)
{
    return wire->depth == 0 && wire->state == AT_TAG && wire->number.shift == 0 &&
           wire->group_count == 0 && protowire_left(wire) == 0;
}

void protowire_enter(struct protowire *wire)
{
    assert(wire->state == AT_BEGIN && wire->depth + 1 < PROTOWIRE_DEPTH_MAX);
    wire->ends[++wire->depth] = wire->offset + wire->left;
    wire->state = AT_TAG;
}

void protowire_skip(struct protowire *wire)
{
    assert(wire->state == AT_BEGIN);
    wire->state = AT_SKIPPED;
}

bool protowire_take(struct protowire *wire, struct bytes *out)
{
    assert(wire->state == AT_BEGIN);
    if (wire->left > (uint64_t)(wire->end - wire->at)) {
        return false;
    }
    *out = (struct bytes){ (const char *)wire->at, (size_t)wire->left };
    wire->at += wire->left;
    wire->offset += wire->left;
    wire->left = 0;
    wire->state = AT_TAG;
    return true;
}

enum protowire_varint_state protowire_varint_read(struct protowire_varint *number,
                                                  const uint8_t **at, const uint8_t *end)
{
    while (*at < end) {
        const uint8_t byte = *(*at)++;
        if (number->shift == VARINT_SHIFT_LAST && byte > 1) {
            return VARINT_BAD;
        }
        number->value |= (uint64_t)(byte & 0x7f) << number->shift;
        if (byte < 0x80) {
            return VARINT_DONE;
        }
        number->shift += 7;
    }
    return VARINT_MORE;
}

static enum weir_status malformed(const struct protowire *wire, const char *what,
                                  struct weir_err *err)
{
    return err_set(err, WEIR_EINVAL, "malformed protobuf message: %s, at byte %" PRIu64, what,
                   wire->offset);
}

/* The next number of the message that is open: *done only when it is complete. */
static enum weir_status read_number(struct protowire *wire, bool *done, struct weir_err *err)
{
    const uint64_t left = protowire_left(wire);
    const uint64_t here = (uint64_t)(wire->end - wire->at);
    if (here > 0 && left > 0 && *wire->at < 0x80 && wire->number.shift == 0) {
        wire->number.value = *wire->at++; /* As most are. */
        wire->offset++;
        *done = true;
        return WEIR_OK;
    }
    const uint8_t *stop = wire->at + (here < left ? here : left);
    const uint8_t *before = wire->at;
    const enum protowire_varint_state state = protowire_varint_read(&wire->number, &wire->at, stop);
    wire->offset += (uint64_t)(wire->at - before);
    *done = state == VARINT_DONE;
    if (state == VARINT_BAD) {
        return malformed(wire, "a number of more than 64 bits", err);
    }
    if (state == VARINT_MORE && protowire_left(wire) == 0) {
        return malformed(wire, "it ends within a number", err);
    }
    return WEIR_OK;
}

static uint64_t take_number(struct protowire *wire)
{
    const uint64_t value = wire->number.value;
    wire->number = (struct protowire_varint){ 0 };
    return value;
}

static enum weir_status open_group(struct protowire *wire, struct weir_err *err)
{
    if (wire->group_count == PROTOWIRE_GROUPS_MAX) {
        return malformed(wire, "too many groups within each other", err);
    }
    wire->groups[wire->group_count++] = wire->field;
    return WEIR_OK;
}

static enum weir_status close_group(struct protowire *wire, struct weir_err *err)
{
    if (wire->group_count == 0 || wire->groups[wire->group_count - 1] != wire->field) {
        return malformed(wire, "the end of a group that did not begin", err);
    }
    wire->group_count--;
    return WEIR_OK;
}

static enum weir_status begin_field(struct protowire *wire, uint64_t tag, struct weir_err *err)
{
    if (tag >> 3 == 0 || tag >> 3 > FIELD_MAX) {
        return malformed(wire, "a field number out of range", err);
    }
    wire->field = (uint32_t)(tag >> 3);
    switch ((enum protowire_type)(tag & 7)) {
    case PROTOWIRE_TYPE_VARINT:
        wire->state = AT_VARINT;
        return WEIR_OK;
    case PROTOWIRE_TYPE_BYTES:
        wire->state = AT_SIZE;
        return WEIR_OK;
    case PROTOWIRE_TYPE_FIXED64:
    case PROTOWIRE_TYPE_FIXED32:
        wire->fixed_bytes = (tag & 7) == PROTOWIRE_TYPE_FIXED64 ? 8 : 4;
        wire->left = wire->fixed_bytes;
        wire->state = AT_FIXED;
        return wire->left <= protowire_left(wire) ? WEIR_OK
                                                  : malformed(wire, "it ends within a number", err);
    case PROTOWIRE_TYPE_GROUP:
        return open_group(wire, err);
    case PROTOWIRE_TYPE_GROUP_END:
        return close_group(wire, err);
    }
    return malformed(wire, "an unknown wire type", err);
}

/* At a tag, or at the end of a message; true when there is a token. */
static enum weir_status read_tag(struct protowire *wire, struct protowire_token *out, bool *ready,
                                 struct weir_err *err)
{
    if (protowire_left(wire) == 0 && wire->number.shift == 0) {
        if (wire->group_count > 0) {
            return malformed(wire, "it ends within a group", err);
        }
        out->kind = wire->depth == 0 ? PROTOWIRE_MORE : PROTOWIRE_END;
        wire->depth -= wire->depth > 0;
        *ready = true;
        if (out->kind == PROTOWIRE_MORE && wire->at < wire->end) {
            return malformed(wire, "bytes behind its end", err);
        }
        return WEIR_OK;
    }
    bool done;
    enum weir_status status = read_number(wire, &done, err);
    if (status == WEIR_OK && done) {
        status = begin_field(wire, take_number(wire), err);
    } else if (status == WEIR_OK) {
        out->kind = PROTOWIRE_MORE;
        *ready = true;
    }
    return status;
}

/* What lies within a group is nobody's. */
static bool is_wanted(const struct protowire *wire)
{
    return wire->group_count == 0;
}

static enum weir_status read_varint(struct protowire *wire, struct protowire_token *out,
                                    bool *ready, struct weir_err *err)
{
    bool done;
    const enum weir_status status = read_number(wire, &done, err);
    if (status != WEIR_OK) {
        return status;
    }
    *ready = !done || is_wanted(wire);
    out->kind = done ? PROTOWIRE_VARINT : PROTOWIRE_MORE;
    if (done) {
        out->field = wire->field;
        out->number = take_number(wire);
        wire->state = AT_TAG;
    }
    return WEIR_OK;
}

static void read_fixed(struct protowire *wire, struct protowire_token *out, bool *ready)
{
    while (wire->left > 0 && wire->at < wire->end) {
        const uint32_t place = wire->fixed_bytes - (uint32_t)wire->left;
        wire->number.value |= (uint64_t)*wire->at++ << (8 * place);
        wire->offset++;
        wire->left--;
    }
    if (wire->left > 0) {
        out->kind = PROTOWIRE_MORE;
        *ready = true;
        return;
    }
    out->kind = wire->fixed_bytes == 8 ? PROTOWIRE_FIXED64 : PROTOWIRE_FIXED32;
    out->field = wire->field;
    out->number = take_number(wire);
    wire->state = AT_TAG;
    *ready = is_wanted(wire);
}

static enum weir_status read_size(struct protowire *wire, struct protowire_token *out, bool *ready,
                                  struct weir_err *err)
{
    bool done;
    const enum weir_status status = read_number(wire, &done, err);
    if (status != WEIR_OK) {
        return status;
    }
    *ready = !done || is_wanted(wire);
    out->kind = done ? PROTOWIRE_BEGIN : PROTOWIRE_MORE;
    if (!done) {
        return WEIR_OK;
    }
    out->field = wire->field;
    out->number = take_number(wire);
    wire->left = out->number;
    wire->state = is_wanted(wire) ? AT_BEGIN : AT_SKIPPED;
    return out->number <= protowire_left(wire)
               ? WEIR_OK
               : malformed(wire, "a field that reaches beyond the message around it", err);
}

static void read_bytes(struct protowire *wire, struct protowire_token *out, bool *ready)
{
    const bool wanted = wire->state == AT_BYTES;
    const uint64_t here = (uint64_t)(wire->end - wire->at);
    const uint64_t size = here < wire->left ? here : wire->left;
    if (wire->left == 0) {
        wire->state = AT_TAG;
        out->kind = PROTOWIRE_END;
        *ready = wanted;
        return;
    }
    out->kind = size == 0 ? PROTOWIRE_MORE : PROTOWIRE_BYTES;
    out->bytes = (struct bytes){ (const char *)wire->at, (size_t)size };
    *ready = wanted || size == 0;
    wire->at += size;
    wire->offset += size;
    wire->left -= size;
}

enum weir_status protowire_next(struct protowire *wire, struct protowire_token *out,
                                struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    for (bool ready = false; !ready && status == WEIR_OK;) {
        switch ((enum state)wire->state) {
        case AT_TAG:
            status = read_tag(wire, out, &ready, err);
            break;
        case AT_VARINT:
            status = read_varint(wire, out, &ready, err);
            break;
        case AT_FIXED:
            read_fixed(wire, out, &ready);
            break;
        case AT_SIZE:
            status = read_size(wire, out, &ready, err);
            break;
        case AT_BEGIN: /* Neither entered nor skipped: its bytes are wanted. */
            wire->state = AT_BYTES;
            break;
        case AT_BYTES:
        case AT_SKIPPED:
            read_bytes(wire, out, &ready);
            break;
        }
    }
    return status;
}

void protowire_put_raw(struct protowire_out *out, const void *data, size_t size)
{
    if (out->at != NULL && size > 0) {
        memcpy(out->at, data, size);
        out->at += size;
    }
    out->size += size;
}

void protowire_put_long(struct protowire_out *out, uint64_t value)
{
    uint8_t bytes[10];
    size_t size = 0;
    while (value >= 0x80) {
        bytes[size++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    bytes[size++] = (uint8_t)value;
    protowire_put_raw(out, bytes, size);
}

void protowire_put_tag(struct protowire_out *out, uint32_t field, enum protowire_type type)
{
    protowire_put_varint(out, (uint64_t)field << 3 | (uint64_t)type);
}

void protowire_put_number(struct protowire_out *out, uint32_t field, uint64_t value)
{
    protowire_put_tag(out, field, PROTOWIRE_TYPE_VARINT);
    protowire_put_varint(out, value);
}

void protowire_put_double(struct protowire_out *out, uint32_t field, double value)
{
    uint64_t bits;
    uint8_t bytes[8];
    memcpy(&bits, &value, sizeof bits);
    for (unsigned i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(bits >> (8 * i));
    }
    protowire_put_tag(out, field, PROTOWIRE_TYPE_FIXED64);
    protowire_put_raw(out, bytes, sizeof bytes);
}

void protowire_put_begin(struct protowire_out *out, uint32_t field, uint64_t size)
{
    protowire_put_tag(out, field, PROTOWIRE_TYPE_BYTES);
    protowire_put_varint(out, size);
}

void protowire_put_bytes(struct protowire_out *out, uint32_t field, struct bytes bytes)
{
    protowire_put_begin(out, field, bytes.size);
    protowire_put_raw(out, bytes.data, bytes.size);
}
