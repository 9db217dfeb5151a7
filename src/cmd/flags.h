/*
 * flags.h — a command's options, from one table that also prints their help.
 */
#ifndef WEIR_CMD_FLAGS_H
#define WEIR_CMD_FLAGS_H

#include <stdbool.h>

#include "util/bytes.h"
#include "util/err.h"

struct flag {
    const char *name;  /* "--input" */
    const char *value; /* What follows, as help shows it; NULL: nothing does. */
    const char *help;
    int key; /* The command's own number, above 0. */
};

#define FLAGS_END           \
    {                       \
        NULL, NULL, NULL, 0 \
    }

#define FLAGS_WORD 0 /* The key of a word that is no option. */

/* Takes one option, `value` NULL where it has none, or a word.  WEIR_EINVAL, in words: it is wrong. */
typedef enum weir_status flag_take(void *context, int key, const char *value, struct weir_err *err);

/* Gives `take` what the words say, from left to right, until one is refused.  A value follows its
 * option as the next word or behind "="; behind "--" there are no options.  `table` ends with FLAGS_END. */
WEIR_MUST_USE enum weir_status flags_read(const struct flag *table, int count, char **words,
                                          flag_take *take, void *context, struct weir_err *err);

/* For an option that may be given several times: appends its value to `list`, which has room for
 * `max`.  WEIR_EINVAL: it is full. */
WEIR_MUST_USE enum weir_status flags_append(const char *name, const char **list, uint32_t *count,
                                            uint32_t max, const char *value, struct weir_err *err);

/* The value of the option `name` as a whole number from 1 to `max`, or as a duration.  WEIR_EINVAL. */
WEIR_MUST_USE enum weir_status flags_number(const char *name, const char *value, uint64_t max,
                                            uint64_t *out, struct weir_err *err);
WEIR_MUST_USE enum weir_status flags_duration(const char *name, const char *value, uint64_t *out_ns,
                                              struct weir_err *err);

/* "  --input NAME=VALUE    what it does", one line per row. */
void flags_help(const struct flag *table, struct buffer *out);

#endif
