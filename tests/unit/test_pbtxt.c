/*
 * pbtxt: what protobuf's text format may say is read, what it may not is refused at its line and
 * column.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/effective.h"
#include "server/modelconfig.h"
#include "server/pbtxt.h"
#include "util/mem.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* The tree in one line: {key=text key="quoted" key=[a b] key={...}} */
static void show(const struct yaml *node, struct buffer *out)
{
    if (node->key != NULL) {
        buffer_printf(out, "%s=", node->key);
    }
    if (node->kind == YAML_SCALAR) {
        buffer_printf(out, node->quoted ? "\"%s\"" : "%s", node->text);
        return;
    }
    uint32_t count = 0;
    buffer_char(out, node->kind == YAML_LIST ? '[' : '{');
    for (const struct yaml *entry = node->first; entry != NULL; entry = entry->next) {
        buffer_text(out, count++ == 0 ? "" : " ");
        show(entry, out);
    }
    assert_int_equal(count, node->count);
    buffer_char(out, node->kind == YAML_LIST ? ']' : '}');
}

static void test_good_texts(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        { "", "{}" },
        { "  # nothing\n", "{}" },
        { "a: 1", "{a=1}" },
        { "a:1,b:2;c:3 d:4", "{a=1 b=2 c=3 d=4}" },
        { "a: 1 # one\n# two\nb: 2", "{a=1 b=2}" },
        { "a: -5 b: - 6", "{a=-5 b=-6}" },
        { "a: 0x1F b: 017 c: 0 d: -0", "{a=31 b=15 c=0 d=0}" },
        { "a: 18446744073709551615", "{a=18446744073709551615}" },
        { "a: 1.5 b: .5 c: 1. d: 1e3 e: 2.5E-3 f: 1.5f g: 2f h: -1e+2",
          "{a=1.5 b=.5 c=1. d=1e3 e=2.5E-3 f=1.5 g=2 h=-1e+2}" },
        { "a: TYPE_FP32 b: true c: inf d: -inf", "{a=TYPE_FP32 b=true c=inf d=-inf}" },
        { "a: \"x\"", "{a=\"x\"}" },
        { "a: 'x\"y'", "{a=\"x\"y\"}" },
        { "a: \"x\" 'y'\n  # between\n \"z\" b: 1", "{a=\"xyz\" b=1}" },
        { "a: \"\\t\\x41\\101\\u00e9\\U0001F600\\\\\\'\\\"\\?\"",
          "{a=\"\tAA\xC3\xA9\xF0\x9F\x98\x80\\'\"?\"}" },
        { "a: \"\\303\\251 \\xe2\\x82\\xac\"", "{a=\"\xC3\xA9 \xE2\x82\xAC\"}" },
        { "a: \"# no comment\"", "{a=\"# no comment\"}" },
        { "a: ''", "{a=\"\"}" },
        { "m { a: 1 }", "{m={a=1}}" },
        { "m: { a: 1 }", "{m={a=1}}" },
        { "m < a: 1 > m: <>", "{m={a=1} m={}}" },
        { "m {} n { o { p: 1 } }", "{m={} n={o={p=1}}}" },
        { "a: [ 1, 2, -3 ]", "{a=[1 2 -3]}" },
        { "a: []", "{a=[]}" },
        { "a []", "{a=[]}" },
        { "m [ { a: 1 }, < a: 2 > ]", "{m=[{a=1} {a=2}]}" },
        { "m: [ { a: 1 } ]", "{m=[{a=1}]}" },
        { "a: [ \"x\" \"y\", 'z' ]", "{a=[\"xy\" \"z\"]}" },
        { "a: 1 a: 2 a: [3]", "{a=1 a=2 a=[3]}" },
        { "a { b: 1 }, c { d: 2 };", "{a={b=1} c={d=2}}" },
        { "a:\r\n\t1\v\f", "{a=1}" },
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct arena arena;
        struct weir_err err = { 0 };
        struct buffer out;
        struct yaml *root = NULL;
        arena_init(&arena, NULL, 0, 1 << 20);
        buffer_init(&out, 4096);
        const enum weir_status status = pbtxt_parse(&arena, "c", bytes_of(rows[i][0]), &root, &err);
        if (status != WEIR_OK) {
            fail_msg("%s: %s", rows[i][0], err.text);
        }
        show(root, &out);
        buffer_char(&out, '\0');
        assert_string_equal(out.data, rows[i][1]);
        buffer_finish(&out);
        arena_finish(&arena);
    }
}

static void check_refused(struct bytes text, const char *expected)
{
    struct arena arena;
    struct weir_err err = { 0 };
    struct yaml *root = NULL;
    arena_init(&arena, NULL, 0, 16 << 20);
    assert_int_equal(pbtxt_parse(&arena, "c", text, &root, &err), WEIR_EINVAL);
    assert_null(root);
    if (strstr(err.text, expected) == NULL) {
        fail_msg("'%.60s': found '%s', expected '%s'", text.data, err.text, expected);
    }
    arena_finish(&arena);
}

static void test_bad_texts(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        { "a", "c:1:2: found the end, expected a colon, { or <" },
        { "a:", "c:1:3: found the end, expected a value" },
        { "a 1", "c:1:3: found '1', expected a colon, { or <" },
        { "a: 1\n  b 2", "c:2:5: found '2'" },
        { ": 1", "c:1:1: found ':', expected a field's name" },
        { "1: 1", "c:1:1: found '1', expected a field's name" },
        { "\"a\": 1", "c:1:1: found '\"a\"', expected a field's name" },
        { "a: 1,, b: 2", "c:1:6: found ',', expected a field's name" },
        { "m {", "c:1:4: found the end, expected a field's name or the end of the message" },
        { "m { a: 1", "c:1:9: found the end" },
        { "m { a: 1 >", "c:1:10: found '>'" },
        { "m < a: 1 }", "c:1:10: found '}'" },
        { "a: 1 }", "c:1:6: found '}', expected a field's name" },
        { "a: [1, 2", "c:1:9: found the end, expected a comma or ]" },
        { "a: [1 2]", "c:1:7: found '2', expected a comma or ]" },
        { "a: [1,]", "c:1:7: found ']', expected a value behind the comma" },
        { "a: [,]", "c:1:5: found ',', expected a value" },
        { "a: [[1]]", "c:1:5: found '[', expected a value" },
        { "a [1]", "c:1:4: found '1', expected { or < (a list of values needs a colon before it)" },
        { "a: \"x", "c:1:4: found a text without its closing quote in the same line" },
        { "a: \"x\ny\"", "c:1:4: found a text without its closing quote" },
        { "a: \"x\\", "closing quote" },
        { "a: \"\\q\"", "c:1:4: found an unknown or incomplete escape" },
        { "a: \"\\x\"", "escape" },
        { "a: \"\\u12\"", "escape" },
        { "a: \"\\uD800\"", "escape" },
        { "a: \"\\U00110000\"", "escape" },
        { "a: \"\\777\"", "escape" },
        { "a: \"\\0\"", "found a NUL" },
        { "a: \"\\xff\"", "c:1:4: found a text that is no UTF-8" },
        { "a: 1x", "c:1:4: found '1x', expected a number" },
        { "a: 08", "found '08', expected a number" },
        { "a: 0x", "found '0x', expected a number" },
        { "a: 1e", "found '1e', expected a number" },
        { "a: 1.2.3", "found '1.2.3', expected a number" },
        { "a: +1", "c:1:4: found '+'" },
        { "a: -\"x\"", "c:1:5: found '\"x\"', expected a number" },
        { "a: --1", "c:1:5: found '-', expected a number" },
        { "a: b: 1", "c:1:5: found ':'" },
        { "[ext.field]: 1", "c:1:1: found an extension or Any" },
        { "m { [type.googleapis.com/x] { } }", "c:1:5: found an extension or Any" },
        { "a.b: 1", "c:1:2: found '.'" },
        { "a: 1 /* x */", "c:1:6: found '/'" },
        { "a: \xC3\xA9", "c:1:4: found" },
        { "a: 1 @", "c:1:6: found '@'" },
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        check_refused(bytes_of(rows[i][0]), rows[i][1]);
    }
    check_refused((struct bytes){ "a: 1\0", 5 }, "c:1:5: found");
}

static void test_bounds(void **state)
{
    (void)state;
    struct buffer text;
    buffer_init(&text, 4 << 20);
    for (int i = 0; i < 40; i++) {
        buffer_text(&text, "a { ");
    }
    check_refused((struct bytes){ text.data, text.size }, "found more than 32 levels");
    buffer_clear(&text);
    for (int i = 0; i < 10001; i++) {
        buffer_text(&text, "a:1 ");
    }
    check_refused((struct bytes){ text.data, text.size }, "found more than 10000 values");
    buffer_clear(&text);
    while (text.size <= 1 << 20) {
        buffer_text(&text, "# a long comment without an end                                    \n");
    }
    check_refused((struct bytes){ text.data, text.size }, "expected at most 1048576");
    buffer_finish(&text);
}

static struct model_config *parse(const char *text, struct weir_err *err)
{
    struct model_config *config = effective_create();
    assert_non_null(config);
    if (modelconfig_parse_pbtxt(config, "m", "config.pbtxt", bytes_of(text), err) == WEIR_OK) {
        return config;
    }
    config->release(config);
    return NULL;
}

static const char full[] =
    "name: \"m\"\n"
    "platform: \"onnxruntime_onnx\"\n"
    "max_batch_size: 8\n"
    "input [ { name: \"A\" data_type: TYPE_FP32 dims: [ 16 ] }, { name: \"B\" data_type: 8 dims: 4 "
    "dims: [ -1 ] format: FORMAT_NCHW } ]\n"
    "output { name: \"Y\" data_type: TYPE_STRING dims: [ 1 ] reshape { shape: [ ] } "
    "label_filename: \"l.txt\" }\n"
    "output { name: \"Z\" data_type: TYPE_BF16 dims: 1 }\n"
    "version_policy: { specific { versions: [ 1, 3 ] } }\n"
    "instance_group [ { count: 2 kind: KIND_CPU } ]\n"
    "dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100\n"
    "  default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 5 "
    "allow_timeout_override: t max_queue_size: 3 }\n"
    "  priority_levels: 2 default_priority_level: 1\n"
    "  priority_queue_policy { key: 1 value: { max_queue_size: 2 } }\n"
    "  priority_queue_policy { key: 2 value { } } }\n"
    "parameters { key: \"a\" value { string_value: \"1\" } }\n"
    "parameters: { key: \"b\" value: { string_value: \"2\" } }\n"
    "model_warmup { name: \"w\" batch_size: 1 inputs { key: \"A\" value { data_type: TYPE_FP32 "
    "dims: 16 zero_data: true } } inputs { key: \"B\" value { data_type: TYPE_INT32 dims: [4, 1] "
    "random_data: true } } }\n"
    "response_cache { enable: True }\n"
    "optimization { cuda { graphs: 1 } execution_accelerators { gpu_execution_accelerator : [ { "
    "name : \"tensorrt\" } ] } }\n";

static void test_a_whole_configuration(void **state)
{
    (void)state;
    struct weir_err err = { 0 };
    struct model_config *config = parse(full, &err);
    assert_string_equal(err.text, "");
    assert_true(config->proto);
    assert_int_equal(config->max_batch_size, 8);
    assert_int_equal(config->input_count, 2);
    assert_int_equal(config->inputs[1].dtype, DTYPE_INT32);
    assert_int_equal(config->inputs[1].dims.rank, 2);
    assert_int_equal(config->inputs[1].dims.dims[1], -1);
    assert_int_equal(config->output_count, 2);
    assert_int_equal(config->outputs[0].dtype, DTYPE_BYTES);
    assert_true(config->outputs[0].has_reshape);
    assert_int_equal(config->outputs[0].reshape.rank, 0);
    assert_string_equal(config->outputs[0].label_file, "l.txt");
    assert_int_equal(config->policy, VERSION_SPECIFIC);
    assert_int_equal(config->policy_versions[1], 3);
    assert_int_equal(config->instances, 2);
    assert_int_equal(config->preferred_count, 2);
    assert_true(config->timeout_override);
    assert_int_equal(config->requests_max, 3);
    assert_int_equal(config->setting_count, 2);
    assert_string_equal(config->settings[1].value, "2");
    assert_int_equal(config->warmups[0].input_count, 2);
    assert_int_equal(config->warmups[0].inputs[1].kind, WARMUP_RANDOM);
    assert_true(config->response_cache);
    assert_non_null(strstr(config->remark, "config.pbtxt:18:16: cuda: no effect"));
    assert_non_null(strstr(config->remark, "execution_accelerators: no effect"));
    assert_non_null(config->levels);
    assert_int_equal(config->levels[0].requests_max, 2);
    assert_true(config->levels[0].timeout_ns == UINT64_MAX);
    assert_true(config->levels[1].set);
    config->release(config);
}

static void test_mistakes_in_a_configuration(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        { "max_batch_size: 1\nmax_batch_size: 2",
          "config.pbtxt:2:1: max_batch_size: found twice (first in line 1), expected once" },
        { "dynamic_batching {} dynamic_batching {}", "dynamic_batching: found twice" },
        { "max_batch: 1", "config.pbtxt:1:1: unknown key 'max_batch'; allowed: name" },
        { "maxBatchSize: 1", "unknown key 'maxBatchSize'" },
        { "input { nam: \"x\" }", "config.pbtxt:1:9: unknown key 'nam'; did you mean 'name'?" },
        { "max_batch_size: \"8\"", "config.pbtxt:1:17: max_batch_size: found the text '8'" },
        { "max_batch_size: [1, 2]", "max_batch_size: found a list, expected a whole number" },
        { "max_batch_size: -1", "found '-1'" },
        { "max_batch_size: 1.5", "found '1.5'" },
        { "name: m", "config.pbtxt:1:1: name: found 'm', expected a text in quotes" },
        { "name: \"other\"", "unexpected directory name 'm' for model 'other'" },
        { "input { name: \"x\" data_type: \"TYPE_FP32\" }", "expected a data type" },
        { "input { name: \"x\" data_type: TYPE_FP8 }", "found 'TYPE_FP8'" },
        { "input { name: \"x\" data_type: 0 }", "found '0', expected a data type" },
        { "input { name: \"x\" dims: 0 }", "expected a size of at least 1" },
        { "parameters { key: \"a\" value { string_value: \"1\" } } parameters { key: \"a\" }",
          "a: found twice" },
        { "parameters { value { string_value: \"1\" } }", "expected a key in it" },
        { "parameters { kay: \"a\" }", "unknown key 'kay'; did you mean 'key'?" },
        { "parameters { of: \"a\" }", "unknown key 'of'; allowed: key, value" },
        { "dynamic_batching {} sequence_batching {}",
          "config.pbtxt:1:21: found sequence_batching beside dynamic_batching" },
        { "input { name: \"x\" allow_ragged_batch: true }",
          "config.pbtxt:1:19: allow_ragged_batch is not supported: ragged batching" },
        { "instance_group { kind: KIND_TPU }", "found 'KIND_TPU'" },
        { "model_warmup { inputs { key: \"x\" value { data_type: TYPE_FP32 } } }",
          "expected data_type, dims and one of zero_data" },
        { "version_policy { all {} latest {} }", "found latest beside all" },
        { "response_cache: true", "response_cache: found 'true', expected a map of settings" },
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct weir_err err = { 0 };
        assert_null(parse(rows[i][0], &err));
        if (strstr(err.text, rows[i][1]) == NULL) {
            fail_msg("'%s': found '%s', expected '%s'", rows[i][0], err.text, rows[i][1]);
        }
    }
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    (void)mem_fault_arm(1000000);
    struct model_config *config = parse(full, NULL);
    config->release(config);
    const uint64_t calls = mem_fault_arm(0);
    for (uint64_t n = 1; n <= calls; n++) {
        config = effective_create();
        assert_non_null(config);
        struct weir_err err = { 0 };
        (void)mem_fault_arm(n);
        const enum weir_status status =
            modelconfig_parse_pbtxt(config, "m", "config.pbtxt", bytes_of(full), &err);
        (void)mem_fault_arm(0);
        assert_true(status == WEIR_OK || status == WEIR_ENOMEM);
        config->release(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_texts),
        cmocka_unit_test(test_bad_texts),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_a_whole_configuration),
        cmocka_unit_test(test_mistakes_in_a_configuration),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
