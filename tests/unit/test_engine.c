/*
 * The engine with its real threads, on the simulated device: what a program that embeds it sees.
 * The laws under load are checked by tests/sim; here are the meetings of threads: homes that sleep,
 * parts that wait for a reader, runs that hang until somebody stops them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "asking.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "rig.h"
#include "util/mem.h"

#define ROW 16
#define CLIENTS 4
#define CALLS 60

/* A thread's home and how it sleeps. */
struct client {
    struct rig *rig;
    struct home home;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    bool mail;
};

struct call {
    struct request request;
    float values[ROW];
    struct tensor input;
    struct tensor output;
    bool ended;
    bool late;
    uint32_t parts;
    struct request_part *unread[64];
};

static const struct device_options two_executors = { .name = "cpu", .executors = 2 };

static void load_on(struct rig *rig, const struct device_options *device,
                    const struct setting *settings, uint32_t setting_count)
{
    const struct engine_options options = {
        .devices = device, .device_count = 1, .threads = true, .inline_runs = true
    };
    rig_start(rig, &options);
    rig_load(rig, settings, setting_count);
}

static void start(struct rig *rig, const struct setting *settings, uint32_t setting_count)
{
    load_on(rig, &two_executors, settings, setting_count);
    rig_adopt(rig);
}

static void client_wake(void *context)
{
    struct client *client = context;
    pthread_mutex_lock(&client->lock);
    client->mail = true;
    pthread_cond_signal(&client->woken);
    pthread_mutex_unlock(&client->lock);
}

static void client_start(struct client *client, struct rig *rig)
{
    memset(client, 0, sizeof(*client));
    client->rig = rig;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&client->lock, NULL);
    pthread_cond_init(&client->woken, &monotonic);
    pthread_condattr_destroy(&monotonic);
    home_init(&client->home, rig->engine, client_wake, client);
}

static void client_stop(struct client *client)
{
    home_finish(&client->home);
    pthread_cond_destroy(&client->woken);
    pthread_mutex_destroy(&client->lock);
}

/* One turn, after mail or a deadline. */
static void client_turn(struct client *client)
{
    const uint64_t at_ns = home_next_ns(&client->home);
    const struct timespec at = { .tv_sec = (time_t)(at_ns / NS_PER_S),
                                 .tv_nsec = (long)(at_ns % NS_PER_S) };
    pthread_mutex_lock(&client->lock);
    int timed_out = 0;
    while (!client->mail && timed_out == 0) {
        timed_out = at_ns == CLOCK_NEVER
                        ? pthread_cond_wait(&client->woken, &client->lock)
                        : pthread_cond_timedwait(&client->woken, &client->lock, &at);
    }
    client->mail = false;
    pthread_mutex_unlock(&client->lock);
    home_turn(&client->home);
}

static void client_await(struct client *client, const bool *flag)
{
    home_turn(&client->home);
    while (!*flag) {
        client_turn(client);
    }
}

static void on_end(struct request *request)
{
    struct call *call = list_entry(request, struct call, request);
    assert_false(call->ended);
    call->ended = true;
}

static void on_late(struct request *request)
{
    list_entry(request, struct call, request)->late = true;
}

static void on_part(struct request *request, struct request_part *part)
{
    struct call *call = list_entry(request, struct call, request);
    call->unread[call->parts++] = part;
}

static void call_make(struct call *call, struct client *client, float value)
{
    memset(call, 0, sizeof(*call));
    for (int i = 0; i < ROW; i++) {
        call->values[i] = value + (float)i;
    }
    call->input = asking_rows(call->values, 1, ROW);
    asking_init(&call->request, &client->home, &client->rig->model, &call->input, &call->output);
    call->request.ended = on_end;
    call->request.late = on_late;
    call->request.part = on_part;
}

static void call_submit(struct call *call, struct client *client)
{
    struct weir_err err = { 0 };
    assert_int_equal(engine_submit(client->rig->engine, &call->request, &err), WEIR_OK);
}

/* The run has been pulled, so it is in the backend or about to be. */
static void await_running(struct rig *rig)
{
    struct pool *pool = rig->model.pool;
    for (bool running = false; !running;) {
        pthread_mutex_lock(&pool->lock);
        running = rig->model.running > 0;
        pthread_mutex_unlock(&pool->lock);
        sched_yield();
    }
}

static void *client_main(void *argument)
{
    struct client client;
    struct call *calls = mem_alloc(CALLS * sizeof(*calls));
    client_start(&client, argument);
    for (int i = 0; i < CALLS; i++) {
        call_make(&calls[i], &client, (float)(i * ROW));
        call_submit(&calls[i], &client);
        if (i % 8 == 0) {
            home_turn(&client.home);
        }
    }
    for (int i = 0; i < CALLS; i++) {
        client_await(&client, &calls[i].ended);
        assert_int_equal(calls[i].request.status, WEIR_OK);
        assert_memory_equal(calls[i].output.data, calls[i].values, sizeof(calls[i].values));
        tensor_release(&calls[i].output);
    }
    client_stop(&client);
    mem_free(calls);
    return NULL;
}

static void run_clients_on(struct rig *rig)
{
    pthread_t threads[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, client_main, rig), 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(rig->model.stats.inference_count, CLIENTS * CALLS);
    assert_true(rig->model.stats.execution_count <= CLIENTS * CALLS);
}

static void run_clients(const struct setting *settings, uint32_t count)
{
    struct rig rig;
    start(&rig, settings, count);
    run_clients_on(&rig);
    rig_stop(&rig);
}

/* Submits, and leaves, as clients do who lose patience: at once, at a deadline, or never. */
static void *hasty_main(void *argument)
{
    struct client client;
    struct call *calls = mem_alloc(CALLS * sizeof(*calls));
    client_start(&client, argument);
    struct engine *engine = client.rig->engine;
    for (int i = 0; i < CALLS; i++) {
        struct call *call = &calls[i];
        call_make(call, &client, (float)(i * ROW));
        if (i % 4 == 1) {
            call->request.deadline_ns = clock_now_ns(&client.rig->clock) + 30 * NS_PER_US;
        }
        if (engine_submit(engine, &call->request, NULL) != WEIR_OK) {
            call->ended = true; /* Its deadline was over at once. */
            call->request.status = WEIR_ETIMEOUT;
        } else if (i % 4 == 2) {
            engine_cancel(engine, &call->request);
        }
        if (i % 3 == 0) {
            home_turn(&client.home);
        }
        if (i % 4 == 3 && !call->ended) {
            engine_cancel(engine, &call->request);
        }
    }
    for (int i = 0; i < CALLS; i++) {
        const struct call *call = &calls[i];
        client_await(&client, &call->ended);
        if (call->request.status == WEIR_OK) {
            assert_memory_equal(call->output.data, call->values, sizeof(call->values));
            tensor_release(&calls[i].output);
        } else {
            const enum weir_status status = call->request.status;
            const bool late = status == WEIR_ETIMEOUT || status == WEIR_EOVERLOAD;
            assert_true(i % 4 == 1 ? late : status == WEIR_ECANCELED);
            assert_true(i % 4 != 0);
            assert_null(call->output.block);
        }
    }
    client_stop(&client);
    mem_free(calls);
    return NULL;
}

static void test_clients_that_leave_harm_nobody(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "tau0", "10us" },
                                               { "short_lived", "true" },
                                               { "exclusive", "false" } };
    struct rig rig;
    pthread_t threads[CLIENTS];
    start(&rig, settings, 3);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < CLIENTS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, hasty_main, &rig), 0);
        }
        for (int i = 0; i < CLIENTS; i++) {
            pthread_join(threads[i], NULL);
        }
    }
    assert_int_equal(rig.model.leases, 1); /* No home promises to run anything any more. */
    rig_stop(&rig);
}

static void test_many_threads_get_their_own_answers(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "tau0", "200us" }, { "alpha", "10us" } };
    run_clients(settings, 2);
}

static void test_short_runs_are_made_by_their_homes(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "tau0", "1us" }, { "short_lived", "true" } };
    run_clients(settings, 2);
}

static void test_cancel_stops_a_run_that_hangs(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "hang_at", "1" } };
    struct rig rig;
    struct client client;
    struct call call;
    start(&rig, settings, 1);
    client_start(&client, &rig);
    call_make(&call, &client, 0);
    call_submit(&call, &client);
    home_turn(&client.home);
    await_running(&rig);
    engine_cancel(rig.engine, &call.request);
    client_await(&client, &call.ended);
    assert_int_equal(call.request.status, WEIR_ECANCELED);
    assert_false(call.output.present);

    call_make(&call, &client, 1); /* The context is usable afterwards. */
    call_submit(&call, &client);
    client_await(&client, &call.ended);
    assert_int_equal(call.request.status, WEIR_OK);
    tensor_release(&call.output);
    client_stop(&client);
    rig_stop(&rig);
}

static void test_a_deadline_answers_before_the_run_ends(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "hang_at", "1" } };
    struct rig rig;
    struct client client;
    struct call call;
    start(&rig, settings, 1);
    client_start(&client, &rig);
    uint64_t patience_ns = 10 * NS_PER_MS;
    do { /* Until the run has begun before the deadline: on a busy machine it may be late itself. */
        patience_ns *= 2;
        call_make(&call, &client, 0);
        call.request.deadline_ns = clock_add(clock_now_ns(&rig.clock), patience_ns);
        call_submit(&call, &client);
        client_await(&client, &call.ended);
        assert_int_equal(call.request.status, WEIR_ETIMEOUT);
    } while (!call.late);
    client_stop(&client);
    rig_stop(&rig);
}

static void test_a_full_line_refuses_at_once(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "hang_at", "1" } };
    struct rig rig;
    struct client client;
    struct call calls[3];
    struct weir_err err = { 0 };
    load_on(&rig, &two_executors, settings, 1);
    rig.config.instances = 1;
    rig.config.requests_max = 1;
    rig_adopt(&rig);
    client_start(&client, &rig);
    for (int i = 0; i < 3; i++) {
        call_make(&calls[i], &client, (float)i);
    }
    call_submit(&calls[0], &client);
    home_turn(&client.home);
    await_running(&rig);
    call_submit(&calls[1], &client);
    assert_int_equal(engine_submit(rig.engine, &calls[2].request, &err), WEIR_EFULL);
    assert_non_null(strstr(err.text, "'m'"));
    assert_in_range(engine_retry_after_s(rig.engine, &rig.model), 1, 60);
    engine_cancel(rig.engine, &calls[0].request);
    client_await(&client, &calls[1].ended);
    assert_true(calls[0].ended);
    assert_false(calls[2].ended);
    assert_int_equal(calls[1].request.status, WEIR_OK);
    tensor_release(&calls[1].output);
    client_stop(&client);
    rig_stop(&rig);
}

static void test_unread_parts_hold_the_run_back(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "parts", "10" }, { "tau0", "1us" } };
    struct rig rig;
    struct client client;
    struct call call;
    start(&rig, settings, 2);
    rig.limits.parts_max = 3;
    client_start(&client, &rig);
    call_make(&call, &client, 5);
    call_submit(&call, &client);
    home_turn(&client.home);
    uint32_t read = 0;
    while (!call.ended) {
        client_turn(&client);
        assert_true(call.parts - read <= 3);
        assert_true(!call.ended || call.parts == 10);
        for (; read < call.parts; read++) {
            assert_memory_equal(call.unread[read]->outputs[0].data, call.values,
                                sizeof(call.values));
            request_part_release(call.unread[read]);
        }
    }
    assert_int_equal(call.request.status, WEIR_OK);
    assert_int_equal(call.parts, 10);
    client_stop(&client);
    rig_stop(&rig);
}

static void test_cancel_frees_a_run_that_waits_for_its_reader(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "parts", "10" }, { "tau0", "1us" } };
    struct rig rig;
    struct client client;
    struct call call;
    start(&rig, settings, 2);
    rig.limits.parts_max = 2;
    client_start(&client, &rig);
    call_make(&call, &client, 5);
    call_submit(&call, &client);
    home_turn(&client.home);
    while (call.parts < 2) {
        client_turn(&client);
    }
    engine_cancel(rig.engine, &call.request);
    client_await(&client, &call.ended);
    assert_int_equal(call.request.status, WEIR_ECANCELED);
    assert_int_equal(call.parts, 2);
    request_part_release(call.unread[0]);
    request_part_release(call.unread[1]);
    client_stop(&client);
    rig_stop(&rig);
}

static void test_a_draining_engine_finishes_what_it_took(void **state)
{
    (void)state;
    struct rig rig;
    struct client client;
    struct call calls[2];
    struct weir_err err = { 0 };
    start(&rig, NULL, 0);
    client_start(&client, &rig);
    call_make(&calls[0], &client, 0);
    call_make(&calls[1], &client, 1);
    call_submit(&calls[0], &client);
    engine_drain(rig.engine);
    assert_int_equal(engine_submit(rig.engine, &calls[1].request, &err), WEIR_EDRAINING);
    client_await(&client, &calls[0].ended);
    assert_int_equal(calls[0].request.status, WEIR_OK);
    tensor_release(&calls[0].output);
    client_stop(&client);
    rig_stop(&rig);
}

/* What does not fit the model is refused with a sentence that names the input. */
static void test_requests_are_checked_against_their_model(void **state)
{
    (void)state;
    struct rig rig;
    struct client client;
    struct call call;
    struct weir_err err = { 0 };
    start(&rig, NULL, 0);
    client_start(&client, &rig);

    call_make(&call, &client, 0);
    call.input.dtype = DTYPE_INT32;
    assert_int_equal(engine_submit(rig.engine, &call.request, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "'x'"));
    assert_non_null(strstr(err.text, "INT32"));
    assert_non_null(strstr(err.text, "FP32"));

    call_make(&call, &client, 0);
    call.input.shape.dims[1] = ROW - 1;
    assert_int_equal(engine_submit(rig.engine, &call.request, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "[1,15]"));
    assert_non_null(strstr(err.text, "[-1,16]"));

    call_make(&call, &client, 0);
    call.input.size = 63;
    assert_int_equal(engine_submit(rig.engine, &call.request, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "63"));

    call_make(&call, &client, 0);
    call.input.shape.dims[0] = 9;
    call.input.size = 9 * ROW * sizeof(float);
    assert_int_equal(engine_submit(rig.engine, &call.request, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "<= 8"));

    call_make(&call, &client, 0);
    call.input.present = false;
    assert_int_equal(engine_submit(rig.engine, &call.request, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "missing"));

    call_make(&call, &client, 0);
    call.request.deadline_ns = 1;
    assert_int_equal(engine_submit(rig.engine, &call.request, &err), WEIR_ETIMEOUT);
    client_stop(&client);
    rig_stop(&rig);
}

/* Host work above the device's asks for a deeper pipeline: instances and executors are made while
 * it runs. */
static void test_a_pipeline_gets_as_deep_as_it_must(void **state)
{
    (void)state;
    static const struct device_options device = { .name = "cpu",
                                                  .executors = 1,
                                                  .pipelined = true };
    static const struct setting settings[] = { { "tau0", "20us" },
                                               { "prepare", "400us" },
                                               { "finish", "400us" } };
    struct rig rig;
    load_on(&rig, &device, settings, 3);
    rig.config.max_batch_size = 1; /* A run each, so that there are enough of them. */
    rig.model.batching = false;
    rig_adopt(&rig);
    run_clients_on(&rig);
    struct pool *pool = rig.model.pool;
    pthread_mutex_lock(&pool->lock); /* They stay, however deep it is by what the last runs took. */
    assert_int_equal(pool->thread_count, STAGE_DEPTH_MAX);
    assert_int_equal(rig.model.slot_count, STAGE_DEPTH_MAX);
    pthread_mutex_unlock(&pool->lock);
    rig_stop(&rig);
}

static void await_idle(struct pool *pool)
{
    for (bool idle = false; !idle;) {
        pthread_mutex_lock(&pool->lock);
        idle = pool->idle_count == pool->thread_count;
        pthread_mutex_unlock(&pool->lock);
        sched_yield();
    }
}

/* How often the executors of this process have gone to sleep. */
static uint64_t executor_sleeps(void)
{
    uint64_t sleeps = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (const struct dirent *task = readdir(tasks); task != NULL; task = readdir(tasks)) {
        char path[300];
        char line[128];
        bool executor = false;
        (void)snprintf(path, sizeof(path), "/proc/self/task/%s/status", task->d_name);
        FILE *file = fopen(path, "r");
        while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
            unsigned long long count = 0;
            executor = executor || strncmp(line, "Name:\tweir-", 11) == 0;
            if (executor && sscanf(line, "voluntary_ctxt_switches: %llu", &count) == 1) {
                sleeps += count;
            }
        }
        if (file != NULL) {
            (void)fclose(file);
        }
    }
    (void)closedir(tasks);
    return sleeps;
}

/* Requests came so close to each other that executors looked out for more; none come now. */
static void test_idle_executors_sleep(void **state)
{
    (void)state;
    static const struct setting settings[] = { { "tau0", "10us" } };
    struct rig rig;
    start(&rig, settings, 1);
    rig.model.pool->cpu_count = 8; /* Also on a machine with fewer. */
    run_clients_on(&rig);
    await_idle(rig.model.pool);
    uint64_t before = 0;
    uint64_t after = executor_sleeps();
    for (int i = 0; i < 100 && before != after; i++) { /* To the end of their way to sleep. */
        before = after;
        (void)poll(NULL, 0, 100);
        after = executor_sleeps();
    }
    assert_true(before > 0);
    assert_int_equal(after, before); /* Nothing is awaited: nothing happens. */
    await_idle(rig.model.pool);
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_threads_get_their_own_answers),
        cmocka_unit_test(test_clients_that_leave_harm_nobody),
        cmocka_unit_test(test_short_runs_are_made_by_their_homes),
        cmocka_unit_test(test_cancel_stops_a_run_that_hangs),
        cmocka_unit_test(test_a_deadline_answers_before_the_run_ends),
        cmocka_unit_test(test_a_full_line_refuses_at_once),
        cmocka_unit_test(test_unread_parts_hold_the_run_back),
        cmocka_unit_test(test_cancel_frees_a_run_that_waits_for_its_reader),
        cmocka_unit_test(test_a_draining_engine_finishes_what_it_took),
        cmocka_unit_test(test_requests_are_checked_against_their_model),
        cmocka_unit_test(test_a_pipeline_gets_as_deep_as_it_must),
        cmocka_unit_test(test_idle_executors_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
