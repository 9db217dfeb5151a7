/*
 * Commands whose memory runs out: each allocation of each command fails in turn.
 *
 * The command ends with what it ends with otherwise, or with 1 and a sentence that says that memory
 * is out.  It leaves no descriptor, no file in shared memory and, which the sanitizer's build sees,
 * no memory behind.  The server that they ask is a process of its own, whose memory does not run
 * out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "built.h"
#include "cmd/cmd.h"
#include "faults.h"
#include "model_bed.h"
#include "server/server.h"
#include "util/log.h"

#define NTH_MAX 2000
#define WORDS_MAX 48
#define TEXT_BYTES 8192
#define SHM_PREFIX "test-cli-faults-"

static struct model_bed bed; /* For its folders. */
static char plugin_path[512];
static uint16_t http_port;
static uint16_t grpc_port;
static char shm_prefix[64];
static char data_path[512];
static char source_path[512];
static int server_end = -1;

/* --- The server ----------------------------------------------------------------------------- */

static void put_models(void)
{
    static const char *const files[][2] = {
        { "echo/1/", "" },
        { "echo/model.yaml", "backend: sim\nmax_batch_size: 8\n" },
        { "other/1/", "" },
        { "other/model.yaml", "backend: sim\nmax_batch_size: 8\n" },
        { "texts/1/", "" },
        { "texts/model.yaml", "backend: sim\nparameters:\n  inputs: \"t:BYTES[-1]\"\n"
                              "  outputs: \"u:BYTES[-1]\"\n" },
        { "masks/1/", "" },
        { "masks/model.yaml", "backend: sim\nparameters:\n  inputs: \"image:FP32[16,16]\"\n"
                              "  outputs: \"mask:FP32[16,16]\"\n" },
        { "wide/1/", "" },
        { "wide/model.yaml", "backend: sim\nparameters:\n  inputs: \"image:FP64[16,16]\"\n"
                             "  outputs: \"mask:FP32[16,16]\"\n" },
        { "failing/1/", "" },
        { "failing/model.yaml", "backend: sim\nparameters: { poison: 0 }\n" },
        { "twice/1/factor.txt", "2\n" },
        { "sums/model.yaml",
          "max_batch_size: 4\nsequence_batching: { control_input: [{ name: start, control: "
          "[{ kind: CONTROL_SEQUENCE_START, int32_false_true: [0, 1] }] }] }\n" },
        { "recorded", "0\n0.001\n0.002\n" },
    };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        model_bed_put(&bed, 0, files[i][0], files[i][1]);
    }
    model_bed_copy(&bed, 0, "sums", "accumulate");
}

/* In the child: serves until the other end of `until` is closed. */
static int serve(int tell, int until)
{
    char prefix[96];
    (void)snprintf(prefix, sizeof(prefix), "--shared-memory=%s", shm_prefix);
    char *words[] = { bed.folders[0],
                      (char[]){ "--http-port=0" },
                      (char[]){ "--grpc-port=0" },
                      (char[]){ "--metrics-port=0" },
                      (char[]){ "--loops=1" },
                      (char[]){ "--executors=1" },
                      (char[]){ "--model-control=explicit" },
                      (char[]){ "--load-model=echo,other,texts,masks,wide,failing" },
                      prefix };
    struct config config;
    struct server *server;
    struct weir_err err = { 0 };
    struct config_words meaning = { .positional = "repository" };
    if (config_init(&config, &err) != WEIR_OK ||
        config_read(&config, NULL, sizeof(words) / sizeof(*words), words, &meaning, &err) !=
            WEIR_OK ||
        server_start(&config, SERVER_SERVE, &server, &err) != WEIR_OK ||
        !server_wait_models(server)) {
        (void)fprintf(stderr, "the server does not start: %s\n", err.text);
        return 1;
    }
    struct buffer text;
    buffer_init(&text, TEXT_BYTES);
    server_addresses(server, &text);
    buffer_char(&text, '\0');
    char end;
    (void)!write(tell, text.data, text.size);
    (void)!read(until, &end, 1);
    return 0;
}

/* The descriptor to close. */
static int start_server(void)
{
    int told[2];
    int until[2];
    char text[TEXT_BYTES] = "";
    assert_int_equal(pipe2(told, O_CLOEXEC), 0);
    assert_int_equal(pipe2(until, O_CLOEXEC), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)close(until[1]);
        _exit(serve(told[1], until[0]));
    }
    (void)close(told[1]);
    (void)close(until[0]);
    assert_true(read(told[0], text, sizeof(text) - 1) > 0);
    (void)close(told[0]);
    if (sscanf(text, "http://127.0.0.1:%hu http://127.0.0.1:%hu", &http_port, &grpc_port) != 2) {
        fail_msg("%s", text);
    }
    return until[1];
}

/* --- A command ------------------------------------------------------------------------------ */

struct command {
    cmd_fn *run;
    /* HTTP, GRPC, FOLDER, SOURCE, DATA, SHM and PLUGIN stand for those of this test. */
    const char *words;
    const char *same; /* What it prints up to here is always the same; NULL: nothing of it. */
    bool judges;      /* Whether it ends with 0 or 1 also depends on how fast the machine is. */
};

/* What it has printed. */
struct printed {
    char out[TEXT_BYTES];
    char err[TEXT_BYTES];
};

static void spell(const char *word, char *out, size_t size)
{
    char http[64];
    char grpc[64];
    (void)snprintf(http, sizeof(http), "--url=http://127.0.0.1:%u", http_port);
    (void)snprintf(grpc, sizeof(grpc), "--url=http://127.0.0.1:%u", grpc_port);
    const char *const names[][2] = {
        { "HTTP", http },          { "GRPC", grpc },      { "FOLDER", bed.folders[0] },
        { "SOURCE", source_path }, { "DATA", data_path }, { "SHM", shm_prefix },
        { "PLUGIN", plugin_path },
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *at = strstr(word, names[i][0]);
        if (at != NULL) {
            (void)snprintf(out, size, "%.*s%s%s", (int)(at - word), word, names[i][1],
                           at + strlen(names[i][0]));
            return;
        }
    }
    (void)snprintf(out, size, "%s", word);
}

/* Standard output and error go to files of their own meanwhile. */
static int redirect(int fd, int to)
{
    const int kept = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    assert_true(kept >= 0 && dup2(to, fd) == fd);
    return kept;
}

static void restore(int fd, int kept, int from, char *text)
{
    assert_true(dup2(kept, fd) == fd);
    (void)close(kept);
    const ssize_t size = pread(from, text, TEXT_BYTES - 1, 0);
    assert_true(size >= 0);
    text[size] = '\0';
    (void)close(from);
}

static int memory_file(void)
{
    char name[] = "/tmp/weir-cli-faults-XXXXXX";
    const int fd = mkostemp(name, O_CLOEXEC);
    assert_true(fd >= 0);
    (void)unlink(name);
    return fd;
}

static int run(const struct command *command, uint64_t nth, uint64_t *made, struct printed *printed)
{
    static char text[WORDS_MAX][1024];
    char line[1024];
    char *words[WORDS_MAX];
    int count = 0;
    char *rest = NULL;
    (void)snprintf(line, sizeof(line), "%s", command->words);
    for (char *word = strtok_r(line, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        assert_true(count < WORDS_MAX);
        spell(word, text[count], sizeof(text[count]));
        words[count] = text[count];
        count++;
    }
    const int out = memory_file();
    const int err = memory_file();
    (void)fflush(NULL);
    const int kept_out = redirect(STDOUT_FILENO, out);
    const int kept_err = redirect(STDERR_FILENO, err);
    (void)mem_fault_arm(nth);
    const int code = command->run(count, words);
    *made = mem_fault_arm(0);
    (void)fflush(NULL);
    restore(STDERR_FILENO, kept_err, err, printed->err);
    restore(STDOUT_FILENO, kept_out, out, printed->out);
    return code;
}

/* --- What it leaves behind ------------------------------------------------------------------ */

static unsigned count_entries(const char *path, const char *prefix)
{
    unsigned count = 0;
    DIR *folder = opendir(path);
    assert_non_null(folder);
    for (const struct dirent *item = readdir(folder); item != NULL; item = readdir(folder)) {
        count += strncmp(item->d_name, prefix, strlen(prefix)) == 0;
    }
    (void)closedir(folder);
    return count;
}

static bool same_words(const struct command *command, const char *a, const char *b)
{
    if (command->same == NULL) {
        return true;
    }
    const char *end = strstr(a, command->same);
    const size_t size = end == NULL ? strlen(a) : (size_t)(end - a);
    return strncmp(a, b, size) == 0 && (end != NULL || b[size] == '\0');
}

static bool says_so(const char *text)
{
    return strstr(text, "out of memory") != NULL || strstr(text, "annot allocate memory") != NULL;
}

static void check(const struct command *command, uint64_t nth, int code,
                  const struct printed *printed, int usual_code, const struct printed *usual)
{
    const bool judged = command->judges && strstr(printed->err, "invalid") != NULL;
    const bool as_usual = (code == usual_code || command->judges) && code <= CMD_FAILED &&
                          (code == CMD_OK || judged || printed->err[0] == '\0') &&
                          same_words(command, usual->out, printed->out) &&
                          (usual->out[0] == '\0') == (printed->out[0] == '\0');
    const bool said = code == CMD_FAILED && (says_so(printed->err) || says_so(printed->out));
    if (!as_usual && !said) {
        fail_msg("%s\nallocation %u: exit code %d\n%s\n%s", command->words, (unsigned)nth, code,
                 printed->out, printed->err);
    }
}

static void torture(const struct command *command)
{
    struct printed usual;
    struct printed printed;
    uint64_t made;
    const int usual_code = run(command, 0, &made, &usual);
    if (usual_code != CMD_OK && !(command->judges && strstr(usual.err, "invalid") != NULL)) {
        fail_msg("%s: exit code %d\n%s", command->words, usual_code, usual.err);
    }
    const unsigned open_before = count_entries("/proc/self/fd", "");
    for (uint64_t nth = 1; made + 1 >= nth; nth++) {
        assert_true(nth < NTH_MAX);
        const int code = run(command, nth, &made, &printed);
        check(command, nth, code, &printed, usual_code, &usual);
        assert_int_equal(count_entries("/proc/self/fd", ""), open_before);
        assert_int_equal(count_entries("/dev/shm", shm_prefix), 0);
    }
}

#define ROW "1,2,3,4,5,6,7,8,9,10,11,12,13.5,14,15,16"
#define FEW " --requests 2 --variants 2 --connections 1 --duration 20s --timeout 60s"
#define OPEN " --variants 1 --connections 1 --duration 5ms --warmup 0s --drain 60s --timeout 60s"

static const struct command asking[] = {
    { cmd_infer, "echo HTTP", "", false },
    { cmd_infer, "echo HTTP --json", "", false },
    { cmd_infer, "echo HTTP --input x=" ROW, "answered in", false },
    { cmd_infer, "echo HTTP --json --input x=" ROW, "\"elapsed_ms\"", false },
    { cmd_infer, "texts HTTP --input t=[\"a\",\"b\"]", "answered in", false },
    { cmd_infer, "texts HTTP --input t=word", "answered in", false },
    { cmd_infer, "echo GRPC --grpc", "", false },
    { cmd_infer, "echo GRPC --grpc --repeat 2 --input x=" ROW, "2 requests", false },
    { cmd_infer,
      "masks HTTP --input image=@SOURCE/tests/fuzz/corpus/image/rgb.png --overlay=FOLDER/a.png "
      "--output=FOLDER/b.png --output=mask=FOLDER/c.npy",
      "answered in", false },
    { cmd_infer, "masks HTTP --input image=@FOLDER/c.npy", "answered in", false },
    { cmd_infer, "wide HTTP --input image=@FOLDER/c.npy", "answered in", false },
    { cmd_infer, "echo --local FOLDER --input x=" ROW, "answered in", false },
    { cmd_quarantine, "list HTTP", "", false },
    { cmd_quarantine, "clear HTTP --model echo --json", "", false },
};

static const struct command measuring[] = {
    { cmd_bench, "echo HTTP --html=FOLDER/page.html --cpu 0" FEW, "closed loop", true },
    { cmd_bench, "echo HTTP --format json --csv" FEW, NULL, true },
    { cmd_bench, "failing HTTP --zero --json" FEW, NULL, true },
    { cmd_bench, "echo GRPC --grpc --json --deadline 60s --header a:b" FEW, NULL, true },
    { cmd_bench, "echo HTTP --shared-memory=SHM --class a:share=1 --class b:model=other" FEW, NULL,
      true },
    { cmd_bench, "echo GRPC --grpc --shared-memory=SHM" FEW, NULL, true },
    { cmd_bench, "echo HTTP --rate 400" OPEN, NULL, true },
    { cmd_bench, "echo HTTP --users 1 --rate 400" OPEN, NULL, true },
    { cmd_bench, "echo HTTP --input x=" ROW " --recorded=FOLDER/recorded" OPEN, NULL, true },
};

static const struct command reading[] = {
    { cmd_inspect, "DATA/models/external/1/model.onnx", "", false },
    { cmd_inspect, "DATA/models/external --config --json", "", false },
    { cmd_inspect, "FOLDER/sums --config", "", false },
    { cmd_config, "--json", "", false },
    { cmd_config, "--models", "", false },
    { cmd_key, "alice --allow manage --rate 5 --concurrency 2", NULL, false },
    { cmd_plugin_test, "PLUGIN FOLDER/twice/1 --runs 1", "promises kept", false },
};

static void torture_all(const struct command *commands, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        torture(&commands[i]);
    }
}

#define TORTURE_ALL(commands) torture_all(commands, sizeof(commands) / sizeof((commands)[0]))

static void test_asking(void **state)
{
    (void)state;
    TORTURE_ALL(asking);
}

static void test_measuring(void **state)
{
    (void)state;
    TORTURE_ALL(measuring);
}

static void test_reading(void **state)
{
    (void)state;
    TORTURE_ALL(reading);
}

/* Commands read the environment, too: what is not for them is taken out of it. */
static void take_variable(const char *name, const char *otherwise, char *out, size_t size)
{
    const char *value = getenv(name);
    (void)snprintf(out, size, "%s", value == NULL ? otherwise : value);
    (void)unsetenv(name);
}

static int set_up(void **state)
{
    (void)state;
    (void)mem_fault_arm(0); /* Reads its variable. */
    (void)unsetenv("WEIR_FAULT_SITES");
    model_bed_init(&bed);
    put_models();
    take_variable("WEIR_TEST_DATA", "tests/data", data_path, sizeof(data_path));
    take_variable("WEIR_SOURCE_ROOT", ".", source_path, sizeof(source_path));
    built_path("plugins/hello.so", plugin_path, sizeof(plugin_path));
    (void)snprintf(shm_prefix, sizeof(shm_prefix), SHM_PREFIX "%d-", (int)getpid());
    server_end = start_server();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    int status = -1;
    (void)close(server_end);
    (void)wait(&status);
    model_bed_finish(&bed);
    return status == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asking),
        cmocka_unit_test(test_measuring),
        cmocka_unit_test(test_reading),
    };
    server_block_signals();
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
