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

/* The words of a command line, read from left to right. */
struct flags {
    const struct flag *table; /* FLAGS_END at the end. */
    char **words;
    int count;
    int at;
    bool plain;        /* "--" was read: no options from here on. */
    const char *value; /* Of what flags_next() returned: the option's value, or the word itself. */
};

#define FLAGS_WORD 0 /* A word that is no option. */
#define FLAGS_DONE (-1)
#define FLAGS_WRONG (-2)

void flags_init(struct flags *flags, const struct flag *table, int count, char **words);

/* The next option's key, FLAGS_WORD, FLAGS_DONE, or FLAGS_WRONG with a sentence.  Values follow
 * as the next word or behind "=". */
int flags_next(struct flags *flags, struct weir_err *err);

/* For an option that may be given several times: appends its value to `list`, which has room for
 * `max`.  WEIR_EINVAL: it is full. */
WEIR_MUST_USE enum weir_status flags_append(const char *name, const char **list, uint32_t *count,
                                            uint32_t max, const char *value, struct weir_err *err);

/* "  --input NAME=VALUE    what it does", one line per row. */
void flags_help(const struct flag *table, struct buffer *out);

#endif
