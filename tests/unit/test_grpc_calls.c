/*
 * Calls of gRPC from socket to socket, while memory runs out anywhere on the way.
 *
 * What a client sends is written down beforehand, so that only the server's memory fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api_bed.h"
#include "bed.h"
#include "health.pb-c.h"
#include "kserve.pb-c.h"
#include "model_bed.h"
#include "net/encoding.h"
#include "net/http2_client.h"
#include "reflection_v1.pb-c.h"
#include "util/mem.h"

#define FAULTS_MAX 80
#define SERVICE "/inference.GRPCInferenceService/"

static struct model_bed models;
static struct bed client; /* For its port. */
static struct api_bed server;

static int set_up(void **state)
{
    (void)state;
    model_bed_init(&models);
    model_bed_sim(&models, "echo", 1, "");
    api_bed_start(&server, &models);
    client.port = server.port;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    api_bed_stop(&server);
    model_bed_finish(&models); /* The engine asserts that every block came back. */
    return 0;
}

/* --- Requests --- */

struct ask {
    const char *path;
    struct http2_client *client;
    struct buffer message; /* With its prefix. */
    struct buffer bytes;   /* All that the client sends. */
    bool streams;          /* It has no end: the first message will do. */
};

static void begin_ask(struct ask *ask, const char *path, const ProtobufCMessage *message, bool gzip)
{
    char prefix[5] = { (char)gzip };
    struct buffer packed;
    ask->path = path;
    ask->streams = false;
    buffer_init(&packed, SIZE_MAX);
    buffer_init(&ask->message, SIZE_MAX);
    buffer_init(&ask->bytes, SIZE_MAX);
    assert_true(buffer_reserve(&packed, protobuf_c_message_get_packed_size(message) + 1));
    packed.size = protobuf_c_message_pack(message, (uint8_t *)packed.data);
    if (gzip) {
        struct buffer small;
        const struct bytes piece = { packed.data, packed.size };
        buffer_init(&small, SIZE_MAX);
        assert_int_equal(encoding_deflate(ENCODING_GZIP, &piece, 1, &small, NULL), WEIR_OK);
        buffer_finish(&packed);
        packed = small;
    }
    for (unsigned i = 0; i < 4; i++) {
        prefix[1 + i] = (char)(packed.size >> (24 - 8 * i));
    }
    buffer_append(&ask->message, prefix, sizeof prefix);
    buffer_append(&ask->message, packed.data, packed.size);
    buffer_finish(&packed);
}

/* What the client sends for it; it fits into the first windows. */
static void write_ask(struct ask *ask, bool gzip)
{
    const struct http2_client_field fields[] = {
        { BYTES_LITERAL("content-type"), BYTES_LITERAL("application/grpc") },
        { BYTES_LITERAL("te"), BYTES_LITERAL("trailers") },
        { BYTES_LITERAL("grpc-encoding"), BYTES_LITERAL("gzip") },
    };
    const struct bytes piece = { ask->message.data, ask->message.size };
    const struct http2_client_request request = {
        .authority = BYTES_LITERAL("localhost"),
        .path = bytes_of(ask->path),
        .fields = fields,
        .field_count = gzip ? 3 : 2,
        .pieces = &piece,
        .piece_count = 1,
    };
    struct bytes out = { NULL, 0 };
    ask->client = http2_client_create(1 << 20);
    assert_non_null(ask->client);
    assert_int_equal(http2_client_begin(ask->client, &request, NULL), WEIR_OK);
    do {
        assert_int_equal(http2_client_output(ask->client, &out, NULL), WEIR_OK);
        buffer_append(&ask->bytes, out.data, out.size);
    } while (out.size > 0);
}

static void end_ask(struct ask *ask)
{
    http2_client_destroy(ask->client);
    buffer_finish(&ask->message);
    buffer_finish(&ask->bytes);
}

/* --- Answers --- */

#define ANSWER_BYTES_MAX 262144

/* The latest.  Not a buffer: its memory would fail, too. */
static char answer[ANSWER_BYTES_MAX];
static size_t answer_size;

/* True when a frame of the answer ends stream 1, or the connection; `streams`: or is a message. */
static bool has_ended(bool streams)
{
    enum { DATA, HEADERS, RST_STREAM = 3, GOAWAY = 7, END_STREAM = 1 };
    for (size_t at = 0; at + 9 <= answer_size;) {
        const uint8_t *frame = (const uint8_t *)answer + at;
        const uint8_t type = frame[3];
        at += 9 + ((size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2]);
        const bool last = (frame[4] & END_STREAM) != 0 && (type == DATA || type == HEADERS);
        if (at <= answer_size &&
            (type == GOAWAY ||
             (frame[8] == 1 && (last || type == RST_STREAM || (streams && type == DATA))))) {
            return true;
        }
    }
    return false;
}

/* Sends it, and reads until there is an end of one kind or another; false when none comes. */
static bool run(const struct ask *ask)
{
    const int fd = client_connect(&client);
    ssize_t size;
    answer_size = 0;
    client_send(fd, ask->bytes.data, ask->bytes.size);
    do {
        size = TEMP_FAILURE_RETRY(recv(fd, answer + answer_size, sizeof answer - answer_size, 0));
        answer_size += size > 0 ? (size_t)size : 0;
    } while (size > 0 && !has_ended(ask->streams));
    const bool closed = size == 0 || (size < 0 && errno == ECONNRESET);
    close(fd);
    return closed || has_ended(ask->streams);
}

/* Without faults: the call succeeds. */
static void expect_success(struct ask *ask)
{
    assert_true(run(ask));
    const struct bytes bytes = { answer, answer_size };
    assert_int_equal(http2_client_input(ask->client, bytes, NULL), WEIR_OK);
    assert_true(http2_client_is_done(ask->client));
    const struct bytes status = http2_client_field(ask->client, "grpc-status");
    if (!bytes_equal(status, BYTES_LITERAL("0"))) {
        const struct bytes text = http2_client_field(ask->client, "grpc-message");
        fail_msg("%s: grpc-status %.*s: %.*s", ask->path, (int)status.size, status.data,
                 (int)text.size, text.data);
    }
}

static void try_everywhere(const char *path, const ProtobufCMessage *message, bool gzip)
{
    for (uint64_t nth = 1; nth <= FAULTS_MAX; nth++) {
        struct ask ask;
        begin_ask(&ask, path, message, gzip);
        write_ask(&ask, gzip);
        (void)mem_fault_arm(nth);
        const bool ended = run(&ask);
        (void)mem_fault_arm(0);
        if (!ended) {
            fail_msg("%s: no end after a fault at allocation %d", path, (int)nth);
        }
        end_ask(&ask);
    }
    struct ask ask;
    begin_ask(&ask, path, message, gzip);
    write_ask(&ask, gzip);
    expect_success(&ask);
    end_ask(&ask);
}

/* The same for a call that ends with another status. */
static void try_refused(const char *path, const ProtobufCMessage *message, const char *usual)
{
    for (uint64_t nth = 0; nth <= FAULTS_MAX; nth++) {
        struct ask ask;
        begin_ask(&ask, path, message, false);
        write_ask(&ask, false);
        (void)mem_fault_arm(nth);
        assert_true(run(&ask));
        (void)mem_fault_arm(0);
        const struct bytes bytes = { answer, answer_size };
        const bool read = http2_client_input(ask.client, bytes, NULL) == WEIR_OK;
        const struct bytes status = http2_client_field(ask.client, "grpc-status");
        assert_true(nth > 0 || (read && bytes_equal(status, bytes_of(usual))));
        assert_false(bytes_equal(status, BYTES_LITERAL("0")));
        end_ask(&ask);
    }
}

static void test_management(void **state)
{
    (void)state;
    Inference__ServerLiveRequest live = INFERENCE__SERVER_LIVE_REQUEST__INIT;
    Inference__ModelReadyRequest ready = INFERENCE__MODEL_READY_REQUEST__INIT;
    Inference__ModelMetadataRequest metadata = INFERENCE__MODEL_METADATA_REQUEST__INIT;
    Inference__ModelConfigRequest config = INFERENCE__MODEL_CONFIG_REQUEST__INIT;
    Inference__ModelStatisticsRequest statistics = INFERENCE__MODEL_STATISTICS_REQUEST__INIT;
    Inference__RepositoryIndexRequest index = INFERENCE__REPOSITORY_INDEX_REQUEST__INIT;
    Inference__LogSettingsRequest log = INFERENCE__LOG_SETTINGS_REQUEST__INIT;
    Inference__RepositoryModelLoadRequest load = INFERENCE__REPOSITORY_MODEL_LOAD_REQUEST__INIT;
    char echo[] = "echo";
    ready.name = metadata.name = config.name = statistics.name = load.model_name = echo;
    try_everywhere(SERVICE "ServerLive", &live.base, false);
    try_everywhere(SERVICE "ModelReady", &ready.base, true);
    try_everywhere(SERVICE "ModelMetadata", &metadata.base, false);
    try_everywhere(SERVICE "ModelConfig", &config.base, false);
    try_everywhere(SERVICE "ModelStatistics", &statistics.base, false);
    try_everywhere(SERVICE "RepositoryIndex", &index.base, false);
    try_everywhere(SERVICE "LogSettings", &log.base, false);
    try_everywhere(SERVICE "RepositoryModelLoad", &load.base, false);
}

static void test_health_and_reflection(void **state)
{
    (void)state;
    Grpc__Health__V1__HealthCheckRequest check = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    Grpc__Health__V1__HealthListRequest list = GRPC__HEALTH__V1__HEALTH_LIST_REQUEST__INIT;
    Grpc__Reflection__V1__ServerReflectionRequest reflect =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    char name[] = "kserve.proto";
    try_everywhere("/grpc.health.v1.Health/Check", &check.base, false);
    try_everywhere("/grpc.health.v1.Health/List", &list.base, false);
    reflect.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME;
    reflect.file_by_filename = name;
    try_everywhere("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &reflect.base,
                   false);
    reflect.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES;
    try_everywhere("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &reflect.base,
                   false);
}

/* A server's first call finds nothing that others have left for it. */
static void test_a_first_call(void **state)
{
    (void)state;
    Inference__ModelInferRequest infer = INFERENCE__MODEL_INFER_REQUEST__INIT;
    Inference__ServerLiveRequest live = INFERENCE__SERVER_LIVE_REQUEST__INIT;
    char echo[] = "echo";
    infer.model_name = echo; /* Without its input: it is refused. */
    uint64_t made = 0;
    for (uint64_t nth = 1; made + 1 >= nth; nth++) {
        struct ask ask;
        assert_int_equal(tear_down(state), 0);
        assert_int_equal(set_up(state), 0);
        begin_ask(&ask, SERVICE "ModelInfer", &infer.base, false);
        write_ask(&ask, false);
        (void)mem_fault_arm(nth);
        assert_true(run(&ask));
        made = mem_fault_arm(0);
        end_ask(&ask);
        begin_ask(&ask, SERVICE "ServerLive", &live.base, false);
        write_ask(&ask, false);
        expect_success(&ask);
        end_ask(&ask);
    }
}

/* A stream that goes on: what comes first tells. */
static void test_watching(void **state)
{
    (void)state;
    Grpc__Health__V1__HealthCheckRequest check = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    uint64_t made = 0;
    for (uint64_t nth = 1; made + 1 >= nth; nth++) {
        struct ask ask;
        begin_ask(&ask, "/grpc.health.v1.Health/Watch", &check.base, false);
        write_ask(&ask, false);
        ask.streams = true;
        (void)mem_fault_arm(nth);
        assert_true(run(&ask));
        made = mem_fault_arm(0);
        assert_true(run(&ask));
        const struct bytes bytes = { answer, answer_size };
        assert_int_equal(http2_client_input(ask.client, bytes, NULL), WEIR_OK);
        assert_false(http2_client_is_done(ask.client));
        assert_int_equal(http2_client_body(ask.client).size, 7); /* 1: SERVING. */
        end_ask(&ask);
    }
}

static void test_inference(void **state)
{
    (void)state;
    Inference__ModelInferRequest request = INFERENCE__MODEL_INFER_REQUEST__INIT;
    Inference__ModelInferRequest__InferInputTensor input =
        INFERENCE__MODEL_INFER_REQUEST__INFER_INPUT_TENSOR__INIT;
    Inference__ModelInferRequest__InferInputTensor *inputs[] = { &input };
    char echo[] = "echo";
    char x[] = "x";
    char fp32[] = "FP32";
    int64_t shape[] = { 8, 16 };
    uint8_t values[8 * 16 * 4];
    for (size_t i = 0; i < sizeof values; i++) {
        values[i] = (uint8_t)(i * 73 % 61); /* More than a kilobyte compressed is a worker's. */
    }
    ProtobufCBinaryData raw = { sizeof values, values };
    input.name = x;
    input.datatype = fp32;
    input.n_shape = 2;
    input.shape = shape;
    request.model_name = echo;
    request.n_inputs = 1;
    request.inputs = inputs;
    request.n_raw_input_contents = 1;
    request.raw_input_contents = &raw;
    try_everywhere(SERVICE "ModelInfer", &request.base, false);
    try_everywhere(SERVICE "ModelInfer", &request.base, true);
    try_everywhere(SERVICE "ModelStreamInfer", &request.base, false);
    char unknown[] = "unknown";
    request.model_name = unknown; /* Which the stream's answer says. */
    try_everywhere(SERVICE "ModelStreamInfer", &request.base, false);
    try_refused(SERVICE "ModelInfer", &request.base, "5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_management),   cmocka_unit_test(test_health_and_reflection),
        cmocka_unit_test(test_a_first_call), cmocka_unit_test(test_watching),
        cmocka_unit_test(test_inference),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
