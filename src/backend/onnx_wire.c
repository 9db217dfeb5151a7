#include "backend/onnx_wire.h"

#include <stddef.h>

struct wire wire_of(struct bytes data)
{
    static const uint8_t nothing;
    const uint8_t *at = data.size == 0 ? &nothing : (const uint8_t *)data.data;
    return (struct wire){ at, at + data.size };
}

bool wire_varint(struct wire *wire, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70 && wire->at < wire->end; shift += 7) {
        const uint8_t byte = *wire->at++;
        /* The tenth byte holds the 64th bit; what it has beyond falls off, as in protobuf. */
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *out = value;
            return true;
        }
    }
    return false;
}

static bool skip(struct wire *wire, uint64_t size)
{
    if (size > (uint64_t)(wire->end - wire->at)) {
        return false;
    }
    wire->at += size;
    return true;
}

bool wire_next(struct wire *wire, struct field *out)
{
    uint64_t tag;
    if (!wire_varint(wire, &tag) || tag > UINT32_MAX || tag >> 3 == 0) {
        return false;
    }
    out->number = (uint32_t)(tag >> 3);
    out->type = (enum wire_type)(tag & 7);
    uint64_t size;
    switch (out->type) {
    case WIRE_VARINT:
        return wire_varint(wire, &out->value);
    case WIRE_FIXED64:
        return skip(wire, 8);
    case WIRE_FIXED32:
        return skip(wire, 4);
    case WIRE_BYTES:
        if (!wire_varint(wire, &size)) {
            return false;
        }
        out->bytes = (struct bytes){ (const char *)wire->at, (size_t)size };
        return skip(wire, size);
    default:
        return false;
    }
}
