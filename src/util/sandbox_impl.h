/*
 * sandbox_impl.h — the layers of a sandbox, for src/util/sandbox*.c only.
 *
 * Each writes how it came out into `state`.  WEIR_OK with in_force false: it
 * cannot be had here.  WEIR_EIO: it could be had, and failed.
 */
#ifndef WEIR_UTIL_SANDBOX_IMPL_H
#define WEIR_UTIL_SANDBOX_IMPL_H

#include "util/sandbox.h"

/* Before all others: it needs files, and rights. */
WEIR_MUST_USE enum weir_status sandbox_memory(const struct sandbox *sandbox,
                                              struct sandbox_state *state, struct weir_err *err);

/* After PR_SET_NO_NEW_PRIVS.  *network: Landlock refuses TCP, too. */
WEIR_MUST_USE enum weir_status sandbox_files(const struct sandbox *sandbox,
                                             struct sandbox_state *state, bool *network,
                                             struct weir_err *err);

/* The last of all.  `files` as sandbox_files() found it: without Landlock nothing is opened whose
 * flags a filter cannot see. */
WEIR_MUST_USE enum weir_status sandbox_calls(const struct sandbox *sandbox, bool files,
                                             struct sandbox_state *state, struct weir_err *err);

/* "The layer is in force by ...", or with `in_force` false why it is not. */
void sandbox_say(struct sandbox_state *state, bool in_force, const char *format, ...)
    WEIR_PRINTF(3, 4);

#endif
