#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "util/map.h"

#define NAMES 100000

static char names[NAMES][12];

static struct bytes name_of(size_t i)
{
    return bytes_of(names[i]);
}

static void name_all(void)
{
    for (size_t i = 0; i < NAMES; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "m%zu", i);
    }
}

static void test_finds_what_was_added(void **state)
{
    (void)state;
    struct map map;
    map_init(&map);
    int a;
    int b;
    assert_null(map_get(&map, BYTES_LITERAL("a")));
    assert_null(map_remove(&map, BYTES_LITERAL("a")));
    assert_int_equal(map_add(&map, BYTES_LITERAL("a"), &a), WEIR_OK);
    assert_int_equal(map_add(&map, BYTES_LITERAL("a"), &b), WEIR_ECONFLICT);
    assert_int_equal(map_add(&map, BYTES_LITERAL("aa"), &b), WEIR_OK);
    assert_ptr_equal(map_get(&map, BYTES_LITERAL("a")), &a);
    assert_ptr_equal(map_get(&map, BYTES_LITERAL("aa")), &b);
    assert_null(map_get(&map, BYTES_LITERAL("aaa")));
    assert_int_equal(map.count, 2);
    map_finish(&map);
    assert_null(map_get(&map, BYTES_LITERAL("a")));
    map_finish(&map);
}

static void test_takes_the_empty_name(void **state)
{
    (void)state;
    struct map map;
    map_init(&map);
    int a;
    assert_int_equal(map_add(&map, (struct bytes){ NULL, 0 }, &a), WEIR_OK);
    assert_int_equal(map_add(&map, BYTES_LITERAL(""), &a), WEIR_ECONFLICT);
    assert_ptr_equal(map_remove(&map, BYTES_LITERAL("")), &a);
    assert_null(map_get(&map, BYTES_LITERAL("")));
    map_finish(&map);
}

static size_t count_by_walk(const struct map *map)
{
    size_t count = 0;
    size_t at = 0;
    while (map_next(map, &at) != NULL) {
        count++;
    }
    return count;
}

static void test_a_hundred_thousand_names_with_removals(void **state)
{
    (void)state;
    name_all();
    struct map map;
    map_init(&map);
    for (size_t i = 0; i < NAMES; i++) {
        assert_int_equal(map_add(&map, name_of(i), names[i]), WEIR_OK);
    }
    for (size_t i = 0; i < NAMES; i += 3) {
        assert_ptr_equal(map_remove(&map, name_of(i)), names[i]);
        assert_null(map_remove(&map, name_of(i)));
    }
    for (size_t i = 0; i < NAMES; i++) {
        assert_ptr_equal(map_get(&map, name_of(i)), i % 3 == 0 ? NULL : names[i]);
    }
    assert_int_equal(map.count, NAMES - (NAMES + 2) / 3);
    assert_int_equal(count_by_walk(&map), map.count);
    for (size_t i = 0; i < NAMES; i += 3) {
        assert_int_equal(map_add(&map, name_of(i), names[i]), WEIR_OK);
    }
    assert_int_equal(count_by_walk(&map), NAMES);
    map_finish(&map);
}

static void test_coming_and_going_does_not_grow_it(void **state)
{
    (void)state;
    name_all();
    struct map map;
    map_init(&map);
    for (size_t i = 0; i < NAMES; i++) {
        assert_int_equal(map_add(&map, name_of(i), names[i]), WEIR_OK);
        assert_true(map.used < map.capacity);
        if (i >= 10) {
            assert_ptr_equal(map_remove(&map, name_of(i - 10)), names[i - 10]);
        }
    }
    assert_int_equal(map.count, 10);
    assert_true(map.capacity <= 64);
    assert_null(map_get(&map, name_of(0)));
    map_finish(&map);
}

/* The name belongs to whoever removed the entry: the map may not look at it again. */
static void test_a_removed_name_may_change(void **state)
{
    (void)state;
    struct map map;
    map_init(&map);
    for (int i = 0; i < 1000; i++) {
        char *name = test_malloc(16);
        (void)snprintf(name, 16, "name%d", i);
        assert_int_equal(map_add(&map, bytes_of(name), name), WEIR_OK);
        assert_ptr_equal(map_remove(&map, bytes_of(name)), name);
        test_free(name);
    }
    assert_int_equal(map.count, 0);
    map_finish(&map);
}

/* SipHash-1-3 with the key 00 01 .. 0f over 00 01 .. n-1, as other implementations have it. */
static void test_hashes_like_siphash13(void **state)
{
    (void)state;
    static const struct {
        size_t size;
        uint64_t hash;
    } cases[] = {
        { 0, UINT64_C(0xabac0158050fc4dc) },
        { 1, UINT64_C(0xc9f49bf37d57ca93) },
        { 15, UINT64_C(0xd320d86d2a519956) },
        { 63, UINT64_C(0x9d199062b7bbb3a8) },
    };
    unsigned char data[64];
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (unsigned char)i;
    }
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_true(map_hash_keyed(UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908), data,
                                   cases[i].size) == cases[i].hash);
    }
    assert_true(map_hash("abc", 3) == map_hash("abc", 3));
    assert_true(map_hash("abc", 3) != map_hash("abd", 3));
    assert_true(map_hash("abc", 3) != map_hash_keyed(0, 0, "abc", 3));
}

/* SipHash-1-3 with 128 bits, the same way. */
static void test_wide_hashes(void **state)
{
    (void)state;
    static const struct {
        size_t size;
        uint64_t words[2];
    } cases[] = {
        { 0, { UINT64_C(0xbea58827b2bc7ee7), UINT64_C(0x013030dd6adb62fd) } },
        { 1, { UINT64_C(0xa8edd36004376ffc), UINT64_C(0x63f02f2bcc73055e) } },
        { 8, { UINT64_C(0xb4dae3d5e1fe12aa), UINT64_C(0x99c7f935ab164f72) } },
        { 15, { UINT64_C(0x6c52bdb205557ec1), UINT64_C(0x09017e1eeccd2129) } },
        { 63, { UINT64_C(0x6f42fe4ee300584c), UINT64_C(0xad6052a70a6b9f07) } },
    };
    unsigned char data[64];
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (unsigned char)i;
    }
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t words[2];
        map_hash_wide(UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908), data,
                      cases[i].size, words);
        assert_true(words[0] == cases[i].words[0] && words[1] == cases[i].words[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_what_was_added),
        cmocka_unit_test(test_takes_the_empty_name),
        cmocka_unit_test(test_a_hundred_thousand_names_with_removals),
        cmocka_unit_test(test_coming_and_going_does_not_grow_it),
        cmocka_unit_test(test_a_removed_name_may_change),
        cmocka_unit_test(test_hashes_like_siphash13),
        cmocka_unit_test(test_wide_hashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
