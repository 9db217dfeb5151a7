/*
 * reload.h — settings that change while the server runs.
 *
 * On SIGHUP, and when a client asks, the file, the variables and the command line are read again,
 * as at the start.  Either all that has changed can be changed live, and is, or nothing is: an
 * error, or one setting that needs a restart, keeps the old state, and the log says which.  Files
 * of certificates and keys are read again, too.
 *
 * Any thread, one at a time (reload.lock).
 */
#ifndef WEIR_SERVER_RELOAD_H
#define WEIR_SERVER_RELOAD_H

#include <pthread.h>
#include <stdbool.h>

#include "server/config.h"
#include "util/err.h"

struct api;
struct canaries;
struct engine;
struct guard;
struct registry;

/* Reads the settings anew into *out, which it initializes; config_finish() it also after a
 * failure. */
typedef enum weir_status reload_read_fn(void *context, struct config *out, struct weir_err *err);

struct reload {
    pthread_mutex_t lock;         /* Guards the rest, and the guard's files. */
    const struct config *current; /* The start's, */
    struct config *latest;        /* or the last one that was taken over; owned. */
    reload_read_fn *read;         /* NULL: nothing to read again. */
    void *context;
    struct guard *guard;
    struct limits *limits; /* What everybody reads. */
    struct engine *engine; /* Set before anybody reloads, as are those that follow. */
    struct registry *registry;
    struct canaries *canaries;
    struct api *api;
    void (*wake)(void *context); /* The main thread looks anew at what is due. */
    void *wake_context;
};

/* What it is given is borrowed. */
void reload_init(struct reload *reload, const struct config *config, struct limits *limits,
                 struct guard *guard);
void reload_finish(struct reload *reload);

/* From now on there are settings to be read. */
void reload_from(struct reload *reload, reload_read_fn *read, void *context);

/* Reads and applies; logs the outcome, too.  WEIR_OK: *names, a buffer of the caller's, has the
 * settings that changed, with commas.  WEIR_EINVAL and what config_read() says: nothing changed. */
WEIR_MUST_USE enum weir_status reload_settings(struct reload *reload, struct buffer *names,
                                               struct weir_err *err);

/* Looks whether files of certificates and keys have changed. */
void reload_look(struct reload *reload);

/* May this setting change live?  For `weir config --explain`. */
bool reload_can(const char *key);

#endif
