/*
 * onnx.h — what the files of the ONNX Runtime backend share.
 *
 * onnx.c loads: environment, session, signature.  onnx_run.c runs: contexts, inputs, outputs.
 * onnx_error.c turns ONNX Runtime's failures into statuses and sentences.  Nobody
 * else includes this; the runtime's own header is read by those three alone.
 */
#ifndef WEIR_BACKEND_ONNX_H
#define WEIR_BACKEND_ONNX_H

#include <stdatomic.h>

#include "backend/backend_impl.h"
#include "util/arena.h"

struct OrtApi;
struct OrtMemoryInfo;
struct OrtSession;
struct OrtStatus;
struct onnx_account; /* onnx_memory.h */
struct onnx_weights; /* onnx_session.h */

extern const struct backend_ops onnx_ops;

/* Set at the first load, constant afterwards. */
extern const struct OrtApi *onnx_api;

/* "1.30.0"; static storage. */
const char *onnx_version(void);
bool onnx_is_old(void); /* Below what Weir was made for; hostile models can hurt it. */
void onnx_stop(void);   /* Releases the environment; no model may be left. */

/*
 * What is known beforehand about the shape of an output.  Files lie, and the runtime leaves the
 * memory it is given untouched where an output is an input passed through.  So a rule is tried in
 * two steps, and never again once a run has refuted it:
 *
 *     UNPROVEN --a run gave this shape--> TRIAL --a run wrote our memory--> PROVEN
 *        \___________________________________\______________________________\____> REFUTED
 */
enum onnx_rule {
    ONNX_RULE_NONE,     /* Nothing is known. */
    ONNX_RULE_UNPROVEN, /* The runtime allocates. */
    ONNX_RULE_TRIAL,    /* Our memory, with a pattern in it. */
    ONNX_RULE_PROVEN,   /* Our memory. */
    ONNX_RULE_REFUTED,
};

struct onnx_output {
    _Atomic uint8_t rule;               /* enum onnx_rule; any thread. */
    int8_t from_input[TENSOR_RANK_MAX]; /* Per variable dimension: the input and ... */
    int8_t from_dim[TENSOR_RANK_MAX];   /* ... its dimension that say it. */
};

/* Constant after the load but for the rules and what comes with a promotion; shared by all
 * contexts. */
struct onnx_model {
    struct backend_model base;
    struct arena arena;                   /* Names, signature, outputs. */
    _Atomic(struct OrtSession *) session; /* The one that runs begin with; one of these: */
    struct OrtSession *first;
    struct OrtSession *packed;    /* NULL: the model was not promoted. */
    struct onnx_weights *weights; /* NULL: the session has its own. */
    uint64_t weights_bytes;       /* Of them. */
    /* Packed weights, which the runtime takes past its allocator. */
    _Atomic uint64_t uncounted_bytes;
    _Atomic bool mapped; /* Runs read them from the file. */
    uint32_t threads;    /* Of one run. */
    bool plans;
    uint64_t promote_runs; /* After so many; 0: never. */
    _Atomic uint64_t runs;
    _Atomic bool promoted; /* Or it was tried. */
    struct OrtMemoryInfo *memory;
    struct onnx_account *account;
    struct onnx_output *outputs; /* base.signature.output_count */
    struct block_pool *blocks;
};

enum weir_status onnx_context_create(struct backend_model *model, struct backend_context **out,
                                     struct weir_err *err);
void onnx_context_destroy(struct backend_context *context);
enum weir_status onnx_run(struct backend_context *context, struct backend_run *run,
                          struct weir_err *err);
void onnx_terminate(struct backend_context *context, bool stop);

/* Switches the calling thread's denormals off, and back to what they were. */
uint64_t onnx_float_mode_enter(void);
void onnx_float_mode_leave(uint64_t before);

/* They take `status`, which is not NULL, and write a cleaned sentence.  WEIR_EUNAVAILABLE: the
 * device is lost. */
enum weir_status onnx_load_failed(struct OrtStatus *status, struct weir_err *err);
enum weir_status onnx_run_failed(struct OrtStatus *status, struct weir_err *err);

/* As onnx_run_failed(); *fault: the device is lost because a kernel failed on it, which the run's
 * inputs may have made it do. */
enum weir_status onnx_kernel_failed(struct OrtStatus *status, bool *fault, struct weir_err *err);

#endif
