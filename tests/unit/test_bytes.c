/* Strict readers of numbers, sizes and durations; and the buffer with a limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "util/bytes.h"

static void test_compares(void **state)
{
    (void)state;
    assert_true(bytes_equal(BYTES_LITERAL("abc"), bytes_of("abc")));
    assert_false(bytes_equal(BYTES_LITERAL("abc"), BYTES_LITERAL("abC")));
    assert_false(bytes_equal(BYTES_LITERAL("ab"), BYTES_LITERAL("abc")));
    assert_true(bytes_equal((struct bytes){ NULL, 0 }, BYTES_LITERAL("")));
    assert_int_equal(bytes_of(NULL).size, 0);
    assert_true(bytes_equal_nocase(BYTES_LITERAL("Content-Length"), bytes_of("cONTENT-lENGTH")));
    assert_false(bytes_equal_nocase(BYTES_LITERAL("["), BYTES_LITERAL("{")));
    assert_false(bytes_equal_nocase(BYTES_LITERAL("a"), BYTES_LITERAL("ab")));
}

static void test_percent_is_decoded_once(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *decoded; /* NULL: malformed, or longer than four. */
    } cases[] = {
        { "", "" },         { "a-b", "a-b" },  { "%41%6a%6A", "Ajj" }, { "%2541", "%41" },
        { "%", NULL },      { "a%4", NULL },   { "%4g", NULL },        { "%-1", NULL },
        { "abcd", "abcd" }, { "abcde", NULL }, { "%41bcd", "Abcd" },   { "abcd%41", NULL },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[4];
        size_t size = 0;
        const bool good = bytes_decode_percent(bytes_of(cases[i].text), out, sizeof(out), &size);
        assert_int_equal(good, cases[i].decoded != NULL);
        if (good) {
            assert_true(bytes_equal((struct bytes){ out, size }, bytes_of(cases[i].decoded)));
        }
    }
}

static void test_knows_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t size;
    } cases[] = {
        { "", 0 },
        { "a", 1 },
        { "\xc3\xa9z", 2 },
        { "\xe2\x82\xac", 3 },
        { "\xf0\x9f\x90\x9f", 4 },
        { "\x80", 0 },
        { "\xc0\xaf", 0 },
        { "\xc1\xbf", 0 },
        { "\xc3", 0 },
        { "\xc3(", 0 },
        { "\xe0\x9f\xbf", 0 },
        { "\xe0\xa0\x80", 3 },
        { "\xed\x9f\xbf", 3 },
        { "\xed\xa0\x80", 0 },
        { "\xf0\x8f\xbf\xbf", 0 },
        { "\xf4\x8f\xbf\xbf", 4 },
        { "\xf4\x90\x80\x80", 0 },
        { "\xf5\x80\x80\x80", 0 },
        { "\xe2\x82", 0 },
        { "\xf0\x9f\x90(", 0 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(bytes_utf8_size(bytes_of(cases[i].text)), cases[i].size);
    }
    assert_int_equal(bytes_utf8_size((struct bytes){ "\0", 1 }), 1);
}

static void test_reads_whole_numbers_only(void **state)
{
    (void)state;
    uint64_t value = 7;
    assert_true(bytes_to_u64(BYTES_LITERAL("0"), 10, &value));
    assert_int_equal(value, 0);
    assert_true(bytes_to_u64(BYTES_LITERAL("0010"), 10, &value));
    assert_int_equal(value, 10);
    assert_true(bytes_to_u64(BYTES_LITERAL("18446744073709551615"), UINT64_MAX, &value));
    assert_true(value == UINT64_MAX);
    static const char *const refused[] = { "",
                                           " 1",
                                           "1 ",
                                           "+1",
                                           "-1",
                                           "1.0",
                                           "0x1",
                                           "1e3",
                                           "1\n2",
                                           "18446744073709551616",
                                           "99999999999999999999999999",
                                           "11" };
    value = 7;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        const uint64_t max = strcmp(refused[i], "11") == 0 ? 10 : UINT64_MAX;
        assert_false(bytes_to_u64(bytes_of(refused[i]), max, &value));
        assert_int_equal(value, 7);
    }
    assert_false(bytes_to_u64((struct bytes){ "1\0", 2 }, UINT64_MAX, &value));
}

typedef bool reader_fn(struct bytes text, uint64_t *out);

struct reading {
    const char *text;
    uint64_t value;
};

static void check_reads(reader_fn *reader, const struct reading *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t value = 7;
        if (!reader(bytes_of(cases[i].text), &value) || value != cases[i].value) {
            fail_msg("'%s' was read as %" PRIu64, cases[i].text, value);
        }
    }
}

static void check_refuses(reader_fn *reader, const char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t value = 7;
        if (reader(bytes_of(texts[i]), &value) || value != 7) {
            fail_msg("'%s' was taken for %" PRIu64, texts[i], value);
        }
    }
}

static void test_reads_sizes(void **state)
{
    (void)state;
    static const struct reading cases[] = {
        { "0", 0 },
        { "4096", 4096 },
        { "4096B", 4096 },
        { "64KiB", 65536 },
        { "64 kib", 65536 },
        { "1.5 GiB", UINT64_C(1610612736) },
        { "10MB", 10000000 },
        { "10 kB", 10000 },
        { "2TB", UINT64_C(2000000000000) },
        { "0.000001 MB", 1 },
        { "0.5KiB", 512 },
        { "16777215TiB", UINT64_C(16777215) << 40 },
        { "18446744073709551615", UINT64_MAX },
    };
    check_reads(bytes_to_size, cases, sizeof(cases) / sizeof(cases[0]));
    static const char *const refused[] = {
        "",
        " 1KiB",
        "1KiB ",
        "KiB",
        ".5KiB",
        "1.KiB",
        "1.5",
        "0.5B",
        "1  KiB",
        "1.1234567MiB",
        "1KB/s",
        "64K",
        "1G",
        "1e3",
        "-1",
        "+1KiB",
        "1,5KiB",
        "16777216TiB",
        "18446744073709551616",
        "1 ",
        "1.5.1KiB",
    };
    check_refuses(bytes_to_size, refused, sizeof(refused) / sizeof(refused[0]));
}

static void test_reads_durations(void **state)
{
    (void)state;
    static const struct reading cases[] = {
        { "0", 0 },
        { "500us", 500000 },
        { "1.5s", UINT64_C(1500000000) },
        { "10 min", UINT64_C(600000000000) },
        { "7ns", 7 },
        { "2h", UINT64_C(7200000000000) },
        { "0.25 ms", 250000 },
        { "0s", 0 },
    };
    check_reads(bytes_to_duration_ns, cases, sizeof(cases) / sizeof(cases[0]));
    static const char *const refused[] = { "",         "1",     "10",    "0.0",
                                           "1m",       "1.5ns", "1 S",   "1MS",
                                           "s",        "-1s",   "1s1ms", "1..5s",
                                           "5125000h", "1 s ",  "1\ts",  "99999999999999999999s" };
    check_refuses(bytes_to_duration_ns, refused, sizeof(refused) / sizeof(refused[0]));
}

static void test_writes_sizes_and_durations(void **state)
{
    (void)state;
    char text[32];
    assert_string_equal(bytes_format_size(0, text), "0 B");
    assert_string_equal(bytes_format_size(1000, text), "1000 B");
    assert_string_equal(bytes_format_size(65536, text), "64 KiB");
    assert_string_equal(bytes_format_size(UINT64_C(1610612736), text), "1.5 GiB");
    assert_string_equal(bytes_format_size(1048575, text), "1 MiB");
    assert_string_equal(bytes_format_size(UINT64_MAX, text), "16777216 TiB");
    assert_string_equal(bytes_format_duration(0, text), "0 ns");
    assert_string_equal(bytes_format_duration(250000, text), "250 us");
    assert_string_equal(bytes_format_duration(UINT64_C(1500000000), text), "1.5 s");
    assert_string_equal(bytes_format_duration(UINT64_C(59999999999), text), "1 min");
    assert_string_equal(bytes_format_duration(UINT64_C(7200000000000), text), "2 h");
}

static void test_buffer_takes_all_kinds_of_pieces(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 1000);
    assert_null(buffer.data);
    buffer_append(&buffer, NULL, 0);
    buffer_text(&buffer, "n=");
    buffer_u64(&buffer, UINT64_MAX);
    buffer_char(&buffer, ' ');
    buffer_i64(&buffer, INT64_MIN);
    buffer_char(&buffer, ' ');
    buffer_i64(&buffer, INT64_MAX);
    buffer_printf(&buffer, " %s%d ", "x", 0);
    buffer_u64(&buffer, 0);
    static const char expected[] =
        "n=18446744073709551615 -9223372036854775808 9223372036854775807 x0 0";
    assert_false(buffer.failed);
    assert_int_equal(buffer.size, sizeof(expected) - 1);
    assert_memory_equal(buffer.data, expected, buffer.size);
    buffer_finish(&buffer);
    buffer_finish(&buffer);
    struct buffer zeroed = { .data = NULL };
    buffer_finish(&zeroed);
}

/* Pieces of every size, one by one, against a plain array. */
static void test_buffer_grows_to_exactly_its_limit(void **state)
{
    (void)state;
    enum { LIMIT = 8190 }; /* A little less than doubling arrives at. */
    char expected[LIMIT + 1];
    for (size_t i = 0; i < sizeof(expected); i++) {
        expected[i] = (char)('a' + i % 26);
    }
    struct buffer buffer;
    buffer_init(&buffer, LIMIT);
    size_t step = 1;
    while (buffer.size < LIMIT) {
        const size_t left = LIMIT - buffer.size;
        const size_t piece = step < left ? step : left;
        if (step % 2 == 0) {
            buffer_append(&buffer, expected + buffer.size, piece);
        } else {
            buffer_printf(&buffer, "%.*s", (int)piece, expected + buffer.size);
        }
        step++;
    }
    assert_false(buffer.failed);
    assert_int_equal(buffer.size, LIMIT);
    assert_true(buffer.capacity <= LIMIT);
    assert_memory_equal(buffer.data, expected, LIMIT);
    buffer_finish(&buffer);
}

typedef void append_fn(struct buffer *buffer);

static void append_char(struct buffer *buffer)
{
    buffer_char(buffer, 'x');
}

static void append_text(struct buffer *buffer)
{
    buffer_text(buffer, "12345");
}

static void append_printf(struct buffer *buffer)
{
    buffer_printf(buffer, "%05d", 1);
}

static void append_number(struct buffer *buffer)
{
    buffer_i64(buffer, -1234);
}

static void reserve_all(struct buffer *buffer)
{
    assert_false(buffer_reserve(buffer, SIZE_MAX));
}

static void test_buffer_failure_changes_nothing_and_stays(void **state)
{
    (void)state;
    append_fn *const appends[] = { append_text, append_printf, append_number, reserve_all };
    for (size_t i = 0; i < sizeof(appends) / sizeof(appends[0]); i++) {
        struct buffer buffer;
        buffer_init(&buffer, 8);
        buffer_text(&buffer, "abcd");
        appends[i](&buffer);
        assert_true(buffer.failed);
        append_char(&buffer); /* Would fit, but the text would have a hole. */
        buffer_printf(&buffer, "%c", 'x');
        assert_false(buffer_reserve(&buffer, 0));
        assert_true(buffer.failed);
        assert_int_equal(buffer.size, 4);
        assert_memory_equal(buffer.data, "abcd", 4);
        buffer_clear(&buffer);
        assert_false(buffer.failed);
        buffer_text(&buffer, "12345678");
        assert_false(buffer.failed);
        append_char(&buffer);
        assert_true(buffer.failed);
        assert_memory_equal(buffer.data, "12345678", 8);
        buffer_clear(&buffer);
        buffer_printf(&buffer, "%s", "abcdefgh");
        assert_false(buffer.failed);
        assert_memory_equal(buffer.data, "abcdefgh", 8);
        buffer_finish(&buffer);
    }
}

static void test_buffer_with_limit_zero_takes_nothing(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 0);
    buffer_printf(&buffer, "%s", "");
    assert_false(buffer.failed);
    append_char(&buffer);
    assert_true(buffer.failed);
    buffer_finish(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compares),
        cmocka_unit_test(test_percent_is_decoded_once),
        cmocka_unit_test(test_knows_utf8),
        cmocka_unit_test(test_reads_whole_numbers_only),
        cmocka_unit_test(test_reads_sizes),
        cmocka_unit_test(test_reads_durations),
        cmocka_unit_test(test_writes_sizes_and_durations),
        cmocka_unit_test(test_buffer_takes_all_kinds_of_pieces),
        cmocka_unit_test(test_buffer_grows_to_exactly_its_limit),
        cmocka_unit_test(test_buffer_failure_changes_nothing_and_stays),
        cmocka_unit_test(test_buffer_with_limit_zero_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
