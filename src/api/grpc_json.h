/*
 * grpc_json.h — protobuf messages from JSON and JSON from them, by their descriptors.
 *
 * What REST says and what gRPC says is the same by construction: a call's request becomes the body
 * of a REST request, and the JSON of the answer becomes its message.
 *
 *   fields          the members of the same name; unknown members are passed over
 *   map             an object, or an array of objects that have a `name`
 *   64-bit numbers  numbers or strings
 *   a scalar where a message is expected goes to the member of its oneof that fits
 *
 * Pure; messages live in the arena that is given.
 */
#ifndef WEIR_API_GRPC_JSON_H
#define WEIR_API_GRPC_JSON_H

#include <protobuf-c/protobuf-c.h>

#include "util/arena.h"
#include "util/bytes.h"
#include "util/err.h"
#include "util/json.h"

/* NULL where it is no such message, would be many times larger in memory, or memory is out. */
ProtobufCMessage *grpc_message_read(const ProtobufCMessageDescriptor *descriptor, struct bytes data,
                                    struct arena *arena);

/* A message with its defaults, or NULL. */
ProtobufCMessage *grpc_message_create(const ProtobufCMessageDescriptor *descriptor,
                                      struct arena *arena);

/* The bytes in `arena`; data NULL when memory is out. */
struct bytes grpc_message_write(const ProtobufCMessage *message, struct arena *arena);

/* A string field; empty when there is none of that name. */
struct bytes grpc_message_string(const ProtobufCMessage *message, const char *name);

/* Number of elements of a repeated field or map; 0 when there is none of that name. */
size_t grpc_message_count(const ProtobufCMessage *message, const char *name);

/* Fills `message`; with `wrap`, the whole of `value` is the field of that name. */
WEIR_MUST_USE enum weir_status grpc_json_read(yyjson_val *value, const char *wrap,
                                              ProtobufCMessage *message, struct arena *arena,
                                              struct weir_err *err);

/* Appends the message as an object, or one field of it alone. */
void grpc_json_write(const ProtobufCMessage *message, const char *only, struct buffer *out);

#endif
