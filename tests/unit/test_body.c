/* Where bodies lie: large ones in memory of those before, with nothing of them to be seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "net/body.h"
#include "util/mem.h"

#define MIB ((size_t)1 << 20)
#define JSON_BYTES 123
#define MARK "of a body before" /* No byte that fills memory, as MALLOC_PERTURB_'s, looks so. */

/* A body of that size, after its first bytes came; true: memory of one before it. */
static bool begin(struct body *body, struct arena *arena, size_t size)
{
    static const struct limits limits;
    *body = (struct body){ .expected = size, .align_at = JSON_BYTES, .bytes_max = 64 * MIB };
    assert_int_equal(body_append(body, arena, &limits, (struct bytes){ "first", 5 }, NULL), 0);
    char *place = NULL;
    size_t room = 0;
    assert_true(body_place(body, &place, &room));
    assert_int_equal(room, size - 5);
    assert_int_equal((uintptr_t)(body->data + JSON_BYTES) % MEM_ALIGN, 0);
    const bool again = memcmp(place + MIB, MARK, strlen(MARK)) == 0;
    memcpy(place + MIB, MARK, strlen(MARK));
    return again;
}

static void test_a_large_body_lies_where_one_of_its_size_lay(void **state)
{
    (void)state;
    struct arena arena;
    struct body a;
    struct body b;
    arena_init(&arena, NULL, 0, 0);
    assert_false(begin(&a, &arena, 5 * MIB));
    assert_false(begin(&b, &arena, 5 * MIB));
    body_finish(&a);
    assert_true(begin(&a, &arena, 5 * MIB + 1000)); /* Nearly of its size. */
    body_finish(&a);
    body_finish(&b);
    assert_false(begin(&a, &arena, 6 * MIB));
    body_finish(&a);
    arena_finish(&arena);
}

static void test_what_is_kept_is_bounded(void **state)
{
    (void)state;
    struct arena arena;
    struct body bodies[8];
    arena_init(&arena, NULL, 0, 0);
    for (size_t i = 0; i < 8; i++) {
        (void)begin(&bodies[i], &arena, (5 + 3 * i) * MIB); /* 17 MiB and more are not kept. */
    }
    for (size_t i = 0; i < 8; i++) {
        body_finish(&bodies[i]);
    }
    assert_int_equal(body_bytes_of_all(), 0);
    arena_finish(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_large_body_lies_where_one_of_its_size_lay),
        cmocka_unit_test(test_what_is_kept_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
