/*
 * kserve_shared.h — tensors of an inference that lie in shared memory.
 *
 * Inputs are copied out of their regions while the request is read, outputs into theirs
 * once it has ended; both by a worker, as they may be large.  The call holds its regions until
 * kserve_close().
 */
#ifndef WEIR_API_KSERVE_SHARED_H
#define WEIR_API_KSERVE_SHARED_H

#include "api/kserve.h"

/* Where a client says that a tensor lies. */
struct kserve_where {
    struct bytes region;
    uint64_t offset;
    uint64_t size;
};

/* WEIR_EUNSUPPORTED where there is no shared memory; the calls below say so, too. */
WEIR_MUST_USE enum weir_status kserve_shared_allowed(const struct infer_call *call,
                                                     struct weir_err *err);

/* Reads an input that kserve_input() gave.  WEIR_EUNSUPPORTED: there is no shared memory here;
 * WEIR_EINVAL: no such region or range, or not the tensor's size; WEIR_EFULL, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status kserve_share_input(struct infer_call *call, struct tensor *tensor,
                                                  struct bytes name,
                                                  const struct kserve_where *where,
                                                  struct weir_err *err);

/* An output that kserve_output() gave goes into a region instead of the answer. */
WEIR_MUST_USE enum weir_status kserve_share_output(struct infer_call *call,
                                                   struct infer_output *output,
                                                   const struct kserve_where *where,
                                                   struct weir_err *err);

/* Is there anything for kserve_write_shared() to do? */
bool kserve_shares_outputs(const struct infer_call *call);

/* Writes the outputs of an ended request.  WEIR_EINVAL: one is larger than its place; WEIR_EIO. */
WEIR_MUST_USE enum weir_status kserve_write_shared(struct infer_call *call, struct weir_err *err);

/* Lets all regions go; kserve_close() does it. */
void kserve_release_shared(struct infer_call *call);

#endif
