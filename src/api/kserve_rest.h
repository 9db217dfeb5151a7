/*
 * kserve_rest.h — POST /v2/models/{model}/infer.  Loop thread.
 */
#ifndef WEIR_API_KSERVE_REST_H
#define WEIR_API_KSERVE_REST_H

#include "api/kserve.h"

struct call;

void kserve_rest_infer(struct call *call);

/* head(), once the rules for the body are set: where the model takes its inputs from memory of its
 * own, that is where they are received, once there are any. */
void kserve_rest_receive(struct call *call);

/* What the request's fields say about deadlines and timing; for every way to ask for an inference.
 * WEIR_EINVAL: Weir-Deadline-Ms is no number. */
WEIR_MUST_USE enum weir_status kserve_rest_fields(const struct call *call, struct infer_call *infer,
                                                  struct weir_err *err);

/* Adds Server-Timing to an answer that is about to begin, where somebody asked for it. */
void kserve_rest_timing(struct call *call, const struct infer_call *infer);

/* Answers with the request's failure, with Retry-After where it helps. */
void kserve_rest_fail(struct call *call, const struct infer_call *infer);

#endif
