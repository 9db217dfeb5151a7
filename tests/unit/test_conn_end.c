/* How connections end: clients that go, stall or are too many; drain, stop, no more memory. */
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

#include "bed.h"
#include "util/mem.h"

#define TINY_NS (20 * NS_PER_MS)
#define SHORT_NS (500 * NS_PER_MS) /* But not too short to say something, on a busy machine. */

static void test_a_client_that_goes_cancels(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    client_text(fd, GET("/hold/a") GET("/ok") GET("/hold/b") "GET /incompl");
    bed_await(&bed, &bed.counts.held, 2);
    close(fd);
    bed_await(&bed, &bed.counts.canceled, 2);
    bed_await(&bed, &bed.counts.done, 3);
    assert_int_equal(bed_counts(&bed).canceled, 2); /* What was answered is not canceled. */
    bed_stop(&bed);
}

static void test_a_canceled_exchange_lives_until_it_is_finished(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.hold_when_canceled = true;
    int fd = bed_open(&bed);
    client_text(fd, POST("/hold/a", 5) "hello");
    bed_await(&bed, &bed.counts.held, 1);
    close(fd);
    bed_await(&bed, &bed.counts.canceled, 1);
    fd = client_connect(&bed); /* The loop goes on. */
    client_expect(fd, GET("/ok"), 200, "ok");
    bed_await(&bed, &bed.counts.done, 1);
    assert_int_equal(bed_counts(&bed).done, 1);
    assert_int_equal(http_bodies_bytes(), 5);
    bed_release(&bed, "a");
    bed_await(&bed, &bed.counts.done, 2);
    assert_int_equal(http_bodies_bytes(), 0);
    bed_close(&bed, fd);
}

static void test_a_body_cut_off_never_reaches_the_handler(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    client_text(fd, POST("/ok", 10) "hello");
    bed_await(&bed, &bed.counts.head, 1);
    close(fd);
    bed_await(&bed, &bed.counts.done, 1);
    assert_int_equal(bed_counts(&bed).request, 0);
    assert_int_equal(bed_counts(&bed).canceled, 0);
    bed_stop(&bed);
}

static void test_a_client_may_shut_its_side(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    client_text(fd, GET("/ok"));
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    client_expect(fd, "", 200, "ok");
    client_expect_end(fd);
    bed_close(&bed, fd);
}

static void test_slow_headers_are_timed_out(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.header_timeout_ns = SHORT_NS;
    bed_start(&bed, NULL);
    struct response r;
    int fd = client_connect(&bed);
    client_text(fd, "GET /ok HT");
    client_receive(fd, false, &r);
    assert_int_equal(r.status, 408);
    assert_non_null(strstr(r.body, "{\"error\":\"request header"));
    response_finish(&r);
    client_expect_end(fd);
    close(fd);
    fd = client_connect(&bed); /* Where no request has begun, nobody waits for an answer. */
    client_expect_end(fd);
    bed_close(&bed, fd);
}

static void test_an_empty_line_begins_no_request(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.header_timeout_ns = TINY_NS;
    bed.limits.idle_timeout_ns = TINY_NS;
    const int fd = bed_open(&bed);
    client_text(fd, "\r\n");
    client_expect_end(fd);
    bed_close(&bed, fd);
}

static void test_slow_bodies_are_timed_out(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.body_timeout_ns = TINY_NS;
    bed_start(&bed, NULL);
    struct response r;
    const int fd = client_connect(&bed);
    client_text(fd, POST("/ok", 10) "hello");
    client_receive(fd, false, &r);
    assert_int_equal(r.status, 408);
    assert_non_null(strstr(r.body, "{\"error\":\"request body"));
    response_finish(&r);
    client_expect_end(fd);
    bed_close(&bed, fd);
    assert_int_equal(bed.counts.request, 0);
}

/* The answer is given already; the body is read in vain, and does not come. */
static void test_one_answer_is_enough(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.body_timeout_ns = TINY_NS;
    const int fd = bed_open(&bed);
    client_expect(fd, POST("/refuse", 5), 403, "{\"error\":\"refused at the door\"}");
    client_expect_end(fd);
    bed_close(&bed, fd);
}

static void test_idle_connections_are_closed(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.idle_timeout_ns = TINY_NS;
    const int fd = bed_open(&bed);
    client_expect(fd, GET("/ok"), 200, "ok");
    client_expect_end(fd);
    bed_close(&bed, fd);
}

/* A request that runs for long is not idle. */
static void test_time_outs_spare_the_patient(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.idle_timeout_ns = SHORT_NS;
    bed.limits.header_timeout_ns = SHORT_NS;
    const int fd = bed_open(&bed);
    client_text(fd, GET("/hold/a"));
    bed_await(&bed, &bed.counts.held, 1);
    const int idle = client_connect(&bed); /* Its end shows that the time has passed. */
    client_expect_end(idle);
    assert_int_equal(bed_counts(&bed).canceled, 0);
    bed_release(&bed, "a");
    client_expect(fd, "", 200, "a");
    close(fd);
    close(idle);
    bed_stop(&bed);
}

static void test_a_reader_that_stalls_is_cut(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.write_timeout_ns = 5 * TINY_NS;
    const int fd = bed_open(&bed);
    client_text(fd, GET("/flood"));
    bed_await(&bed, &bed.counts.canceled, 1);
    bed_close(&bed, fd);
}

static void test_too_many_connections_are_told(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.limits.connections_max = 2;
    bed_start(&bed, NULL);
    const int first = client_connect(&bed);
    const int second = client_connect(&bed);
    client_expect(first, GET("/ok"), 200, "ok");
    client_expect(second, GET("/ok"), 200, "ok");
    const int third = client_connect(&bed);
    struct response r;
    client_receive(third, false, &r);
    assert_int_equal(r.status, 503);
    assert_string_equal(r.body, "{\"error\":\"too many connections\"}");
    response_finish(&r);
    client_expect_end(third);
    close(third);
    client_expect(first, GET("/ok"), 200, "ok");
    close(first);
    close(second);
    bed_stop(&bed);
}

static void test_drain(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed_start(&bed, NULL);
    struct response r;
    const int idle = client_connect(&bed);
    const int busy = client_connect(&bed);
    const int partial = client_connect(&bed);
    client_expect(idle, GET("/ok"), 200, "ok");
    client_text(busy, GET("/hold/a"));
    client_text(partial, "GET /ok HTTP/1.1\r\nHo");
    client_expect(idle, GET("/ok"), 200, "ok");
    bed_await(&bed, &bed.counts.held, 1);
    bed_drain(&bed);
    client_expect_end(idle);
    client_text(busy, CANARY);
    bed_release(&bed, "a");
    client_receive(busy, false, &r);
    assert_string_equal(r.body, "a");
    assert_non_null(strstr(r.head, "\r\nConnection: close\r\n"));
    response_finish(&r);
    client_expect_end(busy);
    client_text(partial, "st: a\r\n\r\n" CANARY);
    client_receive(partial, false, &r);
    assert_string_equal(r.body, "ok");
    assert_non_null(strstr(r.head, "\r\nConnection: close\r\n"));
    response_finish(&r);
    client_expect_end(partial);
    const int late = client_connect(&bed); /* Listening goes on; so does answering, once each. */
    client_text(late, GET("/ok") CANARY);
    client_receive(late, false, &r);
    assert_string_equal(r.body, "ok");
    response_finish(&r);
    client_expect_end(late);
    close(idle);
    close(busy);
    close(partial);
    close(late);
    bed_stop(&bed);
    assert_int_equal(bed.counts.canary, 0);
}

static void test_stopping_cancels_what_is_left(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    client_text(fd, GET("/hold/a") GET("/hold/b") POST("/echo", 5) "hel");
    bed_await(&bed, &bed.counts.head, 3);
    bed_stop(&bed);
    assert_int_equal(bed.counts.canceled, 2);
    close(fd);
}

/* More clients than spare streams, in waves, so that streams are made, kept and freed. */
static void test_many_connections(void **state)
{
    (void)state;
    enum { COUNT = 400 };
    static int fds[COUNT];
    struct bed bed;
    bed_init(&bed);
    bed_start(&bed, NULL);
    for (unsigned wave = 0; wave < 2; wave++) {
        for (unsigned i = 0; i < COUNT; i++) {
            fds[i] = client_connect(&bed);
            client_text(fds[i], GET("/hold/a"));
        }
        bed_await(&bed, &bed.counts.held, (wave + 1) * COUNT);
        bed_release(&bed, "a");
        for (unsigned i = 0; i < COUNT; i++) {
            client_expect(fds[i], "", 200, "a");
            close(fds[i]);
        }
    }
    bed_stop(&bed);
}

/* Every allocation of a conversation fails once.  Whatever the client then sees is an answer or the
 * end, and the next conversation is as if nothing had been.  Without WEIR_ALLOC_FAULT it is held
 * once, unharmed. */
static void test_memory_may_run_out(void **state)
{
    (void)state;
    static const char *const parts[] = {
        GET("/ok"),
        GET("/stream/3"),
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "4e20\r\n",
        NULL, /* The body. */
        "\r\n0\r\n\r\n",
        GET("/ok") GET("/ok") GET("/ok") GET("/ok"), /* More than the line holds. */
        POST("/echo", 20000),
        NULL,
        "GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    };
    struct bed bed;
    bed_init(&bed);
    bed.limits.pipelined_max = 2;
    char *body = test_malloc(20000);
    memset(body, 'x', 20000);
    bool failed = true;
    for (uint64_t nth = 1; failed; nth++) {
        struct bed_counts none = { 0 };
        bed.counts = none;
        const int fd = bed_open(&bed);
        (void)mem_fault_arm(nth);
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
            const char *part = parts[i] == NULL ? body : parts[i];
            const size_t size = parts[i] == NULL ? 20000 : strlen(part);
            (void)send(fd, part, size, MSG_NOSIGNAL); /* The server may have hung up. */
        }
        size_t size = 0;
        char *answers = client_drain(fd, &size);
        failed = mem_fault_arm(0) >= nth;
        if (!failed) {
            assert_int_equal(client_count(answers, "HTTP/1.1 200 OK"), 9);
        }
        free(answers);
        bed_close(&bed, fd);
    }
    test_free(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_client_that_goes_cancels),
        cmocka_unit_test(test_a_canceled_exchange_lives_until_it_is_finished),
        cmocka_unit_test(test_a_body_cut_off_never_reaches_the_handler),
        cmocka_unit_test(test_a_client_may_shut_its_side),
        cmocka_unit_test(test_slow_headers_are_timed_out),
        cmocka_unit_test(test_slow_bodies_are_timed_out),
        cmocka_unit_test(test_an_empty_line_begins_no_request),
        cmocka_unit_test(test_one_answer_is_enough),
        cmocka_unit_test(test_idle_connections_are_closed),
        cmocka_unit_test(test_time_outs_spare_the_patient),
        cmocka_unit_test(test_a_reader_that_stalls_is_cut),
        cmocka_unit_test(test_too_many_connections_are_told),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_stopping_cancels_what_is_left),
        cmocka_unit_test(test_many_connections),
        cmocka_unit_test(test_memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
