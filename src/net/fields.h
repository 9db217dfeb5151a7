/*
 * fields.h — the fields of a complete request header, as llhttp reads them.
 *
 * The one place that knows llhttp, whose names would clash with ours.  Pure functions; any thread.
 */
#ifndef WEIR_NET_FIELDS_H
#define WEIR_NET_FIELDS_H

#include <stdint.h>

#include "util/bytes.h"
#include "util/err.h"

struct http_field {
    struct bytes name;  /* As received. */
    struct bytes value; /* Outer white space removed. */
};

/* Reads `head`, which must be exactly one request header, its empty line included; what is in
 * `prefix` counts as standing before it.  Fills at most `room` fields, which point into `head`.
 * WEIR_EINVAL gives llhttp's reason. */
WEIR_MUST_USE enum weir_status fields_read(const char *prefix, struct bytes head,
                                           struct http_field *fields, uint32_t room,
                                           uint32_t *count, struct weir_err *err);

/* Without the spaces and tabs around it. */
struct bytes fields_trim(struct bytes text);

#endif
