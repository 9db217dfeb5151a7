/*
 * A model around a model.  Each step hands the inner one a run of its own, whose
 * inputs are copies of the outer ones' descriptions (never of their data) in the
 * model's shapes and whose outputs are the outer ones, put into the shapes that
 * are shown before anybody sees them.
 */
#include "backend/reshape.h"

#include <string.h>

#include "backend/backend_impl.h"
#include "tensor/tensor.h"
#include "util/list.h"
#include "util/mem.h"

struct reshape_model {
    struct backend_model base;
    struct backend_model *inner;
    struct reshape_rule *rules;
    uint32_t rule_count;
};

struct reshape_context {
    struct backend_context base;
    struct backend_context *inner;
    struct tensor *inputs;
    struct backend_run run;    /* The inner one, from prepare to finish. */
    struct backend_run *outer; /* While a step lasts. */
};

static struct reshape_model *model_of(struct backend_model *base)
{
    return list_entry(base, struct reshape_model, base);
}

static struct reshape_context *context_of(struct backend_context *base)
{
    return list_entry(base, struct reshape_context, base);
}

/* ---- Shapes ---------------------------------------------------------------------------------- */

/* The product of the sizes from *at up to the next -1 or the end; *at is then behind it. */
static uint64_t part_of(const struct shape *shape, uint32_t *at, bool *ended)
{
    uint64_t product = 1;
    *ended = true;
    while (*at < shape->rank) {
        const int64_t dim = shape->dims[(*at)++];
        if (dim == -1) {
            *ended = false;
            break;
        }
        if (__builtin_mul_overflow(product, (uint64_t)dim, &product)) {
            return UINT64_MAX;
        }
    }
    return product;
}

bool reshape_fits(const struct shape *shown, const struct shape *model)
{
    uint32_t left = 0;
    uint32_t right = 0;
    for (;;) {
        bool left_ended;
        bool right_ended;
        const uint64_t a = part_of(shown, &left, &left_ended);
        const uint64_t b = part_of(model, &right, &right_ended);
        if (a != b || a == UINT64_MAX || left_ended != right_ended) {
            return false;
        }
        if (left_ended) {
            return true;
        }
    }
}

/* `shape` is one of `from`: makes it the one of `to`.  False: it is none. */
static bool translate(const struct shape *from, const struct shape *to, bool batched,
                      struct shape *shape)
{
    const uint32_t skip = batched ? 1 : 0;
    struct shape out = { .rank = skip + to->rank };
    if (shape->rank != skip + from->rank) {
        return false;
    }
    out.dims[0] = batched ? shape->dims[0] : 0;
    uint32_t at = 0;
    for (uint32_t i = 0; i < to->rank; i++) {
        out.dims[skip + i] = to->dims[i];
        while (to->dims[i] == -1 && at < from->rank && from->dims[at] != -1) {
            at++;
        }
        if (to->dims[i] == -1) {
            out.dims[skip + i] = shape->dims[skip + at++];
        }
    }
    uint64_t before;
    uint64_t after;
    if (shape_elements(shape, &before, NULL) != WEIR_OK ||
        shape_elements(&out, &after, NULL) != WEIR_OK || before != after) {
        return false;
    }
    *shape = out;
    return true;
}

/* ---- Steps ----------------------------------------------------------------------------------- */

static enum weir_status show_outputs(const struct reshape_context *self, struct tensor *outputs,
                                     struct weir_err *err)
{
    const struct reshape_model *model = model_of(self->base.model);
    for (uint32_t i = 0; i < model->rule_count; i++) {
        const struct reshape_rule *rule = &model->rules[i];
        struct tensor *output = rule->output ? &outputs[rule->index] : NULL;
        if (output == NULL || !output->present) {
            continue;
        }
        if (!translate(&rule->model, &rule->shown, rule->batched, &output->shape)) {
            char found[SHAPE_TEXT];
            char expected[SHAPE_TEXT];
            return err_set(err, WEIR_EBACKEND, "output '%s' has shape %s, expected %s%s",
                           model->inner->signature.outputs[rule->index].name,
                           shape_format(&output->shape, found),
                           shape_format(&rule->model, expected),
                           rule->batched ? " behind the batch dimension" : "");
        }
    }
    return WEIR_OK;
}

static void release_outputs(const struct reshape_context *self, struct backend_run *run)
{
    for (uint32_t i = 0; i < self->base.model->signature.output_count; i++) {
        tensor_release(&run->outputs[i]);
    }
}

static enum weir_status on_part(struct backend_run *run)
{
    struct reshape_context *self = list_entry(run, struct reshape_context, run);
    const enum weir_status status = show_outputs(self, run->outputs, NULL);
    if (status != WEIR_OK) {
        release_outputs(self, run);
        return status;
    }
    return self->outer->part(self->outer);
}

/* What the step changed of the run. */
static enum weir_status step_ended(struct reshape_context *self, enum weir_status status)
{
    self->outer->virtual_end_ns = self->run.virtual_end_ns;
    self->outer->death = self->run.death;
    self->outer->told = self->run.told;
    self->outer = NULL;
    return status;
}

static enum weir_status reshape_prepare(struct backend_context *base, struct backend_run *run,
                                        struct weir_err *err)
{
    struct reshape_context *self = context_of(base);
    const struct reshape_model *model = model_of(base->model);
    memcpy(self->inputs, run->inputs, base->model->signature.input_count * sizeof(*run->inputs));
    for (uint32_t i = 0; i < model->rule_count; i++) {
        const struct reshape_rule *rule = &model->rules[i];
        struct tensor *input = rule->output ? NULL : &self->inputs[rule->index];
        if (input != NULL && input->present &&
            !translate(&rule->shown, &rule->model, rule->batched, &input->shape)) {
            return err_set(err, WEIR_EINVAL, "input '%s' cannot be given the model's shape",
                           model->inner->signature.inputs[rule->index].name);
        }
    }
    self->run = *run;
    self->run.inputs = self->inputs;
    self->run.part = run->part == NULL ? NULL : on_part;
    self->outer = run;
    return step_ended(self, backend_prepare(self->inner, &self->run, err));
}

static enum weir_status reshape_run(struct backend_context *base, struct backend_run *run,
                                    struct weir_err *err)
{
    struct reshape_context *self = context_of(base);
    self->outer = run;
    return step_ended(self, backend_run(self->inner, &self->run, err));
}

static enum weir_status reshape_finish(struct backend_context *base, struct backend_run *run,
                                       struct weir_err *err)
{
    struct reshape_context *self = context_of(base);
    self->outer = run;
    enum weir_status status = backend_finish(self->inner, &self->run, err);
    if (status == WEIR_OK) {
        status = show_outputs(self, run->outputs, err);
        if (status != WEIR_OK) {
            release_outputs(self, run);
        }
    }
    return step_ended(self, status);
}

static void reshape_terminate(struct backend_context *base, bool stop)
{
    struct reshape_context *self = context_of(base);
    if (stop) {
        backend_terminate(self->inner);
    } else {
        backend_rearm(self->inner);
    }
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void reshape_context_destroy(struct backend_context *base)
{
    struct reshape_context *self = context_of(base);
    backend_context_destroy(self->inner);
    mem_free(self->inputs);
    mem_free(self);
}

static enum weir_status reshape_context_create(struct backend_model *base,
                                               struct backend_context **out, struct weir_err *err)
{
    struct reshape_context *self = mem_try_zero(1, sizeof(*self));
    if (self == NULL) {
        return err_nomem(err, "a context", sizeof(*self));
    }
    self->base.model = base;
    self->inputs = mem_try_zero(base->signature.input_count + 1u, sizeof(*self->inputs));
    enum weir_status status = self->inputs != NULL ? WEIR_OK : err_nomem(err, "a context", 0);
    status = status == WEIR_OK ? backend_context_create(model_of(base)->inner, &self->inner, err)
                               : status;
    if (status != WEIR_OK) {
        reshape_context_destroy(&self->base);
        return status;
    }
    *out = &self->base;
    return WEIR_OK;
}

static void free_model(struct reshape_model *self)
{
    mem_free(self->base.signature.inputs);
    mem_free(self->base.signature.outputs);
    mem_free(self->rules);
    mem_free(self);
}

static void reshape_unload(struct backend_model *base)
{
    struct reshape_model *self = model_of(base);
    backend_unload(self->inner);
    free_model(self);
}

static void reshape_memory(const struct backend_model *base, struct backend_memory *out)
{
    backend_memory(((const struct reshape_model *)base)->inner, out);
}

static uint64_t reshape_promotion(const struct backend_model *base)
{
    return backend_promotion(((const struct reshape_model *)base)->inner);
}

static enum weir_status reshape_promote(struct backend_model *base, struct weir_err *err)
{
    return backend_promote(model_of(base)->inner, err);
}

static struct block *reshape_input_block(struct backend_model *base, size_t front, size_t size)
{
    return backend_input_block(model_of(base)->inner, front, size);
}

static const struct backend_ops reshape_ops = {
    .name = "reshape",
    .platform = "",
    .unload = reshape_unload,
    .context_create = reshape_context_create,
    .context_destroy = reshape_context_destroy,
    .prepare = reshape_prepare,
    .run = reshape_run,
    .finish = reshape_finish,
    .terminate = reshape_terminate,
    .memory = reshape_memory,
    .promotion = reshape_promotion,
    .promote = reshape_promote,
    .input_block = reshape_input_block,
};

void reshape_show(const struct reshape_rule *rule, struct tensor_spec *spec)
{
    const struct shape before = spec->shape;
    const uint32_t skip = rule->batched ? 1 : 0;
    const char *batch_name = spec->dim_names[0];
    memset(spec->dim_names, 0, sizeof(spec->dim_names));
    spec->dim_names[0] = rule->batched ? batch_name : NULL;
    spec->any_rank = false;
    spec->shape.rank = skip + rule->shown.rank;
    spec->shape.dims[0] = before.dims[0];
    memcpy(spec->shape.dims + skip, rule->shown.dims, rule->shown.rank * sizeof(before.dims[0]));
}

enum weir_status reshape_wrap(struct backend_model *inner, const struct reshape_rule *rules,
                              uint32_t count, struct backend_model **out, struct weir_err *err)
{
    struct reshape_model *self = mem_try_zero(1, sizeof(*self));
    if (self == NULL) {
        return err_nomem(err, "a model", sizeof(*self));
    }
    const struct signature *signature = &inner->signature;
    struct tensor_spec *inputs = mem_try_zero(signature->input_count + 1u, sizeof(*inputs));
    struct tensor_spec *outputs = mem_try_zero(signature->output_count + 1u, sizeof(*outputs));
    self->rules = mem_try_zero(count, sizeof(*self->rules));
    self->base = (struct backend_model){ .ops = &reshape_ops, .signature = *signature };
    self->base.signature.inputs = inputs;
    self->base.signature.outputs = outputs;
    if (inputs == NULL || outputs == NULL || self->rules == NULL) {
        free_model(self);
        return err_nomem(err, "a model's signature", count * sizeof(*rules));
    }
    memcpy(inputs, signature->inputs, signature->input_count * sizeof(*inputs));
    memcpy(outputs, signature->outputs, signature->output_count * sizeof(*outputs));
    memcpy(self->rules, rules, count * sizeof(*rules));
    for (uint32_t i = 0; i < count; i++) {
        struct tensor_spec *specs = rules[i].output ? outputs : inputs;
        reshape_show(&rules[i], &specs[rules[i].index]);
    }
    self->rule_count = count;
    self->inner = inner;
    *out = &self->base;
    return WEIR_OK;
}
