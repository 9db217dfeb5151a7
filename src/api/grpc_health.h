/*
 * grpc_health.h — gRPC's health service.  Loop thread.
 *
 * "" and the inference service stand for the server, a model's name for the model.
 */
#ifndef WEIR_API_GRPC_HEALTH_H
#define WEIR_API_GRPC_HEALTH_H

#include <protobuf-c/protobuf-c.h>

#include "api/call.h"
#include "net/grpc.h"

void grpc_health_check(struct call *call, const ProtobufCMessage *request);
void grpc_health_list(struct call *call, const ProtobufCMessage *request);

/* Says the status at once and whenever it has changed. */
extern const struct grpc_reader grpc_health_watch;

#endif
