/*
 * loaded.h — a model of tests/data/models with one context, for tests of the backend alone.
 *
 * One program, one thread: everything is static here.
 */
#ifndef WEIR_TESTS_LOADED_H
#define WEIR_TESTS_LOADED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "backend/backend.h"

#define SIDE_MAX 4

/* One loaded model with one context. */
struct loaded {
    struct backend_model *model;
    struct backend_context *context;
    const struct signature *signature;
};

static struct clock real_clock;
static struct block_pool *pool;

static inline int open_folder(const char *name)
{
    char path[1024];
    snprintf(path, sizeof(path), "%s/models/%s/1", getenv("WEIR_TEST_DATA"), name);
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static inline struct backend_load how_for(const char *name, int folder_fd)
{
    return (struct backend_load){
        .model_name = name,
        .version = 1,
        .folder_fd = folder_fd,
        .intra_threads = 1,
        .contexts_max = 1,
        .file_bytes_max = 1 << 30,
        .clock = &real_clock,
        .blocks = pool,
    };
}

static inline enum weir_status try_load(const char *name, struct backend_model **out,
                                        struct weir_err *err)
{
    const int folder_fd = open_folder(name);
    const struct backend_load how = how_for(name, folder_fd);
    const enum weir_status status = backend_load(backend_find("onnxruntime"), &how, out, err);
    close(folder_fd);
    return status;
}

static inline struct loaded load(const char *name)
{
    struct loaded l = { 0 };
    struct weir_err err = { 0 };
    if (try_load(name, &l.model, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(backend_context_create(l.model, &l.context, &err), WEIR_OK);
    l.signature = backend_signature(l.model);
    return l;
}

static inline void unload(struct loaded *l)
{
    backend_context_destroy(l->context);
    backend_unload(l->model);
}

static inline struct tensor tensor_of(enum dtype dtype, struct shape shape, const void *data,
                                      size_t size)
{
    return (struct tensor){
        .dtype = dtype,
        .shape = shape,
        .data = (uint8_t *)(uintptr_t)data,
        .size = size,
        .present = true,
    };
}

static const bool all_wanted[SIDE_MAX] = { true, true, true, true };

static inline enum weir_status run(struct loaded *l, const struct tensor *inputs,
                                   struct tensor *outputs, struct weir_err *err)
{
    struct backend_run r = {
        .rows = 1,
        .inputs = inputs,
        .outputs = outputs,
        .wanted = all_wanted,
    };
    return backend_run(l->context, &r, err);
}

static inline void expect_bytes(const struct tensor *tensor, struct shape shape, const void *data,
                                size_t size)
{
    assert_true(tensor->present);
    assert_non_null(tensor->block);
    assert_true(shape_equal(&tensor->shape, &shape));
    assert_int_equal(tensor->size, size);
    assert_memory_equal(tensor->data, data, size);
}

static inline int loaded_start(void **state)
{
    (void)state;
    backend_start();
    clock_init(&real_clock);
    pool = block_pool_create(1 << 20);
    return 0;
}

static inline int loaded_stop(void **state)
{
    (void)state;
    backend_stop();
    block_pool_destroy(pool); /* Asserts that every block is back. */
    return 0;
}

#endif
