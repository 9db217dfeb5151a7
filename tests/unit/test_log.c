/* What arrives on standard error: one line per event, parseable, and never forged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <yyjson.h>

#include "util/log.h"

#define LINE_MAX_BYTES 4096

static char written[65536];
static size_t written_size;

static int saved_stderr;
static int sink;

static void begin(bool json)
{
    log_setup(json);
    saved_stderr = dup(STDERR_FILENO);
    sink = memfd_create("log", 0);
    assert_true(saved_stderr >= 0 && sink >= 0);
    assert_true(dup2(sink, STDERR_FILENO) >= 0);
}

/* Everything logged since begin() is in `written`. */
static void end(void)
{
    assert_true(dup2(saved_stderr, STDERR_FILENO) >= 0);
    const ssize_t size = pread(sink, written, sizeof(written) - 1, 0);
    assert_true(size >= 0);
    written_size = (size_t)size;
    written[written_size] = '\0';
    close(sink);
    close(saved_stderr);
}

static size_t count_lines(void)
{
    size_t lines = 0;
    for (size_t i = 0; i < written_size; i++) {
        lines += written[i] == '\n' ? 1 : 0;
    }
    return lines;
}

static yyjson_doc *parse(void)
{
    assert_int_equal(count_lines(), 1);
    assert_int_equal(written[written_size - 1], '\n');
    yyjson_doc *doc = yyjson_read(written, written_size, 0);
    if (doc == NULL) {
        fail_msg("no JSON: %s", written);
    }
    return doc;
}

static const char *member(yyjson_doc *doc, const char *key)
{
    return yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), key));
}

static void test_json_line_has_all_fields(void **state)
{
    (void)state;
    begin(true);
    log_event(LOG_INFO, "model loaded", LOG_STR("model", "digits"), LOG_U64("rows", UINT64_MAX),
              LOG_I64("delta", -5), LOG_MS("took_ms", 1234567), LOG_BYTES("bytes", 1536),
              LOG_STR("error", NULL));
    end();
    yyjson_doc *doc = parse();
    yyjson_val *root = yyjson_doc_get_root(doc);
    assert_string_equal(member(doc, "level"), "info");
    assert_string_equal(member(doc, "message"), "model loaded");
    assert_string_equal(member(doc, "model"), "digits");
    assert_true(yyjson_get_uint(yyjson_obj_get(root, "rows")) == UINT64_MAX);
    assert_int_equal(yyjson_get_sint(yyjson_obj_get(root, "delta")), -5);
    assert_int_equal(yyjson_get_uint(yyjson_obj_get(root, "bytes")), 1536);
    assert_non_null(strstr(written, "\"took_ms\":1.234,"));
    assert_true(yyjson_is_null(yyjson_obj_get(root, "error")));
    assert_null(yyjson_obj_get(root, "cut"));
    const char *time = member(doc, "time");
    assert_int_equal(strlen(time), strlen("2000-01-01T00:00:00.000Z"));
    assert_int_equal(time[10], 'T');
    assert_int_equal(time[23], 'Z');
    yyjson_doc_free(doc);
}

static void test_text_line_quotes_only_what_needs_it(void **state)
{
    (void)state;
    begin(false);
    log_event(LOG_WARNING, "model unloaded", LOG_STR("model", "digits/1"),
              LOG_STR("why", "not used"), LOG_STR("none", ""), LOG_BYTES("freed", 1536),
              LOG_STR("nil", NULL));
    end();
    assert_int_equal(count_lines(), 1);
    assert_string_equal(strstr(written, "warning "),
                        "warning model unloaded model=digits/1 why=\"not used\" none=\"\" "
                        "freed=\"1.5 KiB\" nil=null\n");
}

static void test_fields_may_be_absent(void **state)
{
    (void)state;
    begin(true);
    log_event(LOG_ERROR, "listening");
    end();
    yyjson_doc *doc = parse();
    assert_string_equal(member(doc, "message"), "listening");
    assert_int_equal(yyjson_obj_size(yyjson_doc_get_root(doc)), 3);
    yyjson_doc_free(doc);
}

static int evaluations;

static uint64_t evaluate(void)
{
    evaluations++;
    return 1;
}

static void test_levels_that_are_off_cost_nothing(void **state)
{
    (void)state;
    const enum log_level before = log_get_level();
    begin(true);
    log_set_level(LOG_WARNING);
    assert_false(log_enabled(LOG_INFO));
    assert_true(log_enabled(LOG_ERROR));
    log_event(LOG_INFO, "quiet", LOG_U64("n", evaluate()));
    assert_int_equal(evaluations, 0);
    log_event(LOG_WARNING, "loud", LOG_U64("n", evaluate()));
    assert_int_equal(evaluations, 1);
    log_set_level(before);
    end();
    assert_int_equal(count_lines(), 1);
    assert_null(strstr(written, "quiet"));
}

/* All single bytes, and a value that tries to end the line and start its own. */
static void test_no_value_forges_a_line(void **state)
{
    (void)state;
    char every[256];
    for (size_t i = 0; i < 255; i++) {
        every[i] = (char)(i + 1);
    }
    every[255] = '\0';
    for (int json = 0; json <= 1; json++) {
        begin(json == 1);
        log_event(LOG_INFO, "request\nfailed", LOG_STR("every", every),
                  LOG_STR("attack", "x\"\r\n2000-01-01T00:00:00.000Z error fire\x1b[2J\xc2\x9b"));
        end();
        assert_int_equal(count_lines(), 1);
        for (size_t i = 0; i + 1 < written_size; i++) {
            const unsigned char c = (unsigned char)written[i];
            assert_true(c >= 0x20 && c != 0x7F);
        }
        assert_non_null(strstr(written, "request\\nfailed"));
        assert_null(strstr(written, "\xc2\x9b"));
        if (json == 1) {
            yyjson_doc *doc = parse();
            assert_string_equal(member(doc, "attack"),
                                "x\"\r\n2000-01-01T00:00:00.000Z error fire\x1b[2J\xc2\x9b");
            assert_memory_equal(member(doc, "every"), every, 127);
            assert_memory_equal(member(doc, "every") + 127, "\xef\xbf\xbd", 3);
            yyjson_doc_free(doc);
        }
    }
}

static void test_a_long_value_is_cut_at_a_character(void **state)
{
    (void)state;
    static char fish[4001];
    for (size_t i = 0; i + 4 < sizeof(fish); i += 4) {
        memcpy(fish + i, "\xf0\x9f\x90\x9f", 4);
    }
    begin(true);
    log_event(LOG_INFO, "long", LOG_STR("fish", fish), LOG_U64("after", 7));
    end();
    yyjson_doc *doc = parse();
    const char *value = member(doc, "fish");
    const size_t size = strlen(value);
    assert_in_range(size, 1000, 1024);
    assert_string_equal(value + size - 3, "...");
    assert_int_equal((size - 3) % 4, 0);
    assert_int_equal(yyjson_get_uint(yyjson_obj_get(yyjson_doc_get_root(doc), "after")), 7);
    assert_true(yyjson_get_bool(yyjson_obj_get(yyjson_doc_get_root(doc), "cut")));
    yyjson_doc_free(doc);
}

/* The fields that fill the line have every length, so that its end falls on every kind of byte. */
static void test_a_line_is_cut_at_4_kib_and_stays_valid(void **state)
{
    (void)state;
    static char text[1200];
    for (size_t size = 700; size < 1100; size++) {
        memset(text, size % 3 == 0 ? '\x01' : 'x', size);
        text[size] = '\0';
        begin(true);
        log_event(LOG_INFO, "long", LOG_STR("a", text), LOG_STR("b", text), LOG_STR("c", text),
                  LOG_STR("d", text), LOG_STR("e", text), LOG_STR("f", text), LOG_U64("g", 123456),
                  LOG_U64("h", 123456));
        end();
        assert_true(written_size <= LINE_MAX_BYTES);
        assert_true(written_size > LINE_MAX_BYTES - 64);
        yyjson_doc *doc = parse();
        assert_true(yyjson_get_bool(yyjson_obj_get(yyjson_doc_get_root(doc), "cut")));
        assert_non_null(member(doc, "a"));
        yyjson_doc_free(doc);
    }
}

static void test_a_cut_text_line_is_one_line(void **state)
{
    (void)state;
    static char text[1025];
    memset(text, 'x', sizeof(text) - 1);
    begin(false);
    log_event(LOG_INFO, "long", LOG_STR("a", text), LOG_STR("b", text), LOG_STR("c", text),
              LOG_STR("d", text), LOG_STR("e", text));
    end();
    assert_int_equal(count_lines(), 1);
    assert_true(written_size <= LINE_MAX_BYTES);
    assert_string_equal(written + written_size - 10, " cut=true\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_line_has_all_fields),
        cmocka_unit_test(test_text_line_quotes_only_what_needs_it),
        cmocka_unit_test(test_fields_may_be_absent),
        cmocka_unit_test(test_levels_that_are_off_cost_nothing),
        cmocka_unit_test(test_no_value_forges_a_line),
        cmocka_unit_test(test_a_long_value_is_cut_at_a_character),
        cmocka_unit_test(test_a_line_is_cut_at_4_kib_and_stays_valid),
        cmocka_unit_test(test_a_cut_text_line_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
