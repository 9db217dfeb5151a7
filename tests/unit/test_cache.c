/*
 * The response cache: what is answered without a run, and what is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "asking.h"
#include "engine/cache.h"
#include "engine/engine.h"
#include "rig.h"

#define WIDTH 16

struct call {
    struct request request;
    float values[2 * WIDTH];
    struct tensor input;
    struct tensor outputs[2];
    bool wanted[2];
    bool ended;
};

static void load(struct rig *rig)
{
    static const struct setting settings[] = { { "tau0", "10us" },
                                               { "inputs", "x:FP32[-1,16]" },
                                               { "outputs", "y:FP32[-1,16] z:FP32[-1,16]" } };
    rig->model = (struct model){ 0 };
    rig_load(rig, settings, 3);
    rig_adopt(rig);
}

static void start(struct rig *rig, uint64_t cache_bytes)
{
    const struct engine_options options = { .cache_bytes = cache_bytes };
    rig_start(rig, &options);
    rig->config.response_cache = true;
    load(rig);
}

/* What the cache keeps goes before the blocks are counted. */
static void stop(struct rig *rig)
{
    engine_set_cache(rig->engine, 0);
    rig_stop(rig);
}

static void on_end(struct request *request)
{
    struct call *call = list_entry(request, struct call, request);
    assert_int_equal(request->status, WEIR_OK);
    assert_false(call->ended);
    call->ended = true;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(call->outputs[i].present, call->wanted[i]);
        if (call->wanted[i]) {
            assert_true(shape_equal(&call->outputs[i].shape, &call->input.shape));
            assert_memory_equal(call->outputs[i].data, call->values, call->input.size);
        }
        tensor_release(&call->outputs[i]);
    }
}

/* One request; true: it was answered without a run. */
static bool ask(struct rig *rig, float value, int64_t rows, bool second)
{
    struct call call;
    memset(&call, 0, sizeof(call));
    for (int i = 0; i < rows * WIDTH; i++) {
        call.values[i] = value + (float)i;
    }
    call.input = asking_rows(call.values, rows, WIDTH);
    call.wanted[0] = true;
    call.wanted[1] = second;
    asking_init(&call.request, &rig->home, &rig->model, &call.input, call.outputs);
    call.request.wanted = call.wanted;
    call.request.ended = on_end;
    assert_int_equal(engine_submit(rig->engine, &call.request, NULL), WEIR_OK);
    home_turn(&rig->home);
    const bool known = call.ended;
    if (!known) {
        rig_finish(rig, rig_pull(rig));
    }
    assert_true(call.ended);
    return known;
}

static void test_equal_requests(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, 1 << 20);
    assert_false(ask(&rig, 1, 1, false));
    assert_true(ask(&rig, 1, 1, false));
    assert_false(ask(&rig, 2, 1, false)); /* Other bytes, */
    assert_false(ask(&rig, 1, 2, false)); /* another shape, */
    assert_false(ask(&rig, 1, 1, true));  /* other outputs. */
    assert_true(ask(&rig, 1, 1, true));
    assert_true(ask(&rig, 1, 2, false));
    const struct model_stats *stats = &rig.model.stats;
    assert_int_equal(stats->success.count, 7);
    assert_int_equal(stats->queue.count, 7);
    assert_int_equal(stats->compute.count, 4);
    assert_int_equal(stats->cache_hit.count, 3);
    assert_int_equal(stats->cache_miss.count, 4);
    assert_int_equal(stats->execution_count, 4);
    assert_int_equal(stats->inference_count, 5); /* Rows, without those of hits. */
    const struct cache_stats cache = cache_stats(rig.engine->cache);
    assert_int_equal(cache.hits, 3);
    assert_int_equal(cache.misses, 4);
    assert_int_equal(cache.entries, 4);
    stop(&rig);
}

static void test_models_that_did_not_ask(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, 1 << 20);
    rig_unload(&rig);
    rig.config.response_cache = false;
    load(&rig);
    assert_false(ask(&rig, 1, 1, false));
    assert_false(ask(&rig, 1, 1, false));
    assert_int_equal(rig.model.stats.cache_miss.count, 0);
    stop(&rig);
    start(&rig, 0); /* Nor where the server has no cache. */
    assert_false(ask(&rig, 1, 1, false));
    assert_false(ask(&rig, 1, 1, false));
    stop(&rig);
}

static void test_reload(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, 1 << 20);
    assert_false(ask(&rig, 1, 1, false));
    assert_true(ask(&rig, 1, 1, false));
    rig_unload(&rig);
    assert_int_equal(cache_stats(rig.engine->cache).entries, 0);
    assert_int_equal(cache_stats(rig.engine->cache).bytes, 0);
    load(&rig);
    assert_false(ask(&rig, 1, 1, false));
    stop(&rig);
}

static void test_least_recently_used(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, 1 << 20);
    assert_false(ask(&rig, 1, 1, false));
    const uint64_t one = cache_stats(rig.engine->cache).bytes;
    assert_true(one >= WIDTH * sizeof(float));
    stop(&rig);
    start(&rig, 2 * one + one / 2);
    assert_false(ask(&rig, 1, 1, false));
    assert_false(ask(&rig, 2, 1, false));
    assert_true(ask(&rig, 1, 1, false));
    assert_false(ask(&rig, 3, 1, false)); /* 2 goes. */
    assert_true(ask(&rig, 1, 1, false));
    assert_true(ask(&rig, 3, 1, false));
    assert_false(ask(&rig, 2, 1, false));
    const struct cache_stats cache = cache_stats(rig.engine->cache);
    assert_int_equal(cache.evictions, 2);
    assert_int_equal(cache.entries, 2);
    assert_int_equal(cache.bytes, 2 * one);
    stop(&rig);
    start(&rig, one - 1);
    assert_false(ask(&rig, 1, 1, false)); /* Too large to keep. */
    assert_false(ask(&rig, 1, 1, false));
    assert_int_equal(cache_stats(rig.engine->cache).entries, 0);
    stop(&rig);
}

static void test_its_size_changes(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, 0);
    assert_false(ask(&rig, 1, 1, false));
    assert_false(ask(&rig, 1, 1, false));
    assert_int_equal(cache_stats(rig.engine->cache).misses, 0); /* Nobody asks it. */
    engine_set_cache(rig.engine, 1 << 20);
    assert_false(ask(&rig, 1, 1, false));
    assert_false(ask(&rig, 2, 1, false));
    assert_true(ask(&rig, 1, 1, false));
    engine_set_cache(rig.engine, cache_stats(rig.engine->cache).bytes - 1);
    assert_int_equal(cache_stats(rig.engine->cache).entries, 1); /* 2 went. */
    assert_true(ask(&rig, 1, 1, false));
    engine_set_cache(rig.engine, 0);
    assert_int_equal(cache_stats(rig.engine->cache).bytes, 0);
    assert_false(ask(&rig, 1, 1, false));
    stop(&rig);
}

/* What a client still reads stays, whatever becomes of the entry. */
static void test_answers_outlive_entries(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, 1 << 20);
    assert_false(ask(&rig, 1, 1, false));
    struct tensor outputs[2] = { 0 };
    const bool wanted[2] = { true, false };
    float values[WIDTH];
    for (int i = 0; i < WIDTH; i++) {
        values[i] = 1 + (float)i;
    }
    struct tensor input = { .dtype = DTYPE_FP32,
                            .present = true,
                            .shape = { 2, { 1, WIDTH } },
                            .data = (uint8_t *)values,
                            .size = sizeof(values) };
    struct request request;
    request_init(&request);
    request.model = &rig.model;
    request.inputs = &input;
    request.input_bytes = sizeof(values);
    request.outputs = outputs;
    request.wanted = wanted;
    struct request_key key;
    assert_true(cache_key(&request, rig.model.serial, &key));
    assert_true(cache_find(rig.engine->cache, &key, &request));
    cache_forget(rig.engine->cache, rig.model.serial);
    assert_memory_equal(outputs[0].data, values, sizeof(values));
    tensor_release(&outputs[0]);
    request.input_bytes = CACHE_INPUT_BYTES_MAX + 1;
    assert_false(cache_key(&request, rig.model.serial, &key));
    stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_requests),   cmocka_unit_test(test_models_that_did_not_ask),
        cmocka_unit_test(test_reload),           cmocka_unit_test(test_least_recently_used),
        cmocka_unit_test(test_its_size_changes), cmocka_unit_test(test_answers_outlive_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
