/*
 * Deadlines of requests that were read behind a wait of the sockets: counted from its beginning.
 *
 * The loop takes it that its sockets have waited for WAIT_NS before each turn.  Deadlines that it
 * has to be late for are shorter, the others are hours.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api_bed.h"
#include "bed.h"
#include "model_bed.h"
#include "net/http2_client.h"
#include "util/protowire.h"

#define WAIT_NS (5 * NS_PER_S)
#define LATE_US 2000000
#define EARLY_US 3600000000
#define MESSAGE_BYTES 256

static struct model_bed models;
static struct bed client; /* For its port. */
static struct api_bed server;
static struct bed_wait wait;

static void begin_wait(struct loop_mail *mail)
{
    (void)mail;
    bed_wait_add(&wait, &server.loop, WAIT_NS);
}

static int set_up(void **state)
{
    (void)state;
    static struct loop_mail mail = { .receive = begin_wait };
    model_bed_init(&models);
    model_bed_sim(&models, "echo", 1, "");
    model_bed_sim(&models, "hasty", 1, "");
    model_bed_put(&models, 0, "hasty/model.yaml", "backend: sim\ndeadline: 2s\n");
    api_bed_start(&server, &models);
    client.port = server.port;
    loop_send(&server.loop, &mail);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    api_bed_stop(&server);
    model_bed_finish(&models);
    return 0;
}

/* --- REST --- */

/* `timeout_us`: the parameter; 0: none. */
static int ask_rest(const char *model, const char *field, uint64_t timeout_us)
{
    char parameters[64] = "";
    char body[256];
    char request[512];
    struct response response;
    if (timeout_us > 0) {
        (void)snprintf(parameters, sizeof parameters, ",\"parameters\":{\"timeout\":%" PRIu64 "}",
                       timeout_us);
    }
    const int size =
        snprintf(body, sizeof body,
                 "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,16],\"data\":"
                 "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}]%s}",
                 parameters);
    (void)snprintf(request, sizeof request,
                   "POST /v2/models/%s/infer HTTP/1.1\r\nHost: localhost\r\n%s"
                   "Content-Length: %d\r\n\r\n%s",
                   model, field, size, body);
    const int fd = client_connect(&client);
    client_text(fd, request);
    client_receive(fd, false, &response);
    response_finish(&response);
    close(fd);
    return response.status;
}

static void test_over_rest(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) { /* In the second the head is remembered. */
        assert_int_equal(ask_rest("echo", "", 0), 200);
        assert_int_equal(ask_rest("echo", "Weir-Deadline-Ms: 2000\r\n", 0), 504);
        assert_int_equal(ask_rest("echo", "Weir-Deadline-Ms: 3600000\r\n", 0), 200);
        assert_int_equal(ask_rest("echo", "", LATE_US), 504);
        assert_int_equal(ask_rest("echo", "", EARLY_US), 200);
        assert_int_equal(ask_rest("hasty", "", 0), 504);
        assert_int_equal(ask_rest("hasty", "", EARLY_US), 200);
    }
}

/* --- gRPC --- */

/* Writes it into MESSAGE_BYTES, behind its prefix. */
static struct bytes write_message(uint8_t *at, const char *model, uint64_t timeout_us)
{
    static const char input[] = "\n\1x\22\4FP32\32\2\1\20"; /* name, datatype, shape */
    static const char values[64];
    struct protowire_out number = { 0 };
    struct protowire_out out = { .at = at + 5 };
    protowire_put_bytes(&out, 1, bytes_of(model));
    if (timeout_us > 0) {
        protowire_put_number(&number, 2, timeout_us);
        protowire_put_begin(&out, 4, 11 + number.size);
        protowire_put_bytes(&out, 1, BYTES_LITERAL("timeout"));
        protowire_put_begin(&out, 2, number.size);
        protowire_put_number(&out, 2, timeout_us);
    }
    protowire_put_bytes(&out, 5, (struct bytes){ input, sizeof input - 1 });
    protowire_put_bytes(&out, 7, (struct bytes){ values, sizeof values });
    assert_true(out.size < 256 && out.size + 5 <= MESSAGE_BYTES);
    memcpy(at, "\0\0\0\0", 4);
    at[4] = (uint8_t)out.size;
    return (struct bytes){ (const char *)at, out.size + 5 };
}

static void exchange(struct http2_client *h2, int fd)
{
    char data[4096];
    while (!http2_client_is_done(h2)) {
        struct bytes out;
        assert_int_equal(http2_client_output(h2, &out, NULL), WEIR_OK);
        if (out.size > 0) {
            client_send(fd, out.data, out.size);
            continue;
        }
        const ssize_t size = TEMP_FAILURE_RETRY(recv(fd, data, sizeof data, 0));
        assert_true(size > 0);
        const struct bytes bytes = { data, (size_t)size };
        assert_int_equal(http2_client_input(h2, bytes, NULL), WEIR_OK);
    }
}

static int ask_grpc(const char *model, const char *grpc_timeout, uint64_t timeout_us)
{
    uint8_t memory[MESSAGE_BYTES];
    const struct bytes message = write_message(memory, model, timeout_us);
    const struct http2_client_field fields[] = {
        { BYTES_LITERAL("content-type"), BYTES_LITERAL("application/grpc") },
        { BYTES_LITERAL("te"), BYTES_LITERAL("trailers") },
        { BYTES_LITERAL("grpc-timeout"), bytes_of(grpc_timeout) },
    };
    const struct http2_client_request request = {
        .authority = BYTES_LITERAL("localhost"),
        .path = BYTES_LITERAL("/inference.GRPCInferenceService/ModelInfer"),
        .fields = fields,
        .field_count = grpc_timeout[0] == '\0' ? 2 : 3,
        .pieces = &message,
        .piece_count = 1,
    };
    uint64_t status = 0;
    struct http2_client *h2 = http2_client_create(1 << 20);
    assert_non_null(h2);
    assert_int_equal(http2_client_begin(h2, &request, NULL), WEIR_OK);
    const int fd = client_connect(&client);
    exchange(h2, fd);
    close(fd);
    assert_true(bytes_to_u64(http2_client_field(h2, "grpc-status"), 16, &status));
    http2_client_destroy(h2);
    return (int)status;
}

static void test_over_grpc(void **state)
{
    (void)state;
    enum { OK = 0, DEADLINE_EXCEEDED = 4 };
    for (int round = 0; round < 2; round++) { /* In the second the message is remembered. */
        assert_int_equal(ask_grpc("echo", "", 0), OK);
        assert_int_equal(ask_grpc("echo", "2S", 0), DEADLINE_EXCEEDED);
        assert_int_equal(ask_grpc("echo", "1H", 0), OK);
        assert_int_equal(ask_grpc("echo", "", LATE_US), DEADLINE_EXCEEDED);
        assert_int_equal(ask_grpc("echo", "", EARLY_US), OK);
        assert_int_equal(ask_grpc("hasty", "", 0), DEADLINE_EXCEEDED);
        assert_int_equal(ask_grpc("hasty", "", EARLY_US), OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_over_rest),
        cmocka_unit_test(test_over_grpc),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
