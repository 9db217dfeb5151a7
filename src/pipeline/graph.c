/*
 * Three passes over the configuration: name the tensors and who gives them, put
 * the steps in order, then see that what one gives is what another takes.
 * Everything a client could later stumble over is found here, at load.
 */
#include "pipeline/graph.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/effective.h"
#include "util/map.h"
#include "util/mem.h"

#define GRAPH_BYTES_MAX (UINT64_C(16) << 20)
#define NAMES_BYTES 200

/* A graph being made. */
struct maker {
    struct graph *graph;
    struct model *model;
    struct model_config *config;
    struct map by_name; /* Tensor's index + 1, by name. */
    struct weir_err *err;
};

static enum weir_status no_memory(const struct maker *maker)
{
    return err_nomem(maker->err, "an ensemble", sizeof(struct graph));
}

/* "step 2 ('resize')" */
#define STEP_TEXT 160
static const char *step_name(const struct graph_step *step, char *out)
{
    (void)snprintf(out, STEP_TEXT, "step %" PRIu32 " ('%.128s')", step->number, step->model->name);
    return out;
}

/* ---- Tensors --------------------------------------------------------------------------------- */

static struct graph_tensor *find_tensor(const struct maker *maker, const char *name,
                                        uint32_t *index)
{
    const uintptr_t found = (uintptr_t)map_get(&maker->by_name, bytes_of(name));
    if (found == 0) {
        return NULL;
    }
    *index = (uint32_t)(found - 1);
    return &maker->graph->tensors[*index];
}

static enum weir_status add_tensor(struct maker *maker, const char *name, uint32_t step,
                                   uint32_t port, uint32_t *index)
{
    struct graph *graph = maker->graph;
    if (name[0] == '\0') {
        return err_set(maker->err, WEIR_EINVAL, "a tensor of the ensemble has an empty name");
    }
    if (find_tensor(maker, name, index) != NULL) {
        return err_set(maker->err, WEIR_EINVAL,
                       "tensor '%.128s' is given twice: expected one step or one input", name);
    }
    *index = graph->tensor_count;
    if (map_add(&maker->by_name, bytes_of(name), (void *)((uintptr_t)*index + 1)) != WEIR_OK) {
        return no_memory(maker);
    }
    graph->tensors[graph->tensor_count++] =
        (struct graph_tensor){ .name = name, .step = step, .port = port };
    return WEIR_OK;
}

static enum weir_status add_declared_inputs(struct maker *maker)
{
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < maker->config->input_count && status == WEIR_OK; i++) {
        uint32_t index;
        status = add_tensor(maker, maker->config->inputs[i].name, GRAPH_CLIENT, i, &index);
    }
    return status;
}

/* ---- Steps ----------------------------------------------------------------------------------- */

static bool find_port(const struct tensor_spec *specs, uint32_t count, const char *name,
                      uint32_t *out)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(specs[i].name, name) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

/* 'a', 'b', ... as far as they fit. */
static const char *list_names(const struct tensor_spec *specs, uint32_t count, char *out)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < count; i++) {
        const size_t room = NAMES_BYTES - used;
        const int wrote = snprintf(out + used, room, "%s'%s'", i == 0 ? "" : ", ", specs[i].name);
        if (wrote < 0 || (size_t)wrote >= room) {
            out[used] = '\0';
            break;
        }
        used += (size_t)wrote;
    }
    return out;
}

static enum weir_status find_own(const struct maker *maker, const struct graph_step *step,
                                 bool output, const char *name, uint32_t *port)
{
    const struct signature *signature = step->model->signature;
    const struct tensor_spec *specs = output ? signature->outputs : signature->inputs;
    const uint32_t count = output ? signature->output_count : signature->input_count;
    if (find_port(specs, count, name, port)) {
        return WEIR_OK;
    }
    char text[STEP_TEXT];
    char names[NAMES_BYTES];
    return err_set(maker->err, WEIR_EINVAL, "%s: the model has no %s '%.128s', it has %s",
                   step_name(step, text), output ? "output" : "input", name,
                   list_names(specs, count, names));
}

/* Notes which tensor goes in or out at which port; each port at most once. */
static enum weir_status add_link(const struct maker *maker, const struct graph_step *step,
                                 struct graph_link *links, uint32_t *count, struct graph_link link)
{
    for (uint32_t i = 0; i < *count; i++) {
        if (links[i].port == link.port) {
            char text[STEP_TEXT];
            return err_set(maker->err, WEIR_EINVAL, "%s: one of its tensors is mapped twice",
                           step_name(step, text));
        }
    }
    links[(*count)++] = link;
    return WEIR_OK;
}

static enum weir_status add_outputs(struct maker *maker, uint32_t index)
{
    const struct ensemble_step *from = &maker->config->ensemble.steps[index];
    struct graph_step *step = &maker->graph->steps[index];
    char text[STEP_TEXT];
    if (from->output_count == 0) {
        return err_set(maker->err, WEIR_EINVAL, "%s gives nothing: its output_map is empty",
                       step_name(step, text));
    }
    step->outputs =
        arena_try_alloc(&maker->graph->arena, from->output_count * sizeof(struct graph_link));
    if (step->outputs == NULL) {
        return no_memory(maker);
    }
    for (uint32_t i = 0; i < from->output_count; i++) {
        struct graph_link link;
        enum weir_status status =
            find_own(maker, step, true, from->outputs[i].model_tensor, &link.port);
        if (status == WEIR_OK) {
            status =
                add_tensor(maker, from->outputs[i].ensemble_tensor, index, link.port, &link.tensor);
        }
        if (status == WEIR_OK) {
            status = add_link(maker, step, step->outputs, &step->output_count, link);
        }
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

/* The tensor that a step takes; where the configuration declares no inputs, an unknown one is an
 * input. */
static enum weir_status take_tensor(struct maker *maker, const struct graph_step *step,
                                    const char *name, uint32_t *index)
{
    struct graph_tensor *tensor = find_tensor(maker, name, index);
    if (tensor == NULL && maker->config->input_count > 0) {
        char text[STEP_TEXT];
        return err_set(maker->err, WEIR_EINVAL,
                       "%s takes tensor '%.128s', which no step gives and which is no input of the "
                       "ensemble",
                       step_name(step, text), name);
    }
    if (tensor == NULL) {
        const enum weir_status status =
            add_tensor(maker, name, GRAPH_CLIENT, maker->graph->signature.input_count, index);
        if (status != WEIR_OK) {
            return status;
        }
        maker->graph->signature.input_count++;
    }
    maker->graph->tensors[*index].takes++;
    return WEIR_OK;
}

static enum weir_status check_required(const struct maker *maker, const struct graph_step *step)
{
    const struct signature *signature = step->model->signature;
    for (uint32_t p = 0; p < signature->input_count; p++) {
        bool mapped = signature->inputs[p].optional;
        for (uint32_t i = 0; i < step->input_count && !mapped; i++) {
            mapped = step->inputs[i].port == p;
        }
        if (!mapped) {
            char text[STEP_TEXT];
            return err_set(maker->err, WEIR_EINVAL,
                           "%s: input '%.128s' of the model is missing in its input_map",
                           step_name(step, text), signature->inputs[p].name);
        }
    }
    return WEIR_OK;
}

static enum weir_status add_inputs(struct maker *maker, uint32_t index)
{
    const struct ensemble_step *from = &maker->config->ensemble.steps[index];
    struct graph_step *step = &maker->graph->steps[index];
    step->inputs =
        arena_try_alloc(&maker->graph->arena, (from->input_count + 1u) * sizeof(struct graph_link));
    if (step->inputs == NULL) {
        return no_memory(maker);
    }
    for (uint32_t i = 0; i < from->input_count; i++) {
        struct graph_link link;
        enum weir_status status =
            find_own(maker, step, false, from->inputs[i].model_tensor, &link.port);
        if (status == WEIR_OK) {
            status = take_tensor(maker, step, from->inputs[i].ensemble_tensor, &link.tensor);
        }
        if (status == WEIR_OK) {
            status = add_link(maker, step, step->inputs, &step->input_count, link);
        }
        if (status != WEIR_OK) {
            return status;
        }
    }
    return check_required(maker, step);
}

/* What kind of model a step may be. */
static enum weir_status check_part(const struct maker *maker, const struct graph_step *step)
{
    const struct model *part = step->model;
    const struct model_config *own = maker->config;
    char text[STEP_TEXT];
    if (part->signature->streams) {
        return err_set(maker->err, WEIR_EUNSUPPORTED,
                       "%s answers in several parts (decoupled), which no step of an ensemble can",
                       step_name(step, text));
    }
    if (own->max_batch_size > 0 && part->config->max_batch_size > 0 &&
        !part->config->max_batch_inferred && own->max_batch_size > part->config->max_batch_size) {
        return err_set(maker->err, WEIR_EINVAL,
                       "the ensemble allows a max_batch_size of %" PRId64 " but %s only %" PRId64,
                       own->max_batch_size, step_name(step, text), part->config->max_batch_size);
    }
    const uint32_t depth = part->graph == NULL ? 1 : part->graph->depth + 1;
    if (depth > GRAPH_DEPTH_MAX) {
        return err_set(maker->err, WEIR_EINVAL, "%s: ensembles are nested more than %d deep",
                       step_name(step, text), GRAPH_DEPTH_MAX);
    }
    maker->graph->depth = depth > maker->graph->depth ? depth : maker->graph->depth;
    return WEIR_OK;
}

/* As many tensors as there can be: each name once. */
static uint64_t tensors_most(const struct model_config *config)
{
    uint64_t count = config->input_count;
    for (uint32_t i = 0; i < config->ensemble.step_count; i++) {
        count += config->ensemble.steps[i].input_count;
        count += config->ensemble.steps[i].output_count;
    }
    return count;
}

static enum weir_status add_steps(struct maker *maker)
{
    struct graph *graph = maker->graph;
    const uint32_t count = maker->config->ensemble.step_count;
    const uint64_t tensors = tensors_most(maker->config);
    if (tensors > GRAPH_TENSORS_MAX) {
        return err_set(maker->err, WEIR_EINVAL,
                       "%" PRIu64 " names of tensors in one ensemble, expected at most %d", tensors,
                       GRAPH_TENSORS_MAX);
    }
    if (count > GRAPH_STEPS_MAX) {
        return err_set(maker->err, WEIR_EINVAL, "%" PRIu32 " steps, expected at most %d", count,
                       GRAPH_STEPS_MAX);
    }
    graph->steps = arena_try_zero(&graph->arena, count, sizeof(*graph->steps));
    graph->tensors = arena_try_zero(&graph->arena, tensors, sizeof(*graph->tensors));
    if (graph->steps == NULL || graph->tensors == NULL) {
        return no_memory(maker);
    }
    graph->step_count = count;
    enum weir_status status = add_declared_inputs(maker);
    for (uint32_t i = 0; i < count && status == WEIR_OK; i++) {
        graph->steps[i].number = i + 1;
        graph->steps[i].model = maker->model->parts[i];
        status = check_part(maker, &graph->steps[i]);
        status = status == WEIR_OK ? add_outputs(maker, i) : status;
    }
    graph->signature.input_count = maker->config->input_count;
    for (uint32_t i = 0; i < count && status == WEIR_OK; i++) {
        status = add_inputs(maker, i);
    }
    return status;
}

/* ---- Order ----------------------------------------------------------------------------------- */

static bool is_ready(const struct graph *graph, const struct graph_step *step, const bool *placed)
{
    for (uint32_t i = 0; i < step->input_count; i++) {
        const uint32_t giver = graph->tensors[step->inputs[i].tensor].step;
        if (giver != GRAPH_CLIENT && !placed[giver]) {
            return false;
        }
    }
    return true;
}

/* Brings the steps into an order in which they can run, keeping the configuration's where it is
 * one. */
static enum weir_status sort_steps(struct maker *maker)
{
    struct graph *graph = maker->graph;
    struct graph_step *sorted = arena_try_zero(&graph->arena, graph->step_count, sizeof(*sorted));
    uint32_t *place = arena_try_zero(&graph->arena, graph->step_count, sizeof(*place));
    bool *placed = arena_try_zero(&graph->arena, graph->step_count, sizeof(*placed));
    if (sorted == NULL || place == NULL || placed == NULL) {
        return no_memory(maker);
    }
    for (uint32_t count = 0; count < graph->step_count; count++) {
        uint32_t next = 0;
        while (next < graph->step_count &&
               (placed[next] || !is_ready(graph, &graph->steps[next], placed))) {
            next++;
        }
        if (next == graph->step_count) {
            char text[STEP_TEXT];
            for (next = 0; placed[next]; next++) {
            }
            return err_set(maker->err, WEIR_EINVAL,
                           "the steps form a cycle: %s waits for itself, or for one that does",
                           step_name(&graph->steps[next], text));
        }
        placed[next] = true;
        place[next] = count;
        sorted[count] = graph->steps[next];
    }
    graph->steps = sorted;
    for (uint32_t i = 0; i < graph->tensor_count; i++) {
        struct graph_tensor *tensor = &graph->tensors[i];
        tensor->step = tensor->step == GRAPH_CLIENT ? GRAPH_CLIENT : place[tensor->step];
    }
    return WEIR_OK;
}

/* ---- What flows ------------------------------------------------------------------------------ */

/* The shape as clients of the part see it: the configuration may allow less than the model. */
static struct shape port_shape(const struct model *part, bool output, uint32_t port)
{
    const struct model_config *config = part->config;
    const struct tensor_spec *spec =
        output ? &part->signature->outputs[port] : &part->signature->inputs[port];
    const struct io_config *io = output ? config->outputs : config->inputs;
    const uint32_t count = output ? config->output_count : config->input_count;
    const uint32_t skip = config->max_batch_size > 0 ? 1 : 0;
    struct shape shape = spec->shape;
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(io[i].name, spec->name) == 0 && io[i].has_dims &&
            io[i].dims.rank + skip == shape.rank) {
            memcpy(shape.dims + skip, io[i].dims.dims, io[i].dims.rank * sizeof(shape.dims[0]));
        }
    }
    return shape;
}

/* Could one shape be the other?  -1 is any. */
static bool shapes_meet(const struct shape *a, const struct shape *b)
{
    if (a->rank != b->rank) {
        return false;
    }
    for (uint32_t i = 0; i < a->rank; i++) {
        if (a->dims[i] != b->dims[i] && a->dims[i] != -1 && b->dims[i] != -1) {
            return false;
        }
    }
    return true;
}

/* Lays what `shape` knows over what `spec` leaves open. */
static void narrow(struct tensor_spec *spec, const struct shape *shape)
{
    if (spec->any_rank) {
        spec->any_rank = false;
        spec->shape = *shape;
        return;
    }
    for (uint32_t i = 0; i < shape->rank; i++) {
        spec->shape.dims[i] = spec->shape.dims[i] == -1 ? shape->dims[i] : spec->shape.dims[i];
    }
}

/* One end of a tensor: a step's port. */
struct end {
    const struct graph_step *step;
    bool output;
    uint32_t port;
};

static const struct tensor_spec *end_spec(const struct end *end)
{
    const struct signature *signature = end->step->model->signature;
    return end->output ? &signature->outputs[end->port] : &signature->inputs[end->port];
}

/* Checks that what is known of a tensor so far fits this end, and adds what the end knows.  `what`:
 * who said so. */
static enum weir_status meet(const struct maker *maker, struct tensor_spec *known, const char *what,
                             const struct end *end)
{
    const struct tensor_spec *spec = end_spec(end);
    const struct shape shape = port_shape(end->step->model, end->output, end->port);
    char text[STEP_TEXT];
    if (spec->dtype != known->dtype) {
        return err_set(maker->err, WEIR_EINVAL, "tensor '%.128s' is %s by %s but %s %s %s",
                       known->name, dtype_text(known->dtype), what, step_name(end->step, text),
                       end->output ? "gives" : "takes", dtype_text(spec->dtype));
    }
    if (spec->any_rank) {
        return WEIR_OK;
    }
    if (!known->any_rank && !shapes_meet(&known->shape, &shape)) {
        char first[SHAPE_TEXT];
        char second[SHAPE_TEXT];
        return err_set(maker->err, WEIR_EINVAL,
                       "tensor '%.100s' has shape %.80s by %.140s but %s %s shape %.80s",
                       known->name, shape_format(&known->shape, first), what,
                       step_name(end->step, text), end->output ? "gives" : "takes",
                       shape_format(&shape, second));
    }
    narrow(known, &shape);
    return WEIR_OK;
}

/* All that take it fit what is known of it; what they know is added. */
static enum weir_status meet_takers(const struct maker *maker, uint32_t tensor,
                                    struct tensor_spec *known, const char *what)
{
    const struct graph *graph = maker->graph;
    bool optional = true;
    for (uint32_t s = 0; s < graph->step_count; s++) {
        const struct graph_step *step = &graph->steps[s];
        for (uint32_t i = 0; i < step->input_count; i++) {
            if (step->inputs[i].tensor != tensor) {
                continue;
            }
            const struct end end = { step, false, step->inputs[i].port };
            const enum weir_status status = meet(maker, known, what, &end);
            if (status != WEIR_OK) {
                return status;
            }
            optional = optional && end_spec(&end)->optional;
        }
    }
    known->optional = optional && graph->tensors[tensor].takes > 0;
    return WEIR_OK;
}

/* What the configuration says of an ensemble's tensor, as a full shape; with nobody's word on a
 * batch dimension, the step that it comes from or goes to decides whether it is left out. */
static enum weir_status apply_declared(const struct maker *maker, struct tensor_spec *spec,
                                       struct io_config *io, const char *side)
{
    const int64_t batch = maker->config->max_batch_size;
    if (io->has_dtype && io->dtype != spec->dtype) {
        return err_set(maker->err, WEIR_EINVAL,
                       "%s '%.128s' is %s in the configuration but %s in the steps", side, io->name,
                       dtype_text(io->dtype), dtype_text(spec->dtype));
    }
    if (!io->has_dims) {
        return WEIR_OK;
    }
    const bool left_out =
        batch > 0 || (batch < 0 && !spec->any_rank && io->dims.rank + 1 == spec->shape.rank);
    const uint32_t skip = left_out ? 1 : 0;
    struct shape full = { .rank = io->dims.rank + skip, .dims = { -1 } };
    if (full.rank > TENSOR_RANK_MAX) {
        return err_set(maker->err, WEIR_EINVAL, "%s '%.128s' has more than %d dimensions", side,
                       io->name, TENSOR_RANK_MAX);
    }
    memcpy(full.dims + skip, io->dims.dims, io->dims.rank * sizeof(full.dims[0]));
    if (!spec->any_rank && !shapes_meet(&full, &spec->shape)) {
        char first[SHAPE_TEXT];
        char second[SHAPE_TEXT];
        return err_set(maker->err, WEIR_EINVAL,
                       "%s '%.128s' has shape %.120s in the configuration%s but %.120s in the "
                       "steps",
                       side, io->name, shape_format(&full, first),
                       left_out ? ", with the batch dimension," : "",
                       shape_format(&spec->shape, second));
    }
    narrow(spec, &full);
    memcpy(io->dims.dims, spec->shape.dims + skip, io->dims.rank * sizeof(full.dims[0]));
    return WEIR_OK;
}

/* An input's type and shape are those of the first step that takes it, as far as they are known. */
static enum weir_status make_input(const struct maker *maker, uint32_t tensor,
                                   struct tensor_spec *spec)
{
    const struct graph *graph = maker->graph;
    const char *name = graph->tensors[tensor].name;
    for (uint32_t s = 0; s < graph->step_count; s++) {
        const struct graph_step *step = &graph->steps[s];
        for (uint32_t i = 0; i < step->input_count; i++) {
            if (step->inputs[i].tensor == tensor) {
                const struct end end = { step, false, step->inputs[i].port };
                char what[STEP_TEXT];
                *spec = (struct tensor_spec){ .name = name,
                                              .dtype = end_spec(&end)->dtype,
                                              .any_rank = true };
                return meet_takers(maker, tensor, spec, step_name(step, what));
            }
        }
    }
    return err_set(maker->err, WEIR_EINVAL, "input '%.128s' is taken by no step", name);
}

static enum weir_status make_inputs(struct maker *maker)
{
    struct graph *graph = maker->graph;
    struct signature *signature = &graph->signature;
    signature->inputs =
        arena_try_zero(&graph->arena, signature->input_count + 1u, sizeof(*signature->inputs));
    graph->inputs =
        arena_try_zero(&graph->arena, signature->input_count + 1u, sizeof(*graph->inputs));
    if (signature->inputs == NULL || graph->inputs == NULL) {
        return no_memory(maker);
    }
    for (uint32_t t = 0; t < graph->tensor_count; t++) {
        const uint32_t port = graph->tensors[t].port;
        if (graph->tensors[t].step != GRAPH_CLIENT) {
            continue;
        }
        graph->inputs[port] = t;
        enum weir_status status = make_input(maker, t, &signature->inputs[port]);
        if (status == WEIR_OK && maker->config->input_count > 0) {
            status = apply_declared(maker, &signature->inputs[port], &maker->config->inputs[port],
                                    "input");
        }
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

static struct io_config *declared_output(const struct maker *maker, const char *name)
{
    for (uint32_t i = 0; i < maker->config->output_count; i++) {
        if (strcmp(maker->config->outputs[i].name, name) == 0) {
            return &maker->config->outputs[i];
        }
    }
    return NULL;
}

/* A tensor that a step gives: it fits those that take it, and is an output or taken. */
static enum weir_status check_given(const struct maker *maker, uint32_t tensor,
                                    struct tensor_spec *spec)
{
    const struct graph_tensor *given = &maker->graph->tensors[tensor];
    const struct graph_step *step = &maker->graph->steps[given->step];
    const struct end end = { step, true, given->port };
    char what[STEP_TEXT];
    *spec = (struct tensor_spec){ .name = given->name,
                                  .dtype = end_spec(&end)->dtype,
                                  .any_rank = true };
    enum weir_status status = meet(maker, spec, "itself", &end);
    if (status == WEIR_OK) {
        status = meet_takers(maker, tensor, spec, step_name(step, what));
    }
    spec->optional = false;
    if (status == WEIR_OK && given->takes == 0 && maker->config->output_count > 0 &&
        declared_output(maker, given->name) == NULL) {
        return err_set(maker->err, WEIR_EINVAL,
                       "tensor '%.128s' of %s is taken by no step and is no output of the ensemble",
                       given->name, step_name(step, what));
    }
    return status;
}

static enum weir_status check_declared_outputs(const struct maker *maker)
{
    for (uint32_t i = 0; i < maker->config->output_count; i++) {
        const char *name = maker->config->outputs[i].name;
        uint32_t index;
        const struct graph_tensor *tensor = find_tensor(maker, name, &index);
        if (tensor == NULL || tensor->step == GRAPH_CLIENT) {
            return err_set(maker->err, WEIR_EINVAL, "output '%.128s' is given by no step", name);
        }
    }
    return WEIR_OK;
}

static enum weir_status make_outputs(struct maker *maker)
{
    struct graph *graph = maker->graph;
    struct model_config *config = maker->config;
    struct signature *signature = &graph->signature;
    signature->outputs =
        arena_try_zero(&graph->arena, graph->tensor_count, sizeof(*signature->outputs));
    graph->outputs = arena_try_zero(&graph->arena, graph->tensor_count, sizeof(*graph->outputs));
    if (signature->outputs == NULL || graph->outputs == NULL) {
        return no_memory(maker);
    }
    enum weir_status status = check_declared_outputs(maker);
    for (uint32_t t = 0; t < graph->tensor_count && status == WEIR_OK; t++) {
        struct tensor_spec spec;
        if (graph->tensors[t].step == GRAPH_CLIENT) {
            continue;
        }
        status = check_given(maker, t, &spec);
        struct io_config *declared = declared_output(maker, graph->tensors[t].name);
        const bool output =
            config->output_count > 0 ? declared != NULL : graph->tensors[t].takes == 0;
        if (status != WEIR_OK || !output) {
            continue;
        }
        /* In the order of the configuration where it has one. */
        const uint32_t at =
            declared != NULL ? (uint32_t)(declared - config->outputs) : signature->output_count;
        status = declared == NULL ? WEIR_OK : apply_declared(maker, &spec, declared, "output");
        signature->outputs[at] = spec;
        graph->outputs[at] = t;
        signature->output_count++;
    }
    if (status == WEIR_OK && config->output_count > 0 &&
        signature->output_count != config->output_count) {
        return err_set(maker->err, WEIR_EINVAL, "the configuration names an output twice");
    }
    return status;
}

/* Labels of a part's classes are the ensemble's, unless it has its own. */
static void inherit_labels(const struct maker *maker)
{
    const struct graph *graph = maker->graph;
    for (uint32_t i = 0; i < maker->config->output_count; i++) {
        struct io_config *io = &maker->config->outputs[i];
        const struct graph_tensor *tensor = &graph->tensors[graph->outputs[i]];
        const struct model *part = graph->steps[tensor->step].model;
        const struct io_config *from =
            model_output_config(part, part->signature->outputs[tensor->port].name);
        if (from != NULL && (io->label_file == NULL || io->label_file[0] == '\0')) {
            io->labels = from->labels;
            io->label_count = from->label_count;
        }
    }
}

/* Of an ensemble; its steps' models may have them. */
static void note_what_has_no_effect(struct model_config *config)
{
    const char *setting = config->response_cache   ? "response_cache"
                          : config->join           ? "join"
                          : config->resource_count ? "rate_limiter"
                                                   : NULL;
    if (setting != NULL && config->remark == NULL) {
        /* Without memory for it the remark stays away. */
        config->remark = arena_try_printf(config->arena,
                                          "%s has no effect in an ensemble, only in the "
                                          "configurations of its steps' models",
                                          setting);
    }
}

static enum weir_status make(struct maker *maker)
{
    const char *why_not;
    enum weir_status status = add_steps(maker);
    status = status == WEIR_OK ? sort_steps(maker) : status;
    status = status == WEIR_OK ? make_inputs(maker) : status;
    status = status == WEIR_OK ? make_outputs(maker) : status;
    if (status == WEIR_OK) {
        status = effective_complete(maker->config, &maker->graph->signature, &why_not, maker->err);
    }
    if (status == WEIR_OK) {
        inherit_labels(maker);
        note_what_has_no_effect(maker->config);
    }
    return status;
}

static void graph_destroy(struct graph *graph)
{
    arena_finish(&graph->arena);
    mem_free(graph);
}

enum weir_status graph_compose(struct model *model, struct weir_err *err)
{
    struct graph *graph = mem_try_zero(1, sizeof(*graph));
    if (graph == NULL) {
        return err_nomem(err, "an ensemble", sizeof(*graph));
    }
    assert(model->part_count == model->config->ensemble.step_count);
    arena_init(&graph->arena, NULL, 0, GRAPH_BYTES_MAX);
    struct maker maker = { .graph = graph, .model = model, .config = model->config, .err = err };
    map_init(&maker.by_name);
    const enum weir_status status = make(&maker);
    map_finish(&maker.by_name);
    if (status != WEIR_OK) {
        graph_destroy(graph);
        return status;
    }
    model->graph = graph;
    model->graph_free = graph_destroy;
    model->signature = &graph->signature;
    return WEIR_OK;
}
