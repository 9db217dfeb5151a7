/* Pieces never overlap, never move, are aligned, and end with their arena in the right order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdalign.h>
#include <string.h>

#include "util/arena.h"

#define KIB 1024

static size_t misalignment(const void *piece, size_t align)
{
    return (size_t)((uintptr_t)piece % align);
}

static void test_small_requests_use_the_callers_block(void **state)
{
    (void)state;
    alignas(max_align_t) char first[256];
    struct arena arena;
    arena_init(&arena, first, sizeof(first), 0);
    char *a = arena_try_alloc(&arena, 100);
    char *b = arena_try_strndup(&arena, "hello, world", 5);
    assert_true(a >= first && a + 100 <= first + sizeof(first));
    assert_true(b >= a + 100 && b < first + sizeof(first));
    assert_string_equal(b, "hello");
    assert_int_equal(arena.used_bytes, 0);
    assert_non_null(arena_try_alloc(&arena, 200));
    assert_true(arena.used_bytes > 0);
    arena_reset(&arena);
    assert_int_equal(arena.used_bytes, 0);
    assert_ptr_equal(arena_try_alloc(&arena, 100), a);
    arena_finish(&arena);
    arena_finish(&arena);
}

static void test_a_block_that_starts_odd_still_gives_aligned_pieces(void **state)
{
    (void)state;
    alignas(max_align_t) char first[128];
    struct arena arena;
    arena_init(&arena, first + 1, sizeof(first) - 1, 0);
    assert_int_equal(misalignment(arena_try_alloc(&arena, 8), alignof(max_align_t)), 0);
    arena_finish(&arena);
}

/* Every mixture of size and alignment; each piece is filled and looked at again at the end. */
static void test_pieces_are_aligned_and_apart(void **state)
{
    (void)state;
    enum { PIECES = 2000 };
    static unsigned char *pieces[PIECES];
    static size_t sizes[PIECES];
    struct arena arena;
    arena_init(&arena, NULL, 0, 0);
    for (size_t i = 0; i < PIECES; i++) {
        const size_t align = (size_t)1 << i % 13;
        sizes[i] = i % 97 == 0 ? 70 * KIB + i : i * 7 % 600;
        pieces[i] = arena_try_aligned(&arena, sizes[i], align);
        assert_non_null(pieces[i]);
        assert_int_equal(misalignment(pieces[i], align), 0);
        memset(pieces[i], (int)(i % 251), sizes[i]);
    }
    for (size_t i = 0; i < PIECES; i++) {
        for (size_t k = 0; k < sizes[i]; k++) {
            assert_int_equal(pieces[i][k], i % 251);
        }
    }
    arena_finish(&arena);
}

static void test_large_pieces_leave_the_current_block_current(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL, 0, 0);
    char *a = arena_try_aligned(&arena, 10, 1);
    assert_non_null(arena_try_alloc(&arena, 1000 * KIB));
    char *b = arena_try_aligned(&arena, 10, 1);
    assert_ptr_equal(b, a + 10);
    arena_finish(&arena);
}

static void test_blocks_stay_near_what_was_asked(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL, 0, 0);
    size_t asked = 0;
    while (asked < 1000 * KIB) {
        assert_non_null(arena_try_aligned(&arena, 48, 1));
        asked += 48;
        assert_true(arena.used_bytes <= 2 * asked + KIB);
        assert_true(arena.used_bytes <= asked + asked / 64 + 64 * KIB);
    }
    arena_finish(&arena);
}

static void test_fails_beyond_its_limit_and_goes_on(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL, 0, 10000);
    assert_null(arena_try_alloc(&arena, 10001));
    assert_non_null(arena_try_alloc(&arena, 6000));
    assert_null(arena_try_alloc(&arena, 4001));
    size_t pieces = 0;
    while (arena_try_aligned(&arena, 100, 1) != NULL) {
        pieces++;
    }
    assert_int_equal(pieces, 40);
    assert_int_equal(arena.used_bytes, 10000);
    arena_reset(&arena);
    assert_non_null(arena_try_alloc(&arena, 10000));
    arena_finish(&arena);
}

static void test_absurd_sizes_fail(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL, 0, 0);
    assert_null(arena_try_alloc(&arena, SIZE_MAX));
    assert_null(arena_try_aligned(&arena, SIZE_MAX - 8, 4096));
    assert_null(arena_try_zero(&arena, SIZE_MAX / 4, 8));
    assert_null(arena_try_strndup(&arena, "x", SIZE_MAX));
    assert_int_equal(arena.used_bytes, 0);
    arena_finish(&arena);
}

static void test_empty_pieces_are_not_null(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL, 0, 0);
    assert_non_null(arena_try_alloc(&arena, 0));
    assert_non_null(arena_try_zero(&arena, 0, 8));
    assert_string_equal(arena_try_strndup(&arena, NULL, 0), "");
    arena_finish(&arena);
}

static void test_zeroed_and_printed_pieces(void **state)
{
    (void)state;
    static char first[4096];
    memset(first, 'x', sizeof(first));
    struct arena arena;
    arena_init(&arena, first, sizeof(first), 0);
    const unsigned char *zero = arena_try_zero(&arena, 10, 30);
    for (size_t i = 0; i < 300; i++) {
        assert_int_equal(zero[i], 0);
    }
    assert_string_equal(arena_try_printf(&arena, "%s/%d", "digits", 3), "digits/3");
    const char *wide = arena_try_printf(&arena, "%9000d|", 1);
    assert_int_equal(strlen(wide), 9001);
    assert_string_equal(wide + 8999, "1|");
    arena_finish(&arena);
}

struct guest {
    struct arena_disposable item;
    struct arena *arena;
    struct guest *brings; /* Added while this one is disposed. */
    char name;
};

static char farewells[16];

static void say_farewell(struct arena_disposable *self)
{
    const struct guest *guest = (const struct guest *)(const void *)self;
    const size_t size = strlen(farewells);
    farewells[size] = guest->name;
    if (guest->brings != NULL) {
        arena_dispose(guest->arena, &guest->brings->item);
    }
}

static struct guest *invite(struct arena *arena, char name, struct guest *brings)
{
    struct guest *guest = arena_try_zero(arena, 1, sizeof(*guest));
    assert_non_null(guest);
    guest->item.dispose = say_farewell;
    guest->arena = arena;
    guest->brings = brings;
    guest->name = name;
    return guest;
}

static void test_disposes_last_added_first_and_once(void **state)
{
    (void)state;
    memset(farewells, 0, sizeof(farewells));
    struct arena arena;
    arena_init(&arena, NULL, 0, 0);
    struct guest *late = invite(&arena, 'd', NULL);
    arena_dispose(&arena, &invite(&arena, 'a', NULL)->item);
    arena_dispose(&arena, &invite(&arena, 'b', late)->item);
    arena_dispose(&arena, &invite(&arena, 'c', NULL)->item);
    arena_reset(&arena);
    assert_string_equal(farewells, "cbda");
    arena_finish(&arena);
    assert_string_equal(farewells, "cbda");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_requests_use_the_callers_block),
        cmocka_unit_test(test_a_block_that_starts_odd_still_gives_aligned_pieces),
        cmocka_unit_test(test_pieces_are_aligned_and_apart),
        cmocka_unit_test(test_large_pieces_leave_the_current_block_current),
        cmocka_unit_test(test_blocks_stay_near_what_was_asked),
        cmocka_unit_test(test_fails_beyond_its_limit_and_goes_on),
        cmocka_unit_test(test_absurd_sizes_fail),
        cmocka_unit_test(test_empty_pieces_are_not_null),
        cmocka_unit_test(test_zeroed_and_printed_pieces),
        cmocka_unit_test(test_disposes_last_added_first_and_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
