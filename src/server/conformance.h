/*
 * conformance.h — does a plug-in keep the promises of include/weir/plugin.h?
 *
 * For its author: loads it as the server would, then one model in every way the server will, and
 * reports each promise.  Memory that a plug-in breaks ends the process; run it under valgrind or
 * AddressSanitizer to learn where.
 */
#ifndef WEIR_SERVER_CONFORMANCE_H
#define WEIR_SERVER_CONFORMANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

/* One promise: `problem` is empty where it is kept. */
typedef void conformance_report_fn(void *context, const char *promise, const char *problem);

struct conformance_options {
    const char *library;         /* FILE.so */
    const char *folder;          /* A version's folder, as models/NAME/1. */
    const char *const *settings; /* "KEY=VALUE" each: the model's `parameters`. */
    uint32_t setting_count;
    uint32_t runs; /* Of each thread. */
};

/* True: all promises that could be tried were kept. */
bool conformance_check(const struct conformance_options *options, conformance_report_fn *report,
                       void *context);

#endif
