/* Connections over real sockets: who gets which answer, and what happens to those who misbehave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/socket.h>

#include <cmocka.h>

#include "bad_requests.h"
#include "bed.h"

static void test_a_bad_request_is_told_and_ends_the_connection(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed_start(&bed, NULL);
    for (size_t i = 0; i < bad_request_count; i++) {
        const struct bad_request *bad = &bad_requests[i];
        const uint64_t refused = http_refused_count(WEIR_EINVAL);
        const int fd = client_connect(&bed);
        char status[32];
        size_t size = 0;
        char *both = test_malloc(bad->size + sizeof(CANARY));
        memcpy(both, bad->data, bad->size);
        memcpy(both + bad->size, CANARY, sizeof(CANARY));
        client_send(fd, both, bad->size + sizeof(CANARY) - 1);
        char *answer = client_drain(fd, &size);
        snprintf(status, sizeof(status), "HTTP/1.1 %d ", bad->status);
        if (strncmp(answer, status, strlen(status)) != 0 ||
            client_count(answer, "HTTP/1.1 4") != 1 || strstr(answer, "{\"error\":\"") == NULL ||
            strstr(answer, bad->says) == NULL ||
            strstr(answer, "\r\nConnection: close\r\n") == NULL ||
            http_refused_count(WEIR_EINVAL) != refused + 1) {
            fail_msg("%s: '%s'", bad->name, answer);
        }
        free(answer);
        test_free(both);
        close(fd);
    }
    assert_int_equal(bed_counts(&bed).canary, 0);
    assert_int_equal(bed_counts(&bed).request, 0);
    bed_stop(&bed);
}

/* What stood before the bad request is answered, and first. */
static void test_a_bad_request_waits_for_its_turn(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    client_text(fd, GET("/hold/a") "nonsense\r\n" CANARY);
    bed_await(&bed, &bed.counts.held, 1);
    bed_release(&bed, "a");
    client_expect(fd, "", 200, "a");
    struct response r;
    client_receive(fd, false, &r);
    assert_int_equal(r.status, 400);
    response_finish(&r);
    client_expect_end(fd);
    close(fd);
    assert_int_equal(bed_counts(&bed).canary, 0);
    bed_stop(&bed);
}

static void test_keep_alive(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    for (unsigned i = 0; i < 1000; i++) {
        client_expect(fd, GET("/ok"), 200, "ok");
    }
    client_expect(fd, "\r\n" POST("/echo", 5) "hello", 200, "hello");
    client_expect(fd, "BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", 404,
                  "{\"error\":\"no such route\"}");
    client_expect(fd, "GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, "ok");
    client_expect_end(fd);
    bed_close(&bed, fd);
    assert_int_equal(bed.counts.done, 1003);
}

static void test_a_request_may_arrive_byte_by_byte(void **state)
{
    (void)state;
    static const char request[] = POST("/echo", 5) "hello";
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        client_send(fd, request + i, 1);
    }
    client_expect(fd, "", 200, "hello");
    bed_close(&bed, fd);
}

/* The handler looks at the times: see bed.c. */
static void test_what_is_read_behind_a_wait_came_at_its_beginning(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.wait.ns = 5 * NS_PER_S; /* Less than time-outs. */
    const int fd = bed_open(&bed);
    client_expect(fd, GET("/ok"), 200, "ok");
    client_expect(fd, POST("/echo", 6) "a body", 200, "a body");
    bed_close(&bed, fd);
}

static void test_pipelined_answers_keep_their_order(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    client_text(fd,
                GET("/hold/a") GET("/ok") GET("/hold/b") POST("/echo", 3) "xyz" GET("/stream/2"));
    bed_await(&bed, &bed.counts.request, 5); /* All of them run, although the first is not done. */
    bed_release(&bed, "b");
    bed_release(&bed, "a");
    client_expect(fd, "", 200, "a");
    client_expect(fd, "", 200, "ok");
    client_expect(fd, "", 200, "b");
    client_expect(fd, "", 200, "xyz");
    client_expect(fd, "", 200, "part\npart\n");
    bed_close(&bed, fd);
}

static void test_reading_stops_when_the_line_is_full(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.pipelined_max = 4;
    const int fd = bed_open(&bed);
    client_text(fd, GET("/hold/a"));
    for (unsigned i = 0; i < 2000; i++) {
        client_text(fd, GET("/ok"));
    }
    bed_await(&bed, &bed.counts.request, 4);
    bed_release(&bed, "a");
    client_expect(fd, "", 200, "a");
    for (unsigned i = 0; i < 2000; i++) {
        client_expect(fd, "", 200, "ok");
    }
    bed_close(&bed, fd);
}

static void test_a_full_line_is_full(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.pipelined_max = 4;
    const int fd = bed_open(&bed);
    for (unsigned i = 0; i < 6; i++) {
        client_text(fd, GET("/hold/a"));
    }
    bed_await(&bed, &bed.counts.held, 4);
    /* A second connection's round trip shows that the loop has had every chance to read on. */
    const int other = client_connect(&bed);
    client_expect(other, GET("/ok"), 200, "ok");
    assert_int_equal(bed_counts(&bed).held, 4);
    bed_release(&bed, "a");
    bed_await(&bed, &bed.counts.held, 6);
    bed_release(&bed, "a");
    for (unsigned i = 0; i < 6; i++) {
        client_expect(fd, "", 200, "a");
    }
    close(fd);
    close(other);
    bed_stop(&bed);
}

static void test_headers_that_are_read_ahead_are_few(void **state)
{
    (void)state;
    enum { REQUESTS = 12, PAD = 60000 };
    static char request[PAD + 256];
    const int size = snprintf(request, sizeof(request),
                              "GET /ok HTTP/1.1\r\nHost: a\r\nX-Pad: %0*d\r\n\r\n", PAD, 0);
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    client_text(fd, GET("/hold/a"));
    for (unsigned i = 0; i < REQUESTS; i++) {
        client_send(fd, request, (size_t)size);
    }
    bed_await(&bed, &bed.counts.request, 3);
    const int other = client_connect(&bed);
    client_expect(other, GET("/ok"), 200, "ok");
    client_expect(other, GET("/ok"), 200, "ok");
    assert_true(bed_counts(&bed).request < REQUESTS);
    bed_release(&bed, "a");
    client_expect(fd, "", 200, "a");
    for (unsigned i = 0; i < REQUESTS; i++) {
        client_expect(fd, "", 200, "ok");
    }
    close(fd);
    close(other);
    bed_stop(&bed);
}

static void test_an_answer_that_is_not_read_counts_and_holds_up_its_connection(void **state)
{
    (void)state;
    enum { SIZE = 16777216 };
    char *body = calloc(1, SIZE);
    struct bed bed;
    struct response response;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    client_text(fd, POST("/echo", 16777216));
    client_send(fd, body, SIZE);
    client_text(fd, GET("/ok"));
    bed_await(&bed, &bed.counts.request, 1);
    const int other = client_connect(&bed);
    client_expect(other, GET("/ok"), 200, "ok");
    client_expect(other, GET("/ok"), 200, "ok");
    assert_int_equal(bed_counts(&bed).request, 3);   /* Not the second one of the first client. */
    assert_int_equal(http_bodies_bytes(), 2 * SIZE); /* As it came, and as it waits. */
    client_receive(fd, false, &response);
    assert_int_equal(response.size, SIZE);
    response_finish(&response);
    client_expect(fd, "", 200, "ok");
    assert_int_equal(http_bodies_bytes(), 0);
    close(fd);
    close(other);
    bed_stop(&bed);
    free(body);
}

static void test_chunked_body(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    client_expect(fd,
                  "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "5\r\nhello\r\n8;x=y\r\n, chunks\r\n0\r\nX-Trailer: z\r\n\r\n",
                  200, "hello, chunks");
    client_expect(fd,
                  "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                  200, "");
    /* Growing from the arena to the heap and beyond. */
    client_text(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    char chunk[1000];
    memset(chunk, 'x', sizeof(chunk));
    for (unsigned i = 0; i < 1000; i++) {
        chunk[0] = (char)('a' + i % 26);
        client_text(fd, "3e8\r\n");
        client_send(fd, chunk, sizeof(chunk));
        client_text(fd, "\r\n");
    }
    client_text(fd, "0\r\n\r\n");
    struct response r;
    client_receive(fd, false, &r);
    assert_int_equal(r.size, 1000000);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(r.body[i * 1000], 'a' + (int)i % 26);
        assert_int_equal(r.body[i * 1000 + 999], 'x');
    }
    response_finish(&r);
    bed_close(&bed, fd);
}

static void test_large_body_there_and_back(void **state)
{
    (void)state;
    const size_t size = 20 * 1000 * 1000;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    char *body = test_malloc(size);
    for (size_t i = 0; i < size; i++) {
        body[i] = (char)(i * 2654435761U >> 16);
    }
    for (unsigned round = 0; round < 2; round++) {
        client_text(fd, POST("/echo", 20000000));
        client_send(fd, body, size);
        client_text(fd, GET("/ok"));
        struct response r;
        client_receive(fd, false, &r);
        assert_int_equal(r.status, 200);
        assert_int_equal(r.size, size);
        assert_memory_equal(r.body, body, size);
        response_finish(&r);
        client_expect(fd, "", 200, "ok");
    }
    test_free(body);
    bed_close(&bed, fd);
    assert_int_equal(bed.counts.sent_bytes, 2);
}

static void test_bodies_are_aligned_where_asked(void **state)
{
    (void)state;
    static const size_t sizes[] = { 100, 16384, 16385, 600000 };
    static const unsigned at[] = { 0, 1, 64, 99 };
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    char *body = test_calloc(1, 600000);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t k = 0; k < sizeof(at) / sizeof(at[0]); k++) {
            char head[256];
            snprintf(
                head, sizeof(head),
                "POST /aligned HTTP/1.1\r\nHost: a\r\nX-Align: %u\r\nContent-Length: %zu\r\n\r\n",
                at[k], sizes[i]);
            client_text(fd, head);
            client_send(fd, body, sizes[i]);
            client_expect(fd, "", 200, "yes");
        }
    }
    test_free(body);
    bed_close(&bed, fd);
}

static void test_expect(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    struct response r;
    client_text(fd, GET("/hold/a") "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                                   "Content-Length: 4\r\n\r\n");
    bed_await(&bed, &bed.counts.head, 2);
    bed_release(&bed, "a");
    client_expect(fd, "", 200, "a"); /* The interim answer is in line, too. */
    client_receive(fd, false, &r);
    assert_int_equal(r.status, 100);
    response_finish(&r);
    client_expect(fd, "body", 200, "body");
    /* Refused at the door: no 100, and the end, since nobody knows whether the body will come. */
    client_expect(fd,
                  "POST /refuse HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                  "Content-Length: 4\r\n\r\n",
                  403, "{\"error\":\"refused at the door\"}");
    client_expect_end(fd);
    bed_close(&bed, fd);
}

static void test_refused_before_the_body(void **state)
{
    (void)state;
    static const char refusal[] = "{\"error\":\"refused at the door\"}";
    struct bed bed;
    bed_init(&bed);
    int fd = bed_open(&bed);
    client_expect(fd, POST("/refuse", 5), 403,
                  refusal); /* The answer does not wait for the body. */
    client_expect(fd, "hello" GET("/ok"), 200, "ok");
    struct response r;
    client_text(fd, POST("/refuse", 10000000) "hello");
    client_receive(fd, false, &r);
    assert_string_equal(r.body, refusal);
    assert_non_null(strstr(r.head, "\r\nConnection: close\r\n"));
    response_finish(&r);
    client_expect_end(fd);
    close(fd);
    fd = client_connect(&bed);
    client_expect(fd, "POST /refuse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 403,
                  refusal);
    client_expect_end(fd);
    close(fd);
    assert_int_equal(bed_counts(&bed).request, 1);
    bed_stop(&bed);
}

static void test_body_limits(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.body_bytes_max = 1000;
    bed_start(&bed, NULL);
    static const char *const requests[] = {
        POST("/ok", 1001),
        POST("/tiny", 11),
        POST("/ok", 9223372036854775807),
        "POST /tiny HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
        "chunked\r\n\r\n5\r\nhello\r\n6\r\nworld!\r\n",
        "POST /tiny HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
        "chunked\r\n\r\n7fffffffffffffff\r\nhello world",
        "POST /ok HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        const int fd = client_connect(&bed);
        struct response r;
        client_text(fd, requests[i]);
        client_receive(fd, false, &r);
        if (r.status != 413 || strstr(r.body, "{\"error\":\"request body: ") != r.body) {
            fail_msg("%s\n%d %s", requests[i], r.status, r.body);
        }
        response_finish(&r);
        client_expect_end(fd);
        close(fd);
    }
    const int fd = client_connect(&bed);
    client_expect(fd, POST("/tiny", 10) "0123456789", 200, "0123456789");
    close(fd);
    assert_int_equal(bed_counts(&bed).request, 1);
    bed_stop(&bed);
}

/* A client that sends on and on still reads why it was refused. */
static void test_the_answer_survives_a_client_that_sends_on(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.body_bytes_max = 1000;
    const int fd = bed_open(&bed);
    client_text(fd, POST("/ok", 5000000));
    char *body = test_calloc(1, 5000000);
    client_send(fd, body, 5000000);
    test_free(body);
    struct response r;
    client_receive(fd, false, &r);
    assert_int_equal(r.status, 413);
    response_finish(&r);
    bed_close(&bed, fd);
}

static void test_all_bodies_together_are_bounded(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.bodies_bytes_max = 150000;
    bed_start(&bed, NULL);
    char *body = test_calloc(1, 100000);
    const int first = client_connect(&bed);
    client_text(first, POST("/hold/a", 100000));
    client_send(first, body, 100000);
    bed_await(&bed, &bed.counts.held, 1);
    assert_int_equal(http_bodies_bytes(), 100000);
    const int second = client_connect(&bed);
    struct response r;
    client_text(second, POST("/ok", 100000)); /* Declared only, it is none yet. */
    bed_await(&bed, &bed.counts.head, 2);
    assert_int_equal(http_bodies_bytes(), 100000);
    client_send(second, body, 100000);
    client_receive(second, false, &r);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(r.head, "\r\nRetry-After: "));
    response_finish(&r);
    bed_release(&bed, "a");
    client_expect(first, "", 200, "a");
    client_text(first, POST("/ok", 100000));
    client_send(first, body, 100000);
    client_expect(first, "", 200, "ok");
    test_free(body);
    close(first);
    close(second);
    bed_stop(&bed);
}

static void test_header_limits(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed_start(&bed, NULL);
    struct response r;
    int fd = client_connect(&bed);
    client_text(fd, "GET /ok HTTP/1.1\r\nHost: a\r\n");
    for (unsigned i = 0; i < 100; i++) {
        client_text(fd, "X: y\r\n");
    }
    client_text(fd, "\r\n" CANARY);
    client_receive(fd, false, &r);
    assert_int_equal(r.status, 431);
    response_finish(&r);
    client_expect_end(fd);
    close(fd);

    fd = client_connect(&bed);
    char *large = test_malloc(70000);
    memset(large, 'a', 70000);
    client_text(fd, "GET /ok HTTP/1.1\r\nHost: a\r\nX: ");
    client_send(fd, large, 70000);
    client_receive(fd, false, &r);
    assert_int_equal(r.status, 431);
    response_finish(&r);
    client_expect_end(fd);
    close(fd);

    fd = client_connect(&bed);
    client_text(fd, "GET /ok HTTP/1.1\r\nHost: a\r\nX: ");
    client_send(fd, large, 60000);
    client_expect(fd, "\r\n\r\n", 200, "ok");
    close(fd);
    test_free(large);
    assert_int_equal(bed_counts(&bed).canary, 0);
    bed_stop(&bed);
}

static void test_head(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    struct response r;
    client_text(fd,
                "HEAD /ok HTTP/1.1\r\nHost: a\r\n\r\nHEAD /stream/3 HTTP/1.1\r\nHost: a\r\n\r\n");
    client_receive(fd, true, &r);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(r.head, "\r\nContent-Length: 2\r\n"));
    response_finish(&r);
    client_receive(fd, true, &r);
    assert_non_null(strstr(r.head, "\r\nTransfer-Encoding: chunked\r\n"));
    response_finish(&r);
    client_expect(fd, GET("/ok"), 200, "ok");
    bed_close(&bed, fd);
}

static void test_http_1_0(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed_start(&bed, NULL);
    struct response r;
    int fd = client_connect(&bed);
    client_text(fd, "GET /ok HTTP/1.0\r\n\r\n");
    client_receive(fd, false, &r);
    assert_string_equal(r.body, "ok");
    assert_non_null(strstr(r.head, "\r\nConnection: close\r\n"));
    response_finish(&r);
    client_expect_end(fd);
    close(fd);

    fd = client_connect(&bed);
    for (unsigned i = 0; i < 2; i++) {
        client_text(fd, "GET /ok HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        client_receive(fd, false, &r);
        assert_string_equal(r.body, "ok");
        assert_non_null(strstr(r.head, "\r\nConnection: keep-alive\r\n"));
        response_finish(&r);
    }
    /* It knows no chunks: a stream ends with the connection. */
    client_text(fd, "GET /stream/3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    client_receive(fd, false, &r);
    assert_null(strstr(r.head, "chunked"));
    assert_non_null(strstr(r.head, "\r\nConnection: close\r\n"));
    assert_string_equal(r.body, "part\npart\npart\n");
    response_finish(&r);
    bed_close(&bed, fd);
}

static void test_streams(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    client_expect(fd, GET("/stream/0"), 200, "");
    client_expect(fd, GET("/stream/2"), 200, "part\npart\n");
    client_expect(fd, GET("/ok"), 200, "ok");
    bed_close(&bed, fd);
}

static void test_a_stream_waits_for_its_reader(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    client_text(fd, GET("/flood"));
    char part[1000];
    for (unsigned i = 0; i < 1000; i++) {
        assert_true(TEMP_FAILURE_RETRY(recv(fd, part, sizeof(part), 0)) > 0);
    }
    close(fd);
    bed_await(&bed, &bed.counts.canceled, 1);
    bed_stop(&bed);
}

static void test_an_unfinished_answer_is_seen_to_be_cut(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    struct response r;
    client_text(fd, GET("/short") CANARY);
    client_receive(fd, false, &r);
    assert_int_equal(r.status, 200);
    assert_true(r.closed);
    assert_string_equal(r.body, "cut");
    response_finish(&r);
    bed_close(&bed, fd);
}

static void test_values_cannot_add_lines(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    struct response r;
    client_text(fd, "GET /header HTTP/1.1\r\nHost: a\r\nX-Find: \xe2\x82\xac a\tb\r\n\r\n");
    client_receive(fd, false, &r);
    assert_non_null(strstr(r.head, "\r\nX-Found: \xe2\x82\xac a\tb\r\n"));
    assert_null(strstr(r.head, "Content-Type"));
    assert_non_null(strstr(r.head, "\r\nDate: "));
    response_finish(&r);
    bed_close(&bed, fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_bad_request_is_told_and_ends_the_connection),
        cmocka_unit_test(test_a_bad_request_waits_for_its_turn),
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_a_request_may_arrive_byte_by_byte),
        cmocka_unit_test(test_what_is_read_behind_a_wait_came_at_its_beginning),
        cmocka_unit_test(test_pipelined_answers_keep_their_order),
        cmocka_unit_test(test_reading_stops_when_the_line_is_full),
        cmocka_unit_test(test_a_full_line_is_full),
        cmocka_unit_test(test_headers_that_are_read_ahead_are_few),
        cmocka_unit_test(test_an_answer_that_is_not_read_counts_and_holds_up_its_connection),
        cmocka_unit_test(test_chunked_body),
        cmocka_unit_test(test_large_body_there_and_back),
        cmocka_unit_test(test_bodies_are_aligned_where_asked),
        cmocka_unit_test(test_expect),
        cmocka_unit_test(test_refused_before_the_body),
        cmocka_unit_test(test_body_limits),
        cmocka_unit_test(test_the_answer_survives_a_client_that_sends_on),
        cmocka_unit_test(test_all_bodies_together_are_bounded),
        cmocka_unit_test(test_header_limits),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_http_1_0),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_a_stream_waits_for_its_reader),
        cmocka_unit_test(test_an_unfinished_answer_is_seen_to_be_cut),
        cmocka_unit_test(test_values_cannot_add_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
