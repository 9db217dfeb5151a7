/*
 * ensemble: graphs of models are checked at load, come and go with their parts, and run as one
 * request.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "asking.h"
#include "engine/pool.h"
#include "model_bed.h"
#include "pipeline/graph.h"
#include "pipeline/run.h"
#include "util/mem.h"
#include "weir/weir.h"

static struct model_bed bed;

/* in -> a -> b -> out */
static const char chain[] = "platform: ensemble\n"
                            "ensemble_scheduling:\n"
                            "  step:\n"
                            "  - { model_name: a, model_version: -1, input_map: { x: in }, "
                            "output_map: { y: mid } }\n"
                            "  - { model_name: b, model_version: -1, input_map: { x: mid }, "
                            "output_map: { y: out } }\n";

static const char fast[] = "";

static void put_chain(void)
{
    model_bed_sim(&bed, "a", 1, fast);
    model_bed_sim(&bed, "b", 1, fast);
    model_bed_ensemble(&bed, "e", chain);
}

/* The trial at load is its first run; the second hangs. */
static void let_b_hang(void)
{
    model_bed_put(&bed, 0, "b/model.yaml",
                  "backend: sim\nbatching: off\nparameters:\n  hang_at: 2\n  tau0: 1us\n");
}

static void start_explicit(void)
{
    bed.options.control = CONTROL_EXPLICIT;
    model_bed_start(&bed);
}

static enum weir_status load(const char *name, struct weir_err *err)
{
    return model_bed_order(&bed, REGISTRY_LOAD, name, NULL, err);
}

static enum weir_status unload(const char *name)
{
    return model_bed_order(&bed, REGISTRY_UNLOAD, name, NULL, NULL);
}

struct unload_order {
    struct registry_order order;
    bool done;
};

static void order_done(struct registry_order *order)
{
    ((struct unload_order *)order)->done = true;
}

static enum weir_status unload_with_parts(const char *name)
{
    struct unload_order order = { .order = { .home = &bed.home,
                                             .kind = REGISTRY_UNLOAD,
                                             .name = name,
                                             .dependents = true,
                                             .done = order_done } };
    registry_order(bed.registry, &order.order);
    model_bed_turn_until(&bed, &order.done);
    return order.order.status;
}

/* ---- Requests -------------------------------------------------------------------------------- */

struct ask {
    struct request request;
    struct tensor inputs[4];
    struct tensor outputs[4];
    bool wanted[4];
    float values[4][16];
    bool ended;
    uint32_t ends;
    uint32_t lates;
};

static void ask_ended(struct request *request)
{
    struct ask *ask = request->user;
    ask->ended = true;
    ask->ends++;
}

static void ask_late(struct request *request)
{
    ((struct ask *)request->user)->lates++;
}

/* One row of 16 values, `value` and up, for each input. */
static void ask_init(struct ask *ask, struct model *model, float value)
{
    memset(ask, 0, sizeof(*ask));
    asking_init(&ask->request, &bed.home, model, ask->inputs, ask->outputs);
    for (uint32_t i = 0; i < model->signature->input_count; i++) {
        for (uint32_t k = 0; k < 16; k++) {
            ask->values[i][k] = value + (float)(100 * i + k);
        }
        ask->inputs[i] = asking_rows(ask->values[i], 1, 16);
    }
    for (uint32_t i = 0; i < model->signature->output_count; i++) {
        ask->wanted[i] = true;
    }
    ask->request.wanted = ask->wanted;
    ask->request.ended = ask_ended;
    ask->request.late = ask_late;
    ask->request.user = ask;
}

static void ask_finish(struct ask *ask)
{
    for (uint32_t i = 0; i < 4; i++) {
        tensor_release(&ask->outputs[i]);
    }
}

static enum weir_status run(struct ask *ask, struct weir_err *err)
{
    const enum weir_status status = pipeline_submit(bed.engine, &ask->request, err);
    if (status != WEIR_OK) {
        return status;
    }
    model_bed_turn_until(&bed, &ask->ended);
    assert_int_equal(ask->ends, 1);
    return ask->request.status;
}

static void expect_answer(const struct ask *ask, uint32_t output, uint32_t input)
{
    assert_true(ask->outputs[output].present);
    assert_int_equal(ask->outputs[output].size, sizeof(ask->values[input]));
    assert_memory_equal(ask->outputs[output].data, ask->values[input], sizeof(ask->values[input]));
}

/* The ensemble answers with its first input. */
static void expect_echo(const char *name)
{
    struct model *model = model_bed_lease(&bed, name, 0);
    struct ask ask;
    ask_init(&ask, model, 3);
    assert_int_equal(run(&ask, NULL), WEIR_OK);
    expect_answer(&ask, 0, 0);
    ask_finish(&ask);
    model_bed_release(&bed, model);
}

/* ---- Running --------------------------------------------------------------------------------- */

static void test_a_chain_answers(void **state)
{
    (void)state;
    put_chain();
    model_bed_start_all(&bed);
    model_bed_expect(&bed, "e/1 READY", "");
    struct model *model = model_bed_lease(&bed, "e", 0);
    assert_string_equal(model->config->platform, "ensemble");
    assert_int_equal(model->signature->input_count, 1);
    assert_string_equal(model->signature->inputs[0].name, "in");
    assert_string_equal(model->signature->outputs[0].name, "out");
    struct ask ask;
    ask_init(&ask, model, 7);
    assert_int_equal(run(&ask, NULL), WEIR_OK);
    expect_answer(&ask, 0, 0);
    ask_finish(&ask);
    const struct request_times *t = &ask.request.times;
    assert_true(t->submitted_ns <= t->taken_ns && t->taken_ns <= t->gathered_ns &&
                t->gathered_ns <= t->computed_ns && t->computed_ns <= t->ended_ns);
    assert_int_equal(model->stats.success.count, 1);
    assert_int_equal(model->stats.queue.count, 1);
    assert_int_equal(model->stats.compute.count, 1);
    assert_int_equal(model->stats.execution_count, 1);
    assert_int_equal(model->parts[0]->stats.success.count, 1);
    assert_int_equal(model->runs, 0);
    assert_int_equal(bed.home.pending, 0);
    model_bed_release(&bed, model);
}

/* in -> a -> l, r -> join(l, r) -> out; side is an output that nothing else takes. */
static const char diamond[] =
    "ensemble_scheduling:\n"
    "  step:\n"
    "  - { model_name: join, input_map: { p: left, q: right }, output_map: { s: out } }\n"
    "  - { model_name: b, input_map: { x: mid }, output_map: { y: left } }\n"
    "  - { model_name: c, input_map: { x: mid }, output_map: { y: right } }\n"
    "  - { model_name: a, input_map: { x: in }, output_map: { y: mid } }\n"
    "  - { model_name: d, input_map: { x: in }, output_map: { y: side } }\n";

static void put_diamond(const char *of_c)
{
    model_bed_sim(&bed, "a", 1, fast);
    model_bed_sim(&bed, "b", 1, fast);
    model_bed_sim(&bed, "c", 1, of_c);
    model_bed_sim(&bed, "d", 1, fast);
    model_bed_sim(&bed, "join", 1,
                  "  inputs: \"p:FP32[-1,16] q:FP32[-1,16]\"\n"
                  "  outputs: \"s:FP32[-1,16]\"\n");
    model_bed_ensemble(&bed, "e", diamond);
}

static void test_a_diamond_runs_what_is_asked_for(void **state)
{
    (void)state;
    put_diamond(fast);
    model_bed_start_all(&bed);
    struct model *model = model_bed_lease(&bed, "e", 0);
    assert_int_equal(model->signature->output_count, 2);
    struct ask ask;
    ask_init(&ask, model, 1);
    const bool out_first = strcmp(model->signature->outputs[0].name, "out") == 0;
    const uint32_t out = out_first ? 0 : 1;
    ask.wanted[1 - out] = false; /* Not "side": its step is left out. */
    assert_int_equal(run(&ask, NULL), WEIR_OK);
    expect_answer(&ask, out, 0);
    assert_false(ask.outputs[1 - out].present);
    ask_finish(&ask);
    assert_int_equal(model->parts[4]->stats.success.count, 0);
    assert_int_equal(model->parts[0]->stats.success.count, 1);
    ask_init(&ask, model, 2);
    ask.wanted[out] = false;
    assert_int_equal(run(&ask, NULL), WEIR_OK);
    expect_answer(&ask, 1 - out, 0);
    ask_finish(&ask);
    assert_int_equal(model->parts[4]->stats.success.count, 1);
    assert_int_equal(model->parts[0]->stats.success.count, 1);
    model_bed_release(&bed, model);
}

static void test_a_step_that_fails_is_named(void **state)
{
    (void)state;
    put_diamond("  poison: 66\n");
    model_bed_start_all(&bed);
    struct model *model = model_bed_lease(&bed, "e", 0);
    struct ask ask;
    ask_init(&ask, model, 66);
    assert_int_equal(run(&ask, NULL), WEIR_EINVAL);
    assert_non_null(strstr(ask.request.err.text, "step 3 ('c')"));
    for (uint32_t i = 0; i < 4; i++) {
        assert_false(ask.outputs[i].present);
    }
    assert_int_equal(model->stats.fail.count, 1);
    assert_int_equal(model->stats.success.count, 0);
    ask_init(&ask, model, 1);
    assert_int_equal(run(&ask, NULL), WEIR_OK);
    ask_finish(&ask);
    model_bed_release(&bed, model);
}

static void test_requests_are_checked_before_they_are_accepted(void **state)
{
    (void)state;
    put_chain();
    model_bed_start_all(&bed);
    struct model *model = model_bed_lease(&bed, "e", 0);
    struct weir_err err = { 0 };
    struct ask ask;
    ask_init(&ask, model, 0);
    ask.inputs[0].shape.dims[1] = 15;
    assert_int_equal(run(&ask, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "input 'in'"));
    ask_init(&ask, model, 0);
    ask.wanted[0] = false;
    assert_int_equal(run(&ask, &err), WEIR_EINVAL);
    ask_init(&ask, model, 0);
    ask.request.deadline_ns = 1;
    assert_int_equal(run(&ask, &err), WEIR_ETIMEOUT);
    bed.limits.ensemble_runs_max = 0;
    ask_init(&ask, model, 0);
    assert_int_equal(run(&ask, &err), WEIR_EFULL);
    bed.limits.ensemble_runs_max = 10;
    assert_int_equal(ask.ends, 0);
    assert_int_equal(model->parts[0]->stats.success.count, 0);
    model_bed_release(&bed, model);
}

static void test_a_deadline_holds_for_all_steps(void **state)
{
    (void)state;
    model_bed_sim(&bed, "a", 1, fast);
    model_bed_sim(&bed, "b", 1, fast);
    model_bed_ensemble(&bed, "e", chain);
    bed.options.control = CONTROL_ALL;
    let_b_hang();
    model_bed_start(&bed);
    model_bed_settle(&bed);
    struct model *model = model_bed_lease(&bed, "e", 0);
    struct ask ask;
    ask_init(&ask, model, 0);
    ask.request.deadline_ns = clock_add(clock_now_ns(&bed.clock), 2 * NS_PER_S);
    assert_int_equal(run(&ask, NULL), WEIR_ETIMEOUT);
    assert_non_null(strstr(ask.request.err.text, "step 2 ('b')"));
    assert_int_equal(ask.lates, 1);
    model_bed_release(&bed, model);
}

static void test_cancel(void **state)
{
    (void)state;
    put_chain();
    let_b_hang();
    model_bed_start_all(&bed);
    struct model *model = model_bed_lease(&bed, "e", 0);
    struct ask ask;
    ask_init(&ask, model, 0);
    pipeline_cancel(bed.engine, &ask.request); /* Before there is anything. */
    assert_int_equal(pipeline_submit(bed.engine, &ask.request, NULL), WEIR_OK);
    pipeline_cancel(bed.engine, &ask.request);
    pipeline_cancel(bed.engine, &ask.request);
    model_bed_turn_until(&bed, &ask.ended);
    assert_int_equal(ask.ends, 1);
    assert_int_equal(ask.request.status, WEIR_ECANCELED);
    assert_int_equal(model->stats.canceled, 1);
    pipeline_cancel(bed.engine, &ask.request); /* It has ended. */
    model_bed_release(&bed, model);
}

static void test_cancel_reaches_the_step_that_runs(void **state)
{
    (void)state;
    put_chain();
    let_b_hang();
    model_bed_start_all(&bed);
    struct model *model = model_bed_lease(&bed, "e", 0);
    struct ask ask;
    ask_init(&ask, model, 0);
    assert_int_equal(pipeline_submit(bed.engine, &ask.request, NULL), WEIR_OK);
    while (model->parts[0]->stats.success.count == 0) {
        home_turn(&bed.home); /* The first step; the second hangs. */
    }
    home_turn(&bed.home);
    pipeline_cancel(bed.engine, &ask.request);
    model_bed_turn_until(&bed, &ask.ended);
    assert_int_equal(ask.request.status, WEIR_ECANCELED);
    model_bed_release(&bed, model);
}

/* While the last step runs, only what it takes is still there. */
static void test_tensors_go_when_nobody_takes_them_any_more(void **state)
{
    (void)state;
    put_chain();
    model_bed_put(&bed, 0, "c/1/", "");
    model_bed_put(&bed, 0, "c/model.yaml",
                  "backend: sim\nbatching: off\nparameters:\n  hang_at: 2\n  tau0: 1us\n");
    model_bed_ensemble(&bed, "f",
                       "ensemble_scheduling:\n  step:\n"
                       "  - { model_name: a, input_map: { x: in }, output_map: { y: one } }\n"
                       "  - { model_name: b, input_map: { x: one }, output_map: { y: two } }\n"
                       "  - { model_name: a, input_map: { x: two }, output_map: { y: three } }\n"
                       "  - { model_name: c, input_map: { x: three }, output_map: { y: out } }\n");
    model_bed_start_all(&bed);
    struct model *model = model_bed_lease(&bed, "f", 0);
    struct ask ask;
    ask_init(&ask, model, 0);
    struct block *one = block_pool_take(bed.engine->blocks, sizeof(ask.values[0]));
    const uint64_t each = block_pool_used_bytes(bed.engine->blocks);
    block_release(one);
    assert_int_equal(pipeline_submit(bed.engine, &ask.request, NULL), WEIR_OK);
    while (model->parts[0]->stats.success.count < 2) {
        home_turn(&bed.home);
    }
    home_turn(&bed.home);
    /* What the last step takes, and perhaps what it is about to give: not the two before. */
    assert_true(block_pool_used_bytes(bed.engine->blocks) <= 2 * each);
    pipeline_cancel(bed.engine, &ask.request);
    model_bed_turn_until(&bed, &ask.ended);
    assert_int_equal(block_pool_used_bytes(bed.engine->blocks), 0);
    model_bed_release(&bed, model);
}

static void test_draining_finishes_what_was_accepted(void **state)
{
    (void)state;
    put_chain();
    model_bed_start_all(&bed);
    struct model *model = model_bed_lease(&bed, "e", 0);
    struct ask first;
    struct ask second;
    struct weir_err err = { 0 };
    ask_init(&first, model, 0);
    ask_init(&second, model, 0);
    assert_int_equal(pipeline_submit(bed.engine, &first.request, NULL), WEIR_OK);
    engine_drain(bed.engine);
    assert_int_equal(pipeline_submit(bed.engine, &second.request, &err), WEIR_EDRAINING);
    model_bed_turn_until(&bed, &first.ended);
    assert_int_equal(first.request.status, WEIR_OK);
    ask_finish(&first);
    model_bed_release(&bed, model);
}

static void test_nested(void **state)
{
    (void)state;
    put_chain();
    model_bed_ensemble(&bed, "outer",
                       "ensemble_scheduling:\n"
                       "  step:\n"
                       "  - { model_name: e, input_map: { in: x }, output_map: { out: y } }\n"
                       "  - { model_name: a, input_map: { x: y }, output_map: { y: z } }\n");
    model_bed_start_all(&bed);
    expect_echo("outer");
    struct model *model = model_bed_lease(&bed, "outer", 0);
    assert_int_equal(model->graph->depth, 2);
    model_bed_release(&bed, model);
}

/* Steps short enough to be run by the thread that waits follow each other there. */
static void test_the_library_runs_ensembles(void **state)
{
    (void)state;
    model_bed_sim(&bed, "a", 1, "  short_lived: true\n");
    model_bed_sim(&bed, "b", 1, "  short_lived: true\n");
    model_bed_ensemble(&bed, "e",
                       "ensemble_scheduling:\n  step:\n"
                       "  - { model_name: a, input_map: { x: in }, output_map: { y: one } }\n"
                       "  - { model_name: b, input_map: { x: one }, output_map: { y: two } }\n"
                       "  - { model_name: a, input_map: { x: two }, output_map: { y: three } }\n"
                       "  - { model_name: b, input_map: { x: three }, output_map: { y: out } }\n");
    const struct weir_options options = { .repository = bed.folders[0], .model = "e" };
    struct weir *weir = NULL;
    struct weir_err err = { 0 };
    assert_int_equal(weir_open(&options, &weir, &err), WEIR_OK);
    struct weir_model *model = NULL;
    assert_int_equal(weir_model_describe(weir, "e", 0, &model, &err), WEIR_OK);
    assert_string_equal(model->platform, "ensemble");
    weir_model_free(model);
    for (int i = 0; i < 100; i++) {
        float values[16];
        for (int k = 0; k < 16; k++) {
            values[k] = (float)(i + k);
        }
        const struct weir_tensor input =
            weir_tensor_of("in", WEIR_FP32, values, 2, (const int64_t[]){ 1, 16 });
        struct weir_result *result = NULL;
        assert_int_equal(weir_infer(weir, "e", &input, 1, NULL, &result, &err), WEIR_OK);
        assert_memory_equal(weir_result_output(result, "out")->data, values, sizeof(values));
        weir_result_free(result);
    }
    weir_close(weir);
}

/* ---- Loading --------------------------------------------------------------------------------- */

#define STEP(model, in, out) \
    "  - { model_name: " model ", input_map: { " in " }, output_map: { " out " } }\n"
#define STEPS "ensemble_scheduling:\n  step:\n"
static void test_too_deep(void **state)
{
    (void)state;
    model_bed_sim(&bed, "e0", 1, fast);
    for (int i = 1; i <= GRAPH_DEPTH_MAX + 1; i++) {
        char name[8];
        char text[160];
        (void)snprintf(name, sizeof(name), "e%d", i);
        (void)snprintf(text, sizeof(text),
                       STEPS "  - { model_name: e%d, input_map: { x: x }, output_map: { y: y } }\n",
                       i - 1);
        model_bed_ensemble(&bed, name, text);
    }
    model_bed_start_all(&bed);
    model_bed_expect(&bed, "e8/1 READY", "");
    model_bed_expect(&bed, "e9", "nested more than 8 deep");
    expect_echo("e8");
}

static void test_an_order_loads_the_parts(void **state)
{
    (void)state;
    put_chain();
    start_explicit();
    struct weir_err err = { 0 };
    assert_int_equal(load("e", &err), WEIR_OK);
    model_bed_expect(&bed, "a/1 READY", "");
    model_bed_expect(&bed, "b/1 READY", "");
    expect_echo("e");
    struct model *model = model_bed_lease(&bed, "e", 0);
    assert_int_equal(load("e", &err), WEIR_OK); /* Nothing has changed. */
    struct model *again = model_bed_lease(&bed, "e", 0);
    assert_ptr_equal(model, again);
    model_bed_release(&bed, model);
    model_bed_release(&bed, again);
}

static void test_an_order_fails_with_its_part(void **state)
{
    (void)state;
    model_bed_sim(&bed, "a", 1, fast);
    model_bed_ensemble(&bed, "e", chain);
    start_explicit();
    struct weir_err err = { 0 };
    assert_int_equal(load("e", &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "step 2 needs model 'b'"));
    model_bed_sim(&bed, "b", 1, fast);
    assert_int_equal(load("e", &err), WEIR_OK);
    expect_echo("e");
}

/* What came only for it goes again; what somebody had asked for stays. */
static void test_without_room_for_all_its_parts_none_stays(void **state)
{
    (void)state;
    bed.options.room.models_max = 2;
    put_chain();
    model_bed_sim(&bed, "c", 1, fast);
    model_bed_ensemble(&bed, "outer",
                       "platform: ensemble\n"
                       "ensemble_scheduling:\n"
                       "  step:\n"
                       "  - { model_name: inner, model_version: -1, input_map: { x: in }, "
                       "output_map: { y: mid } }\n"
                       "  - { model_name: c, model_version: -1, input_map: { x: mid }, "
                       "output_map: { y: out } }\n");
    model_bed_ensemble(&bed, "inner",
                       "platform: ensemble\n"
                       "ensemble_scheduling:\n"
                       "  step:\n"
                       "  - { model_name: a, model_version: -1, input_map: { x: x }, "
                       "output_map: { y: y } }\n");
    start_explicit();
    struct weir_err err = { 0 };
    assert_int_equal(load("e", &err), WEIR_ENOMEM);
    assert_non_null(strstr(err.text, "no room for model 'e'"));
    assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_ENOENT);
    assert_int_equal(model_bed_infer(&bed, "b", 0), WEIR_ENOENT);
    assert_int_equal(load("a", NULL), WEIR_OK);
    assert_int_equal(load("e", NULL), WEIR_ENOMEM);
    assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_OK);
    assert_int_equal(model_bed_infer(&bed, "b", 0), WEIR_ENOENT);
    assert_int_equal(unload("a"), WEIR_OK);

    bed.options.room.models_max = 3;
    registry_set(bed.registry, &bed.options.room, bed.options.poll_ns);
    assert_int_equal(load("outer", &err), WEIR_ENOMEM);
    assert_non_null(strstr(err.text, "no room for model 'outer'"));
    assert_int_equal(model_bed_infer(&bed, "inner", 0), WEIR_ENOENT);
    assert_int_equal(model_bed_infer(&bed, "a", 0), WEIR_ENOENT);
    assert_int_equal(model_bed_infer(&bed, "c", 0), WEIR_ENOENT);
}

static void test_an_ensemble_goes_with_its_part_and_comes_back(void **state)
{
    (void)state;
    put_chain();
    model_bed_ensemble(&bed, "outer", STEPS STEP("e", "in: x", "out: y"));
    start_explicit();
    struct weir_err err = { 0 };
    assert_int_equal(load("outer", &err), WEIR_OK);
    assert_int_equal(unload("b"), WEIR_OK);
    struct model_event event = model_bed_await(&bed, "e", 1, MODEL_UNAVAILABLE);
    assert_non_null(strstr(event.reason, "step 2 needs model 'b', which is no longer loaded"));
    (void)model_bed_await(&bed, "outer", 1, MODEL_UNAVAILABLE);
    struct model *model = NULL;
    assert_int_equal(catalogue_lease(registry_catalogue(bed.registry, &bed.home), bytes_of("e"), 0,
                                     &model, &err),
                     WEIR_EUNAVAILABLE);
    model_bed_expect(&bed, "a/1 READY", "");
    assert_int_equal(load("b", &err), WEIR_OK);
    (void)model_bed_await(&bed, "outer", 1, MODEL_READY);
    expect_echo("e");
    expect_echo("outer");
}

static void test_what_was_unloaded_does_not_come_back_by_itself(void **state)
{
    (void)state;
    put_chain();
    model_bed_sim(&bed, "other", 1, fast);
    start_explicit();
    assert_int_equal(load("e", NULL), WEIR_OK);
    assert_int_equal(unload("a"), WEIR_OK);
    assert_int_equal(load("other", NULL), WEIR_OK);
    model_bed_settle(&bed);
    model_bed_expect(&bed, "a/1 UN", "");
    model_bed_expect(&bed, "e/1 UN", "");
    assert_int_equal(unload("e"), WEIR_OK);
    assert_int_equal(load("a", NULL), WEIR_OK);
    model_bed_settle(&bed);
    model_bed_expect(&bed, "e/1 UN", "");
}

static void test_a_reloaded_part_is_taken_up(void **state)
{
    (void)state;
    put_chain();
    start_explicit();
    assert_int_equal(load("e", NULL), WEIR_OK);
    struct model *old = model_bed_lease(&bed, "e", 0);
    model_bed_sim(&bed, "b", 1, "  seed: 2\n");
    assert_int_equal(load("b", NULL), WEIR_OK);
    (void)model_bed_await(&bed, "e", 1, MODEL_READY);
    (void)model_bed_await(&bed, "e", 1, MODEL_READY);
    model_bed_settle(&bed);
    struct model *new = model_bed_lease(&bed, "e", 0);
    struct model *b = model_bed_lease(&bed, "b", 0);
    assert_ptr_not_equal(old, new);
    assert_ptr_equal(new->parts[1], b);
    assert_ptr_not_equal(old->parts[1], b);
    assert_ptr_equal(old->parts[0], new->parts[0]);
    struct ask ask; /* What was leased goes on with what it had. */
    ask_init(&ask, old, 5);
    assert_int_equal(run(&ask, NULL), WEIR_OK);
    expect_answer(&ask, 0, 0);
    ask_finish(&ask);
    model_bed_release(&bed, b);
    model_bed_release(&bed, new);
    model_bed_release(&bed, old);
}

static void test_a_part_that_no_longer_fits_leaves_the_ensemble_as_it_was(void **state)
{
    (void)state;
    put_chain();
    start_explicit();
    assert_int_equal(load("e", NULL), WEIR_OK);
    model_bed_sim(&bed, "b", 1, "  inputs: \"x:FP32[-1,32]\"\n  outputs: \"y:FP32[-1,32]\"\n");
    assert_int_equal(load("b", NULL), WEIR_OK);
    (void)model_bed_await(&bed, "e", 1, MODEL_UNAVAILABLE);
    model_bed_settle(&bed);
    model_bed_expect(&bed, "e/1 READY", "the last reload failed");
    expect_echo("e");
    model_bed_sim(&bed, "b", 1, fast);
    assert_int_equal(load("b", NULL), WEIR_OK);
    (void)model_bed_await(&bed, "e", 1, MODEL_READY);
    expect_echo("e");
}

static void test_unloading_with_the_parts(void **state)
{
    (void)state;
    put_chain();
    model_bed_ensemble(&bed, "f", STEPS STEP("a", "x: in", "y: out"));
    start_explicit();
    assert_int_equal(load("e", NULL), WEIR_OK);
    assert_int_equal(load("f", NULL), WEIR_OK);
    assert_int_equal(unload_with_parts("e"), WEIR_OK);
    model_bed_settle(&bed);
    model_bed_expect(&bed, "e/1 UN", "");
    model_bed_expect(&bed, "b/1 UN", "");
    model_bed_expect(&bed, "a/1 READY", ""); /* f takes it. */
    expect_echo("f");
}

static void test_polling_follows_the_parts(void **state)
{
    (void)state;
    put_chain();
    bed.options.control = CONTROL_POLL;
    model_bed_start(&bed);
    model_bed_settle(&bed);
    expect_echo("e");
    model_bed_remove(&bed, 0, "b");
    assert_int_equal(model_bed_order(&bed, REGISTRY_REFRESH, NULL, NULL, NULL), WEIR_OK);
    model_bed_settle(&bed);
    model_bed_expect(&bed, "e/1 UN", "step 2 needs model 'b'");
    assert_false(registry_catalogue(bed.registry, &bed.home)->ready);
    model_bed_sim(&bed, "b", 2, fast);
    assert_int_equal(model_bed_order(&bed, REGISTRY_REFRESH, NULL, NULL, NULL), WEIR_OK);
    model_bed_settle(&bed);
    model_bed_expect(&bed, "e/1 READY", "");
    assert_true(registry_catalogue(bed.registry, &bed.home)->ready);
    expect_echo("e");
}

/* Fails each allocation of a load in turn: it then fails, or succeeds all the same, and the next
 * one succeeds. */
static void test_every_allocation_of_a_load_may_fail(void **state)
{
    (void)state;
    put_diamond(fast);
    start_explicit();
    (void)mem_fault_arm(1000000);
    assert_int_equal(load("e", NULL), WEIR_OK);
    const uint64_t calls = mem_fault_arm(0);
    if (calls == 0) {
        skip(); /* This build cannot make allocations fail. */
    }
    assert_int_equal(unload("e"), WEIR_OK);
    for (uint64_t n = 1; n <= calls; n++) {
        struct weir_err err = { 0 };
        (void)mem_fault_arm(n);
        const enum weir_status status = load("e", &err);
        (void)mem_fault_arm(0);
        if (status != WEIR_OK && strstr(err.text, "out of memory") == NULL) {
            fail_msg("allocation %u: %s: %s", (unsigned)n, weir_status_name(status), err.text);
        }
        assert_int_equal(load("e", &err), WEIR_OK);
        assert_int_equal(unload_with_parts("e"), WEIR_OK);
    }
}

/* The same for a request: it is refused, or fails, or succeeds, and leaves nothing. */
static void test_every_allocation_of_a_request_may_fail(void **state)
{
    (void)state;
    put_diamond(fast);
    model_bed_start_all(&bed);
    struct model *model = model_bed_lease(&bed, "e", 0);
    uint64_t calls = 1;
    for (uint64_t n = 1; n <= calls; n++) {
        struct ask ask;
        struct weir_err err = { 0 };
        ask_init(&ask, model, 1);
        (void)mem_fault_arm(n);
        const enum weir_status status = run(&ask, &err);
        const uint64_t made = mem_fault_arm(0);
        calls = made > calls ? made : calls;
        assert_true(status == WEIR_OK || status == WEIR_ENOMEM || status == WEIR_EBACKEND);
        ask_finish(&ask);
        assert_int_equal(model->runs, 0);
        assert_int_equal(bed.home.pending, 0);
    }
    model_bed_release(&bed, model);
}

int main(void)
{
#define TEST(function) MODEL_BED_TEST(function, &bed)
    const struct CMUnitTest tests[] = {
        TEST(test_a_chain_answers),
        TEST(test_a_diamond_runs_what_is_asked_for),
        TEST(test_a_step_that_fails_is_named),
        TEST(test_requests_are_checked_before_they_are_accepted),
        TEST(test_a_deadline_holds_for_all_steps),
        TEST(test_cancel),
        TEST(test_cancel_reaches_the_step_that_runs),
        TEST(test_tensors_go_when_nobody_takes_them_any_more),
        TEST(test_draining_finishes_what_was_accepted),
        TEST(test_nested),
        TEST(test_the_library_runs_ensembles),
        TEST(test_too_deep),
        TEST(test_an_order_loads_the_parts),
        TEST(test_an_order_fails_with_its_part),
        TEST(test_without_room_for_all_its_parts_none_stays),
        TEST(test_an_ensemble_goes_with_its_part_and_comes_back),
        TEST(test_what_was_unloaded_does_not_come_back_by_itself),
        TEST(test_a_reloaded_part_is_taken_up),
        TEST(test_a_part_that_no_longer_fits_leaves_the_ensemble_as_it_was),
        TEST(test_unloading_with_the_parts),
        TEST(test_polling_follows_the_parts),
        TEST(test_every_allocation_of_a_load_may_fail),
        TEST(test_every_allocation_of_a_request_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
