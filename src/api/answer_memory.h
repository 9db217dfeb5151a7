/*
 * answer_memory.h — what an equal request's answer said about its outputs, so that it need not be
 * written again.
 *
 * It belongs to a remembered request (infer_json.h, infer_recall.h).  What an answer says before
 * its tensors depends on the request and on the outputs' shapes and sizes only.  One loop's thread.
 */
#ifndef WEIR_API_ANSWER_MEMORY_H
#define WEIR_API_ANSWER_MEMORY_H

#include "api/kserve.h"

#define ANSWER_MEMORY_BYTES 512
#define ANSWER_MEMORY_OUTPUTS 8

struct answer_memory {
    uint64_t serial; /* Of the request that is remembered. */
    struct request_facts facts;
    uint32_t count; /* Outputs; 0: nothing is remembered. */
    uint32_t size;
    size_t sizes[ANSWER_MEMORY_OUTPUTS];
    struct shape shapes[ANSWER_MEMORY_OUTPUTS];
    char text[ANSWER_MEMORY_BYTES];
};

/* Another request is about to be remembered. */
void answer_memory_begin(struct answer_memory *memory);

/* The call is one of the remembered request. */
void answer_memory_join(struct answer_memory *memory, struct infer_call *call);

/* What the answers of this call's request said, if its outputs are the same; else data NULL. */
struct bytes answer_memory_find(const struct infer_call *call);

/* Its answer says this, and nothing that another one would not. */
void answer_memory_keep(const struct infer_call *call, struct bytes text);

/* What the engine knows of equal requests, or NULL. */
struct request_facts *answer_memory_facts(const struct infer_call *call);

#endif
