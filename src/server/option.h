/*
 * option.h — the one table of the server's settings, and how each kind of value is read and
 * written.
 *
 * A row says where in struct config the value lies and of what kind it is; the kind says how to
 * read it and how to print it.  The limits of util/limits.h are rows like all others, made from
 * their own table.  One thread, at start.
 */
#ifndef WEIR_SERVER_OPTION_H
#define WEIR_SERVER_OPTION_H

#include <stddef.h>
#include <stdint.h>

#include "server/config.h"
#include "util/bytes.h"
#include "util/err.h"

#define OPTION_WORD_BYTES 96 /* Longest key, flag or variable, with its NUL. */
#define OPTION_EXPECTED_BYTES 128

enum option_kind {
    KIND_BOOL,
    KIND_COUNT,
    KIND_SIZE,
    KIND_DURATION,
    KIND_TEXT,
    KIND_LIST,
    KIND_ENUM
};

struct option {
    const char *key; /* As in YAML; a dot is a level. */
    const char *group;
    enum option_kind kind;
    size_t offset; /* In struct config. */
    uint64_t min;  /* COUNT, SIZE */
    uint64_t max;
    const char *preset;       /* The default, as text. */
    const char *const *texts; /* ENUM: by value, NULL at the end. */
    const char *help;
};

extern const struct option options[];
extern const size_t option_count;

/* A setting's three names: http_port, --http-port, WEIR_HTTP_PORT.  `out` has OPTION_WORD_BYTES. */
typedef void option_name_fn(const struct option *option, char *out);
option_name_fn option_key;
option_name_fn option_flag;
option_name_fn option_variable;

/* By one of its names; NULL when there is none. */
const struct option *option_find(option_name_fn *name, const char *text);

/* "; did you mean 'host'?" for a near miss, else "".  `out` has OPTION_WORD_BYTES + 32. */
const char *option_hint(option_name_fn *name, const char *text, char *out);

/* "a whole number from 0 to 65535" into `out` of OPTION_EXPECTED_BYTES; returns it. */
const char *option_expected(const struct option *option, char *out);

/* Reads a value into `config`; a list grows by what the text lists.  `where` begins the sentence.
 * WEIR_EINVAL, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status option_read(struct config *config, const struct option *option,
                                           const char *text, const char *where,
                                           struct weir_err *err);

/* Adds one text, commas and all, to a list. */
WEIR_MUST_USE enum weir_status option_add(struct config *config, const struct option *option,
                                          const char *text, const char *where,
                                          struct weir_err *err);

/* Empties a list. */
void option_clear(struct config *config, const struct option *option);

/* The value as the files would write it. */
void option_format(const struct config *config, const struct option *option, struct buffer *out);

#endif
