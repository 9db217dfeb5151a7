/*
 * block.h — counted memory that tensors point into.
 *
 * A block is freed when its last holder lets go, on that holder's thread.  Blocks of a pool go back
 * to it: the pool keeps at most bytes_max of free memory, sorted in power-of-two sizes, those asked
 * for last before others, so that a steady load allocates nothing.  Acquire, release and the pool
 * are for any thread.
 */
#ifndef WEIR_TENSOR_BLOCK_H
#define WEIR_TENSOR_BLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weir/status.h"

struct block_pool;

/* Embed it to lend foreign memory, or let block_create() make one. */
struct block {
    _Atomic uint32_t holders;
    uint8_t *data;                       /* MEM_ALIGN-aligned when made here. */
    size_t size;                         /* Usable bytes. */
    void (*release)(struct block *self); /* The last holder is gone. */
    struct block_pool *pool;             /* NULL: not from a pool. */
    struct block *next;                  /* The pool's, while free. */
    bool renewed;                        /* The pool's. */
};

/* A block with one holder, not zeroed; NULL when memory is out. */
WEIR_MUST_USE struct block *block_create(size_t size);

/* Fills in a block embedded in something that owns foreign memory; one holder. */
void block_init(struct block *block, void *data, size_t size, void (*release)(struct block *));

void block_acquire(struct block *block); /* NULL is fine. */
void block_release(struct block *block); /* NULL is fine. */

/* Creates a pool that keeps up to bytes_max of freed memory.  Aborts when memory is out. */
struct block_pool *block_pool_create(uint64_t bytes_max);
void block_pool_destroy(struct block_pool *pool); /* Every block must be back. */
WEIR_MUST_USE struct block *block_pool_take(struct block_pool *pool, size_t size);
void block_pool_trim(struct block_pool *pool); /* Frees what is kept. */

/* Bytes in blocks that are out, and bytes kept for reuse. */
uint64_t block_pool_used_bytes(const struct block_pool *pool);
uint64_t block_pool_kept_bytes(const struct block_pool *pool);

#endif
