/*
 * http1_memory.h — a connection's latest request header, and what it meant.
 *
 * Clients send the same header again and again.  What one means depends on its bytes alone (and on limits, which do
 * not change), so a header that is byte for byte the one before is not read again.
 *
 * Only whole headers that were found good are remembered: a request that begins with such bytes has its
 * header end where theirs did.  What one client sent is compared with its own bytes only.
 */
#ifndef WEIR_NET_HTTP1_MEMORY_H
#define WEIR_NET_HTTP1_MEMORY_H

#include "net/http.h"

#define HTTP1_MEMORY_BYTES 1024 /* Longer headers are not remembered, */
#define HTTP1_MEMORY_FIELDS 24  /* nor are those with more fields. */

/* What a request says about its own transport. */
struct http1_facts {
    bool version_1_0;
    bool keep_alive;
    bool expects_continue;
    bool chunked;
    uint64_t body_size; /* 0 without a body or when chunked. */
};

struct http1_memory;

/* Remembers the header in x, which is exactly `head`; *memory is NULL at first, and the caller's to free.  What is too
 * large, or finds no memory, is not remembered. */
void http1_memory_keep(struct http1_memory **memory, struct bytes head, const struct exchange *x,
                       const struct http1_facts *facts);

/* Where `in` begins with the remembered header, fills in the exchange's request from a copy in its arena, and returns
 * the header's size; else 0.  NULL remembers nothing. */
size_t http1_memory_recall(const struct http1_memory *memory, struct bytes in, struct exchange *x,
                           struct http1_facts *facts);

#endif
