/* Header blocks that come again: which may be known, until when, and what stands in for them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "net/http2_recall.h"

/* References, a literal with a name of the table, one with a name of its own: none is added to the table. */
static const uint8_t plain[] = { 0x83, 0x86, 0x04, 2, '/', 'a',  0xbe, 0xff, 0x02,
                                 0x10, 1,    'n',  1, 'v', 0x0f, 0x01, 1,    'w' };

static bool take(struct http2_recall *recall, const uint8_t *block, size_t size, int32_t id,
                 uint8_t *out)
{
    memcpy(out, block, size);
    return http2_recall_take(recall, out, size, id);
}

static void learn(struct http2_recall *recall, const uint8_t *block, size_t size, int32_t id)
{
    uint8_t out[512];
    assert_false(take(recall, block, size, id, out));
    assert_memory_equal(out, block, size);
    http2_recall_learn(recall, id, 100, false);
}

static void test_what_was_good_is_known_when_it_comes_again(void **state)
{
    (void)state;
    struct http2_recall recall = { 0 };
    uint8_t out[sizeof(plain)];
    learn(&recall, plain, sizeof(plain), 1);
    assert_false(http2_recall_has(&recall, 1));
    assert_true(take(&recall, plain, sizeof(plain), 3, out));
    assert_true(take(&recall, plain, sizeof(plain), 7, out));
    assert_int_equal(out[0], sizeof(plain) - HTTP2_RECALL_BYTES_MIN);
    assert_memory_equal(out + HTTP2_RECALL_BYTES_MIN, plain + HTTP2_RECALL_BYTES_MIN, out[0]);
    assert_false(http2_recall_has(&recall, 1));
    assert_true(http2_recall_has(&recall, 3));
    assert_true(http2_recall_has(&recall, 7));
    assert_false(http2_recall_has(&recall, 9));
    assert_int_equal(recall.head_bytes, 100);
}

static void test_blocks_that_change_the_table_are_not_known(void **state)
{
    (void)state;
    static const uint8_t blocks[][9] = {
        { 0x83, 0x86, 0x41, 1, 'h', 0x84, 0x84, 0x84, 0x84 },  /* Added to the table. */
        { 0x83, 0x40, 1, 'n', 1, 'v', 0x84, 0x84, 0x84 },      /* With its name. */
        { 0x20, 0x83, 0x86, 0x84, 0x84, 0x84, 0x84, 0x84 },    /* A new size of the table. */
        { 0x83, 0x83, 0x83, 0x83, 0x83, 0x83, 0x83, 0x00, 1 }, /* Cut. */
        { 0x83, 0x83, 0x83, 0x83, 0x83, 0x83, 0x83, 0x04, 2 },
        { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, /* A number without end. */
    };
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        struct http2_recall recall = { 0 };
        uint8_t out[sizeof(blocks[0])];
        learn(&recall, blocks[i], sizeof(blocks[0]), 1);
        assert_false(take(&recall, blocks[i], sizeof(blocks[0]), 3, out));
    }
}

static void test_any_other_block_ends_what_is_known(void **state)
{
    (void)state;
    struct http2_recall recall = { 0 };
    uint8_t out[sizeof(plain)];
    learn(&recall, plain, sizeof(plain), 1);
    assert_true(take(&recall, plain, sizeof(plain), 3, out));
    assert_false(take(&recall, plain, sizeof(plain) - 4, 5, out));
    assert_false(take(&recall, plain, sizeof(plain), 7, out));
    assert_true(http2_recall_has(&recall, 3)); /* The session has yet to see it. */
    assert_false(http2_recall_has(&recall, 7));

    http2_recall_learn(&recall, 5, 100, false); /* Not the latest: the table may have changed. */
    assert_false(take(&recall, plain, sizeof(plain), 9, out));
    http2_recall_learn(&recall, 9, 100, true);
    assert_true(take(&recall, plain, sizeof(plain), 11, out));
    assert_true(recall.announces);
    assert_false(http2_recall_has(&recall, 3));

    http2_recall_forget(&recall);
    assert_false(take(&recall, plain, sizeof(plain), 13, out));
    http2_recall_forget(&recall);
    http2_recall_learn(&recall, 13, 100, false);
    assert_false(take(&recall, plain, sizeof(plain), 15, out));
}

static void test_sizes_that_a_stand_in_can_have(void **state)
{
    (void)state;
    static const size_t sizes[] = { HTTP2_RECALL_BYTES_MIN - 1, HTTP2_RECALL_BYTES_MIN,
                                    HTTP2_RECALL_BYTES_MAX, HTTP2_RECALL_BYTES_MAX + 1 };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct http2_recall recall = { 0 };
        uint8_t block[HTTP2_RECALL_BYTES_MAX + 1];
        uint8_t out[HTTP2_RECALL_BYTES_MAX + 1];
        memset(block, 0x83, sizeof(block));
        learn(&recall, block, sizes[i], 1);
        assert_int_equal(take(&recall, block, sizes[i], 3, out), i == 1 || i == 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_good_is_known_when_it_comes_again),
        cmocka_unit_test(test_blocks_that_change_the_table_are_not_known),
        cmocka_unit_test(test_any_other_block_ends_what_is_known),
        cmocka_unit_test(test_sizes_that_a_stand_in_can_have),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
