/*
 * weir.h — run machine-learning models inside your own program.
 *
 * This program, examples/embed.c, loads a folder of models and asks one of
 * them what a drawn digit is:
 *
 *     #include <stdio.h>
 *     #include <weir/weir.h>
 *
 *     static const char drawn[] = "  ####  "
 *                                 " ##  ## "
 *                                 "     ## "
 *                                 "    ##  "
 *                                 "   ##   "
 *                                 "  ##    "
 *                                 " ##     "
 *                                 " ###### ";
 *
 *     int main(int argc, char **argv)
 *     {
 *         struct weir_err err = { WEIR_OK, "" };
 *         struct weir *weir = NULL;
 *         const struct weir_options options = {
 *             .repository = argc > 1 ? argv[1] : "examples/models",
 *             .model = "digits",
 *         };
 *         if (weir_open(&options, &weir, &err) != WEIR_OK) {
 *             fprintf(stderr, "embed: %s\n", err.text);
 *             return 1;
 *         }
 *         float pixels[64];
 *         for (int i = 0; i < 64; i++) {
 *             pixels[i] = drawn[i] == '#' ? 16.0F : 0.0F;
 *         }
 *         const struct weir_tensor input =
 *             weir_tensor_of("pixels", WEIR_FP32, pixels, 2, (const int64_t[]){ 1, 64 });
 *         struct weir_result *result = NULL;
 *         if (weir_infer(weir, "digits", &input, 1, NULL, &result, &err) == WEIR_OK) {
 *             const struct weir_tensor *scores = weir_result_output(result, "scores");
 *             const float *score = scores->data;
 *             int best = 0;
 *             for (int i = 1; i < 10; i++) {
 *                 best = score[i] > score[best] ? i : best;
 *             }
 *             printf("a %d, with probability %.3f\n", best, (double)score[best]);
 *         } else {
 *             fprintf(stderr, "embed: %s\n", err.text);
 *         }
 *         weir_result_free(result);
 *         weir_close(weir);
 *         return err.status == WEIR_OK ? 0 : 1;
 *     }
 *
 * Build it with `cc embed.c $(pkg-config --cflags --libs weir)`.
 *
 * Threads: every call may be made from any thread, at the same time; calls on one struct weir_call
 * are for one thread at a time.  Calls from several threads share batches as requests to a server
 * do.  Names and arrays handed in are borrowed for the call unless it says otherwise.
 */
#ifndef WEIR_WEIR_H
#define WEIR_WEIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weir/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_RANK_MAX 12

/* Element types, by KServe v2's names.  FP16 and BF16 elements are two bytes each; a BYTES element
 * is a uint32 little-endian length followed by that many bytes. */
enum weir_dtype {
    WEIR_BOOL,
    WEIR_UINT8,
    WEIR_UINT16,
    WEIR_UINT32,
    WEIR_UINT64,
    WEIR_INT8,
    WEIR_INT16,
    WEIR_INT32,
    WEIR_INT64,
    WEIR_FP16,
    WEIR_FP32,
    WEIR_FP64,
    WEIR_BF16,
    WEIR_BYTES
};

/* "FP32"; "unknown" for a number that is none.  Static storage. */
WEIR_API const char *weir_dtype_text(enum weir_dtype dtype);

/* Elements are row-major without padding.  In inputs the caller owns everything, in results the
 * result does.  dims of -1 occur in descriptions only: variable. */
struct weir_tensor {
    const char *name;
    enum weir_dtype dtype;
    uint32_t rank;
    int64_t dims[WEIR_RANK_MAX];
    const void *data;
    size_t size; /* Bytes. */
};

/* A tensor over `data`, its size computed from type and shape (0 for BYTES and for impossible
 * shapes, which weir_infer() then refuses). */
WEIR_API struct weir_tensor weir_tensor_of(const char *name, enum weir_dtype dtype,
                                           const void *data, uint32_t rank, const int64_t *dims);

struct weir;        /* An engine with its models. */
struct weir_call;   /* One inference under way. */
struct weir_result; /* The outputs of one that succeeded. */

/* Zeroed: everything as usual. */
struct weir_options {
    const char *repository; /* Folder of models, laid out as NAME/VERSION/model.onnx. */
    const char *model;      /* Load only this one; NULL: all. */
    uint32_t executors;     /* Threads that run models; 0: one per processor. */
    const char *program;    /* The program `weir`, which is started for models with
                               `isolation: process`; NULL: found in PATH. */
    /* Devices beside "cpu", as `weir serve --devices` has them: "npu:1". */
    const char *const *devices;
    uint32_t device_count;
    /* Plug-ins for them: paths of shared libraries.  They are the whole program's: an engine that
     * is opened beside others may name only such as are there already. */
    const char *const *plugins;
    uint32_t plugin_count;
};

/* Starts an engine and loads the models; returns when they are loaded.  WEIR_EIO (the folder),
 * WEIR_ENOENT (the model), WEIR_EINVAL (it is broken, as is a device or a plug-in; `err` says how),
 * WEIR_ECONFLICT (a plug-in that other engines do not have).  With `model` NULL a
 * model that does not load makes only itself unavailable. */
WEIR_API WEIR_MUST_USE enum weir_status weir_open(const struct weir_options *options,
                                                  struct weir **out, struct weir_err *err);

/* Every call must be over and every result and description freed: a model that is still in use
 * keeps it waiting.  A load or an unload beyond the model's load_limit does not; its thread and
 * what that uses stay.  NULL is fine. */
WEIR_API void weir_close(struct weir *weir);

/* True from when weir_close(), or a weir_open() that failed, left such a thread.  exit() would take
 * apart what it uses: flush what is to be kept, and end the process by _exit(). */
WEIR_API bool weir_left_threads(void);

/* What a model takes and gives, in its own order; lives until weir_model_free(). */
struct weir_model {
    const char *name;
    uint64_t version;
    const char *platform; /* "onnxruntime_onnx" */
    uint32_t input_count;
    const struct weir_tensor *inputs; /* data NULL. */
    uint32_t output_count;
    const struct weir_tensor *outputs; /* data NULL. */
};

/* `version` 0: the latest.  WEIR_ENOENT, WEIR_EUNAVAILABLE (with the reason). */
WEIR_API WEIR_MUST_USE enum weir_status weir_model_describe(struct weir *weir, const char *model,
                                                            uint64_t version,
                                                            struct weir_model **out,
                                                            struct weir_err *err);
WEIR_API void weir_model_free(struct weir_model *model);

/* How one call differs from the usual; zeroed is the usual. */
struct weir_call_options {
    uint64_t version;           /* 0: the latest. */
    uint64_t timeout_ns;        /* From now; 0: none. */
    uint32_t priority;          /* 1: most urgent; 0: the model's default. */
    const char *const *outputs; /* Names wanted; NULL: all. */
    uint32_t output_count;
};

/*
 * Runs a model and waits.  `inputs` in any order; `options` may be NULL.  WEIR_OK: *out is the
 * caller's, weir_result_free().  WEIR_ENOENT, WEIR_EINVAL (inputs; `err` names which and why),
 * WEIR_EFULL, WEIR_ETIMEOUT, WEIR_EUNAVAILABLE, WEIR_ENOMEM, WEIR_EBACKEND.
 */
WEIR_API WEIR_MUST_USE enum weir_status weir_infer(struct weir *weir, const char *model,
                                                   const struct weir_tensor *inputs,
                                                   uint32_t input_count,
                                                   const struct weir_call_options *options,
                                                   struct weir_result **out, struct weir_err *err);

/* The same in two halves, to have several under way at once.  The inputs' data is borrowed until
 * weir_wait() returns.  Every call started must be waited for once, which frees it. */
WEIR_API WEIR_MUST_USE enum weir_status weir_start(struct weir *weir, const char *model,
                                                   const struct weir_tensor *inputs,
                                                   uint32_t input_count,
                                                   const struct weir_call_options *options,
                                                   struct weir_call **out, struct weir_err *err);
WEIR_API WEIR_MUST_USE enum weir_status weir_wait(struct weir_call *call, struct weir_result **out,
                                                  struct weir_err *err);

/* From the thread that will wait: weir_wait() then returns WEIR_ECANCELED, unless it was done. */
WEIR_API void weir_cancel(struct weir_call *call);

/* Outputs stay valid until weir_result_free().  By name: NULL when there is none such. */
WEIR_API uint32_t weir_result_count(const struct weir_result *result);
WEIR_API const struct weir_tensor *weir_result_at(const struct weir_result *result, uint32_t index);
WEIR_API const struct weir_tensor *weir_result_output(const struct weir_result *result,
                                                      const char *name);

/* Where the time went, in ns. */
struct weir_times {
    uint64_t queue_ns;
    uint64_t gather_ns;
    uint64_t compute_ns;
    uint64_t total_ns;
    uint64_t batch_rows; /* Rows of the run it shared. */
};
WEIR_API struct weir_times weir_result_times(const struct weir_result *result);

WEIR_API void weir_result_free(struct weir_result *result); /* NULL is fine. */

/* "0.1.0" */
WEIR_API const char *weir_version(void);

#ifdef __cplusplus
}
#endif

#endif
