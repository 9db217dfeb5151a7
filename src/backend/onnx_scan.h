/*
 * onnx_scan.h — the two checks of an ONNX file that follow its reading; see onnx_file.h.
 */
#ifndef WEIR_BACKEND_ONNX_SCAN_H
#define WEIR_BACKEND_ONNX_SCAN_H

#include <stdbool.h>

#include "util/bytes.h"
#include "util/err.h"
#include "util/map.h"

/* Walks the nodes of the top graph in their order.  *out is true when every one is a standard
 * operator whose output sizes follow from the shapes of its inputs, or from values that are the
 * same in every run: `initialized` has the names of those to begin with.  `data` was read
 * before. */
WEIR_MUST_USE enum weir_status onnx_nodes_bounded(struct bytes data, const struct map *initialized,
                                                  bool *out, struct weir_err *err);

#endif
