/*
 * api: real requests over real sockets against simulated models.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "api_bed.h"
#include "bed.h"
#include "model_bed.h"
#include "net/encoding.h"
#include "util/json.h"
#include "util/log.h"
#include "util/mem.h"

static struct model_bed models;
static struct bed client; /* For its port. */
static struct api_bed server;
static int late_count; /* Requests to "lasting" that were answered with 504. */

static void add_models(void)
{
    model_bed_sim(&models, "echo", 1, "");
    model_bed_sim(&models, "echo", 2, "");
    model_bed_sim(&models, "slow", 1, "");
    model_bed_put(&models, 0, "slow/model.yaml",
                  "backend: sim\nparameters:\n  tau0: 100ms\n  inputs: \"x:FP32[-1]\"\n"
                  "  outputs: \"y:FP32[-1]\"\n");
    model_bed_sim(&models, "lasting", 1, "");
    model_bed_put(&models, 0, "lasting/model.yaml",
                  "backend: sim\nbatching: off\nparameters:\n  stuck_on: 1\n  stuck: 2s\n"
                  "  inputs: \"x:FP32[-1]\"\n  outputs: \"y:FP32[-1]\"\n");
    model_bed_sim(&models, "wide", 1, "  inputs: \"x:FP32[-1]\"\n  outputs: \"y:FP32[-1]\"\n");
    model_bed_sim(&models, "text", 1,
                  "  inputs: \"text_input:BYTES[-1]\"\n  outputs: \"text_output:BYTES[-1]\"\n");
    model_bed_sim(&models, "counted", 1, "");
    model_bed_sim(&models, "metered", 1, "");
    model_bed_sim(&models, "half", 1, "  inputs: \"x:FP16[-1]\"\n  outputs: \"y:FP16[-1]\"\n");
    model_bed_sim(&models, "stream", 1,
                  "  parts: 5\n  inputs: \"x:FP32[-1]\"\n  outputs: \"y:FP32[-1]\"\n");
    model_bed_sim(&models, "flood", 1,
                  "  parts: 400\n  inputs: \"x:FP32[-1]\"\n  outputs: \"y:FP32[-1]\"\n");
    model_bed_sim(&models, "poison", 1, "  poison: 13\n");
    model_bed_sim(&models, "broken", 1, "  load_fails: the weights are torn\n");
}

static int set_up(void **state)
{
    (void)state;
    model_bed_init(&models);
    add_models();
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

/* --- Asking -------------------------------------------------------------------------------- */

static void send_request(int fd, const char *method, const char *path, const char *fields,
                         struct bytes body)
{
    char head[1024];
    (void)snprintf(head, sizeof(head),
                   "%s %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %zu\r\n\r\n", method,
                   path, fields, body.size);
    client_text(fd, head);
    client_send(fd, body.data, body.size);
}

static struct response ask_bytes(const char *method, const char *path, const char *fields,
                                 struct bytes body)
{
    struct response response;
    const int fd = client_connect(&client);
    send_request(fd, method, path, fields, body);
    client_receive(fd, false, &response);
    close(fd);
    return response;
}

static struct response ask(const char *method, const char *path, const char *body)
{
    return ask_bytes(method, path, "", bytes_of(body));
}

static void expect(const char *method, const char *path, const char *fields, const char *body,
                   int status, const char *says)
{
    struct response response = ask_bytes(method, path, fields, bytes_of(body));
    if (response.status != status || strstr(response.body, says) == NULL) {
        fail_msg("%s %s %s\n  gave %d %s\n  expected %d with %s", method, path, body,
                 response.status, response.body, status, says);
    }
    if (status >= 400) {
        assert_int_equal(strncmp(response.body, "{\"error\":\"", 10), 0);
    }
    response_finish(&response);
}

/* The value of a field of the response, up to its line's end. */
static const char *field(const struct response *response, const char *name, char out[128])
{
    out[0] = '\0';
    for (const char *line = response->head; line != NULL; line = strstr(line, "\r\n")) {
        line += line == response->head ? 0 : 2;
        if (strncasecmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') {
            (void)snprintf(out, 128, "%.*s", (int)strcspn(line + strlen(name) + 2, "\r\n"),
                           line + strlen(name) + 2);
            break;
        }
    }
    return out;
}

#define ROW "[1,2,3,4,5,6,7,8,9,10,11,12,13.5,14,15,16]"
#define INPUT "{\"name\":\"x\",\"shape\":[1,16],\"datatype\":\"FP32\",\"data\":" ROW "}"
#define ECHO_BODY "{\"inputs\":[" INPUT "]}"

/* --- Tests --------------------------------------------------------------------------------- */

static void test_json_in_and_out(void **state)
{
    (void)state;
    expect("POST", "/v2/models/echo/infer", "", ECHO_BODY, 200,
           "{\"model_name\":\"echo\",\"model_version\":\"2\",\"outputs\":[{\"name\":\"y\","
           "\"datatype\":\"FP32\",\"shape\":[1,16],\"data\":[1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0,9.0,"
           "10.0,11.0,12.0,13.5,14.0,15.0,16.0]}]}");
    expect("POST", "/v2/models/echo/versions/2/infer", "",
           "{\"id\":\"a\\\"b\",\"inputs\":[" INPUT "],\"outputs\":[{\"name\":\"y\",\"parameters\":"
           "{\"classification\":2}}]}",
           200,
           "{\"id\":\"a\\\"b\",\"model_name\":\"echo\",\"model_version\":\"2\",\"outputs\":[{"
           "\"name\":\"y\",\"datatype\":\"BYTES\",\"shape\":[1,2],\"data\":["
           "\"16.000000:15\",\"15.000000:14\"]}]}");
}

static void test_binary_in_and_out(void **state)
{
    (void)state;
    static const char json[] = "{\"inputs\":[{\"name\":\"x\",\"shape\":[3],\"datatype\":\"FP16\","
                               "\"parameters\":{\"binary_data_size\":6}}],"
                               "\"parameters\":{\"binary_data_output\":true}}";
    static const char head[] = "{\"model_name\":\"half\",\"model_version\":\"1\",\"outputs\":[{"
                               "\"name\":\"y\",\"datatype\":\"FP16\",\"shape\":[3],"
                               "\"parameters\":{\"binary_data_size\":6}}]}";
    char body[sizeof(json) + 6];
    char fields[64];
    char found[128];
    (void)snprintf(fields, sizeof(fields), "Inference-Header-Content-Length: %zu\r\n",
                   sizeof(json) - 1);
    for (int round = 0; round < 3; round++) { /* From the second on, the JSON is remembered. */
        memcpy(body, json, sizeof(json) - 1);
        memcpy(body + sizeof(json) - 1, "\0\x3c\x01\x3c\x02\x40", 6);
        body[sizeof(json)] = (char)('0' + round);
        struct response response = ask_bytes("POST", "/v2/models/half/infer", fields,
                                             (struct bytes){ body, sizeof(json) + 5 });
        assert_int_equal(response.status, 200);
        assert_string_equal(field(&response, "Content-Type", found), "application/octet-stream");
        assert_int_equal(atoi(field(&response, "Inference-Header-Content-Length", found)),
                         sizeof(head) - 1);
        assert_int_equal(response.size, sizeof(head) - 1 + 6);
        assert_memory_equal(response.body, head, sizeof(head) - 1);
        assert_memory_equal(response.body + sizeof(head) - 1, body + sizeof(json) - 1, 6);
        response_finish(&response);
    }
}

static void test_what_goes_wrong_and_with_which_status(void **state)
{
    (void)state;
    static const struct {
        const char *method;
        const char *path;
        const char *fields;
        const char *body;
        int status;
        const char *says;
    } cases[] = {
        { "POST", "/v2/models/none/infer", "", ECHO_BODY, 404, "'none'" },
        { "POST", "/v2/models/echo/versions/9/infer", "", ECHO_BODY, 404, "version 9" },
        { "POST", "/v2/models/echo/versions/0/infer", "", ECHO_BODY, 404, "version 0" },
        { "POST", "/v2/models/..%2fecho/infer", "", ECHO_BODY, 404, "names have" },
        { "POST", "/v2/models/%65cho/infer", "", ECHO_BODY, 200, "echo" },
        { "POST", "/v2/models/%6/infer", "", ECHO_BODY, 400, "hexadecimal" },
        { "POST", "/v2/models/broken/infer", "", ECHO_BODY, 503, "the weights are torn" },
        { "POST", "/v2/models/stream/infer", "", "{}", 400, "generate_stream" },
        { "POST", "/v2/models/poison/infer", "",
          "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,16],\"datatype\":\"FP32\",\"data\":"
          "[13,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}]}",
          400, "poison" },
        { "POST", "/v2/models/echo/infer", "", "", 400, "empty body" },
        { "POST", "/v2/models/echo/infer", "", "{\"inputs\":", 400, "failed to parse" },
        { "POST", "/v2/models/echo/infer", "Inference-Header-Content-Length: 99999\r\n", ECHO_BODY,
          400, "should be in range" },
        { "POST", "/v2/models/echo/infer", "Inference-Header-Content-Length: 1e2\r\n", ECHO_BODY,
          400, "should be in range" },
        { "POST", "/v2/models/echo/infer", "Content-Encoding: br\r\n", ECHO_BODY, 415, "br" },
        { "POST", "/v2/models/echo/infer", "Content-Encoding: gzip\r\n", ECHO_BODY, 400, "gzip" },
        { "POST", "/v2/models/echo/infer", "Weir-Deadline-Ms: soon\r\n", ECHO_BODY, 400, "soon" },
        { "POST", "/v2/models/echo/infer", "",
          "{\"inputs\":[" INPUT "],\"parameters\":{"
          "\"sequence_id\":true}}",
          400, "sequence_id" },
        { "GET", "/v2/models/echo/infer", "", "", 405, "POST" },
        { "DELETE", "/v2", "", "", 405, "GET, HEAD" },
        { "GET", "/v1/models", "", "", 404, "/v1/models" },
        { "GET", "/v2/models/none/ready", "", "", 400, "Model version not ready" },
        { "GET", "/v2/models/broken/ready", "", "", 400, "the weights are torn" },
        { "GET", "/v2/models/none/stats", "", "", 404, "'none'" },
        { "GET", "/v2/models/none/config", "", "", 404, "'none'" },
        { "POST", "/v2/repository/models/none/load", "", "", 404, "none" },
        { "POST", "/v2/repository/models/broken/load", "", "", 400, "the weights are torn" },
        { "POST", "/v2/repository/models/..%2f/load", "", "", 400, "names have" },
        { "POST", "/v2/repository/other/models/echo/load", "", "", 501, "named repositories" },
        { "POST", "/v2/repository/models/echo/load", "",
          "{\"parameters\":{\"config\":\"{}\",\"file:1/m\":\"\"}}", 501, "'file:'" },
        { "POST", "/v2/repository/models/echo/load", "", "{\"parameters\":{\"confg\":\"\"}}", 400,
          "'confg'" },
        { "POST", "/v2/repository/models/echo/load", "", "{\"parameters\":{\"config\":1}}", 400,
          "the number 1" },
        { "POST", "/v2/repository/models/none/unload", "", "", 200, "" },
        { "POST", "/v2/repository/index", "", "{\"ready\":1}", 400, "ready" },
        { "POST", "/v2/repository/models/echo/load", "Origin: http://example.com\r\n", "", 403,
          "example.com" },
        { "POST", "/v2/repository/models/echo/load", "Origin: http://localhost:9\r\n", "", 403,
          "localhost:9" },
        { "POST", "/v2/trace/setting", "", "{\"trace_level\":[\"TIMESTAMPS\"]}", 501, "tracing" },
        { "POST", "/v2/trace/setting", "", "{\"trace_level\":[\"OFF\"]}", 200, "\"OFF\"" },
        { "GET", "/v2/models/echo/trace/setting", "", "", 200, "\"OFF\"" },
        { "GET", "/v2/systemsharedmemory/status", "", "", 501, "shared memory" },
        { "POST", "/v2/cudasharedmemory/region/a/register", "", "{}", 501, "CUDA" },
        { "POST", "/v2/logging", "", "{\"log_file\":\"/tmp/x\"}", 501, "log_file" },
        { "POST", "/v2/logging", "", "{\"log_info\":1}", 400, "log_info" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        expect(cases[i].method, cases[i].path, cases[i].fields, cases[i].body, cases[i].status,
               cases[i].says);
    }
}

static void test_metadata_and_administration(void **state)
{
    (void)state;
    expect("GET", "/", "", "", 200, "/v2/models/{model}[/versions/{version}]/infer");
    expect("GET", "/v2", "", "", 200, "{\"name\":\"weir\",\"version\":\"1.2.3\",\"extensions\":[");
    expect("GET", "/v2/", "", "", 200, "\"statistics\"");
    expect("GET", "/v2/health/live", "", "", 200, "{\"live\":true}");
    expect("GET", "/v2/models/echo/ready", "", "", 200, "{\"name\":\"echo\",\"ready\":true}");
    expect("GET", "/v2/models/text", "", "", 200,
           "{\"name\":\"text\",\"versions\":[\"1\"],\"platform\":");
    expect("GET", "/v2/models/text", "", "", 200,
           "\"inputs\":[{\"name\":\"text_input\",\"datatype\":\"BYTES\",\"shape\":[-1]}]");
    expect("GET", "/v2/models/echo/config", "", "", 200, "\"name\":\"echo\"");
    expect("GET", "/v2/models/stats", "", "", 200, "{\"model_stats\":[");
    expect("GET", "/v2/models", "", "", 200, "\"echo\"");
    expect("POST", "/v2/repository/index", "", "", 200,
           "{\"name\":\"broken\",\"version\":\"1\",\"state\":\"UNAVAILABLE\",\"reason\":\"");
    struct response response = ask("POST", "/v2/repository/index", "{\"ready\":true}");
    assert_null(strstr(response.body, "broken"));
    assert_non_null(strstr(response.body, "\"echo\""));
    response_finish(&response);
}

static void test_log_settings_read_back(void **state)
{
    (void)state;
    const enum log_level before = log_get_level();
    expect("POST", "/v2/logging", "", "{\"log_info\":false,\"log_verbose_level\":0}", 200,
           "\"log_info\":false,\"log_warning\":true,\"log_error\":true,\"log_verbose_level\":0");
    assert_int_equal(log_get_level(), LOG_WARNING);
    expect("POST", "/v2/logging", "", "{\"log_verbose_level\":3,\"log_format\":\"ISO8601\"}", 200,
           "\"log_verbose_level\":3,\"log_format\":\"ISO8601\"");
    assert_int_equal(log_get_level(), LOG_DEBUG);
    expect("GET", "/v2/logging", "", "", 200, "\"log_verbose_level\":3");
    log_set_level(before);
}

/* An allocation fails somewhere while one request is answered: the client has its answer, an error
 * or a closed connection, and the next one is served. */
static void test_memory_runs_out_anywhere(void **state)
{
    (void)state;
    static const char *const asks[][2] = {
        { "/v2/models/echo/infer", ECHO_BODY },
        { "/v2/models/wide/generate", "{\"x\":[1,2,3],\"id\":\"a\"}" },
        { "/v2/models/stream/generate_stream", "{\"x\":[1,2,3]}" },
        { "/v2/repository/index", "{}" },
    };
    for (size_t i = 0; i < sizeof(asks) / sizeof(asks[0]); i++) {
        for (uint64_t nth = 1; nth <= 40; nth++) {
            const int fd = client_connect(&client);
            struct response response;
            (void)mem_fault_arm(nth);
            send_request(fd, "POST", asks[i][0], "", bytes_of(asks[i][1]));
            client_receive(fd, false, &response);
            (void)mem_fault_arm(0);
            assert_true(response.status == 200 || response.status == 503 || response.closed);
            response_finish(&response);
            close(fd);
        }
        expect("POST", "/v2/models/echo/infer", "", ECHO_BODY, 200, "13.5");
    }
}

static void test_load_and_unload(void **state)
{
    (void)state;
    expect("POST", "/v2/repository/models/echo/unload", "", "{}", 200, "");
    expect("GET", "/v2/models/echo/ready", "", "", 400, "Model version not ready");
    expect("POST", "/v2/models/echo/infer", "", ECHO_BODY, 404, "echo");
    expect(
        "POST", "/v2/repository/models/echo/load", "Origin: http://localhost\r\n",
        "{\"parameters\":{\"config\":\"{\\\"backend\\\":\\\"sim\\\",\\\"max_batch_size\\\":7}\"}}",
        200, "");
    expect("GET", "/v2/models/echo/config", "", "", 200, "\"max_batch_size\":7");
    expect("POST", "/v2/models/echo/infer", "", ECHO_BODY, 200, "13.5");
}

static void test_a_deadline_is_answered_while_the_model_runs(void **state)
{
    (void)state;
    static const char body[] = "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\","
                               "\"data\":[1]}]}";
    const int fd = client_connect(&client);
    struct response response;
    bool ran = false;
    while (!ran) { /* On a busy machine the run itself may begin too late. */
        send_request(fd, "POST", "/v2/models/lasting/infer", "Weir-Deadline-Ms: 300\r\n",
                     BYTES_LITERAL(body));
        send_request(fd, "POST", "/v2/models/echo/infer", "", BYTES_LITERAL(ECHO_BODY));
        client_receive(fd, false, &response);
        assert_int_equal(response.status, 504);
        ran = strstr(response.body, "while the model was running") != NULL;
        /* One that was late before it was in line was refused, not begun. */
        late_count += strstr(response.body, "when the request arrived") == NULL ? 1 : 0;
        response_finish(&response);
        client_receive(fd, false, &response);
        assert_int_equal(response.status, 200);
        response_finish(&response);
    }
    close(fd);
}

/* "success":{"count":N of a model's statistics. */
static int successes(const char *path)
{
    struct response response = ask("GET", path, "");
    const char *at = strstr(response.body, "\"success\":{\"count\":");
    assert_non_null(at);
    const int count = atoi(at + strlen("\"success\":{\"count\":"));
    response_finish(&response);
    return count;
}

/* The number of a sample, which must be there; `name` ends with a space. */
static int sample(const struct response *response, const char *name)
{
    const char *at = strstr(response->body, name);
    if (at == NULL) {
        fail_msg("no %s in\n%s", name, response->body);
        return -1;
    }
    return atoi(at + strlen(name));
}

/* Until none of its requests is left: it has as many users as a model that nobody asks. */
static void await_rest(const char *model)
{
    char name[96];
    (void)snprintf(name, sizeof(name), "\nweir_model_leases{model=\"%s\",version=\"1\"} ", model);
    for (bool rests = false; !rests;) {
        struct response response = ask("GET", "/metrics", "");
        static const char idle[] = "\nweir_model_leases{model=\"wide\",version=\"1\"} ";
        rests = sample(&response, name) == sample(&response, idle);
        response_finish(&response);
    }
}

static void test_clients_that_hang_up_do_no_harm(void **state)
{
    (void)state;
    static const char body[] = "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\","
                               "\"data\":[1]}]}";
    for (int i = 0; i < 16; i++) {
        const int fd = client_connect(&client);
        send_request(fd, "POST", "/v2/models/slow/infer", "", BYTES_LITERAL(body));
        close(fd);
    }
    /* What nobody waits for any more is not run, but for what was running. */
    await_rest("slow");
    const int before = successes("/v2/models/slow/stats");
    expect("POST", "/v2/models/slow/infer", "", body, 200, "\"y\"");
    assert_int_equal(successes("/v2/models/slow/stats"), before + 1);
    for (int i = 0; i < 3; i++) {
        const int fd = client_connect(&client);
        struct response response;
        send_request(fd, "POST", "/v2/models/flood/generate_stream", "",
                     BYTES_LITERAL("{\"x\":[1,2,3]}"));
        client_receive(fd, true, &response);
        assert_int_equal(response.status, 200);
        response_finish(&response);
        close(fd);
    }
    const int fd = client_connect(&client);
    send_request(fd, "POST", "/v2/repository/models/wide/load", "", BYTES_LITERAL("{}"));
    close(fd);
    expect("POST", "/v2/models/echo/infer", "", ECHO_BODY, 200, "13.5");
}

static void test_generate(void **state)
{
    (void)state;
    expect("POST", "/v2/models/text/generate", "",
           "{\"text_input\":\"a\\nb\",\"id\":\"7\",\"temperature\":0.5,\"parameters\":{\"n\":1}}",
           200,
           "{\"id\":\"7\",\"model_name\":\"text\",\"model_version\":\"1\",\"text_output\":"
           "\"a\\nb\"}");
    expect("POST", "/v2/models/wide/generate", "", "{\"parameters\":{\"x\":[[1],2]}}", 200,
           "\"y\":[1.0,2.0]}");
    expect("POST", "/v2/models/echo/generate", "", "{\"x\":[1,2]}", 400,
           "can not convert input 'x'");
    expect("POST", "/v2/models/stream/generate", "", "{\"x\":1}", 400, "exactly 1 response");
    expect("POST", "/v2/models/half/generate", "", "{\"x\":1}", 400, "FP16");
    expect("POST", "/v2/models/wide/generate", "", "{\"x\":1,\"y\":[2]}", 400, "'y'");
    expect("POST", "/v2/models/wide/generate", "", "[]", 400, "an object");
    expect("POST", "/v2/models/none/generate_stream", "", "{}", 404, "none");
}

static size_t count_events(const char *text)
{
    size_t count = 0;
    for (const char *at = strstr(text, "data: {"); at != NULL; at = strstr(at + 1, "data: {")) {
        count++;
    }
    return count;
}

static void test_streams(void **state)
{
    (void)state;
    char found[128];
    struct response response = ask("POST", "/v2/models/stream/generate_stream", "{\"x\":[4]}");
    assert_int_equal(response.status, 200);
    assert_string_equal(field(&response, "Content-Type", found),
                        "text/event-stream; charset=utf-8");
    static const char first[] =
        "data: {\"model_name\":\"stream\",\"model_version\":\"1\",\"y\":4.0}\n\ndata: {";
    assert_int_equal(strncmp(response.body, first, sizeof(first) - 1), 0);
    assert_int_equal(count_events(response.body), 5);
    response_finish(&response);
}

/* More than sockets and the engine hold: the run has to wait for its reader. */
static void test_a_stream_waits_for_its_reader(void **state)
{
    (void)state;
    struct buffer body;
    buffer_init(&body, 1 << 20);
    buffer_text(&body, "{\"x\":[");
    for (int i = 0; i < 8000; i++) {
        buffer_text(&body, i == 0 ? "1" : ",1");
    }
    buffer_text(&body, "]}");
    const int fd = client_connect(&client);
    struct response response;
    send_request(fd, "POST", "/v2/models/flood/generate_stream", "",
                 (struct bytes){ body.data, body.size });
    client_receive(fd, true, &response);
    assert_int_equal(response.status, 200);
    response_finish(&response);
    expect("POST", "/v2/models/echo/infer", "", ECHO_BODY, 200, "13.5");
    close(fd);
    response = ask_bytes("POST", "/v2/models/flood/generate_stream", "",
                         (struct bytes){ body.data, body.size });
    assert_int_equal(count_events(response.body), 400);
    response_finish(&response);
    buffer_finish(&body);
}

static void test_large_json_and_compression(void **state)
{
    (void)state;
    enum { COUNT = 60000 };
    struct buffer body;
    buffer_init(&body, 4 << 20);
    buffer_printf(&body,
                  "{\"inputs\":[{\"name\":\"x\",\"shape\":[%d],\"datatype\":\"FP32\",\"data\":[",
                  COUNT);
    for (int i = 0; i < COUNT; i++) {
        buffer_printf(&body, i == 0 ? "%d" : ",%d.5", i);
    }
    buffer_text(&body, "]}]}");
    struct response plain =
        ask_bytes("POST", "/v2/models/wide/infer", "", (struct bytes){ body.data, body.size });
    assert_int_equal(plain.status, 200);
    assert_non_null(strstr(plain.body, ",59998.5,59999.5]}]}"));
    struct buffer packed;
    buffer_init(&packed, 4 << 20);
    const struct bytes whole = { body.data, body.size };
    assert_int_equal(encoding_deflate(ENCODING_GZIP, &whole, 1, &packed, NULL), WEIR_OK);
    struct response answer = ask_bytes("POST", "/v2/models/wide/infer",
                                       "Content-Encoding: gzip\r\nAccept-Encoding: deflate\r\n",
                                       (struct bytes){ packed.data, packed.size });
    char found[128];
    assert_int_equal(answer.status, 200);
    assert_string_equal(field(&answer, "Content-Encoding", found), "deflate");
    struct buffer back;
    buffer_init(&back, 4 << 20);
    assert_int_equal(encoding_inflate(ENCODING_DEFLATE, (struct bytes){ answer.body, answer.size },
                                      1000, &back, NULL),
                     WEIR_OK);
    assert_int_equal(back.size, plain.size);
    assert_memory_equal(back.data, plain.body, plain.size);
    buffer_finish(&back);
    buffer_finish(&packed);
    buffer_finish(&body);
    response_finish(&plain);
    response_finish(&answer);
}

static void test_timing_and_identity(void **state)
{
    (void)state;
    char found[128];
    struct response response =
        ask_bytes("POST", "/v2/models/echo/infer",
                  "Weir-Timing: 1\r\nX-Request-Id: me-7\r\n"
                  "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
                  BYTES_LITERAL("{\"inputs\":[" INPUT "],\"parameters\":{\"weir_timing\":true}}"));
    assert_int_equal(response.status, 200);
    assert_non_null(strstr(field(&response, "Server-Timing", found), "queue;dur="));
    assert_non_null(strstr(found, ", compute;dur="));
    assert_string_equal(field(&response, "X-Request-Id", found), "me-7");
    assert_string_equal(field(&response, "traceparent", found),
                        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    yyjson_doc *doc = NULL;
    assert_int_equal(json_read((struct bytes){ response.body, response.size }, &doc, NULL),
                     WEIR_OK);
    yyjson_val *parameters = yyjson_obj_get(yyjson_doc_get_root(doc), "parameters");
    assert_true(yyjson_is_num(yyjson_obj_get(parameters, "total_ms")));
    yyjson_doc_free(doc);
    response_finish(&response);
    response = ask_bytes("POST", "/v2/models/echo/infer",
                         "X-Request-Id: a b\r\ntraceparent: 00-XYZ\r\n", BYTES_LITERAL(ECHO_BODY));
    assert_string_equal(field(&response, "X-Request-Id", found), "");
    assert_string_equal(field(&response, "traceparent", found), "");
    assert_string_equal(field(&response, "Server-Timing", found), "");
    response_finish(&response);
}

/* Why requests failed in the tests before. */
static void test_failures_are_counted_by_reason(void **state)
{
    (void)state;
    struct response response = ask("GET", "/metrics", "");
    static const char late[] =
        "\nnv_inference_request_failure{model=\"lasting\",reason=\"REJECTED\",version=\"1\"} ";
    static const char gone[] =
        "\nnv_inference_request_failure{model=\"slow\",reason=\"CANCELED\",version=\"1\"} ";
    static const char broken[] =
        "\nnv_inference_request_failure{model=\"poison\",reason=\"BACKEND\",version=\"1\"} ";
    while (sample(&response, late) < late_count) { /* The last one's run may not have ended. */
        response_finish(&response);
        response = ask("GET", "/metrics", "");
    }
    assert_int_equal(sample(&response, late), late_count);
    assert_in_range(sample(&response, gone), 1, 16);
    assert_int_equal(sample(&response, broken), 1);
    response_finish(&response);
}

/* Every family once, with a help text; samples of a model that ran. */
static void test_metrics(void **state)
{
    (void)state;
    expect("POST", "/v2/models/metered/infer", "", ECHO_BODY, 200, "");
    struct response response = ask("GET", "/metrics", "");
    assert_int_equal(response.status, 200);
    const char *names[256];
    size_t sizes[256];
    size_t count = 0;
    for (const char *at = strstr(response.body, "# TYPE "); at != NULL;
         at = strstr(at + 1, "# TYPE ")) {
        names[count] = at + 7;
        sizes[count] = strcspn(at + 7, " ");
        for (size_t i = 0; i < count; i++) {
            assert_false(sizes[i] == sizes[count] && memcmp(names[i], names[count], sizes[i]) == 0);
        }
        count++;
    }
    assert_true(count > 30);
    static const char *const samples[] = {
        "\nnv_inference_request_success{model=\"metered\",version=\"1\"} 1\n",
        "\nnv_inference_count{model=\"metered\",version=\"1\"} 1\n",
        "\nnv_inference_exec_count{model=\"metered\",version=\"1\"} ",
        "\nnv_inference_request_duration_us{model=\"metered\",version=\"1\"} ",
        "\nnv_inference_queue_duration_us{model=\"metered\",version=\"1\"} ",
        "\nnv_inference_compute_input_duration_us{model=\"metered\",version=\"1\"} ",
        "\nnv_inference_compute_infer_duration_us{model=\"metered\",version=\"1\"} ",
        "\nnv_inference_compute_output_duration_us{model=\"metered\",version=\"1\"} ",
        "\nnv_inference_pending_request_count{model=\"metered\",version=\"1\"} 0\n",
        "\nnv_inference_request_failure{model=\"metered\",reason=\"REJECTED\",version=\"1\"} 0\n",
        "\nnv_inference_request_failure{model=\"metered\",reason=\"OTHER\",version=\"1\"} 0\n",
        "\nnv_cpu_utilization ",
        "\nweir_http_responses_total{code=\"200\"} ",
        "\nweir_request_total_seconds_count{model=\"metered\",version=\"1\"} 1\n",
        "\nweir_models{state=\"UNAVAILABLE\"} 1\n",
    };
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        if (strstr(response.body, samples[i]) == NULL) {
            fail_msg("no %s in\n%s", samples[i], response.body);
        }
    }
    response_finish(&response);
}

static void test_statistics_have_every_key(void **state)
{
    (void)state;
    expect("POST", "/v2/models/counted/infer", "", ECHO_BODY, 200, "");
    struct response response = ask("GET", "/v2/models/counted/stats", "");
    yyjson_doc *doc = NULL;
    assert_int_equal(json_read((struct bytes){ response.body, response.size }, &doc, NULL),
                     WEIR_OK);
    yyjson_val *model =
        yyjson_arr_get_first(yyjson_obj_get(yyjson_doc_get_root(doc), "model_stats"));
    assert_true(yyjson_equals_str(yyjson_obj_get(model, "version"), "1"));
    assert_int_equal(yyjson_get_uint(yyjson_obj_get(model, "inference_count")), 1);
    static const char *const counted[] = { "success", "queue", "compute_input", "compute_infer",
                                           "compute_output" };
    static const char *const zero[] = { "fail", "cache_hit", "cache_miss" };
    yyjson_val *stats = yyjson_obj_get(model, "inference_stats");
    for (size_t i = 0; i < 5; i++) {
        yyjson_val *entry = yyjson_obj_get(stats, counted[i]);
        assert_int_equal(yyjson_get_uint(yyjson_obj_get(entry, "count")), 1);
        assert_true(yyjson_is_uint(yyjson_obj_get(entry, "ns")));
    }
    for (size_t i = 0; i < 3; i++) {
        yyjson_val *entry = yyjson_obj_get(stats, zero[i]);
        assert_true(yyjson_is_uint(yyjson_obj_get(entry, "count")));
    }
    static const char *const timed[] = { "queue", "gather", "compute", "total" };
    yyjson_val *latency = yyjson_obj_get(model, "latency");
    for (size_t i = 0; i < 4; i++) {
        yyjson_val *times = yyjson_obj_get(latency, timed[i]);
        const double most = yyjson_get_num(yyjson_obj_get(times, "max_us"));
        assert_int_equal(yyjson_get_uint(yyjson_obj_get(times, "count")), 1);
        assert_true(most >= 1);
        assert_true(yyjson_get_num(yyjson_obj_get(times, "p50_us")) == most); /* There is one. */
    }
    assert_true(yyjson_is_arr(yyjson_obj_get(model, "batch_stats")));
    assert_true(yyjson_is_obj(yyjson_obj_get(model, "response_stats")));
    assert_true(yyjson_is_arr(yyjson_obj_get(model, "memory_usage")));
    yyjson_doc_free(doc);
    response_finish(&response);
}

static void test_ready_until_drained(void **state)
{
    (void)state;
    const int fd = client_connect(&client);
    client_expect(fd, "GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n", 503, "{\"ready\":false}");
    expect("POST", "/v2/repository/models/broken/unload", "", "", 200, "");
    client_expect(fd, "GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n", 200, "{\"ready\":true}");
    api_drain(server.api);
    client_expect(fd, "GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n", 503, "{\"ready\":false}");
    client_expect(fd, "GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n", 200, "{\"live\":true}");
    close(fd);
}

int main(void)
{
    /* One server for all, since its models take time to load; the last two change it. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_in_and_out),
        cmocka_unit_test(test_binary_in_and_out),
        cmocka_unit_test(test_what_goes_wrong_and_with_which_status),
        cmocka_unit_test(test_metadata_and_administration),
        cmocka_unit_test(test_log_settings_read_back),
        cmocka_unit_test(test_a_deadline_is_answered_while_the_model_runs),
        cmocka_unit_test(test_clients_that_hang_up_do_no_harm),
        cmocka_unit_test(test_generate),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_a_stream_waits_for_its_reader),
        cmocka_unit_test(test_large_json_and_compression),
        cmocka_unit_test(test_timing_and_identity),
        cmocka_unit_test(test_failures_are_counted_by_reason),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_statistics_have_every_key),
        cmocka_unit_test(test_memory_runs_out_anywhere),
        cmocka_unit_test(test_load_and_unload),
        cmocka_unit_test(test_ready_until_drained),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
