/*
 * session_grpc.h — a session's questions by gRPC; see session.h.
 */
#ifndef WEIR_CMD_SESSION_GRPC_H
#define WEIR_CMD_SESSION_GRPC_H

#include "cmd/session.h"

WEIR_MUST_USE enum weir_status session_grpc_describe(struct session *session, struct arena *arena,
                                                     struct interface *out, struct weir_err *err);

/* Fills `answer`, which the caller finishes, also after a failure. */
WEIR_MUST_USE enum weir_status session_grpc_infer(struct session *session,
                                                  const struct value *inputs, uint32_t input_count,
                                                  struct answer *answer, struct weir_err *err);

#endif
