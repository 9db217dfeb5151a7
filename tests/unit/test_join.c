/*
 * Joined requests on real threads: a run that goes on for those who still want it, and one that is
 * terminated when nobody does.  The laws are proved in sim/sim_engine.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "asking.h"
#include "engine/effective.h"
#include "engine/pool.h"
#include "model_bed.h"

#define CLIENTS 3
#define ASKS 200
#define VALUES 4

#define WIDTH 16
#define ROWS_MAX 4096
#define ROWS_A_SECOND 100

static const struct setting quick[] = { { "alpha", "200us" } };
static const struct setting slow[] = { { "alpha", "10ms" } };
static const struct setting *settings;

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
    config->backend = "sim";
    config->max_batch_size = ROWS_MAX;
    config->batching = BATCHING_INSIST;
    config->settings = settings;
    config->setting_count = 1;
    config->join = true;
    *out = config;
    return WEIR_OK;
}

static struct model *start(struct model_bed *bed, const struct setting *how)
{
    settings = how;
    model_bed_init(bed);
    bed->options.configure = configure;
    model_bed_put(bed, 0, "m/1/", "");
    model_bed_start(bed);
    struct weir_err err = { 0 };
    (void)model_bed_order(bed, REGISTRY_LOAD, "m", NULL, &err);
    assert_string_equal(err.text, "");
    return model_bed_lease(bed, "m", 0);
}

static void stop(struct model_bed *bed, struct model *model)
{
    model_bed_release(bed, model);
    model_bed_finish(bed);
}

struct ask {
    struct request request;
    float *data;
    struct tensor input;
    struct tensor output;
    bool done;
    bool right;
};

static void on_end(struct request *request)
{
    struct ask *ask = request->user;
    ask->done = true;
    ask->right = request->status == WEIR_OK && ask->output.size == ask->input.size &&
                 memcmp(ask->output.data, ask->data, ask->input.size) == 0;
    tensor_release(&ask->output);
    free(ask->data);
}

static void submit(struct engine *engine, struct home *home, struct model *model, struct ask *ask,
                   float value, int64_t rows)
{
    memset(ask, 0, sizeof(*ask));
    const size_t count = (size_t)rows * WIDTH;
    ask->data = malloc(count * sizeof(float));
    assert_non_null(ask->data);
    for (size_t i = 0; i < count; i++) {
        ask->data[i] = value;
    }
    ask->input = asking_rows(ask->data, rows, WIDTH);
    asking_init(&ask->request, home, model, &ask->input, &ask->output);
    ask->request.ended = on_end;
    ask->request.user = ask;
    assert_int_equal(engine_submit(engine, &ask->request, NULL), WEIR_OK);
}

/* --- Many at once
 * ------------------------------------------------------------------------------ */

struct client {
    struct model_bed *bed;
    struct model *model;
    struct home home;
    pthread_t thread;
    _Atomic bool mail;
    uint32_t wrong;
};

static void wake(void *context)
{
    atomic_store(&((struct client *)context)->mail, true);
}

static void *client_main(void *argument)
{
    struct client *client = argument;
    struct ask *asks = calloc(VALUES, sizeof(*asks));
    home_init(&client->home, client->bed->engine, wake, client);
    for (uint32_t i = 0; i < ASKS; i++) {
        for (uint32_t k = 0; k < VALUES; k++) {
            submit(client->bed->engine, &client->home, client->model, &asks[k], (float)(i % 3 + k),
                   1);
        }
        engine_cancel(client->bed->engine, &asks[i % VALUES].request);
        home_turn(&client->home);
        for (uint32_t k = 0; k < VALUES; k++) {
            while (!asks[k].done) {
                (void)sched_yield();
                if (atomic_exchange(&client->mail, false)) {
                    home_turn(&client->home);
                }
            }
            const bool canceled = k == i % VALUES && asks[k].request.status == WEIR_ECANCELED;
            client->wrong += canceled || asks[k].right ? 0 : 1;
        }
    }
    home_finish(&client->home);
    free(asks);
    return NULL;
}

static void test_many(void **state)
{
    (void)state;
    struct model_bed bed;
    struct model *model = start(&bed, quick);
    struct client clients[CLIENTS] = { 0 };
    for (uint32_t i = 0; i < CLIENTS; i++) {
        clients[i].bed = &bed;
        clients[i].model = model;
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        assert_int_equal(clients[i].wrong, 0);
    }
    assert_true(model->stats.joined > 0);
    assert_int_equal(model->stats.success.count + model->stats.fail.count, CLIENTS * ASKS * VALUES);
    stop(&bed, model);
}

/* --- One run
 * ----------------------------------------------------------------------------------- */

static enum request_state state_of(struct model *model, const struct ask *ask)
{
    pthread_mutex_lock(&model->pool->lock);
    const enum request_state state = ask->request.state;
    pthread_mutex_unlock(&model->pool->lock);
    return state;
}

static void await(struct model_bed *bed, struct model *model, const struct ask *ask,
                  enum request_state state)
{
    home_turn(&bed->home);
    while (state_of(model, ask) != state) {
        (void)sched_yield();
    }
}

static void test_the_last_one_terminates(void **state)
{
    (void)state;
    struct model_bed bed;
    struct model *model = start(&bed, slow);
    struct ask asks[3];
    submit(bed.engine, &bed.home, model, &asks[0], 1, ROWS_MAX);
    await(&bed, model, &asks[0], REQUEST_RUNNING);
    submit(bed.engine, &bed.home, model, &asks[1], 1, ROWS_MAX);
    submit(bed.engine, &bed.home, model, &asks[2], 1, ROWS_MAX);
    assert_int_equal(state_of(model, &asks[1]), REQUEST_JOINED);
    assert_int_equal(state_of(model, &asks[2]), REQUEST_JOINED);
    engine_cancel(bed.engine, &asks[1].request);
    model_bed_turn_until(&bed, &asks[1].done); /* At once, while the run goes on. */
    assert_int_equal(asks[1].request.status, WEIR_ECANCELED);
    engine_cancel(bed.engine, &asks[0].request);
    assert_int_equal(state_of(model, &asks[0]), REQUEST_RUNNING); /* For asks[2]. */
    assert_int_equal(asks[0].request.batch->wanting, 1);
    engine_cancel(bed.engine, &asks[2].request);
    model_bed_turn_until(&bed, &asks[2].done);
    model_bed_turn_until(&bed, &asks[0].done); /* Terminated: it would take 40 s. */
    assert_int_equal(asks[0].request.status, WEIR_ECANCELED);
    assert_int_equal(model->stats.joined, 2);
    stop(&bed, model);
}

static void test_a_run_goes_on(void **state)
{
    (void)state;
    struct model_bed bed;
    struct model *model = start(&bed, slow);
    struct ask asks[2];
    submit(bed.engine, &bed.home, model, &asks[0], 1, ROWS_A_SECOND);
    await(&bed, model, &asks[0], REQUEST_RUNNING);
    submit(bed.engine, &bed.home, model, &asks[1], 1, ROWS_A_SECOND);
    engine_cancel(bed.engine, &asks[0].request);
    model_bed_turn_until(&bed, &asks[1].done);
    assert_true(asks[1].right);
    model_bed_turn_until(&bed, &asks[0].done);
    assert_int_equal(asks[0].request.status, WEIR_ECANCELED);
    assert_int_equal(model->stats.execution_count, 1);
    stop(&bed, model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_the_last_one_terminates),
        cmocka_unit_test(test_a_run_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
