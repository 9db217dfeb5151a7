/*
 * repository.h — what lies in the repository folders: names, versions, fingerprints.
 *
 *     ROOT/NAME/model.yaml           optional, with label files, warmup/ ...
 *     ROOT/NAME/VERSION/model.onnx   VERSION: decimal, without leading zero, 1..2^63-1
 *
 * Blocking; never on the manager or a loop.  Roots are opened anew for each look, so that a root
 * that is a link may be pointed elsewhere while the server runs.  Results live in the caller's
 * arena.
 */
#ifndef WEIR_ENGINE_REPOSITORY_H
#define WEIR_ENGINE_REPOSITORY_H

#include <stdbool.h>
#include <stdint.h>

#include "util/arena.h"
#include "util/bytes.h"
#include "util/err.h"

#define REPOSITORY_NAME_MAX 128
#define REPOSITORY_VERSIONS_MAX 1024 /* Version folders of one model. */

struct repository {
    const char *const *roots;
    uint32_t root_count;
    uint64_t models_max;
};

/* A folder in a root. */
struct repository_model {
    const char *name;
    const char *problem;  /* Why it can be no model, or NULL. */
    uint32_t root;        /* Index of the root it is in. */
    uint64_t fingerprint; /* Of everything in it; 0 when not asked for. */
};

struct repository_list {
    struct repository_model *models; /* Each name once. */
    uint32_t count;
};

struct repository_version {
    uint64_t version;
    uint64_t fingerprint;
    uint64_t bytes; /* Of its files. */
};

/* One model's folder, looked at closely. */
struct repository_look {
    uint32_t root;
    struct repository_version *versions; /* Ascending. */
    uint32_t version_count;
    uint64_t config_fingerprint; /* Of all that is in it but the version folders. */
};

/* [A-Za-z0-9._-]{1,128}, not starting with a dot. */
bool repository_name_ok(struct bytes name);

/* Decimal, no leading zero, 1..2^63-1. */
WEIR_MUST_USE bool repository_version_of(const char *text, uint64_t *out);

/* All folders in all roots; names with a leading dot are passed over.  WEIR_EIO: a root cannot be
 * read; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status repository_scan(const struct repository *repository,
                                               bool fingerprints, struct arena *arena,
                                               struct repository_list *out, struct weir_err *err);

/* WEIR_ENOENT: in no root; WEIR_EINVAL: the name is wrong, or it is in two roots or has no version;
 * WEIR_EIO, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status repository_look(const struct repository *repository,
                                               const char *name, struct arena *arena,
                                               struct repository_look *out, struct weir_err *err);

/* Opens a model's folder, or with `version` not 0 that folder in it.  The caller closes *out. */
WEIR_MUST_USE enum weir_status repository_open(const struct repository *repository, uint32_t root,
                                               const char *name, uint64_t version, int *out,
                                               struct weir_err *err);

#endif
