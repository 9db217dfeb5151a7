/*
 * overload: what clients are told when a model has more to do than it can, under a clock turned by
 * hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "asking.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "rig.h"

#define CALLS 64
#define ROWS 8 /* Of a request, and of a run, at most. */
#define MS(n) ((uint64_t)(n)*NS_PER_MS)

struct call {
    struct request request;
    struct tensor input;
    struct tensor output;
    struct weir_err err;
    float values[ROWS];
    bool ended;
};

static struct call calls[CALLS];
static struct instance *running; /* NULL: nothing is. */

static void start_with(struct rig *rig, const struct setting settings[4])
{
    rig_start(rig, NULL);
    running = NULL;
    rig_load(rig, settings, 4);
}

/* A run of b rows takes 2 + b ms; one executor. */
static void start(struct rig *rig)
{
    static const struct setting settings[] = { { "tau0", "2ms" },
                                               { "alpha", "1ms" },
                                               { "inputs", "x:FP32[-1,1]" },
                                               { "outputs", "y:FP32[-1,1]" } };
    start_with(rig, settings);
}

static void on_end(struct request *request)
{
    struct call *call = list_entry(request, struct call, request);
    call->ended = true;
    tensor_release(&call->output);
    model_release(request->model);
}

/* `allowed_ns` from now; CLOCK_NEVER: no deadline. */
static void make(struct rig *rig, struct call *call, uint64_t client, int64_t rows,
                 uint64_t allowed_ns)
{
    memset(call, 0, sizeof(*call));
    call->input = asking_rows(call->values, rows, 1);
    asking_init(&call->request, &rig->home, &rig->model, &call->input, &call->output);
    call->request.client = client;
    call->request.deadline_ns = clock_add(clock_now_ns(&rig->clock), allowed_ns);
    call->request.ended = on_end;
}

static enum weir_status submit_made(struct rig *rig, struct call *call)
{
    model_acquire(&rig->model);
    const enum weir_status status = engine_submit(rig->engine, &call->request, &call->err);
    if (status != WEIR_OK) {
        model_release(&rig->model);
    }
    return status;
}

static enum weir_status submit_for(struct rig *rig, struct call *call, uint64_t client,
                                   int64_t rows, uint64_t allowed_ns)
{
    make(rig, call, client, rows, allowed_ns);
    return submit_made(rig, call);
}

static enum weir_status submit(struct rig *rig, struct call *call, uint64_t allowed_ns)
{
    return submit_for(rig, call, 0, 1, allowed_ns);
}

static void begin(struct rig *rig)
{
    running = rig_pull(rig);
    if (running != NULL) {
        batch_run(running);
    }
}

/* The run under way ends when it should. */
static void settle(struct rig *rig)
{
    if (running->batch.computed_ns > clock_now_ns(&rig->clock)) {
        clock_turn(&rig->clock, running->batch.computed_ns);
    }
    pool_settle(rig->model.pool, running, clock_now_ns(&rig->clock));
    home_turn(&rig->home);
}

static void run_all(struct rig *rig)
{
    for (begin(rig); running != NULL; begin(rig)) {
        settle(rig);
    }
}

/* Until the profile knows what a run takes. */
static void learn_all(struct rig *rig)
{
    for (uint32_t round = 0; round < 40; round++) {
        for (uint32_t i = 0; i <= round % 8; i++) {
            assert_int_equal(submit(rig, &calls[i], CLOCK_NEVER), WEIR_OK);
        }
        run_all(rig);
        rig_pass(rig, MS(1));
    }
}

static void learn(struct rig *rig)
{
    learn_all(rig);
    double tau0;
    double alpha;
    assert_true(profile_fit(&rig->model.profile, 0, &tau0, &alpha));
    assert_true(tau0 > 1.9e6 && tau0 < 2.1e6 && alpha > 0.95e6 && alpha < 1.05e6);
}

static void start_learned(struct rig *rig)
{
    start(rig);
    rig_adopt(rig);
    learn(rig);
}

static void test_a_hopeless_request_is_refused_and_told_why(void **state)
{
    (void)state;
    struct rig rig;
    start_learned(&rig);
    assert_int_equal(submit(&rig, &calls[0], MS(2)), WEIR_EOVERLOAD);
    assert_string_equal(calls[0].err.text, "model 'm' is overloaded: an answer is expected in 3.0 "
                                           "ms, the deadline is in 2.0 ms");
    assert_int_equal(submit(&rig, &calls[0], MS(20)), WEIR_OK);
    begin(&rig); /* Until 3 ms. */
    assert_int_equal(submit(&rig, &calls[1], MS(5)), WEIR_EOVERLOAD);
    assert_int_equal(submit(&rig, &calls[2], MS(8)), WEIR_OK);
    assert_int_equal(submit(&rig, &calls[3], CLOCK_NEVER), WEIR_OK);
    assert_int_equal(rig.model.stats.refused_late, 2);
    assert_int_equal(rig.model.stats.refused, 2);
    settle(&rig);
    begin(&rig);
    settle(&rig);
    assert_int_equal(calls[2].request.status, WEIR_OK);
    assert_true(calls[2].request.times.ended_ns <= calls[2].request.deadline_ns);
    rig_stop(&rig);
}

/* Runs may take longer than they do on average, but refusing would be certain. */
static void test_while_there_is_room_a_narrow_chance_is_taken(void **state)
{
    (void)state;
    struct rig rig;
    start_learned(&rig);
    assert_int_equal(submit(&rig, &calls[0], MS(20)), WEIR_OK);
    begin(&rig); /* Until 3 ms; the next one would end at 6, 6.1 with what runs may sway. */
    assert_int_equal(submit(&rig, &calls[1], MS(6) + MS(9) / 100), WEIR_OK);
    settle(&rig);
    begin(&rig);
    assert_non_null(running);
    settle(&rig);
    assert_int_equal(calls[1].request.status, WEIR_OK);
    rig_stop(&rig);
}

/* A profile that is wrong is corrected only by runs. */
static void test_an_idle_model_tries_what_should_be_late(void **state)
{
    (void)state;
    struct rig rig;
    start_learned(&rig);
    assert_int_equal(submit(&rig, &calls[0], MS(2)), WEIR_EOVERLOAD);
    rig_pass(&rig, MS(200));
    assert_int_equal(submit(&rig, &calls[0], MS(2)), WEIR_OK);
    assert_int_equal(submit(&rig, &calls[1], MS(2)), WEIR_EOVERLOAD); /* One at a time. */
    begin(&rig);
    assert_non_null(running);
    assert_int_equal(running->batch.count, 1);
    settle(&rig);
    assert_true(calls[0].ended);
    rig_pass(&rig, MS(1));
    assert_int_equal(submit(&rig, &calls[2], MS(2)), WEIR_EOVERLOAD);
    rig_stop(&rig);
}

static void test_who_becomes_hopeless_is_told_while_executors_are_busy(void **state)
{
    (void)state;
    struct rig rig;
    start_learned(&rig);
    assert_int_equal(submit(&rig, &calls[0], MS(20)), WEIR_OK);
    begin(&rig);
    assert_int_equal(submit(&rig, &calls[1], MS(10)), WEIR_OK);
    rig_pass(&rig, MS(8)); /* The run takes longer than it should. */
    assert_int_equal(submit(&rig, &calls[2], MS(20)), WEIR_OK);
    home_turn(&rig.home);
    assert_true(calls[1].ended);
    assert_int_equal(calls[1].request.status, WEIR_EOVERLOAD);
    assert_string_equal(calls[1].request.err.text,
                        "model 'm' is overloaded: after 8.0 ms in line the deadline in 2.0 ms "
                        "leaves no time for a run");
    assert_int_equal(rig.model.stats.dropped, 1);
    assert_false(calls[2].ended);
    settle(&rig);
    begin(&rig);
    settle(&rig);
    assert_int_equal(calls[2].request.status, WEIR_OK);
    rig_stop(&rig);
}

static void test_the_window_lets_the_oldest_go(void **state)
{
    (void)state;
    struct rig rig;
    start_learned(&rig);
    assert_int_equal(submit(&rig, &calls[0], MS(40)), WEIR_OK);
    begin(&rig);
    assert_int_equal(submit(&rig, &calls[1], MS(20)), WEIR_OK);
    rig_pass(&rig, MS(10));
    for (int i = 2; i < 10; i++) { /* Late as they are, nobody who comes now has to wait for it. */
        assert_int_equal(submit(&rig, &calls[i], MS(20)), WEIR_OK);
    }
    rig_pass(&rig, MS(4)); /* The oldest has 6 ms left, the others 16; useful runs take 10. */
    settle(&rig);
    begin(&rig);
    home_turn(&rig.home);
    assert_true(calls[1].ended);
    assert_int_equal(calls[1].request.status, WEIR_EOVERLOAD);
    settle(&rig);
    for (int i = 2; i < 10; i++) {
        assert_int_equal(calls[i].request.status, WEIR_OK);
    }
    rig_stop(&rig);
}

static void test_first_come_first_served_where_that_is_wished(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig.config.overload = OVERLOAD_QUEUE;
    rig_adopt(&rig);
    learn(&rig);
    assert_int_equal(submit(&rig, &calls[0], MS(2)), WEIR_OK);
    rig_pass(&rig, MS(1));
    begin(&rig);
    assert_non_null(running);
    settle(&rig);
    assert_int_equal(submit(&rig, &calls[1], MS(2)), WEIR_OK);
    rig_pass(&rig, MS(2));
    begin(&rig); /* Work whose deadline has passed is not begun. */
    assert_null(running);
    home_turn(&rig.home);
    assert_int_equal(calls[1].request.status, WEIR_ETIMEOUT);
    rig_stop(&rig);
}

static void test_the_model_gives_a_deadline_to_those_that_bring_none(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig.config.deadline_ns = MS(7);
    rig_adopt(&rig);
    assert_int_equal(submit(&rig, &calls[0], CLOCK_NEVER), WEIR_OK);
    assert_int_equal(submit(&rig, &calls[1], MS(9)), WEIR_OK);
    assert_int_equal(calls[1].request.deadline_ns, clock_now_ns(&rig.clock) + MS(9));
    assert_int_equal(home_next_ns(&rig.home), clock_now_ns(&rig.clock) + MS(7));

    struct request waited; /* In its socket: it has so much less left. */
    asking_init(&waited, &rig.home, &rig.model, NULL, NULL);
    waited.waited_ns = MS(2);
    engine_set_deadline(&waited, clock_now_ns(&rig.clock));
    assert_int_equal(waited.deadline_ns, clock_now_ns(&rig.clock) + MS(5));

    rig_pass(&rig, MS(7));
    home_turn(&rig.home);
    assert_int_equal(calls[0].request.status, WEIR_ETIMEOUT);
    assert_false(calls[1].ended);
    begin(&rig);
    settle(&rig);
    rig_stop(&rig);
}

static void test_retry_after_is_the_measured_time_to_serve_the_line(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig_adopt(&rig);
    assert_int_equal(engine_retry_after_ms(&rig.model), 1000);
    learn(&rig);
    assert_int_equal(engine_retry_after_ms(&rig.model), 1);
    for (int i = 0; i < 60; i++) {
        assert_int_equal(submit(&rig, &calls[i], CLOCK_NEVER), WEIR_OK);
    }
    begin(&rig);
    settle(&rig);
    begin(&rig);
    settle(&rig);
    /* 44 rows wait; those before took 1.25 to 3 ms each. */
    assert_in_range(engine_retry_after_ms(&rig.model), 44, 120);
    assert_int_equal(engine_retry_after_s(rig.engine, &rig.model), 1);
    run_all(&rig);
    rig_stop(&rig);
}

/* Nothing is known about the model, and each run takes longer than a deadline allows for a line. */
static void test_the_limit_holds_where_the_profile_does_not(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig_adopt(&rig);
    uint32_t refused = 0;
    for (int round = 0; round < 200; round++) {
        memset(&rig.model.profile, 0, sizeof(rig.model.profile));
        for (int i = 0; i < CALLS; i++) {
            if (calls[i].ended || round == 0) {
                const enum weir_status status = submit(&rig, &calls[i], MS(30));
                refused += status == WEIR_EOVERLOAD ? 1 : 0;
                calls[i].ended = status != WEIR_OK;
            }
        }
        begin(&rig);
        if (running != NULL) {
            settle(&rig);
        }
        home_turn(&rig.home);
    }
    assert_true(refused > 0);
    assert_int_equal(rig.model.stats.refused_limit, refused);
    assert_true(engine_adaptive_limit(&rig.model) < 40);
    run_all(&rig);
    home_turn(&rig.home);
    assert_int_equal(rig.model.overload.in_hand, 0);
    rig_stop(&rig);
}

/* Of two equal clients, one that sends more rows at a time than half a run. */
static void test_a_request_larger_than_its_clients_part_of_a_run_is_let_in(void **state)
{
    (void)state;
    struct rig rig;
    start_learned(&rig);
    assert_int_equal(submit_for(&rig, &calls[0], 1, 8, MS(20)), WEIR_OK);
    begin(&rig); /* Until 10 ms. */
    assert_int_equal(submit_for(&rig, &calls[1], 1, 8, MS(23)), WEIR_OK);
    assert_int_equal(submit_for(&rig, &calls[2], 1, 6, MS(24)), WEIR_EOVERLOAD);
    assert_int_equal(submit_for(&rig, &calls[2], 2, 6, MS(24)), WEIR_OK);
    settle(&rig);
    begin(&rig);
    settle(&rig);
    assert_true(calls[2].ended);
    assert_int_equal(calls[2].request.status, WEIR_OK);
    run_all(&rig);
    home_turn(&rig.home);
    rig_stop(&rig);
}

/* Runs of one row, four clients: of every four runs one is the newcomer's. */
static void test_where_runs_carry_one_row_clients_take_turns(void **state)
{
    static const struct setting settings[] = { { "tau0", "10us" },
                                               { "alpha", "4ms" },
                                               { "inputs", "x:FP32[-1,1]" },
                                               { "outputs", "y:FP32[-1,1]" } };
    (void)state;
    struct rig rig;
    start_with(&rig, settings);
    rig_adopt(&rig);
    learn_all(&rig);
    assert_int_equal(profile_rows_useful(&rig.model.profile, 0, ROWS), 1);
    assert_int_equal(submit_for(&rig, &calls[0], 1, 1, MS(20)), WEIR_OK);
    begin(&rig); /* Until 4 ms. */
    assert_int_equal(submit_for(&rig, &calls[1], 2, 1, CLOCK_NEVER), WEIR_OK);
    assert_int_equal(submit_for(&rig, &calls[2], 3, 1, CLOCK_NEVER), WEIR_OK);
    assert_int_equal(submit_for(&rig, &calls[3], 1, 1, MS(10)), WEIR_OK);
    assert_int_equal(submit_for(&rig, &calls[4], 1, 1, MS(14)), WEIR_OK);
    assert_int_equal(submit_for(&rig, &calls[5], 1, 1, MS(17)), WEIR_OK);
    assert_int_equal(submit_for(&rig, &calls[6], 1, 1, MS(18)), WEIR_EOVERLOAD);
    assert_int_equal(submit_for(&rig, &calls[6], 4, 1, MS(18)), WEIR_OK);
    for (; running != NULL; begin(&rig)) {
        settle(&rig);
    }
    assert_true(calls[6].ended);
    assert_int_equal(calls[6].request.status, WEIR_OK);
    home_turn(&rig.home);
    rig_stop(&rig);
}

/* Six of the least urgent and, `waited_ns` after it came, a run that the most urgent one leads. */
static void check_company(uint64_t waited_ns, uint64_t rows_expected)
{
    struct rig rig;
    start_learned(&rig);
    for (int i = 0; i < 7; i++) {
        make(&rig, &calls[i], 0, 1, CLOCK_NEVER);
        calls[i].request.priority = i == 6 ? 1 : 8;
        assert_int_equal(submit_made(&rig, &calls[i]), WEIR_OK);
    }
    rig_pass(&rig, waited_ns);
    begin(&rig);
    assert_int_equal(running->batch.rows, rows_expected);
    settle(&rig);
    assert_true(calls[6].ended);
    begin(&rig);
    assert_int_equal(running->batch.rows, 7 - rows_expected);
    settle(&rig);
    rig_stop(&rig);
}

/* A row takes 1 ms, the budget is 10 ms: less urgent ones add a fifth, or an eighth. */
static void test_less_urgent_requests_fill_an_urgent_run_in_part(void **state)
{
    (void)state;
    check_company(0, 3);
    check_company(MS(5), 3);
    check_company(MS(6), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hopeless_request_is_refused_and_told_why),
        cmocka_unit_test(test_while_there_is_room_a_narrow_chance_is_taken),
        cmocka_unit_test(test_an_idle_model_tries_what_should_be_late),
        cmocka_unit_test(test_who_becomes_hopeless_is_told_while_executors_are_busy),
        cmocka_unit_test(test_the_window_lets_the_oldest_go),
        cmocka_unit_test(test_first_come_first_served_where_that_is_wished),
        cmocka_unit_test(test_the_model_gives_a_deadline_to_those_that_bring_none),
        cmocka_unit_test(test_retry_after_is_the_measured_time_to_serve_the_line),
        cmocka_unit_test(test_the_limit_holds_where_the_profile_does_not),
        cmocka_unit_test(test_a_request_larger_than_its_clients_part_of_a_run_is_let_in),
        cmocka_unit_test(test_where_runs_carry_one_row_clients_take_turns),
        cmocka_unit_test(test_less_urgent_requests_fill_an_urgent_run_in_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
