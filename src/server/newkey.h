/*
 * newkey.h — makes an API key: what its owner sends, and the line that a server keeps of it.
 */
#ifndef WEIR_SERVER_NEWKEY_H
#define WEIR_SERVER_NEWKEY_H

#include <stdint.h>

#include "util/bytes.h"
#include "util/err.h"

struct newkey {
    const char *name;
    const char *allow; /* "use", or groups and sets of them between commas. */
    uint64_t priority; /* 0: any; and so below. */
    uint64_t weight;
    uint64_t concurrency;
    const char *rate; /* Calls per second, as text; NULL: any. */
};

/* Appends the key and the line, each with its newline.  WEIR_EINVAL, WEIR_EIO. */
WEIR_MUST_USE enum weir_status newkey_make(const struct newkey *wanted, struct buffer *key,
                                           struct buffer *line, struct weir_err *err);

#endif
