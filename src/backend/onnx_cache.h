/*
 * onnx_cache.h — models as ONNX Runtime has optimized them, kept on disk.
 *
 * Optimizing and packing a model takes most of the time of its load.  A *converted* model is the
 * optimized graph without its weights, and the weights in a file of their own, which can be mapped
 * as they are.  The files are Weir's own: nobody else changes them, whatever happens to the model.
 *
 *     FOLDER/KEY/graph.onnx   weights   source
 *
 * KEY stands for the model's folder and file; `source` says what was converted, by which runtime,
 * and when the machine was started: what does not agree in every word is converted anew.  Loader
 * threads.
 */
#ifndef WEIR_BACKEND_ONNX_CACHE_H
#define WEIR_BACKEND_ONNX_CACHE_H

#include "backend/onnx_file.h"
#include "util/err.h"
#include "util/file.h"

struct onnx_cache {
    /* Made where it is missing; must be this user's, and nobody else's to write. */
    const char *folder;
    uint64_t bytes_max; /* What was used longest ago goes. */
};

/* Of which model. */
struct onnx_cache_source {
    int folder_fd;
    const char *file_name;
    const struct onnx_file *file; /* For its external data. */
    uint64_t bytes;               /* Of the weights. */
};

/* Converts the model: writes PATH/graph.onnx and, beside it, PATH/weights.  Called once by
 * onnx_cache_open(). */
typedef enum weir_status onnx_convert_fn(void *context, const char *path, struct weir_err *err);

struct onnx_cached {
    struct file_map graph;
    struct file_map weights;
    uint64_t device; /* With `inode` the identity of the weights' file while it is mapped. */
    uint64_t inode;
    int folder_fd; /* The entry's, which may be out of the cache by then; with `graph` or closed. */
};

/* Finds the converted model, else has it converted.  WEIR_EUNAVAILABLE, WEIR_EIO, WEIR_ENOMEM,
 * WEIR_ETOOBIG or what `convert` said: there is none, and the model must be loaded without.  The
 * caller closes *out. */
WEIR_MUST_USE enum weir_status onnx_cache_open(const struct onnx_cache *cache,
                                               const struct onnx_cache_source *source,
                                               onnx_convert_fn *convert, void *context,
                                               struct onnx_cached *out, struct weir_err *err);
void onnx_cached_close(struct onnx_cached *cached); /* Zeroed is fine. */

#endif
