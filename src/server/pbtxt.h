/*
 * pbtxt.h — protobuf's text format as a tree: config.pbtxt.
 *
 * Strict: what protobuf's own reader refuses is refused, with line and column.  At most 1 MiB,
 * 10,000 nodes, a depth of 32.  The text does not say what a field is, so each occurrence of a
 * field is an entry of its own (an item of `[...]` an item of a list); overlay_shape() then gives
 * it the form of its table.
 */
#ifndef WEIR_SERVER_PBTXT_H
#define WEIR_SERVER_PBTXT_H

#include "util/arena.h"
#include "util/bytes.h"
#include "util/err.h"
#include "util/yaml.h"

/*
 * The tree lives in `arena` and is a map even of an empty text; `name` goes into sentences and must
 * live as long.  Texts are `quoted`, words (enums, true, inf) and numbers are not; whole numbers
 * are written in decimal.  WEIR_EINVAL: "config.pbtxt:3:7: found 'x', expected y"; WEIR_ENOMEM.
 */
WEIR_MUST_USE enum weir_status pbtxt_parse(struct arena *arena, const char *name, struct bytes text,
                                           struct yaml **out, struct weir_err *err);

#endif
