/*
 * From the inputs of requests to their outputs: one request in several runs, and who fails when a
 * run does.  On the simulated device, pulled by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "asking.h"
#include "engine/circuit.h"
#include "engine/engine.h"
#include "engine/outage.h"
#include "rig.h"

#define WIDTH 4
#define ROWS_MAX 8
#define CALL_ROWS_MAX 64

struct call {
    struct request request;
    float values[CALL_ROWS_MAX * WIDTH];
    struct tensor input;
    struct tensor output;
    bool ended;
};

static void start(struct rig *rig, const struct setting *settings, uint32_t setting_count)
{
    rig_start(rig, NULL);
    rig->config.max_batch_inferred = true;
    rig_load(rig, settings, setting_count);
    rig_adopt(rig);
}

static void on_end(struct request *request)
{
    list_entry(request, struct call, request)->ended = true;
    model_release(request->model);
}

static void submit(struct call *call, struct rig *rig)
{
    asking_init(&call->request, &rig->home, &rig->model, &call->input, &call->output);
    call->request.ended = on_end;
    model_acquire(&rig->model);
    struct weir_err err = { 0 };
    if (engine_submit(rig->engine, &call->request, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
}

/* Rows of which no two are alike. */
static void submit_rows(struct call *call, struct rig *rig, int64_t rows, float first)
{
    memset(call, 0, sizeof(*call));
    for (int64_t i = 0; i < rows * WIDTH; i++) {
        call->values[i] = first + (float)i;
    }
    call->input = asking_rows(call->values, rows, WIDTH);
    submit(call, rig);
}

static void expect_echo(struct call *call)
{
    assert_true(call->ended);
    assert_string_equal(call->request.err.text, "");
    assert_int_equal(call->request.status, WEIR_OK);
    assert_true(shape_equal(&call->output.shape, &call->input.shape));
    assert_int_equal(call->output.size, call->input.size);
    assert_memory_equal(call->output.data, call->input.data, call->input.size);
    tensor_release(&call->output);
}

#define WIDE                                                     \
    { "inputs", "x:FP32[-1,4]" }, { "outputs", "y:FP32[-1,4]" }, \
    {                                                            \
        "tau0", "10us"                                           \
    }

static void test_a_request_larger_than_a_run_is_put_together(void **state)
{
    (void)state;
    static const struct setting settings[] = { WIDE, { "fail_above_rows", "8" } };
    struct rig rig;
    struct call call;
    start(&rig, settings, 4);
    submit_rows(&call, &rig, 20, 0);
    rig_run_all(&rig);
    expect_echo(&call);
    assert_int_equal(rig.model.stats.execution_count, 3); /* 7, 7 and 6. */
    assert_int_equal(call.request.batch_rows, 20);
    rig_stop(&rig);
}

static void test_without_proof_it_runs_whole(void **state)
{
    (void)state;
    static const struct setting settings[] = { WIDE };
    struct rig rig;
    struct call call;
    start(&rig, settings, 3);
    rig.model.batching = false;
    submit_rows(&call, &rig, 20, 0);
    rig_run_all(&rig);
    expect_echo(&call);
    assert_int_equal(rig.model.stats.execution_count, 1);
    rig_stop(&rig);
}

static void test_out_of_memory_halves_and_remembers(void **state)
{
    (void)state;
    static const struct setting settings[] = { WIDE, { "oom_above_rows", "3" } };
    struct rig rig;
    struct call calls[3];
    start(&rig, settings, 4);
    submit_rows(&calls[0], &rig, 8, 0);
    rig_run_all(&rig);
    expect_echo(&calls[0]);
    assert_int_equal(profile_rows_cap(&rig.model.profile, 0), 2);
    uint64_t runs = rig.model.stats.execution_count;
    submit_rows(&calls[1], &rig, 8, 100);
    rig_run_all(&rig);
    expect_echo(&calls[1]);
    assert_int_equal(rig.model.stats.execution_count - runs, 4); /* Nothing fails any more. */
    runs = rig.model.stats.execution_count;
    for (size_t i = 0; i < 3; i++) {
        submit_rows(&calls[i], &rig, 1, (float)i);
    }
    rig_run_all(&rig);
    for (size_t i = 0; i < 3; i++) {
        expect_echo(&calls[i]);
    }
    assert_true(rig.model.stats.execution_count - runs >= 2); /* No batch above the cap. */
    rig_stop(&rig);
}

static void test_memory_for_not_even_a_row_is_told(void **state)
{
    (void)state;
    static const struct setting settings[] = { WIDE,
                                               { "memory_max", "1KiB" },
                                               { "memory_per_row", "2KiB" } };
    struct rig rig;
    struct call call;
    start(&rig, settings, 5);
    submit_rows(&call, &rig, 20, 0);
    rig_run_all(&rig);
    assert_true(call.ended);
    assert_int_equal(call.request.status, WEIR_ENOMEM);
    assert_false(call.output.present);
    rig_stop(&rig);
}

static void test_texts_of_many_lengths(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "inputs", "x:BYTES[-1,1]" },
                                               { "outputs", "y:BYTES[-1,1]" },
                                               { "tau0", "10us" },
                                               { "fail_above_rows", "8" } };
    struct rig rig;
    struct call call = { 0 };
    uint8_t bytes[20 * (4 + 20)];
    size_t size = 0;
    for (uint32_t i = 0; i < 20; i++) { /* The i-th text is i letters. */
        memcpy(bytes + size, &i, 4);
        memset(bytes + size + 4, (int)('a' + i), i);
        size += 4 + i;
    }
    start(&rig, settings, 4);
    call.input = (struct tensor){ .dtype = DTYPE_BYTES,
                                  .present = true,
                                  .shape = { 2, { 20, 1 } },
                                  .data = bytes,
                                  .size = size };
    submit(&call, &rig);
    rig_run_all(&rig);
    expect_echo(&call);
    assert_int_equal(rig.model.stats.execution_count, 3);
    rig_stop(&rig);
}

static void test_one_bad_row_fails_alone(void **state)
{
    (void)state;
    static const struct setting settings[] = { WIDE, { "poison", "1000" } };
    struct rig rig;
    struct call calls[6];
    start(&rig, settings, 4);
    for (size_t i = 0; i < 6; i++) {
        submit_rows(&calls[i], &rig, 1, i == 4 ? 1000 : (float)i);
    }
    rig_run_all(&rig);
    for (size_t i = 0; i < 6; i++) {
        if (i != 4) {
            expect_echo(&calls[i]);
        }
    }
    assert_int_equal(calls[4].request.status, WEIR_EINVAL);
    assert_false(calls[4].output.present);
    rig_stop(&rig);
}

static void test_a_bad_piece_fails_its_request(void **state)
{
    (void)state;
    static const struct setting settings[] = { WIDE, { "poison", "79" } };
    struct rig rig;
    struct call calls[2];
    start(&rig, settings, 4);
    submit_rows(&calls[0], &rig, 20, 0); /* The last number of its last row. */
    submit_rows(&calls[1], &rig, 20, 100);
    rig_run_all(&rig);
    assert_int_equal(calls[0].request.status, WEIR_EINVAL);
    assert_false(calls[0].output.present);
    expect_echo(&calls[1]);
    rig_stop(&rig);
}

static void test_pieces_are_learned_from(void **state)
{
    (void)state;
    static const struct setting settings[] = { WIDE, { "alpha", "100us" } };
    struct rig rig;
    struct call call;
    uint64_t ns;
    start(&rig, settings, 4);
    for (int i = 0; i < 6; i++) {
        submit_rows(&call, &rig, 16, 0);
        rig_run_all(&rig);
        expect_echo(&call);
    }
    assert_true(profile_predict_ns(&rig.model.profile, 0, 8, &ns));
    assert_in_range(ns, 810000 - 20000, 810000 + 20000);
    rig_stop(&rig);
}

/* Rows that cost next to nothing run together, however many there are. */
static void test_cheap_rows_are_not_cut_for_ever(void **state)
{
    (void)state;
    static const struct setting settings[] = { WIDE, { "alpha", "1us" } };
    struct rig rig;
    struct call call;
    for (uint64_t rows = ROWS_MAX + 1; rows <= CALL_ROWS_MAX; rows++) {
        start(&rig, settings, 4);
        uint64_t runs = 0;
        for (int i = 0; i < 16 && runs != 1; i++) {
            const uint64_t before = atomic_load(&rig.model.stats.execution_count);
            submit_rows(&call, &rig, (int64_t)rows, 0);
            rig_run_all(&rig);
            expect_echo(&call);
            runs = atomic_load(&rig.model.stats.execution_count) - before;
            assert_in_range(runs, 1, (rows + ROWS_MAX - 1) / ROWS_MAX);
        }
        assert_int_equal(runs, 1);
        rig_stop(&rig);
    }
}

/* Each of a batch's runs took its time of the device. */
static void test_a_split_batch_kept_the_device_busy_with_all_its_runs(void **state)
{
    (void)state;
    static const struct setting settings[] = { WIDE, { "poison", "1000" } };
    struct rig rig;
    struct call calls[4];
    struct replica_look look;
    start(&rig, settings, 4);
    for (size_t i = 0; i < 4; i++) {
        submit_rows(&calls[i], &rig, 1, i == 0 ? 1000 : (float)i);
    }
    rig_run_all(&rig);
    for (size_t i = 1; i < 4; i++) {
        expect_echo(&calls[i]);
    }
    const uint64_t runs = atomic_load(&rig.model.stats.execution_count);
    assert_true(runs > 1);
    assert_true(replica_look(&rig.model, 0, &look));
    assert_int_equal(look.busy_ns, runs * 10000);
    rig_stop(&rig);
}

static void test_a_model_in_this_process_has_lost_its_device(void **state)
{
    (void)state;
    static const struct setting settings[] = { WIDE, { "lost_on", "*" }, { "lost_at", "0" } };
    struct rig rig;
    struct call call;
    struct weir_err err = { 0 };
    start(&rig, settings, 5);
    for (uint32_t i = 0; i < CIRCUIT_DEATHS_MAX; i++) {
        assert_int_equal(outage_check(&rig.model, NULL), WEIR_OK);
        rig_pass(&rig, NS_PER_S); /* Its back-off is over. */
        submit_rows(&call, &rig, 1, 0);
        rig_run_all(&rig);
        assert_int_equal(call.request.status, WEIR_EUNAVAILABLE);
    }
    assert_int_equal(outage_check(&rig.model, &err), WEIR_EUNAVAILABLE);
    assert_non_null(strstr(err.text, "its device was lost 5 times"));
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_larger_than_a_run_is_put_together),
        cmocka_unit_test(test_without_proof_it_runs_whole),
        cmocka_unit_test(test_out_of_memory_halves_and_remembers),
        cmocka_unit_test(test_memory_for_not_even_a_row_is_told),
        cmocka_unit_test(test_texts_of_many_lengths),
        cmocka_unit_test(test_one_bad_row_fails_alone),
        cmocka_unit_test(test_a_bad_piece_fails_its_request),
        cmocka_unit_test(test_pieces_are_learned_from),
        cmocka_unit_test(test_a_split_batch_kept_the_device_busy_with_all_its_runs),
        cmocka_unit_test(test_a_model_in_this_process_has_lost_its_device),
        cmocka_unit_test(test_cheap_rows_are_not_cut_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
