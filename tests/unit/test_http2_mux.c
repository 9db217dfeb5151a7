/*
 * Many calls on one connection, against nghttp2's server in the same process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <nghttp2/nghttp2.h>
#include <cmocka.h>

#include "faults.h"
#include "net/http2_mux.h"

#define CALLS_MAX 3000

/* The server notes what comes and answers every call with the status that its tag asks for. */
struct bed {
    struct http2_plan *plan;
    struct http2_mux *mux;
    struct http2_head head;
    nghttp2_session *server;
    struct weir_err err;
    bool silent;       /* Answers nothing. */
    uint32_t requests; /* With a whole head. */
    uint64_t body_bytes;
    uint64_t body_sum;
    uint64_t head_bytes; /* Of HEADERS frames. */
    char path[64];
    char key[64];
    const char *grpc; /* Status to answer with, */
    const char *text; /* and message. */
    bool hollow;      /* Without any DATA. */
    uint32_t answers[CALLS_MAX];
    int grpc_seen;
    int http_seen;
    bool reset_seen;
    uint32_t code_seen;
    char text_seen[HTTP2_MUX_TEXT_MAX + 1];
    uint32_t answer_count;
};

/* ---- The server ------------------------------------------------------------------------------ */

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *out, size_t size,
                         uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct bed *bed = user;
    const nghttp2_nv trailers[] = {
        { (uint8_t *)(uintptr_t) "grpc-status", (uint8_t *)(uintptr_t)bed->grpc, 11,
          strlen(bed->grpc), 0 },
        { (uint8_t *)(uintptr_t) "grpc-message", (uint8_t *)(uintptr_t)bed->text, 12,
          strlen(bed->text), 0 },
    };
    (void)source;
    (void)size;
    memset(out, 'a', 8);
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    assert_int_equal(nghttp2_submit_trailer(session, stream, trailers, bed->text[0] == 0 ? 1 : 2),
                     0);
    return 8;
}

static void reply(struct bed *bed, int32_t stream)
{
    const nghttp2_nv fields[] = {
        { (uint8_t *)(uintptr_t) ":status", (uint8_t *)(uintptr_t) "200", 7, 3, 0 },
        { (uint8_t *)(uintptr_t) "content-type", (uint8_t *)(uintptr_t) "application/grpc", 12, 16,
          0 },
        { (uint8_t *)(uintptr_t) "grpc-status", (uint8_t *)(uintptr_t)bed->grpc, 11,
          strlen(bed->grpc), 0 },
    };
    nghttp2_data_provider provider = { .read_callback = read_body };
    assert_int_equal(nghttp2_submit_response(bed->server, stream, fields, bed->hollow ? 3 : 2,
                                             bed->hollow ? NULL : &provider),
                     0);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct bed *bed = user;
    (void)session;
    if (frame->hd.type == NGHTTP2_HEADERS) {
        bed->requests++;
        bed->head_bytes += frame->hd.length;
    }
    if (!bed->silent && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 &&
        (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA)) {
        reply(bed, frame->hd.stream_id);
    }
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *user)
{
    struct bed *bed = user;
    (void)session;
    (void)frame;
    (void)flags;
    if (name_size == 5 && memcmp(name, ":path", 5) == 0) {
        (void)snprintf(bed->path, sizeof(bed->path), "%.*s", (int)value_size, (const char *)value);
    } else if (name_size == 9 && memcmp(name, "x-api-key", 9) == 0) {
        (void)snprintf(bed->key, sizeof(bed->key), "%.*s", (int)value_size, (const char *)value);
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t size, void *user)
{
    struct bed *bed = user;
    (void)session;
    (void)flags;
    (void)stream;
    for (size_t i = 0; i < size; i++) {
        bed->body_sum += data[i];
    }
    bed->body_bytes += size;
    return 0;
}

static void start_server(struct bed *bed, const nghttp2_settings_entry *settings, size_t count)
{
    nghttp2_session_callbacks *callbacks = NULL;
    assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    assert_int_equal(nghttp2_session_server_new(&bed->server, callbacks, bed), 0);
    nghttp2_session_callbacks_del(callbacks);
    assert_int_equal(nghttp2_submit_settings(bed->server, 0, settings, count), 0);
}

/* ---- The client ------------------------------------------------------------------------------ */

static void on_answer(void *user, uint32_t tag, const struct http2_mux_answer *answer)
{
    struct bed *bed = user;
    assert_true(tag < CALLS_MAX);
    bed->answers[tag]++;
    bed->answer_count++;
    bed->http_seen = answer->http;
    bed->grpc_seen = answer->grpc;
    bed->reset_seen = answer->reset;
    bed->code_seen = answer->code;
    (void)snprintf(bed->text_seen, sizeof(bed->text_seen), "%.*s", (int)answer->text.size,
                   answer->text.data == NULL ? "" : answer->text.data);
}

static void make_head(struct bed *bed, const char *key, struct http2_head *out)
{
    const struct http2_client_field fields[] = {
        { BYTES_LITERAL(":method"), BYTES_LITERAL("POST") },
        { BYTES_LITERAL(":scheme"), BYTES_LITERAL("http") },
        { BYTES_LITERAL(":path"), BYTES_LITERAL("/service/Method") },
        { BYTES_LITERAL(":authority"), BYTES_LITERAL("localhost:1") },
        { BYTES_LITERAL("content-type"), BYTES_LITERAL("application/grpc") },
        { BYTES_LITERAL("x-api-key"), bytes_of(key) },
    };
    assert_int_equal(http2_plan_head(bed->plan, fields, 6, out, NULL), WEIR_OK);
}

/* Both ends talk until neither has anything to say. */
static enum weir_status talk(struct bed *bed)
{
    for (;;) {
        struct bytes pieces[HTTP2_OUT_PIECES_MAX];
        const uint32_t count = http2_mux_output(bed->mux, pieces);
        size_t sent = 0;
        for (uint32_t i = 0; i < count; i++) {
            const ssize_t used = nghttp2_session_mem_recv(
                bed->server, (const uint8_t *)pieces[i].data, pieces[i].size);
            assert_int_equal(used, pieces[i].size);
            sent += pieces[i].size;
        }
        http2_mux_sent(bed->mux,
                       sent / 2); /* In two steps, the first one to the middle of a piece. */
        http2_mux_sent(bed->mux, sent - sent / 2);
        const uint8_t *data = NULL;
        const ssize_t size = nghttp2_session_mem_send(bed->server, &data);
        assert_true(size >= 0);
        if (size == 0 && count == 0) {
            return WEIR_OK;
        }
        if (size > 0) {
            /* In two pieces, so that frames are cut. */
            const size_t cut = (size_t)size / 2;
            enum weir_status status =
                http2_mux_input(bed->mux, (struct bytes){ (const char *)data, cut }, &bed->err);
            if (status == WEIR_OK) {
                status = http2_mux_input(
                    bed->mux, (struct bytes){ (const char *)data + cut, (size_t)size - cut },
                    &bed->err);
            }
            if (status != WEIR_OK) {
                return status;
            }
        }
    }
}

static void start(struct bed *bed, uint32_t streams, const nghttp2_settings_entry *settings,
                  size_t count)
{
    *bed = (struct bed){ .grpc = "0", .text = "" };
    bed->plan = http2_plan_create();
    assert_non_null(bed->plan);
    make_head(bed, "alice", &bed->head);
    const struct http2_mux_options options = { .streams_max = streams,
                                               .answered = on_answer,
                                               .user = bed };
    bed->mux = http2_mux_create(bed->plan, &options);
    assert_non_null(bed->mux);
    assert_int_equal(http2_mux_room(bed->mux), 0); /* Not before the server's settings. */
    start_server(bed, settings, count);
    assert_int_equal(talk(bed), WEIR_OK);
    assert_true(http2_mux_is_ready(bed->mux));
}

static void stop(struct bed *bed)
{
    http2_mux_destroy(bed->mux);
    http2_plan_destroy(bed->plan);
    nghttp2_session_del(bed->server);
}

static uint32_t begin(struct bed *bed, uint32_t tag, size_t size)
{
    static char body[300000];
    for (size_t i = 0; i < sizeof(body); i++) {
        body[i] = (char)(i % 100);
    }
    assert_true(size <= sizeof(body) && http2_mux_room(bed->mux) > 0);
    return http2_mux_begin(bed->mux, &bed->head, (struct bytes){ body, size }, tag);
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static struct bed bed;

static void test_every_call_is_answered_once(void **state)
{
    (void)state;
    start(&bed, 100, NULL, 0);
    assert_int_equal(http2_mux_room(bed.mux), 100);
    for (uint32_t tag = 0; tag < CALLS_MAX;) {
        while (tag < CALLS_MAX && http2_mux_room(bed.mux) > 0) {
            (void)begin(&bed, tag++, 50);
        }
        assert_int_equal(talk(&bed), WEIR_OK);
    }
    assert_int_equal(bed.requests, CALLS_MAX);
    assert_int_equal(bed.body_bytes, CALLS_MAX * 50);
    assert_int_equal(http2_mux_active(bed.mux), 0);
    for (uint32_t tag = 0; tag < CALLS_MAX; tag++) {
        assert_int_equal(bed.answers[tag], 1);
    }
    assert_int_equal(bed.http_seen, 200);
    assert_int_equal(bed.grpc_seen, 0);
    assert_string_equal(bed.path, "/service/Method");
    assert_string_equal(bed.key, "alice");
    assert_true(bed.head_bytes < CALLS_MAX * 7); /* Six fields by number, but for the first. */
    stop(&bed);
}

static void test_heads_share_the_table(void **state)
{
    struct http2_head bob;
    (void)state;
    start(&bed, 10, NULL, 0);
    make_head(&bed, "bob", &bob);
    (void)begin(&bed, 0, 1);
    (void)http2_mux_begin(bed.mux, &bob, BYTES_LITERAL("x"), 1);
    assert_int_equal(talk(&bed), WEIR_OK);
    assert_string_equal(bed.key, "bob");
    (void)begin(&bed, 2, 1);
    assert_int_equal(talk(&bed), WEIR_OK);
    assert_string_equal(bed.key, "alice");
    assert_string_equal(bed.path, "/service/Method");
    stop(&bed);
}

static void test_a_server_without_a_table(void **state)
{
    const nghttp2_settings_entry settings[] = { { NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, 0 },
                                                { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 3 } };
    (void)state;
    start(&bed, 10, settings, 2);
    assert_int_equal(http2_mux_room(bed.mux), 3);
    for (uint32_t tag = 0; tag < 9; tag++) {
        (void)begin(&bed, tag, 10);
        assert_int_equal(talk(&bed), WEIR_OK);
        assert_string_equal(bed.key, "alice");
    }
    assert_int_equal(bed.answer_count, 9);
    stop(&bed);
}

static void test_large_bodies_wait_for_the_servers_windows(void **state)
{
    (void)state;
    start(&bed, 10, NULL, 0); /* 65,535 bytes, for each and for all. */
    for (uint32_t tag = 0; tag < 5; tag++) {
        (void)begin(&bed, tag, 300000);
    }
    assert_int_equal(talk(&bed), WEIR_OK);
    assert_int_equal(bed.body_bytes, 5 * 300000);
    assert_int_equal(bed.body_sum, 5 * 3000 * 4950);
    assert_int_equal(bed.answer_count, 5);
    stop(&bed);
}

static void test_refusals_have_their_code_and_text(void **state)
{
    (void)state;
    start(&bed, 10, NULL, 0);
    bed.grpc = "14";
    bed.text = "no%20room%20left";
    (void)begin(&bed, 0, 10);
    assert_int_equal(talk(&bed), WEIR_OK);
    assert_int_equal(bed.grpc_seen, 14);
    assert_string_equal(bed.text_seen, "no%20room%20left");
    bed.text = "another";
    (void)begin(&bed, 1, 10);
    assert_int_equal(talk(&bed), WEIR_OK);
    assert_string_equal(bed.text_seen, "another");
    bed.hollow = true;
    bed.grpc = "5";
    (void)begin(&bed, 2, 10);
    assert_int_equal(talk(&bed), WEIR_OK);
    assert_int_equal(bed.grpc_seen, 5);
    stop(&bed);
}

static void test_canceled_and_reset_calls(void **state)
{
    (void)state;
    start(&bed, 10, NULL, 0);
    bed.silent = true;
    const uint32_t first = begin(&bed, 0, 10);
    const uint32_t second = begin(&bed, 1, 200000);
    assert_int_equal(talk(&bed), WEIR_OK);
    http2_mux_cancel(bed.mux, second); /* With its body half sent. */
    assert_int_equal(nghttp2_submit_rst_stream(bed.server, 0, (int32_t)first, 7), 0);
    assert_int_equal(talk(&bed), WEIR_OK);
    assert_int_equal(bed.answer_count, 1);
    assert_true(bed.reset_seen);
    assert_int_equal(bed.code_seen, 7);
    assert_int_equal(http2_mux_active(bed.mux), 0);
    bed.silent = false;
    (void)begin(&bed, 2, 10);
    assert_int_equal(talk(&bed), WEIR_OK);
    assert_int_equal(bed.answers[2], 1);
    stop(&bed);
}

static void test_a_server_that_says_goodbye(void **state)
{
    (void)state;
    start(&bed, 10, NULL, 0);
    bed.silent = true;
    (void)begin(&bed, 0, 10);
    assert_int_equal(talk(&bed), WEIR_OK);
    (void)begin(&bed, 1, 10);
    assert_int_equal(nghttp2_submit_goaway(bed.server, 0, 1, 0, NULL, 0), 0);
    const uint8_t *data = NULL;
    const ssize_t size = nghttp2_session_mem_send(bed.server, &data);
    assert_int_equal(
        http2_mux_input(bed.mux, (struct bytes){ (const char *)data, (size_t)size }, &bed.err),
        WEIR_OK);
    assert_true(http2_mux_is_closing(bed.mux));
    assert_int_equal(http2_mux_room(bed.mux), 0);
    assert_int_equal(bed.answers[1], 1); /* Beyond the last one that it takes. */
    assert_true(bed.reset_seen);
    uint32_t at = 0;
    uint32_t tag = 99;
    assert_true(http2_mux_next(bed.mux, &at, &tag));
    assert_int_equal(tag, 0);
    assert_false(http2_mux_next(bed.mux, &at, &tag));
    stop(&bed);
}

static void test_what_is_no_http2(void **state)
{
    (void)state;
    start(&bed, 10, NULL, 0);
    http2_mux_destroy(bed.mux);
    const struct http2_mux_options options = { .streams_max = 1,
                                               .answered = on_answer,
                                               .user = &bed };
    bed.mux = http2_mux_create(bed.plan, &options);
    assert_non_null(bed.mux);
    assert_int_equal(
        http2_mux_input(bed.mux, BYTES_LITERAL("HTTP/1.1 400 Bad Request\r\n"), &bed.err),
        WEIR_EIO);
    assert_non_null(strstr(bed.err.text, "does not speak HTTP/2"));
    stop(&bed);
}

static void test_memory_runs_out(void **state)
{
    (void)state;
    const struct http2_mux_options options = { .streams_max = 10, .answered = on_answer };
    uint64_t made = 0;
    for (uint64_t nth = 1; made + 1 >= nth; nth++) {
        (void)mem_fault_arm(nth);
        struct http2_plan *plan = http2_plan_create();
        struct http2_mux *mux = plan == NULL ? NULL : http2_mux_create(plan, &options);
        struct http2_client *client = http2_client_create(1000);
        made = mem_fault_arm(0);
        assert_true((mux != NULL && client != NULL) || made >= nth);
        http2_client_destroy(client);
        http2_mux_destroy(mux);
        http2_plan_destroy(plan);
    }
    start(&bed, 10, NULL, 0);
    (void)begin(&bed, 0, 50);
    assert_int_equal(talk(&bed), WEIR_OK);
    assert_int_equal(bed.answer_count, 1);
    stop(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_call_is_answered_once),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_heads_share_the_table),
        cmocka_unit_test(test_a_server_without_a_table),
        cmocka_unit_test(test_large_bodies_wait_for_the_servers_windows),
        cmocka_unit_test(test_refusals_have_their_code_and_text),
        cmocka_unit_test(test_canceled_and_reset_calls),
        cmocka_unit_test(test_a_server_that_says_goodbye),
        cmocka_unit_test(test_what_is_no_http2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
