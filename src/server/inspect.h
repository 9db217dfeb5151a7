/*
 * inspect.h — what is in a model, without loading it: for `weir inspect`.
 *
 * Reads the ONNX file with Weir's own bounded reader, so that files that nobody trusts can be
 * looked at.  Any thread; blocks on files.
 */
#ifndef WEIR_SERVER_INSPECT_H
#define WEIR_SERVER_INSPECT_H

#include <stdbool.h>

#include "util/bytes.h"
#include "util/err.h"

/*
 * Appends a report: inputs, outputs, weights, operators, external data, and the configuration that
 * Weir would use.  `path` is an ONNX file, a version's folder, or a model's folder, of which the
 * latest version is taken.  What keeps the model from being served is part of the report.  
 * WEIR_EINVAL: it is no ONNX file; WEIR_ENOENT, WEIR_EIO, WEIR_ENOMEM.
 */
WEIR_MUST_USE enum weir_status inspect_report(const char *path, bool json, struct buffer *out,
                                              struct weir_err *err);

/*
 * Appends the effective configuration, each value with where it comes from: a file and its line,
 * the model's file, or a default; warnings and all mistakes behind it.  `path` as above.
 * *servable: there are no mistakes.  Statuses as above, where there is nothing to show at all.
 */
WEIR_MUST_USE enum weir_status inspect_config(const char *path, bool json, bool color,
                                              struct buffer *out, bool *servable,
                                              struct weir_err *err);

#endif
