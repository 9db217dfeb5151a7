/*
 * Answers of HTTP/1.1 as a load generator reads them, whole and in pieces.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "net/http1_client.h"

static struct http1_client client;

static int set_up(void **state)
{
    (void)state;
    http1_client_init(&client);
    return 0;
}

static enum http1_client_step give(const char *text)
{
    struct bytes in = bytes_of(text);
    const enum http1_client_step step = http1_client_input(&client, &in);
    if (step == HTTP1_CLIENT_ANSWER) {
        assert_int_equal(in.size, 0);
    }
    return step;
}

/* Byte by byte; the answer has to come with the last one. */
static enum http1_client_step trickle(const char *text)
{
    enum http1_client_step step = HTTP1_CLIENT_MORE;
    for (const char *at = text; *at != '\0'; at++) {
        struct bytes in = { at, 1 };
        assert_int_equal(step, HTTP1_CLIENT_MORE);
        step = http1_client_input(&client, &in);
    }
    return step;
}

static void test_a_sized_answer(void **state)
{
    (void)state;
    assert_int_equal(give("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
                     HTTP1_CLIENT_ANSWER);
    assert_int_equal(client.status, 200);
    assert_false(client.close);
    assert_int_equal(client.text_size, 0);
    assert_int_equal(give("HTTP/1.1 200 OK\r\nX: y\r\ncontent-length:0\r\n\r\n"),
                     HTTP1_CLIENT_ANSWER);
}

static void test_an_answer_in_pieces(void **state)
{
    (void)state;
    assert_int_equal(trickle("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc"),
                     HTTP1_CLIENT_ANSWER);
    assert_int_equal(client.status, 404);
    assert_memory_equal(client.text, "abc", 3);
    assert_int_equal(trickle("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                             "5;x=y\r\nhello\r\n0\r\nTrailer: t\r\n\r\n"),
                     HTTP1_CLIENT_ANSWER);
    assert_int_equal(client.status, 200);
}

static void test_two_answers_in_one_read(void **state)
{
    (void)state;
    struct bytes in = BYTES_LITERAL("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
                                    "HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno");
    assert_int_equal(http1_client_input(&client, &in), HTTP1_CLIENT_ANSWER);
    assert_int_equal(client.status, 200);
    assert_int_equal(http1_client_input(&client, &in), HTTP1_CLIENT_ANSWER);
    assert_int_equal(client.status, 503);
    assert_int_equal(client.text_size, 2);
    assert_int_equal(in.size, 0);
}

static void test_interim_answers_are_passed_over(void **state)
{
    (void)state;
    assert_int_equal(
        give("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        HTTP1_CLIENT_ANSWER);
    assert_int_equal(client.status, 200);
    assert_int_equal(give("HTTP/1.1 204 No Content\r\n\r\n"), HTTP1_CLIENT_ANSWER);
}

static void test_what_closes_the_connection(void **state)
{
    (void)state;
    assert_int_equal(give("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
                     HTTP1_CLIENT_ANSWER);
    assert_true(client.close);
    assert_int_equal(give("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"), HTTP1_CLIENT_ANSWER);
    assert_true(client.close);
    assert_int_equal(give("HTTP/1.1 200 OK\r\n\r\nuntil the end"), HTTP1_CLIENT_MORE);
    assert_true(http1_client_ended(&client));
    http1_client_init(&client);
    assert_int_equal(give("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut"), HTTP1_CLIENT_MORE);
    assert_false(http1_client_ended(&client));
}

static void test_what_is_no_answer(void **state)
{
    static const char *const wrong[] = {
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        http1_client_init(&client);
        assert_int_equal(give(wrong[i]), HTTP1_CLIENT_BROKEN);
    }
}

static void test_a_head_without_end(void **state)
{
    static char head[HTTP1_CLIENT_HEAD_MAX + 100];
    (void)state;
    memset(head, 'x', sizeof(head));
    struct bytes in = { head, sizeof(head) };
    assert_int_equal(http1_client_input(&client, &in), HTTP1_CLIENT_BROKEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_sized_answer, set_up),
        cmocka_unit_test_setup(test_an_answer_in_pieces, set_up),
        cmocka_unit_test_setup(test_two_answers_in_one_read, set_up),
        cmocka_unit_test_setup(test_interim_answers_are_passed_over, set_up),
        cmocka_unit_test_setup(test_what_closes_the_connection, set_up),
        cmocka_unit_test_setup(test_what_is_no_answer, set_up),
        cmocka_unit_test_setup(test_a_head_without_end, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
