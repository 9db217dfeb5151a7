#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <cmocka.h>

#include "backend/vanish.h"
#include "loaded.h"
#include "util/bytes.h"
#include "util/mem.h"

/* A layer of WIDTH x WIDTH weights, more than a model needs to be worth mapping. */
#define WIDTH 640
#define WEIGHTS_BYTES ((size_t)WIDTH * WIDTH * sizeof(float))

/* A folder with a model, and one for the cache. */
struct world {
    char root[64];
    char folder[96];
    char cache[96];
    struct backend_weights weights;
};

/* ---- A model --------------------------------------------------------------------------------- */

static void put_varint(struct buffer *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) {
        buffer_char(out, (char)(0x80 | (value & 0x7f)));
    }
    buffer_char(out, (char)value);
}

static void put_number(struct buffer *out, uint32_t field, uint64_t value)
{
    put_varint(out, (uint64_t)field << 3);
    put_varint(out, value);
}

static void put_bytes(struct buffer *out, uint32_t field, const void *data, size_t size)
{
    put_varint(out, (uint64_t)field << 3 | 2);
    put_varint(out, size);
    buffer_append(out, data, size);
}

static void put_text(struct buffer *out, uint32_t field, const char *text)
{
    put_bytes(out, field, text, strlen(text));
}

static void put_message(struct buffer *out, uint32_t field, struct buffer *message)
{
    put_bytes(out, field, message->data, message->size);
    buffer_finish(message);
}

static struct buffer message(void)
{
    struct buffer made;
    buffer_init(&made, (size_t)16 << 20);
    return made;
}

static void put_value(struct buffer *graph, uint32_t field, const char *name)
{
    struct buffer value = message();
    struct buffer type = message();
    struct buffer tensor = message();
    struct buffer shape = message();
    struct buffer rows = message();
    struct buffer width = message();
    put_text(&rows, 2, "batch");
    put_number(&width, 1, WIDTH);
    put_message(&shape, 1, &rows);
    put_message(&shape, 1, &width);
    put_number(&tensor, 1, 1);
    put_message(&tensor, 2, &shape);
    put_message(&type, 1, &tensor);
    put_text(&value, 1, name);
    put_message(&value, 2, &type);
    put_message(graph, field, &value);
}

static void put_node(struct buffer *graph, const char *kind, const char *in, const char *weight,
                     const char *out)
{
    struct buffer node = message();
    put_text(&node, 1, in);
    if (weight != NULL) {
        put_text(&node, 1, weight);
    }
    put_text(&node, 2, out);
    put_text(&node, 4, kind);
    put_message(graph, 1, &node);
}

static void write_file(const struct world *world, const char *name, const void *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", world->folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* The bytes of a tensor lie in a file beside the model. */
static void put_place(struct buffer *tensor, const char *file)
{
    struct buffer entry = message();
    put_text(&entry, 1, "location");
    put_text(&entry, 2, file);
    put_message(tensor, 13, &entry);
    put_number(tensor, 14, 1);
}

/* y = relu(x w), with weights that depend on `seed`, in the file or beside it. */
static void write_model(const struct world *world, uint32_t seed, bool beside)
{
    struct buffer graph = message();
    struct buffer tensor = message();
    struct buffer model = message();
    struct buffer opset = message();
    float *data = mem_try_alloc(WEIGHTS_BYTES);
    assert_non_null(data);
    for (uint32_t i = 0; i < WIDTH * WIDTH; i++) {
        seed = seed * 1664525U + 1013904223U;
        data[i] = (float)(seed >> 8) / (float)(1 << 24) - 0.5F;
    }
    put_number(&tensor, 1, WIDTH);
    put_number(&tensor, 1, WIDTH);
    put_number(&tensor, 2, 1);
    put_text(&tensor, 8, "w");
    if (beside) {
        write_file(world, "w.bin", data, WEIGHTS_BYTES);
        put_place(&tensor, "w.bin");
    } else {
        put_bytes(&tensor, 9, data, WEIGHTS_BYTES);
    }
    put_node(&graph, "MatMul", "x", "w", "m");
    put_node(&graph, "Relu", "m", NULL, "y");
    put_text(&graph, 2, "g");
    put_message(&graph, 5, &tensor);
    put_value(&graph, 11, "x");
    put_value(&graph, 12, "y");
    put_number(&model, 1, 8);
    put_message(&model, 7, &graph);
    put_text(&opset, 1, "");
    put_number(&opset, 2, 17);
    put_message(&model, 8, &opset);
    assert_false(model.failed);
    write_file(world, "model.onnx", model.data, model.size);
    buffer_finish(&model);
    mem_free(data);
}

/* ---- The world ------------------------------------------------------------------------------- */

static void sleep_ms(long ms)
{
    const struct timespec time = { ms / 1000, ms % 1000 * 1000000 };
    nanosleep(&time, NULL);
}

/* What changed just now is not converted; the only clock that counts is the file system's. */
static void let_it_settle(void)
{
    sleep_ms(150);
}

static void make_world(struct world *world)
{
    *world = (struct world){ .root = "/tmp/weir-weights-XXXXXX" };
    assert_non_null(mkdtemp(world->root));
    snprintf(world->folder, sizeof(world->folder), "%s/model", world->root);
    snprintf(world->cache, sizeof(world->cache), "%s/deep/cache", world->root);
    assert_int_equal(mkdir(world->folder, 0700), 0);
    world->weights = (struct backend_weights){
        .mode = WEIGHTS_AUTO,
        .on_demand = true,
        .promote_runs = 3,
        .cache_folder = world->cache,
        .cache_bytes_max = UINT64_C(1) << 30,
    };
    write_model(world, 1, false);
    let_it_settle();
}

static void end_world(const struct world *world)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", world->root);
    assert_int_equal(system(command), 0);
}

static enum weir_status try_load_here(const struct world *world,
                                      const struct backend_weights *weights,
                                      struct backend_model **out, struct weir_err *err)
{
    const int folder_fd = open(world->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct backend_load how = how_for("layer", folder_fd);
    how.weights = weights;
    const enum weir_status status = backend_load(backend_find("onnxruntime"), &how, out, err);
    close(folder_fd);
    return status;
}

static struct loaded load_here(const struct world *world, const struct backend_weights *weights)
{
    struct loaded l = { 0 };
    struct weir_err err = { 0 };
    if (try_load_here(world, weights, &l.model, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(backend_context_create(l.model, &l.context, &err), WEIR_OK);
    l.signature = backend_signature(l.model);
    return l;
}

static enum weir_status try_run(struct loaded *l, float *answer)
{
    float x[WIDTH];
    const struct shape shape = { 2, { 1, WIDTH } };
    for (uint32_t i = 0; i < WIDTH; i++) {
        x[i] = (float)(i % 7);
    }
    const struct tensor input = tensor_of(DTYPE_FP32, shape, x, sizeof(x));
    struct tensor outputs[SIDE_MAX] = { 0 };
    const enum weir_status status = run(l, &input, outputs, NULL);
    if (status == WEIR_OK) {
        memcpy(answer, outputs[0].data, WIDTH * sizeof(*answer));
    }
    tensor_release(&outputs[0]);
    return status;
}

static void run_once(struct loaded *l, float *answer)
{
    assert_int_equal(try_run(l, answer), WEIR_OK);
}

static void expect_close(const float *a, const float *b)
{
    for (uint32_t i = 0; i < WIDTH; i++) {
        assert_true(fabsf(a[i] - b[i]) <= 1e-4F + 1e-4F * fabsf(b[i]));
    }
}

static struct backend_memory memory_of(const struct loaded *l)
{
    struct backend_memory memory;
    backend_memory(l->model, &memory);
    return memory;
}

static bool is_mapped(const struct loaded *l)
{
    return memory_of(l).mapped_bytes >= WEIGHTS_BYTES;
}

/* The number of entries, and the path of a file in the last. */
static uint32_t look_into(const struct world *world, const char *file, char path[512])
{
    uint32_t count = 0;
    DIR *folder = opendir(world->cache);
    for (struct dirent *at = folder == NULL ? NULL : readdir(folder); at != NULL;
         at = readdir(folder)) {
        if (at->d_name[0] != '.') {
            count++;
            snprintf(path, 512, "%s/%s/%s", world->cache, at->d_name, file);
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return count;
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void test_mapped_weights_answer_as_packed_ones(void **state)
{
    (void)state;
    struct world world;
    float plain[WIDTH];
    float mapped[WIDTH];
    float packed[WIDTH];
    make_world(&world);
    struct loaded l = load_here(&world, NULL);
    assert_int_equal(memory_of(&l).mapped_bytes, 0);
    assert_true(memory_of(&l).heap_bytes >= WEIGHTS_BYTES);
    run_once(&l, plain);
    unload(&l);

    l = load_here(&world, &world.weights);
    assert_true(is_mapped(&l));
    assert_true(memory_of(&l).heap_bytes < WEIGHTS_BYTES / 4);
    assert_int_equal(backend_promotion(l.model), 0);
    for (int i = 0; i < 3; i++) {
        run_once(&l, mapped);
    }
    expect_close(mapped, plain);

    assert_true(backend_promotion(l.model) >= WEIGHTS_BYTES);
    assert_int_equal(backend_promote(l.model, NULL), WEIR_OK);
    assert_int_equal(backend_promotion(l.model), 0);
    assert_false(is_mapped(&l));
    assert_true(memory_of(&l).heap_bytes >= WEIGHTS_BYTES);
    run_once(&l, packed);
    assert_memory_equal(packed, plain, sizeof(plain)); /* To the bit. */
    unload(&l);
    end_world(&world);
}

/* Another model, loaded so soon after it was written that it is not converted; a machine may be too
 * slow for that several times. */
static struct loaded load_changed(const struct world *world)
{
    write_model(world, 2, false);
    struct loaded l = load_here(world, &world->weights);
    for (int i = 0; i < 100 && is_mapped(&l); i++) {
        unload(&l);
        write_model(world, 2, false);
        l = load_here(world, &world->weights);
    }
    return l;
}

static void test_a_model_is_converted_once(void **state)
{
    (void)state;
    struct world world;
    struct stat first;
    struct stat second;
    char path[512];
    float answer[WIDTH];
    float other[WIDTH];
    make_world(&world);
    struct loaded l = load_here(&world, &world.weights);
    run_once(&l, answer);
    unload(&l);
    assert_int_equal(look_into(&world, "weights", path), 1);
    assert_int_equal(stat(path, &first), 0);
    l = load_here(&world, &world.weights);
    assert_true(is_mapped(&l));
    unload(&l);
    assert_int_equal(stat(path, &second), 0);
    assert_int_equal(second.st_ino, first.st_ino);

    l = load_changed(&world);
    assert_false(is_mapped(&l));
    run_once(&l, other);
    assert_memory_not_equal(other, answer, sizeof(answer));
    unload(&l);
    let_it_settle();
    l = load_here(&world, &world.weights);
    assert_true(is_mapped(&l));
    run_once(&l, answer);
    expect_close(answer, other);
    unload(&l);
    assert_int_equal(look_into(&world, "weights", path), 1);
    assert_int_equal(stat(path, &second), 0);
    assert_int_not_equal(second.st_ino, first.st_ino);
    end_world(&world);
}

static void test_weights_beside_the_model_are_mapped_too(void **state)
{
    (void)state;
    struct world world;
    float plain[WIDTH];
    float mapped[WIDTH];
    char path[128];
    make_world(&world);
    write_model(&world, 1, true);
    let_it_settle();
    struct loaded l = load_here(&world, NULL);
    run_once(&l, plain);
    unload(&l);
    l = load_here(&world, &world.weights);
    assert_true(is_mapped(&l));
    snprintf(path, sizeof(path), "%s/w.bin", world.folder);
    assert_int_equal(truncate(path, 0), 0);
    run_once(&l, mapped);
    expect_close(mapped, plain);
    unload(&l);
    end_world(&world);
}

/* Runs on until it is told to stop. */
struct runner {
    struct loaded loaded;
    const float *expected;
    _Atomic uint64_t runs;
    _Atomic bool *stop;
};

static void *run_on(void *argument)
{
    struct runner *runner = argument;
    float answer[WIDTH];
    while (!*runner->stop) {
        run_once(&runner->loaded, answer);
        expect_close(answer, runner->expected);
        runner->runs++;
    }
    return NULL;
}

static void test_runs_go_on_while_weights_are_packed(void **state)
{
    (void)state;
    struct world world;
    struct runner runners[2];
    pthread_t threads[2];
    float expected[WIDTH];
    _Atomic bool stop = false;
    make_world(&world);
    struct loaded l = load_here(&world, &world.weights);
    run_once(&l, expected);
    for (int i = 0; i < 2; i++) {
        runners[i] = (struct runner){ .loaded = l, .expected = expected, .stop = &stop };
        assert_int_equal(backend_context_create(l.model, &runners[i].loaded.context, NULL),
                         WEIR_OK);
        assert_int_equal(pthread_create(&threads[i], NULL, run_on, &runners[i]), 0);
    }
    while (backend_promotion(l.model) == 0 || runners[0].runs == 0 || runners[1].runs == 0) {
        sched_yield();
    }
    assert_int_equal(backend_promote(l.model, NULL), WEIR_OK);
    assert_false(is_mapped(&l));
    stop = true;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        backend_context_destroy(runners[i].loaded.context);
    }
    unload(&l);
    end_world(&world);
}

static void test_changes_of_the_model_do_not_reach_what_is_mapped(void **state)
{
    (void)state;
    struct world world;
    float before[WIDTH];
    float after[WIDTH];
    char path[128];
    make_world(&world);
    struct loaded l = load_here(&world, &world.weights);
    run_once(&l, before);
    snprintf(path, sizeof(path), "%s/model.onnx", world.folder);
    assert_int_equal(truncate(path, 100), 0);
    run_once(&l, after);
    assert_memory_equal(after, before, sizeof(before));
    unload(&l);
    end_world(&world);
}

static void test_a_file_that_is_shortened_ends_no_process(void **state)
{
    (void)state;
    if (getenv("MESON_EXE_WRAPPER") != NULL) {
        skip(); /* An emulator does not pass on the page that has gone. */
    }
    struct world world;
    float answer[WIDTH];
    char path[512];
    make_world(&world);
    struct loaded l = load_here(&world, &world.weights);
    run_once(&l, answer);
    assert_int_equal(look_into(&world, "weights", path), 1);
    assert_int_equal(truncate(path, 4096), 0);
    vanish_install(); /* The test program catches the signal, too. */
    assert_int_equal(try_run(&l, answer), WEIR_EBACKEND);
    assert_int_equal(try_run(&l, answer), WEIR_EBACKEND); /* Until it is loaded again. */
    unload(&l);
    end_world(&world);
}

static void test_a_cache_that_cannot_be_used_is_done_without(void **state)
{
    (void)state;
    struct world world;
    char path[512];
    make_world(&world);
    snprintf(path, sizeof(path), "%s/deep", world.root);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(mkdir(world.cache, 0777), 0);
    assert_int_equal(chmod(world.cache, 0777), 0);
    struct loaded l = load_here(&world, &world.weights); /* Others could put models there. */
    assert_false(is_mapped(&l));
    assert_int_equal(look_into(&world, "weights", path), 0);
    unload(&l);
    assert_int_equal(chmod(world.cache, 0700), 0);
    world.weights.cache_bytes_max = WEIGHTS_BYTES / 2;
    l = load_here(&world, &world.weights);
    assert_false(is_mapped(&l));
    assert_int_equal(look_into(&world, "weights", path), 0);
    unload(&l);
    end_world(&world);
}

static void test_the_cache_stays_within_its_limit(void **state)
{
    (void)state;
    struct world world;
    char path[512];
    make_world(&world);
    struct loaded l = load_here(&world, &world.weights);
    unload(&l);
    snprintf(world.folder, sizeof(world.folder), "%s/other", world.root);
    assert_int_equal(mkdir(world.folder, 0700), 0);
    write_model(&world, 3, false);
    let_it_settle();
    char kept[128];
    snprintf(kept, sizeof(kept), "%s/mine", world.cache); /* Not the cache's. */
    assert_int_equal(mkdir(kept, 0700), 0);
    snprintf(kept, sizeof(kept), "%s/mine/weights", world.cache);
    FILE *file = fopen(kept, "w");
    assert_non_null(file);
    assert_int_equal(fputs("mine", file) >= 0, true);
    assert_int_equal(fclose(file), 0);
    const struct timespec long_ago[2] = { { 1, 0 }, { 1, 0 } };
    snprintf(path, sizeof(path), "%s/mine", world.cache);
    assert_int_equal(utimensat(AT_FDCWD, path, long_ago, 0), 0);
    world.weights.cache_bytes_max = WEIGHTS_BYTES * 3 / 2; /* Not enough for two. */
    l = load_here(&world, &world.weights);
    assert_true(is_mapped(&l));
    unload(&l);
    assert_int_equal(look_into(&world, "weights", path), 2);
    assert_int_equal(access(kept, F_OK), 0);
    end_world(&world);
}

static void test_models_of_one_file_share_their_weights(void **state)
{
    (void)state;
    struct world world;
    float a[WIDTH];
    float b[WIDTH];
    make_world(&world);
    world.weights.mode = WEIGHTS_PREPACKED;
    struct loaded first = load_here(&world, &world.weights);
    assert_false(is_mapped(&first));
    struct loaded second = load_here(&world, &world.weights);
    assert_true(memory_of(&second).heap_bytes >= WEIGHTS_BYTES);
    run_once(&first, a);
    unload(&first);
    run_once(&second, b); /* They outlive the one that packed them. */
    assert_memory_equal(a, b, sizeof(a));
    unload(&second);
    end_world(&world);
}

/* From the cache or without, or it fails for memory; and the next one is as if nothing had been. */
static void test_mapped_loads_survive_any_failed_allocation(void **state)
{
    (void)state;
#ifndef WEIR_ALLOC_FAULT
    skip();
#else
    struct world world;
    make_world(&world);
    struct loaded l = load_here(&world, &world.weights);
    unload(&l);
    uint64_t calls = 0;
    for (uint64_t nth = 1; calls + 1 >= nth; nth++) {
        struct backend_model *model = NULL;
        (void)mem_fault_arm(nth);
        const enum weir_status status = try_load_here(&world, &world.weights, &model, NULL);
        calls = mem_fault_arm(0);
        assert_true(status == WEIR_OK || status == WEIR_ENOMEM);
        backend_unload(model);
    }
    l = load_here(&world, &world.weights);
    assert_true(is_mapped(&l));
    unload(&l);
    end_world(&world);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mapped_weights_answer_as_packed_ones),
        cmocka_unit_test(test_a_model_is_converted_once),
        cmocka_unit_test(test_weights_beside_the_model_are_mapped_too),
        cmocka_unit_test(test_runs_go_on_while_weights_are_packed),
        cmocka_unit_test(test_changes_of_the_model_do_not_reach_what_is_mapped),
        cmocka_unit_test(test_a_file_that_is_shortened_ends_no_process),
        cmocka_unit_test(test_a_cache_that_cannot_be_used_is_done_without),
        cmocka_unit_test(test_the_cache_stays_within_its_limit),
        cmocka_unit_test(test_models_of_one_file_share_their_weights),
        cmocka_unit_test(test_mapped_loads_survive_any_failed_allocation),
    };
    return cmocka_run_group_tests(tests, loaded_start, loaded_stop);
}
