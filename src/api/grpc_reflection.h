/*
 * grpc_reflection.h — gRPC's reflection service, versions v1 and v1alpha, which say the same in the
 * same bytes.
 *
 * Answers from the descriptors that were built in.  Loop thread.
 */
#ifndef WEIR_API_GRPC_REFLECTION_H
#define WEIR_API_GRPC_REFLECTION_H

#include "net/grpc.h"

extern const struct grpc_reader grpc_reflection;

#endif
