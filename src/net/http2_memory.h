/*
 * http2_memory.h — small blocks for the sessions of one loop, kept for reuse.
 *
 * nghttp2 allocates and frees several small blocks per stream; with hundreds of streams in flight
 * the C library's own caches overflow.  For the loop's thread.
 */
#ifndef WEIR_NET_HTTP2_MEMORY_H
#define WEIR_NET_HTTP2_MEMORY_H

#include <stdint.h>

#include <nghttp2/nghttp2.h>

#define HTTP2_MEMORY_STEP 64    /* Sizes of blocks are multiples of it. */
#define HTTP2_MEMORY_CLASSES 12 /* Larger blocks are the C library's. */
#define HTTP2_MEMORY_KEPT 4096  /* Blocks of a size. */

struct http2_block;

struct http2_memory {
    struct http2_block *spare[HTTP2_MEMORY_CLASSES];
    uint32_t count[HTTP2_MEMORY_CLASSES];
};

/* The allocator to give to a session. */
nghttp2_mem http2_memory_of(struct http2_memory *memory);

/* Frees what is kept; no session may be left. */
void http2_memory_finish(struct http2_memory *memory);

#endif
