/*
 * guard.h — the server's certificates and keys: read at start, and again when they change.
 *
 * The main thread's.  It tells the log what it found; a file that is broken later changes nothing.
 */
#ifndef WEIR_SERVER_GUARD_H
#define WEIR_SERVER_GUARD_H

#include "api/access.h"
#include "net/tls.h"
#include "server/config.h"
#include "util/err.h"

struct guard {
    const struct config *config;
    struct tls_options tls_options;
    struct tls *tls; /* NULL: plain. */
    struct access *access;
};

/* Reads what `config`, which is borrowed, names.  Zeroed structs can be finished, too. */
WEIR_MUST_USE enum weir_status guard_init(struct guard *guard, const struct config *config,
                                          struct weir_err *err);
void guard_finish(struct guard *guard);

/* Says loudly what leaves the door open. */
void guard_warn(const struct guard *guard);

/* Is there anything to look at from time to time? */
bool guard_watches(const struct guard *guard);

/* Reads again what has changed, or everything with `force`. */
void guard_look(struct guard *guard, bool force);

#endif
