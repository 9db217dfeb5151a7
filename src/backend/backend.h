/*
 * backend.h — what runs a model, for those who call it.
 *
 * A *backend* loads a model file once (backend_load) and runs it through
 * *contexts*, each for one run at a time; contexts share the weights.  A run has
 * three steps: prepare (host work, optional), run (holds the context and the
 * device), finish (host work, optional).  All block; executors and loaders call
 * them, never loops, but for inline runs of models whose signature says `short_lived`.
 *
 * A backend answers for one run.  It knows no queue, no request and no client.
 */
#ifndef WEIR_BACKEND_BACKEND_H
#define WEIR_BACKEND_BACKEND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tensor/tensor.h"
#include "util/clock.h"
#include "util/err.h"

struct backend_ops;     /* backend_impl.h */
struct backend_model;   /* One loaded version: weights, session. */
struct backend_context; /* What one run needs besides: bindings, scratch. */

struct tensor_spec {
    const char *name;
    enum dtype dtype;
    struct shape shape; /* As the model file has it; -1: variable. */
    bool any_rank;      /* The file says no shape at all: shape.rank is 0 and means nothing. */
    const char *dim_names[TENSOR_RANK_MAX]; /* Symbolic names of variable dimensions, or NULL. */
    bool optional;                          /* An input that may be absent. */
};

/* What the model takes and gives; lives as long as the model. */
struct signature {
    struct tensor_spec *inputs;
    uint32_t input_count;
    struct tensor_spec *outputs;
    uint32_t output_count;
    /* No loops, branches, data-dependent sizes or texts, and a backend that cannot block: may be
     * run inline once its time is known. */
    bool short_lived;
    bool streams; /* May give several parts per run (a decoupled model). */
    /* A run handed over while another holds the device waits there for its turn: one may be handed
     * over ahead. */
    bool queues;
    bool timeline;          /* Simulated: runs say when they end (virtual_end_ns). */
    uint64_t weights_bytes; /* Parameters in the file. */
    const char *remark;     /* What a person should know of the load, or NULL. */
};

/* One free-form setting from the model's configuration. */
struct setting {
    const char *key;
    const char *value;
};

/* X(name, text): what shares a child process. */
#define ISOLATION_SCOPES(X)                                           \
    X(MODEL, "model") /* All contexts of the model. */                \
    X(GROUP, "group") /* All models whose configuration names it. */  \
    X(INSTANCE, "instance") /* Nothing: each context has its own. */

enum isolation_scope {
#define ISOLATION_SCOPE_ENUM(name, text) ISOLATION_##name,
    ISOLATION_SCOPES(ISOLATION_SCOPE_ENUM)
#undef ISOLATION_SCOPE_ENUM
};

/* Runs the model in a child process (process.h). */
struct backend_isolation {
    enum isolation_scope scope;
    const char *group; /* Of ISOLATION_GROUP. */
    /* Bytes of the child; 0: no limit.  A group has the largest of its models'. */
    uint64_t memory_max;
    uint64_t run_limit_ns; /* A run that takes longer is terminated; 0: no limit. */
    /* A process that does not load the model, or open a context, in that time is ended; 0: no
     * limit. */
    uint64_t load_limit_ns;
};

#define BACKEND_DEVICE_NAMED UINT32_MAX

/* What runs the nodes of a graph, for backends that have a choice. */
struct backend_provider {
    const char *name;      /* "cuda"; "cpu" at the end of a list: those before it may be missing. */
    uint32_t device_id;    /* BACKEND_DEVICE_NAMED: the number that the device's name ends with. */
    uint64_t memory_limit; /* Of the device, in bytes; 0: none. */
    const struct setting *options;
    uint32_t option_count;
};

/* X(name, text): how a model's weights are kept in memory. */
#define WEIGHTS_MODES(X)                                                              \
    X(AUTO, "auto")           /* Models loaded on demand: mapped, packed once they are hot. */ \
    X(MAPPED, "mapped")       /* As they are in the file: loads at once, runs slower. */       \
    X(PREPACKED, "prepacked") /* As the kernels want them: loads slower, runs at once. */

enum weights_mode {
#define WEIGHTS_MODE_ENUM(name, text) WEIGHTS_##name,
    WEIGHTS_MODES(WEIGHTS_MODE_ENUM)
#undef WEIGHTS_MODE_ENUM
};

struct backend_weights {
    enum weights_mode mode;
    bool on_demand;           /* Models are loaded when somebody asks for them. */
    uint64_t promote_runs;    /* AUTO: so many runs make a model hot; 0: none do. */
    const char *cache_folder; /* For models in the form that can be mapped; NULL: none is. */
    uint64_t cache_bytes_max;
};

struct backend_load {
    const char *model_name; /* For messages. */
    uint64_t version;
    int folder_fd;                  /* The version's folder; borrowed for the call. */
    const char *file_name;          /* In it; NULL: the backend's default ("model.onnx"). */
    const char *device;             /* Name of the device, for backends with several. */
    uint32_t intra_threads;         /* Threads of one run; 1: only the caller. */
    uint32_t contexts_max;          /* Contexts that will be asked for. */
    const struct setting *settings; /* The configuration's `parameters`. */
    uint32_t setting_count;
    uint64_t file_bytes_max;
    const struct backend_weights *weights; /* NULL: packed, without a cache. */
    /* In the order of preference; the processor is last. */
    const struct backend_provider *providers;
    uint32_t provider_count;
    const struct clock *clock;
    struct block_pool *blocks;                 /* For outputs; outlives the model. */
    const struct backend_isolation *isolation; /* NULL: in this process.  Borrowed for the call. */
};

/* X(name, text, whether the run is suspected): how the child ended that held a run. */
#define BACKEND_DEATHS(X)                                                                     \
    X(NONE, "alive", false)                                                                   \
    X(FAULT, "crashed", true)                   /* SIGSEGV, BUS, ILL, FPE, ABRT, SYS; a kernel. */ \
    X(HUNG, "hung", true)                       /* Did not heed its run limit. */             \
    X(MEMORY, "exceeded its memory limit", true)                                              \
    X(LOST, "lost its device", false)           /* For itself: another process may have it. */ \
    X(FROZEN, "froze", false)                   /* No heartbeat, so no blame for the run. */  \
    X(KILLED, "was killed", false)              /* Any other end: blames nobody. */

enum backend_death {
#define BACKEND_DEATH_ENUM(name, text, suspect) DEATH_##name,
    BACKEND_DEATHS(BACKEND_DEATH_ENUM)
#undef BACKEND_DEATH_ENUM
    DEATH_COUNT
};

const char *backend_death_text(enum backend_death death); /* "crashed" */

/* True where the inputs of a run that died so may be the cause. */
bool backend_death_suspects(enum backend_death death);

/*
 * One run.  The caller owns it, the arrays and the inputs; outputs are written by the backend, each
 * with a held block.  An output whose `wanted` is false may be left absent.
 */
struct backend_run {
    uint64_t rows;               /* Leading dimension when batched, else 1: what costs count. */
    const struct tensor *inputs; /* signature.input_count; an absent one was optional. */
    struct tensor *outputs;      /* signature.output_count; absent at the start. */
    const bool *wanted;          /* signature.output_count; at least one is true. */

    /* For models that stream: called on the executor once per part, outputs filled in; it takes the
     * outputs' blocks.  WEIR_ECANCELED: stop, nobody listens any more. */
    enum weir_status (*part)(struct backend_run *run);

    /* Isolated: it is terminated after so long where the model has no run_limit_ns; 0: it is
     * not. */
    uint64_t limit_ns;

    bool trim; /* Scratch memory goes back to the system after the run: for the last trial run. */

    bool probation; /* In a fresh child that is used for nothing else; needs isolation. */
    /* Set by each step; not NONE: the child died, and the step is WEIR_EBACKEND. */
    enum backend_death death;
    /* How the child ended, where this is the first of the model's runs to tell of it; else NONE. */
    enum backend_death told;

    /* Set by a backend with WEIR_EUNAVAILABLE: a kernel of the run failed, maybe because of its
     * inputs. */
    bool faulted;

    /* Simulated devices: when it could have begun had its thread woken in time; 0: now. */
    uint64_t begin_ns;
    /* Simulated devices: 0 before backend_prepare(); each step moves it to when it would be done.
     * Under a manual clock nothing waits for it. */
    uint64_t virtual_end_ns;
};

/* A step of a simulated run that comes so much late counts as begun in time: a late wake-up of the
 * thread, which a busy machine may put off for long, does not hold up a device. */
#define BACKEND_LATE_NS (20 * NS_PER_MS)

/* By name: "onnxruntime" (also "onnxruntime_onnx", "onnx"), "sim".  NULL when there is none. */
const struct backend_ops *backend_find(const char *name);

/* The table's names, for messages and help: index from 0, NULL at the end. */
const char *backend_name(uint32_t index);
const char *backend_ops_name(const struct backend_ops *ops);     /* "onnxruntime" */
const char *backend_ops_platform(const struct backend_ops *ops); /* "onnxruntime_onnx" */

/* What a load will take at its peak, where the backend knows it before; zeros: it does not. */
struct backend_needs {
    uint64_t host_bytes;
    uint64_t device_bytes;
};

bool backend_knows(const struct backend_ops *ops); /* It can be asked. */

/* As backend_load(), which says the same of what is wrong. */
WEIR_MUST_USE enum weir_status backend_needs(const struct backend_ops *ops,
                                             const struct backend_load *how,
                                             struct backend_needs *out, struct weir_err *err);

/* Loads.  `err` says what is wrong with which file.  WEIR_EINVAL (the model), WEIR_ENOENT (the
 * file), WEIR_ENOMEM, WEIR_EBACKEND.  One loader thread per device. */
WEIR_MUST_USE enum weir_status backend_load(const struct backend_ops *ops,
                                            const struct backend_load *how,
                                            struct backend_model **out, struct weir_err *err);
void backend_unload(struct backend_model *model); /* No context may be left.  NULL is fine. */

const struct signature *backend_signature(const struct backend_model *model);

/* Which steps beside run() are more than nothing. */
enum { BACKEND_PREPARES = 1, BACKEND_FINISHES = 2 };
uint32_t backend_stages(const struct backend_model *model);

/* What a model takes, as its backend counts it; what it cannot count is 0. */
struct backend_memory {
    uint64_t heap_bytes;      /* Allocated for it now: weights, scratch memory that it keeps. */
    uint64_t heap_peak_bytes; /* The most there ever was, its load included. */
    /* Files mapped for it, whole; those that several share count with each. */
    uint64_t mapped_bytes;
    uint64_t device_bytes;  /* Of the device's own memory. */
    uint64_t process_bytes; /* Isolated: what its processes take, but for what they share. */
    uint64_t restarts;      /* Isolated: how often a process that died was replaced. */
};

/* A mapped model that has become hot runs faster once its weights are packed: what that takes
 * meanwhile, in bytes; 0: not now.  Any thread; cheap. */
uint64_t backend_promotion(const struct backend_model *model);

/* Packs them while the model serves on.  Afterwards backend_promotion() is 0, whether it went well
 * or not.  Loader thread; answers may differ in their last bits from then on. */
WEIR_MUST_USE enum weir_status backend_promote(struct backend_model *model, struct weir_err *err);

#define BACKEND_INPUT_BYTES_MIN 16384 /* Less is copied as fast as it is lent. */

/* Memory from which the model's runs take inputs without a copy: a held block of `size` bytes whose
 * data has `front` bytes before it that are the holder's, too.  NULL: any other memory is as good.
 * Any thread; the block may outlive the model. */
WEIR_MUST_USE struct block *backend_input_block(struct backend_model *model, size_t front,
                                                size_t size);

/* Any thread; cheap. */
void backend_memory(const struct backend_model *model, struct backend_memory *out);

/* WEIR_ENOMEM, or WEIR_ECONFLICT when the device has no context left (names the limit). */
WEIR_MUST_USE enum weir_status backend_context_create(struct backend_model *model,
                                                      struct backend_context **out,
                                                      struct weir_err *err);
void backend_context_destroy(struct backend_context *context); /* NULL is fine. */

/*
 * The three steps, in order, on any thread but one at a time per context.  WEIR_EINVAL: this input
 * cannot be run (a shape the graph refuses, an index out of range); WEIR_ENOMEM: out of memory at
 * this number of rows, fewer may do; WEIR_ECANCELED: terminated; WEIR_EBACKEND: it failed;
 * WEIR_EUNAVAILABLE: isolated, and no child can be had now, or the device is gone.  After a failure
 * the context is usable (an isolated one gets a new child with its next run) and all outputs are
 * absent.
 */
WEIR_MUST_USE enum weir_status backend_prepare(struct backend_context *context,
                                               struct backend_run *run, struct weir_err *err);
WEIR_MUST_USE enum weir_status backend_run(struct backend_context *context, struct backend_run *run,
                                           struct weir_err *err);
WEIR_MUST_USE enum weir_status backend_finish(struct backend_context *context,
                                              struct backend_run *run, struct weir_err *err);

/* Any thread: asks the run in progress on this context to stop at the next chance.  Stays set until
 * backend_rearm(), which the executor calls before its next run. */
void backend_terminate(struct backend_context *context);
void backend_rearm(struct backend_context *context);

/* Process-wide set-up and tear-down, before the first load and after the last unload.  Sets
 * ORT_DISABLE_TELEMETRY; call it before other threads exist. */
void backend_start(void);
void backend_stop(void);

/* "ONNX Runtime 1.30.0": what `weir --version` prints; static storage. */
const char *backend_versions(void);

/* NULL, or a sentence to log once at the start: a runtime older than Weir was made for. */
const char *backend_warning(void);

#endif
