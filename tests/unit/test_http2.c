/* HTTP/2 over real sockets, with the library's client session at the other end; and the guard by
 * itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nghttp2/nghttp2.h>
#include <cmocka.h>

#include "bed.h"
#include "net/http2_guard.h"
#include "util/clock.h"

#define STREAMS_MAX 600
#define FIELDS_BYTES 512
#define WAIT_NS (5 * NS_PER_S) /* Less than time-outs, more than any stream's youth. */
#define RESETS_SENT_MAX 100000

/* What has come for one request. */
struct reply {
    int status;
    char fields[FIELDS_BYTES]; /* "name=value;" */
    char *body;
    size_t size;
    bool closed;
    uint32_t code; /* With which it was closed. */
};

struct peer {
    int fd;
    nghttp2_session *session;
    struct reply replies[STREAMS_MAX]; /* By (stream - 1) / 2. */
    const char *body;                  /* Of the request that is being sent. */
    size_t body_left;
    bool body_endless; /* It never ends. */
    size_t step;       /* Bytes written at once; 0: all. */
    uint32_t goaway_code;
    int32_t goaway_last;
    unsigned goaways;
};

static struct reply *reply_of(struct peer *peer, int32_t id)
{
    return &peer->replies[(id - 1) / 2];
}

static ssize_t on_send(nghttp2_session *session, const uint8_t *data, size_t size, int flags,
                       void *user)
{
    (void)session;
    (void)flags;
    struct peer *peer = user;
    const size_t step = peer->step == 0 ? size : peer->step;
    for (size_t at = 0; at < size; at += step) {
        client_send(peer->fd, data + at, size - at < step ? size - at : step);
    }
    return (ssize_t)size;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *user)
{
    (void)session;
    (void)flags;
    struct reply *reply = reply_of(user, frame->hd.stream_id);
    if (name_size == 7 && memcmp(name, ":status", 7) == 0) {
        reply->status = atoi((const char *)value);
        return 0;
    }
    const size_t at = strlen(reply->fields);
    snprintf(reply->fields + at, sizeof(reply->fields) - at, "%.*s=%.*s;", (int)name_size, name,
             (int)value_size, value);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t size, void *user)
{
    (void)session;
    (void)flags;
    struct reply *reply = reply_of(user, id);
    reply->body = realloc(reply->body, reply->size + size + 1);
    assert_non_null(reply->body);
    memcpy(reply->body + reply->size, data, size);
    reply->size += size;
    reply->body[reply->size] = '\0';
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    (void)session;
    reply_of(user, id)->closed = true;
    reply_of(user, id)->code = code;
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct peer *peer = user;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        peer->goaways++;
        peer->goaway_code = frame->goaway.error_code;
        peer->goaway_last = frame->goaway.last_stream_id;
    }
    return 0;
}

static ssize_t on_body(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t room,
                       uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)id;
    (void)source;
    struct peer *peer = user;
    const size_t size = peer->body_left < room ? peer->body_left : room;
    if (size == 0 && peer->body_endless) {
        return NGHTTP2_ERR_DEFERRED;
    }
    memcpy(buffer, peer->body, size);
    peer->body += size;
    peer->body_left -= size;
    *flags |= peer->body_left == 0 && !peer->body_endless ? (uint32_t)NGHTTP2_DATA_FLAG_EOF : 0;
    return (ssize_t)size;
}

static void send_all(struct peer *peer)
{
    assert_int_equal(nghttp2_session_send(peer->session), 0);
}

/* `window`: of every stream; 0 keeps the usual. */
static void peer_open(struct peer *peer, const struct bed *bed, int32_t window)
{
    nghttp2_session_callbacks *callbacks = NULL;
    *peer = (struct peer){ .fd = client_connect(bed) };
    assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
    nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    assert_int_equal(nghttp2_session_client_new(&peer->session, callbacks, peer), 0);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry setting = { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
                                             (uint32_t)window };
    nghttp2_submit_settings(peer->session, NGHTTP2_FLAG_NONE, &setting, window > 0);
    send_all(peer);
}

static void peer_close(struct peer *peer)
{
    nghttp2_session_del(peer->session);
    close(peer->fd);
    for (size_t i = 0; i < STREAMS_MAX; i++) {
        free(peer->replies[i].body);
    }
}

/* Takes what comes; false at the end. */
static bool receive(struct peer *peer)
{
    uint8_t data[65536];
    const ssize_t size = TEMP_FAILURE_RETRY(recv(peer->fd, data, sizeof(data), 0));
    if (size <= 0) {
        return false;
    }
    assert_int_equal(nghttp2_session_mem_recv(peer->session, data, (size_t)size), size);
    send_all(peer);
    return true;
}

static nghttp2_nv pair(const char *name, const char *value)
{
    return (nghttp2_nv){ (uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
                         strlen(value), NGHTTP2_NV_FLAG_NONE };
}

/* Sends a request; one with a body is sent as far as the server lets it. */
static int32_t ask(struct peer *peer, const char *method, const char *path, const char *body,
                   size_t size)
{
    const nghttp2_nv fields[] = { pair(":method", method), pair(":scheme", "http"),
                                  pair(":path", path), pair(":authority", "a") };
    const nghttp2_data_provider provider = { .read_callback = on_body };
    peer->body = body;
    peer->body_left = size;
    const int32_t id = nghttp2_submit_request(peer->session, NULL, fields, 4,
                                              body == NULL ? NULL : &provider, NULL);
    assert_true(id > 0);
    send_all(peer);
    return id;
}

static struct reply *await(struct peer *peer, int32_t id)
{
    struct reply *reply = reply_of(peer, id);
    while (!reply->closed) {
        assert_true(receive(peer));
    }
    return reply;
}

static void expect(struct peer *peer, int32_t id, int status, const char *body)
{
    const struct reply *reply = await(peer, id);
    assert_int_equal(reply->code, NGHTTP2_NO_ERROR);
    assert_int_equal(reply->status, status);
    assert_string_equal(reply->body == NULL ? "" : reply->body, body);
}

/* --- Requests and answers --- */

static void test_requests_are_answered_however_their_bytes_are_cut(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed_start(&bed, NULL);
    for (size_t step = 0; step < 12; step++) {
        struct peer peer;
        peer_open(&peer, &bed, 0);
        peer.step = step;
        expect(&peer, ask(&peer, "GET", "/ok", NULL, 0), 200, "ok");
        expect(&peer, ask(&peer, "POST", "/echo", "a body", 6), 200, "a body");
        assert_int_equal(await(&peer, ask(&peer, "GET", "/nothing", NULL, 0))->status, 404);
        const struct reply *head = await(&peer, ask(&peer, "HEAD", "/ok", NULL, 0));
        assert_int_equal(head->size, 0);
        assert_non_null(strstr(head->fields, "content-length=2;"));
        peer_close(&peer);
    }
    bed_stop(&bed);
}

/* The handler looks at the times: see bed.c. */
static void test_what_is_read_behind_a_wait_came_at_its_beginning(void **state)
{
    (void)state;
    struct bed bed;
    struct peer peer;
    bed_init(&bed);
    bed.wait.ns = WAIT_NS;
    bed_start(&bed, NULL);
    peer_open(&peer, &bed, 0);
    expect(&peer, ask(&peer, "GET", "/ok", NULL, 0), 200, "ok");
    expect(&peer, ask(&peer, "POST", "/echo", "a body", 6), 200, "a body");
    peer_close(&peer);
    bed_stop(&bed);
}

/* Headers that are like the one before, or almost, or longer, or shorter, in any order. */
static void test_repeated_headers_mean_the_same(void **state)
{
    (void)state;
    static const char order[] = "eeoeeneoooeeennHHoHee";
    struct bed bed;
    bed_init(&bed);
    bed_start(&bed, NULL);
    struct peer peer;
    peer_open(&peer, &bed, 0);
    for (unsigned round = 0; round < 4; round++) {
        for (const char *at = order; *at != '\0'; at++) {
            if (*at == 'e') {
                expect(&peer, ask(&peer, "POST", "/echo", at, 1), 200, "e");
            } else if (*at == 'o') {
                expect(&peer, ask(&peer, "GET", "/ok", NULL, 0), 200, "ok");
            } else if (*at == 'n') {
                assert_int_equal(await(&peer, ask(&peer, "GET", "/ok?", NULL, 0))->status, 200);
                assert_int_equal(await(&peer, ask(&peer, "GET", "/oh", NULL, 0))->status, 404);
            } else {
                assert_int_equal(await(&peer, ask(&peer, "HEAD", "/ok", NULL, 0))->size, 0);
            }
        }
    }
    peer_close(&peer);
    bed_stop(&bed);
}

static void test_large_bodies_go_both_ways(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed_start(&bed, NULL);
    const size_t size = 20 << 20;
    char *body = malloc(size + 1);
    assert_non_null(body);
    for (size_t i = 0; i < size; i++) {
        body[i] = (char)('a' + i % 23);
    }
    body[size] = '\0';
    struct peer peer;
    peer_open(&peer, &bed, 1 << 20);
    const struct reply *reply = await(&peer, ask(&peer, "POST", "/echo", body, size));
    assert_int_equal(reply->status, 200);
    assert_int_equal(reply->size, size);
    assert_memory_equal(reply->body, body, size);
    peer_close(&peer);
    free(body);
    bed_stop(&bed);
    assert_int_equal(http_bodies_bytes(), 0);
}

static void test_streams_do_not_wait_for_each_other(void **state)
{
    (void)state;
    struct bed bed;
    struct peer peer;
    bed_init(&bed);
    bed_start(&bed, NULL);
    peer_open(&peer, &bed, 0);
    const int32_t first = ask(&peer, "GET", "/hold/a", NULL, 0);
    const int32_t second = ask(&peer, "GET", "/hold/b", NULL, 0);
    for (unsigned i = 0; i < 500; i++) {
        expect(&peer, ask(&peer, "GET", "/ok", NULL, 0), 200, "ok");
    }
    bed_await(&bed, &bed.counts.held, 2);
    bed_release(&bed, "b");
    expect(&peer, second, 200, "b");
    assert_false(reply_of(&peer, first)->closed);
    bed_release(&bed, "a");
    expect(&peer, first, 200, "a");
    peer_close(&peer);
    bed_stop(&bed);
}

static void test_streamed_answers(void **state)
{
    (void)state;
    struct bed bed;
    struct peer peer;
    bed_init(&bed);
    bed_start(&bed, NULL);
    peer_open(&peer, &bed, 0);
    const struct reply *reply = await(&peer, ask(&peer, "GET", "/stream/300", NULL, 0));
    assert_int_equal(reply->size, 300 * strlen("part\n"));
    assert_null(strstr(reply->fields, "content-length"));
    peer_close(&peer);
    bed_stop(&bed);
}

static void test_answers_that_cannot_be_completed_reset_their_stream_only(void **state)
{
    (void)state;
    struct bed bed;
    struct peer peer;
    bed_init(&bed);
    bed_start(&bed, NULL);
    peer_open(&peer, &bed, 0);
    assert_int_equal(await(&peer, ask(&peer, "GET", "/short", NULL, 0))->code,
                     NGHTTP2_INTERNAL_ERROR);
    expect(&peer, ask(&peer, "GET", "/ok", NULL, 0), 200, "ok");
    peer_close(&peer);
    bed_stop(&bed);
}

/* The answer comes first; then the client is told that it need not send the rest. */
static void test_early_answers_spare_the_body(void **state)
{
    (void)state;
    struct bed bed;
    struct peer peer;
    bed_init(&bed);
    bed_start(&bed, NULL);
    peer_open(&peer, &bed, 0);
    peer.body_endless = true;
    const struct reply *refused = await(&peer, ask(&peer, "POST", "/refuse", "some", 4));
    assert_int_equal(refused->status, 403);
    assert_int_equal(refused->code, NGHTTP2_NO_ERROR);
    const struct reply *large = await(&peer, ask(&peer, "POST", "/tiny", "more than ten", 13));
    assert_int_equal(large->status, 413);
    assert_int_equal(large->code, NGHTTP2_NO_ERROR);
    expect(&peer, ask(&peer, "GET", "/ok", NULL, 0), 200, "ok");
    peer_close(&peer);
    bed_stop(&bed);
}

/* --- The client goes --- */

static void test_a_reset_cancels_its_exchange_only(void **state)
{
    (void)state;
    struct bed bed;
    struct peer peer;
    bed_init(&bed);
    bed_start(&bed, NULL);
    peer_open(&peer, &bed, 0);
    const int32_t gone = ask(&peer, "GET", "/hold/a", NULL, 0);
    const int32_t flood = ask(&peer, "GET", "/flood", NULL, 0);
    const int32_t kept = ask(&peer, "GET", "/hold/b", NULL, 0);
    bed_await(&bed, &bed.counts.held, 2);
    while (reply_of(&peer, flood)->size < 100000) {
        assert_true(receive(&peer));
    }
    nghttp2_submit_rst_stream(peer.session, NGHTTP2_FLAG_NONE, gone, NGHTTP2_CANCEL);
    nghttp2_submit_rst_stream(peer.session, NGHTTP2_FLAG_NONE, flood, NGHTTP2_CANCEL);
    send_all(&peer);
    bed_await(&bed, &bed.counts.canceled, 2);
    bed_release(&bed, "b");
    expect(&peer, kept, 200, "b");
    peer_close(&peer);
    bed_stop(&bed);
}

static void test_a_lost_connection_cancels_all(void **state)
{
    (void)state;
    for (int later = 0; later < 2; later++) {
        struct bed bed;
        struct peer peer;
        bed_init(&bed);
        bed.hold_when_canceled = later != 0;
        bed_start(&bed, NULL);
        peer_open(&peer, &bed, 0);
        for (unsigned i = 0; i < 90; i++) {
            ask(&peer, "GET", "/hold/a", NULL, 0);
        }
        peer.body_endless = true;
        ask(&peer, "POST", "/echo", "half", 4);
        bed_await(&bed, &bed.counts.head, 91);
        bed_await(&bed, &bed.counts.held, 90);
        peer_close(&peer);
        bed_await(&bed, &bed.counts.canceled, 90);
        if (later != 0) {
            bed_release(&bed, "a");
        }
        bed_await(&bed, &bed.counts.done, 91);
        bed_stop(&bed);
    }
}

/* --- Limits --- */

static void test_what_does_not_move_is_given_up(void **state)
{
    (void)state;
    struct bed bed;
    struct peer peer;
    bed_init(&bed);
    bed.limits.body_timeout_ns = 50 * NS_PER_MS;
    bed.limits.write_timeout_ns = 50 * NS_PER_MS;
    bed_start(&bed, NULL);
    peer_open(&peer, &bed, 1);
    peer.body_endless = true;
    assert_int_equal(await(&peer, ask(&peer, "POST", "/echo", "half", 4))->status, 408);
    bed_await(&bed, &bed.counts.done, 1);
    peer_close(&peer);

    /* Two bytes behind a window of one, which nobody opens. */
    peer_open(&peer, &bed, 1);
    ask(&peer, "GET", "/ok", NULL, 0);
    bed_await(&bed, &bed.counts.done, 2);
    assert_int_equal(bed_counts(&bed).sent_bytes, 1);
    peer_close(&peer);
    bed_stop(&bed);
}

static void test_streams_beyond_the_limit_are_refused(void **state)
{
    (void)state;
    struct bed bed;
    struct peer peer;
    bed_init(&bed);
    bed.limits.streams_max = 4;
    bed_start(&bed, NULL);
    peer_open(&peer, &bed, 0);
    for (unsigned i = 0; i < 20; i++) { /* Before the client knows how many it may open. */
        ask(&peer, "GET", "/hold/a", NULL, 0);
    }
    for (int32_t id = 9; id < 40; id += 2) {
        assert_int_equal(await(&peer, id)->code, NGHTTP2_REFUSED_STREAM);
    }
    bed_await(&bed, &bed.counts.held, 4);
    bed_release(&bed, "a");
    for (int32_t id = 1; id < 9; id += 2) {
        expect(&peer, id, 200, "a");
    }
    assert_int_equal(bed_counts(&bed).head, 4);
    peer_close(&peer);
    bed_stop(&bed);
}

static void test_draining_says_goodbye_and_finishes(void **state)
{
    (void)state;
    struct bed bed;
    struct peer busy;
    struct peer idle;
    bed_init(&bed);
    bed_start(&bed, NULL);
    peer_open(&busy, &bed, 0);
    peer_open(&idle, &bed, 0);
    expect(&idle, ask(&idle, "GET", "/ok", NULL, 0), 200, "ok");
    const int32_t held = ask(&busy, "GET", "/hold/a", NULL, 0);
    bed_await(&bed, &bed.counts.held, 1);
    bed_drain(&bed);
    while (receive(&idle)) {
    }
    assert_int_equal(idle.goaways, 1);
    assert_int_equal(idle.goaway_code, NGHTTP2_NO_ERROR);
    while (busy.goaways < 2) {
        assert_true(receive(&busy));
    }
    assert_int_equal(busy.goaway_last, held);
    bed_release(&bed, "a");
    expect(&busy, held, 200, "a");
    while (receive(&busy)) {
    }
    peer_close(&busy);
    peer_close(&idle);
    bed_stop(&bed);
}

/* --- The guard --- */

static unsigned resets_until_closed(uint64_t age_ns, uint64_t every_ns, unsigned most)
{
    struct http2_guard guard;
    uint64_t now_ns = NS_PER_S;
    http2_guard_init(&guard, now_ns);
    for (unsigned i = 0; i < most; i++) {
        now_ns += every_ns;
        if (!http2_guard_reset(&guard, now_ns - age_ns, now_ns)) {
            return i;
        }
    }
    return most;
}

static void test_what_resets_cost_falls_with_age(void **state)
{
    (void)state;
    const uint64_t us = NS_PER_MS / 1000;
    assert_int_equal(resets_until_closed(0, 0, 1000000), HTTP2_RESETS_FREE);
    assert_in_range(resets_until_closed(0, 10 * us, 1000000), HTTP2_RESETS_FREE, 13000);
    assert_int_equal(resets_until_closed(0, 500 * us, 100000), 100000); /* 2,000 a second */
    assert_int_equal(resets_until_closed(10 * NS_PER_MS, 50 * us, 500000), 500000); /* 20,000 */
    assert_true(resets_until_closed(10 * NS_PER_MS, us, 1000000) < 1000000);
    assert_int_equal(resets_until_closed(100 * NS_PER_MS, 0, 1000000), 1000000);
}

/* A request, and its reset; false when the connection is at its end. */
static bool send_reset(int fd, uint32_t id)
{
    char frames[] = "\0\0\16\1\5....\x82\x86\1\1a\4\7/hold/a" /* HEADERS, which end all. */
                    "\0\0\4\3\0....\0\0\0\10";                /* RST_STREAM: CANCEL */
    const size_t size = sizeof frames - 1;
    for (unsigned i = 0; i < 4; i++) {
        frames[5 + i] = frames[28 + i] = (char)(id >> (24 - 8 * i));
    }
    return TEMP_FAILURE_RETRY(send(fd, frames, size, MSG_NOSIGNAL)) == (ssize_t)size;
}

/* Or they would cost nothing. */
static void test_a_wait_of_the_sockets_makes_no_stream_old(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    bed.wait.ns = WAIT_NS;
    const int fd = bed_open(&bed);
    static const uint8_t settings[9] = { [3] = NGHTTP2_SETTINGS };
    client_text(fd, NGHTTP2_CLIENT_MAGIC);
    client_send(fd, settings, sizeof settings);
    uint32_t sent = 0;
    while (sent < RESETS_SENT_MAX && send_reset(fd, 2 * sent + 1)) {
        sent++;
    }
    (void)shutdown(fd, SHUT_WR);
    size_t size = 0;
    free(client_drain(fd, &size));
    bed_close(&bed, fd);
    assert_in_range(bed.counts.head, HTTP2_RESETS_FREE, RESETS_SENT_MAX - 1);
}

static void test_idle_frames_are_paid_for_by_data(void **state)
{
    (void)state;
    struct http2_guard guard;
    http2_guard_init(&guard, 0);
    for (unsigned i = 0; i < HTTP2_IDLE_FREE; i++) {
        assert_true(http2_guard_frame(&guard, NGHTTP2_PING, 0, 8, 0));
    }
    assert_false(http2_guard_frame(&guard, NGHTTP2_PING, 0, 8, 0));
    assert_true(http2_guard_frame(&guard, NGHTTP2_DATA, 0, 8, 0));
    assert_false(http2_guard_frame(&guard, NGHTTP2_DATA, 0, 0, 0));
    assert_true(http2_guard_frame(&guard, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 0, 0));
    http2_guard_sent(&guard, 10);
    assert_true(http2_guard_frame(&guard, NGHTTP2_WINDOW_UPDATE, 0, 4, 0));
    assert_true(http2_guard_frame(&guard, NGHTTP2_WINDOW_UPDATE, 0, 4, 0));
    assert_false(http2_guard_frame(&guard, NGHTTP2_WINDOW_UPDATE, 0, 4, 0));
    assert_true(http2_guard_frame(&guard, NGHTTP2_PING, 0, 8, NS_PER_S)); /* Later. */
}

static void test_continuations_are_counted_per_header(void **state)
{
    (void)state;
    struct http2_guard guard;
    http2_guard_init(&guard, 0);
    for (unsigned header = 0; header < 10; header++) {
        assert_true(http2_guard_frame(&guard, NGHTTP2_HEADERS, 0, 1, 0));
        for (unsigned i = 0; i < HTTP2_CONTINUATIONS_MAX; i++) {
            assert_true(http2_guard_frame(&guard, NGHTTP2_CONTINUATION, 0, 1, 0));
        }
    }
    assert_false(http2_guard_frame(&guard, NGHTTP2_CONTINUATION, 0, 1, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_are_answered_however_their_bytes_are_cut),
        cmocka_unit_test(test_what_is_read_behind_a_wait_came_at_its_beginning),
        cmocka_unit_test(test_repeated_headers_mean_the_same),
        cmocka_unit_test(test_large_bodies_go_both_ways),
        cmocka_unit_test(test_streams_do_not_wait_for_each_other),
        cmocka_unit_test(test_streamed_answers),
        cmocka_unit_test(test_answers_that_cannot_be_completed_reset_their_stream_only),
        cmocka_unit_test(test_early_answers_spare_the_body),
        cmocka_unit_test(test_a_reset_cancels_its_exchange_only),
        cmocka_unit_test(test_a_lost_connection_cancels_all),
        cmocka_unit_test(test_what_does_not_move_is_given_up),
        cmocka_unit_test(test_streams_beyond_the_limit_are_refused),
        cmocka_unit_test(test_draining_says_goodbye_and_finishes),
        cmocka_unit_test(test_what_resets_cost_falls_with_age),
        cmocka_unit_test(test_a_wait_of_the_sockets_makes_no_stream_old),
        cmocka_unit_test(test_idle_frames_are_paid_for_by_data),
        cmocka_unit_test(test_continuations_are_counted_per_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
