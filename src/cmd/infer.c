/*
 * `weir infer`: one question or many, to a server or right here.
 *
 * The model is asked what it takes before anything is read, so that files and
 * texts become the tensors it wants.  Every thread has a session of its own;
 * the first request's answer is the one that is shown and saved.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/input.h"
#include "cmd/output.h"
#include "cmd/picture.h"
#include "cmd/secure.h"
#include "cmd/session.h"
#include "cmd/term.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/json.h"
#include "util/mem.h"

#define DEFAULT_GRPC_URL "http://127.0.0.1:8001"
#define INPUTS_MAX 64
#define NAMES_BYTES_MAX 400
#define FILES_MAX 64
#define REPEAT_MAX 100000000
#define PARALLEL_MAX 1024
#define TIMED_ROWS 16 /* More requests than these are summed up only. */
#define PICTURE_BYTES_MAX ((size_t)1 << 30)

enum {
    OPTION_INPUT = 1,
    OPTION_OUTPUT,
    OPTION_OVERLAY,
    OPTION_URL,
    OPTION_GRPC,
    OPTION_LOCAL,
    OPTION_VERSION,
    OPTION_REPEAT,
    OPTION_PARALLEL,
    OPTION_TIMEOUT,
    OPTION_TIMING,
    OPTION_JSON,
};

static const struct flag flag_table[] = {
    { "--input", "NAME=VALUE", "one input; without any: what the model takes", OPTION_INPUT },
    { "--output", "[NAME=]FILE", "write an output as .npy, or .png if it is a picture",
      OPTION_OUTPUT },
    { "--overlay", "FILE.png", "paint the mask that comes out over the picture", OPTION_OVERLAY },
    { "--url", "URL", "the server, or unix:/PATH [" DEFAULT_URL "]", OPTION_URL },
    { "--grpc", NULL, "ask by gRPC, not REST [" DEFAULT_GRPC_URL "]", OPTION_GRPC },
    SECURE_FLAGS,
    { "--local", "FOLDER", "no server: run the model from this folder of models", OPTION_LOCAL },
    { "--version", "N", "this version of the model [the latest]", OPTION_VERSION },
    { "--repeat", "N", "ask N times [as often as --parallel]", OPTION_REPEAT },
    { "--parallel", "N", "with so many requests at once [1]", OPTION_PARALLEL },
    { "--timeout", "DURATION", "longest wait for an answer [5min]", OPTION_TIMEOUT },
    { "--timing", NULL, "say where the time went, request by request", OPTION_TIMING },
    { "--json", NULL, "print the answer as JSON", OPTION_JSON },
    FLAGS_END,
};

static const char no_threads[] = "the system has no threads left";

/* What was asked for on the command line. */
struct wish {
    const char *model;
    const char *inputs[INPUTS_MAX];
    uint32_t input_count;
    const char *files[FILES_MAX];
    uint32_t file_count;
    const char *overlay;
    const char *url;
    const char *local;
    bool grpc;
    uint64_t version;
    uint64_t repeat;
    uint64_t parallel;
    uint64_t timeout_ns;
    bool timing;
    bool json;
};

/* One request's times. */
struct record {
    uint64_t latency_ns;
    struct stages stages;
};

struct run {
    const struct wish *wish;
    struct session_options options;
    struct arena arena;
    struct interface model;
    struct value *inputs;
    uint32_t input_count;
    const char *picture; /* The first picture among the inputs; NULL: none. */
    struct record *records;
    uint64_t elapsed_ns;
    struct answer answer; /* Of the first request. */
    _Atomic uint64_t next;
    _Atomic uint64_t done;
    pthread_mutex_t lock; /* Guards status and err. */
    enum weir_status status;
    struct weir_err err;
};

static uint64_t now_ns(void)
{
    struct clock clock;
    clock_init(&clock);
    return clock_now_ns(&clock);
}

/* ---- The command line ------------------------------------------------------------------------ */

static enum weir_status take_word(struct wish *wish, const char *word, struct weir_err *err)
{
    if (wish->model != NULL) {
        return err_set(err, WEIR_EINVAL, "unexpected word '%s' after the model '%s'%s", word,
                       wish->model, strchr(word, '=') != NULL ? "; inputs follow --input" : "");
    }
    wish->model = word;
    return WEIR_OK;
}

static enum weir_status take_input(struct wish *wish, const char *word, struct weir_err *err)
{
    const enum weir_status status = input_check(word, err);
    return status == WEIR_OK
               ? flags_append("--input", wish->inputs, &wish->input_count, INPUTS_MAX, word, err)
               : status;
}

static enum weir_status take_option(void *context, int key, const char *value, struct weir_err *err)
{
    struct wish *wish = context;
    if (secure_take(key, value)) {
        return WEIR_OK;
    }
    switch (key) {
    case FLAGS_WORD:
        return take_word(wish, value, err);
    case OPTION_INPUT:
        return take_input(wish, value, err);
    case OPTION_OUTPUT:
        return flags_append("--output", wish->files, &wish->file_count, FILES_MAX, value, err);
    case OPTION_OVERLAY:
        wish->overlay = value;
        return WEIR_OK;
    case OPTION_URL:
        wish->url = value;
        return WEIR_OK;
    case OPTION_GRPC:
        wish->grpc = true;
        return WEIR_OK;
    case OPTION_LOCAL:
        wish->local = value;
        return WEIR_OK;
    case OPTION_VERSION:
        return flags_number("--version", value, INT64_MAX, &wish->version, err);
    case OPTION_REPEAT:
        return flags_number("--repeat", value, REPEAT_MAX, &wish->repeat, err);
    case OPTION_PARALLEL:
        return flags_number("--parallel", value, PARALLEL_MAX, &wish->parallel, err);
    case OPTION_TIMEOUT:
        return flags_duration("--timeout", value, &wish->timeout_ns, err);
    case OPTION_TIMING:
        wish->timing = true;
        return WEIR_OK;
    default:
        wish->json = true;
        return WEIR_OK;
    }
}

static enum weir_status read_words(struct wish *wish, int count, char **words, struct weir_err *err)
{
    *wish = (struct wish){ .parallel = 1, .timeout_ns = 300 * NS_PER_S };
    const enum weir_status status = flags_read(flag_table, count, words, take_option, wish, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (wish->model == NULL || wish->model[0] == '\0') {
        return err_set(err, WEIR_EINVAL, "no model named");
    }
    if (wish->url != NULL && wish->local != NULL) {
        return err_set(err, WEIR_EINVAL, "--url and --local exclude each other");
    }
    if (wish->grpc && wish->local != NULL) {
        return err_set(err, WEIR_EINVAL, "--grpc and --local exclude each other");
    }
    wish->grpc = wish->grpc || (wish->url != NULL && client_is_grpc(wish->url));
    if (wish->url == NULL) {
        wish->url = wish->grpc ? DEFAULT_GRPC_URL : DEFAULT_URL;
    }
    wish->repeat = wish->repeat == 0 ? wish->parallel : wish->repeat;
    wish->parallel = wish->parallel > wish->repeat ? wish->repeat : wish->parallel;
    return secure_check(wish->local == NULL && client_is_secure(wish->url), err);
}

/* ---- What the model takes -------------------------------------------------------------------- */

static const char *how_to_give(const struct spec *spec)
{
    struct layout layout;
    if (spec->dtype == DTYPE_BYTES) {
        return "a text, or @FILE";
    }
    return picture_layout(&spec->shape, &layout)
               ? "a picture: @FILE.png, .jpg or .webp; or @FILE.npy"
               : "numbers such as 1,2,3; or @FILE.npy";
}

static void explain(struct buffer *out, const struct interface *model)
{
    const bool color = term_color(stdout);
    char shape[SHAPE_TEXT];
    buffer_printf(out, "%s%s%s, version %s (%s)\n\n", term_bold(color), model->model,
                  term_plain(color), model->version, model->platform);
    for (uint32_t i = 0; i < model->input_count; i++) {
        const struct spec *spec = &model->inputs[i];
        buffer_printf(out, "  takes  %s%s%s  %s %s   %s\n", term_bold(color), spec->name,
                      term_plain(color), dtype_text(spec->dtype), shape_format(&spec->shape, shape),
                      how_to_give(spec));
    }
    for (uint32_t i = 0; i < model->output_count; i++) {
        const struct spec *spec = &model->outputs[i];
        buffer_printf(out, "  gives  %s%s%s  %s %s\n", term_bold(color), spec->name,
                      term_plain(color), dtype_text(spec->dtype),
                      shape_format(&spec->shape, shape));
    }
    buffer_printf(out, "\nAsk it: weir infer %s", model->model);
    for (uint32_t i = 0; i < model->input_count; i++) {
        buffer_printf(out, " --input %s=...", model->inputs[i].name);
    }
    buffer_char(out, '\n');
}

static void write_specs(struct buffer *out, const char *key, const struct spec *specs,
                        uint32_t count)
{
    json_key(out, key);
    buffer_char(out, '[');
    for (uint32_t i = 0; i < count; i++) {
        json_comma(out);
        output_describe(out, specs[i].name, specs[i].dtype, &specs[i].shape);
        buffer_char(out, '}');
    }
    buffer_char(out, ']');
}

static int describe(const struct run *run)
{
    struct buffer out;
    buffer_init(&out, CMD_REPORT_BYTES_MAX);
    if (run->wish->json) {
        buffer_char(&out, '{');
        json_key(&out, "name");
        json_string(&out, run->model.model);
        json_key(&out, "version");
        json_string(&out, run->model.version);
        json_key(&out, "platform");
        json_string(&out, run->model.platform);
        write_specs(&out, "inputs", run->model.inputs, run->model.input_count);
        write_specs(&out, "outputs", run->model.outputs, run->model.output_count);
        buffer_text(&out, "}\n");
    } else {
        explain(&out, &run->model);
    }
    const int code = cmd_print(&out);
    buffer_finish(&out);
    return code;
}

/* An option that is about an answer; NULL: none was given. */
static const char *answer_option(const struct wish *wish)
{
    return wish->file_count > 0    ? "--output"
           : wish->overlay != NULL ? "--overlay"
           : wish->timing          ? "--timing"
           : wish->parallel > 1    ? "--parallel"
           : wish->repeat > 1      ? "--repeat"
                                   : NULL;
}

/* Nothing is asked without inputs: who wants something of the answer has forgotten them. */
static int refuse_without_inputs(const struct run *run, const char *option)
{
    struct buffer names;
    buffer_init(&names, NAMES_BYTES_MAX);
    for (uint32_t i = 0; i < run->model.input_count; i++) {
        buffer_printf(&names, " --input %s=...", run->model.inputs[i].name);
    }
    const int code = cmd_usage("infer", "%s: found no inputs, expected%.*s", option,
                               (int)names.size, names.data == NULL ? "" : names.data);
    buffer_finish(&names);
    return code;
}

/* ---- Asking ---------------------------------------------------------------------------------- */

static enum weir_status read_inputs(struct run *run, struct weir_err *err)
{
    const struct wish *wish = run->wish;
    run->inputs = arena_try_zero(&run->arena, wish->input_count, sizeof(*run->inputs));
    run->records = arena_try_zero(&run->arena, wish->repeat, sizeof(*run->records));
    if (run->inputs == NULL || run->records == NULL) {
        return err_nomem(err, "the requests", wish->repeat * sizeof(*run->records));
    }
    for (uint32_t i = 0; i < wish->input_count; i++) {
        const char *picture = NULL;
        const enum weir_status status =
            input_read(&run->arena, wish->inputs[i], &run->model, &run->inputs[i], &picture, err);
        if (status != WEIR_OK) {
            return status;
        }
        run->picture = run->picture == NULL ? picture : run->picture;
        run->input_count++;
    }
    return WEIR_OK;
}

static void note_failure(struct run *run, enum weir_status status, const struct weir_err *err)
{
    pthread_mutex_lock(&run->lock);
    if (run->status == WEIR_OK) {
        run->status = status;
        run->err = *err;
    }
    pthread_mutex_unlock(&run->lock);
    atomic_store(&run->next, run->wish->repeat); /* Nobody begins another one. */
}

static enum weir_status ask(struct run *run, struct session *session, uint64_t index,
                            struct weir_err *err)
{
    struct answer answer;
    const enum weir_status status =
        session_infer(session, run->inputs, run->input_count, &answer, err);
    if (status != WEIR_OK) {
        return status;
    }
    run->records[index] = (struct record){ answer.latency_ns, answer.stages };
    atomic_fetch_add(&run->done, 1);
    if (index == 0) {
        run->answer = answer;
    } else {
        answer_finish(&answer);
    }
    return WEIR_OK;
}

static void *worker(void *argument)
{
    struct run *run = argument;
    struct session session;
    struct weir_err err = { 0 };
    enum weir_status status = session_open(&session, &run->options, &err);
    uint64_t index = atomic_fetch_add(&run->next, 1);
    while (status == WEIR_OK && index < run->wish->repeat) {
        status = ask(run, &session, index, &err);
        index = atomic_fetch_add(&run->next, 1);
    }
    if (status != WEIR_OK) {
        note_failure(run, status, &err);
    }
    session_close(&session);
    return NULL;
}

/* Shows how far it is until a thread is through. */
static void join(pthread_t thread, struct progress *progress, const _Atomic uint64_t *done)
{
    struct timespec tick;
    do {
        progress_step(progress, atomic_load(done));
        (void)clock_gettime(CLOCK_REALTIME, &tick);
        tick.tv_nsec += 100000000;
        tick.tv_sec += tick.tv_nsec / 1000000000;
        tick.tv_nsec %= 1000000000;
    } while (pthread_timedjoin_np(thread, NULL, &tick) != 0);
}

static void watch(struct run *run, pthread_t *threads, uint64_t count)
{
    struct progress progress;
    progress_begin(&progress, run->wish->repeat > 1 ? "requests" : "waiting for the answer",
                   run->wish->repeat > 1 ? run->wish->repeat : 0);
    for (uint64_t i = 0; i < count; i++) {
        join(threads[i], &progress, &run->done);
    }
    progress_end(&progress);
}

static enum weir_status ask_all(struct run *run, struct weir_err *err)
{
    const uint64_t count = run->wish->parallel;
    pthread_t *threads = arena_try_zero(&run->arena, count, sizeof(*threads));
    if (threads == NULL) {
        return err_nomem(err, "threads", count);
    }
    const uint64_t begun_ns = now_ns();
    uint64_t started = 0;
    while (started < count && pthread_create(&threads[started], NULL, worker, run) == 0) {
        started++;
    }
    if (started < count) {
        struct weir_err few;
        note_failure(run, err_set(&few, WEIR_ENOMEM, "%s", no_threads), &few);
    }
    watch(run, threads, started);
    run->elapsed_ns = now_ns() - begun_ns;
    if (run->status != WEIR_OK) {
        *err = run->err;
    }
    return run->status;
}

/* ---- Files ----------------------------------------------------------------------------------- */

/* "[NAME=]FILE": the output and the file's name. */
static enum weir_status find_output(const struct answer *answer, const char *word,
                                    const struct value **out, const char **path,
                                    struct weir_err *err)
{
    const size_t size = strcspn(word, "=");
    for (uint32_t i = 0; word[size] == '=' && i < answer->output_count; i++) {
        const char *name = answer->outputs[i].name;
        if (strlen(name) == size && strncmp(name, word, size) == 0) {
            *out = &answer->outputs[i];
            *path = word + size + 1;
            return WEIR_OK;
        }
    }
    if (word[size] == '=') {
        return err_set(err, WEIR_EINVAL, "--output: the model has no output '%.*s'", (int)size,
                       word);
    }
    if (answer->output_count != 1) {
        return err_set(err, WEIR_EINVAL,
                       "--output: the model has %u outputs, expected NAME=FILE to choose one",
                       answer->output_count);
    }
    *out = &answer->outputs[0];
    *path = word;
    return WEIR_OK;
}

static enum weir_status save_outputs(const struct run *run, struct weir_err *err)
{
    for (uint32_t i = 0; i < run->wish->file_count; i++) {
        const struct value *output = NULL;
        const char *path = NULL;
        enum weir_status status =
            find_output(&run->answer, run->wish->files[i], &output, &path, err);
        if (status == WEIR_OK) {
            status = output_save(output, path, err);
        }
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

/* The first output that is like a grey picture. */
static const struct value *find_mask(const struct answer *answer)
{
    for (uint32_t i = 0; i < answer->output_count; i++) {
        struct layout layout;
        const struct value *output = &answer->outputs[i];
        if (output->tensor.dtype != DTYPE_BYTES && picture_layout(&output->tensor.shape, &layout) &&
            layout.channels == 1) {
            return output;
        }
    }
    return NULL;
}

static enum weir_status read_picture(const char *path, struct image *out, struct weir_err *err)
{
    struct buffer file = { 0 };
    enum weir_status status = file_read(AT_FDCWD, path, PICTURE_BYTES_MAX, &file, err);
    if (status == WEIR_OK) {
        status = image_decode((struct bytes){ file.data, file.size }, 3, out, err);
    }
    buffer_finish(&file);
    return status;
}

static enum weir_status save_overlay(const struct run *run, struct weir_err *err)
{
    if (run->wish->overlay == NULL) {
        return WEIR_OK;
    }
    const struct value *mask = find_mask(&run->answer);
    if (mask == NULL || run->picture == NULL) {
        return err_set(err, WEIR_EINVAL, "--overlay: %s",
                       mask == NULL ? "no output is like a mask, expected rows x columns"
                                    : "no input is a picture, expected --input NAME=@PICTURE");
    }
    struct image picture = { 0 };
    struct image shade = { 0 };
    enum weir_status status = read_picture(run->picture, &picture, err);
    if (status == WEIR_OK) {
        status = picture_of(mask, &shade, err);
    }
    if (status == WEIR_OK) {
        status = picture_overlay(&picture, &shade, err);
    }
    if (status == WEIR_OK) {
        status = picture_save(&picture, run->wish->overlay, err);
    }
    image_finish(&picture);
    image_finish(&shade);
    return status;
}

/* ---- Reports --------------------------------------------------------------------------------- */

static double ms(uint64_t ns)
{
    return (double)ns / (double)NS_PER_MS;
}

static int by_latency(const void *a, const void *b)
{
    const uint64_t x = ((const struct record *)a)->latency_ns;
    const uint64_t y = ((const struct record *)b)->latency_ns;
    return (x > y) - (x < y);
}

static void write_rows(struct buffer *out, const struct run *run)
{
    const uint64_t count = run->wish->repeat;
    if (!run->wish->timing || count > TIMED_ROWS) {
        return;
    }
    buffer_text(out, "\n  request   latency     queue   compute   (ms; queue and compute in the "
                     "engine)\n");
    for (uint64_t i = 0; i < count; i++) {
        const struct record *record = &run->records[i];
        buffer_printf(out, "  %7llu  %8.2f", (unsigned long long)i + 1, ms(record->latency_ns));
        if (record->stages.known) {
            buffer_printf(out, "  %8.2f  %8.2f", ms(record->stages.queue_ns),
                          ms(record->stages.compute_ns));
        }
        buffer_char(out, '\n');
    }
}

static void write_totals(struct buffer *out, struct run *run)
{
    const uint64_t count = run->wish->repeat;
    const struct record *one = &run->records[0];
    if (count == 1) {
        buffer_printf(out, "\nanswered in %.2f ms", ms(one->latency_ns));
        if (one->stages.known) {
            buffer_printf(out, " (queue %.2f, compute %.2f)", ms(one->stages.queue_ns),
                          ms(one->stages.compute_ns));
        }
        buffer_char(out, '\n');
        return;
    }
    write_rows(out, run);
    qsort(run->records, count, sizeof(*run->records), by_latency);
    buffer_printf(out, "\n%llu requests, %llu at once: %.1f ms in all, %.1f per second\n",
                  (unsigned long long)count, (unsigned long long)run->wish->parallel,
                  ms(run->elapsed_ns), (double)count * 1e9 / (double)run->elapsed_ns);
    buffer_printf(out, "latency: least %.2f ms, median %.2f ms, most %.2f ms\n",
                  ms(run->records[0].latency_ns), ms(run->records[count / 2].latency_ns),
                  ms(run->records[count - 1].latency_ns));
}

static void report_json(struct buffer *out, const struct run *run)
{
    buffer_char(out, '{');
    json_key(out, "model_name");
    json_string(out, run->model.model);
    json_key(out, "model_version");
    json_string(out, run->answer.version != NULL ? run->answer.version : run->model.version);
    json_key(out, "outputs");
    output_json(out, &run->answer);
    json_key(out, "elapsed_ms");
    buffer_printf(out, "%.3f", ms(run->elapsed_ns));
    json_key(out, "requests");
    buffer_char(out, '[');
    for (uint64_t i = 0; i < run->wish->repeat; i++) {
        const struct record *record = &run->records[i];
        json_comma(out);
        buffer_printf(out, "{\"latency_ms\":%.3f", ms(record->latency_ns));
        if (record->stages.known) {
            buffer_printf(out, ",\"queue_ms\":%.3f,\"compute_ms\":%.3f,\"total_ms\":%.3f",
                          ms(record->stages.queue_ns), ms(record->stages.compute_ns),
                          ms(record->stages.total_ns));
        }
        buffer_char(out, '}');
    }
    buffer_text(out, "]}\n");
}

static void report_text(struct buffer *out, struct run *run)
{
    const bool color = term_color(stdout);
    const char *version = run->answer.version != NULL ? run->answer.version : run->model.version;
    buffer_printf(out, "%s%s%s, version %s\n", term_bold(color), run->model.model,
                  term_plain(color), version);
    output_summary(out, &run->answer, color);
    for (uint32_t i = 0; i < run->wish->file_count; i++) {
        buffer_printf(out, "  written: %s\n", run->wish->files[i]);
    }
    if (run->wish->overlay != NULL) {
        buffer_printf(out, "  overlay: %s\n", run->wish->overlay);
    }
    write_totals(out, run);
}

/* ---- All together ---------------------------------------------------------------------------- */

static void *loader(void *argument)
{
    struct run *run = argument;
    const struct weir_options options = { .repository = run->wish->local,
                                          .model = run->wish->model };
    run->status = weir_open(&options, &run->options.local, &run->err);
    return NULL;
}

static enum weir_status open_local(struct run *run, struct weir_err *err)
{
    struct progress progress;
    pthread_t thread;
    if (run->wish->local == NULL) {
        return WEIR_OK;
    }
    if (pthread_create(&thread, NULL, loader, run) != 0) {
        return err_set(err, WEIR_ENOMEM, "%s", no_threads);
    }
    progress_begin(&progress, "loading", 0);
    progress.detail = run->wish->model;
    join(thread, &progress, &run->done);
    progress_end(&progress);
    *err = run->err;
    return run->status;
}

static enum weir_status ask_what(struct run *run, struct weir_err *err)
{
    struct session session;
    enum weir_status status = session_open(&session, &run->options, err);
    if (status == WEIR_OK) {
        status = session_describe(&session, &run->arena, &run->model, err);
    }
    session_close(&session);
    return status;
}

static int infer(struct run *run, struct weir_err *err)
{
    enum weir_status status = open_local(run, err);
    if (status == WEIR_OK) {
        status = ask_what(run, err);
    }
    if (status == WEIR_OK && run->wish->input_count == 0 && run->model.input_count > 0) {
        const char *option = answer_option(run->wish);
        return option == NULL ? describe(run) : refuse_without_inputs(run, option);
    }
    if (status == WEIR_OK) {
        status = read_inputs(run, err);
    }
    if (status == WEIR_OK) {
        status = ask_all(run, err);
    }
    if (status == WEIR_OK) {
        status = save_outputs(run, err);
    }
    if (status == WEIR_OK) {
        status = save_overlay(run, err);
    }
    if (status != WEIR_OK) {
        return cmd_fail(status, err);
    }
    struct buffer out;
    buffer_init(&out, CMD_REPORT_BYTES_MAX);
    if (run->wish->json) {
        report_json(&out, run);
    } else {
        report_text(&out, run);
    }
    const int code = cmd_print(&out);
    buffer_finish(&out);
    return code;
}

int cmd_infer(int count, char **words)
{
    struct wish wish;
    struct weir_err err = { 0 };
    if (read_words(&wish, count, words, &err) != WEIR_OK) {
        return cmd_usage("infer", "%s", err.text);
    }
    struct run run = { .wish = &wish,
                       .options = { .url = wish.url,
                                    .grpc = wish.grpc,
                                    .model = wish.model,
                                    .version = wish.version,
                                    .timeout_ns = wish.timeout_ns } };
    arena_init(&run.arena, NULL, 0, 0);
    pthread_mutex_init(&run.lock, NULL);
    cmd_let_signals_end();
    const int code = infer(&run, &err);
    answer_finish(&run.answer);
    weir_close(run.options.local);
    arena_finish(&run.arena);
    pthread_mutex_destroy(&run.lock);
    if (weir_left_threads()) {
        cmd_leave(code);
    }
    return code;
}

void cmd_infer_help(struct buffer *out)
{
    buffer_text(out, "\nSends inputs to a model and shows what comes back.\n\n");
    flags_help(flag_table, out);
    buffer_text(out,
                "\nA VALUE is a text (1,2,3 or [[1,2],[3,4]] or words) or @FILE: an .npy file, a\n"
                "picture (PNG, JPEG, WebP), numbers as text.  Pictures are turned grey or RGB and\n"
                "scaled to the size that the model wants, 0..1 for floats.  A missing batch\n"
                "dimension is added.\n\n"
                "Examples:\n"
                "  weir infer segment\n"
                "  weir infer segment --input image=@coins.png --overlay seen.png\n"
                "  weir infer digits --input pixels=@digit.npy --json\n"
                "  weir infer digits --grpc --input pixels=@digit.npy\n"
                "  weir infer digits --url https://host:8000 --ca ca.pem\n"
                "  weir infer digits --local examples/models --input pixels=@digit.npy\n"
                "  weir infer segment --input image=@coins.png --parallel 8 --timing\n");
}
