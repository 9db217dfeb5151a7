/*
 * Memory runs out at every point where it can: what was built is unharmed, the
 * failure is said, and the next try succeeds.  Needs a build with
 * -Dalloc_fault=true; others skip these tests.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "util/arena.h"
#include "util/bytes.h"
#include "util/map.h"
#include "util/mem.h"

#ifdef WEIR_ALLOC_FAULT
static const bool built_in = true;
#else
static const bool built_in = false;
#endif

#define NTH_MAX 1000

static void skip_unless_built_in(void)
{
    if (!built_in) {
        skip();
    }
}

/* Fails the nth allocation of `scene` for rising n until it has fewer than n. */
static void fail_each(void (*scene)(bool must_succeed))
{
    skip_unless_built_in();
    uint64_t nth = 0;
    uint64_t calls;
    do {
        nth++;
        (void)mem_fault_arm(nth);
        scene(false);
        calls = mem_fault_arm(0);
    } while (calls >= nth && nth < NTH_MAX);
    assert_in_range(nth, 2, NTH_MAX - 1); /* It did allocate, and came to an end. */
    scene(true);
}

static void test_fails_the_nth_call_once(void **state)
{
    (void)state;
    skip_unless_built_in();
    (void)mem_fault_arm(3);
    void *pieces[5];
    pieces[0] = mem_try_alloc(1);
    pieces[1] = mem_try_zero(1, 1);
    pieces[2] = mem_try_aligned(1);
    pieces[3] = mem_try_strdup("x");
    pieces[4] = mem_try_resize(NULL, 1);
    assert_int_equal(mem_fault_arm(0), 5);
    for (size_t i = 0; i < 5; i++) {
        assert_true((pieces[i] == NULL) == (i == 2));
        mem_free(pieces[i]);
    }
    void *unarmed = mem_try_alloc(1);
    assert_non_null(unarmed);
    mem_free(unarmed);
}

static void test_resize_keeps_what_there_was(void **state)
{
    (void)state;
    skip_unless_built_in();
    char *text = mem_try_strdup("kept");
    (void)mem_fault_arm(1);
    assert_null(mem_try_resize(text, 1000000));
    (void)mem_fault_arm(0);
    assert_string_equal(text, "kept");
    mem_free(text);
}

static int disposed;

static void count_disposed(struct arena_disposable *self)
{
    (void)self;
    disposed++;
}

static void fill_arena(bool must_succeed)
{
    struct arena arena;
    arena_init(&arena, NULL, 0, 0);
    struct arena_disposable item = { .dispose = count_disposed };
    disposed = 0;
    arena_dispose(&arena, &item);
    const char *first = arena_try_printf(&arena, "%s", "first");
    for (int i = 0; i < 200; i++) {
        const size_t size = i % 20 == 0 ? 100000 : 1000;
        char *piece = arena_try_alloc(&arena, size);
        if (piece == NULL) {
            assert_false(must_succeed);
            piece = arena_try_alloc(&arena, size);
            assert_non_null(piece);
        }
        memset(piece, 'x', size);
    }
    assert_true(first == NULL ? !must_succeed : strcmp(first, "first") == 0);
    arena_finish(&arena);
    assert_int_equal(disposed, 1);
}

static void test_arena(void **state)
{
    (void)state;
    fail_each(fill_arena);
}

static void fill_map(bool must_succeed)
{
    char names[200][8];
    struct map map;
    map_init(&map);
    for (size_t i = 0; i < 200; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "n%zu", i);
        enum weir_status status = map_add(&map, bytes_of(names[i]), names[i]);
        if (status != WEIR_OK) {
            assert_false(must_succeed);
            assert_int_equal(status, WEIR_ENOMEM);
            assert_null(map_get(&map, bytes_of(names[i])));
            status = map_add(&map, bytes_of(names[i]), names[i]);
        }
        assert_int_equal(status, WEIR_OK);
    }
    for (size_t i = 0; i < 200; i++) {
        assert_ptr_equal(map_get(&map, bytes_of(names[i])), names[i]);
    }
    map_finish(&map);
}

static void test_map(void **state)
{
    (void)state;
    fail_each(fill_map);
}

/* A writer that looks once at the end gets all of the text, or is told. */
static void fill_buffer(bool must_succeed)
{
    struct buffer buffer;
    buffer_init(&buffer, 100000);
    for (unsigned i = 0; i < 1000; i++) {
        buffer_u64(&buffer, i % 10);
        buffer_printf(&buffer, "%s", "=");
        buffer_text(&buffer, "value;");
    }
    assert_true(!must_succeed || !buffer.failed);
    assert_true(buffer.failed ? buffer.size < 8000 : buffer.size == 8000);
    for (size_t i = 0; i < buffer.size; i++) {
        const char digit = (char)('0' + i / 8 % 10);
        assert_int_equal(buffer.data[i], i % 8 == 0 ? digit : "0=value;"[i % 8]);
    }
    buffer_clear(&buffer);
    buffer_text(&buffer, "again");
    assert_false(buffer.failed);
    buffer_finish(&buffer);
}

static void test_buffer(void **state)
{
    (void)state;
    fail_each(fill_buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fails_the_nth_call_once),
        cmocka_unit_test(test_resize_keeps_what_there_was),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
