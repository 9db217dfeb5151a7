/*
 * A whole server whose memory runs out anywhere: while it starts, answers, reads its settings again
 * or ends.
 *
 * Each allocation on the way of each operation fails in turn.  The client has the right answer, one
 * that says that memory is out, or a closed connection; the same operation succeeds right
 * afterwards; and nothing leaks, which the sanitizer's build sees.  Needs -Dalloc_fault=true; other
 * builds skip.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bed.h"
#include "built.h"
#include "faults.h"
#include "model_bed.h"
#include "net/encoding.h"
#include "server/newkey.h"
#include "server/processes.h"
#include "server/server.h"
#include "util/log.h"

#define NTH_MAX 2000
#define WORDS_MAX 32
#define SHM_BYTES 4096

static struct model_bed models; /* For its folders. */
static struct bed client;       /* For its port. */
static struct config config;
static struct server *server;
static char shm_name[64];
static char plugin_path[512];

/* --- A server ------------------------------------------------------------------------------- */

static void put_models(void)
{
    static const char *const files[][2] = {
        { "echo/1/", "" },
        { "echo/model.yaml", "backend: sim\nmax_batch_size: 8\n" },
        { "cached/1/", "" },
        { "cached/model.yaml",
          "backend: sim\nmax_batch_size: 8\nresponse_cache: { enable: true }\n" },
        { "small/1/", "" },
        { "small/model.yaml", "backend: sim\nmax_batch_size: 16\nbatching: insist\n"
                              "parameters: { oom_above_rows: 4 }\n" },
        { "lone/1/", "" },
        { "lone/model.yaml", "backend: sim\nmax_batch_size: 512\nisolation: process\n"
                             "parameters: { crash_on: 7 }\n" },
        { "joined/1/", "" },
        { "joined/model.yaml", "backend: sim\nmax_batch_size: 8\njoin: true\n" },
        { "held/1/", "" },
        { "held/model.yaml", "backend: sim\nmax_batch_size: 1\ninstance_group: [{ count: 1, "
                             "rate_limiter: { resources: [{ name: r, count: 1 }] } }]\n" },
        { "text/1/", "" },
        { "text/model.yaml", "backend: sim\nparameters:\n  inputs: \"text_input:BYTES[-1]\"\n"
                             "  outputs: \"text_output:BYTES[-1]\"\n" },
        { "stream/1/", "" },
        { "stream/model.yaml", "backend: sim\nparameters:\n  parts: 3\n  inputs: \"x:FP32[-1]\"\n"
                               "  outputs: \"y:FP32[-1]\"\n" },
        { "chain/1/", "" },
        { "chain/model.yaml",
          "platform: ensemble\nmax_batch_size: 8\njoin: true\n"
          "input: [{ name: a, data_type: TYPE_FP32, dims: [16] }]\n"
          "output: [{ name: b, data_type: TYPE_FP32, dims: [16] }]\n"
          "ensemble_scheduling:\n  step:\n"
          "  - { model_name: echo, model_version: -1, input_map: { x: a }, output_map: { y: m } }\n"
          "  - { model_name: joined, model_version: -1, input_map: { x: m }, output_map: { y: b } "
          "}\n" },
        { "sums/model.yaml",
          "max_batch_size: 4\n"
          "sequence_batching:\n"
          "  oldest: {}\n"
          "  control_input:\n"
          "  - { name: start, control: [{ kind: CONTROL_SEQUENCE_START, int32_false_true: [0, 1] "
          "}] }\n"
          "  - { name: ready, control: [{ kind: CONTROL_SEQUENCE_READY, int32_false_true: [0, 1] "
          "}] }\n"
          "  - { name: end, control: [{ kind: CONTROL_SEQUENCE_END, int32_false_true: [0, 1] }] }\n"
          "  - { name: corrid, control: [{ kind: CONTROL_SEQUENCE_CORRID, data_type: TYPE_UINT64 "
          "}] }\n"
          "  state: [{ input_name: state, output_name: state_out, data_type: TYPE_INT32, dims: [1] "
          "}]\n" },
        { "twice/1/factor.txt", "2\n" },
        { "twice/model.yaml", "backend: hello\nmax_batch_size: 8\n" },
    };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        model_bed_put(&models, 0, files[i][0], files[i][1]);
    }
    model_bed_copy(&models, 0, "sums", "accumulate");
    model_bed_copy(&models, 0, "plain", "identity_fp32");
    model_bed_copy(&models, 0, "texts", "identity_bytes");
}

/* The words of the command line; `more` ends with NULL. */
static enum weir_status read_words(struct config *out, const char *const *more,
                                   struct weir_err *err)
{
    char *words[WORDS_MAX] = { NULL };
    static const char *const first[] = {
        "--http-port=0",
        "--grpc-port=0",
        "--metrics-port=0",
        "--loops=1",
        "--executors=2",
        "--rate-limit=execution_count",
        "--rate-limit-resource=r:2,other:1:cpu",
        "--shared-memory=test-faults",
        "--plugin",
    };
    int count = 0;
    words[count++] = models.folders[0];
    for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++) {
        words[count++] = (char *)(uintptr_t)first[i];
    }
    words[count++] = plugin_path;
    for (; *more != NULL; more++) {
        words[count++] = (char *)(uintptr_t)*more;
    }
    struct config_words meaning = { .positional = "repository" };
    const enum weir_status status = config_init(out, err);
    return status == WEIR_OK ? config_read(out, NULL, count, words, &meaning, err) : status;
}

static const char *const usual_words[] = { "--model-control=explicit", "--load-model=*", NULL };
static const char *const few_words[] = { "--model-control=explicit", "--load-model=held", NULL };
static const char *const demand_words[] = { "--model-control=demand", "--resident-models-max=1",
                                            "--residency-min=0s", "--access-log=true", NULL };

/* Its first port is that for HTTP. */
static uint16_t port_of(void)
{
    struct buffer text;
    buffer_init(&text, 4096);
    server_addresses(server, &text);
    buffer_char(&text, '\0');
    const char *colon = strstr(text.data, "127.0.0.1:");
    const uint16_t port = colon == NULL ? 0 : (uint16_t)strtoul(colon + 10, NULL, 10);
    buffer_finish(&text);
    assert_int_not_equal(port, 0);
    return port;
}

static void start_server(const char *const *more)
{
    struct weir_err err = { 0 };
    if (read_words(&config, more, &err) != WEIR_OK ||
        server_start(&config, SERVER_SERVE, &server, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    if (!server_wait_models(server)) {
        struct buffer text;
        buffer_init(&text, 65536);
        server_models(server, false, &text);
        buffer_char(&text, '\0');
        fail_msg("%s", text.data);
    }
    client.port = port_of();
}

static void stop_server(void)
{
    assert_true(server_destroy(server));
    config_finish(&config);
    server = NULL;
}

static int set_up(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        return 0; /* All of them are skipped. */
    }
    built_path("plugins/hello.so", plugin_path, sizeof(plugin_path));
    model_bed_init(&models);
    put_models();
    (void)snprintf(shm_name, sizeof(shm_name), "test-faults-%d", (int)getpid());
    const int fd = shm_open(shm_name, O_CREAT | O_EXCL | O_RDWR, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, SHM_BYTES), 0);
    close(fd);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        return 0;
    }
    stop_server();
    shm_unlink(shm_name);
    model_bed_finish(&models);
    return 0;
}

/* --- Asking --------------------------------------------------------------------------------- */

/* What a client may do. */
struct ask {
    const char *what; /* "METHOD /path" */
    const char *fields;
    const char *body;
    const char *undo; /* "METHOD /path", after each; or NULL. */
    bool gzip;        /* Both ways. */
    int status;       /* 0: 200. */
};

static void send_ask(int fd, const struct ask *ask, struct bytes body)
{
    char head[1024];
    (void)snprintf(
        head, sizeof(head), "%s HTTP/1.1\r\nHost: localhost\r\n%s%sContent-Length: %zu\r\n\r\n",
        ask->what, ask->fields == NULL ? "" : ask->fields,
        ask->gzip ? "Content-Encoding: gzip\r\nAccept-Encoding: gzip\r\n" : "", body.size);
    client_text(fd, head);
    client_send(fd, body.data, body.size);
}

static struct response answer_to(const struct ask *ask, struct bytes body)
{
    struct response response;
    const int fd = client_connect(&client);
    send_ask(fd, ask, body);
    client_receive(fd, false, &response);
    close(fd);
    return response;
}

static void undo(const struct ask *ask)
{
    if (ask->undo != NULL) {
        const struct ask back = { .what = ask->undo };
        struct response response = answer_to(&back, BYTES_LITERAL("{}"));
        response_finish(&response);
    }
}

static int status_of(const struct ask *ask)
{
    return ask->status == 0 ? 200 : ask->status;
}

static void expect_ok(const struct ask *ask, struct bytes body)
{
    struct response response = answer_to(ask, body);
    if (response.status != status_of(ask) || response.closed) {
        fail_msg("%s: %d %s", ask->what, response.status, response.body);
    }
    response_finish(&response);
    undo(ask);
}

static bool is_said(const struct response *response)
{
    return response->status == 503 && strstr(response->body, "memory") != NULL;
}

static void expect_or_said(const struct ask *ask, uint64_t nth, struct response *response)
{
    if (response->status != status_of(ask) && !response->closed && !is_said(response)) {
        fail_msg("%s, allocation %u: %d %s", ask->what, (unsigned)nth, response->status,
                 response->body);
    }
    response_finish(response);
}

static void try_everywhere(const struct ask *ask)
{
    struct buffer packed;
    struct bytes body = bytes_of(ask->body == NULL ? "" : ask->body);
    buffer_init(&packed, SIZE_MAX);
    if (ask->gzip) {
        assert_int_equal(encoding_deflate(ENCODING_GZIP, &body, 1, &packed, NULL), WEIR_OK);
        body = (struct bytes){ packed.data, packed.size };
    }
    uint64_t made = 0;
    for (uint64_t nth = 1; made + 1 >= nth; nth++) {
        assert_true(nth < NTH_MAX);
        (void)mem_fault_arm(nth);
        struct response response = answer_to(ask, body);
        made = mem_fault_arm(0);
        expect_or_said(ask, nth, &response);
        undo(ask);
        expect_ok(ask, body);
    }
    buffer_finish(&packed);
}

#define ROW "[1,2,3,4,5,6,7,8,9,10,11,12,13.5,14,15,16]"
#define INPUT(name) \
    "{\"name\":\"" name "\",\"shape\":[1,16],\"datatype\":\"FP32\",\"data\":" ROW "}"
#define ECHO_BODY "{\"id\":\"one\",\"inputs\":[" INPUT("x") "]}"
#define NUMBERS "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16"
#define FOUR NUMBERS "," NUMBERS "," NUMBERS "," NUMBERS
#define ROWS_BODY                                                                                  \
    "{\"inputs\":[{\"name\":\"x\",\"shape\":[8,16],\"datatype\":\"FP32\",\"data\":[" FOUR "," FOUR \
    "]}]}"
#define ZEROS_BODY                                                                  \
    "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,16],\"datatype\":\"FP32\",\"data\":" \
    "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}]}"
#define INFER(model) "POST /v2/models/" model "/infer"
#define REGION "/v2/systemsharedmemory/region/data"
#define BINARY                                                                            \
    "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,16],\"datatype\":\"FP32\",\"parameters\":" \
    "{\"binary_data_size\":64}}],\"parameters\":{\"binary_data_output\":true}}"
#define SHARED "\"parameters\":{\"shared_memory_region\":\"data\",\"shared_memory_byte_size\":64}"
#define SUMMED                                                                            \
    "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,1],\"datatype\":\"INT32\",\"data\":[7]}]," \
    "\"parameters\":{\"sequence_id\":7,\"sequence_start\":true,\"sequence_end\":true}}"

static const struct ask requests[] = {
    { .what = INFER("echo"), .body = ECHO_BODY },
    { .what = INFER("echo"), .body = ECHO_BODY, .gzip = true },
    { .what = INFER("echo"), .fields = "Weir-Deadline-Ms: 60000\r\n", .body = ECHO_BODY },
    { .what = INFER("echo"), .body = ROWS_BODY, .gzip = true },
    { .what = INFER("small"), .body = ROWS_BODY },
    { .what = INFER("cached"), .body = ECHO_BODY },
    { .what = INFER("joined"), .body = ECHO_BODY },
    { .what = INFER("held"), .body = ECHO_BODY },
    { .what = INFER("twice"), .body = ECHO_BODY },
    { .what = INFER("chain"), .body = "{\"inputs\":[" INPUT("a") "]}" },
    { .what = INFER("sums"), .body = SUMMED },
    { .what = INFER("echo"),
      .body = "{\"parameters\":{\"sequence_id\":\"s\"},\"inputs\":[" INPUT("x") "]}" },
    { .what = INFER("text"),
      .body = "{\"inputs\":[{\"name\":\"text_input\",\"shape\":[2],\"datatype\":"
              "\"BYTES\",\"data\":[\"one\",\"two \\u00e4\"]}]}" },
    { .what = INFER("echo"),
      .fields = "Inference-Header-Content-Length: 136\r\n",
      .body = BINARY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" },
    { .what = "POST /v2/models/text/generate", .body = "{\"text_input\":[\"a\"],\"id\":\"b\"}" },
    { .what = "POST /v2/models/stream/generate_stream", .body = "{\"x\":[1,2,3]}" },
    { .what = INFER("e%63ho"),
      .body = "{\"inputs\":[" INPUT("x") "],\"outputs\":[{\"name\":\"y\",\"parameters\":{"
                                         "\"classification\":2}}]}" },
    { .what = INFER("texts"),
      .body = "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,4],\"datatype\":\"BYTES\",\"data\":"
              "[\"a\",\"\",\"b\",\"a longer one\"]}]}" },
    { .what = INFER("none"), .body = ECHO_BODY, .status = 404 },
    { .what = INFER("sums"), .body = ECHO_BODY, .status = 400 },
    { .what = "POST /v2/models/echo/cancel", .body = "{\"id\":\"nobody\"}" },
};

static const struct ask managing[] = {
    { .what = "GET /" },
    { .what = "GET /openapi.yaml" },
    { .what = "GET /v2" },
    { .what = "GET /v2/models" },
    { .what = "GET /v2/models/stats" },
    { .what = "GET /v2/models/echo/stats" },
    { .what = "GET /v2/models/chain" },
    { .what = "GET /v2/models/sums/config" },
    { .what = "GET /metrics" },
    { .what = "POST /v2/repository/index" },
    { .what = "POST /v2/repository/index", .body = "{\"ready\":true}" },
    { .what = "POST /v2/repository/models/twice/load",
      .body = "{}",
      .undo = "POST /v2/repository/models/twice/unload" },
    { .what = "POST /v2/repository/models/held/load",
      .body = "{}",
      .undo = "POST /v2/repository/models/held/unload" },
    { .what = "POST /v2/repository/models/text/load",
      .body = "{\"parameters\":{\"config\":\"{\\\"backend\\\":\\\"sim\\\",\\\"memory_group\\\":"
              "\\\"few\\\"}\"}}",
      .undo = "POST /v2/repository/models/text/unload" },
    { .what = "POST /v2/repository/models/chain/load",
      .body = "{}",
      .undo = "POST /v2/repository/models/chain/unload" },
    { .what = "GET /v2/quarantine" },
    { .what = "POST /v2/quarantine/clear", .body = "{\"model\":\"echo\"}" },
    { .what = "GET /v2/logging" },
    { .what = "POST /v2/logging", .body = "{\"log_info\":false}" },
    { .what = "GET /v2/trace/setting" },
    { .what = "POST " REGION "/register",
      .body = "{\"key\":\"%s\",\"byte_size\":4096}",
      .undo = "POST " REGION "/unregister" },
    { .what = "POST /v2/systemsharedmemory/region/d%61ta/register",
      .body = "{\"key\":\"%s\",\"byte_size\":4096}",
      .undo = "POST " REGION "/unregister" },
    { .what = "GET /v2/systemsharedmemory/status" },
    { .what = "POST /v2/settings/reload", .body = "" },
};

static void test_requests(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        skip();
    }
    start_server(usual_words);
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        try_everywhere(&requests[i]);
    }
}

/* An answer that is kept: another one each time. */
static void test_a_cache(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        skip();
    }
    static const struct ask ask = { .what = INFER("cached") };
    uint64_t made = 0;
    start_server(usual_words);
    for (uint64_t nth = 1; made + 1 >= nth; nth++) {
        char body[512];
        (void)snprintf(body, sizeof(body),
                       "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,16],\"datatype\":\"FP32\","
                       "\"data\":[%u,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}]}",
                       (unsigned)nth);
        (void)mem_fault_arm(nth);
        struct response response = answer_to(&ask, bytes_of(body));
        made = mem_fault_arm(0);
        expect_or_said(&ask, nth, &response);
        expect_ok(&ask, bytes_of(body));
    }
}

/* What is written of requests is made in memory, too. */
static void test_a_log(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        skip();
    }
    static const char *const words[] = { "--model-control=explicit", "--load-model=echo",
                                         "--access-log=true", NULL };
    static const struct ask failing = { .what = INFER("none"), .body = ECHO_BODY, .status = 404 };
    const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    const int kept = dup(STDERR_FILENO);
    assert_true(nowhere >= 0 && kept >= 0 && dup2(nowhere, STDERR_FILENO) == STDERR_FILENO);
    log_set_level(LOG_DEBUG);
    start_server(words);
    try_everywhere(&requests[0]);
    try_everywhere(&failing);
    stop_server();
    log_set_level(LOG_ERROR);
    (void)dup2(kept, STDERR_FILENO);
    (void)close(kept);
    (void)close(nowhere);
}

#define LARGE_BYTES 32768
#define LARGE                                                                               \
    "{\"inputs\":[{\"name\":\"x\",\"shape\":[512,16],\"datatype\":\"FP32\",\"parameters\":" \
    "{\"binary_data_size\":32768}}]}"

/* A model in a process of its own: large inputs are received where it reads them, and one that
 * kills it is tried alone and refused from then on. */
static void test_a_process_of_its_own(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        skip();
    }
    static char body[sizeof(LARGE) + LARGE_BYTES] = LARGE;
    static const char *const words[] = { "--model-control=explicit", "--load-model=lone", NULL };
    static const struct ask deadly = { .what = INFER("lone") };
    static const struct ask clear = { .what = "POST /v2/quarantine/clear" };
    static const struct ask good = { .what = INFER("lone") };
    char fields[64];
    memset(body + sizeof(LARGE) - 1, '0', LARGE_BYTES);
    (void)snprintf(fields, sizeof(fields), "Inference-Header-Content-Length: %zu\r\n",
                   sizeof(LARGE) - 1);
    start_server(words);
    try_everywhere(&(struct ask){ .what = INFER("lone"), .fields = fields, .body = body });
    uint64_t made = 0;
    for (uint64_t nth = 1; made + 1 >= nth; nth++) {
        assert_true(nth < NTH_MAX);
        (void)mem_fault_arm(nth);
        struct response response = answer_to(&deadly, BYTES_LITERAL(ECHO_BODY));
        made = mem_fault_arm(0);
        if (response.status == 200) {
            fail_msg("allocation %u: %s", (unsigned)nth, response.body);
        }
        response_finish(&response);
        expect_ok(&clear, BYTES_LITERAL("{}"));
        expect_ok(&good, BYTES_LITERAL(ZEROS_BODY));
    }
}

/* Who asks too often is told when to come again. */
static void test_a_client_with_a_key(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        skip();
    }
    struct buffer key;
    struct buffer line;
    char option[256];
    char fields[256];
    const struct newkey often = { .name = "often", .allow = "use", .rate = "0.001" };
    buffer_init(&key, 256);
    buffer_init(&line, 1024);
    assert_int_equal(newkey_make(&often, &key, &line, NULL), WEIR_OK);
    buffer_char(&line, '\0');
    model_bed_put(&models, 0, "keys.yaml", line.data);
    (void)snprintf(option, sizeof(option), "--api-keys=%s/keys.yaml", models.folders[0]);
    (void)snprintf(fields, sizeof(fields), "X-Api-Key: %.*s\r\n", (int)key.size - 1, key.data);
    const char *const words[] = { "--model-control=explicit", "--load-model=echo", option, NULL };
    struct ask ask = { .what = INFER("echo"), .fields = fields, .body = ECHO_BODY };
    start_server(words);
    expect_ok(&ask, BYTES_LITERAL(ECHO_BODY));
    ask.status = 429;
    try_everywhere(&ask);
    buffer_finish(&key);
    buffer_finish(&line);
}

/* More rows than a run may have: they run in pieces. */
static void test_pieces(void **state)
{
    (void)state;
    static char body[32768];
    if (!faults_are_built()) {
        skip();
    }
    size_t size = (size_t)snprintf(body, sizeof(body),
                                   "{\"inputs\":[{\"name\":\"x\",\"shape\":[200,16],"
                                   "\"datatype\":\"FP32\",\"data\":[1");
    for (int i = 1; i < 200 * 16; i++) {
        size += (size_t)snprintf(body + size, sizeof(body) - size, ",%d", i);
    }
    (void)snprintf(body + size, sizeof(body) - size, "]}]}");
    start_server(usual_words);
    try_everywhere(&(struct ask){ .what = INFER("plain"), .body = body });
}

static void test_management(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        skip();
    }
    start_server(usual_words);
    for (size_t i = 0; i < sizeof(managing) / sizeof(managing[0]); i++) {
        char body[256];
        struct ask ask = managing[i];
        undo(&ask);
        if (ask.body != NULL && strstr(ask.body, "%s") != NULL) {
            (void)snprintf(body, sizeof(body), "{\"key\":\"%s\",\"byte_size\":4096}", shm_name);
            ask.body = body;
        }
        try_everywhere(&ask);
    }
}

/* Inputs and outputs in memory of the client's. */
static void test_shared_memory(void **state)
{
    (void)state;
    char body[256];
    if (!faults_are_built()) {
        skip();
    }
    start_server(usual_words);
    (void)snprintf(body, sizeof(body), "{\"key\":\"%s\",\"byte_size\":4096}", shm_name);
    expect_ok(&(struct ask){ .what = "POST " REGION "/register" }, bytes_of(body));
    static const struct ask ask = {
        .what = INFER("echo"),
        .body = "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,16],\"datatype\":\"FP32\"," SHARED
                "}],\"outputs\":[{\"name\":\"y\"," SHARED "}]}"
    };
    try_everywhere(&ask);
}

static const char *const other_words[] = { "--model-control=explicit",
                                           "--load-model=*",
                                           "--memory-max=4GiB",
                                           "--ageing=7s",
                                           "--limits.body-bytes-max=1000000",
                                           NULL };

/* Other settings each time. */
static enum weir_status read_again(void *context, struct config *out, struct weir_err *err)
{
    unsigned *times = context;
    return read_words(out, (*times)++ % 2 == 0 ? other_words : usual_words, err);
}

/* Settings are read again: all that is new holds, or nothing. */
static void test_a_reload(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        skip();
    }
    unsigned times = 0;
    start_server(usual_words);
    server_reload_from(server, read_again, &times);
    static const struct ask ask = { .what = "POST /v2/settings/reload", .body = "" };
    try_everywhere(&ask);
}

/* A model that is loaded when it is asked for, and again when it is told to: others back off. */
static void test_on_demand(void **state)
{
    (void)state;
    if (!faults_are_built()) {
        skip();
    }
    static const char text[] = "{\"inputs\":[{\"name\":\"text_input\",\"shape\":[1],"
                               "\"datatype\":\"BYTES\",\"data\":[\"one\"]}]}";
    static const struct ask ask = { .what = INFER("text") };
    static const struct ask load = { .what = "POST /v2/repository/models/text/load" };
    static const struct ask other = { .what = INFER("echo") };
    uint64_t made = 0;
    start_server(demand_words);
    for (uint64_t nth = 1; made + 1 >= nth; nth++) {
        assert_true(nth < NTH_MAX);
        (void)mem_fault_arm(nth);
        struct response response = answer_to(&ask, BYTES_LITERAL(text));
        made = mem_fault_arm(0);
        /* 503 also when a model is there and the list that says so is not yet. */
        assert_true(response.closed || response.status == 200 || response.status == 503);
        response_finish(&response);
        expect_ok(&load, BYTES_LITERAL("{}"));
        expect_ok(&ask, BYTES_LITERAL(text));
        expect_ok(&other, BYTES_LITERAL(ECHO_BODY)); /* Which takes its place. */
    }
}

/* A start fails and says so, or all serves. */
static void test_a_start(void **state)
{
    (void)state;
    uint64_t made = 0;
    if (!faults_are_built()) {
        skip();
    }
    for (uint64_t nth = 1; made + 1 >= nth; nth++) {
        struct weir_err err = { 0 };
        assert_true(nth < NTH_MAX);
        (void)mem_fault_arm(nth);
        enum weir_status status = read_words(&config, few_words, &err);
        if (status == WEIR_OK) {
            status = server_start(&config, SERVER_SERVE, &server, &err);
        }
        if (status == WEIR_OK) {
            (void)server_wait_models(server);
        }
        made = mem_fault_arm(0);
        assert_true(status == WEIR_OK || err.text[0] != '\0');
        stop_server();
    }
    assert_true(made > 100);
    start_server(usual_words);
    expect_ok(&requests[0], bytes_of(requests[0].body));
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], PROCESSES_WORD) == 0) {
        return processes_main();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_requests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_cache, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_log, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_client_with_a_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_process_of_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pieces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_management, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_shared_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_reload, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_on_demand, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_start, set_up, tear_down),
    };
    server_block_signals();
    processes_use_self();
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
