/*
 * What nobody wrote down is inferred from the model file.  The one inference
 * that can be wrong is the batch dimension: a leading -1 makes a model a
 * candidate only where all inputs and outputs share it by name, and the proof
 * at load (proof.h) has the last word on whether requests may share runs.
 */
#include "engine/effective.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/order.h"
#include "util/arena.h"
#include "util/clock.h"
#include "util/mem.h"

struct holder {
    struct model_config config;
    struct arena arena;
};

/* One side of a signature with what the configuration declares for it. */
struct side {
    const char *what; /* "input" or "output" */
    const struct tensor_spec *specs;
    uint32_t count;
    struct io_config *declared;
    uint32_t declared_count;
    bool output;
};

struct model_config *effective_create(void)
{
    struct holder *holder = mem_try_zero(1, sizeof(*holder));
    if (holder == NULL) {
        return NULL;
    }
    arena_init(&holder->arena, NULL, 0, EFFECTIVE_CONFIG_BYTES_MAX);
    holder->config = (struct model_config){
        .device = "cpu",
        .max_batch_size = -1,
        .batching = BATCHING_AUTO,
        .queue_timeout_ns = CLOCK_NEVER,
        .intra_threads = 1,
        .promote_after = MODEL_PROMOTE_AFTER,
        .load_limit_ns = MODEL_LOAD_LIMIT_NS,
        .canary_interval_ns = CANARY_INTERVAL_SERVER,
        .policy = VERSION_LATEST,
        .policy_count = 1,
        .arena = &holder->arena,
        .release = effective_release,
    };
    return &holder->config;
}

void effective_release(struct model_config *config)
{
    if (config == NULL) {
        return;
    }
    struct holder *holder = list_entry(config, struct holder, config);
    arena_finish(&holder->arena);
    mem_free(holder);
}

/* What else Triton serves; platforms are the same in its older words. */
static bool is_tritons(const char *name)
{
    static const char *const names[] = {
        "tensorrt",
        "tensorrt_plan",
        "pytorch",
        "pytorch_libtorch",
        "python",
        "openvino",
        "tensorflow",
        "dali",
        "fil",
        "vllm",
        "custom",
        "tensorrtllm",
        "mlflow",
        "repeat",
        "square",
        "identity",
        "caffe2_netdef",
        "tensorflow_graphdef",
        "tensorflow_savedmodel",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static enum weir_status unknown_backend(const char *name, struct weir_err *err)
{
    char names[256] = "";
    size_t used = 0;
    for (uint32_t i = 0; backend_name(i) != NULL; i++) {
        const int size = snprintf(names + used, sizeof(names) - used, "%s%s", i == 0 ? "" : ", ",
                                  backend_name(i));
        if (size < 0 || (size_t)size >= sizeof(names) - used) {
            break;
        }
        used += (size_t)size;
    }
    if (is_tritons(name)) {
        return err_set(err, WEIR_EINVAL,
                       "backend '%s' is one of Triton's that Weir has not: it serves ONNX models; "
                       "there are: %s",
                       name, names);
    }
    return err_set(err, WEIR_EINVAL,
                   "there is no backend '%s'; there are: %s; others come with --plugin", name,
                   names);
}

enum weir_status effective_backend(struct model_config *config, const struct backend_ops **out,
                                   struct weir_err *err)
{
    const bool named = config->backend != NULL && config->backend[0] != '\0';
    const bool platform = config->platform != NULL && config->platform[0] != '\0';
    const char *name = named ? config->backend : platform ? config->platform : "onnxruntime";
    const struct backend_ops *ops = backend_find(name);
    if (ops == NULL) {
        return unknown_backend(name, err);
    }
    if (platform && named && backend_find(config->platform) != ops) {
        return err_set(err, WEIR_EINVAL, "backend '%s' and platform '%s' do not belong together",
                       config->backend, config->platform);
    }
    config->backend = backend_ops_name(ops);
    config->platform = backend_ops_platform(ops);
    *out = ops;
    return WEIR_OK;
}

static void make_sides(const struct model_config *config, const struct signature *signature,
                       struct side sides[2])
{
    sides[0] = (struct side){ "input",        signature->inputs,   signature->input_count,
                              config->inputs, config->input_count, false };
    sides[1] = (struct side){ "output",        signature->outputs,   signature->output_count,
                              config->outputs, config->output_count, true };
}

static const struct tensor_spec *find_spec(const struct side *side, const char *name)
{
    for (uint32_t i = 0; i < side->count; i++) {
        if (strcmp(side->specs[i].name, name) == 0) {
            return &side->specs[i];
        }
    }
    return NULL;
}

static struct io_config *find_declared(const struct side *side, const char *name)
{
    for (uint32_t i = 0; i < side->declared_count; i++) {
        if (strcmp(side->declared[i].name, name) == 0) {
            return &side->declared[i];
        }
    }
    return NULL;
}

/* "A, B": as many names as fit. */
static void list_names(const struct side *side, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < side->count; i++) {
        const size_t length = strlen(side->specs[i].name);
        if (used + length + 3 > size) {
            return;
        }
        memcpy(out + used, ", ", used == 0 ? 0 : 2);
        used += used == 0 ? 0 : 2;
        memcpy(out + used, side->specs[i].name, length + 1);
        used += length;
    }
}

static enum weir_status check_declared(const struct side *side, struct weir_err *err)
{
    for (uint32_t i = 0; i < side->declared_count; i++) {
        const struct io_config *declared = &side->declared[i];
        const struct tensor_spec *spec = find_spec(side, declared->name);
        if (spec == NULL) {
            char names[256];
            list_names(side, names, sizeof(names));
            return err_set(err, WEIR_EINVAL, "unexpected inference %s '%s', allowed %ss are: %s",
                           side->what, declared->name, side->what, names);
        }
        if (find_declared(side, declared->name) != declared) {
            return err_set(err, WEIR_EINVAL, "the configuration names %s '%s' twice", side->what,
                           declared->name);
        }
        if (declared->has_dtype && declared->dtype != spec->dtype) {
            return err_set(err, WEIR_EINVAL,
                           "the configuration expects datatype %s for %s '%s', the model provides "
                           "%s",
                           dtype_text(declared->dtype), side->what, declared->name,
                           dtype_text(spec->dtype));
        }
    }
    for (uint32_t i = 0; !side->output && side->declared_count > 0 && i < side->count; i++) {
        const struct tensor_spec *spec = &side->specs[i];
        if (!spec->optional && find_declared(side, spec->name) == NULL) {
            return err_set(err, WEIR_EINVAL,
                           "the configuration expects %" PRIu32 " %ss, the model provides %" PRIu32
                           ": %s '%s' is missing",
                           side->declared_count, side->what, side->count, side->what, spec->name);
        }
    }
    return WEIR_OK;
}

static enum weir_status refuse_rank(const struct side *side, const struct tensor_spec *spec,
                                    const struct io_config *declared, struct weir_err *err)
{
    char model[SHAPE_TEXT];
    char config[SHAPE_TEXT];
    return err_set(err, WEIR_EINVAL,
                   "%s '%s': the model has %" PRIu32 " dimensions (shape %s) but the configuration "
                   "gives %" PRIu32 " (%s)",
                   side->what, spec->name, spec->shape.rank, shape_format(&spec->shape, model),
                   declared->dims.rank, shape_format(&declared->dims, config));
}

/* What the declared dims say about a batch dimension, where max_batch_size says nothing. */
struct hint {
    bool batched;   /* Some leave the leading dimension out. */
    bool unbatched; /* Some are full shapes. */
};

static enum weir_status read_hint(const struct side *side, struct hint *hint, struct weir_err *err)
{
    for (uint32_t i = 0; i < side->declared_count; i++) {
        const struct io_config *declared = &side->declared[i];
        const struct tensor_spec *spec = find_spec(side, declared->name);
        if (!declared->has_dims || spec->any_rank) {
            continue;
        }
        if (declared->dims.rank == spec->shape.rank) {
            hint->unbatched = true;
        } else if (declared->dims.rank + 1 == spec->shape.rank) {
            hint->batched = true;
        } else {
            return refuse_rank(side, spec, declared, err);
        }
    }
    return WEIR_OK;
}

static bool same_name(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Why the leading dimension is no batch dimension, into the arena; *out is NULL when it is one. */
static enum weir_status leading_dimension(const struct side *sides, struct arena *arena,
                                          const char **out)
{
    const struct tensor_spec *first = NULL;
    *out = NULL;
    for (uint32_t s = 0; s < 2; s++) {
        for (uint32_t i = 0; i < sides[s].count; i++) {
            const struct tensor_spec *spec = &sides[s].specs[i];
            const char *problem = NULL;
            if (spec->shape.rank == 0 || spec->shape.dims[0] != -1) {
                problem = "has no variable leading dimension";
            } else if (first != NULL && !same_name(first->dim_names[0], spec->dim_names[0])) {
                problem = "has another leading dimension than the first tensor";
            }
            first = first == NULL ? spec : first;
            if (problem != NULL) {
                *out = arena_try_printf(arena, "%s '%s' %s", sides[s].what, spec->name, problem);
                return *out == NULL ? WEIR_ENOMEM : WEIR_OK;
            }
        }
    }
    if (first == NULL || sides[0].count == 0) {
        *out = "the model has no inputs";
    }
    return WEIR_OK;
}

static enum weir_status infer_batch(struct model_config *config, const struct side *sides,
                                    const char **why_not, struct weir_err *err)
{
    struct hint hint = { false, false };
    enum weir_status status = read_hint(&sides[0], &hint, err);
    status = status == WEIR_OK ? read_hint(&sides[1], &hint, err) : status;
    if (status != WEIR_OK) {
        return status;
    }
    if (hint.batched && hint.unbatched) {
        return err_set(err, WEIR_EINVAL,
                       "some dims in the configuration leave out the batch dimension and some do "
                       "not; set max_batch_size");
    }
    const char *problem;
    if (leading_dimension(sides, config->arena, &problem) != WEIR_OK) {
        return err_nomem(err, "the configuration", 0);
    }
    if (hint.batched && problem != NULL) {
        return err_set(err, WEIR_EINVAL,
                       "the dims in the configuration leave out a batch dimension, but %s",
                       problem);
    }
    if (hint.unbatched && problem == NULL) {
        problem = "the configuration gives full shapes and no max_batch_size";
    }
    config->max_batch_size = problem == NULL ? MODEL_BATCH_INFERRED : 0;
    config->max_batch_inferred = true;
    *why_not = problem;
    return WEIR_OK;
}

static enum weir_status check_batch(const struct side *side, struct weir_err *err)
{
    for (uint32_t i = 0; i < side->count; i++) {
        const struct tensor_spec *spec = &side->specs[i];
        if (spec->shape.rank == 0 || spec->shape.dims[0] != -1) {
            char shape[SHAPE_TEXT];
            return err_set(err, WEIR_EINVAL,
                           "%s '%s': for the model to support batching the shape should have at "
                           "least 1 dimension and the first dimension must be -1; but shape "
                           "expected by the model is %s (set max_batch_size: 0)",
                           side->what, spec->name, shape_format(&spec->shape, shape));
        }
    }
    return WEIR_OK;
}

/* Lays the declaration over what the model has; `full` is the model's shape. */
static enum weir_status settle(const struct side *side, const struct tensor_spec *spec,
                               uint32_t skip, struct io_config *io, struct weir_err *err)
{
    struct shape dims = { .rank = spec->shape.rank - skip };
    memcpy(dims.dims, spec->shape.dims + skip, dims.rank * sizeof(dims.dims[0]));
    if (spec->any_rank && io->has_dims) {
        dims = io->dims; /* The file says nothing that could contradict. */
    }
    if (io->has_dims && io->dims.rank != dims.rank) {
        return refuse_rank(side, spec, io, err);
    }
    for (uint32_t i = 0; io->has_dims && i < dims.rank; i++) {
        if (dims.dims[i] != -1 && dims.dims[i] != io->dims.dims[i]) {
            char model[SHAPE_TEXT];
            char config[SHAPE_TEXT];
            return err_set(err, WEIR_EINVAL,
                           "%s '%s': the model expects dims %s but the configuration says %s%s",
                           side->what, spec->name, shape_format(&dims, model),
                           shape_format(&io->dims, config),
                           skip == 1 ? " (both without the batch dimension)" : "");
        }
        dims.dims[i] = io->dims.dims[i];
    }
    io->name = spec->name;
    io->dtype = spec->dtype;
    io->has_dtype = true;
    io->dims = dims;
    io->has_dims = true;
    return WEIR_OK;
}

static enum weir_status complete_side(struct model_config *config, const struct side *side,
                                      struct io_config **out, uint32_t *count, struct weir_err *err)
{
    struct io_config *all = arena_try_zero(config->arena, side->count, sizeof(*all));
    if (all == NULL) {
        return err_nomem(err, "the configuration", side->count * sizeof(*all));
    }
    const uint32_t skip = config->max_batch_size > 0 ? 1 : 0;
    for (uint32_t i = 0; i < side->count; i++) {
        const struct io_config *declared = find_declared(side, side->specs[i].name);
        if (declared != NULL) {
            all[i] = *declared;
        }
        const enum weir_status status = settle(side, &side->specs[i], skip, &all[i], err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    *out = all;
    *count = side->count;
    return WEIR_OK;
}

static int by_size(const void *a, const void *b)
{
    const uint32_t left = *(const uint32_t *)a;
    const uint32_t right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

static enum weir_status check_scheduling(struct model_config *config, struct weir_err *err)
{
    qsort(config->preferred, config->preferred_count, sizeof(config->preferred[0]), by_size);
    for (uint32_t i = 0; i < config->preferred_count; i++) {
        if (config->preferred[i] > config->max_batch_size) {
            return err_set(err, WEIR_EINVAL,
                           "dynamic batching preferred size must be <= max batch size: found "
                           "%" PRIu32 ", max_batch_size is %" PRId64,
                           config->preferred[i], config->max_batch_size);
        }
    }
    const uint32_t levels = config->priority_levels;
    const uint32_t most = levels > 0 ? levels : config->proto ? 0 : ORDER_CLASSES;
    const bool set = config->priority_default != 0;
    if ((levels > 0 && !set) || config->priority_default > most) {
        return err_set(err, WEIR_EINVAL,
                       "default_priority_level must be 1 to priority_levels: found %" PRIu32
                       ", priority_levels is %" PRIu32,
                       config->priority_default, levels);
    }
    return WEIR_OK;
}

/* ---- Reshape --------------------------------------------------------------------------------- */

static enum weir_status refuse_reshape(const struct side *side, const struct io_config *io,
                                       const char *why, struct weir_err *err)
{
    char dims[SHAPE_TEXT];
    char reshape[SHAPE_TEXT];
    return err_set(err, WEIR_EINVAL, "%s '%s': reshape of dims %s to %s: %s", side->what, io->name,
                   shape_format(&io->dims, dims), shape_format(&io->reshape, reshape), why);
}

/* Triton's configurations have [1] for a scalar: as if they had a reshape to nothing. */
static bool is_scalar_as_one(const struct io_config *io, const struct tensor_spec *spec)
{
    if (io->has_reshape || !io->has_dims || io->dims.rank == 0 || spec->shape.rank != 0 ||
        spec->any_rank) {
        return false;
    }
    for (uint32_t i = 0; i < io->dims.rank; i++) {
        if (io->dims.dims[i] != 1) {
            return false;
        }
    }
    return true;
}

/* The model's shape is that of the reshape, with a batch dimension before it or without. */
static enum weir_status make_rule(const struct model_config *config, const struct side *side,
                                  const struct io_config *io, struct reshape_rule *rule,
                                  struct weir_err *err)
{
    const struct tensor_spec *spec = find_spec(side, io->name);
    if (!io->has_dims) {
        return err_set(err, WEIR_EINVAL, "%s '%s': found reshape without dims, expected both",
                       side->what, io->name);
    }
    if (!reshape_fits(&io->dims, &io->reshape)) {
        return refuse_reshape(side, io, "they have not the same number of elements", err);
    }
    const bool batched = spec->shape.rank == io->reshape.rank + 1;
    if (batched && io->dims.rank == TENSOR_RANK_MAX) {
        return refuse_reshape(side, io, "with the batch dimension there are more than 12", err);
    }
    const bool unbatched = spec->shape.rank == io->reshape.rank;
    if (config->max_batch_size > 0    ? !batched
        : config->max_batch_size == 0 ? !unbatched
                                      : !batched && !unbatched) {
        char model[SHAPE_TEXT];
        char why[128];
        (void)snprintf(why, sizeof(why), "the model has shape %.60s%s",
                       shape_format(&spec->shape, model),
                       config->max_batch_size > 0 ? ", of which the first is the batch" : "");
        return refuse_reshape(side, io, why, err);
    }
    for (uint32_t i = 0; i < io->reshape.rank; i++) {
        const int64_t dim = spec->shape.dims[i + (batched ? 1u : 0u)];
        if (dim != -1 && dim != io->reshape.dims[i]) {
            char model[SHAPE_TEXT];
            char why[128];
            (void)snprintf(why, sizeof(why), "the model has shape %.60s",
                           shape_format(&spec->shape, model));
            return refuse_reshape(side, io, why, err);
        }
    }
    *rule = (struct reshape_rule){
        .output = side->output,
        .index = (uint32_t)(spec - side->specs),
        .batched = batched,
        .shown = io->dims,
        .model = io->reshape,
    };
    return WEIR_OK;
}

enum weir_status effective_rules(struct model_config *config, const struct signature *signature,
                                 struct reshape_rule **out, uint32_t *out_count,
                                 struct weir_err *err)
{
    struct side sides[2];
    make_sides(config, signature, sides);
    struct reshape_rule *rules = arena_try_zero(
        config->arena, (size_t)config->input_count + config->output_count, sizeof(*rules));
    if (rules == NULL) {
        return err_nomem(err, "the configuration", sizeof(*rules));
    }
    uint32_t count = 0;
    for (uint32_t s = 0; s < 2; s++) {
        for (uint32_t i = 0; i < sides[s].declared_count; i++) {
            const struct io_config *io = &sides[s].declared[i];
            const struct tensor_spec *spec = find_spec(&sides[s], io->name);
            if (spec == NULL || (!io->has_reshape && !is_scalar_as_one(io, spec))) {
                continue; /* An unknown name is told by effective_complete(). */
            }
            const enum weir_status status = make_rule(config, &sides[s], io, &rules[count++], err);
            if (status != WEIR_OK) {
                return status;
            }
        }
    }
    *out = rules;
    *out_count = count;
    return WEIR_OK;
}

enum weir_status effective_reshape(struct model_config *config, struct backend_model **model,
                                   struct weir_err *err)
{
    struct reshape_rule *rules = NULL;
    uint32_t count = 0;
    const enum weir_status status =
        effective_rules(config, backend_signature(*model), &rules, &count, err);
    return status != WEIR_OK || count == 0 ? status
                                           : reshape_wrap(*model, rules, count, model, err);
}

enum weir_status effective_complete(struct model_config *config, const struct signature *signature,
                                    const char **why_not, struct weir_err *err)
{
    struct side sides[2];
    make_sides(config, signature, sides);
    *why_not = NULL;
    enum weir_status status = check_declared(&sides[0], err);
    status = status == WEIR_OK ? check_declared(&sides[1], err) : status;
    if (status == WEIR_OK && config->max_batch_size < 0) {
        status = infer_batch(config, sides, why_not, err);
    }
    if (status == WEIR_OK && config->max_batch_size > 0) {
        status = check_batch(&sides[0], err);
        status = status == WEIR_OK ? check_batch(&sides[1], err) : status;
    }
    if (status == WEIR_OK) {
        status = complete_side(config, &sides[0], &config->inputs, &config->input_count, err);
    }
    if (status == WEIR_OK) {
        status = complete_side(config, &sides[1], &config->outputs, &config->output_count, err);
    }
    return status == WEIR_OK ? check_scheduling(config, err) : status;
}

enum weir_status effective_remark(struct model_config *config, struct weir_err *err,
                                  const char *format, ...)
{
    char sentence[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    const bool first = config->remark == NULL;
    const char *remark = arena_try_printf(config->arena, "%s%s%s", first ? "" : config->remark,
                                          first ? "" : "; ", sentence);
    if (remark == NULL) {
        return err_nomem(err, "a model's configuration", strlen(sentence));
    }
    config->remark = remark;
    return WEIR_OK;
}
