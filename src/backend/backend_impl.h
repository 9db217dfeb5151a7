/*
 * backend_impl.h — what a backend implements.
 *
 * A backend is one file with one `const struct backend_ops` and one row in
 * backend.c's table.  It embeds struct backend_model and struct backend_context
 * as the first member of its own.  Promises as in backend.h.
 */
#ifndef WEIR_BACKEND_BACKEND_IMPL_H
#define WEIR_BACKEND_BACKEND_IMPL_H

#include "backend/backend.h"

struct backend_model {
    const struct backend_ops *ops;
    struct signature signature;
};

struct backend_context {
    struct backend_model *model;
};

struct backend_ops {
    const char *name;
    const char *platform;
    enum weir_status (*load)(const struct backend_ops *self, const struct backend_load *how,
                             struct backend_model **out, struct weir_err *err);
    /* *out is zeroed.  NULL: nothing is known before the load. */
    enum weir_status (*needs)(const struct backend_ops *self, const struct backend_load *how,
                              struct backend_needs *out, struct weir_err *err);
    void (*unload)(struct backend_model *model);
    enum weir_status (*context_create)(struct backend_model *model, struct backend_context **out,
                                       struct weir_err *err);
    void (*context_destroy)(struct backend_context *context);
    enum weir_status (*prepare)(struct backend_context *context, struct backend_run *run,
                                struct weir_err *err); /* May be NULL. */
    enum weir_status (*run)(struct backend_context *context, struct backend_run *run,
                            struct weir_err *err);
    enum weir_status (*finish)(struct backend_context *context, struct backend_run *run,
                               struct weir_err *err);              /* May be NULL. */
    uint32_t (*stages)(const struct backend_model *model);         /* NULL: those that are there. */
    void (*terminate)(struct backend_context *context, bool stop); /* false: rearm. */
    void (*memory)(const struct backend_model *model,
                   struct backend_memory *out); /* *out is zeroed.  NULL: nothing is counted. */
    uint64_t (*promotion)(const struct backend_model *model); /* NULL: never due. */
    enum weir_status (*promote)(struct backend_model *model, struct weir_err *err);
    struct block *(*input_block)(struct backend_model *model, size_t front,
                                 size_t size); /* NULL: has none. */
};

#endif
