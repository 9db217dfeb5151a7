/*
 * literal.h — tensors written as text: 1,2,3 or [[1,2],[3,4]] or a word.
 */
#ifndef WEIR_CMD_LITERAL_H
#define WEIR_CMD_LITERAL_H

#include "cmd/session.h"
#include "util/json.h"

/*
 * Reads `text` as a value for `spec`: JSON arrays in any nesting, numbers with commas between, one
 * number; for BYTES a JSON array of strings, or any other text as one element.  The shape is the
 * nesting where that fits, else what the number of elements allows.  Memory in `arena`.  
 * WEIR_EINVAL, WEIR_ENOMEM.
 */
WEIR_MUST_USE enum weir_status literal_read(struct arena *arena, struct bytes text,
                                            const struct spec *spec, struct tensor *out,
                                            struct weir_err *err);

/* The same for JSON at hand. */
WEIR_MUST_USE enum weir_status literal_read_json(struct arena *arena, yyjson_val *data,
                                                 const struct spec *spec, struct tensor *out,
                                                 struct weir_err *err);

/* The shape that `elements` elements of `shape` (as given, or rank 0 when nobody said) take in
 * `spec`: as given, with leading dimensions of 1, or filled into the variable dimensions. 
 * WEIR_EINVAL. */
WEIR_MUST_USE enum weir_status literal_fit(const struct spec *spec, const struct shape *given,
                                           uint64_t elements, struct shape *out,
                                           struct weir_err *err);

/* One element that is the whole text. */
WEIR_MUST_USE enum weir_status literal_bytes(struct arena *arena, struct bytes text,
                                             const struct spec *spec, struct tensor *out,
                                             struct weir_err *err);

#endif
