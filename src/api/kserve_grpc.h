/*
 * kserve_grpc.h — ModelInfer and ModelStreamInfer.  Loop thread.
 *
 * One stream may carry requests for different models, several at a time.  A request that
 * fails says so in its response and leaves the stream open, unless the call's metadata has
 * `triton_grpc_error: true`.  Models that give one response are answered in the order of their
 * requests; those that give several are answered as responses come.
 */
#ifndef WEIR_API_KSERVE_GRPC_H
#define WEIR_API_KSERVE_GRPC_H

#include "net/grpc.h"

#define KSERVE_GRPC_REQUESTS_MAX 256 /* Of one stream at a time; then it is not read. */

extern const struct grpc_reader kserve_grpc_infer;
extern const struct grpc_reader kserve_grpc_stream;

#endif
