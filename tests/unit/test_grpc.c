/* gRPC's framing and statuses, over an exchange without a connection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "grpc_bed.h"
#include "util/mem.h"

#define MESSAGE_BYTES_MAX (32 * 1024 * 1024)

static struct grpc_bed bed;

static void open_call(bool unary, const char *name, const char *value)
{
    const char *const fields[] = { name, value, NULL };
    grpc_bed_init(&bed, unary, MESSAGE_BYTES_MAX, name == NULL ? NULL : fields);
}

static void data(const void *bytes, size_t size)
{
    grpc_bed_data(&bed, (struct bytes){ bytes, size });
}

#define DATA(text) data(text, sizeof(text) - 1)

static void assert_bytes(struct bytes found, const char *text, size_t size)
{
    assert_int_equal(found.size, size);
    assert_memory_equal(found.data, text, size);
}

static void assert_heard(const char *text)
{
    assert_bytes((struct bytes){ bed.heard.data, bed.heard.size }, text, strlen(text));
}

static void assert_status(const char *name, const char *text)
{
    const struct bytes found = grpc_bed_status(&bed, name);
    assert_bytes(found, text, strlen(text));
}

static void test_types(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is;
    } cases[] = {
        { "application/grpc", true },
        { "application/grpc+proto", true },
        { "application/grpc;charset=u", true },
        { "Application/gRPC", true },
        { "application/grpc-web", false },
        { "application/grpcx", false },
        { "application/grp", false },
        { "application/json", false },
        { "", false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(grpc_is_type(bytes_of(cases[i].text)), cases[i].is);
    }
}

static void test_messages_in_pieces(void **state)
{
    (void)state;
    static const char in[] = "\0\0\0\0\3abc\0\0\0\0\0\0\0\0\0\1z";
    const size_t size = sizeof in - 1;
    for (size_t piece = 1; piece <= size; piece++) {
        open_call(false, NULL, NULL);
        for (size_t at = 0; at < size; at += piece) {
            data(in + at, size - at < piece ? size - at : piece);
        }
        assert_heard("<3>abc<0><1>z");
        assert_int_equal(bed.consumed_bytes, size);
        assert_int_equal(bed.call->received_bytes, size);
        grpc_bed_end(&bed);
        assert_heard("<3>abc<0><1>z.");
        assert_int_equal(bed.messages, 3);
        grpc_finish(bed.call, WEIR_OK, NULL);
        assert_status("grpc-status", "0");
        grpc_bed_finish(&bed);
    }
}

static void test_an_answer_is_message_and_trailers(void **state)
{
    (void)state;
    const struct bytes pieces[] = { BYTES_LITERAL("ab"), BYTES_LITERAL(""), BYTES_LITERAL("c") };
    open_call(true, NULL, NULL);
    DATA("\0\0\0\0\0");
    assert_heard("<0>");
    grpc_bed_end(&bed);
    assert_heard("<0>.");
    grpc_send(bed.call, pieces, 3);
    grpc_finish(bed.call, WEIR_OK, NULL);
    const struct bytes body = grpc_bed_body(&bed);
    assert_bytes(body, "\0\0\0\0\3abc", 8);
    free((void *)(uintptr_t)body.data);
    assert_int_equal(bed.x->status, 200);
    assert_string_equal(stream_of(bed.x)->content_type, "application/grpc");
    assert_non_null(stream_of(bed.x)->trailers);
    assert_status("grpc-status", "0");
    assert_status("grpc-message", "");
    assert_true(bed.over);
    grpc_bed_finish(&bed);
}

static void test_an_end_without_message_is_a_header_alone(void **state)
{
    (void)state;
    open_call(false, NULL, NULL);
    grpc_finish(bed.call, WEIR_ENOENT, "no 'x'");
    assert_int_equal(bed.x->status, 200);
    assert_null(stream_of(bed.x)->trailers);
    assert_null(stream_of(bed.x)->pieces);
    assert_status("grpc-status", "5");
    assert_status("grpc-message", "no 'x'");
    grpc_finish(bed.call, WEIR_OK, NULL); /* Only the first counts. */
    assert_status("grpc-status", "5");
    DATA("\0\0\0\0\1x");
    assert_heard("");
    grpc_bed_finish(&bed);
}

static void test_every_status_has_its_code(void **state)
{
    (void)state;
    for (int i = 0; i < WEIR_STATUS_COUNT; i++) {
        char code[8];
        const enum weir_status status = (enum weir_status)i;
        const int http = weir_status_http(status);
        const bool later = weir_status_retry(status) && (http == 503 || http == 429);
        open_call(true, NULL, NULL);
        bed.call->pushback_ms = 2500;
        grpc_finish(bed.call, status, NULL);
        (void)snprintf(code, sizeof code, "%d", weir_status_grpc(status));
        assert_status("grpc-status", code);
        assert_status("grpc-message", status == WEIR_OK ? "" : weir_status_text(status));
        assert_status("grpc-retry-pushback-ms", later ? "2500" : "");
        grpc_bed_finish(&bed);
    }
}

struct fault {
    const char *in;
    size_t size;
    bool unary;
    const char *code;
    const char *words;
};

#define FAULT(in, unary, code, words)          \
    {                                          \
        in, sizeof(in) - 1, unary, code, words \
    }

static void test_faults_in_the_framing(void **state)
{
    (void)state;
    static const struct fault faults[] = {
        FAULT("\2\0\0\0\0", false, "3", "compressed flag 2, expected 0 or 1"),
        FAULT("\xff\0\0\0\0", true, "3", "compressed flag 255"),
        FAULT("\1\0\0\0\0", false, "3", "grpc-encoding was not given"),
        FAULT("\0\xff\xff\xff\xff", false, "8", "larger than max (4294967295 vs. 33554432)"),
        FAULT("\0\2\0\0\1", true, "8", "larger than max (33554433 vs. 33554432)"),
        FAULT("\0\0\0\0", false, "3", "ended within a message"),
        FAULT("\0\0\0\0\2a", true, "3", "ended within a message"),
        FAULT("", true, "3", "none came"),
        FAULT("\0\0\0\0\0\0\0\0\0\0", true, "3", "a second one came"),
    };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        open_call(faults[i].unary, NULL, NULL);
        data(faults[i].in, faults[i].size);
        grpc_bed_end(&bed);
        assert_true(bed.over);
        assert_false(bed.half_closed);
        assert_status("grpc-status", faults[i].code);
        const struct bytes text = grpc_bed_status(&bed, "grpc-message");
        assert_non_null(strstr(text.data, faults[i].words));
        grpc_bed_finish(&bed);
    }
}

static void test_the_largest_message_is_allowed(void **state)
{
    (void)state;
    open_call(true, NULL, NULL);
    DATA("\0\2\0\0\0");
    assert_false(bed.over);
    assert_heard("<33554432>");
    grpc_bed_finish(&bed);
}

static void test_an_encoding_that_is_not_known(void **state)
{
    (void)state;
    open_call(true, "grpc-encoding", "snappy");
    DATA("\0\0\0\0\1x"); /* Not every message need be compressed. */
    assert_heard("<1>x");
    grpc_bed_finish(&bed);
    open_call(true, "grpc-encoding", "snappy");
    DATA("\1\0\0\0\1x");
    assert_status("grpc-status", "12");
    assert_status("grpc-accept-encoding", "identity,deflate,gzip");
    grpc_bed_finish(&bed);
}

static void test_time_outs(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ns; /* 0: refused. */
    } cases[] = {
        { "1H", 3600 * NS_PER_S },
        { "2M", 120 * NS_PER_S },
        { "10S", 10 * NS_PER_S },
        { "60000m", 60 * NS_PER_S },
        { "999944u", 999944000 },
        { "00000007n", 7 },
        { "99999999S", 99999999 * NS_PER_S },
        { "100000000S", 0 },
        { "", 0 },
        { "S", 0 },
        { "10", 0 },
        { "1s", 0 },
        { "-1S", 0 },
        { "1.5S", 0 },
        { " 1S", 0 },
        { "1 S", 0 },
        { "1SS", 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        open_call(true, "grpc-timeout", cases[i].text);
        if (cases[i].ns > 0) {
            assert_non_null(bed.call);
            assert_int_equal(bed.call->deadline_ns, bed.x->begun_ns + cases[i].ns);
        } else {
            assert_null(bed.call);
            assert_status("grpc-status", "3");
        }
        grpc_bed_finish(&bed);
    }
    open_call(true, NULL, NULL);
    assert_int_equal(bed.call->deadline_ns, CLOCK_NEVER);
    grpc_bed_finish(&bed);
    /* 585 years and 25 minutes: not 25 minutes. */
    open_call(true, "grpc-timeout", "5124096H");
    assert_int_equal(bed.call->deadline_ns, CLOCK_NEVER);
    grpc_bed_finish(&bed);
}

/* `size` bytes that compress by about a quarter. */
static char *make_text(size_t size)
{
    char *text = mem_alloc(size);
    uint32_t seed = 7;
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525 + 1013904223;
        text[i] = (char)('!' + (seed >> 26));
    }
    return text;
}

/* Sends `text` compressed. */
static void send_compressed(enum encoding encoding, struct bytes text, size_t piece)
{
    struct buffer out;
    buffer_init(&out, SIZE_MAX);
    assert_int_equal(encoding_deflate(encoding, &text, 1, &out, NULL), WEIR_OK);
    const char prefix[] = { 1, (char)(out.size >> 24), (char)(out.size >> 16),
                            (char)(out.size >> 8), (char)out.size };
    data(prefix, sizeof prefix);
    for (size_t at = 0; at < out.size; at += piece) {
        data(out.data + at, out.size - at < piece ? out.size - at : piece);
    }
    buffer_finish(&out);
}

static void test_compressed_messages(void **state)
{
    (void)state;
    static const size_t sizes[] = { 0, 1, 700, 3000000 };
    char *text = make_text(3000000);
    for (enum encoding encoding = ENCODING_DEFLATE; encoding <= ENCODING_GZIP; encoding++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            char head[32];
            open_call(false, "grpc-encoding", encoding_text(encoding));
            send_compressed(encoding, (struct bytes){ text, sizes[i] }, 70000);
            DATA("\0\0\0\0\1z"); /* Waits behind the one that a worker has. */
            grpc_bed_settle(&bed);
            (void)snprintf(head, sizeof head, "<%zu>", sizes[i]);
            assert_int_equal(bed.heard.size, strlen(head) + sizes[i] + 4);
            assert_memory_equal(bed.heard.data, head, strlen(head));
            assert_memory_equal(bed.heard.data + strlen(head), text, sizes[i]);
            assert_memory_equal(bed.heard.data + strlen(head) + sizes[i], "<1>z", 4);
            assert_int_equal(bed.consumed_bytes, bed.call->received_bytes);
            grpc_bed_finish(&bed);
            assert_int_equal(body_bytes_of_all(), 0);
        }
    }
    mem_free(text);
}

static void test_compressed_messages_that_are_refused(void **state)
{
    (void)state;
    char *zeros = mem_try_zero(1, MESSAGE_BYTES_MAX + 1);
    assert_non_null(zeros);
    open_call(true, "grpc-encoding", "gzip");
    send_compressed(ENCODING_GZIP, (struct bytes){ zeros, MESSAGE_BYTES_MAX + 1 }, SIZE_MAX / 2);
    grpc_bed_settle(&bed);
    assert_status("grpc-status", "8");
    grpc_bed_finish(&bed);
    mem_free(zeros);
    open_call(true, "grpc-encoding", "gzip");
    DATA("\1\0\0\0\4junk");
    assert_status("grpc-status", "3");
    grpc_bed_finish(&bed);
    open_call(true, "grpc-encoding", "deflate");
    DATA("\1\0\0\0\0");
    assert_status("grpc-status", "3");
    grpc_bed_finish(&bed);
    assert_int_equal(body_bytes_of_all(), 0);
}

static void test_the_end_comes_while_a_worker_inflates(void **state)
{
    (void)state;
    char *text = make_text(1000000);
    open_call(true, "grpc-encoding", "gzip");
    send_compressed(ENCODING_GZIP, (struct bytes){ text, 1000000 }, SIZE_MAX / 2);
    grpc_finish(bed.call, WEIR_ETIMEOUT, "late");
    assert_false(bed.over); /* The worker still reads from it. */
    grpc_bed_settle(&bed);
    assert_true(bed.over);
    assert_heard("");
    assert_status("grpc-status", "4");
    assert_status("grpc-message", "late");
    grpc_bed_finish(&bed);

    open_call(true, "grpc-encoding", "gzip"); /* Without memory for what it is to be told. */
    send_compressed(ENCODING_GZIP, (struct bytes){ text, 1000000 }, SIZE_MAX / 2);
    (void)mem_fault_arm(1);
    grpc_finish(bed.call, WEIR_ETIMEOUT, "late");
    (void)mem_fault_arm(0);
    grpc_bed_settle(&bed);
    assert_true(bed.over);
    assert_status("grpc-status", "4");
    grpc_bed_finish(&bed);

    open_call(true, "grpc-encoding", "gzip");
    send_compressed(ENCODING_GZIP, (struct bytes){ text, 1000000 }, SIZE_MAX / 2);
    grpc_bed_end(&bed);
    grpc_bed_cancel(&bed);
    assert_false(bed.over);
    grpc_bed_settle(&bed);
    assert_true(bed.over && bed.canceled);
    assert_heard("");
    grpc_bed_finish(&bed);
    mem_free(text);
    assert_int_equal(body_bytes_of_all(), 0);
}

static void test_a_paused_call_holds_its_client_back(void **state)
{
    (void)state;
    open_call(false, NULL, NULL);
    bed.pause_every = 1;
    DATA("\0\0\0\0\1a\0\0\0\0\1b");
    assert_heard("<1>a");
    assert_int_equal(bed.consumed_bytes, 6);
    DATA("\0\0\0");
    grpc_bed_end(&bed);
    assert_heard("<1>a");
    assert_int_equal(bed.consumed_bytes, 6);
    grpc_resume(bed.call);
    assert_heard("<1>a<1>b");
    assert_int_equal(bed.consumed_bytes, 12);
    grpc_resume(bed.call); /* Into the rest, which is no message. */
    assert_true(bed.over);
    assert_status("grpc-status", "3");
    grpc_bed_finish(&bed);
    assert_int_equal(body_bytes_of_all(), 0);
}

/* A stream whose backlog is never empty keeps its backlog, not its past. */
static void test_what_was_read_is_let_go(void **state)
{
    (void)state;
    static const char message[1005] = { 0, 0, 0, 3, (char)232 };
    open_call(false, NULL, NULL);
    bed.pause_every = 1;
    data(message, sizeof message);
    data(message, sizeof message);
    for (int i = 0; i < 1000; i++) {
        data(message, 500);
        grpc_resume(bed.call);
        data(message + 500, sizeof message - 500);
        assert_true(body_bytes_of_all() > 0 && body_bytes_of_all() < 8 * sizeof message);
    }
    assert_int_equal(bed.messages, 1001);
    grpc_bed_finish(&bed);
    assert_int_equal(body_bytes_of_all(), 0);
}

static void test_texts_are_percent_encoded_and_cut(void **state)
{
    (void)state;
    open_call(true, NULL, NULL);
    grpc_finish(bed.call, WEIR_EINVAL, "50% of '\xc3\xa4'\n ~\x7f");
    assert_status("grpc-message", "50%25 of '%C3%A4'%0A ~%7F");
    grpc_bed_finish(&bed);
    char text[3 * GRPC_TEXT_BYTES_MAX];
    memset(text, '%', sizeof text);
    text[sizeof text - 1] = '\0';
    open_call(true, NULL, NULL);
    grpc_finish(bed.call, WEIR_EINVAL, text);
    const struct bytes found = grpc_bed_status(&bed, "grpc-message");
    assert_in_range(found.size, GRPC_TEXT_BYTES_MAX - 2, GRPC_TEXT_BYTES_MAX);
    assert_int_equal(found.size % 3, 0); /* No half of a "%25". */
    grpc_bed_finish(&bed);
}

static void test_nothing_is_said_to_a_client_that_left(void **state)
{
    (void)state;
    const struct bytes message = BYTES_LITERAL("x");
    open_call(false, NULL, NULL);
    grpc_send(bed.call, &message, 1);
    assert_int_equal(bed.x->unsent_bytes, 6);
    bed.x->canceled = true;
    grpc_send(bed.call, &message, 1);
    assert_int_equal(bed.x->unsent_bytes, 6);
    grpc_cancel(bed.call);
    assert_true(bed.canceled && bed.over);
    assert_null(stream_of(bed.x)->trailers);
    grpc_bed_finish(&bed);
}

/* The body time-out is for clients that owe bytes, not for streams that have nothing to say. */
static void test_bytes_are_expected_where_they_are_due(void **state)
{
    (void)state;
    open_call(false, NULL, NULL);
    assert_false(bed.x->expecting);
    DATA("\0\0");
    assert_true(bed.x->expecting);
    DATA("\0\0\1");
    assert_true(bed.x->expecting);
    DATA("x");
    assert_false(bed.x->expecting);
    grpc_bed_finish(&bed);
    open_call(true, NULL, NULL);
    assert_true(bed.x->expecting);
    DATA("\0\0\0\0\0");
    assert_true(bed.x->expecting); /* Its end is. */
    grpc_bed_end(&bed);
    assert_false(bed.x->expecting);
    grpc_bed_finish(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_messages_in_pieces),
        cmocka_unit_test(test_an_answer_is_message_and_trailers),
        cmocka_unit_test(test_an_end_without_message_is_a_header_alone),
        cmocka_unit_test(test_every_status_has_its_code),
        cmocka_unit_test(test_faults_in_the_framing),
        cmocka_unit_test(test_the_largest_message_is_allowed),
        cmocka_unit_test(test_an_encoding_that_is_not_known),
        cmocka_unit_test(test_time_outs),
        cmocka_unit_test(test_compressed_messages),
        cmocka_unit_test(test_compressed_messages_that_are_refused),
        cmocka_unit_test(test_the_end_comes_while_a_worker_inflates),
        cmocka_unit_test(test_a_paused_call_holds_its_client_back),
        cmocka_unit_test(test_what_was_read_is_let_go),
        cmocka_unit_test(test_texts_are_percent_encoded_and_cut),
        cmocka_unit_test(test_nothing_is_said_to_a_client_that_left),
        cmocka_unit_test(test_bytes_are_expected_where_they_are_due),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
