#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "backend/backend.h"
#include "backend/process_check.h"
#include "backend/process_child.h"
#include "backend/process_inputs.h"
#include "backend/process_layout.h"
#include "backend/process_memory.h"
#include "backend/process_watch.h"
#include "backend/reshape.h"
#include "ride.h"
#include "util/mem.h"

#define SETTINGS_MAX 8

static struct clock real_clock;
static struct block_pool *pool;

static struct backend_isolation of_model = { .scope = ISOLATION_MODEL };

static struct backend_model *load(const struct setting *settings,
                                  const struct backend_isolation *isolation)
{
    return ride_load(settings, &real_clock, pool, isolation);
}

static struct ride ride;

static struct ride *run_rows(struct backend_context *context, uint64_t rows)
{
    ride.probation = false;
    (void)ride_rows(&ride, context, rows);
    return &ride;
}

static void expect_echo(const struct ride *t)
{
    if (t->status != WEIR_OK) {
        fail_msg("%s", t->err.text);
    }
    assert_true(t->output.present);
    assert_int_equal(t->output.shape.dims[0], t->rows);
    assert_int_equal(t->output.size, t->rows * RIDE_WIDTH * sizeof(float));
    assert_memory_equal(t->output.data, t->data, t->output.size);
}

/* ---- Processes of this test ------------------------------------------------------------------ */

static pid_t parent_of(pid_t pid)
{
    char path[64];
    char text[512];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    const size_t size = fread(text, 1, sizeof(text) - 1, file);
    (void)fclose(file);
    text[size] = '\0';
    const char *end = strrchr(text, ')');
    char state;
    int parent = 0;
    return end != NULL && sscanf(end + 1, " %c %d", &state, &parent) == 2 && state != 'Z' ? parent
                                                                                          : 0;
}

/* The grandchildren: models' processes.  Returns how many, and one of them. */
static uint32_t processes(pid_t *one)
{
    uint32_t count = 0;
    DIR *folder = opendir("/proc");
    assert_non_null(folder);
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        const pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        const pid_t parent = pid > 0 ? parent_of(pid) : 0;
        if (parent > 1 && parent_of(parent) == getpid()) {
            count++;
            *one = pid;
        }
    }
    (void)closedir(folder);
    return count;
}

static pid_t only_process(void)
{
    pid_t pid = 0;
    assert_int_equal(processes(&pid), 1);
    return pid;
}

static bool is_stopped(const char *stat_path)
{
    char state = 0;
    FILE *file = fopen(stat_path, "re");
    const int found = file == NULL ? 0 : fscanf(file, "%*d %*s %c", &state);
    if (file != NULL) {
        (void)fclose(file);
    }
    return found == 1 && state == 'T';
}

/* Stops the process; until all of its threads stand still. */
static void freeze(pid_t pid)
{
    assert_int_equal(kill(pid, SIGSTOP), 0);
    char path[320];
    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    for (bool all = false; !all;) {
        DIR *tasks = opendir(path);
        assert_non_null(tasks);
        all = true;
        for (const struct dirent *task = readdir(tasks); task != NULL; task = readdir(tasks)) {
            char stat_path[640];
            (void)snprintf(stat_path, sizeof(stat_path), "%s/%s/stat", path, task->d_name);
            all = all && (task->d_name[0] == '.' || is_stopped(stat_path));
        }
        (void)closedir(tasks);
        (void)usleep(1000);
    }
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void expect_carried(const struct setting *settings)
{
    struct backend_model *model = load(settings, &of_model);
    struct backend_context *context = ride_context(model);
    static const uint64_t rows[] = { 1, 7, RIDE_ROWS_MAX, 2, 0 };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        expect_echo(run_rows(context, rows[i]));
        assert_int_equal(ride.run.death, DEATH_NONE);
    }
    struct backend_memory memory;
    backend_memory(model, &memory);
    assert_true(memory.process_bytes > 0);
    assert_int_equal(memory.restarts, 0);
    tensor_release(&ride.output);
    backend_context_destroy(context);
    backend_unload(model);
    pid_t pid;
    assert_int_equal(processes(&pid), 0);
}

static void test_runs_are_carried_whatever_their_size(void **state)
{
    (void)state;
    static const struct setting plain[SETTINGS_MAX] = { { "tau0", "0" } };
    static const struct setting staged[SETTINGS_MAX] = { { "tau0", "0" },
                                                         { "prepare", "10us" },
                                                         { "finish", "10us" } };
    expect_carried(plain);
    expect_carried(staged);
}

static void test_a_failure_keeps_its_status_and_sentence(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "0" }, { "poison", "13" } };
    struct backend_model *model = load(settings, &of_model);
    struct backend_context *context = ride_context(model);
    assert_int_equal(run_rows(context, 1)->status, WEIR_EINVAL);
    assert_non_null(strstr(ride.err.text, "poison"));
    assert_int_equal(ride.run.death, DEATH_NONE);
    backend_context_destroy(context);
    backend_unload(model);
    static const struct setting broken[SETTINGS_MAX] = { { "load_fails", "no such network" } };
    struct weir_err err = { 0 };
    assert_int_equal(ride_try_load(broken, &real_clock, pool, &of_model, &model, &err),
                     WEIR_EINVAL);
    assert_non_null(strstr(err.text, "no such network"));
}

static void test_a_crash_is_told_and_the_next_run_has_a_new_process(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "0" }, { "crash_at", "2" } };
    struct backend_model *model = load(settings, &of_model);
    struct backend_context *context = ride_context(model);
    expect_echo(run_rows(context, 1));
    assert_int_equal(run_rows(context, 1)->status, WEIR_EBACKEND);
    assert_int_equal(ride.run.death, DEATH_FAULT);
    assert_non_null(strstr(ride.err.text, "Aborted"));
    assert_false(ride.output.present);
    expect_echo(run_rows(context, 1));
    struct backend_memory memory;
    backend_memory(model, &memory);
    assert_int_equal(memory.restarts, 1);
    tensor_release(&ride.output);
    backend_context_destroy(context);
    backend_unload(model);
}

/* Of several runs in a process that crashes only the one is blamed in which it did. */
static void test_only_the_guilty_run_is_blamed(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "10s" },
                                                           { "exclusive", "false" },
                                                           { "crash_at", "2" } };
    static struct ride bystander;
    struct backend_model *model = load(settings, &of_model);
    bystander = (struct ride){ .context = ride_context(model), .rows = 1 };
    struct backend_context *context = ride_context(model);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ride_main, &bystander), 0);
    (void)usleep(50000); /* It is the model's first run, unless this machine is very busy. */
    assert_int_equal(run_rows(context, 1)->status, WEIR_EBACKEND);
    (void)pthread_join(thread, NULL);
    assert_int_equal(bystander.status, WEIR_EBACKEND);
    assert_int_equal((ride.run.death == DEATH_FAULT) + (bystander.run.death == DEATH_FAULT), 1);
    assert_int_equal((ride.run.death == DEATH_KILLED) + (bystander.run.death == DEATH_KILLED), 1);
    assert_int_equal(ride.run.told + bystander.run.told, DEATH_FAULT); /* By one of them. */
    backend_context_destroy(bystander.context);
    backend_context_destroy(context);
    backend_unload(model);
}

static void test_a_kill_from_outside_blames_nobody(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "60s" },
                                                           { "prepare", "1us" } };
    static struct ride killed;
    struct backend_model *model = load(settings, &of_model);
    killed = (struct ride){ .context = ride_context(model), .rows = 1 };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ride_main, &killed), 0);
    while (!killed.prepared) {
        (void)usleep(1000);
    }
    assert_int_equal(kill(only_process(), SIGKILL), 0);
    (void)pthread_join(thread, NULL);
    assert_int_equal(killed.status, WEIR_EBACKEND);
    assert_int_equal(killed.run.death, DEATH_KILLED);
    assert_false(backend_death_suspects(killed.run.death));
    backend_context_destroy(killed.context);
    backend_unload(model);
}

/* Though their runs were under way at the same time, none is taken for another one. */
static void test_the_end_of_each_process_is_told(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "60s" },
                                                           { "exclusive", "false" },
                                                           { "prepare", "1us" } };
    static struct backend_isolation of_instance = { .scope = ISOLATION_INSTANCE };
    static struct ride killed[2];
    struct backend_model *model = load(settings, &of_instance);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        killed[i] = (struct ride){ .context = ride_context(model), .rows = 1 };
        assert_int_equal(pthread_create(&threads[i], NULL, ride_main, &killed[i]), 0);
    }
    while (!killed[0].prepared || !killed[1].prepared) {
        (void)usleep(1000);
    }
    for (pid_t pid; processes(&pid) > 0;) {
        (void)kill(pid, SIGKILL); /* It may have gone just now. */
    }
    for (int i = 0; i < 2; i++) {
        (void)pthread_join(threads[i], NULL);
        assert_int_equal(killed[i].run.told, DEATH_KILLED);
        backend_context_destroy(killed[i].context);
    }
    backend_unload(model);
}

static void test_a_run_over_its_limit_is_stopped(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "0" }, { "hang_at", "1" } };
    const struct backend_isolation limited = { .run_limit_ns = 2 * NS_PER_S };
    struct backend_model *model = load(settings, &limited);
    struct backend_context *context = ride_context(model);
    const pid_t before = only_process();
    assert_int_equal(run_rows(context, 1)->status, WEIR_EBACKEND);
    assert_int_equal(ride.run.death, DEATH_HUNG);
    assert_non_null(strstr(ride.err.text, "limit of 2000 ms"));
    expect_echo(run_rows(context, 1));
    assert_int_equal(only_process(), before); /* It heeded. */
    tensor_release(&ride.output);
    backend_context_destroy(context);
    backend_unload(model);
}

static void test_a_run_that_does_not_stop_is_ended(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "10s" } };
    static struct ride deaf;
    const struct backend_isolation limited = { .run_limit_ns = 50 * NS_PER_MS };
    struct backend_model *model = load(settings, &limited);
    deaf = (struct ride){ .context = ride_context(model), .rows = 1 };
    pthread_t thread;
    freeze(only_process());
    assert_int_equal(pthread_create(&thread, NULL, ride_main, &deaf), 0);
    (void)pthread_join(thread, NULL);
    assert_int_equal(deaf.status, WEIR_EBACKEND);
    assert_int_equal(deaf.run.death, DEATH_HUNG);
    backend_context_destroy(deaf.context);
    backend_unload(model);
}

static void test_a_frozen_process_is_replaced(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "0" } };
    struct backend_model *model = load(settings, &of_model);
    struct backend_context *context = ride_context(model);
    expect_echo(run_rows(context, 1));
    freeze(only_process());
    assert_int_equal(run_rows(context, 1)->status, WEIR_EBACKEND);
    assert_int_equal(ride.run.death, DEATH_FROZEN);
    expect_echo(run_rows(context, 1));
    tensor_release(&ride.output);
    backend_context_destroy(context);
    backend_unload(model);
}

static void test_terminate_reaches_the_run(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "10s" } };
    static struct ride stopped;
    struct backend_model *model = load(settings, &of_model);
    stopped = (struct ride){ .context = ride_context(model), .rows = 1 };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ride_main, &stopped), 0);
    (void)usleep(20000);
    backend_terminate(stopped.context);
    (void)pthread_join(thread, NULL);
    assert_int_equal(stopped.status, WEIR_ECANCELED);
    assert_int_equal(stopped.run.death, DEATH_NONE);
    backend_terminate(stopped.context); /* Stays set: the next one ends, too. */
    (void)ride_main(&stopped);
    assert_int_equal(stopped.status, WEIR_ECANCELED);
    backend_rearm(stopped.context);
    backend_context_destroy(stopped.context);
    backend_unload(model);
}

static uint64_t parts_wanted;

static enum weir_status count_part(struct backend_run *run)
{
    assert_true(run->outputs[0].present);
    tensor_release(&run->outputs[0]);
    ride.rows++;
    return ride.rows == parts_wanted ? WEIR_ECANCELED : WEIR_OK;
}

/* Takes so many parts and refuses the rest; how the run ends. */
static enum weir_status stream(struct backend_context *context, uint64_t wanted)
{
    static float data[RIDE_WIDTH] = { 1 };
    const struct tensor input = {
        .dtype = DTYPE_FP32,
        .shape = { 2, { 1, RIDE_WIDTH } },
        .data = (uint8_t *)data,
        .size = sizeof(data),
        .present = true,
    };
    struct tensor output = { 0 };
    struct backend_run run = {
        .rows = 1, .inputs = &input, .outputs = &output, .wanted = ride_wanted, .part = count_part
    };
    ride.rows = 0;
    parts_wanted = wanted;
    assert_int_equal(backend_prepare(context, &run, NULL), WEIR_OK);
    return backend_run(context, &run, NULL);
}

static void test_parts_come_one_by_one_and_can_be_refused(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "0" }, { "parts", "5" } };
    struct backend_model *model = load(settings, &of_model);
    assert_true(backend_signature(model)->streams);
    struct backend_context *context = ride_context(model);
    assert_int_equal(stream(context, 3), WEIR_ECANCELED);
    assert_int_equal(ride.rows, 3);
    assert_int_equal(stream(context, UINT64_MAX), WEIR_OK);
    assert_int_equal(ride.rows, 5);
    backend_context_destroy(context);
    backend_unload(model);
}

static void test_what_shares_a_process(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "0" } };
    const struct backend_isolation group = { .scope = ISOLATION_GROUP, .group = "g" };
    const struct backend_isolation each = { .scope = ISOLATION_INSTANCE };
    pid_t pid;
    struct backend_model *one = load(settings, &group);
    struct backend_model *two = load(settings, &group);
    struct backend_context *first = ride_context(one);
    struct backend_context *second = ride_context(two);
    assert_int_equal(processes(&pid), 1);
    expect_echo(run_rows(first, 1));
    backend_context_destroy(first);
    backend_unload(one);
    expect_echo(run_rows(second, 2)); /* Others stay. */
    backend_context_destroy(second);
    backend_unload(two);
    assert_int_equal(processes(&pid), 0);
    one = load(settings, &each);
    first = ride_context(one);
    second = ride_context(one);
    assert_int_equal(processes(&pid), 2);
    expect_echo(run_rows(first, 1));
    expect_echo(run_rows(second, 1));
    tensor_release(&ride.output);
    backend_context_destroy(first);
    backend_context_destroy(second);
    assert_int_equal(processes(&pid), 1); /* Kept for the next context. */
    backend_unload(one);
    assert_int_equal(processes(&pid), 0);
}

static void test_probation_has_a_process_of_its_own(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "0" }, { "crash_at", "2" } };
    struct backend_model *model = load(settings, &of_model);
    struct backend_context *context = ride_context(model);
    expect_echo(run_rows(context, 1));
    ride.probation = true;
    (void)ride_main(&ride);
    expect_echo(&ride); /* The first run of that process. */
    (void)only_process();
    ride.probation = false;
    assert_int_equal(run_rows(context, 1)->run.death, DEATH_FAULT);
    backend_context_destroy(context);
    backend_unload(model);
}

static void test_each_death_is_told_and_each_run_gets_a_process(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "0" }, { "crash_at", "1" } };
    struct backend_model *model = load(settings, &of_model);
    struct backend_context *context = ride_context(model);
    for (uint32_t deaths = 1; deaths < 8; deaths++) {
        assert_int_equal(run_rows(context, 1)->status, WEIR_EBACKEND);
        assert_int_equal(ride.run.death, DEATH_FAULT);
    }
    struct backend_memory memory;
    backend_memory(model, &memory);
    assert_int_equal(memory.restarts, 6);
    backend_context_destroy(context);
    backend_unload(model);
}

/* Until it is told to stop, kills every process as soon as it can be seen: at its start, while it
 * loads, in a run. */
static void *kill_all(void *stop)
{
    pid_t pid;
    while (!atomic_load((_Atomic bool *)stop)) {
        if (processes(&pid) > 0) {
            (void)kill(pid, SIGKILL);
        }
    }
    return NULL;
}

static void test_a_kill_at_any_time_blames_nobody(void **state)
{
    (void)state;
    static const struct setting settings[SETTINGS_MAX] = { { "tau0", "1ms" }, { "load", "3ms" } };
    struct backend_model *model = load(settings, &of_model);
    struct backend_context *context = ride_context(model);
    _Atomic bool stop = false;
    pthread_t killer;
    assert_int_equal(pthread_create(&killer, NULL, kill_all, &stop), 0);
    for (uint32_t i = 0; i < 30; i++) {
        if (run_rows(context, 1)->status != WEIR_OK && ride.run.death != DEATH_KILLED) {
            fail_msg("%s", ride.err.text);
        }
    }
    atomic_store(&stop, true);
    (void)pthread_join(killer, NULL);
    while (run_rows(context, 1)->run.death == DEATH_KILLED) { /* The last kill. */
    }
    expect_echo(&ride);
    tensor_release(&ride.output);
    backend_context_destroy(context);
    backend_unload(model);
}

static void test_what_a_process_says_is_checked(void **state)
{
    (void)state;
    const struct tensor_spec spec = { .name = "y", .dtype = DTYPE_FP32, .shape = { 2, { -1, 4 } } };
    static uint8_t area[1024];
    const struct process_tensor good = {
        .present = 1, .dtype = DTYPE_FP32, .rank = 2, .offset = 64, .size = 32, .dims = { 2, 4 }
    };
    struct tensor out;
    assert_int_equal(process_check(&spec, &good, area, sizeof(area), &out, NULL), WEIR_OK);
    assert_ptr_equal(out.data, area + 64);
    assert_int_equal(out.size, 32);
    struct process_tensor lies[] = { good, good, good, good, good, good, good, good, good, good };
    lies[0].dtype = DTYPE_FP64;
    lies[1].dtype = UINT32_MAX;
    lies[2].rank = TENSOR_RANK_MAX + 1;
    lies[3].dims[1] = 5;
    lies[4].dims[0] = -2;
    lies[5].dims[0] = INT64_MAX;
    lies[6].offset = 63;
    lies[7].offset = UINT64_MAX - 63;
    lies[8].offset = 1024;
    lies[9].size = 31;
    for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
        struct weir_err err = { 0 };
        if (process_check(&spec, &lies[i], area, sizeof(area), &out, &err) != WEIR_EBACKEND) {
            fail_msg("lie %zu is believed", i);
        }
        assert_non_null(strstr(err.text, "'y'"));
    }
    const struct tensor_spec text = { .name = "t", .dtype = DTYPE_BYTES, .any_rank = true };
    struct process_tensor words = { .present = 1, .dtype = DTYPE_BYTES, .size = 1025 };
    assert_int_equal(process_check(&text, &words, area, sizeof(area), &out, NULL), WEIR_EBACKEND);
    words.size = 1024;
    assert_int_equal(process_check(&text, &words, area, sizeof(area), &out, NULL), WEIR_OK);
    assert_int_equal(process_check_status(WEIR_EINVAL), WEIR_EINVAL);
    assert_int_equal(process_check_status(WEIR_EUNAUTH), WEIR_EBACKEND);
    assert_int_equal(process_check_status(UINT32_MAX), WEIR_EBACKEND);
}

static void test_shared_memory_keeps_its_size(void **state)
{
    (void)state;
    struct process_area ours = { 0 };
    struct process_area theirs = { 0 };
    int fd = -1;
    assert_int_equal(process_area_create(&ours, 4096, AREA_SHARED, &fd, NULL), WEIR_OK);
    assert_int_not_equal(ftruncate(fd, 0), 0);
    assert_int_not_equal(ftruncate(fd, 8192), 0);
    assert_int_equal(process_area_map(&theirs, 4096, fd, NULL), WEIR_OK);
    ours.data[7] = 42;
    assert_int_equal(theirs.data[7], 42);
    process_area_finish(&ours);
    process_area_finish(&theirs);
    FILE *file = tmpfile();
    assert_int_equal(process_area_map(&theirs, 1, dup(fileno(file)), NULL), WEIR_EIO);
    (void)fclose(file);
}

static void test_inputs_can_be_read_and_not_written(void **state)
{
    (void)state;
    struct process_area ours = { 0 };
    struct process_area theirs = { 0 };
    int fd = -1;
    assert_int_equal(process_area_create(&ours, 4096, AREA_READ_ONLY, &fd, NULL), WEIR_OK);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_equal(process_area_map(&theirs, 4096, fd, NULL), WEIR_OK);
    assert_int_not_equal(mprotect(theirs.data, 4096, PROT_READ | PROT_WRITE), 0);
    ours.data[7] = 42;
    assert_int_equal(theirs.data[7], 42);
    process_area_finish(&ours);
    process_area_finish(&theirs);
}

/* A tensor whose values are in the block. */
static struct tensor in_block(const struct block *block, uint64_t rows)
{
    return (struct tensor){
        .dtype = DTYPE_FP32,
        .shape = { 2, { (int64_t)rows, RIDE_WIDTH } },
        .data = block->data,
        .size = rows * RIDE_WIDTH * sizeof(float),
        .present = true,
    };
}

static void test_inputs_in_the_models_memory_are_not_copied(void **state)
{
    (void)state;
    const struct setting settings[] = { { NULL, NULL } };
    const size_t bytes = (size_t)RIDE_ROWS_MAX * RIDE_WIDTH * sizeof(float);
    struct backend_model *model = load(settings, &of_model);
    struct backend_context *context = ride_context(model);
    struct block *blocks[3];
    for (size_t i = 0; i < 3; i++) {
        blocks[i] = backend_input_block(model, 100, bytes);
        assert_non_null(blocks[i]);
        memset(blocks[i]->data - 100, 7, 100);
        for (size_t k = 0; k < bytes / sizeof(float); k++) {
            ((float *)(void *)blocks[i]->data)[k] = (float)(i * 1000 + k);
        }
    }
    for (size_t i = 0; i < 3; i++) {
        ride.context = context;
        ride.rows = RIDE_ROWS_MAX;
        ride.lent = in_block(blocks[i], RIDE_ROWS_MAX);
        expect_echo(ride_main(&ride));
        assert_int_equal(blocks[i]->data[-1], 7);
    }
    tensor_release(&ride.output);
    ride.lent = (struct tensor){ 0 };
    uint8_t *data = blocks[2]->data;
    block_release(blocks[2]);
    blocks[2] = backend_input_block(model, 100, bytes);
    assert_ptr_equal(blocks[2]->data, data);
    assert_null(backend_input_block(model, 0, 16));          /* Too little, */
    assert_null(backend_input_block(model, 0, SIZE_MAX));    /* too much, */
    assert_null(backend_input_block(model, 1 << 20, bytes)); /* too far in front. */
    backend_context_destroy(context);
    backend_unload(model);
    for (size_t i = 0; i < 3; i++) {
        memset(blocks[i]->data, 1, bytes); /* Its memory is there until it is released. */
        block_release(blocks[i]);
    }
    model = load(settings, NULL);
    assert_null(backend_input_block(model, 0, bytes));
    backend_unload(model);
}

static uint32_t take_all(struct process_inputs *inputs, size_t size, struct block **blocks)
{
    uint32_t count = 0;
    for (struct block *block = process_inputs_take(inputs, 0, size); block != NULL;
         block = process_inputs_take(inputs, 0, size)) {
        blocks[count++] = block;
    }
    return count;
}

/* However many requests of some sizes are held, others find memory, too. */
static void test_no_size_takes_all_of_the_models_memory(void **state)
{
    (void)state;
    static const size_t sizes[] = { 16 << 10, 32 << 10, 1 << 20, 8 << 20 };
    static struct block *blocks[4096];
    struct process_inputs *inputs = NULL;
    uint32_t count = 0;
    assert_int_equal(process_inputs_create(&inputs, NULL), WEIR_OK);
    for (size_t i = 0; i < 4; i++) {
        const uint32_t more = take_all(inputs, sizes[i], blocks + count);
        assert_true(more > 0);
        assert_true(more * sizes[i] <= process_inputs_size(inputs) / 2);
        count += more;
    }
    while (count > 0) {
        block_release(blocks[--count]);
    }
    process_inputs_close(inputs);
    assert_int_equal(process_inputs_create(&inputs, NULL), WEIR_OK);
    blocks[0] = process_inputs_take(inputs, 0, 32 << 20); /* More than a half, but the first. */
    assert_non_null(blocks[0]);
    assert_null(process_inputs_take(inputs, 0, 32 << 20));
    block_release(blocks[0]);
    process_inputs_close(inputs);
}

static void test_a_model_shown_in_other_shapes_has_its_memory(void **state)
{
    (void)state;
    const struct setting settings[] = { { NULL, NULL } };
    const struct reshape_rule rule = { .batched = true,
                                       .shown = { 2, { 1, RIDE_WIDTH } },
                                       .model = { 1, { RIDE_WIDTH } } };
    struct backend_model *model = NULL;
    assert_int_equal(reshape_wrap(load(settings, &of_model), &rule, 1, &model, NULL), WEIR_OK);
    struct block *block = backend_input_block(model, 0, 64 << 10);
    assert_non_null(block);
    block_release(block);
    backend_unload(model);
}

static void test_more_inputs_than_the_models_memory_has_are_copied(void **state)
{
    (void)state;
    struct process_inputs *inputs = NULL;
    assert_int_equal(process_inputs_create(&inputs, NULL), WEIR_OK);
    struct block *blocks[64];
    uint32_t count = 0;
    for (struct block *block = process_inputs_take(inputs, 0, 8 << 20); block != NULL && count < 64;
         block = process_inputs_take(inputs, 0, 8 << 20)) {
        blocks[count++] = block;
    }
    assert_in_range(count, 1, 63);
    float elsewhere[4] = { 1, 2, 3, 4 };
    struct tensor tensors[2] = { in_block(blocks[count - 1], 1), { 0 } };
    tensors[1] = tensors[0];
    tensors[1].data = (uint8_t *)elsewhere;
    tensors[1].size = sizeof(elsewhere);
    uint64_t bytes = 0;
    assert_true(process_layout_measure(tensors, 1, inputs, &bytes));
    assert_int_equal(bytes, 0);
    assert_true(process_layout_measure(tensors, 2, inputs, &bytes));
    assert_int_equal(bytes, MEM_ALIGN);
    uint8_t area[MEM_ALIGN];
    struct process_tensor said[2];
    process_layout_write(tensors, 2, inputs, area, said);
    assert_int_equal(said[0].lent, 1);
    assert_int_equal(said[1].lent, 0);
    assert_memory_equal(area + said[1].offset, elsewhere, sizeof(elsewhere));
    tensors[0].size = SIZE_MAX; /* What reaches beyond the memory is not in it. */
    assert_false(process_inputs_find(inputs, tensors[0].data, tensors[0].size, &bytes));
    process_inputs_close(inputs);
    while (count > 0) {
        block_release(blocks[--count]);
    }
}

static int start(void **state)
{
    (void)state;
    pool = ride_start(&real_clock);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    tensor_release(&ride.output);
    ride_stop(pool);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], PROCESS_ZYGOTE_WORD) == 0) {
        return process_zygote();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_are_carried_whatever_their_size),
        cmocka_unit_test(test_a_failure_keeps_its_status_and_sentence),
        cmocka_unit_test(test_a_crash_is_told_and_the_next_run_has_a_new_process),
        cmocka_unit_test(test_only_the_guilty_run_is_blamed),
        cmocka_unit_test(test_a_kill_from_outside_blames_nobody),
        cmocka_unit_test(test_the_end_of_each_process_is_told),
        cmocka_unit_test(test_a_run_over_its_limit_is_stopped),
        cmocka_unit_test(test_a_run_that_does_not_stop_is_ended),
        cmocka_unit_test(test_a_frozen_process_is_replaced),
        cmocka_unit_test(test_terminate_reaches_the_run),
        cmocka_unit_test(test_parts_come_one_by_one_and_can_be_refused),
        cmocka_unit_test(test_what_shares_a_process),
        cmocka_unit_test(test_probation_has_a_process_of_its_own),
        cmocka_unit_test(test_each_death_is_told_and_each_run_gets_a_process),
        cmocka_unit_test(test_a_kill_at_any_time_blames_nobody),
        cmocka_unit_test(test_what_a_process_says_is_checked),
        cmocka_unit_test(test_shared_memory_keeps_its_size),
        cmocka_unit_test(test_inputs_can_be_read_and_not_written),
        cmocka_unit_test(test_inputs_in_the_models_memory_are_not_copied),
        cmocka_unit_test(test_more_inputs_than_the_models_memory_has_are_copied),
        cmocka_unit_test(test_no_size_takes_all_of_the_models_memory),
        cmocka_unit_test(test_a_model_shown_in_other_shapes_has_its_memory),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
