/*
 * infer_json.h — the body of POST .../infer: JSON, then binary tensors.
 *
 * Any one thread; the call must be open.  Binary tensors are lent from the
 * body, which must stay as long as the call.
 */
#ifndef WEIR_API_INFER_JSON_H
#define WEIR_API_INFER_JSON_H

#include "api/answer_memory.h"
#include "api/kserve.h"

#define INFER_MEMORY_BYTES 1024
#define INFER_MEMORY_TENSORS 8

/*
 * The last JSON that a model got and what it meant, so that the next request, which for many
 * clients has the same JSON and other binary tensors, need not be parsed.  Zeroed: nothing.
 * One thread at a time.
 */
struct infer_memory {
    const struct model *model; /* NULL: nothing is remembered. */
    uint64_t generation;       /* Of the catalogue; with `model` it names a version for good. */
    size_t json_size;
    struct {
        uint32_t index;
        size_t size;
        struct shape shape;
    } inputs[INFER_MEMORY_TENSORS]; /* In the order of their bytes. */
    uint32_t input_count;
    struct infer_output outputs[INFER_MEMORY_TENSORS];
    uint32_t output_count;
    struct answer_memory answer;
    char json[INFER_MEMORY_BYTES];
};

/* Reads `body`, of which the first json_size bytes are JSON, into the call and completes it.
 * `memory` may be NULL; it is looked at and kept up.  WEIR_EINVAL, WEIR_EUNSUPPORTED (shared
 * memory, sequences), WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status infer_json_read(struct infer_call *call, struct bytes body,
                                               size_t json_size, struct infer_memory *memory,
                                               uint64_t generation, struct weir_err *err);

/* A raw binary request: the whole body is the model's only input; all outputs are binary. */
WEIR_MUST_USE enum weir_status infer_json_read_raw(struct infer_call *call, struct bytes body,
                                                   struct weir_err *err);

#endif
