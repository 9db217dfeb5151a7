/*
 * head.h — a request header that may come again, and what it meant.
 *
 * Clients send the same header again and again.  What one means depends on itself alone (and on
 * limits, which do not change), so one that is byte for byte the one before on its connection is
 * not read again: its exchanges share what the first reading made of it.  What a client sent is
 * compared with its own bytes only.
 *
 * Unchangeable but for what its users keep with it; counted.  For one loop's thread.
 */
#ifndef WEIR_NET_HEAD_H
#define WEIR_NET_HEAD_H

#include "net/encoding.h"
#include "net/http.h"

#define HEAD_BYTES_MAX 1024 /* Longer headers are not remembered, */
#define HEAD_FIELDS_MAX 24  /* nor are those with more fields. */

/* What a request says about its own transport. */
struct http1_facts {
    bool version_1_0;
    bool keep_alive;
    bool expects_continue;
    bool chunked;
    uint64_t body_size; /* 0 without a body or when chunked. */
};

/* What gRPC reads from a header. */
struct head_grpc {
    bool known;
    bool encoding_unknown;
    enum encoding encoding;
    uint64_t timeout_ns;
};

struct head {
    uint32_t holders;
    enum http_version version;
    enum http_method method;
    struct bytes target;
    struct bytes path;
    struct bytes query;
    struct http_field *fields; /* As the exchange has them. */
    uint32_t field_count;
    struct http1_facts facts;
    struct bytes text;       /* HTTP/1: the whole header; else all names and values. */
    struct http_field *list; /* HTTP/2: all fields as they came, with the pseudo-fields. */
    uint32_t list_count;
    struct head_grpc grpc;
    struct http_memo memo;
};

/* The header of `x`, which is exactly `text`.  NULL: it is too large to be remembered, or memory is
 * out. */
struct head *head_create(const struct exchange *x, struct bytes text,
                         const struct http1_facts *facts);
void head_release(struct head *head); /* NULL is fine. */

/* Gives an exchange what the header meant, for as long as its arena lives.  False when memory is
 * out. */
WEIR_MUST_USE bool head_share(struct head *head, struct exchange *x);

/* --- HTTP/2, where a header comes field by field --- */

/* The fields of the header that is being read. */
struct head_draft {
    uint32_t count;
    uint32_t size;
    bool overflown;
    struct {
        uint16_t name_size;
        uint16_t value_size;
    } spans[HEAD_FIELDS_MAX];
    char text[HEAD_BYTES_MAX];
};

void head_draft_begin(struct head_draft *draft);
void head_draft_add(struct head_draft *draft, struct bytes name, struct bytes value);

/* The header of `x`, which was drafted as a whole.  As head_create(). */
struct head *head_create_drafted(const struct exchange *x, const struct head_draft *draft);

/* Is that its field number `index`? */
static inline bool head_has(const struct head *head, uint32_t index, struct bytes name,
                            struct bytes value)
{
    return index < head->list_count && bytes_equal(head->list[index].name, name) &&
           bytes_equal(head->list[index].value, value);
}

#endif
