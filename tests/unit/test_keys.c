/* Keys: who is known, what is allowed, and how often. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/access.h"
#include "api/keys.h"
#include "faults.h"
#include "net/secret.h"
#include "util/clock.h"

static char path[] = "/tmp/weir-test-keys-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    const int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

static void put(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* SHA-256 of "abc" and of "" are in FIPS 180-4. */
static void test_digest(void **state)
{
    (void)state;
    char hex[SECRET_HEX_BYTES];
    struct secret_digest digest = secret_digest(BYTES_LITERAL("abc"));
    secret_hex(&digest, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct secret_digest read;
    assert_true(secret_unhex(bytes_of(hex), &read));
    assert_true(secret_same(&digest, &read));
    digest = secret_digest(BYTES_LITERAL(""));
    assert_false(secret_same(&digest, &read));
    hex[5] = 'g';
    assert_false(secret_unhex(bytes_of(hex), &read));
    assert_false(secret_unhex(BYTES_LITERAL("ba78"), &read));
}

static void test_made_keys_differ_and_are_found(void **state)
{
    (void)state;
    char secrets[3][KEYS_SECRET_BYTES];
    char hash[80];
    char text[1024] = "";
    for (int i = 0; i < 3; i++) {
        assert_true(keys_make(secrets[i], hash));
        assert_int_equal(strlen(secrets[i]), sizeof(KEYS_PREFIX) - 1 + 43);
        const size_t at = strlen(text);
        (void)snprintf(text + at, sizeof(text) - at,
                       "- { name: key%d, hash: \"%s\", allow: [%s], priority: %d }\n", i, hash,
                       i == 1 ? "inference, metrics" : "use", i + 1);
    }
    put(text);
    struct keys *keys = NULL;
    struct weir_err err;
    assert_int_equal(keys_create(path, &keys, &err), WEIR_OK);
    assert_int_equal(keys_count(keys), 3);
    for (uint32_t i = 0; i < 3; i++) {
        struct key_grant grant;
        assert_true(keys_find(keys, bytes_of(secrets[i]), &grant));
        assert_int_equal(grant.priority, i + 1);
        assert_int_equal(grant.groups,
                         i == 1 ? 1U << GROUP_INFERENCE | 1U << GROUP_METRICS : KEYS_USE);
        secrets[i][10] = (char)(secrets[i][10] ^ 1);
        assert_false(keys_find(keys, bytes_of(secrets[i]), &grant));
    }
    struct key_grant grant;
    assert_false(keys_find(keys, BYTES_LITERAL(""), &grant));
    assert_false(keys_find_certificate(keys, BYTES_LITERAL(""), &grant));
    keys_destroy(keys);
}

static void test_certificates(void **state)
{
    (void)state;
    put("- { name: robot, certificate: robot.example.org, allow: [all] }\n");
    struct keys *keys = NULL;
    struct weir_err err;
    struct key_grant grant;
    assert_int_equal(keys_create(path, &keys, &err), WEIR_OK);
    assert_true(keys_find_certificate(keys, BYTES_LITERAL("robot.example.org"), &grant));
    assert_string_equal(grant.use->name, "robot");
    assert_int_equal(grant.groups, KEYS_ALL);
    assert_false(keys_find_certificate(keys, BYTES_LITERAL("robot.example.or"), &grant));
    assert_false(keys_find(keys, BYTES_LITERAL("robot.example.org"), &grant));
    keys_destroy(keys);
}

static void test_words(void **state)
{
    (void)state;
    uint32_t use = 0;
    uint32_t manage = 0;
    uint32_t one = 0;
    assert_true(keys_groups(BYTES_LITERAL("use"), &use));
    assert_true(keys_groups(BYTES_LITERAL("manage"), &manage));
    assert_int_equal(use & manage, 0);
    assert_int_equal(use | manage, KEYS_ALL);
    for (uint32_t i = 0; i < GROUP_COUNT; i++) {
        assert_true(keys_groups(bytes_of(route_group_text((enum route_group)i)), &one));
        assert_int_equal(one, 1U << i);
    }
    assert_false(keys_groups(BYTES_LITERAL("Health"), &one));
    assert_false(keys_groups(BYTES_LITERAL(""), &one));
    assert_true(keys_is_name(BYTES_LITERAL("a.b-c_d@E9")));
    assert_false(keys_is_name(BYTES_LITERAL("a\"b")));
    assert_false(keys_is_name(BYTES_LITERAL("")));
}

static enum weir_status enter(const struct key_grant *grant, uint64_t now_ns, uint64_t *retry_ns)
{
    struct weir_err err;
    return key_enter(grant, now_ns, retry_ns, &err);
}

static void test_concurrency(void **state)
{
    (void)state;
    struct key_use use = { .name = "a" };
    const struct key_grant grant = { .use = &use, .concurrency = 2 };
    uint64_t retry_ns = 0;
    assert_int_equal(enter(&grant, 0, &retry_ns), WEIR_OK);
    assert_int_equal(enter(&grant, 0, &retry_ns), WEIR_OK);
    assert_int_equal(enter(&grant, 0, &retry_ns), WEIR_ERATE);
    assert_true(retry_ns > 0);
    key_leave(&use);
    assert_int_equal(enter(&grant, 0, &retry_ns), WEIR_OK);
    assert_int_equal(use.calls, 3);
    assert_int_equal(use.refused, 1);
    assert_int_equal(use.running, 2);
}

/* Over a long time the rate holds; a quiet second is saved up, and no more. */
static void test_rate(void **state)
{
    (void)state;
    struct key_use use = { .name = "a" };
    const struct key_grant grant = { .use = &use, .interval_ns = NS_PER_S / 10 };
    const uint64_t start_ns = 1000 * NS_PER_S;
    uint64_t retry_ns = 0;
    unsigned passed = 0;
    for (unsigned i = 0; i < 100; i++) {
        passed += enter(&grant, start_ns, &retry_ns) == WEIR_OK ? 1 : 0;
    }
    assert_int_equal(passed, 10);
    assert_int_equal(retry_ns, NS_PER_S / 10);
    assert_int_equal(enter(&grant, start_ns + retry_ns - 1, &retry_ns), WEIR_ERATE);
    assert_int_equal(enter(&grant, start_ns + NS_PER_S / 10, &retry_ns), WEIR_OK);
    passed = 0;
    for (unsigned ms = 0; ms < 10000; ms++) {
        const uint64_t now_ns = start_ns + NS_PER_S / 10 + ms * NS_PER_MS;
        passed += enter(&grant, now_ns, &retry_ns) == WEIR_OK ? 1 : 0;
    }
    assert_in_range(passed, 99, 101);
}

static void test_rare_calls(void **state)
{
    (void)state;
    struct key_use use = { .name = "a" };
    const struct key_grant grant = { .use = &use, .interval_ns = 60 * NS_PER_S };
    uint64_t retry_ns = 0;
    assert_int_equal(enter(&grant, NS_PER_S, &retry_ns), WEIR_OK);
    assert_int_equal(enter(&grant, 2 * NS_PER_S, &retry_ns), WEIR_ERATE);
    assert_int_equal(retry_ns, 59 * NS_PER_S);
    assert_int_equal(enter(&grant, 61 * NS_PER_S, &retry_ns), WEIR_OK);
}

static void test_counts_survive_a_new_file(void **state)
{
    (void)state;
    put("- { name: a, certificate: one, allow: [all], concurrency: 1 }\n");
    struct keys *keys = NULL;
    struct weir_err err;
    struct key_grant before;
    struct key_grant after;
    uint64_t retry_ns = 0;
    bool changed = false;
    assert_int_equal(keys_create(path, &keys, &err), WEIR_OK);
    assert_true(keys_find_certificate(keys, BYTES_LITERAL("one"), &before));
    assert_int_equal(key_enter(&before, 0, &retry_ns, &err), WEIR_OK);
    assert_int_equal(keys_reload(keys, false, &changed, &err), WEIR_OK);
    assert_false(changed);
    put("- { name: a, certificate: two, allow: [all], concurrency: 1 }\n");
    assert_int_equal(keys_reload(keys, false, &changed, &err), WEIR_OK);
    assert_true(changed);
    assert_false(keys_find_certificate(keys, BYTES_LITERAL("one"), &after));
    assert_true(keys_find_certificate(keys, BYTES_LITERAL("two"), &after));
    assert_ptr_equal(before.use, after.use);
    assert_int_equal(key_enter(&after, 0, &retry_ns, &err), WEIR_ERATE);
    put("- nonsense\n");
    assert_int_equal(keys_reload(keys, false, &changed, &err), WEIR_EINVAL);
    assert_true(keys_find_certificate(keys, BYTES_LITERAL("two"), &after));
    key_leave(before.use);
    keys_destroy(keys);
}

/* A file that cannot be read for want of memory leaves the keys that there are. */
static void test_memory_runs_out(void **state)
{
    (void)state;
    static const char one[] = "- { name: a, certificate: one, allow: [all] }\n"
                              "- { name: b, certificate: other, allow: [use, metrics] }\n";
    static const char two[] = "- { name: c, certificate: two, allow: [all] }\n";
    uint64_t made = 0;
    for (uint64_t nth = 1; made + 1 >= nth; nth++) {
        struct weir_err err = { 0 };
        struct keys *keys = NULL;
        struct key_grant grant;
        bool changed = false;
        put(one);
        (void)mem_fault_arm(nth);
        enum weir_status status = keys_create(path, &keys, &err);
        assert_true(status == WEIR_OK || (status == WEIR_ENOMEM && err.text[0] != '\0'));
        if (status != WEIR_OK) {
            made = mem_fault_arm(0);
            continue;
        }
        put(two);
        status = keys_reload(keys, true, &changed, &err);
        made = mem_fault_arm(0);
        assert_true(status == WEIR_OK || (status == WEIR_ENOMEM && err.text[0] != '\0'));
        assert_int_equal(keys_find_certificate(keys, BYTES_LITERAL("two"), &grant), changed);
        assert_int_equal(keys_find_certificate(keys, BYTES_LITERAL("one"), &grant), !changed);
        assert_int_equal(keys_reload(keys, true, &changed, &err), WEIR_OK);
        assert_true(keys_find_certificate(keys, BYTES_LITERAL("two"), &grant));
        keys_destroy(keys);
    }
}

static void test_too_many(void **state)
{
    (void)state;
    FILE *file = fopen(path, "w");
    for (int i = 0; i <= KEYS_MAX; i++) {
        fprintf(file, "- { name: k%d, certificate: c%d, allow: [use] }\n", i, i);
    }
    fclose(file);
    struct keys *keys = NULL;
    struct weir_err err = { 0 };
    assert_int_equal(keys_create(path, &keys, &err), WEIR_ETOOBIG);
    assert_non_null(strstr(err.text, "more than 1024"));
}

static void expect_refused(struct access_options options, const char *part)
{
    struct access *access = NULL;
    struct weir_err err = { 0 };
    options.keys = options.keys == NULL ? "" : options.keys;
    assert_int_not_equal(access_create(&options, &access, &err), WEIR_OK);
    if (strstr(err.text, part) == NULL) {
        fail_msg("'%s' is not in: %s", part, err.text);
    }
}

static void test_mistakes_in_options(void **state)
{
    (void)state;
    static const char *const group[] = { "everything" };
    static const char *const no_header[] = { "health", "logging:a=b", "trace" };
    static const char *const twice[] = { "health:a=b", "all:c=d" };
    static const char *const origin[] = { "https://a/b" };
    expect_refused((struct access_options){ .open_groups = { group, 1 } }, "open_groups");
    expect_refused((struct access_options){ .http_restricted = { no_header, 3 } }, "last group");
    expect_refused((struct access_options){ .grpc_restricted = { twice, 2 } }, "twice");
    expect_refused((struct access_options){ .origins = { origin, 1 } }, "cors_origins");
    expect_refused((struct access_options){ .keys = "/nowhere/keys" }, "/nowhere/keys");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_made_keys_differ_and_are_found),
        cmocka_unit_test(test_certificates),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_concurrency),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_rare_calls),
        cmocka_unit_test(test_counts_survive_a_new_file),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_mistakes_in_options),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_mistakes_in_options),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
