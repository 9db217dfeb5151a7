/*
 * onnx_wire.h — the protobuf wire format, one field at a time.
 *
 * Reads within borrowed bytes and never past them.  Groups, which ONNX never had, are malformed.
 */
#ifndef WEIR_BACKEND_ONNX_WIRE_H
#define WEIR_BACKEND_ONNX_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/bytes.h"

struct wire {
    const uint8_t *at;
    const uint8_t *end;
};

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct field {
    uint32_t number; /* At least 1. */
    enum wire_type type;
    uint64_t value;     /* Of a varint. */
    struct bytes bytes; /* Of WIRE_BYTES; data is never NULL then. */
};

struct wire wire_of(struct bytes data);

/* False: malformed, or nothing left. */
WEIR_MUST_USE bool wire_varint(struct wire *wire, uint64_t *out);
WEIR_MUST_USE bool wire_next(struct wire *wire, struct field *out);

#endif
