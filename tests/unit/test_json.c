/*
 * json: what is read, what is refused and with which sentence, and what is written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/json.h"
#include "util/mem.h"

static yyjson_doc *read_ok(const char *text)
{
    yyjson_doc *doc = NULL;
    struct weir_err err = { 0 };
    const enum weir_status status = json_read(bytes_of(text), &doc, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(status, WEIR_OK);
    return doc;
}

static void refuse_bytes(struct bytes text, const char *sentence)
{
    yyjson_doc *doc = NULL;
    struct weir_err err = { 0 };
    assert_int_equal(json_read(text, &doc, &err), WEIR_EINVAL);
    assert_null(doc);
    if (strstr(err.text, sentence) == NULL) {
        fail_msg("found '%s', expected '%s'", err.text, sentence);
    }
}

static void refuse(const char *text, const char *sentence)
{
    refuse_bytes(bytes_of(text), sentence);
}

static void test_reads_values(void **state)
{
    (void)state;
    yyjson_doc *doc = read_ok(" {\"a\": [1, -2, 3.5, \"x\\u0000y\", null, true]} ");
    yyjson_val *array = yyjson_obj_get(yyjson_doc_get_root(doc), "a");
    assert_int_equal(yyjson_arr_size(array), 6);
    assert_int_equal(yyjson_get_sint(yyjson_arr_get(array, 1)), -2);
    assert_int_equal(yyjson_get_len(yyjson_arr_get(array, 3)), 3);
    yyjson_doc_free(doc);
}

static void test_refuses_what_is_not_json(void **state)
{
    (void)state;
    refuse("", "found nothing");
    refuse("  \n ", "found nothing");
    refuse("{\"a\": 1,}", "line 1, column 8: trailing comma");
    refuse("{\n  \"a\": tru\n}", "line 2, column 8");
    refuse("[1] [2]", "line 1, column 5");
    refuse("[NaN]", "column 2");
    refuse("[Infinity]", "column 2");
    refuse("[-Infinity]", "JSON line 1");
    refuse("[1] // comment", "column 5");
    refuse("[\"\xff\"]", "UTF-8");
    refuse("\xef\xbb\xbf[]", "JSON line 1");
    refuse("[01]", "JSON line 1");
    refuse("[1e999]", "JSON line 1");
    refuse("[\"abc", "JSON line 1");
    refuse_bytes((struct bytes){ "[1]\0", 4 }, "JSON line 1");
    refuse_bytes((struct bytes){ NULL, 0 }, "found nothing");
}

/* `levels` of opening text, `inside`, then as many of closing text. */
static char *nest(int levels, const char *open, const char *inside, const char *close)
{
    const size_t size = (size_t)levels * (strlen(open) + strlen(close)) + strlen(inside) + 1;
    char *text = malloc(size);
    assert_non_null(text);
    char *at = text;
    for (int i = 0; i < levels; i++) {
        at = stpcpy(at, open);
    }
    at = stpcpy(at, inside);
    for (int i = 0; i < levels; i++) {
        at = stpcpy(at, close);
    }
    return text;
}

static void check_depth(const char *open, const char *inside, const char *close)
{
    char *deep = nest(JSON_DEPTH_MAX, open, inside, close);
    yyjson_doc_free(read_ok(deep));
    free(deep);
    char *too_deep = nest(JSON_DEPTH_MAX + 1, open, inside, close);
    refuse(too_deep, "nested deeper than 100 levels");
    free(too_deep);
}

static void test_depth_is_limited(void **state)
{
    (void)state;
    check_depth("[", "1", "]");
    check_depth("{\"[\\\"{\":", "1", "}");
    check_depth("[\"]\",", "1", "]");
    char *open = nest(1000000, "[", "", "");
    refuse(open, "line 1, column 101: nested deeper");
    free(open);
}

static void test_wide_is_not_deep(void **state)
{
    (void)state;
    struct buffer text;
    buffer_init(&text, 1 << 20);
    buffer_char(&text, '[');
    for (int i = 0; i < 5000; i++) {
        json_comma(&text);
        buffer_text(&text, "[\"\\\\\",{\"[[[[\":\"{{{{\\\"[[\"}]");
    }
    buffer_text(&text, "]");
    buffer_char(&text, '\0');
    yyjson_doc_free(read_ok(text.data));
    buffer_finish(&text);
}

static void expect_member(const char *text, const char *key, enum json_type type,
                          const char *sentence)
{
    yyjson_doc *doc = read_ok(text);
    yyjson_val *value = NULL;
    struct weir_err err = { 0 };
    const enum weir_status status =
        json_member(yyjson_doc_get_root(doc), "inputs[0]", key, type, true, &value, &err);
    assert_string_equal(err.text, sentence);
    assert_int_equal(status, sentence[0] == '\0' ? WEIR_OK : WEIR_EINVAL);
    assert_int_equal(value != NULL, sentence[0] == '\0');
    yyjson_doc_free(doc);
}

static void test_members(void **state)
{
    (void)state;
    expect_member("{\"n\": 3}", "n", JSON_UINT, "");
    expect_member("{\"n\": 3.5}", "n", JSON_NUMBER, "");
    expect_member("{\"n\": false}", "n", JSON_BOOL, "");
    expect_member("{\"n\": {}}", "n", JSON_OBJECT, "");
    expect_member("{\"n\": []}", "n", JSON_ARRAY, "");
    expect_member("{\"n\": -3}", "n", JSON_UINT,
                  "inputs[0].n: found the number -3, expected a whole number from 0 on");
    expect_member("{\"n\": 2.0}", "n", JSON_UINT,
                  "inputs[0].n: found the number 2.0, expected a whole number from 0 on");
    expect_member("{\"n\": [1]}", "n", JSON_STRING,
                  "inputs[0].n: found an array, expected a string");
    expect_member("{\"n\": null}", "n", JSON_OBJECT, "inputs[0].n: found null, expected an object");
    expect_member("{}", "n", JSON_ARRAY, "inputs[0].n: missing, expected an array");
    expect_member("[]", "n", JSON_ARRAY, "inputs[0]: found an array, expected an object");
    expect_member("{\"n\": \"a very long string that nobody wants to read in a sentence\"}", "n",
                  JSON_BOOL,
                  "inputs[0].n: found the string 'a very long string that nobody wants to ...', "
                  "expected true or false");
}

static void test_absent_member_leaves_out_alone(void **state)
{
    (void)state;
    yyjson_doc *doc = read_ok("{}");
    yyjson_val *value = yyjson_doc_get_root(doc);
    assert_int_equal(json_member(value, NULL, "n", JSON_ARRAY, false, &value, NULL), WEIR_OK);
    assert_ptr_equal(value, yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
}

static void expect_unique(const char *text, const char *sentence)
{
    yyjson_doc *doc = read_ok(text);
    struct weir_err err = { 0 };
    const enum weir_status status = json_unique(yyjson_doc_get_root(doc), "", &err);
    assert_string_equal(err.text, sentence);
    assert_int_equal(status, sentence[0] == '\0' ? WEIR_OK : WEIR_EINVAL);
    yyjson_doc_free(doc);
}

static void test_unique_keys(void **state)
{
    (void)state;
    expect_unique("{}", "");
    expect_unique("{\"a\":1,\"b\":2,\"A\":3}", "");
    expect_unique("{\"a\":1,\"b\":2,\"a\":3}", "a: found twice, expected once");
    struct buffer text;
    buffer_init(&text, 1 << 22);
    buffer_char(&text, '{');
    for (int i = 0; i < 100000; i++) {
        buffer_printf(&text, "\"k%d\":1,", i);
    }
    const size_t size = text.size;
    buffer_text(&text, "\"last\":1}");
    buffer_char(&text, '\0');
    expect_unique(text.data, "");
    text.size = size;
    buffer_text(&text, "\"k777\":1}");
    buffer_char(&text, '\0');
    expect_unique(text.data, "k777: found twice, expected once");
    buffer_finish(&text);
}

static void expect_text(const char *text, size_t size, const char *json)
{
    struct buffer out;
    buffer_init(&out, 1024);
    json_text(&out, (struct bytes){ text, size });
    assert_false(out.failed);
    assert_int_equal(out.size, strlen(json));
    assert_memory_equal(out.data, json, out.size);
    buffer_finish(&out);
}

static void test_writes_text(void **state)
{
    (void)state;
    expect_text("", 0, "\"\"");
    expect_text("plain", 5, "\"plain\"");
    expect_text("a\"b\\c/", 6, "\"a\\\"b\\\\c/\"");
    expect_text("\b\t\n\f\r\x01\x1f\x7f", 8, "\"\\b\\t\\n\\f\\r\\u0001\\u001f\x7f\"");
    expect_text("a\0b", 3, "\"a\\u0000b\"");
    expect_text("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9,
                "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"");
    expect_text("a\xff"
                "b\xc3",
                4,
                "\"a\xef\xbf\xbd"
                "b\xef\xbf\xbd\"");
    expect_text("\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void test_writes_numbers_and_keys(void **state)
{
    (void)state;
    struct buffer out;
    buffer_init(&out, 1024);
    const float floats[] = { 0.5f, -2.0f, NAN };
    const double doubles[] = { 0.1, 1e300 };
    buffer_char(&out, '{');
    json_key(&out, "f");
    buffer_char(&out, '[');
    for (int i = 0; i < 3; i++) {
        json_comma(&out);
        json_float(&out, floats[i]);
    }
    buffer_char(&out, ']');
    json_key(&out, "d");
    json_doubles(&out, doubles, 2);
    json_key(&out, "none");
    json_doubles(&out, NULL, 0);
    json_key(&out, "b");
    json_bool(&out, true);
    json_key(&out, "x");
    json_double(&out, -(double)INFINITY);
    buffer_char(&out, '}');
    buffer_char(&out, '\0');
    assert_string_equal(out.data, "{\"f\":[0.5,-2.0,NaN],\"d\":[0.1,1e300],\"none\":[],\"b\":true,"
                                  "\"x\":-Infinity}");
    buffer_finish(&out);
}

static void test_writing_stops_at_the_limit(void **state)
{
    (void)state;
    for (size_t limit = 0; limit < 64; limit++) {
        struct buffer out;
        buffer_init(&out, limit);
        buffer_char(&out, '[');
        for (int i = 0; i < 16; i++) {
            json_comma(&out);
            json_float(&out, 0.25f);
        }
        assert_true(out.size <= limit);
        assert_true(out.failed);
        buffer_finish(&out);
    }
    struct buffer out;
    buffer_init(&out, 7);
    json_float(&out, 0.125f); /* Shorter than what writing may touch. */
    assert_false(out.failed);
    json_string(&out, "a");
    assert_true(out.failed);
    assert_int_equal(out.size, 5);
    buffer_finish(&out);
}

static void test_what_is_written_can_be_read(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    struct buffer out;
    buffer_init(&out, 1 << 24);
    static float floats[COUNT];
    for (int i = 0; i < COUNT; i++) {
        floats[i] = (float)sin(i) * powf(10.0f, (float)(i % 70) - 35.0f);
    }
    buffer_char(&out, '[');
    for (int i = 0; i < COUNT; i++) {
        json_comma(&out);
        json_float(&out, floats[i]);
    }
    buffer_char(&out, ']');
    assert_false(out.failed);
    yyjson_doc *doc = NULL;
    assert_int_equal(json_read((struct bytes){ out.data, out.size }, &doc, NULL), WEIR_OK);
    size_t index;
    size_t max;
    yyjson_val *value;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), index, max, value) {
        assert_true((float)yyjson_get_num(value) == floats[index]);
    }
    assert_int_equal(max, COUNT);
    yyjson_doc_free(doc);
    buffer_finish(&out);
}

/* Without fault injection the first round already succeeds. */
static void test_out_of_memory_is_said(void **state)
{
    (void)state;
    enum weir_status status = WEIR_ENOMEM;
    for (uint64_t nth = 1; status != WEIR_OK; nth++) {
        yyjson_doc *doc = NULL;
        (void)mem_fault_arm(nth);
        status = json_read(BYTES_LITERAL("{\"a\":[1,2,3]}"), &doc, NULL);
        (void)mem_fault_arm(0);
        assert_true(status == WEIR_OK || (status == WEIR_ENOMEM && doc == NULL));
        yyjson_doc_free(doc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_values),
        cmocka_unit_test(test_refuses_what_is_not_json),
        cmocka_unit_test(test_depth_is_limited),
        cmocka_unit_test(test_wide_is_not_deep),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_absent_member_leaves_out_alone),
        cmocka_unit_test(test_unique_keys),
        cmocka_unit_test(test_writes_text),
        cmocka_unit_test(test_writes_numbers_and_keys),
        cmocka_unit_test(test_writing_stops_at_the_limit),
        cmocka_unit_test(test_what_is_written_can_be_read),
        cmocka_unit_test(test_out_of_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
