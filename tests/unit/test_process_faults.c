/*
 * Memory runs out around models in processes of their own: here, or in the process.
 *
 * Each allocation of a load, a context and a run fails in turn, on either side.  What fails says
 * why; the same process carries the next run, and the next load serves.  Needs -Dalloc_fault=true;
 * other builds skip.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "backend/backend.h"
#include "backend/process_child.h"
#include "backend/process_watch.h"
#include "faults.h"
#include "ride.h"

#define NTH_MAX 1000
#define QUIET_MAX 25 /* So many in a row without an effect: there are no more. */
#define WIDTH 16
#define ROWS_MAX 512
#define SETTINGS_MAX 4
#define TENSORS_MAX 2
#define NTH_VARIABLE "FAULT_PAGE"

static struct clock real_clock;
static struct block_pool *pool;

/* Which allocation of a process that begins is to fail; in memory that zygote and processes see. */
static _Atomic uint64_t *far_nth;
static char page_path[64];

static bool map_page(const char *path)
{
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    void *page = fd < 0 ? MAP_FAILED
                        : mmap(NULL, sizeof(*far_nth), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) {
        (void)close(fd);
    }
    far_nth = page == MAP_FAILED ? NULL : page;
    return far_nth != NULL;
}

/* In each process, right after the fork. */
static void arm_process(void)
{
    (void)mem_fault_arm(atomic_load(far_nth));
}

static int run_zygote(void)
{
    const char *path = getenv(NTH_VARIABLE);
    if (path == NULL || !map_page(path)) {
        return EXIT_FAILURE;
    }
    (void)mem_fault_arm(0);
    (void)pthread_atfork(NULL, NULL, arm_process);
    return process_zygote();
}

/* --- Kinds of models ------------------------------------------------------------------------ */

struct kind {
    const char *backend;
    const char *model; /* Of tests/data/models, or NULL. */
    uint32_t columns;
    bool streams;
    struct setting settings[SETTINGS_MAX];
    struct backend_isolation isolation;
};

static const struct kind kinds[] = {
    { "sim", NULL, WIDTH, false, { { "tau0", "0" } }, { .scope = ISOLATION_MODEL } },
    { "sim",
      NULL,
      WIDTH,
      true,
      { { "tau0", "0" }, { "parts", "3" } },
      { .scope = ISOLATION_MODEL } },
    { "sim",
      NULL,
      WIDTH,
      false,
      { { "tau0", "0" }, { "prepare", "10us" }, { "finish", "10us" } },
      { .scope = ISOLATION_GROUP, .group = "together" } },
    { "onnxruntime", "double_it", 4, false, { { NULL, NULL } }, { .scope = ISOLATION_MODEL } },
};

#define KIND_COUNT (sizeof(kinds) / sizeof(kinds[0]))

struct loaded {
    struct backend_model *model;
    struct backend_context *context;
};

static enum weir_status load(const struct kind *kind, struct loaded *out, struct weir_err *err)
{
    struct backend_load how = {
        .model_name = "m",
        .version = 3,
        .folder_fd = -1,
        .device = "cpu",
        .intra_threads = 1,
        .contexts_max = 4,
        .settings = kind->settings,
        .file_bytes_max = 1 << 30,
        .clock = &real_clock,
        .blocks = pool,
        .isolation = &kind->isolation,
    };
    *out = (struct loaded){ 0 };
    while (how.setting_count < SETTINGS_MAX && kind->settings[how.setting_count].key != NULL) {
        how.setting_count++;
    }
    if (kind->model != NULL) {
        char path[1024];
        (void)snprintf(path, sizeof(path), "%s/models/%s/1", getenv("WEIR_TEST_DATA"), kind->model);
        how.folder_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(how.folder_fd >= 0);
    }
    enum weir_status status = backend_load(backend_find(kind->backend), &how, &out->model, err);
    if (how.folder_fd >= 0) {
        (void)close(how.folder_fd);
    }
    if (status == WEIR_OK) {
        status = backend_context_create(out->model, &out->context, err);
    }
    return status;
}

static void unload(struct loaded *loaded)
{
    if (loaded->context != NULL) {
        backend_context_destroy(loaded->context);
    }
    if (loaded->model != NULL) {
        backend_unload(loaded->model);
    }
}

static enum weir_status take_part(struct backend_run *run)
{
    tensor_release(&run->outputs[0]);
    return WEIR_OK;
}

static enum weir_status run(const struct kind *kind, const struct loaded *loaded, uint64_t rows,
                            struct weir_err *err)
{
    static float data[ROWS_MAX * WIDTH];
    static const bool wanted[TENSORS_MAX] = { true, true };
    struct tensor outputs[TENSORS_MAX] = { 0 };
    struct tensor input = {
        .dtype = DTYPE_FP32,
        .shape = { 2, { (int64_t)rows, kind->columns } },
        .data = (uint8_t *)data,
        .size = rows * kind->columns * sizeof(float),
        .present = true,
    };
    struct backend_run r = { .rows = rows,
                             .inputs = &input,
                             .outputs = outputs,
                             .wanted = wanted,
                             .part = kind->streams ? take_part : NULL };
    enum weir_status status = backend_prepare(loaded->context, &r, err);
    status = status == WEIR_OK ? backend_run(loaded->context, &r, err) : status;
    status = status == WEIR_OK ? backend_finish(loaded->context, &r, err) : status;
    assert_true(status != WEIR_OK || kind->streams || outputs[0].size == input.size);
    tensor_release(&outputs[0]);
    tensor_release(&outputs[1]);
    return status;
}

static void expect_ok(enum weir_status status, const struct weir_err *err)
{
    if (status != WEIR_OK) {
        fail_msg("%s", err->text);
    }
}

static void expect_said(const struct kind *kind, uint64_t nth, const struct weir_err *err)
{
    /* A process that cannot even begin ends. */
    if (strstr(err->text, "memory") == NULL && strstr(err->text, "process ended") == NULL) {
        fail_msg("%s, allocation %u: '%s'", kind->backend, (unsigned)nth, err->text);
    }
}

static uint64_t made;

static void disarm_here(void)
{
    made = mem_fault_arm(0);
}

static void disarm_there(void)
{
    atomic_store(far_nth, 0); /* Of the processes to come. */
}

/* A load, a small run and one for which its channel has to grow; true: all went well.  What comes
 * next, by the same process if there is one, succeeds. */
static bool go_through(const struct kind *kind, uint64_t nth, void (*disarm)(void))
{
    struct loaded loaded;
    struct weir_err err = { 0 };
    bool well = load(kind, &loaded, &err) == WEIR_OK;
    const bool serves = well;
    if (serves) {
        well = run(kind, &loaded, 1, &err) == WEIR_OK;
        well = run(kind, &loaded, ROWS_MAX, &err) == WEIR_OK && well;
    }
    disarm();
    if (!well) {
        expect_said(kind, nth, &err);
    }
    if (!serves) {
        unload(&loaded);
        expect_ok(load(kind, &loaded, &err), &err);
    }
    if (!well || disarm == disarm_here) { /* Else the process may have its failure before it. */
        expect_ok(run(kind, &loaded, 1, &err), &err);
        expect_ok(run(kind, &loaded, ROWS_MAX, &err), &err);
    }
    unload(&loaded);
    return well;
}

static void test_memory_runs_out_here(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        skip();
    }
    for (size_t i = 0; i < KIND_COUNT; i++) {
        uint64_t nth = 0;
        do {
            assert_true(++nth < NTH_MAX);
            (void)mem_fault_arm(nth);
            (void)go_through(&kinds[i], nth, disarm_here);
        } while (made >= nth);
        assert_true(nth > 10);
    }
}

static void test_memory_runs_out_there(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        skip();
    }
    for (size_t i = 0; i < KIND_COUNT; i++) {
        if (kinds[i].model != NULL) {
            continue; /* The runtime's start takes long, and its allocations fail here, too. */
        }
        uint32_t failures = 0;
        uint32_t quiet = 0;
        for (uint64_t nth = 1; nth < NTH_MAX && quiet < QUIET_MAX; nth++) {
            atomic_store(far_nth, nth);
            const bool well = go_through(&kinds[i], nth, disarm_there);
            quiet = well ? quiet + 1 : 0;
            failures += well ? 0 : 1;
        }
        assert_true(failures > 5);
    }
}

static int start(void **state)
{
    (void)state;
    strcpy(page_path, "/tmp/weir-test-faults-XXXXXX");
    const int fd = mkstemp(page_path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, sizeof(*far_nth)), 0);
    (void)close(fd);
    assert_true(map_page(page_path));
    assert_int_equal(setenv(NTH_VARIABLE, page_path, 1), 0);
    pool = ride_start(&real_clock);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    ride_stop(pool);
    (void)munmap((void *)far_nth, sizeof(*far_nth));
    (void)unlink(page_path);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], PROCESS_ZYGOTE_WORD) == 0) {
        return run_zygote();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_runs_out_here),
        cmocka_unit_test(test_memory_runs_out_there),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
