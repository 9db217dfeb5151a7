/*
 * yaml.h — a YAML file as a tree that remembers its lines.
 *
 * Plain data only: one document, no anchors, no aliases, no tags, no duplicate keys; at most 1 MiB,
 * 10,000 nodes and a depth of 32.  Scalars stay text with a flag that says whether they
 * were quoted; the reader of a setting decides what they mean.
 */
#ifndef WEIR_UTIL_YAML_H
#define WEIR_UTIL_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/arena.h"
#include "util/bytes.h"
#include "util/err.h"

enum yaml_kind { YAML_SCALAR, YAML_LIST, YAML_MAP };

struct yaml {
    enum yaml_kind kind;
    const char *file; /* The name it was parsed under. */
    uint32_t line;    /* 1-based. */
    uint32_t column;  /* 1-based; 0: not told. */
    const char *key;  /* In a map: this entry's key; else NULL. */
    uint32_t key_line;
    uint32_t key_column;
    const char *text; /* Scalar: its text, NUL-terminated (no NUL inside). */
    bool quoted;
    bool proto;         /* Read from protobuf's text format (server/pbtxt.h). */
    struct yaml *first; /* List, map: first entry. */
    struct yaml *next;  /* Next entry of the same list or map. */
    uint32_t count;
};

/* Parses `text`; `name` (a file name) goes into sentences: "weir.yaml:3: ...".  The tree lives in
 * `arena`.  An empty document is an empty map.  WEIR_EINVAL, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status yaml_parse(struct arena *arena, const char *name, struct bytes text,
                                          struct yaml **out, struct weir_err *err);

#define YAML_WHERE 160

/* "FILE:LINE" or "FILE:LINE:COLUMN" of the entry's key, where it has one, else of its value. */
const char *yaml_where(const struct yaml *node, char out[YAML_WHERE]);

struct yaml *yaml_get(const struct yaml *map, const char *key); /* NULL when absent. */

/* Typed reading of a scalar with sentences "NAME:LINE: KEY: found X, expected Y". */
WEIR_MUST_USE enum weir_status yaml_bool(const struct yaml *node, const char *name, bool *out,
                                         struct weir_err *err);
WEIR_MUST_USE enum weir_status yaml_i64(const struct yaml *node, const char *name, int64_t min,
                                        int64_t max, int64_t *out, struct weir_err *err);
WEIR_MUST_USE enum weir_status yaml_double(const struct yaml *node, const char *name, double min,
                                           double max, double *out, struct weir_err *err);
WEIR_MUST_USE enum weir_status yaml_size(const struct yaml *node, const char *name, uint64_t *out,
                                         struct weir_err *err);
WEIR_MUST_USE enum weir_status yaml_duration_ns(const struct yaml *node, const char *name,
                                                uint64_t *out, struct weir_err *err);
WEIR_MUST_USE enum weir_status yaml_string(const struct yaml *node, const char *name,
                                           const char **out, struct weir_err *err);

#endif
