/*
 * body.h — the memory of one request's body.
 *
 * Nothing is touched before bytes arrive: a declared size only says how much address space to
 * ask for.  Every byte counts against bodies_bytes_max from its arrival until body_finish(), and so
 * do large answers from when they are given until the socket has taken them: a client that does not
 * read costs as much as one that sends.
 * Owned by the exchange's loop; the count of all is for any thread.
 */
#ifndef WEIR_NET_BODY_H
#define WEIR_NET_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/arena.h"
#include "util/bytes.h"
#include "util/err.h"
#include "util/limits.h"

struct body {
    char *data; /* data + align_at is MEM_ALIGN-aligned; NULL before the first byte. */
    size_t size;
    size_t capacity;
    void *heap;        /* The block behind data when it is neither the arena's nor lent. */
    bool lent;         /* By the handler. */
    uint64_t expected; /* Declared size; 0 when it is not known. */
    size_t align_at;
    uint64_t bytes_max;
};

/* Before the first byte: they go to `memory`, of `capacity` bytes, as far as it goes. */
void body_lend(struct body *body, char *memory, size_t capacity);

/* Adds bytes; those that were read into body_place() are only counted.  WEIR_ETOOBIG beyond
 * bytes_max, WEIR_EFULL beyond limits->bodies_bytes_max, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status body_append(struct body *body, struct arena *arena,
                                           const struct limits *limits, struct bytes bytes,
                                           struct weir_err *err);

/* Where a large body of declared size continues; false when it is to be appended by copying. */
bool body_place(const struct body *body, char **out, size_t *room);

void body_finish(struct body *body);

/* Counts bytes of a body that is kept elsewhere, until body_let_go().  WEIR_EFULL beyond
 * limits->bodies_bytes_max: nothing was counted. */
WEIR_MUST_USE enum weir_status body_try_hold(uint64_t size, const struct limits *limits,
                                             struct weir_err *err);

/* Counts bytes of an answer that wait for its client: they take the same memory. */
void body_hold(uint64_t size);
void body_let_go(uint64_t size);

uint64_t body_bytes_of_all(void);

#endif
