/*
 * Running an ensemble.
 *
 * One piece of memory per run: its steps with their requests, and a value per
 * tensor of the graph.  `flying` counts steps that were submitted and have not
 * ended; while the run lives it is above 0, so whatever happens to it, some step's end comes
 * by and finds it: that is where it is freed, and the only place.
 */
#include "pipeline/run.h"

#include <assert.h>
#include <inttypes.h>

#include "engine/stats.h"
#include "pipeline/graph.h"
#include "util/mem.h"

struct value {
    struct tensor tensor; /* Holds its block unless the client gave it. */
    uint32_t takers;      /* Steps that still want it. */
    bool wanted;          /* Part of the answer. */
};

struct run_step {
    struct request request;
    struct run *run;
    const struct graph_step *plan;
    struct tensor *outputs;
    bool needed;
    bool flying;
    uint32_t missing; /* Inputs that other steps have not given yet. */
};

struct run {
    struct engine *engine;
    struct request *outer;
    const struct graph *graph;
    struct value *values;   /* Per tensor of the graph. */
    struct run_step *steps; /* Per step. */
    uint32_t flying;
    bool told_late;
    enum weir_status status;
    struct weir_err err;
    /* Sums over the steps. */
    uint64_t queue_ns;
    uint64_t gather_ns;
    uint64_t compute_ns;
};

static struct run_step *step_of(struct request *request)
{
    return list_entry(request, struct run_step, request);
}

/* ---- Memory ---------------------------------------------------------------------------------- */

/* Tensors and flags of all steps' requests. */
static size_t ports_of(const struct graph *graph, size_t *outputs)
{
    size_t inputs = 0;
    *outputs = 0;
    for (uint32_t i = 0; i < graph->step_count; i++) {
        inputs += graph->steps[i].model->signature->input_count;
        *outputs += graph->steps[i].model->signature->output_count;
    }
    return inputs;
}

static struct run *create(struct engine *engine, struct request *outer)
{
    const struct graph *graph = outer->model->graph;
    size_t outputs;
    const size_t inputs = ports_of(graph, &outputs);
    const size_t size = sizeof(struct run) + graph->step_count * sizeof(struct run_step) +
                        graph->tensor_count * sizeof(struct value) +
                        (inputs + outputs) * sizeof(struct tensor) + outputs * sizeof(bool);
    struct run *run = mem_try_zero(1, size);
    if (run == NULL) {
        return NULL;
    }
    run->engine = engine;
    run->outer = outer;
    run->graph = graph;
    run->steps = (struct run_step *)(run + 1);
    run->values = (struct value *)(run->steps + graph->step_count);
    struct tensor *tensors = (struct tensor *)(run->values + graph->tensor_count);
    bool *wanted = (bool *)(tensors + inputs + outputs);
    for (uint32_t i = 0; i < graph->step_count; i++) {
        struct run_step *step = &run->steps[i];
        const struct signature *signature = graph->steps[i].model->signature;
        step->run = run;
        step->plan = &graph->steps[i];
        step->request.inputs = tensors;
        step->outputs = tensors + signature->input_count;
        step->request.outputs = step->outputs;
        step->request.wanted = wanted;
        tensors += signature->input_count + signature->output_count;
        wanted += signature->output_count;
    }
    return run;
}

static void let_go(struct value *value)
{
    if (value->takers == 0 && !value->wanted) {
        tensor_release(&value->tensor);
    }
}

static void destroy(struct run *run)
{
    for (uint32_t i = 0; i < run->graph->tensor_count; i++) {
        tensor_release(&run->values[i].tensor);
    }
    mem_free(run);
}

/* ---- Planning -------------------------------------------------------------------------------- */

/* The client's tensors, borrowed; and which of the ensemble's it gets back. */
static void take_request(struct run *run)
{
    const struct graph *graph = run->graph;
    for (uint32_t i = 0; i < graph->signature.input_count; i++) {
        struct tensor *tensor = &run->values[graph->inputs[i]].tensor;
        *tensor = run->outer->inputs[i];
        tensor->block = NULL;
    }
    for (uint32_t i = 0; i < graph->signature.output_count; i++) {
        run->values[graph->outputs[i]].wanted = run->outer->wanted[i];
    }
}

/* A sequence's state depends on every step of it: it goes on also where nobody asks for what it
 * gives. */
static bool is_needed(const struct run *run, const struct graph_step *plan)
{
    for (uint32_t i = 0; i < plan->output_count; i++) {
        const struct value *value = &run->values[plan->outputs[i].tensor];
        if (value->wanted || value->takers > 0) {
            return true;
        }
    }
    return plan->model->sequences != NULL;
}

/* Last to first, so that it is known who takes what a step gives. */
static void plan_step(struct run *run, struct run_step *step)
{
    const struct graph_step *plan = step->plan;
    bool *wanted = (bool *)(uintptr_t)step->request.wanted; /* Ours until the submit. */
    bool any = false;
    step->needed = is_needed(run, plan);
    if (!step->needed) {
        return;
    }
    for (uint32_t i = 0; i < plan->output_count; i++) {
        const struct value *value = &run->values[plan->outputs[i].tensor];
        wanted[plan->outputs[i].port] = value->wanted || value->takers > 0;
        any = any || wanted[plan->outputs[i].port];
    }
    if (!any) {
        wanted[plan->outputs[0].port] = true;
    }
    for (uint32_t i = 0; i < plan->input_count; i++) {
        const uint32_t tensor = plan->inputs[i].tensor;
        run->values[tensor].takers++;
        step->missing += run->graph->tensors[tensor].step == GRAPH_CLIENT ? 0 : 1;
    }
}

static void plan(struct run *run)
{
    take_request(run);
    for (uint32_t i = run->graph->step_count; i > 0; i--) {
        plan_step(run, &run->steps[i - 1]);
    }
}

/* ---- Failing --------------------------------------------------------------------------------- */

static void cancel_flying(struct run *run)
{
    for (uint32_t i = 0; i < run->graph->step_count; i++) {
        if (run->steps[i].flying) {
            pipeline_cancel(run->engine, &run->steps[i].request);
        }
    }
}

/* The first failure is the run's. */
static void fail(struct run *run, const struct run_step *step, enum weir_status status,
                 const struct weir_err *err)
{
    if (run->status != WEIR_OK) {
        return;
    }
    run->status = status;
    run->err = *err;
    run->err.status = status;
    (void)err_prefix(&run->err, "step %" PRIu32 " ('%.128s')", step->plan->number,
                     step->plan->model->name);
    cancel_flying(run);
}

/* ---- The end --------------------------------------------------------------------------------- */

static uint64_t part_of(uint64_t wish_ns, uint64_t *left_ns)
{
    const uint64_t ns = wish_ns < *left_ns ? wish_ns : *left_ns;
    *left_ns -= ns;
    return ns;
}

/* Where the time went: the steps' sums, as far as they fit into the request's own time, since steps
 * that ran side by side have more. */
static void set_times(const struct run *run)
{
    struct request_times *times = &run->outer->times;
    times->ended_ns = clock_now_ns(run->engine->clock);
    uint64_t left_ns = times->ended_ns - times->submitted_ns;
    const uint64_t compute_ns = part_of(run->compute_ns, &left_ns);
    const uint64_t queue_ns = part_of(run->queue_ns, &left_ns);
    const uint64_t gather_ns = part_of(run->gather_ns, &left_ns);
    times->taken_ns = times->submitted_ns + queue_ns;
    times->gathered_ns = times->taken_ns + gather_ns;
    times->computed_ns = times->gathered_ns + compute_ns;
}

static void count(struct model *model, const struct request *outer)
{
    if (outer->status == WEIR_OK) {
        atomic_fetch_add_explicit(&model->stats.execution_count, 1, memory_order_relaxed);
        atomic_store_explicit(&model->stats.last_inference_ms, clock_wall_ms(),
                              memory_order_relaxed);
    }
    stats_count_request(model, outer);
}

static void finish(struct run *run)
{
    struct request *outer = run->outer;
    struct model *model = outer->model;
    const struct graph *graph = run->graph;
    outer->status = run->status;
    if (run->status != WEIR_OK) {
        outer->err = run->err;
    }
    for (uint32_t i = 0; i < graph->signature.output_count && run->status == WEIR_OK; i++) {
        struct value *value = &run->values[graph->outputs[i]];
        if (value->wanted) {
            outer->outputs[i] = value->tensor;
            value->tensor = (struct tensor){ 0 };
        }
    }
    set_times(run);
    outer->batch_rows = outer->rows;
    outer->state = REQUEST_IDLE;
    outer->run = NULL;
    destroy(run);
    count(model, outer);
    atomic_fetch_sub_explicit(&model->runs, 1, memory_order_relaxed);
    outer->home->pending--;
    outer->ended(outer);
}

/* ---- Steps ----------------------------------------------------------------------------------- */

static void step_ended(struct request *request);
static void step_late(struct request *request);

static void launch(struct run *run, struct run_step *step)
{
    const struct request *outer = run->outer;
    const struct graph_step *plan_of = step->plan;
    struct request *request = &step->request;
    for (uint32_t i = 0; i < plan_of->input_count; i++) {
        struct tensor *input = &request->inputs[plan_of->inputs[i].port];
        *input = run->values[plan_of->inputs[i].tensor].tensor;
        input->block = NULL; /* The value holds it until the step has ended. */
    }
    request_init(request);
    request->home = outer->home;
    request->model = plan_of->model;
    request->priority = outer->priority;
    request->priority_best = outer->priority_best;
    request->client = outer->client;
    request->client_weight = outer->client_weight;
    request->deadline_ns = outer->deadline_ns;
    request->queue_timeout_ns = outer->queue_timeout_ns;
    request->sequence_id = outer->sequence_id;
    request->sequence_start = outer->sequence_start;
    request->sequence_end = outer->sequence_end;
    request->admitted = true;
    request->ended = step_ended;
    request->late = step_late;
    struct weir_err err = { 0 };
    const enum weir_status status = pipeline_submit(run->engine, request, &err);
    if (status != WEIR_OK) {
        fail(run, step, status, &err);
        return;
    }
    step->flying = true;
    run->flying++;
}

/* What the step gave goes to those who want it. */
static void hand_on(struct run *run, struct run_step *step)
{
    const struct graph_step *given = step->plan;
    for (uint32_t i = 0; i < given->output_count; i++) {
        struct value *value = &run->values[given->outputs[i].tensor];
        value->tensor = step->outputs[given->outputs[i].port];
        step->outputs[given->outputs[i].port] = (struct tensor){ 0 };
        let_go(value);
    }
    const uint32_t index = (uint32_t)(step - run->steps);
    for (uint32_t s = index + 1; s < run->graph->step_count && run->status == WEIR_OK; s++) {
        struct run_step *taker = &run->steps[s];
        const uint32_t before = taker->missing;
        for (uint32_t i = 0; taker->needed && i < taker->plan->input_count; i++) {
            const uint32_t tensor = taker->plan->inputs[i].tensor;
            taker->missing -= run->graph->tensors[tensor].step == index ? 1 : 0;
        }
        if (before > 0 && taker->missing == 0) {
            launch(run, taker);
        }
    }
}

static void give_back_inputs(struct run *run, const struct run_step *step)
{
    for (uint32_t i = 0; i < step->plan->input_count; i++) {
        struct value *value = &run->values[step->plan->inputs[i].tensor];
        value->takers--;
        let_go(value);
    }
}

static void add_times(struct run *run, const struct request_times *times)
{
    if (times->taken_ns == 0 || times->computed_ns == 0) {
        return; /* It never ran. */
    }
    run->queue_ns += times->taken_ns - times->submitted_ns;
    run->gather_ns += times->gathered_ns - times->taken_ns;
    run->compute_ns += times->computed_ns - times->gathered_ns;
}

static void step_ended(struct request *request)
{
    struct run_step *step = step_of(request);
    struct run *run = step->run;
    step->flying = false;
    if (request->status != WEIR_OK) {
        fail(run, step, request->status, &request->err);
    } else {
        add_times(run, &request->times);
    }
    give_back_inputs(run, step);
    if (run->status == WEIR_OK) {
        hand_on(run, step);
    }
    for (uint32_t i = 0; i < step->plan->model->signature->output_count; i++) {
        tensor_release(&step->outputs[i]);
    }
    run->flying--;
    if (run->flying == 0) {
        finish(run);
    }
}

/* The deadline is the client's, who is answered now; the run ends when its steps have. */
static void step_late(struct request *request)
{
    struct run *run = step_of(request)->run;
    if (!run->told_late && run->outer->late != NULL) {
        run->told_late = true;
        run->outer->late_status = request->late_status;
        run->outer->late(run->outer);
    }
}

/* ---- Submitting ------------------------------------------------------------------------------ */

static enum weir_status admit(const struct engine *engine, struct request *outer,
                              struct weir_err *err)
{
    if (atomic_load_explicit(&engine->draining, memory_order_relaxed) && !outer->admitted) {
        return err_set(err, WEIR_EDRAINING, "the server is shutting down");
    }
    const enum weir_status status = engine_check(outer, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (outer->deadline_ns <= outer->times.submitted_ns) {
        return err_set(err, WEIR_ETIMEOUT, "the deadline had passed when the request arrived");
    }
    const uint64_t limit = engine->limits->ensemble_runs_max;
    if (atomic_load_explicit(&outer->model->runs, memory_order_relaxed) >= limit) {
        return err_set(err, WEIR_EFULL,
                       "ensemble '%s' has %" PRIu64 " requests under way, its limit "
                       "(ensemble_runs_max)",
                       outer->model->name, limit);
    }
    return WEIR_OK;
}

static enum weir_status start(struct engine *engine, struct request *outer, struct weir_err *err)
{
    struct run *run = create(engine, outer);
    if (run == NULL) {
        return err_nomem(err, "an ensemble's request", sizeof(*run));
    }
    plan(run);
    for (uint32_t i = 0; i < run->graph->step_count && run->status == WEIR_OK; i++) {
        struct run_step *step = &run->steps[i];
        if (step->needed && step->missing == 0) {
            launch(run, step);
        }
    }
    if (run->flying == 0) {
        assert(run->status != WEIR_OK);
        const enum weir_status status = err_set(err, run->status, "%s", run->err.text);
        destroy(run);
        return status;
    }
    outer->run = run;
    outer->state = REQUEST_RUNNING;
    outer->home->pending++;
    atomic_fetch_add_explicit(&outer->model->runs, 1, memory_order_relaxed);
    return WEIR_OK;
}

enum weir_status pipeline_submit(struct engine *engine, struct request *request,
                                 struct weir_err *err)
{
    struct model *model = request->model;
    if (model->graph == NULL) {
        return engine_submit(engine, request, err);
    }
    assert(request->state == REQUEST_IDLE && request->ended != NULL);
    request->times.submitted_ns = clock_now_ns(engine->clock);
    engine_set_deadline(request, request->times.submitted_ns);
    enum weir_status status = admit(engine, request, err);
    if (status == WEIR_OK) {
        status = start(engine, request, err);
    }
    if (status != WEIR_OK && status != WEIR_EINVAL && status != WEIR_EDRAINING) {
        atomic_fetch_add_explicit(&model->stats.refused, 1, memory_order_relaxed);
    }
    return status;
}

void pipeline_cancel(struct engine *engine, struct request *request)
{
    struct run *run = request->run;
    if (request->model->graph == NULL) {
        engine_cancel(engine, request);
    } else if (run != NULL && run->status == WEIR_OK) {
        run->status = err_set(&run->err, WEIR_ECANCELED, "%s", weir_status_text(WEIR_ECANCELED));
        cancel_flying(run);
    }
}
