/*
 * grpc_rpc.h — the one table of what can be called over gRPC, and how a call gets to its handler.
 *
 * Most calls are answered by the REST route that says the same (grpc_json.h); inference streams
 * past that (kserve_grpc.h).  Loop thread.
 */
#ifndef WEIR_API_GRPC_RPC_H
#define WEIR_API_GRPC_RPC_H

#include <protobuf-c/protobuf-c.h>

#include "api/call.h"
#include "net/grpc.h"

#define GRPC_UNARY_BYTES_MAX 67108864 /* Of a request other than an inference. */

/* A call that REST answers, too. */
struct grpc_route {
    enum http_method method;
    const char *pattern; /* As in route.c. */
    /* The same where the request names no model or region; NULL: one must be named. */
    const char *bare;
    const char *name; /* The field that names it. */
    bool settings;    /* The body is the map `settings`; none is a GET. */
    /* The field that the whole of the JSON answer is; NULL: its members are fields. */
    const char *wrap;
};

struct grpc_rpc {
    const char *path;
    enum route_group group;
    const struct grpc_reader *reader; /* NULL: one message each way, whole. */
    const ProtobufCMessageDescriptor *request;
    const ProtobufCMessageDescriptor *answer;
    /* The request is complete; NULL: `route` answers. */
    void (*handle)(struct call *call, const ProtobufCMessage *request);
    struct grpc_route route;
};

/* True when this exchange is meant to be gRPC, by its type or its path. */
bool grpc_rpc_is(const struct exchange *x);

/* NULL: there is no such call. */
const struct grpc_rpc *grpc_rpc_find(struct bytes path);

/* At the head: makes `call` a gRPC call, or answers. */
void grpc_rpc_open(struct call *call, const struct grpc_rpc *rpc);

/* Answers with a message, whose strings may live anywhere until this returns. */
void grpc_rpc_reply(struct call *call, const ProtobufCMessage *message);

/* For call.c: what a REST handler answers. */
void grpc_rpc_reply_json(struct call *call, struct bytes json);
void grpc_rpc_fail(struct call *call, enum weir_status status, const char *text,
                   uint32_t retry_after_s);

/* The table, from 0; NULL at the end. */
const struct grpc_rpc *grpc_rpc_at(uint32_t index);

#endif
