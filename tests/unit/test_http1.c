/* The HTTP/1 reader without a socket: the same bytes mean the same, however they are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "bad_requests.h"
#include "net/http1.h"

#define BODY_MAX 4096

/* One reader and what came out of it. */
struct bench {
    struct limits limits;
    struct http1 reader;
    struct exchange x;
    struct weir_err err;
    char body[BODY_MAX];
    size_t body_size;
    unsigned heads;
    unsigned ends;
    struct http1_facts facts; /* Of the latest request. */
    bool refused;
};

static void begin(struct bench *b)
{
    memset(b, 0, sizeof(*b));
    limits_init(&b->limits);
    http1_init(&b->reader, &b->limits);
    arena_init(&b->x.arena, NULL, 0, 0);
}

static void end(struct bench *b)
{
    http1_finish(&b->reader);
    arena_finish(&b->x.arena);
}

static void feed(struct bench *b, const char *data, size_t size)
{
    struct bytes in = { data, size };
    struct bytes part;
    while (!b->refused) {
        switch (http1_next(&b->reader, &b->x, &in, &part, &b->err)) {
        case HTTP1_MORE:
            assert_int_equal(in.size, 0);
            return;
        case HTTP1_HEAD:
            b->heads++;
            b->body_size = 0;
            b->facts = b->reader.facts;
            break;
        case HTTP1_DATA:
            assert_in_range(part.size, 1, BODY_MAX - b->body_size);
            memcpy(b->body + b->body_size, part.data, part.size);
            b->body_size += part.size;
            break;
        case HTTP1_END:
            b->ends++;
            break;
        case HTTP1_REFUSED:
            b->refused = true;
            break;
        }
    }
}

/* Feeds `text` in pieces of `step` bytes, each from memory that ends with it. */
static void feed_steps(struct bench *b, const char *text, size_t size, size_t step)
{
    for (size_t at = 0; at < size && !b->refused; at += step) {
        const size_t part = size - at < step ? size - at : step;
        char *copy = test_malloc(part);
        memcpy(copy, text + at, part);
        feed(b, copy, part);
        test_free(copy);
    }
}

static void feed_text(struct bench *b, const char *text)
{
    feed(b, text, strlen(text));
}

static void assert_bytes(struct bytes found, const char *expected)
{
    assert_int_equal(found.size, strlen(expected));
    assert_memory_equal(found.data, expected, found.size);
}

static void test_refuses_what_is_ambiguous(void **state)
{
    (void)state;
    static const size_t steps[] = { 100000, 1, 7 };
    for (size_t i = 0; i < bad_request_count; i++) {
        const struct bad_request *bad = &bad_requests[i];
        for (size_t k = 0; k < sizeof(steps) / sizeof(steps[0]); k++) {
            struct bench b;
            begin(&b);
            feed_steps(&b, bad->data, bad->size, steps[k]);
            if (!b.refused || strstr(b.err.text, bad->says) == NULL || b.ends != 0 ||
                weir_status_http(b.err.status) != bad->status) {
                fail_msg("%s (in steps of %zu): %s '%s'", bad->name, steps[k],
                         b.refused ? "refused with" : "accepted", b.refused ? b.err.text : "");
            }
            end(&b);
        }
    }
}

static void test_reads_the_parts_of_a_request(void **state)
{
    (void)state;
    static const char text[] = "POST /v2/models/m/infer?a=%20b&c HTTP/1.1\r\n"
                               "Host: [::1]:8000\r\n"
                               "X-Empty:\r\n"
                               "X-Spaces: \t two words \t \r\n"
                               "content-LENGTH: 5\r\n"
                               "\r\n"
                               "hello";
    for (size_t step = 1; step <= sizeof(text); step++) {
        struct bench b;
        begin(&b);
        feed_steps(&b, text, sizeof(text) - 1, step);
        assert_false(b.refused);
        assert_int_equal(b.ends, 1);
        assert_int_equal(b.x.method, HTTP_POST);
        assert_bytes(b.x.target, "/v2/models/m/infer?a=%20b&c");
        assert_bytes(b.x.path, "/v2/models/m/infer");
        assert_bytes(b.x.query, "a=%20b&c");
        assert_int_equal(b.x.field_count, 4);
        assert_bytes(b.x.fields[0].name, "Host");
        assert_bytes(b.x.fields[0].value, "[::1]:8000");
        assert_bytes(b.x.fields[1].value, "");
        assert_bytes(b.x.fields[2].value, "two words");
        assert_bytes(b.x.fields[3].name, "content-LENGTH");
        assert_int_equal(b.body_size, 5);
        assert_memory_equal(b.body, "hello", 5);
        assert_true(b.facts.keep_alive);
        end(&b);
    }
}

static void check_request(const struct bench *b, const char *target, const char *path,
                          const char *id)
{
    assert_false(b->refused);
    assert_bytes(b->x.target, target);
    assert_bytes(b->x.path, path);
    assert_int_equal(b->x.method, HTTP_POST);
    assert_int_equal(b->x.version, HTTP_1_1);
    assert_int_equal(b->x.field_count, 4);
    assert_bytes(b->x.fields[0].name, "Host");
    assert_bytes(b->x.fields[0].value, "a");
    assert_bytes(b->x.fields[1].name, "X-Id");
    assert_bytes(b->x.fields[1].value, id);
    assert_bytes(b->x.fields[2].value, "");
    assert_bytes(b->x.fields[3].value, "5");
    assert_int_equal(b->body_size, 5);
    assert_true(b->facts.keep_alive);
}

/* The same header again, and one that differs in its last letter, cut anywhere; each in memory of
 * its own. */
static void test_a_repeated_header_means_the_same(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *target;
        const char *path;
        const char *id;
    } requests[] = {
        { "POST /a?b HTTP/1.1\r\nHost: a\r\nX-Id: 7\r\nE:\r\nContent-Length: 5\r\n\r\nhello",
          "/a?b", "/a", "7" },
        { "POST /a?b HTTP/1.1\r\nHost: a\r\nX-Id: 7\r\nE:\r\nContent-Length: 5\r\n\r\nworld",
          "/a?b", "/a", "7" },
        { "POST /a?b HTTP/1.1\r\nHost: a\r\nX-Id: 8\r\nE:\r\nContent-Length: 5\r\n\r\nagain",
          "/a?b", "/a", "8" },
        { "POST /cd/ HTTP/1.1\r\nHost: a\r\nX-Id: 8\r\nE:\r\nContent-Length: 5\r\n\r\nother",
          "/cd/", "/cd/", "8" },
    };
    for (size_t step = 1; step <= 90; step++) {
        struct bench b;
        begin(&b);
        for (size_t i = 0; i < 12; i++) {
            const char *text = requests[i % 7 % 4].text;
            feed_steps(&b, text, strlen(text), step);
            check_request(&b, requests[i % 7 % 4].target, requests[i % 7 % 4].path,
                          requests[i % 7 % 4].id);
            assert_memory_equal(b.body, text + strlen(text) - 5, 5);
            arena_reset(&b.x.arena);
        }
        assert_int_equal(b.ends, 12);
        end(&b);
    }
}

/* A header that begins like the one before is another one. */
static void test_a_longer_header_is_not_the_remembered_one(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    feed_text(&b, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    feed_text(&b, "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n");
    assert_int_equal(b.x.field_count, 2);
    feed_text(&b, "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_int_equal(b.ends, 4);
    assert_int_equal(b.x.field_count, 1);
    assert_bytes(b.x.fields[0].value, "b");
    end(&b);
}

static void test_reads_chunks(void **state)
{
    (void)state;
    static const char text[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
                               "5\r\nhello\r\n"
                               "00a;name=\"a b\";other\r\n, chunked \r\n"
                               "1\r\n!\r\n"
                               "0\r\nX-Trailer: ignored\r\nY:\r\n\r\n"
                               "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    for (size_t step = 1; step <= sizeof(text); step++) {
        struct bench b;
        begin(&b);
        feed_steps(&b, text, sizeof(text) - 1, step);
        assert_false(b.refused);
        assert_int_equal(b.ends, 2);
        assert_bytes(b.x.path, "/next");
        assert_int_equal(b.body_size, 0);
        end(&b);
    }
    struct bench b;
    begin(&b);
    feed(&b, text, (size_t)(strstr(text, "GET /next") - text));
    assert_int_equal(b.ends, 1);
    assert_int_equal(b.body_size, 16);
    assert_memory_equal(b.body, "hello, chunked !", 16);
    end(&b);
}

static void test_methods(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum http_method method;
    } cases[] = {
        { "GET", HTTP_GET },        { "HEAD", HTTP_HEAD },
        { "POST", HTTP_POST },      { "PUT", HTTP_PUT },
        { "DELETE", HTTP_DELETE },  { "OPTIONS", HTTP_OPTIONS },
        { "PATCH", HTTP_PATCH },    { "get", HTTP_OTHER },
        { "BREW", HTTP_OTHER },     { "PROPFIND", HTTP_OTHER },
        { "CONNECT", HTTP_OTHER },  { "PRI", HTTP_OTHER },
        { "SOURCE", HTTP_OTHER },   { "M-SEARCH", HTTP_OTHER },
        { "DESCRIBE", HTTP_OTHER }, { "X!#$%&'*+.^_`|~", HTTP_OTHER },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench b;
        char text[128];
        begin(&b);
        snprintf(text, sizeof(text), "%s /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
                 cases[i].name);
        feed_text(&b, text);
        assert_int_equal(b.ends, 1);
        assert_int_equal(b.x.method, cases[i].method);
        assert_bytes(b.x.path, "/x");
        assert_int_equal(b.body_size, 3);
        end(&b);
    }
}

static void test_targets(void **state)
{
    (void)state;
    static const struct {
        const char *target;
        const char *path;
        const char *query;
    } cases[] = {
        { "/", "/", "" },
        { "/a//b/../c", "/a//b/../c", "" },
        { "/a?", "/a", "" },
        { "/a?b?c/d", "/a", "b?c/d" },
        { "/%41%ff", "/%41%ff", "" },
        { "http://host:1/a?b", "/a", "b" },
        { "HTTPS://host/a", "/a", "" },
        { "http://host", "/", "" },
        { "http://host?b", "/", "b" },
        { "/a[0]|{\"x\"}", "/a[0]|{\"x\"}", "" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench b;
        char text[128];
        begin(&b);
        snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", cases[i].target);
        feed_text(&b, text);
        if (b.refused) {
            fail_msg("%s: %s", cases[i].target, b.err.text);
        }
        assert_bytes(b.x.target, cases[i].target);
        assert_bytes(b.x.path, cases[i].path);
        assert_bytes(b.x.query, cases[i].query);
        end(&b);
    }
}

static void test_star_is_for_options(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    feed_text(&b, "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n");
    assert_int_equal(b.ends, 1);
    assert_bytes(b.x.path, "*");
    end(&b);
}

static void test_who_keeps_the_connection(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool keep;
    } cases[] = {
        { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", true },
        { "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false },
        { "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo,\t CLOSE ,bar\r\n\r\n", false },
        { "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
          false },
        { "GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", true },
        { "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", true },
        { "GET / HTTP/1.0\r\n\r\n", false },
        { "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench b;
        begin(&b);
        feed_text(&b, cases[i].text);
        assert_int_equal(b.ends, 1);
        assert_int_equal(b.facts.keep_alive, cases[i].keep);
        end(&b);
    }
}

static void test_expect(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool expects;
    } cases[] = {
        { "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\na",
          true },
        { "POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\na", false },
        { "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na", false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench b;
        begin(&b);
        feed_text(&b, cases[i].text);
        assert_int_equal(b.ends, 1);
        assert_int_equal(b.facts.expects_continue, cases[i].expects);
        end(&b);
    }
}

static void test_one_empty_line_may_come_first(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    feed_text(&b, "\r");
    assert_true(http1_begun(&b.reader));
    feed_text(&b, "\n");
    assert_false(http1_begun(&b.reader));
    feed_text(&b, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(b.ends, 2);
    assert_bytes(b.x.path, "/b");
    end(&b);
}

static void test_header_limits(void **state)
{
    (void)state;
    struct bench b;
    for (unsigned extra = 0; extra < 2; extra++) {
        begin(&b);
        b.limits.header_fields_max = 10;
        feed_text(&b, "GET / HTTP/1.1\r\nHost: a\r\n");
        for (unsigned i = 0; i < 9 + extra; i++) {
            feed_text(&b, "X: y\r\n");
        }
        feed_text(&b, "\r\n");
        assert_int_equal(b.refused, extra == 1);
        assert_int_equal(b.ends, 1 - extra);
        end(&b);
    }
    assert_int_equal(b.err.status, WEIR_EHEADERS);
    static const char exact[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (unsigned less = 0; less < 2; less++) {
        begin(&b);
        b.limits.header_bytes_max = sizeof(exact) - 1 - less;
        feed_text(&b, exact);
        assert_int_equal(b.refused, less == 1);
        end(&b);
    }
    assert_int_equal(b.err.status, WEIR_EHEADERS);
}

/* A header that never ends is refused at the limit, not kept until a time-out. */
static void test_endless_header(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    feed_text(&b, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    uint64_t sent = 0;
    while (!b.refused) {
        feed_text(&b, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        sent += 64;
        assert_true(sent <= b.limits.header_bytes_max + 64);
    }
    assert_int_equal(b.err.status, WEIR_EHEADERS);
    end(&b);
}

static void test_a_bad_line_is_refused_before_the_rest_came(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    feed_text(&b, "GET /ok HTTP/3.0\r\n");
    assert_true(b.refused);
    end(&b);
}

static void test_trailers_and_extensions_are_bounded(void **state)
{
    (void)state;
    static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    static const char *const endless[][2] = {
        { "0\r\n", "X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" },
        { "0\r\n", "X: a\r\n" },
        { "1;", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" },
        { "", "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\na\r\n" },
    };
    for (size_t i = 0; i < sizeof(endless) / sizeof(endless[0]); i++) {
        struct bench b;
        begin(&b);
        feed_text(&b, head);
        feed_text(&b, endless[i][0]);
        for (uint64_t sent = 0; !b.refused; sent += strlen(endless[i][1])) {
            assert_true(sent <= 2 * b.limits.header_bytes_max);
            feed_text(&b, endless[i][1]);
        }
        assert_int_equal(b.err.status, WEIR_EHEADERS);
        end(&b);
    }
}

static void test_tiny_chunks_are_bounded(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    feed_text(&b, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    unsigned chunks = 0;
    while (!b.refused && chunks < 100000) {
        feed_text(&b, "1\r\na\r\n");
        b.body_size = 0;
        chunks++;
    }
    assert_true(b.refused);
    assert_true(chunks > 4000); /* A patient client with small chunks is served. */
    end(&b);

    begin(&b);
    feed_text(&b, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (chunks = 0; chunks < 100000; chunks++) {
        feed_text(&b, "20\r\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n");
        b.body_size = 0;
    }
    assert_false(b.refused);
    end(&b);
}

static void test_head_text(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL, 0, 0);
    struct answer_field *field = NULL;
    assert_true(answer_field(&arena, "X-Id", BYTES_LITERAL("a\r\nSet-Cookie: b\x01"), &field));
    struct http1_answer answer = { .status = 200,
                                   .content_type = "text/plain",
                                   .body_size = 17,
                                   .date = "then",
                                   .fields = field,
                                   .close = true };
    struct bytes head;
    assert_true(http1_head(&arena, &answer, &head));
    assert_bytes(head, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 17\r\n"
                       "Date: then\r\nX-Id: a??Set-Cookie: b?\r\nConnection: close\r\n\r\n");
    answer = (struct http1_answer){
        .status = 299, .body_size = HTTP_STREAM, .chunked = true, .date = "", .keep_alive_1_0 = true
    };
    assert_true(http1_head(&arena, &answer, &head));
    assert_bytes(head,
                 "HTTP/1.1 299 \r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n");
    char text[HTTP1_CHUNK_HEAD_MAX];
    assert_bytes((struct bytes){ text, http1_chunk_head(text, 0xabcdef0123456789, false) },
                 "\r\nabcdef0123456789\r\n");
    assert_bytes((struct bytes){ text, http1_chunk_head(text, 10, true) }, "a\r\n");
    arena_finish(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_what_is_ambiguous),
        cmocka_unit_test(test_reads_the_parts_of_a_request),
        cmocka_unit_test(test_a_repeated_header_means_the_same),
        cmocka_unit_test(test_a_longer_header_is_not_the_remembered_one),
        cmocka_unit_test(test_reads_chunks),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_star_is_for_options),
        cmocka_unit_test(test_who_keeps_the_connection),
        cmocka_unit_test(test_expect),
        cmocka_unit_test(test_one_empty_line_may_come_first),
        cmocka_unit_test(test_header_limits),
        cmocka_unit_test(test_endless_header),
        cmocka_unit_test(test_a_bad_line_is_refused_before_the_rest_came),
        cmocka_unit_test(test_trailers_and_extensions_are_bounded),
        cmocka_unit_test(test_tiny_chunks_are_bounded),
        cmocka_unit_test(test_head_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
