/*
 * arrivals.h — when requests are to be sent, decided before the first one leaves.
 *
 * A generator that works through such a schedule cannot be slowed down by the server it measures:
 * latency counts from the intended time, whether the request left then or not.  The same
 * specification and seed give the same schedule on every machine.
 */
#ifndef WEIR_CMD_ARRIVALS_H
#define WEIR_CMD_ARRIVALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/bytes.h"
#include "util/err.h"

/* X(name, word, one line) */
#define ARRIVALS(X)                                                             \
    X(CONSTANT, "constant", "evenly spaced")                                    \
    X(POISSON, "poisson", "exponential gaps, as from many independent clients") \
    X(RECORDED, "recorded", "times read from a file")                           \
    X(USERS, "users", "users who are active for a while, then think")

enum arrivals_kind {
#define ARRIVALS_ENUM(name, word, line) ARRIVALS_##name,
    ARRIVALS(ARRIVALS_ENUM)
#undef ARRIVALS_ENUM
    ARRIVALS_COUNT
};

#define ARRIVALS_MAX ((size_t)1 << 27) /* Times in one schedule: 1 GiB. */
#define ARRIVALS_USERS_MAX 1000000

struct arrivals_spec {
    enum arrivals_kind kind;
    uint64_t seed;
    uint64_t duration_ns; /* Times lie in [0, duration); RECORDED: 0 takes the whole file. */
    /* CONSTANT, POISSON: requests per second in all.  USERS: of one active user, evenly spaced. */
    double rate;
    uint32_t users;   /* USERS: 1..ARRIVALS_USERS_MAX */
    uint64_t on_ns;   /* USERS: how long one is active, */
    uint64_t off_ns;  /* and thinks. */
    bool fixed;       /* USERS: exactly so long; else exponential with these means. */
    const char *path; /* RECORDED: a text file, see arrivals_read(). */
    double speed;     /* RECORDED: 2 replays twice as fast; 0 counts as 1. */
};

struct arrivals {
    uint64_t *at_ns; /* Ascending, from the start of the run. */
    uint32_t *user;  /* Which user sends it; NULL except for USERS, and RECORDED with a column. */
    size_t count;
    size_t capacity;
    uint32_t users; /* One more than the greatest of `user`; 0 without. */
};

/* "poisson": false when there is no such word. */
WEIR_MUST_USE bool arrivals_kind_of(struct bytes word, enum arrivals_kind *out);
const char *arrivals_word(enum arrivals_kind kind);

/* WEIR_EINVAL: a number out of range, or too many times; WEIR_EIO, WEIR_ENOENT: the file;
 * WEIR_ENOMEM.  `out` is written on success only, and finished by the caller. */
WEIR_MUST_USE enum weir_status arrivals_make(const struct arrivals_spec *spec, struct arrivals *out,
                                             struct weir_err *err);
void arrivals_finish(struct arrivals *arrivals); /* Zeroed is fine. */

/* The text of a recording: one arrival a line, seconds from the start as a decimal number, not
 * before the line above; then, if wanted, a space or comma and a user's whole number.  Empty lines
 * and those with '#' in front do not count.  `name` stands for the file in sentences. */
WEIR_MUST_USE enum weir_status arrivals_read(struct bytes text, const char *name,
                                             const struct arrivals_spec *spec, struct arrivals *out,
                                             struct weir_err *err);

/* Requests per second that the specification asks for on average; 0 for RECORDED. */
double arrivals_rate(const struct arrivals_spec *spec);

#endif
