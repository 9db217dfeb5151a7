/*
 * onnx_session.h — how a model becomes a session of ONNX Runtime.
 *
 * Plainly, from its own file; or from a converted one (onnx_cache.h), whose weights stay in the
 * mapped file until a second session packs them for speed.  Converted models and packed weights are
 * shared by all models that come from the same file.  Loader threads.
 */
#ifndef WEIR_BACKEND_ONNX_SESSION_H
#define WEIR_BACKEND_ONNX_SESSION_H

#include "backend/onnx.h"
#include "backend/onnx_cache.h"

struct OrtEnv;
struct OrtSession;

/* What sessions of one model have in common. */
struct onnx_settings {
    struct OrtEnv *env;
    uint32_t threads;             /* Of one run. */
    bool plans;                   /* Memory plans are kept (plans_stay_few()). */
    struct onnx_account *account; /* Of the threads that the session makes. */
};

/* A model's file, open, read and checked. */
struct onnx_source {
    const struct backend_load *how;
    const char *file_name;
    struct file_map map;
    struct onnx_file file;
};

/* The weights of a converted model; counted. */
struct onnx_weights;

/* ONNX Runtime keeps a plan of the memory for each shape that it meets; they are worth having where
 * a client cannot make them pile up. */
bool onnx_plans_stay_few(const struct onnx_file *file);

/* From the model's own file: the runtime copies and packs the weights.  `left_out` as in
 * onnx_provider.h. */
WEIR_MUST_USE enum weir_status onnx_session_open(const struct onnx_settings *settings,
                                                 const struct onnx_source *source,
                                                 struct OrtSession **out, struct weir_err *left_out,
                                                 struct weir_err *err);

/* Finds or makes the converted form and shares it; any failure means that there is none. */
WEIR_MUST_USE enum weir_status onnx_weights_acquire(const struct onnx_settings *settings,
                                                    const struct onnx_source *source,
                                                    struct onnx_weights **out,
                                                    struct weir_err *err);
void onnx_weights_release(struct onnx_weights *weights); /* No session uses it.  NULL is fine. */
uint64_t onnx_weights_bytes(const struct onnx_weights *weights);

/* The pages of the mapping are not needed any more by sessions with packed weights: they leave the
 * process, and come back when they are touched. */
void onnx_weights_drop_pages(const struct onnx_weights *weights);

/* `packed`: with the weights packed, which takes time and as much memory again, once for all who
 * share them. */
WEIR_MUST_USE enum weir_status onnx_weights_open(struct onnx_weights *weights,
                                                 const struct onnx_settings *settings, bool packed,
                                                 struct OrtSession **out, struct weir_err *err);

#endif
