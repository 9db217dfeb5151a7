/*
 * answer.h — a field of an answer, before a version of HTTP gives it its form.
 *
 * Pure functions; any thread.
 */
#ifndef WEIR_NET_ANSWER_H
#define WEIR_NET_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

#include "util/arena.h"
#include "util/bytes.h"

struct answer_field {
    struct answer_field *next;
    struct bytes name;
    struct bytes value;
};

/* Copies both into `arena`, control bytes of the value replaced, so that none can add a field.
 * False when memory is out. */
WEIR_MUST_USE bool answer_field(struct arena *arena, const char *name, struct bytes value,
                                struct answer_field **out);

/* True when an answer with this status never has a body. */
bool answer_bodyless(int status);

/* Decimal digits at `at`, at most ANSWER_DIGITS_MAX; returns their end. */
#define ANSWER_DIGITS_MAX 20
char *answer_put_u64(char *at, uint64_t value);

#endif
