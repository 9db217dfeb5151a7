/*
 * model.h — one loaded version of a model: its settings, its line of requests, its numbers.
 *
 * Everything under "line" is guarded by the lock of the pool it runs on.  Statistics are
 * atomics.  The rest does not change between the load and the last lease.  A model version is freed when
 * its last lease is given back.
 */
#ifndef WEIR_ENGINE_MODEL_H
#define WEIR_ENGINE_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "engine/profile.h"
#include "util/heap.h"
#include "util/list.h"
#include "util/metric.h"

struct arena;
struct home;
struct instance; /* batch.h */
struct pool;

#define MODEL_PREFERRED_MAX 16
#define MODEL_BATCH_SIZES_MAX 64 /* Rows with batch statistics of their own: sizes 1..N. */
#define MODEL_BATCH_INFERRED 64  /* max_batch_size when nobody set it. */
#define MODEL_RESPONSES_MAX 32   /* n-th responses with statistics of their own. */

/* X(name, text) */
#define BATCHING_MODES(X)                                                         \
    X(AUTO, "auto")     /* On when the load-time proof shows that rows are independent. */ \
    X(INSIST, "insist") /* On without proof. */                                            \
    X(OFF, "off")

enum batching_mode {
#define BATCHING_MODE_ENUM(name, text) BATCHING_##name,
    BATCHING_MODES(BATCHING_MODE_ENUM)
#undef BATCHING_MODE_ENUM
};

/* X(name, text): which versions of a model are served. */
#define VERSION_POLICIES(X) X(LATEST, "latest") X(ALL, "all") X(SPECIFIC, "specific")

enum version_policy {
#define VERSION_POLICY_ENUM(name, text) VERSION_##name,
    VERSION_POLICIES(VERSION_POLICY_ENUM)
#undef VERSION_POLICY_ENUM
};

/* One tensor as the configuration declares it, to override or check the model file. */
struct io_config {
    const char *name;
    enum dtype dtype;
    bool has_dtype;
    struct shape dims; /* Without the batch dimension when max_batch_size > 0. */
    bool has_dims;
    const char *label_file; /* Outputs: file in the model's folder, one label per line. */
    const char **labels;    /* Its lines, read at load. */
    uint32_t label_count;
};

/* A run that must succeed before the model is ready. */
struct warmup_config {
    const char *name;
    uint32_t batch_size; /* Rows; 0: unbatched. */
    uint32_t count;
    struct {
        const char *input;
        struct shape dims;
        enum dtype dtype;
        enum { WARMUP_ZERO, WARMUP_RANDOM, WARMUP_FILE } kind;
        const char *file; /* In the model's folder `warmup`. */
    } * inputs;
    uint32_t input_count;
};

/*
 * The effective configuration of a model: what a file said, else what was inferred.  All
 * strings and arrays live in one arena that the holder frees with `release`.
 */
struct model_config {
    const char *name;
    const char *backend;     /* "onnxruntime", "sim". */
    const char *platform;    /* "onnxruntime_onnx" or "". */
    const char *device;      /* Name of the pool; "cpu". */
    const char *file_name;   /* default_model_filename; NULL: the backend's. */
    int64_t max_batch_size;  /* 0: no batching; -1: not set, infer. */
    bool max_batch_inferred; /* Larger requests then run alone instead of being refused. */
    enum batching_mode batching;
    uint32_t preferred[MODEL_PREFERRED_MAX]; /* Ascending. */
    uint32_t preferred_count;
    bool dynamic_batching;     /* Present in the file (shown in /config); batching itself is by
                                    `batching`. */
    uint64_t queue_delay_ns;   /* Longest wait for company; 0. */
    uint64_t queue_timeout_ns; /* Default longest wait in line; CLOCK_NEVER. */
    bool timeout_override;     /* Requests may set a shorter one with `timeout`. */
    uint32_t requests_max;     /* Waiting; 0: the server's limit. */
    uint32_t priority_levels;
    uint32_t priority_default;
    uint32_t instances;     /* Concurrent runs; 0: as many as the device has executors. */
    uint32_t intra_threads; /* 1. */
    enum version_policy policy;
    uint32_t policy_count;       /* LATEST: how many (1). */
    int64_t policy_versions[64]; /* SPECIFIC, policy_count of them. */
    struct io_config *inputs;
    uint32_t input_count;
    struct io_config *outputs;
    uint32_t output_count;
    struct warmup_config *warmups;
    uint32_t warmup_count;
    const struct setting *settings; /* `parameters`. */
    uint32_t setting_count;
    const char *json;    /* Override text given at load, or NULL. */
    const char *remark;  /* What a person should know though nothing failed, or NULL. */
    struct arena *arena; /* Where all of it lives; for what a load adds. */
    void (*release)(struct model_config *self);
};

/* Of the n-th response to a request. */
struct response_stats {
    struct duration compute_infer;
    struct duration compute_output;
    struct duration success;
    struct duration fail;
    struct duration empty_response;
    struct duration cancel;
};

/* Triton's statistics, and Weir's histograms by stage.  Any thread. */
struct model_stats {
    _Atomic uint64_t last_inference_ms;
    _Atomic uint64_t inference_count; /* Rows of successful requests. */
    _Atomic uint64_t execution_count; /* Runs. */
    struct duration success;
    struct duration fail;
    struct duration queue;
    struct duration compute_input;
    struct duration compute_infer;
    struct duration compute_output;
    _Atomic uint64_t refused;   /* Never accepted: queue full, deadline passed on arrival. */
    _Atomic uint64_t timed_out; /* Accepted, part of `fail`. */
    _Atomic uint64_t canceled;  /* The same. */
    struct {
        struct duration compute_input;
        struct duration compute_infer;
        struct duration compute_output;
    } batches[MODEL_BATCH_SIZES_MAX + 1];                 /* By rows; [0] collects larger ones. */
    struct response_stats responses[MODEL_RESPONSES_MAX]; /* Streams: n-th part. */
    struct histogram queue_time;
    struct histogram gather_time;
    struct histogram compute_time;
    struct histogram total_time;
};

struct model {
    const char *name;
    uint64_t version;
    struct model_config *config;   /* Owned. */
    struct backend_model *backend; /* Owned. */
    const struct backend_ops *ops;
    const struct signature *signature;
    _Atomic bool batching;                 /* Requests may share runs. */
    _Atomic(const char *) batching_reason; /* Why not, one sentence; NULL when on. */
    uint64_t loaded_bytes;                 /* Resident memory that loading it took, measured. */
    uint64_t load_ns;
    struct pool *pool;

    _Atomic uint64_t leases;
    void (*unleased)(struct model *self); /* The last lease is gone; any thread. */
    void *owner;                          /* The registry's. */

    struct model_stats stats;

    /* Line: guarded by the pool's lock. */
    struct list waiting; /* Of request.line, in order of arrival. */
    uint32_t waiting_count;
    uint64_t waiting_rows;
    uint64_t waiting_bytes;
    uint64_t leave_next_ns; /* No request in line expires before this time. */
    uint32_t requests_max;
    uint64_t bytes_max;
    uint32_t running;           /* Batches. */
    struct instance *instances; /* Array of instance_count: the concurrent runs. */
    uint32_t instance_count;
    struct instance *instances_free;
    struct profile profile;
    struct heap_node ready;       /* In pool.ready or pool.delayed, or in none. */
    bool delayed;                 /* Which of the two. */
    struct home *inline_home;     /* Will run what waits at the end of its turn. */
    struct list_node inline_node; /* In that home's inline_models. */
    bool rows_fixed;              /* All dimensions but the leading one are fixed. */
};

/* A lease keeps the version loaded.  acquire needs another lease to exist, or the catalogue's. */
void model_acquire(struct model *model);
void model_release(struct model *model);

/* The configuration's declaration of an input or output, or NULL. */
const struct io_config *model_output_config(const struct model *model, const char *name);

#endif
