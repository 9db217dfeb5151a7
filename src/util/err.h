/*
 * err.h — writing and extending the sentences in a struct weir_err.
 *
 * Any thread; no locks; nothing is allocated.  A sentence that does not fit is
 * cut at a UTF-8 boundary and ends in "...".  Control bytes and bytes that are
 * no UTF-8 become '?', so that text from a client can be quoted without forging
 * log lines.
 */
#ifndef WEIR_UTIL_ERR_H
#define WEIR_UTIL_ERR_H

#include <stdarg.h>

#include "weir/status.h"

/* Writes the sentence (err may be NULL) and returns `status`, for `return err_set(...)`. */
enum weir_status err_set(struct weir_err *err, enum weir_status status, const char *format, ...)
    WEIR_PRINTF(3, 4);

enum weir_status err_setv(struct weir_err *err, enum weir_status status, const char *format,
                          va_list args) WEIR_PRINTF(3, 0);

/* Puts "PREFIX: " before the sentence: `err_prefix(err, "model 'a'")`.  Returns err's status; for a
 * caller without err that is not known (WEIR_EINVAL, never WEIR_OK), so keep the status yourself
 * where err may be NULL. */
enum weir_status err_prefix(struct weir_err *err, const char *format, ...) WEIR_PRINTF(2, 3);

/* The usual sentence when mem_try_* returned NULL: "out of memory for WHAT (N bytes)". */
enum weir_status err_nomem(struct weir_err *err, const char *what, unsigned long long bytes);

#endif
