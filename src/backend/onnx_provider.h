/*
 * onnx_provider.h — execution providers: what else than the processor runs the nodes of a graph.
 *
 * A provider is part of the runtime's build, or a library beside it.  The runtime gives each node
 * to the first provider of the list that can run it, and the rest to the processor.
 */
#ifndef WEIR_BACKEND_ONNX_PROVIDER_H
#define WEIR_BACKEND_ONNX_PROVIDER_H

#include "backend/backend.h"

struct OrtSessionOptions;

/* True when the list names something besides the processor. */
bool onnx_providers_any(const struct backend_load *how);

/* Adds those of the load, in their order.  One that cannot be had is left out where the list ends
 * with "cpu": `left_out` then says which and why, else its text is empty.  WEIR_EINVAL: unknown, not
 * in this build, or its options are wrong; WEIR_EUNAVAILABLE: its library or its device is not
 * there. */
WEIR_MUST_USE enum weir_status onnx_providers_add(const struct backend_load *how,
                                                  struct OrtSessionOptions *options,
                                                  struct weir_err *left_out, struct weir_err *err);

#endif
