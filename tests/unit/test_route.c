#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>
#include <cmocka.h>

#include "api/route.h"

static const struct route *found(enum http_method method, const char *path,
                                 struct route_match *match)
{
    uint32_t allow = 0;
    if (route_find(method, bytes_of(path), match, &allow) != WEIR_OK) {
        return NULL;
    }
    return match->route;
}

static void expect(enum http_method method, const char *path, const char *pattern)
{
    struct route_match match;
    const struct route *route = found(method, path, &match);
    assert_non_null(route);
    assert_string_equal(route->pattern, pattern);
}

static void expect_allow(enum http_method method, const char *path, const char *allowed)
{
    struct route_match match;
    uint32_t allow = 0;
    char text[ROUTE_ALLOW_BYTES];
    assert_int_equal(route_find(method, bytes_of(path), &match, &allow), WEIR_EMETHOD);
    assert_string_equal(route_allow_format(allow, text), allowed);
}

static void expect_none(const char *path)
{
    struct route_match match;
    uint32_t allow = 0;
    assert_int_equal(route_find(HTTP_GET, bytes_of(path), &match, &allow), WEIR_ENOENT);
    assert_int_equal(route_find(HTTP_POST, bytes_of(path), &match, &allow), WEIR_ENOENT);
}

static void test_model_paths_with_and_without_version(void **state)
{
    (void)state;
    struct route_match match;
    assert_non_null(found(HTTP_POST, "/v2/models/m/infer", &match));
    assert_true(bytes_equal(match.model, BYTES_LITERAL("m")));
    assert_false(match.has_version);
    assert_non_null(found(HTTP_POST, "/v2/models/m/versions/12/infer", &match));
    assert_true(bytes_equal(match.model, BYTES_LITERAL("m")));
    assert_true(match.has_version);
    assert_int_equal(match.version, 12);
    assert_non_null(found(HTTP_GET, "/v2/models/m", &match));
    assert_false(match.has_version);
    assert_non_null(found(HTTP_GET, "/v2/models/m/versions/0", &match));
    assert_true(match.has_version);
}

static void test_names_that_are_words_of_paths(void **state)
{
    (void)state;
    struct route_match match;
    assert_non_null(found(HTTP_POST, "/v2/models/versions/infer", &match));
    assert_true(bytes_equal(match.model, BYTES_LITERAL("versions")));
    expect(HTTP_GET, "/v2/models/stats", "/v2/models/stats");
    assert_non_null(found(HTTP_GET, "/v2/models/stats/stats", &match));
    assert_true(bytes_equal(match.model, BYTES_LITERAL("stats")));
}

static void test_repository_with_and_without_name(void **state)
{
    (void)state;
    struct route_match match;
    assert_non_null(found(HTTP_POST, "/v2/repository/index", &match));
    assert_null(match.name.data);
    assert_non_null(found(HTTP_POST, "/v2/repository/index/index", &match));
    assert_true(bytes_equal(match.name, BYTES_LITERAL("index")));
    assert_non_null(found(HTTP_POST, "/v2/repository/models/x/load", &match));
    assert_null(match.name.data);
    assert_true(bytes_equal(match.model, BYTES_LITERAL("x")));
    assert_non_null(found(HTTP_POST, "/v2/repository/r/models/x/unload", &match));
    assert_true(bytes_equal(match.name, BYTES_LITERAL("r")));
}

static void test_what_is_not_there(void **state)
{
    (void)state;
    expect_none("/v3");
    expect_none("");
    expect_none("v2");
    expect_none("/v2/models//infer");
    expect_none("/v2/models/m/infer/");
    expect_none("/v2/models/a/b/infer");
    expect_none("/v2/models/m/versions/x/infer");
    expect_none("/v2/models/m/versions/-1/infer");
    expect_none("/v2/models/m/versions//infer");
    expect_none("/v2/models/m/versions/99999999999999999999999/infer");
    expect_none("/V2/health/live");
    expect_none("/v2/models/m/versions/1/trace/setting");
}

static void test_slashes_at_the_end(void **state)
{
    (void)state;
    expect(HTTP_GET, "/v2", "/v2[/]");
    expect(HTTP_GET, "/v2/", "/v2[/]");
    expect(HTTP_GET, "/metrics/", "/metrics[/]");
    expect_none("/v2//");
}

static void test_methods(void **state)
{
    (void)state;
    expect(HTTP_HEAD, "/v2/health/live", "/v2/health/live");
    expect_allow(HTTP_GET, "/v2/models/m/infer", "POST");
    expect_allow(HTTP_POST, "/v2/health/ready", "GET, HEAD");
    expect_allow(HTTP_DELETE, "/v2/logging", "GET, HEAD, POST");
    expect_allow(HTTP_OTHER, "/", "GET, HEAD");
}

static void test_every_row_is_reached(void **state)
{
    (void)state;
    for (uint32_t i = 0; route_at(i) != NULL; i++) {
        const struct route *row = route_at(i);
        char path[128];
        size_t size = 0;
        for (const char *at = row->pattern; *at != '\0'; at++) {
            if (*at == '[') {
                at = strchr(at, ']');
            } else if (*at == '{') {
                path[size++] = 'x';
                at = strchr(at, '}');
            } else {
                path[size++] = *at;
            }
        }
        path[size] = '\0';
        struct route_match match;
        assert_ptr_equal(found(row->method, path, &match), row);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_paths_with_and_without_version),
        cmocka_unit_test(test_names_that_are_words_of_paths),
        cmocka_unit_test(test_repository_with_and_without_name),
        cmocka_unit_test(test_what_is_not_there),
        cmocka_unit_test(test_slashes_at_the_end),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_every_row_is_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
