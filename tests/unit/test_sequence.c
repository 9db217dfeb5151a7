/*
 * Sequences of a real model on real threads; what tensors are hidden and what a configuration may
 * not say.  The laws of scheduling are proved in sim/sim_sequence.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "asking.h"
#include "engine/effective.h"
#include "engine/pool.h"
#include "engine/sequence.h"
#include "model_bed.h"

#define CLIENTS 4
#define SEQUENCES 3 /* Of each client. */
#define STEPS 40

static struct sequence_control controls[] = {
    { "start", SEQUENCE_START, DTYPE_INT32, { 0, 1 } },
    { "end", SEQUENCE_END, DTYPE_INT32, { 0, 1 } },
    { "ready", SEQUENCE_READY, DTYPE_INT32, { 0, 1 } },
    { "corrid", SEQUENCE_CORRID, DTYPE_UINT64, { 0, 0 } },
};

static struct sequence_state states[] = {
    { .input = "state", .output = "state_out", .dtype = DTYPE_INT32, .dims = { 1, { 1 } } },
};

/* What the next load is configured with. */
static struct sequence_config wanted;

static void want(enum sequence_strategy strategy)
{
    wanted = (struct sequence_config){
        .strategy = strategy,
        .idle_ns = 60 * NS_PER_S,
        .controls = controls,
        .control_count = 4,
        .states = states,
        .state_count = 1,
    };
}

static enum weir_status configure(void *context, const char *name, int folder_fd,
                                  const char *override, struct model_config **out,
                                  struct weir_err *err)
{
    (void)context;
    (void)name;
    (void)folder_fd;
    (void) override;
    (void)err;
    struct model_config *config = effective_create();
    assert_non_null(config);
    config->max_batch_size = 4;
    config->sequence = wanted;
    *out = config;
    return WEIR_OK;
}

static void start(struct model_bed *bed)
{
    static char models[512];
    (void)snprintf(models, sizeof(models), "%s/models", getenv("WEIR_TEST_DATA"));
    model_bed_init(bed);
    bed->roots[0] = models;
    bed->options.configure = configure;
    model_bed_start(bed);
}

static void stop(struct model_bed *bed)
{
    model_bed_stop(bed);
    bed->roots[0] = bed->folders[0];
    model_bed_finish(bed);
}

/* ---- Clients --------------------------------------------------------------------------------- */

struct client {
    struct model_bed *bed;
    struct model *model;
    struct home home;
    uint32_t index;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    bool mail;
};

struct step {
    struct request request;
    int32_t x;
    int32_t expected;
    struct tensor input;
    struct tensor outputs[3];
    uint32_t *left;
    int64_t *order; /* The sequence's last step that ended. */
    int64_t at;
    bool right;
};

static void wake(void *context)
{
    struct client *client = context;
    pthread_mutex_lock(&client->lock);
    client->mail = true;
    pthread_cond_signal(&client->woken);
    pthread_mutex_unlock(&client->lock);
}

static int32_t number(const struct tensor *tensor, size_t index)
{
    int32_t value;
    memcpy(&value, tensor->data + index * sizeof(value), sizeof(value));
    return value;
}

static void ended(struct request *request)
{
    struct step *step = request->user;
    step->right = request->status == WEIR_OK && number(&step->outputs[0], 0) == step->expected &&
                  number(&step->outputs[1], 0) == request->sequence_start &&
                  number(&step->outputs[1], 1) == 1 &&
                  number(&step->outputs[1], 2) == request->sequence_end &&
                  number(&step->outputs[2], 0) == (int32_t)request->sequence_id.number &&
                  *step->order + 1 == step->at;
    *step->order = step->at;
    for (int i = 0; i < 3; i++) {
        tensor_release(&step->outputs[i]);
    }
    (*step->left)--;
}

static void submit(struct client *client, struct step *step, uint64_t id)
{
    step->input = (struct tensor){ .dtype = DTYPE_INT32,
                                   .present = true,
                                   .shape = { 2, { 1, 1 } },
                                   .data = (uint8_t *)&step->x,
                                   .size = sizeof(step->x) };
    asking_init(&step->request, &client->home, client->model, &step->input, step->outputs);
    step->request.ended = ended;
    step->request.user = step;
    step->request.sequence_id.number = id;
    step->request.sequence_start = step->at == 0;
    step->request.sequence_end = step->at == STEPS - 1;
    struct weir_err err = { 0 };
    if (engine_submit(client->bed->engine, &step->request, &err) != WEIR_OK) {
        step->request.err = err;
        (*step->left)--;
    }
}

static void *client_main(void *argument)
{
    struct client *client = argument;
    struct step *steps = calloc((size_t)SEQUENCES * STEPS, sizeof(*steps));
    int64_t order[SEQUENCES] = { -1, -1, -1 };
    int32_t sums[SEQUENCES] = { 0 };
    uint32_t left = SEQUENCES * STEPS;
    home_init(&client->home, client->bed->engine, wake, client);
    for (uint32_t i = 0; i < SEQUENCES * STEPS; i++) {
        const uint32_t s = i % SEQUENCES;
        struct step *step = &steps[i];
        step->x = (int32_t)(1 + i * (client->index + 1));
        sums[s] += step->x;
        step->expected = sums[s];
        step->left = &left;
        step->order = &order[s];
        step->at = i / SEQUENCES;
        submit(client, step, 1 + client->index * SEQUENCES + s);
        home_turn(&client->home);
    }
    while (left > 0) {
        pthread_mutex_lock(&client->lock);
        while (!client->mail) {
            pthread_cond_wait(&client->woken, &client->lock);
        }
        client->mail = false;
        pthread_mutex_unlock(&client->lock);
        home_turn(&client->home);
    }
    home_finish(&client->home);
    uintptr_t wrong = 0;
    for (uint32_t i = 0; i < SEQUENCES * STEPS; i++) {
        wrong += steps[i].right ? 0 : 1;
        if (!steps[i].right && wrong == 1) {
            fprintf(stderr, "client %u step %u: '%s'\n", client->index, i,
                    steps[i].request.err.text);
        }
    }
    free(steps);
    return (void *)wrong;
}

static void run_clients(struct model_bed *bed, struct model *model)
{
    struct client clients[CLIENTS] = { 0 };
    for (uint32_t i = 0; i < CLIENTS; i++) {
        clients[i].bed = bed;
        clients[i].model = model;
        clients[i].index = i;
        pthread_mutex_init(&clients[i].lock, NULL);
        pthread_cond_init(&clients[i].woken, NULL);
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        void *wrong;
        pthread_join(clients[i].thread, &wrong);
        pthread_mutex_destroy(&clients[i].lock);
        pthread_cond_destroy(&clients[i].woken);
        assert_int_equal((uintptr_t)wrong, 0);
    }
}

/* The last run's sequences are put away after its ends have come home. */
static uint32_t sequences_left(struct model *model)
{
    uint32_t count = 1;
    for (uint32_t patience = 0; count > 0 && patience < 10000000; patience++) {
        pthread_mutex_lock(&model->pool->lock);
        count = model->sequences->count;
        pthread_mutex_unlock(&model->pool->lock);
        (void)sched_yield();
    }
    return count;
}

static void test_threads(enum sequence_strategy strategy, uint32_t candidates)
{
    struct model_bed bed;
    want(strategy);
    wanted.candidates_max = candidates;
    start(&bed);
    struct weir_err err = { 0 };
    (void)model_bed_order(&bed, REGISTRY_LOAD, "accumulate", NULL, &err);
    assert_string_equal(err.text, "");
    struct model *model = model_bed_lease(&bed, "accumulate", 0);
    assert_true(model->batching); /* Proved with the controls and states that the engine adds. */
    assert_int_equal(model->signature->input_count, 1);
    assert_string_equal(model->signature->inputs[0].name, "x");
    assert_int_equal(model->signature->output_count, 3);
    run_clients(&bed, model);
    assert_int_equal(model->sequences->started, CLIENTS * SEQUENCES);
    assert_int_equal(sequences_left(model), 0);
    assert_int_equal(model->sequences->state_bytes, 0);
    model_bed_release(&bed, model);
    stop(&bed);
}

static void test_direct(void **state)
{
    (void)state;
    test_threads(SEQUENCE_DIRECT, 0);
}

static void test_oldest(void **state)
{
    (void)state;
    test_threads(SEQUENCE_OLDEST, 0);
    test_threads(SEQUENCE_OLDEST, 5);
}

/* ---- Requests that are refused --------------------------------------------------------------- */

static void on_end(struct request *request)
{
    *(bool *)request->user = true;
}

struct question {
    int32_t x[4];
    struct tensor input;
    struct tensor outputs[3];
    struct request request;
    bool done;
};

/* Submits x with `rows` rows. */
static enum weir_status ask(struct question *q, struct model_bed *bed, struct model *model,
                            struct sequence_id id, const char *flags, int64_t rows,
                            struct weir_err *err)
{
    *q = (struct question){ .x = { 5, 5, 5, 5 } };
    q->input = (struct tensor){ .dtype = DTYPE_INT32,
                                .present = true,
                                .shape = { 2, { rows, 1 } },
                                .data = (uint8_t *)q->x,
                                .size = (size_t)rows * sizeof(q->x[0]) };
    asking_init(&q->request, &bed->home, model, &q->input, q->outputs);
    q->request.ended = on_end;
    q->request.user = &q->done;
    q->request.sequence_id = id;
    q->request.sequence_start = strchr(flags, 's') != NULL;
    q->request.sequence_end = strchr(flags, 'e') != NULL;
    return engine_submit(bed->engine, &q->request, err);
}

/* Its status once it has ended, and the sum when it succeeded. */
static enum weir_status await_answer(struct question *q, struct model_bed *bed, int32_t *sum,
                                     struct weir_err *err)
{
    model_bed_turn_until(bed, &q->done);
    *sum = q->request.status == WEIR_OK ? number(&q->outputs[0], 0) : -1;
    *err = q->request.err;
    for (int i = 0; i < 3; i++) {
        tensor_release(&q->outputs[i]);
    }
    return q->request.status;
}

static enum weir_status infer(struct model_bed *bed, struct model *model, struct sequence_id id,
                              const char *flags, int64_t rows, int32_t *sum, struct weir_err *err)
{
    struct question q;
    const enum weir_status status = ask(&q, bed, model, id, flags, rows, err);
    return status == WEIR_OK ? await_answer(&q, bed, sum, err) : status;
}

static void test_refusals(void **state)
{
    (void)state;
    struct model_bed bed;
    want(SEQUENCE_OLDEST);
    start(&bed);
    bed.limits.sequences_max = 2;
    struct weir_err err = { 0 };
    assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "accumulate", NULL, &err), WEIR_OK);
    struct model *model = model_bed_lease(&bed, "accumulate", 0);
    model->sequences->count_max = 2;
    int32_t sum = 0;
    const struct sequence_id none = { 0 };
    const struct sequence_id seven = { .number = 7 };
    const struct sequence_id eight = { .number = 8 };
    const struct sequence_id text = { .text = BYTES_LITERAL("seven") };
    assert_int_equal(infer(&bed, model, none, "s", 1, &sum, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "must specify a non-zero or non-empty correlation ID"));
    assert_int_equal(infer(&bed, model, seven, "s", 2, &sum, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "must specify batch-size 1"));
    assert_int_equal(infer(&bed, model, text, "s", 1, &sum, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "sequence_id 'seven' is a text, the model takes UINT64"));
    assert_int_equal(infer(&bed, model, seven, "", 1, &sum, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "inference request for sequence 7 to model 'accumulate' must "
                                     "specify the START flag on the first request of the "
                                     "sequence"));
    assert_int_equal(infer(&bed, model, seven, "s", 1, &sum, &err), WEIR_OK);
    assert_int_equal(infer(&bed, model, eight, "s", 1, &sum, &err), WEIR_OK);
    assert_int_equal(infer(&bed, model, (struct sequence_id){ .number = 9 }, "s", 1, &sum, &err),
                     WEIR_EFULL);
    assert_non_null(strstr(err.text, "has 2 sequences"));
    assert_int_equal(infer(&bed, model, seven, "", 1, &sum, &err), WEIR_OK);
    assert_int_equal(sum, 10);
    assert_int_equal(infer(&bed, model, seven, "s", 1, &sum, &err), WEIR_OK); /* Restarted. */
    assert_int_equal(sum, 5);
    assert_int_equal(infer(&bed, model, seven, "e", 1, &sum, &err), WEIR_OK);
    assert_int_equal(sum, 10);
    assert_int_equal(infer(&bed, model, seven, "", 1, &sum, &err), WEIR_EINVAL);
    assert_int_equal(infer(&bed, model, eight, "", 1, &sum, &err), WEIR_OK);
    assert_int_equal(sum, 10);
    model_bed_release(&bed, model);
    stop(&bed); /* With a sequence that never ended. */
}

/* ---- Versions that are offered no more ------------------------------------------------------- */

/* Its sequence gets the place of one that nobody can go on with. */
static void test_what_was_accepted_runs_on_an_unloaded_version(void **state)
{
    (void)state;
    struct model_bed bed;
    want(SEQUENCE_DIRECT);
    start(&bed);
    struct weir_err err = { 0 };
    assert_int_equal(model_bed_order(&bed, REGISTRY_LOAD, "accumulate", NULL, &err), WEIR_OK);
    struct model *model = model_bed_lease(&bed, "accumulate", 0);
    const uint64_t places = model->instance_count * (uint64_t)model->config->max_batch_size;
    int32_t sum = 0;
    struct sequence_id id = { 0 };
    while (id.number++ < places) {
        assert_int_equal(infer(&bed, model, id, "s", 1, &sum, &err), WEIR_OK);
    }
    struct question q;
    assert_int_equal(ask(&q, &bed, model, id, "s", 1, &err), WEIR_OK);
    assert_int_equal(engine_waiting_count(model), 1);
    assert_int_equal(model_bed_order(&bed, REGISTRY_UNLOAD, "accumulate", NULL, &err), WEIR_OK);
    assert_int_equal(await_answer(&q, &bed, &sum, &err), WEIR_OK);
    assert_int_equal(sum, 5);
    model_bed_release(&bed, model);
    stop(&bed);
}

/* ---- Configurations that are refused --------------------------------------------------------- */

static void refused(struct model_bed *bed, const char *why)
{
    struct weir_err err = { 0 };
    assert_int_not_equal(model_bed_order(bed, REGISTRY_LOAD, "accumulate", NULL, &err), WEIR_OK);
    if (strstr(err.text, why) == NULL) {
        fail_msg("'%s' says nothing of '%s'", err.text, why);
    }
}

static void test_configurations(void **state)
{
    (void)state;
    struct model_bed bed;
    want(SEQUENCE_DIRECT);
    start(&bed);
    struct sequence_control bad = { "nothing", SEQUENCE_START, DTYPE_INT32, { 0, 1 } };
    wanted.controls = &bad;
    wanted.control_count = 1;
    refused(&bed, "control_input 'nothing': the model has no such input");
    bad = (struct sequence_control){ "start", SEQUENCE_START, DTYPE_FP32, { 0, 1 } };
    refused(&bed, "control_input 'start' is given as FP32, the model takes INT32");
    bad = (struct sequence_control){ "corrid", SEQUENCE_READY, DTYPE_UINT64, { 0, 1 } };
    refused(&bed, "control_input 'corrid'");
    want(SEQUENCE_DIRECT);
    struct sequence_state odd = states[0];
    wanted.states = &odd;
    odd.output = "id";
    refused(&bed, "state 'state' is given as INT32, the model takes INT32 and gives UINT64");
    odd = states[0];
    odd.input = "start";
    refused(&bed, "input 'start' is named twice");
    odd = states[0];
    odd.dims = (struct shape){ 1, { 3 } };
    refused(&bed, "state 'state': it begins with shape [1,3], the model takes [-1,1]");
    odd = states[0];
    odd.initial_file = "none.bin";
    refused(&bed, "none.bin");
    stop(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_direct),
        cmocka_unit_test(test_oldest),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_what_was_accepted_runs_on_an_unloaded_version),
        cmocka_unit_test(test_configurations),
    };
    backend_start();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    backend_stop();
    return failed;
}
