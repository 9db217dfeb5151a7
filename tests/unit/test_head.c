/* A header that is shared says what it said, for as long as somebody needs it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "net/head.h"
#include "util/mem.h"

static void assert_bytes(struct bytes found, const char *expected)
{
    assert_true(bytes_equal(found, bytes_of(expected)));
}

struct pair {
    const char *name;
    const char *value;
};

static const struct pair pairs[] = {
    { ":method", "POST" }, { ":path", "/v2?x=y" }, { ":authority", "here" },
    { "a", "here" },       { "empty", "" },        { "a", "again" },
};

#define PAIRS (sizeof(pairs) / sizeof(pairs[0]))

static void draft_pairs(struct head_draft *draft)
{
    head_draft_begin(draft);
    for (size_t i = 0; i < PAIRS; i++) {
        head_draft_add(draft, bytes_of(pairs[i].name), bytes_of(pairs[i].value));
    }
}

/* What reading these makes of an exchange, in memory that does not last. */
static struct head *read_pairs(const struct head_draft *draft)
{
    static const char target[] = "/v2?x=y";
    char *text = mem_strdup(target);
    struct http_field fields[] = {
        { BYTES_LITERAL("host"), bytes_of("here") },
        { bytes_of("a"), bytes_of("here") },
        { bytes_of("empty"), bytes_of("") },
        { bytes_of("a"), bytes_of("again") },
    };
    const struct exchange x = { .version = HTTP_2,
                                .method = HTTP_POST,
                                .target = { text, 7 },
                                .path = { text, 3 },
                                .query = { text + 4, 3 },
                                .fields = fields,
                                .field_count = 4 };
    struct head *head = head_create_drafted(&x, draft);
    memset(text, '#', 7);
    memset(fields, 0, sizeof(fields));
    mem_free(text);
    return head;
}

static void check(const struct exchange *x)
{
    assert_int_equal(x->version, HTTP_2);
    assert_int_equal(x->method, HTTP_POST);
    assert_bytes(x->target, "/v2?x=y");
    assert_bytes(x->path, "/v2");
    assert_bytes(x->query, "x=y");
    assert_int_equal(x->field_count, 4);
    assert_bytes(x->fields[0].name, "host");
    assert_bytes(x->fields[0].value, "here");
    assert_bytes(x->fields[1].name, "a");
    assert_bytes(x->fields[1].value, "here");
    assert_bytes(x->fields[2].value, "");
    assert_bytes(x->fields[3].value, "again");
}

static void test_what_is_shared_lasts_as_long_as_its_users(void **state)
{
    (void)state;
    struct head_draft draft;
    draft_pairs(&draft);
    struct head *head = read_pairs(&draft);
    assert_non_null(head);
    struct exchange x[2] = { { .status = 0 }, { .status = 0 } };
    for (unsigned i = 0; i < 2; i++) {
        arena_init(&x[i].arena, NULL, 0, 0);
        assert_true(head_share(head, &x[i]));
    }
    head_release(head); /* The connection has another one now. */
    check(&x[0]);
    arena_finish(&x[0].arena);
    check(&x[1]);
    arena_finish(&x[1].arena);
}

static void test_fields_are_told_apart(void **state)
{
    (void)state;
    struct head_draft draft;
    draft_pairs(&draft);
    struct head *head = read_pairs(&draft);
    assert_non_null(head);
    for (uint32_t i = 0; i < PAIRS; i++) {
        const struct bytes name = bytes_of(pairs[i].name);
        const struct bytes value = bytes_of(pairs[i].value);
        assert_true(head_has(head, i, name, value));
        assert_false(head_has(head, i, name, bytes_of("hers")));
        assert_false(head_has(head, i, bytes_of("b"), value));
        assert_false(head_has(head, i, name, bytes_of("longer than any of them")));
    }
    assert_false(head_has(head, PAIRS, bytes_of("a"), bytes_of("again")));
    head_release(head);
}

static void test_what_is_too_large_is_not_kept(void **state)
{
    (void)state;
    static char long_value[HEAD_BYTES_MAX];
    struct head_draft draft;
    memset(long_value, 'x', sizeof(long_value));
    draft_pairs(&draft);
    head_draft_add(&draft, bytes_of("b"), (struct bytes){ long_value, sizeof(long_value) });
    assert_null(read_pairs(&draft));
    draft_pairs(&draft);
    for (unsigned i = 0; i < HEAD_FIELDS_MAX; i++) {
        head_draft_add(&draft, bytes_of("b"), bytes_of("c"));
    }
    assert_null(read_pairs(&draft));
    const struct exchange x = { .target = { long_value, 1 } };
    const struct http1_facts facts = { 0 };
    assert_null(head_create(&x, (struct bytes){ long_value, HEAD_BYTES_MAX + 1 }, &facts));
    head_release(NULL);
}

/* A path that was not in the header ("http://host" alone has "/") cannot be found in a copy of
 * it. */
static void test_texts_from_elsewhere_are_not_kept(void **state)
{
    (void)state;
    static const char text[] = "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n";
    struct exchange x = { .target = { text + 8, 8 }, .path = BYTES_LITERAL("/") };
    const struct http1_facts facts = { .keep_alive = true };
    const struct bytes head = { text, sizeof(text) - 1 };
    assert_null(head_create(&x, head, &facts));
    x.path = x.target;
    struct head *made = head_create(&x, head, &facts);
    assert_non_null(made);
    assert_true(made->facts.keep_alive);
    head_release(made);
}

/* Whichever allocation fails: the header is not remembered, or not shared, and the next try is. */
static void test_memory_runs_out_anywhere(void **state)
{
    (void)state;
    struct head_draft draft;
    draft_pairs(&draft);
    uint64_t calls = 0;
    for (uint64_t nth = 1; calls + 1 >= nth; nth++) {
        (void)mem_fault_arm(nth);
        struct head *head = read_pairs(&draft);
        struct exchange x = { .status = 0 };
        arena_init(&x.arena, NULL, 0, 0);
        const bool shared = head != NULL && head_share(head, &x);
        calls = mem_fault_arm(0);
        assert_true(shared || calls >= nth);
        if (head != NULL) {
            assert_true(shared || head_share(head, &x));
            check(&x);
        }
        head_release(head);
        arena_finish(&x.arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_shared_lasts_as_long_as_its_users),
        cmocka_unit_test(test_fields_are_told_apart),
        cmocka_unit_test(test_what_is_too_large_is_not_kept),
        cmocka_unit_test(test_texts_from_elsewhere_are_not_kept),
        cmocka_unit_test(test_memory_runs_out_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
