/*
 * reload.h — settings that change while the server runs.
 *
 * On SIGHUP the file, the variables and the command line are read again, as at the start.  Either all that has
 * changed can be changed live, and is, or nothing is: an error, or one setting that needs a restart, keeps the
 * old state, and the log says which.  Main thread.
 */
#ifndef WEIR_SERVER_RELOAD_H
#define WEIR_SERVER_RELOAD_H

#include <stdbool.h>

#include "server/config.h"
#include "util/err.h"

struct engine;
struct registry;

/* Reads the settings anew into *out, which it initializes; config_finish() it also after a failure. */
typedef enum weir_status reload_read_fn(void *context, struct config *out, struct weir_err *err);

struct reload {
    const struct config *current; /* The start's, */
    struct config *latest;        /* or the last one that was taken over; owned. */
    reload_read_fn *read;         /* NULL: nothing to read again. */
    void *context;
    struct engine *engine;
    struct registry *registry;
};

void reload_finish(struct reload *reload);

/* Reads and applies; logs the outcome. */
void reload_settings(struct reload *reload);

/* May this setting change live?  For `weir config --explain`. */
bool reload_can(const char *key);

#endif
