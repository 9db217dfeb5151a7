/*
 * plugin.h — run models on a device that Weir does not know.
 *
 * A plug-in is a shared library with one exported function, weir_plugin(), that returns a table.
 * Weir loads it (`weir serve --plugin libnpu.so`), and models whose configuration says `backend:
 * NAME` run through it.  plugins/hello is a whole one; docs/writing-a-backend.md explains how to
 * port a vendor's runtime; `weir plugin-test FILE.so FOLDER` checks that the promises below are
 * kept.
 *
 * The life of a model:
 *
 *     needs() ──► load() ──► describe() ──► context_create() ... run() ... context_destroy() ──► unload()
 *
 * A *model* is loaded once; a *context* carries one run at a time.  Weir makes as many contexts as
 * runs may be under way at once, and never more than needs() allows.
 *
 * Threads: start() and stop() by the program's main thread.  needs(), load(), describe(), unload(),
 * context_create() and context_destroy() by one thread per device at a time, while runs of other
 * models, and of other contexts, go on.  prepare(), run() and finish() of a context by one thread
 * at a time, in this order, any thread.  terminate() by any thread, also during run().
 *
 * Errors: every call that can fail returns a status and, where it fails, a sentence by host->fail()
 * that names the thing, what was found and what was expected.  After a failed prepare(), run() or
 * finish() the context must be usable.
 *
 *   WEIR_EINVAL    the model's files, or this input, cannot be right
 *   WEIR_ENOMEM    out of (device) memory at this number of rows; fewer may do: Weir tries halves
 *   WEIR_ECANCELED terminate() was heard
 *   WEIR_EBACKEND  the device failed
 *
 * Compatibility: `abi` says which table this is.  Fields are only ever added at the end; `size`
 * says how much of a table its maker knew.
 */
#ifndef WEIR_PLUGIN_H
#define WEIR_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_PLUGIN_ABI 1
#define WEIR_PLUGIN_SYMBOL "weir_plugin"

struct weir_plugin_model; /* The plug-in's own; Weir only hands them back. */
struct weir_plugin_context;
struct weir_plugin_run_host; /* Weir's, of one run. */

enum weir_plugin_level {
    WEIR_PLUGIN_DEBUG,
    WEIR_PLUGIN_INFO,
    WEIR_PLUGIN_WARNING,
    WEIR_PLUGIN_ERROR
};

/* What Weir does for a plug-in.  Valid from start() to the end of stop(); any thread. */
struct weir_plugin_host {
    uint32_t abi;
    uint32_t size; /* sizeof(struct weir_plugin_host) of this Weir. */

    /* A line in Weir's log. */
    void (*log)(enum weir_plugin_level level, const char *text);

    /* Writes the sentence into `err` (which may be NULL) and returns `status`. */
    enum weir_status (*fail)(struct weir_err *err, enum weir_status status, const char *format, ...)
        WEIR_PRINTF(3, 4);

    /* During run() or finish(): memory for output `index` of this run, 64-byte aligned, of this
     * shape.  Once per output.  NULL: the shape is not what describe() said, or memory is out;
     * return WEIR_ENOMEM. */
    void *(*output)(struct weir_plugin_run_host *run, uint32_t index, uint32_t rank,
                    const int64_t *dims);

    /* During run(): does anybody still want it?  A plug-in without terminate() may ask now and
     * then. */
    bool (*is_wanted)(struct weir_plugin_run_host *run);
};

/* A setting of the model's configuration (`parameters`). */
struct weir_plugin_setting {
    const char *key;
    const char *value;
};

/* Where a model is.  Borrowed for the call. */
struct weir_plugin_load {
    const char *name; /* For sentences. */
    uint64_t version;
    const char *folder;    /* The version's folder; nothing outside it belongs to the model. */
    const char *file_name; /* default_model_filename; NULL: the plug-in's own choice. */
    const char *device;    /* Of Weir's configuration. */
    const struct weir_plugin_setting *settings;
    uint32_t setting_count;
};

/* What a model will take, asked before it is loaded: Weir makes room first, or refuses. */
struct weir_plugin_needs {
    uint64_t host_bytes;   /* Of memory, at the peak of load(). */
    uint64_t device_bytes; /* Of the device. */
    uint32_t contexts_max; /* Of this model; 0: as many as are asked for. */
};

/* A tensor that the model takes or gives.  dims of -1 are variable.  Lives as long as the model. */
struct weir_plugin_spec {
    const char *name;
    enum weir_dtype dtype; /* Not WEIR_BYTES in this ABI. */
    uint32_t rank;
    int64_t dims[WEIR_RANK_MAX];
};

struct weir_plugin_signature {
    const struct weir_plugin_spec *inputs;
    uint32_t input_count; /* At least 1. */
    const struct weir_plugin_spec *outputs;
    uint32_t output_count; /* At least 1. */
};

/* Whole tensors, row-major, without padding; `data` is aligned to its elements at least, and only
 * to be read. */
struct weir_plugin_tensor {
    const void *data;
    size_t size; /* Bytes. */
    uint32_t rank;
    const int64_t *dims;
};

struct weir_plugin_run {
    struct weir_plugin_run_host *host;       /* For host->output() and host->is_wanted(). */
    const struct weir_plugin_tensor *inputs; /* signature.input_count. */
    const bool *wanted; /* Per output; one that is not wanted may be left out. */
    uint64_t rows;      /* The leading dimension where requests are batched. */
};

/* X(name, bit, what it says) */
#define WEIR_PLUGIN_CAPABILITIES(X)                                                       \
    X(CONCURRENT, 0, "runs of different contexts may be under way at the same time")       \
    X(STAGES, 1, "prepare() and finish() are host work that may overlap another's run()") \
    X(SHORT, 2, "run() never blocks and may be made on a network thread when it is short")

enum weir_plugin_capability {
#define WEIR_PLUGIN_CAPABILITY(name, bit, text) WEIR_PLUGIN_CAN_##name = 1 << (bit),
    WEIR_PLUGIN_CAPABILITIES(WEIR_PLUGIN_CAPABILITY)
#undef WEIR_PLUGIN_CAPABILITY
};

struct weir_plugin {
    uint32_t abi;          /* WEIR_PLUGIN_ABI. */
    uint32_t size;         /* sizeof(struct weir_plugin). */
    const char *name;      /* What a configuration calls it: [a-z0-9_-]{1,32}. */
    const char *version;   /* For people. */
    uint64_t capabilities; /* Bits of enum weir_plugin_capability. */

    /* Once, before everything else; NULL: nothing to do. */
    enum weir_status (*start)(const struct weir_plugin_host *host, struct weir_err *err);
    /* Once, after everything else: leaves the device as it was found.  NULL: nothing to do. */
    void (*stop)(void);

    /* *out is zeroed.  NULL: nothing is known beforehand. */
    enum weir_status (*needs)(const struct weir_plugin_load *load, struct weir_plugin_needs *out,
                              struct weir_err *err);
    enum weir_status (*load)(const struct weir_plugin_load *load, struct weir_plugin_model **out,
                             struct weir_err *err);
    /* All contexts are gone. */
    void (*unload)(struct weir_plugin_model *model);
    void (*describe)(const struct weir_plugin_model *model, struct weir_plugin_signature *out);

    /* WEIR_ECONFLICT: the device has none left; say its limit. */
    enum weir_status (*context_create)(struct weir_plugin_model *model,
                                       struct weir_plugin_context **out, struct weir_err *err);
    void (*context_destroy)(struct weir_plugin_context *context);

    enum weir_status (*prepare)(struct weir_plugin_context *context,
                                const struct weir_plugin_run *run,
                                struct weir_err *err); /* May be NULL. */
    enum weir_status (*run)(struct weir_plugin_context *context, const struct weir_plugin_run *run,
                            struct weir_err *err);
    enum weir_status (*finish)(struct weir_plugin_context *context,
                               const struct weir_plugin_run *run,
                               struct weir_err *err); /* May be NULL. */

    /* Asks the run in progress to stop soon, or (`stop` false) takes that back before the next run.
     * NULL: runs cannot be stopped. */
    void (*terminate)(struct weir_plugin_context *context, bool stop);
};

/* Export this one; the table must stay valid until the library is unloaded. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const struct weir_plugin *
weir_plugin(void);

#ifdef __cplusplus
}
#endif

#endif
