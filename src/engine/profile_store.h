/*
 * profile_store.h — where a model's profile lies between two lives of the server.
 *
 * Beside the model, as NAME/.weir-profile.VERSION.json, or in a folder of its own, as
 * NAME.VERSION.json.  Loader threads; blocks.  A profile is a help and never a need: what cannot be
 * read is told and done without, what cannot be written is done without.
 */
#ifndef WEIR_ENGINE_PROFILE_STORE_H
#define WEIR_ENGINE_PROFILE_STORE_H

#include "engine/model.h"
#include "engine/profile_file.h"
#include "util/err.h"

#define PROFILE_STORE_OFF "off"
#define PROFILE_STORE_MODEL "model" /* Beside it, where the repository can be written to. */

struct profile_store;

/* For the model, which is loaded but for its trial runs: `store` is one of the words above or a
 * folder, `root` the repository's; both are copied.  *out is NULL where nothing is to be stored.
 * WEIR_ENOMEM; WEIR_EIO: its files cannot be looked at. */
WEIR_MUST_USE enum weir_status profile_store_create(const char *store, const char *root,
                                                    const struct model *model, int version_fd,
                                                    struct profile_store **out,
                                                    struct weir_err *err);
void profile_store_destroy(struct profile_store *store); /* NULL is fine. */

/* Adds to the model's profile what was stored, and writes into `rows` what earlier trials showed of
 * its rows (profile_file.h).  WEIR_ENOENT: nothing is; WEIR_EINVAL, WEIR_ECONFLICT: it is broken or
 * about something else, the sentence names the file; WEIR_EIO, WEIR_ENOMEM.  The model's buckets
 * are made. */
WEIR_MUST_USE enum weir_status profile_store_read(struct profile_store *store, struct model *model,
                                                  char rows[PROFILE_ROWS_BYTES],
                                                  struct weir_err *err);

/* True when something was learned since the profile was read or written; the pool's lock is
 * taken. */
bool profile_store_is_due(const struct profile_store *store, struct model *model);

/* Writes it if so; the pool's lock is taken for a copy.  NULL is fine. */
void profile_store_write(struct profile_store *store, struct model *model);

#endif
