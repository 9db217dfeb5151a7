/*
 * field.h — reading a map of settings by a table of its keys.
 *
 * The table says of each key how it is read, what it expects, what it does and which form it has;
 * the sentence about an unknown key, the documentation, the reading of protobuf's text format and
 * the laying of one file over another (overlay.h) come from it too.  A table's rows are made with
 * the macros below.
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
    const char *subject; /* What the document is about: the model's name. */
    struct arena *arena; /* Of the tree and all that is read. */
    struct weir_err *err;
    bool loose;              /* Keys may also be in protobuf's camelCase. */
    struct buffer *warnings; /* One sentence per line about what has no effect; or NULL. */
    struct buffer *problems; /* All mistakes, one per line: reading goes on after one; or NULL. */
};

struct field;

/* Reads `node` into `target`, usually at field->offset.  WEIR_EINVAL, WEIR_ENOMEM. */
typedef enum weir_status field_read_fn(const struct field_reader *reader, const struct field *field,
                                       const struct yaml *node, void *target);

struct field_table {
    const struct field *fields;
    size_t count;
};

/* The words of an enum in the order of its numbers; NULL where a number means nothing. */
struct field_words {
    const char *prefix; /* Optional before each word: "KIND_". */
    const char *const *words;
    size_t count;
    const char *expected; /* For sentences. */
};

enum field_form {
    FORM_ONE,   /* A scalar or a message. */
    FORM_LIST,  /* Repeated. */
    FORM_NAMED, /* Repeated messages with a `name`: one file's lie over the other's of equal name. */
    FORM_MAP,   /* From texts or numbers to values. */
    FORM_ANY,   /* Whatever it is: nothing in it is looked at. */
};

struct field {
    const char *key;
    field_read_fn *read;
    const char *expects;
    const char *help;
    size_t offset;
    int64_t min;
    int64_t max;
    const struct field_table *table; /* Of the message, of each item of a list, value of a map. */
    const struct field_words *words;
    enum field_form form;
    bool choice; /* At most one of a message's choices can be set. */
};

#define FIELD(key_, read_, expects_, help_, at_)                                      \
    {                                                                                 \
        .key = key_, .read = read_, .expects = expects_, .help = help_, .offset = at_ \
    }
#define FIELD_RANGE(key_, read_, expects_, help_, at_, min_, max_)                     \
    {                                                                                  \
        .key = key_, .read = read_, .expects = expects_, .help = help_, .offset = at_, \
        .min = min_, .max = max_                                                       \
    }
#define FIELD_ENUM(key_, words_, expects_, help_, at_)                                      \
    {                                                                                       \
        .key = key_, .read = field_enum, .expects = expects_, .help = help_, .offset = at_, \
        .words = words_                                                                     \
    }
#define FIELD_NESTED(key_, read_, expects_, help_, table_)                              \
    {                                                                                   \
        .key = key_, .read = read_, .expects = expects_, .help = help_, .table = table_ \
    }
#define FIELD_FORM(form_, key_, read_, expects_, help_, table_)                          \
    {                                                                                    \
        .key = key_, .read = read_, .expects = expects_, .help = help_, .table = table_, \
        .form = form_                                                                    \
    }
#define FIELD_FORM_AT(form_, key_, read_, expects_, help_, at_)                        \
    {                                                                                  \
        .key = key_, .read = read_, .expects = expects_, .help = help_, .offset = at_, \
        .form = form_                                                                  \
    }
#define FIELD_CHOICE(key_, read_, expects_, help_, at_, table_)                        \
    {                                                                                  \
        .key = key_, .read = read_, .expects = expects_, .help = help_, .offset = at_, \
        .table = table_, .choice = true                                                \
    }
/* Refused by name when it is set to anything but protobuf's default; `why_` says what Weir does. */
#define FIELD_REFUSED(key_, why_)                                                                  \
    {                                                                                              \
        .key = key_, .read = field_refused, .expects = "(refused)", .help = why_, .form = FORM_ANY \
    }
/* Has no effect, and a warning says so by name when it is set. */
#define FIELD_WARNED(key_, why_)                                                                  \
    {                                                                                             \
        .key = key_, .read = field_warned, .expects = "(ignored)", .help = why_, .form = FORM_ANY \
    }
/* Has no effect, and nobody would notice: taken silently. */
#define FIELD_NOTHING(key_, expects_, help_)                                                     \
    {                                                                                            \
        .key = key_, .read = field_nothing, .expects = expects_, .help = help_, .form = FORM_ANY \
    }
#define FIELD_TABLE(fields_)                            \
    {                                                   \
        fields_, sizeof(fields_) / sizeof((fields_)[0]) \
    }

/* Reads all entries of a map.  Entries that are null count as absent. */
WEIR_MUST_USE enum weir_status field_read_table(const struct field_reader *reader,
                                                const struct field_table *table,
                                                const struct yaml *node, void *target);

/* The row of a key, or NULL. */
const struct field *field_find(const struct field_table *table, const char *key, bool loose);

/* "FILE:LINE: unknown key 'x'; did you mean 'y'?" or "...; allowed: ...": WEIR_EINVAL. */
enum weir_status field_unknown(const struct field_table *table, const struct yaml *node,
                               struct weir_err *err);

/* "FILE:LINE: KEY: found X, expected Y": WEIR_EINVAL. */
enum weir_status field_refuse(const struct field_reader *reader, const struct yaml *node,
                              const char *expected);

/* Adds "FILE:LINE: KEY: SENTENCE" to the warnings. */
void field_warn(const struct field_reader *reader, const struct yaml *node, const char *sentence);

/* An array for as many items as the list has.  WEIR_EINVAL: it is no list; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status field_items(const struct field_reader *reader,
                                           const struct yaml *node, size_t size, void **items);

/* The same, filled: each item read by field->table.  *count is the list's. */
WEIR_MUST_USE enum weir_status field_read_items(const struct field_reader *reader,
                                                const struct field *field, const struct yaml *node,
                                                size_t size, void **items, uint32_t *count);

/* WEIR_EINVAL unless `text` is there and not empty; `expected` is what is missing. */
WEIR_MUST_USE enum weir_status field_need(const struct field_reader *reader,
                                          const struct yaml *node, const char *text,
                                          const char *expected);

/* True when the value, however deep, sets nothing: protobuf's defaults. */
bool field_is_default(const struct yaml *node);

/* Where the field's value goes. */
static inline void *field_place(const struct field *field, void *target)
{
    return (char *)target + field->offset;
}

field_read_fn field_text;         /* const char * */
field_read_fn field_bool;         /* bool */
field_read_fn field_i64;          /* int64_t in min..max */
field_read_fn field_u32;          /* uint32_t in min..max */
field_read_fn field_double;       /* double in min..max */
field_read_fn field_enum;         /* An enum, by words */
field_read_fn field_microseconds; /* uint64_t ns, from microseconds in min..max */
field_read_fn field_timeout;      /* The same; 0 is CLOCK_NEVER. */
field_read_fn field_size;         /* uint64_t bytes, from "64MiB" */
field_read_fn field_duration;     /* uint64_t ns, from "2ms" */
field_read_fn field_message;      /* A nested table with the same target. */
field_read_fn field_nothing;      /* Accepted, without effect. */
field_read_fn field_warned;       /* Accepted with a warning unless it is protobuf's default. */
field_read_fn field_refused;      /* Accepted while it sets nothing but protobuf's defaults. */

/* One line per key. */
void field_document(const struct field_table *table, int indent, struct buffer *out);

#endif
