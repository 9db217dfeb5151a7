/*
 * yaml: the tree and its lines, what is refused with which sentence, and typed reading.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "util/mem.h"
#include "util/yaml.h"

static struct arena arena;

static int set_up(void **state)
{
    (void)state;
    arena_init(&arena, NULL, 0, 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena_finish(&arena);
    return 0;
}

static struct yaml *parse(const char *text)
{
    struct yaml *root = NULL;
    struct weir_err err = { 0 };
    const enum weir_status status = yaml_parse(&arena, "a.yaml", bytes_of(text), &root, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(status, WEIR_OK);
    return root;
}

static void refuse_bytes(struct bytes text, const char *sentence)
{
    struct yaml *root = NULL;
    struct weir_err err = { 0 };
    assert_int_equal(yaml_parse(&arena, "a.yaml", text, &root, &err), WEIR_EINVAL);
    assert_null(root);
    if (strncmp(err.text, sentence, strlen(sentence)) != 0) {
        fail_msg("found '%s', expected '%s'", err.text, sentence);
    }
}

static void refuse(const char *text, const char *sentence)
{
    refuse_bytes(bytes_of(text), sentence);
}

static void test_tree_remembers_lines(void **state)
{
    (void)state;
    const struct yaml *root = parse("# comment\n"
                                    "name: segment\n"
                                    "input:\n"
                                    "  - { name: x, dims: [1, 'two'] }\n"
                                    "  -\n"
                                    "    name: y\n"
                                    "empty:\n");
    assert_int_equal(root->kind, YAML_MAP);
    assert_int_equal(root->count, 3);
    const struct yaml *name = yaml_get(root, "name");
    assert_string_equal(name->text, "segment");
    assert_false(name->quoted);
    assert_int_equal(name->line, 2);
    assert_int_equal(name->key_line, 2);
    const struct yaml *input = yaml_get(root, "input");
    assert_int_equal(input->kind, YAML_LIST);
    assert_int_equal(input->count, 2);
    assert_int_equal(input->key_line, 3);
    const struct yaml *dims = yaml_get(input->first, "dims");
    assert_string_equal(dims->first->text, "1");
    assert_false(dims->first->quoted);
    assert_string_equal(dims->first->next->text, "two");
    assert_true(dims->first->next->quoted);
    assert_null(dims->first->next->next);
    assert_null(dims->first->key);
    assert_int_equal(yaml_get(input->first->next, "name")->line, 6);
    assert_string_equal(yaml_get(root, "empty")->text, "");
    assert_null(yaml_get(root, "absent"));
    assert_null(yaml_get(name, "name"));
    assert_non_null(yaml_get(parse("\xef\xbb\xbf"
                                   "a: 1\n"),
                             "a")); /* A byte-order mark. */
}

static void test_empty_documents_are_empty_maps(void **state)
{
    (void)state;
    const char *const texts[] = { "", "\n\n", "# nothing but this\n", "---\n", "---\n...\n" };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const struct yaml *root = parse(texts[i]);
        assert_int_equal(root->kind, YAML_MAP);
        assert_int_equal(root->count, 0);
        assert_null(yaml_get(root, "a"));
    }
    struct yaml *root = NULL;
    assert_int_equal(yaml_parse(&arena, "a", (struct bytes){ NULL, 0 }, &root, NULL), WEIR_OK);
    assert_non_null(root);
}

static void test_refuses_what_is_not_plain_data(void **state)
{
    (void)state;
    refuse("a: &x 1\n", "a.yaml:1: found an anchor (&), expected plain data");
    refuse("b: 1\na: *x\n", "a.yaml:2: found an alias (*), expected plain data");
    refuse("a: !!int 3\n", "a.yaml:1: found a tag (!), expected plain data");
    refuse("!!python/object:os.system {}\n", "a.yaml:1: found a tag");
    refuse("a: !!seq []\n", "a.yaml:1: found a tag");
    refuse("a: 1\n---\nb: 2\n", "a.yaml:2: found a second document, expected one");
    refuse("a: 1\nb: 2\n\na: 3\n", "a.yaml:4: a: found twice (first in line 1), expected once");
    refuse("? [1]\n: 2\n", "a.yaml:1: found a list or map as a key, expected a name");
    refuse("'': 2\n", "a.yaml:1: found an empty key");
    refuse("a: \"x\\0y\"\n", "a.yaml:1: found a NUL in a text");
    refuse("a: [1, 2\nb: 3\n", "a.yaml:2: ");
    refuse("a: 1\n\tb: 2\n", "a.yaml:2: ");
    refuse("a: '\xff'\n", "a.yaml: byte 4: ");
    refuse("a: b: c\n", "a.yaml:1: ");
    refuse_bytes((struct bytes){ "a: 1\0\n", 6 }, "a.yaml: byte 4: ");
}

static void test_sizes_are_limited(void **state)
{
    (void)state;
    char text[30000];
    char *at = text;
    for (int i = 0; i < 32; i++) {
        *at++ = '[';
    }
    memset(at, ']', 32);
    at[32] = '\0';
    (void)parse(text);
    memset(text, '[', 33);
    memset(text + 33, ']', 33);
    text[66] = '\0';
    refuse(text, "a.yaml:1: found more than 32 levels, expected fewer");

    at = text;
    for (int i = 0; i < 9999; i++) {
        at = stpcpy(at, "-\n");
    }
    (void)parse(text);
    (void)stpcpy(at, "-\n");
    refuse(text, "a.yaml:10000: found more than 10000 nodes, expected fewer");

    static char big[1048577];
    memset(big, '#', sizeof big);
    refuse_bytes((struct bytes){ big, sizeof big },
                 "a.yaml: found 1048577 bytes, expected at most 1048576");
    struct yaml *root = NULL;
    assert_int_equal(yaml_parse(&arena, "a", (struct bytes){ big, sizeof big - 1 }, &root, NULL),
                     WEIR_OK);
}

static struct yaml *value(const char *text)
{
    char document[256];
    (void)snprintf(document, sizeof document, "\nkey: %s\n", text);
    return yaml_get(parse(document), "key");
}

static void test_reads_settings(void **state)
{
    (void)state;
    bool flag = false;
    assert_int_equal(yaml_bool(value("true"), "a", &flag, NULL), WEIR_OK);
    assert_true(flag);
    assert_int_equal(yaml_bool(value("false"), "a", &flag, NULL), WEIR_OK);
    assert_false(flag);
    int64_t number = 0;
    assert_int_equal(
        yaml_i64(value("-9223372036854775808"), "a", INT64_MIN, INT64_MAX, &number, NULL), WEIR_OK);
    assert_true(number == INT64_MIN);
    assert_int_equal(yaml_i64(value("42"), "a", 42, 42, &number, NULL), WEIR_OK);
    assert_int_equal(number, 42);
    double real = 0;
    assert_int_equal(yaml_double(value("-2.5e-1"), "a", -1, 1, &real, NULL), WEIR_OK);
    assert_true(real == -0.25);
    uint64_t size = 0;
    assert_int_equal(yaml_size(value("'1.5 KiB'"), "a", &size, NULL), WEIR_OK);
    assert_int_equal(size, 1536);
    assert_int_equal(yaml_duration_ns(value("2ms"), "a", &size, NULL), WEIR_OK);
    assert_int_equal(size, 2000000);
    const char *text = NULL;
    assert_int_equal(yaml_string(value("'null'"), "a", &text, NULL), WEIR_OK);
    assert_string_equal(text, "null");
    assert_int_equal(yaml_string(value("''"), "a", &text, NULL), WEIR_OK);
    assert_string_equal(text, "");
}

#define EXPECT_SENTENCE(call, sentence)            \
    do {                                           \
        struct weir_err err = { 0 };               \
        assert_int_equal((call), WEIR_EINVAL);     \
        assert_string_equal(err.text, (sentence)); \
    } while (0)

static void test_wrong_settings_are_named(void **state)
{
    (void)state;
    bool flag;
    int64_t number;
    double real;
    uint64_t size;
    const char *text;
    EXPECT_SENTENCE(yaml_bool(value("yes"), "a", &flag, &err),
                    "a:2: key: found 'yes', expected true or false");
    EXPECT_SENTENCE(yaml_bool(value("'true'"), "a", &flag, &err),
                    "a:2: key: found the text 'true', expected true or false");
    EXPECT_SENTENCE(yaml_i64(value("1.5"), "a", 0, 9, &number, &err),
                    "a:2: key: found '1.5', expected a whole number from 0 to 9");
    EXPECT_SENTENCE(yaml_i64(value("10"), "a", 0, 9, &number, &err),
                    "a:2: key: found '10', expected a whole number from 0 to 9");
    EXPECT_SENTENCE(yaml_i64(value("9223372036854775808"), "a", 0, INT64_MAX, &number, &err),
                    "a:2: key: found '9223372036854775808', expected a whole number from 0 to "
                    "9223372036854775807");
    EXPECT_SENTENCE(yaml_i64(value(""), "a", 0, 9, &number, &err),
                    "a:2: key: found nothing, expected a whole number from 0 to 9");
    EXPECT_SENTENCE(yaml_double(value("0x1p3"), "a", 0, 9, &real, &err),
                    "a:2: key: found '0x1p3', expected a number from 0 to 9");
    EXPECT_SENTENCE(yaml_double(value("1e999"), "a", 0, 9, &real, &err),
                    "a:2: key: found '1e999', expected a number from 0 to 9");
    EXPECT_SENTENCE(yaml_double(value("1.5.2"), "a", 0, 9, &real, &err),
                    "a:2: key: found '1.5.2', expected a number from 0 to 9");
    EXPECT_SENTENCE(yaml_size(value("[1]"), "a", &size, &err),
                    "a:2: key: found a list, expected a size such as 64KiB, 1.5GiB or 4096");
    EXPECT_SENTENCE(yaml_duration_ns(value("5"), "a", &size, &err),
                    "a:2: key: found '5', expected a duration such as 500us, 1.5s or 10min");
    EXPECT_SENTENCE(yaml_string(value("{}"), "a", &text, &err),
                    "a:2: key: found a map, expected a text");
    EXPECT_SENTENCE(yaml_string(value("~"), "a", &text, &err),
                    "a:2: key: found nothing, expected a text");
    const struct yaml *list = parse("- 1\n");
    EXPECT_SENTENCE(yaml_bool(list->first, "a", &flag, &err),
                    "a:1: found '1', expected true or false");
}

/* Without fault injection the first round already succeeds. */
static void test_out_of_memory_is_said(void **state)
{
    (void)state;
    enum weir_status status = WEIR_ENOMEM;
    for (uint64_t nth = 1; status != WEIR_OK; nth++) {
        struct yaml *root = NULL;
        arena_reset(&arena);
        (void)mem_fault_arm(nth);
        status = yaml_parse(&arena, "a", BYTES_LITERAL("a: [1, 2]\n"), &root, NULL);
        (void)mem_fault_arm(0);
        assert_true(status == WEIR_OK || (status == WEIR_ENOMEM && root == NULL));
    }
    arena_reset(&arena);
    struct arena small;
    char first[64];
    arena_init(&small, first, sizeof first, 1);
    struct yaml *root = NULL;
    assert_int_equal(yaml_parse(&small, "a", BYTES_LITERAL("a: [1, 2]\n"), &root, NULL),
                     WEIR_ENOMEM);
    arena_finish(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tree_remembers_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_empty_documents_are_empty_maps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refuses_what_is_not_plain_data, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sizes_are_limited, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reads_settings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_settings_are_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_out_of_memory_is_said, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
