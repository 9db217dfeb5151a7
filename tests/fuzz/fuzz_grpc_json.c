/*
 * A message of a client, on its way to the REST route that answers it: the first byte names the
 * call.  What is written must be JSON, and that, read as the call's answer, must be a message that
 * reads back.
 */
#include "fuzz.h"

#include <stdlib.h>

#include "api/grpc_json.h"
#include "api/grpc_rpc.h"

#define JSON_BYTES_MAX (16 * 1024 * 1024)

static void check(int promise)
{
    if (!promise) {
        abort();
    }
}

/* Reads JSON as `descriptor`'s message and writes that again. */
static void read_back(yyjson_val *root, const ProtobufCMessageDescriptor *descriptor)
{
    struct arena arena;
    struct buffer again;
    arena_init(&arena, NULL, 0, 0);
    buffer_init(&again, JSON_BYTES_MAX);
    ProtobufCMessage *message = grpc_message_create(descriptor, &arena);
    check(message != NULL);
    check(grpc_json_read(root, NULL, message, &arena, NULL) == WEIR_OK);
    const struct bytes packed = grpc_message_write(message, &arena);
    check(packed.data != NULL);
    check(protobuf_c_message_check(message) != 0);
    grpc_json_write(message, NULL, &again);
    buffer_finish(&again);
    arena_finish(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t count = 0;
    while (grpc_rpc_at(count) != NULL) {
        count++;
    }
    const struct grpc_rpc *rpc = size == 0 ? NULL : grpc_rpc_at(data[0] % count);
    if (rpc == NULL || rpc->request == NULL) {
        return 0;
    }
    struct arena arena;
    struct buffer json;
    arena_init(&arena, NULL, 0, 0);
    buffer_init(&json, JSON_BYTES_MAX);
    const struct bytes in = { (const char *)data + 1, size - 1 };
    const ProtobufCMessage *message = grpc_message_read(rpc->request, in, &arena);
    if (message != NULL) {
        struct weir_err err;
        yyjson_doc *doc = NULL;
        grpc_json_write(message, NULL, &json);
        const struct bytes text = { json.data, json.size };
        if (!json.failed && json_read(text, &doc, &err) == WEIR_OK) {
            read_back(yyjson_doc_get_root(doc), rpc->request);
            read_back(yyjson_doc_get_root(doc), rpc->answer);
        } else {
            check(json.failed); /* What was written whole is JSON. */
        }
        yyjson_doc_free(doc);
    }
    buffer_finish(&json);
    arena_finish(&arena);
    return 0;
}
