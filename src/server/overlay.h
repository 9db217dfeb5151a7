/*
 * overlay.h — trees of settings given the form of their table, and laid over one another.
 *
 * Works on trees in place; nothing is copied.  Any thread, one tree at a time.
 */
#ifndef WEIR_SERVER_OVERLAY_H
#define WEIR_SERVER_OVERLAY_H

#include "server/field.h"

/*
 * Gives a tree from pbtxt_parse() the form that one from YAML has: occurrences of a repeated field
 * become one list, { key value } pairs one map.  Keys that the table does not know stay for the
 * reader to refuse.  WEIR_EINVAL: a field found twice that can be there once, a map's entry without
 * key; the mistakes are in `problems`, one per line, where it is not NULL.  WEIR_ENOMEM.
 */
WEIR_MUST_USE enum weir_status overlay_shape(const struct field_reader *reader,
                                             const struct field_table *table, struct yaml *map);

/* Lays the entries of `over` upon those of `base`, field by field: messages and maps are merged,
 * lists replaced, but that lists of named things (input, output) are merged by name.  A choice that
 * `over` makes takes the place of the one in `base`. */
void overlay_merge(const struct field_table *table, struct yaml *base, struct yaml *over);

#endif
