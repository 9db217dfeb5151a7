/*
 * field.h — reading a YAML map by a table of its keys.
 *
 * The table says of each key how it is read, what it expects and what it does; the sentence about an
 * unknown key and the documentation come from it too.  A table's rows are made with the macros below.
 */
#ifndef WEIR_SERVER_FIELD_H
#define WEIR_SERVER_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/arena.h"
#include "util/bytes.h"
#include "util/err.h"
#include "util/yaml.h"

/* What all of one document's reading shares. */
struct field_reader {
    const char *file;    /* For sentences. */
    const char *subject; /* What the document is about: the model's name. */
    struct arena *arena; /* Of the tree and all that is read. */
    struct weir_err *err;
    bool loose; /* Keys may also be in protobuf's camelCase. */
};

struct field;

/* Reads `node` into `target`, usually at field->offset.  WEIR_EINVAL, WEIR_ENOMEM. */
typedef enum weir_status field_read_fn(const struct field_reader *reader, const struct field *field,
                                       const struct yaml *node, void *target);

struct field_table {
    const struct field *fields;
    size_t count;
};

struct field {
    const char *key;
    field_read_fn *read;
    const char *expects;
    const char *help;
    size_t offset;
    int64_t min;
    int64_t max;
    const struct field_table *table; /* Of the message, or of each item of a list. */
};

#define FIELD(key, read, expects, help, at)      \
    {                                            \
        key, read, expects, help, at, 0, 0, NULL \
    }
#define FIELD_RANGE(key, read, expects, help, at, min, max) \
    {                                                       \
        key, read, expects, help, at, min, max, NULL        \
    }
#define FIELD_NESTED(key, read, expects, help, table) \
    {                                                 \
        key, read, expects, help, 0, 0, 0, table      \
    }
#define FIELD_UNSUPPORTED(key)                                            \
    {                                                                     \
        key, field_unsupported, "nothing", "not supported", 0, 0, 0, NULL \
    }
#define FIELD_TABLE(fields)                          \
    {                                                \
        fields, sizeof(fields) / sizeof((fields)[0]) \
    }

/* Reads all entries of a map.  Entries that are null count as absent. */
WEIR_MUST_USE enum weir_status field_read_table(const struct field_reader *reader,
                                                const struct field_table *table,
                                                const struct yaml *node, void *target);

/* "FILE:LINE: KEY: found X, expected Y": WEIR_EINVAL. */
enum weir_status field_refuse(const struct field_reader *reader, const struct yaml *node,
                              const char *expected);

/* Where the field's value goes. */
static inline void *field_place(const struct field *field, void *target)
{
    return (char *)target + field->offset;
}

field_read_fn field_text;         /* const char * */
field_read_fn field_bool;         /* bool */
field_read_fn field_i64;          /* int64_t in min..max */
field_read_fn field_u32;          /* uint32_t in min..max */
field_read_fn field_microseconds; /* uint64_t ns, from microseconds in min..max */
field_read_fn field_timeout;      /* The same; 0 is CLOCK_NEVER. */
field_read_fn field_duration;     /* uint64_t ns, from "2ms" */
field_read_fn field_message;      /* A nested table with the same target. */
field_read_fn field_nothing;      /* Accepted, without effect. */
field_read_fn field_unsupported;  /* Accepted while it sets nothing but protobuf's defaults. */

/* One line per key but the unsupported ones. */
void field_document(const struct field_table *table, int indent, struct buffer *out);

#endif
