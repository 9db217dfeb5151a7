/*
 * infer_json.h — the body of POST .../infer: JSON, then binary tensors.
 *
 * Any one thread; the call must be open.  Binary tensors are lent from the
 * body, which must stay as long as the call.
 */
#ifndef WEIR_API_INFER_JSON_H
#define WEIR_API_INFER_JSON_H

#include "api/kserve.h"

/* Reads `body`, of which the first json_size bytes are JSON, into the call and completes it.  WEIR_EINVAL,
 * WEIR_EUNSUPPORTED (shared memory, sequences), WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status infer_json_read(struct infer_call *call, struct bytes body,
                                               size_t json_size, struct weir_err *err);

/* A raw binary request: the whole body is the model's only input; all outputs are binary. */
WEIR_MUST_USE enum weir_status infer_json_read_raw(struct infer_call *call, struct bytes body,
                                                   struct weir_err *err);

#endif
