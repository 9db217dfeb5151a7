/*
 * inspect_impl.h — what is being looked at: for inspect*.c alone.
 */
#ifndef WEIR_SERVER_INSPECT_IMPL_H
#define WEIR_SERVER_INSPECT_IMPL_H

#include "backend/backend.h"
#include "backend/onnx_file.h"
#include "engine/repository.h"
#include "server/modelconfig.h"
#include "tensor/block.h"
#include "util/clock.h"

#define PATH_BYTES 4096

struct inspection {
    char name[REPOSITORY_NAME_MAX + 1]; /* The model's. */
    char folder[PATH_BYTES];            /* The model's; empty: a file on its own. */
    char file[PATH_BYTES];              /* The ONNX file's path; empty: the model has none. */
    uint64_t version;                   /* 0: a file on its own. */
    uint64_t file_bytes;
    struct onnx_file onnx;
    struct backend_model *simulated; /* A model without a file, for its signature; or NULL. */
    struct clock clock;              /* Its time, which stands still, */
    struct block_pool *blocks;       /* and its memory. */
    struct modelconfig_look look;
    struct model_config *config; /* Of the look; NULL: there is none, see problem. */
    struct signature signature;  /* As clients see it. */
    const char *why_not;         /* Why requests do not share runs; NULL: they may. */
    struct weir_err problem;     /* Why it cannot be served; empty: it can. */
};

/* Zeroed before, inspect_finish() after it, also when it failed: then what was found until there is
 * filled in. */
WEIR_MUST_USE enum weir_status inspect_look(struct inspection *self, const char *path,
                                            struct weir_err *err);
void inspect_finish(struct inspection *self);

/* Checks the signature against the configuration and completes that. */
WEIR_MUST_USE enum weir_status inspect_complete(struct inspection *self, struct weir_err *err);

/* inspect_plain.c: models without a file, simulated or of plug-ins. */
bool inspect_is_plain(const struct model_config *config);
void inspect_plain_judge(struct inspection *self);
void inspect_plain_finish(struct inspection *self);
void inspect_plain_text(const struct inspection *self, struct buffer *out);
void inspect_plain_json(const struct inspection *self, struct buffer *out); /* Members. */

/* inspect_profile.c: what a server has left beside the model; nothing where it has not. */
void inspect_profile_text(const struct inspection *self, struct buffer *out);
void inspect_profile_json(const struct inspection *self, struct buffer *out); /* A member. */

#endif
