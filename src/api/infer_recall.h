/*
 * infer_recall.h — a message of gRPC that a loop has read before, and what it meant.
 *
 * Many clients send the same ModelInferRequest again and again, with other bytes in its tensors.  A
 * message that is the same but for raw_input_contents, which stand at its end, means the same and
 * is not decoded again.
 *
 * One thread at a time.
 */
#ifndef WEIR_API_INFER_RECALL_H
#define WEIR_API_INFER_RECALL_H

#include "api/answer_memory.h"
#include "api/kserve.h"

#define INFER_RECALL_BYTES \
    512 /* Of a message before its tensors; longer ones are not remembered, */
#define INFER_RECALL_TENSORS 8 /* nor are those with more. */

/* Zeroed: nothing. */
struct infer_recall {
    struct model *model; /* NULL: nothing is remembered, or not yet. */
    uint64_t generation; /* Of the catalogue; with `model` it names a version for good. */
    size_t message_size;
    size_t head_size;
    struct {
        uint32_t index;
        size_t size;
        struct shape shape;
    } inputs[INFER_RECALL_TENSORS]; /* In the order of their bytes. */
    uint32_t input_count;
    struct infer_output outputs[INFER_RECALL_TENSORS];
    uint32_t output_count;
    struct answer_memory answer; /* Its serial is that of the message that is here. */
    char head[INFER_RECALL_BYTES];
};

/* Whether `message`, which is whole, is the remembered one; `tensors` are then its raw contents. */
bool infer_recall_is(const struct infer_recall *self, struct bytes message, uint64_t generation,
                     struct bytes tensors[INFER_RECALL_TENSORS]);

/* Fills an open call of the remembered model in, with copies of `tensors`, and completes it.  As
 * kserve's calls. */
WEIR_MUST_USE enum weir_status infer_recall_bind(struct infer_recall *self, struct infer_call *call,
                                                 const struct bytes *tensors, struct weir_err *err);

/* A message that is whole is about to be decoded: takes what is to be compared.  False when it
 * cannot be remembered. */
bool infer_recall_begin(struct infer_recall *self, struct bytes message);

/* It meant this: the call is complete, each of its inputs came in raw_input_contents, in the order
 * of `input_indices`, and its model is of that generation.  Nothing is remembered where the call
 * says something about this one request, or where another message has come in between. */
void infer_recall_end(struct infer_recall *self, uint64_t serial, struct infer_call *call,
                      const uint32_t *input_indices, uint32_t input_count, uint64_t generation);

#endif
