/*
 * Joined requests on real threads: a run that goes on for those who still want it, and one that is
 * terminated when nobody does.  Under a clock turned by hand: what each of them is told.  The laws are
 * proved in sim/sim_engine.c.
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
#include "rig.h"

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

/* ---- Many at once ---------------------------------------------------------------------------- */

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

/* ---- One run --------------------------------------------------------------------------------- */

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

/* ---- By hand --------------------------------------------------------------------------------- */

static const struct setting poisoned[] = { { "tau0", "10us" }, { "poison", "7" } };

struct call {
    struct request request;
    float values[WIDTH];
    struct tensor input;
    struct tensor output;
    float answer; /* Its first number. */
    bool ended;
};

/* Each request is a batch. */
static void start_by_hand(struct rig *rig)
{
    rig_start(rig, NULL);
    rig->config.max_batch_size = 1;
    rig->config.join = true;
    rig_load(rig, poisoned, 2);
    rig_adopt(rig);
}

static void stop_by_hand(struct rig *rig)
{
    assert_int_equal(rig->model.pool->joined, 0);
    rig_stop(rig);
}

static void on_call_end(struct request *request)
{
    struct call *call = list_entry(request, struct call, request);
    assert_false(call->ended);
    call->ended = true;
    if (request->status == WEIR_OK) {
        memcpy(&call->answer, call->output.data, sizeof(call->answer));
    }
    tensor_release(&call->output);
    model_release(request->model);
}

static void call_make(struct call *call, struct rig *rig, float value)
{
    memset(call, 0, sizeof(*call));
    for (size_t i = 0; i < WIDTH; i++) {
        call->values[i] = value;
    }
    call->input = asking_rows(call->values, 1, WIDTH);
    asking_init(&call->request, &rig->home, &rig->model, &call->input, &call->output);
    call->request.ended = on_call_end;
}

static void call_submit(struct call *call, struct rig *rig)
{
    model_acquire(&rig->model);
    assert_int_equal(engine_submit(rig->engine, &call->request, NULL), WEIR_OK);
    home_turn(&rig->home);
}

static void call_with(struct call *call, struct rig *rig, float value, uint32_t priority)
{
    call_make(call, rig, value);
    call->request.priority = priority;
    call_submit(call, rig);
}

/* A run is as urgent as the most urgent of those who wait for it. */
static void test_the_most_urgent_counts(void **state)
{
    (void)state;
    struct rig rig;
    struct call low;
    struct call middle;
    struct call high;
    struct call lower;
    start_by_hand(&rig);
    call_with(&low, &rig, 1, 6);
    call_with(&middle, &rig, 2, 4);
    call_with(&high, &rig, 1, 2);
    call_with(&lower, &rig, 1, 8);
    assert_int_equal(high.request.state, REQUEST_JOINED);
    assert_int_equal(lower.request.state, REQUEST_JOINED);
    rig_finish(&rig, rig_pull(&rig));
    assert_true(low.ended && high.ended && lower.ended && !middle.ended);
    assert_true(low.answer == high.answer && low.answer == lower.answer);
    rig_finish(&rig, rig_pull(&rig));
    assert_true(middle.ended);
    assert_null(rig_pull(&rig));
    stop_by_hand(&rig);
}

/* Who came when it ran already has not waited before it came. */
static void test_times_are_of_ones_own(void **state)
{
    (void)state;
    struct rig rig;
    struct call leader;
    struct call early;
    struct call late;
    start_by_hand(&rig);
    call_with(&leader, &rig, 1, 0);
    rig_pass(&rig, 5);
    call_with(&early, &rig, 1, 0);
    rig_pass(&rig, 5);
    struct instance *instance = rig_pull(&rig);
    rig_pass(&rig, 5);
    call_with(&late, &rig, 1, 0);
    rig_pass(&rig, 5);
    rig_finish(&rig, instance);
    const struct call *const all[] = { &leader, &early, &late };
    for (size_t i = 0; i < 3; i++) {
        const struct request_times *times = &all[i]->request.times;
        assert_true(all[i]->ended);
        assert_int_equal(times->submitted_ns, NS_PER_S + (i == 0 ? 0 : i == 1 ? 5 : 15));
        assert_int_equal(times->taken_ns, NS_PER_S + (i == 2 ? 15 : 10));
        assert_true(times->gathered_ns >= times->taken_ns);
        assert_true(times->computed_ns >= times->gathered_ns);
        assert_int_equal(times->ended_ns, leader.request.times.ended_ns);
        assert_int_equal(all[i]->request.batch_rows, 1);
    }
    stop_by_hand(&rig);
}

/* All are told why it failed; whoever comes then has a run of its own. */
static void test_a_failure_is_everybodys(void **state)
{
    (void)state;
    struct rig rig;
    struct call leader;
    struct call follower;
    struct call next;
    start_by_hand(&rig);
    call_with(&leader, &rig, 7, 0);
    call_with(&follower, &rig, 7, 0);
    rig_finish(&rig, rig_pull(&rig));
    assert_int_not_equal(leader.request.status, WEIR_OK);
    assert_int_equal(follower.request.status, leader.request.status);
    assert_true(leader.request.err.text[0] != '\0');
    assert_string_equal(follower.request.err.text, leader.request.err.text);
    call_with(&next, &rig, 7, 0);
    assert_int_equal(next.request.state, REQUEST_WAITING);
    rig_finish(&rig, rig_pull(&rig));
    assert_true(next.ended);
    stop_by_hand(&rig);
}

/* The first of those who joined takes the place, and the urgency, of one that goes. */
static void test_one_that_goes_hands_over(void **state)
{
    (void)state;
    struct rig rig;
    struct call leader;
    struct call other;
    struct call heirs[3];
    start_by_hand(&rig);
    call_with(&leader, &rig, 1, 2);
    call_with(&other, &rig, 2, 4);
    call_with(&heirs[0], &rig, 1, 6);
    call_with(&heirs[1], &rig, 1, 6);
    engine_cancel(rig.engine, &leader.request);
    home_turn(&rig.home);
    assert_int_equal(leader.request.status, WEIR_ECANCELED);
    assert_int_equal(heirs[0].request.state, REQUEST_WAITING);
    assert_ptr_equal(heirs[1].request.leader, &heirs[0].request);
    call_with(&heirs[2], &rig, 1, 6);
    assert_ptr_equal(heirs[2].request.leader, &heirs[0].request);
    rig_finish(&rig, rig_pull(&rig));
    assert_false(other.ended);
    for (size_t i = 0; i < 3; i++) {
        assert_true(heirs[i].ended && heirs[i].request.status == WEIR_OK);
    }
    rig_finish(&rig, rig_pull(&rig));
    assert_true(other.ended);
    stop_by_hand(&rig);
}

/* Each has its own deadline, and counts on its own. */
static void test_who_is_late_is_told_so(void **state)
{
    (void)state;
    struct rig rig;
    struct call leader;
    struct call hasty;
    struct call gone;
    start_by_hand(&rig);
    call_with(&leader, &rig, 1, 0);
    call_make(&hasty, &rig, 1);
    hasty.request.deadline_ns = clock_now_ns(&rig.clock) + 10;
    call_submit(&hasty, &rig);
    call_with(&gone, &rig, 1, 0);
    engine_cancel(rig.engine, &gone.request);
    home_turn(&rig.home);
    assert_int_equal(gone.request.status, WEIR_ECANCELED);
    assert_int_equal(gone.request.times.ended_ns, NS_PER_S);
    assert_int_equal(rig.model.stats.fail.count, 1);
    rig_pass(&rig, 20);
    rig_finish(&rig, rig_pull(&rig)); /* Before the home has looked after deadlines. */
    assert_int_equal(hasty.request.status, WEIR_ETIMEOUT);
    assert_true(hasty.request.err.text[0] != '\0');
    assert_true(hasty.request.times.ended_ns >= NS_PER_S + 20);
    assert_int_equal(leader.request.status, WEIR_OK);
    stop_by_hand(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_the_last_one_terminates),
        cmocka_unit_test(test_a_run_goes_on),
        cmocka_unit_test(test_the_most_urgent_counts),
        cmocka_unit_test(test_times_are_of_ones_own),
        cmocka_unit_test(test_a_failure_is_everybodys),
        cmocka_unit_test(test_one_that_goes_hands_over),
        cmocka_unit_test(test_who_is_late_is_told_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
