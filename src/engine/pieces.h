/*
 * pieces.h — the rows of one large request in several runs.
 *
 * Each piece runs on a view of its rows of the inputs; what came out is kept until all pieces are
 * there, then put together along the leading dimension.  An executor's; allocates, knows no clock.
 */
#ifndef WEIR_ENGINE_PIECES_H
#define WEIR_ENGINE_PIECES_H

#include "tensor/tensor.h"
#include "util/err.h"

struct request;
struct signature;

struct pieces {
    const struct request *request; /* Borrowed, as is the signature. */
    const struct signature *signature;
    uint64_t rows;          /* Done so far. */
    size_t *at;             /* Per input: where the next piece begins. */
    struct tensor *outputs; /* count times the signature's outputs. */
    uint32_t count;
    uint32_t room;
};

/* WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status pieces_init(struct pieces *pieces, const struct request *request,
                                           const struct signature *signature, struct weir_err *err);
void pieces_finish(struct pieces *pieces); /* Lets go what was not taken. */

/* The next `rows` rows of an input; borrowed. */
struct tensor pieces_view(const struct pieces *pieces, uint32_t input, uint64_t rows);

/* A run of the next `rows` rows went well: takes its outputs, which are absent then.  WEIR_ENOMEM:
 * they are still the caller's. */
WEIR_MUST_USE enum weir_status pieces_add(struct pieces *pieces, uint64_t rows,
                                          struct tensor *outputs, struct weir_err *err);

/* Puts one output together; absent where it was in all pieces.  WEIR_ECONFLICT: they do not fit
 * each other, the sentence says how; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status pieces_join(const struct pieces *pieces, uint32_t output,
                                           struct block_pool *blocks, struct tensor *out,
                                           struct weir_err *err);

#endif
