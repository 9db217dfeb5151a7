/*
 * infer_proto_write.h — ModelInferResponse and ModelStreamInferResponse.
 *
 * Heads are written into the arena, large tensors are lent from where they lie: the pieces are good
 * while the arena and the tensors are.  Outputs always go as raw_output_contents, one entry per
 * output in the same order, whatever the request used.  Any one thread.
 */
#ifndef WEIR_API_INFER_PROTO_WRITE_H
#define WEIR_API_INFER_PROTO_WRITE_H

#include "api/kserve.h"

struct infer_proto_answer {
    const struct infer_call *call; /* Names the model; its outputs say which and in what order. */
    const struct tensor *tensors;  /* By the signature; NULL: no outputs at all. */
    const struct infer_timing *timing; /* NULL: not asked for. */
    bool streamed;                     /* One response of a stream: */
    bool final;                        /* the request's last. */
};

struct infer_proto_pieces {
    struct bytes *pieces;
    uint32_t count;
    uint64_t size; /* Of all of them. */
};

/* WEIR_EINVAL: more than a message can be (2 GiB); WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status infer_proto_write(const struct infer_proto_answer *answer,
                                                 struct arena *arena,
                                                 struct infer_proto_pieces *out,
                                                 struct weir_err *err);

/* What went wrong with one request of a stream.  `call` names the model, and NULL says that it
 * failed before it was accepted; `id` may be empty.  WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status infer_proto_write_error(struct bytes id, const char *text,
                                                       const struct infer_call *call,
                                                       struct arena *arena, struct bytes *out,
                                                       struct weir_err *err);

#endif
