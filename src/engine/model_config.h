/*
 * model_config.h — what a person can say about a model, and what was inferred where nobody did.
 *
 * Field names and meanings are those of Triton's ModelConfig (config.pbtxt) where it has them.
 * Filled in by the server's readers and by effective.h on a loader thread; it does not change
 * afterwards.
 */
#ifndef WEIR_ENGINE_MODEL_CONFIG_H
#define WEIR_ENGINE_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"

struct arena;

#define MODEL_PREFERRED_MAX 16
#define MODEL_BATCH_INFERRED 64              /* max_batch_size when nobody set it. */
#define MODEL_PROMOTE_AFTER 200              /* promote_after when nobody set it. */
#define MODEL_LOAD_LIMIT_NS (600 * NS_PER_S) /* load_limit likewise. */

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

/* X(name, text): what happens to requests whose deadlines cannot be met. */
#define OVERLOAD_MODES(X)                                                               \
    X(DROP, "drop")   /* Told at once, so that the others are served in time. */        \
    X(QUEUE, "queue") /* They wait until their deadlines: first come, first served. */

enum overload_mode {
#define OVERLOAD_MODE_ENUM(name, text) OVERLOAD_##name,
    OVERLOAD_MODES(OVERLOAD_MODE_ENUM)
#undef OVERLOAD_MODE_ENUM
};

/* X(name, text): whether the requests in hand are limited by the time that they take
 * (limiter.h). */
#define LIMIT_MODES(X)                              \
    X(AUTO, "auto") /* Those that have deadlines. */ \
    X(ALL, "all")                                   \
    X(OFF, "off")

enum limit_mode {
#define LIMIT_MODE_ENUM(name, text) LIMIT_##name,
    LIMIT_MODES(LIMIT_MODE_ENUM)
#undef LIMIT_MODE_ENUM
};

/* X(name, text): where a model runs. */
#define ISOLATION_MODES(X)             \
    X(NONE, "none") /* In the server. */ \
    X(PROCESS, "process")

enum isolation_mode {
#define ISOLATION_MODE_ENUM(name, text) ISOLATE_##name,
    ISOLATION_MODES(ISOLATION_MODE_ENUM)
#undef ISOLATION_MODE_ENUM
};

/* X(name, text): does the server's readiness count on the model? */
#define REQUIRED_MODES(X)                             \
    X(AUTO, "auto") /* Where it is loaded at start. */ \
    X(TRUE, "true") /* Once somebody wanted it. */     \
    X(FALSE, "false")

enum required_mode {
#define REQUIRED_MODE_ENUM(name, text) REQUIRED_##name,
    REQUIRED_MODES(REQUIRED_MODE_ENUM)
#undef REQUIRED_MODE_ENUM
};

/* X(name, text): a reload that has no room beside what serves. */
#define UPDATE_MODES(X)                                                    \
    X(KEEP, "keep")       /* Is refused. */                                 \
    X(REPLACE, "replace") /* Follows what serves, which is unloaded first. */

enum update_mode {
#define UPDATE_MODE_ENUM(name, text) UPDATE_##name,
    UPDATE_MODES(UPDATE_MODE_ENUM)
#undef UPDATE_MODE_ENUM
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
    struct shape reshape; /* What the model gets or gives where clients see `dims`. */
    bool has_reshape;
    const char *label_file; /* Outputs: file in the model's folder, one label per line. */
    const char **labels;    /* Its lines, read at load. */
    uint32_t label_count;
};

/* The data of one input of a warm-up run. */
struct warmup_data {
    const char *input;
    struct shape dims;
    enum dtype dtype;
    enum { WARMUP_ZERO, WARMUP_RANDOM, WARMUP_FILE } kind;
    const char *file; /* In the model's folder `warmup`. */
};

/* A run that must succeed before the model is ready. */
struct warmup_config {
    const char *name;
    uint32_t batch_size; /* Rows; 0: unbatched. */
    uint32_t count;
    struct warmup_data *inputs;
    uint32_t input_count;
};

/* X(name, text): control tensors of a sequence model, Triton's CONTROL_SEQUENCE_... */
#define SEQUENCE_CONTROLS(X) X(START, "START") X(READY, "READY") X(END, "END") X(CORRID, "CORRID")

enum sequence_control_kind {
#define SEQUENCE_CONTROL_ENUM(name, text) SEQUENCE_##name,
    SEQUENCE_CONTROLS(SEQUENCE_CONTROL_ENUM)
#undef SEQUENCE_CONTROL_ENUM
};

/* An input that the engine fills in: clients neither send nor see it. */
struct sequence_control {
    const char *input;
    enum sequence_control_kind kind;
    enum dtype dtype;     /* INT32, FP32 or BOOL; of CORRID any integer or BYTES. */
    double false_true[2]; /* Not for CORRID. */
};

/* An output that becomes an input of the sequence's next request. */
struct sequence_state {
    const char *input;
    const char *output;
    enum dtype dtype;
    struct shape dims; /* Without the batch dimension. */
    /* Of the initial state; has_initial_dims false: dims, with 1 for -1. */
    struct shape initial_dims;
    bool has_initial_dims;
    const char *initial_file; /* In the model's folder `initial_state`; NULL: zeros. */
};

/* X(name, text) */
#define SEQUENCE_STRATEGIES(X) X(NONE, "none") X(DIRECT, "direct") X(OLDEST, "oldest")

enum sequence_strategy {
#define SEQUENCE_STRATEGY_ENUM(name, text) SEQUENCE_##name,
    SEQUENCE_STRATEGIES(SEQUENCE_STRATEGY_ENUM)
#undef SEQUENCE_STRATEGY_ENUM
};

struct sequence_config {
    enum sequence_strategy strategy; /* NONE: the model knows no sequences. */
    uint64_t idle_ns;                /* A sequence without a request for so long is dropped. */
    struct sequence_control *controls;
    uint32_t control_count;
    struct sequence_state *states;
    uint32_t state_count;
    uint64_t queue_delay_ns;     /* Longest wait of a request for company. */
    double slot_utilization_min; /* DIRECT: share of the slots that makes a batch go at once. */
    uint32_t candidates_max;     /* OLDEST: sequences open at a time; 0: no limit. */
    uint32_t preferred[MODEL_PREFERRED_MAX]; /* OLDEST. */
    uint32_t preferred_count;
};

/* A tensor of a step under the name that it has in the ensemble. */
struct ensemble_link {
    const char *model_tensor;
    const char *ensemble_tensor;
};

struct ensemble_step {
    const char *model;
    int64_t version; /* -1: the latest that is ready. */
    struct ensemble_link *inputs;
    uint32_t input_count;
    struct ensemble_link *outputs;
    uint32_t output_count;
};

struct ensemble_config {
    struct ensemble_step *steps;
    uint32_t step_count;   /* 0: the model is no ensemble. */
    uint32_t inflight_max; /* Requests of one step at a time; 0: no limit. */
};

/* Triton's rate limiter: runs of an instance hold so many of a named resource. */
struct rate_resource {
    const char *name;
    uint32_t count;
    bool global; /* All devices' together, else each device has its own. */
};

/* How long and how many requests of one priority level may wait. */
struct queue_policy {
    bool set;            /* In the file; what it leaves out is the model's. */
    uint64_t timeout_ns; /* CLOCK_NEVER: no limit. */
    bool timeout_override;
    bool timeout_delay;
    uint32_t requests_max; /* 0: no limit of its own. */
};

#define MODEL_BUCKETS_MAX 4       /* Dimensions that are padded, by symbolic name. */
#define MODEL_BUCKET_SIZES_MAX 32 /* Sizes of one. */

/* A dimension of an input that is padded to the next of some sizes (bucket.h). */
struct bucket_config {
    const char *input;
    uint32_t dim;                           /* The batch dimension is 0. */
    uint32_t sizes[MODEL_BUCKET_SIZES_MAX]; /* Ascending. */
    uint32_t size_count; /* 0: those of another entry whose dimension has the same name. */
    double pad;          /* What is put behind. */
};

/*
 * The effective configuration of a model: what a file said, else what was inferred.  All
 * strings and arrays live in one arena that the holder frees with `release`.
 */
struct model_config {
    const char *name;
    const char *backend;  /* "onnxruntime", "sim". */
    const char *platform; /* "onnxruntime_onnx" or "". */
    const char *device;   /* Name of a device, or of a pool: then of all its devices; "cpu". */
    const char **devices; /* Several of one pool, instead; device_count of them. */
    uint32_t device_count;
    bool on_gpu;             /* Triton's KIND_GPU, */
    uint64_t gpus;           /* and which: bit per number; 0: all. */
    uint64_t numa_nodes;     /* Bit per memory node that its runs keep to; 0: any. */
    const char *file_name;   /* default_model_filename; NULL: the backend's. */
    int64_t max_batch_size;  /* 0: no batching; -1: not set, infer. */
    bool max_batch_inferred; /* Larger requests then run alone instead of being refused. */
    enum batching_mode batching;
    uint32_t preferred[MODEL_PREFERRED_MAX]; /* Ascending. */
    uint32_t preferred_count;
    /* Present in the file (shown in /config); batching itself is by `batching`. */
    bool dynamic_batching;
    uint64_t queue_delay_ns; /* Longest wait for company; 0. */
    uint64_t deadline_ns;    /* Of requests that bring none, from their arrival; 0: none. */
    enum overload_mode overload;
    enum limit_mode adaptive_limit;
    uint64_t queue_timeout_ns; /* Default longest wait in line; CLOCK_NEVER. */
    bool timeout_override;     /* Requests may set a shorter one with `timeout`. */
    bool timeout_delay;        /* timeout_action DELAY: nobody fails for having waited long. */
    uint32_t requests_max;     /* Waiting; 0: the server's limit. */
    uint32_t priority_levels;
    uint32_t priority_default;
    struct queue_policy *levels; /* priority_levels of them; NULL: all wait under the model's. */
    /* Concurrent runs; 0: as many as the device has executors.  On GPUs: on each; */
    uint32_t instances;
    uint32_t instances_no_gpu; /* in all, where on_gpu finds none. */
    uint32_t intra_threads;    /* 1. */
    enum isolation_mode isolation;
    enum isolation_scope isolation_scope;
    const char *isolation_group; /* Set exactly where the scope is ISOLATION_GROUP. */
    uint64_t memory_limit;       /* Of its child process in bytes; 0: none. */
    enum required_mode required;
    uint64_t run_limit_ns;       /* Longest run; 0: none.  Also where it is not isolated. */
    uint64_t load_limit_ns;      /* Longest step of a load; 0: none. */
    uint64_t canary_interval_ns; /* Of canary.h; 0: none, CANARY_INTERVAL_SERVER: the server's. */
    const struct backend_provider *providers; /* provider_count of them. */
    uint32_t provider_count;
    enum weights_mode weights;
    uint32_t promote_after; /* Runs that make a mapped model hot; 0: never. */
    enum version_policy policy;
    uint32_t policy_count;       /* LATEST: how many (1). */
    int64_t policy_versions[64]; /* SPECIFIC, policy_count of them. */
    struct io_config *inputs;
    uint32_t input_count;
    struct io_config *outputs;
    uint32_t output_count;
    struct warmup_config *warmups;
    uint32_t warmup_count;
    struct sequence_config sequence;
    struct ensemble_config ensemble;
    bool decoupled;                /* The configuration says that it answers in parts. */
    bool response_cache;           /* Equal requests may be answered from the cache. */
    bool join;                     /* Equal requests in flight share one run. */
    struct bucket_config *buckets; /* Lengths that share runs. */
    uint32_t bucket_count;
    struct rate_resource *resources; /* That each run holds. */
    uint32_t resource_count;
    uint32_t rate_priority;   /* Share of runs is 1 / priority; 0 and 1 are the same. */
    uint32_t safe_rows;       /* Of a run, that its device has memory for; 0: not known. */
    uint64_t peak_bytes;      /* Of its device, that a load takes; 0: not known. */
    const char *memory_group; /* Whose budget it shares; NULL: none. */
    enum update_mode update;
    const struct setting *settings; /* `parameters`. */
    uint32_t setting_count;
    bool proto;          /* Said in Triton's words: `timeout` of a request is as there. */
    const char *json;    /* Override text given at load, or NULL. */
    const char *remark;  /* What a person should know though nothing failed, or NULL. */
    const char *note;    /* The same, of what is as it should be. */
    struct arena *arena; /* Where all of it lives; for what a load adds. */
    void (*release)(struct model_config *self);
};

#endif
