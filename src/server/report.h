/*
 * report.h — the models and their states, for people: a table, or JSON.  Any thread.
 */
#ifndef WEIR_SERVER_REPORT_H
#define WEIR_SERVER_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "util/bytes.h"

struct registry;

/* How many models there are, and how many of them have a READY version. */
struct report_count {
    uint32_t models;
    uint32_t ready;
};
struct report_count report_count(struct registry *registry);

#define REPORT_NAME_BYTES 48

/* How far the models are on their way. */
struct report_loading {
    uint32_t models;
    uint32_t settled;             /* Ready, or failed. */
    char name[REPORT_NAME_BYTES]; /* Of one that is being loaded, perhaps cut; "": none is. */
};
struct report_loading report_loading(struct registry *registry);

/* Appends name, version, state and reason of every model. */
void report_models(struct registry *registry, bool json, struct buffer *out);

#endif
