/*
 * config: the stronger source wins, and every mistake is named with where it is, what was found and
 * what is allowed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/config.h"
#include "server/option.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/json.h"
#include "util/mem.h"

#define WORDS_MAX 8

/* One reading: what is in weir.yaml (NULL: no file), one variable, and the words. */
struct reading {
    const char *file;
    const char *variable;
    const char *words[WORDS_MAX]; /* NULL at the end. */
};

static char folder[] = "/tmp/weir-config-XXXXXX";

static const char *const own_flags[] = { "--check", "--json", NULL };

/* With `fault` the nth allocation of the reading fails. */
static enum weir_status read_faulty(struct config *config, const struct reading *reading,
                                    uint64_t fault, struct config_words *meaning,
                                    struct weir_err *err)
{
    (void)unlink("weir.yaml");
    if (reading->file != NULL) {
        assert_int_equal(file_write("weir.yaml", reading->file, strlen(reading->file), NULL),
                         WEIR_OK);
    }
    char *environment[] = { (char *)(uintptr_t)reading->variable, NULL };
    char *words[WORDS_MAX + 1] = { NULL };
    int count = 0;
    for (; reading->words[count] != NULL; count++) {
        words[count] = (char *)(uintptr_t)reading->words[count];
    }
    *err = (struct weir_err){ 0 };
    (void)mem_fault_arm(fault);
    enum weir_status status = config_init(config, err);
    if (status == WEIR_OK) {
        status = config_read(config, environment, count, words, meaning, err);
    }
    (void)mem_fault_arm(0);
    return status;
}

static enum weir_status read_with(struct config *config, const struct reading *reading,
                                  struct config_words *meaning, struct weir_err *err)
{
    return read_faulty(config, reading, 0, meaning, err);
}

static void read_well(struct config *config, const struct reading *reading)
{
    struct weir_err err;
    struct config_words meaning = { .positional = "repository", .own_flags = own_flags };
    const enum weir_status status = read_with(config, reading, &meaning, &err);
    if (status != WEIR_OK) {
        fail_msg("%s", err.text);
    }
}

static void assert_refused(const struct reading *reading, const char *sentence)
{
    struct config config;
    struct weir_err err;
    struct config_words meaning = { .positional = "repository", .own_flags = own_flags };
    const enum weir_status status = read_with(&config, reading, &meaning, &err);
    config_finish(&config);
    assert_int_not_equal(status, WEIR_OK);
    assert_string_equal(err.text, sentence);
}

static void test_defaults(void **state)
{
    (void)state;
    struct config config;
    read_well(&config, &(struct reading){ 0 });
    assert_null(config.file);
    assert_int_equal(config.repository.count, 1);
    assert_string_equal(config.repository.items[0], "models");
    assert_int_equal(config.model_control, CONTROL_ALL);
    assert_string_equal(config.host, "127.0.0.1");
    assert_int_equal(config.http_port, 8000);
    assert_int_equal(config.grpc_port, 8001);
    assert_int_equal(config.metrics_port, 8002);
    assert_true(config.loops >= 1);
    assert_true(config.executors >= 1);
    assert_true(config.inline_runs);
    assert_int_equal(config.log_level, LOG_INFO);
    assert_int_equal(config.limits.requests_max, 1024);
    assert_true(config.limits.idle_timeout_ns == 60 * NS_PER_S);
    config_finish(&config);
}

static void test_the_stronger_source_wins(void **state)
{
    (void)state;
    const char file[] = "http_port: 9001\n";
    struct config config;
    read_well(&config, &(struct reading){ .file = file });
    assert_int_equal(config.http_port, 9001);
    assert_string_equal(config.file, "weir.yaml");
    config_finish(&config);
    read_well(&config, &(struct reading){ .file = file, .variable = "WEIR_HTTP_PORT=9002" });
    assert_int_equal(config.http_port, 9002);
    config_finish(&config);
    read_well(&config, &(struct reading){ .file = file,
                                          .variable = "WEIR_HTTP_PORT=9002",
                                          .words = { "--http-port", "9003" } });
    assert_int_equal(config.http_port, 9003);
    config_finish(&config);
}

static void test_every_kind_of_value_from_every_source(void **state)
{
    (void)state;
    struct config config;
    read_well(&config, &(struct reading){ .file = "pin: true\n"
                                                  "log_level: debug\n"
                                                  "name: joe\n"
                                                  "repository: [a, b]\n"
                                                  "limits:\n"
                                                  "  body_bytes_max: 2MiB\n"
                                                  "  idle_timeout: 5s\n"
                                                  "  connections_max: 7\n" });
    assert_true(config.pin);
    assert_int_equal(config.log_level, LOG_DEBUG);
    assert_string_equal(config.name, "joe");
    assert_int_equal(config.repository.count, 2);
    assert_string_equal(config.repository.items[1], "b");
    assert_int_equal(config.limits.body_bytes_max, 2 << 20);
    assert_true(config.limits.idle_timeout_ns == 5 * NS_PER_S);
    assert_int_equal(config.limits.connections_max, 7);
    config_finish(&config);

    read_well(&config, &(struct reading){ .variable = "WEIR_LIMITS_IDLE_TIMEOUT=250ms",
                                          .words = { "--pin", "--limits.body-bytes-max=1GiB",
                                                     "--repository", "x,y", "--name=" } });
    assert_true(config.pin);
    assert_true(config.limits.idle_timeout_ns == 250 * NS_PER_MS);
    assert_true(config.limits.body_bytes_max == UINT64_C(1) << 30);
    assert_int_equal(config.repository.count, 2);
    assert_string_equal(config.repository.items[0], "x");
    assert_string_equal(config.name, "");
    config_finish(&config);
}

/* In a file they are a list, or a text as elsewhere. */
static void test_the_last_share_holds_for_the_rest(void **state)
{
    (void)state;
    const struct reading readings[] = { { .file = "class_shares: [20, 5.5]\n" },
                                        { .file = "class_shares: [20, 5]\n" },
                                        { .file = "class_shares: 20,5\n" },
                                        { .words = { "--class-shares", "20,5" } } };
    assert_refused(&readings[0], "class_shares: found '5.5', expected a whole number of per cent "
                                 "from 0 to 100");
    for (size_t i = 1; i < sizeof(readings) / sizeof(*readings); i++) {
        struct config config;
        read_well(&config, &readings[i]);
        assert_int_equal(config.order.shares[0], 20 * (ORDER_SHARE_ALL / 100));
        for (uint32_t k = 1; k < ORDER_CLASSES; k++) {
            assert_int_equal(config.order.shares[k], 5 * (ORDER_SHARE_ALL / 100));
        }
        config_finish(&config);
    }
}

static void test_words_are_repositories_and_replace_weaker_ones(void **state)
{
    (void)state;
    struct config config;
    read_well(&config, &(struct reading){ .file = "repository: [a, b]\n",
                                          .words = { "c,d", "--pin=false", "e" } });
    assert_int_equal(config.repository.count, 2);
    assert_string_equal(config.repository.items[0], "c,d");
    assert_string_equal(config.repository.items[1], "e");
    config_finish(&config);
}

static void test_own_flags_are_told_apart(void **state)
{
    (void)state;
    struct config config;
    struct weir_err err;
    struct config_words meaning = { .positional = "repository", .own_flags = own_flags };
    const struct reading reading = { .words = { "--json", "m" } };
    assert_int_equal(read_with(&config, &reading, &meaning, &err), WEIR_OK);
    assert_int_equal(meaning.given, 1 << 1);
    config_finish(&config);
}

static void test_the_file_is_chosen(void **state)
{
    (void)state;
    struct config config;
    assert_int_equal(file_write("other.yaml", "http_port: 9100\n", 16, NULL), WEIR_OK);
    const char weaker[] = "http_port: 9001\n";
    read_well(&config, &(struct reading){ .file = weaker, .variable = "WEIR_CONFIG=other.yaml" });
    assert_int_equal(config.http_port, 9100);
    config_finish(&config);
    read_well(&config, &(struct reading){ .file = weaker, .words = { "--config", "other.yaml" } });
    assert_int_equal(config.http_port, 9100);
    config_finish(&config);
    read_well(&config, &(struct reading){ .file = weaker, .words = { "--config=other.yaml" } });
    assert_int_equal(config.http_port, 9100);
    assert_string_equal(config.file, "other.yaml");
    config_finish(&config);
}

static void test_variables_of_others_are_left_alone(void **state)
{
    (void)state;
    static const char *const variables[] = { "WEIR_BINARY=/weir", "WEIR_TEST_DATA=x",
                                             "WEIR_PORT=tcp://10.0.0.1:8000", "WEIRD=yes",
                                             "WEIR_SERVICE_HOST=10.0.0.1" };
    for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++) {
        struct config config;
        read_well(&config, &(struct reading){ .variable = variables[i] });
        assert_int_equal(config.port, 0);
        config_finish(&config);
    }
}

static void test_zero_for_bodies_is_a_quarter_of_memory(void **state)
{
    (void)state;
    struct config config;
    read_well(&config, &(struct reading){ .words = { "--limits.bodies-bytes-max", "0" } });
    assert_true(config.limits.bodies_bytes_max == limits_memory_bytes() / 4);
    config_finish(&config);
}

#define NAME_OF_64 "npu-of-the-second-rack-in-the-room-behind-the-stairs-of-the-hall"
#define LISTS " (`weir config --explain` lists all)"

static const struct {
    struct reading reading;
    const char *sentence;
} mistakes[] = {
    { { .file = "pin: true\nhttp_prt: 1\n" },
      "weir.yaml:2: unknown setting 'http_prt'; did you mean 'http_port'?" LISTS },
    { { .file = "limits:\n  idle_timeouts: 1s\n" },
      "weir.yaml:2: unknown setting 'limits.idle_timeouts'; did you mean "
      "'limits.idle_timeout'?" LISTS },
    { { .file = "quux: 1\n" }, "weir.yaml:1: unknown setting 'quux'" LISTS },
    { { .file = "http_port: 65536\n" },
      "weir.yaml:1: http_port: found '65536', expected a whole number from 0 to 65535" },
    { { .file = "http_port: -1\n" },
      "weir.yaml:1: http_port: found '-1', expected a whole number from 0 to 65535" },
    { { .file = "pin: maybe\n" }, "weir.yaml:1: pin: found 'maybe', expected true or false" },
    { { .file = "log_level: loud\n" },
      "weir.yaml:1: log_level: found 'loud', expected error, warning, info or debug" },
    { { .file = "model_control: some\n" },
      "weir.yaml:1: model_control: found 'some', expected all, explicit, poll or demand" },
    { { .file = "poll_interval: 15\n" },
      "weir.yaml:1: poll_interval: found '15', expected a duration such as 30s or 500ms" },
    { { .file = "limits: { body_bytes_max: lots }\n" },
      "weir.yaml:1: limits.body_bytes_max: found 'lots', expected a size above 0 such as 64MiB" },
    { { .file = "limits: { requests_max: 0 }\n" },
      "weir.yaml:1: limits.requests_max: found '0', expected a whole number from 1 to 1000000000" },
    { { .file = "limits: 3\n" }, "weir.yaml:1: limits: expected a map of limits" },
    { { .file = "host: [a]\n" }, "weir.yaml:1: host: found a list, expected a text" },
    { { .file = "repository: { a: b }\n" },
      "weir.yaml:1: repository: found a map, expected a list" },
    { { .file = "repository: [[a]]\n" },
      "weir.yaml:1: repository: line 1 is no text, expected a list of texts" },
    { { .file = "- a\n" }, "weir.yaml: expected a map of settings" },
    { { .file = "repository: []\n" }, "repository: no folder, expected at least one" },
    { { .words = { "--load-model", "a" } },
      "load_model: found 'a' where all models are loaded, expected model_control to be explicit or "
      "demand" },
    { { .variable = "WEIR_HOSTS=x" },
      "environment: unknown variable 'WEIR_HOSTS'; did you mean 'WEIR_HOST'?" LISTS },
    { { .variable = "WEIR_PORT=x" },
      "WEIR_PORT: found 'x', expected a whole number from 0 to 65535" },
    { { .words = { "--htp-port", "1" } },
      "unknown option '--htp-port'; did you mean '--http-port'?" },
    { { .words = { "--http-port", "8001" } },
      "http_port and grpc_port: found 8001 for both, expected different ones; `port` sets one for "
      "everything" },
    { { .words = { "--metrics-port", "8000" } },
      "http_port and metrics_port: found 8000 for both, expected different ones; `port` sets one "
      "for everything" },
    { { .words = { "--http-port" } },
      "--http-port: nothing follows, expected a whole number from 0 to 65535" },
    { { .words = { "--http-port=" } },
      "--http-port: found '', expected a whole number from 0 to 65535" },
    { { .words = { "--pin=x" } }, "--pin: found 'x', expected true or false" },
    { { .words = { "--class-shares", "20,13" } },
      "class_shares: found 111 per cent for all 8 priorities, where the last number holds for the "
      "rest, expected at most 100" },
    { { .words = { "--class-shares", "20,x" } },
      "class_shares: found 'x', expected a whole number of per cent from 0 to 100" },
    { { .file = "class_shares: [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" },
      "class_shares: found 9 numbers, expected 1 to 8" },
    { { .file = "class_shares: []\n" }, "class_shares: found 0 numbers, expected 1 to 8" },
    { { .words = { "--processors", "foo" } },
      "processors: found 'foo', expected auto, off or numbers such as 0-7,16" },
    { { .words = { "--devices", "npu" } },
      "devices: found 'npu', expected NAME:RUNS such as npu:1, with 1 to 256 runs, or "
      "NAME:RUNS:unpipelined" },
    { { .words = { "--devices", "npu0:1,npu1:2" } },
      "device 'npu1': found 2 runs, expected 1 as 'npu0' has, which is of the same pool 'npu'" },
    { { .words = { "--devices", NAME_OF_64 ":1" } },
      "devices: found '" NAME_OF_64 ":1', expected a name of at most 63 characters" },
    { { .words = { "--config" } }, "--config: nothing follows, expected a file" },
    { { .words = { "--host", "0.0.0.0" } },
      "host: found '0.0.0.0', expected a loopback address such as 127.0.0.1; to let other machines "
      "in, give --api-keys or --tls-client-ca, or --allow-wide-bind too: then anybody who reaches "
      "the port can use it" },
};

static void test_mistakes_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(*mistakes); i++) {
        assert_refused(&mistakes[i].reading, mistakes[i].sentence);
    }
}

static void test_a_missing_or_broken_file_is_named(void **state)
{
    (void)state;
    struct config config;
    struct weir_err err;
    struct config_words meaning = { 0 };
    const struct reading missing = { .words = { "--config", "none.yaml" } };
    assert_int_equal(read_with(&config, &missing, &meaning, &err), WEIR_ENOENT);
    assert_non_null(strstr(err.text, "none.yaml"));
    config_finish(&config);
    const struct reading broken = { .file = "a: [1\n" };
    assert_int_equal(read_with(&config, &broken, &meaning, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, "weir.yaml:"));
    config_finish(&config);
}

static void test_words_where_none_belong(void **state)
{
    (void)state;
    struct config config;
    struct weir_err err;
    struct config_words meaning = { 0 };
    const struct reading reading = { .words = { "models" } };
    assert_int_equal(read_with(&config, &reading, &meaning, &err), WEIR_EINVAL);
    assert_string_equal(err.text, "unexpected word 'models', expected options only");
    config_finish(&config);
}

static void test_wide_bind_needs_a_flag(void **state)
{
    (void)state;
    struct config config;
    read_well(&config, &(struct reading){ .words = { "--host", "0.0.0.0", "--allow-wide-bind" } });
    assert_string_equal(config.host, "0.0.0.0");
    config_finish(&config);
}

static void test_explain_shows_every_setting_and_its_origin(void **state)
{
    (void)state;
    struct config config;
    read_well(&config, &(struct reading){ .file = "\nname: joe\n",
                                          .variable = "WEIR_PIN=true",
                                          .words = { "--http-port", "9" } });
    struct buffer out;
    buffer_init(&out, 1 << 20);
    config_explain(&config, false, &out);
    buffer_char(&out, '\0');
    assert_false(out.failed);
    assert_non_null(strstr(out.data, "  name: joe   (weir.yaml:2)\n"));
    assert_non_null(strstr(out.data, "  pin: true   (environment)\n"));
    assert_non_null(strstr(out.data, "  http_port: 9   (command line)\n"));
    assert_non_null(strstr(out.data, "  limits.idle_timeout: 1 min\n"));
    buffer_clear(&out);

    config_explain(&config, true, &out);
    yyjson_doc *doc = NULL;
    assert_int_equal(json_read((struct bytes){ out.data, out.size }, &doc, NULL), WEIR_OK);
    assert_int_equal(yyjson_arr_size(yyjson_doc_get_root(doc)), option_count);
    yyjson_doc_free(doc);
    buffer_finish(&out);
    config_finish(&config);
}

/* What is printed as a setting's value means the same when it is read again. */
static void test_formatted_values_read_back(void **state)
{
    (void)state;
    struct config config;
    read_well(&config, &(struct reading){ 0 });
    for (size_t i = 0; i < option_count; i++) {
        struct buffer before;
        struct buffer after;
        struct weir_err err = { 0 };
        buffer_init(&before, 1 << 16);
        buffer_init(&after, 1 << 16);
        /* Sizes are rounded for people: memory's quarter need not be a round number. */
        const bool rounded = strcmp(options[i].key, "limits.bodies_bytes_max") == 0;
        option_format(&config, &options[i], &before);
        buffer_char(&before, '\0');
        if (options[i].kind == KIND_LIST) {
            option_clear(&config, &options[i]);
        }
        assert_int_equal(option_read(&config, &options[i], before.data, "here", &err), WEIR_OK);
        option_format(&config, &options[i], &after);
        buffer_char(&after, '\0');
        assert_true(rounded || strcmp(before.data, after.data) == 0);
        buffer_finish(&before);
        buffer_finish(&after);
    }
    config_finish(&config);
}

static void test_help_names_every_flag(void **state)
{
    (void)state;
    struct buffer out;
    buffer_init(&out, 1 << 20);
    config_help(&out);
    buffer_char(&out, '\0');
    for (size_t i = 0; i < option_count; i++) {
        char flag[OPTION_WORD_BYTES + 4];
        option_flag(&options[i], flag);
        (void)strcat(flag, " ");
        assert_non_null(strstr(out.data, flag));
    }
    buffer_finish(&out);
}

/* Memory may run out at any of the allocations; nothing leaks and the last attempt succeeds. */
static void test_memory_may_run_out(void **state)
{
    (void)state;
    const struct reading reading = { .file = "repository: [a, b]\nname: joe\n",
                                     .words = { "--name", "ann", "c", "--pin", "--devices",
                                                "gpu0:1,gpu1:1" } };
    enum weir_status status = WEIR_ENOMEM;
    for (uint64_t nth = 1; nth < 100 && status != WEIR_OK; nth++) {
        struct config config;
        struct weir_err err;
        struct config_words meaning = { .positional = "repository" };
        status = read_faulty(&config, &reading, nth, &meaning, &err);
        config_finish(&config);
        assert_true(status == WEIR_OK || status == WEIR_ENOMEM);
    }
    assert_int_equal(status, WEIR_OK);
}

static int enter_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL || chdir(folder) != 0;
}

static int leave_folder(void **state)
{
    (void)state;
    (void)unlink("weir.yaml");
    (void)unlink("other.yaml");
    return chdir("/") != 0 || rmdir(folder) != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_the_stronger_source_wins),
        cmocka_unit_test(test_every_kind_of_value_from_every_source),
        cmocka_unit_test(test_the_last_share_holds_for_the_rest),
        cmocka_unit_test(test_words_are_repositories_and_replace_weaker_ones),
        cmocka_unit_test(test_own_flags_are_told_apart),
        cmocka_unit_test(test_the_file_is_chosen),
        cmocka_unit_test(test_variables_of_others_are_left_alone),
        cmocka_unit_test(test_zero_for_bodies_is_a_quarter_of_memory),
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_a_missing_or_broken_file_is_named),
        cmocka_unit_test(test_words_where_none_belong),
        cmocka_unit_test(test_wide_bind_needs_a_flag),
        cmocka_unit_test(test_explain_shows_every_setting_and_its_origin),
        cmocka_unit_test(test_formatted_values_read_back),
        cmocka_unit_test(test_help_names_every_flag),
        cmocka_unit_test(test_memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
