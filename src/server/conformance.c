#include "server/conformance.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <weir/plugin.h>

#include "backend/plugin.h"
#include "util/clock.h"
#include "util/mem.h"

#define SETTINGS_MAX 64
#define CONTEXTS_MAX 8
#define ROWS_MAX 8
#define DIM_SAMPLE 3 /* Of a variable dimension that is not the first. */
#define LOADS 5
#define GROWTH_BYTES_MAX (UINT64_C(1) << 20)
#define KEPT_BYTES (UINT64_C(16) << 20)

struct check {
    const struct conformance_options *options;
    conformance_report_fn *report;
    void *context;
    bool good;
    const struct backend_ops *ops;
    struct clock clock;
    struct block_pool *blocks;
    struct setting settings[SETTINGS_MAX];
    struct backend_load how;
};

WEIR_PRINTF(4, 5)
static bool say(struct check *check, bool kept, const char *promise, const char *format, ...)
{
    char problem[600] = "";
    if (!kept) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(problem, sizeof(problem), format, arguments);
        va_end(arguments);
        check->good = false;
    }
    check->report(check->context, promise, problem);
    return kept;
}

/* ---- Runs ------------------------------------------------------------------------------------ */

/* One context's tensors for a number of rows. */
struct trial {
    const struct signature *signature;
    struct backend_context *context;
    struct tensor *inputs;
    struct tensor *outputs;
    bool *wanted;
    enum weir_status status;
    struct weir_err err;
    uint32_t runs;
    uint64_t rows;
};

static void end_trial(struct trial *trial)
{
    for (uint32_t i = 0; trial->inputs != NULL && i < trial->signature->input_count; i++) {
        tensor_release(&trial->inputs[i]);
    }
    for (uint32_t i = 0; trial->outputs != NULL && i < trial->signature->output_count; i++) {
        tensor_release(&trial->outputs[i]);
    }
    mem_free(trial->inputs);
    mem_free(trial->outputs);
    mem_free(trial->wanted);
    trial->inputs = NULL;
    trial->outputs = NULL;
    trial->wanted = NULL;
}

/* Variable dimensions become `rows` (the first) or DIM_SAMPLE; zeros, or a pattern by `seed`. */
static enum weir_status fill_input(const struct tensor_spec *spec, uint64_t rows, uint32_t seed,
                                   struct tensor *out, struct weir_err *err)
{
    *out = (struct tensor){ .dtype = spec->dtype, .shape = spec->shape, .present = true };
    for (uint32_t d = 0; d < out->shape.rank; d++) {
        if (out->shape.dims[d] < 0) {
            out->shape.dims[d] = d == 0 ? (int64_t)rows : DIM_SAMPLE;
        }
    }
    const enum weir_status status = tensor_bytes(out->dtype, &out->shape, &out->size, err);
    out->block = status == WEIR_OK ? block_create(out->size) : NULL;
    if (status == WEIR_OK && out->block == NULL) {
        return err_nomem(err, "a tensor", out->size);
    }
    if (status != WEIR_OK) {
        return status;
    }
    out->data = out->block->data;
    for (size_t i = 0; i < out->size; i++) {
        out->data[i] = seed == 0 ? 0 : (uint8_t)((i * seed) & 1); /* Small numbers of every type. */
    }
    return WEIR_OK;
}

static enum weir_status begin_trial(struct trial *trial, const struct signature *signature,
                                    struct backend_context *context, uint64_t rows, uint32_t seed,
                                    struct weir_err *err)
{
    *trial = (struct trial){ .signature = signature, .context = context, .rows = rows };
    trial->inputs = mem_try_zero(signature->input_count, sizeof(*trial->inputs));
    trial->outputs = mem_try_zero(signature->output_count, sizeof(*trial->outputs));
    trial->wanted = mem_try_zero(signature->output_count, sizeof(*trial->wanted));
    enum weir_status status = WEIR_OK;
    if (trial->inputs == NULL || trial->outputs == NULL || trial->wanted == NULL) {
        status = err_nomem(err, "a run", sizeof(*trial->inputs));
    }
    for (uint32_t i = 0; status == WEIR_OK && i < signature->input_count; i++) {
        status = fill_input(&signature->inputs[i], rows, seed, &trial->inputs[i], err);
    }
    for (uint32_t i = 0; status == WEIR_OK && i < signature->output_count; i++) {
        trial->wanted[i] = true;
    }
    if (status != WEIR_OK) {
        end_trial(trial);
    }
    return status;
}

static enum weir_status run_once(struct trial *trial, struct weir_err *err)
{
    struct backend_run run = {
        .rows = trial->rows,
        .inputs = trial->inputs,
        .outputs = trial->outputs,
        .wanted = trial->wanted,
    };
    for (uint32_t i = 0; i < trial->signature->output_count; i++) {
        tensor_release(&trial->outputs[i]);
    }
    backend_rearm(trial->context);
    enum weir_status status = backend_prepare(trial->context, &run, err);
    status = status == WEIR_OK ? backend_run(trial->context, &run, err) : status;
    return status == WEIR_OK ? backend_finish(trial->context, &run, err) : status;
}

static bool same_outputs(const struct trial *a, const struct trial *b)
{
    for (uint32_t i = 0; i < a->signature->output_count; i++) {
        const struct tensor *left = &a->outputs[i];
        const struct tensor *right = &b->outputs[i];
        if (left->size != right->size || memcmp(left->data, right->data, left->size) != 0) {
            return false;
        }
    }
    return true;
}

static void check_rows(struct check *check, const struct signature *signature,
                       struct backend_context *context)
{
    struct weir_err err = { 0 };
    enum weir_status status = WEIR_OK;
    uint64_t rows = 1;
    for (; status == WEIR_OK && rows <= ROWS_MAX; rows *= 2) {
        struct trial trial;
        status = begin_trial(&trial, signature, context, rows, (uint32_t)rows, &err);
        if (status == WEIR_OK) {
            status = run_once(&trial, &err);
            end_trial(&trial);
        }
    }
    (void)say(check, status == WEIR_OK, "runs give every output, at 1, 2, 4 and 8 rows",
              "%" PRIu64 " rows: %s", rows / 2, err.text);
}

static void check_repeats(struct check *check, const struct signature *signature,
                          struct backend_context *context)
{
    static const uint32_t seeds[] = { 3, 5, 3 };
    struct weir_err err = { 0 };
    struct trial trials[3] = { 0 };
    enum weir_status status = WEIR_OK;
    for (size_t i = 0; status == WEIR_OK && i < 3; i++) {
        status = begin_trial(&trials[i], signature, context, 1, seeds[i], &err);
    }
    for (size_t i = 0; status == WEIR_OK && i < 3; i++) {
        status = run_once(&trials[i], &err);
    }
    const bool same = status == WEIR_OK && same_outputs(&trials[0], &trials[2]);
    for (size_t i = 0; i < 3; i++) {
        end_trial(&trials[i]);
    }
    (void)say(check, same, "the same input gives the same output, whatever ran between",
              status == WEIR_OK ? "the outputs differ" : "%s", err.text);
}

static void *run_many(void *argument)
{
    struct trial *trial = argument;
    for (uint32_t i = 0; i < trial->runs && trial->status == WEIR_OK; i++) {
        trial->status = run_once(trial, &trial->err);
    }
    return NULL;
}

static void check_threads(struct check *check, const struct signature *signature,
                          struct backend_context *const *contexts, uint32_t count)
{
    struct trial trials[CONTEXTS_MAX];
    pthread_t threads[CONTEXTS_MAX];
    uint32_t started = 0;
    struct weir_err err = { 0 };
    enum weir_status status = WEIR_OK;
    while (status == WEIR_OK && started < count) {
        struct trial *trial = &trials[started];
        status = begin_trial(trial, signature, contexts[started], 1, started + 1, &err);
        if (status != WEIR_OK) {
            break;
        }
        trial->runs = check->options->runs;
        if (pthread_create(&threads[started], NULL, run_many, trial) != 0) {
            status = err_nomem(&err, "a thread", 0);
            end_trial(trial);
            break;
        }
        started++;
    }
    for (uint32_t i = 0; i < started; i++) {
        (void)pthread_join(threads[i], NULL);
        if (trials[i].status != WEIR_OK) {
            status = trials[i].status;
            err = trials[i].err;
        }
    }
    (void)say(check, status == WEIR_OK, "all contexts run at once, each on a thread of its own",
              "%s", err.text);
    for (uint32_t i = 0; i < started; i++) {
        end_trial(&trials[i]);
    }
}

static void check_terminate(struct check *check, const struct signature *signature,
                            struct backend_context *context)
{
    struct weir_err err = { 0 };
    struct trial trial;
    enum weir_status status = begin_trial(&trial, signature, context, 1, 1, &err);
    if (status == WEIR_OK) {
        backend_terminate(context);
        backend_terminate(context);
        status = run_once(&trial, &err); /* Rearms first. */
        end_trial(&trial);
    }
    (void)say(check, status == WEIR_OK, "a run after terminate() was taken back goes well", "%s",
              err.text);
}

/* ---- Contexts and models --------------------------------------------------------------------- */

static void check_contexts(struct check *check, struct backend_model *model)
{
    const struct signature *signature = backend_signature(model);
    struct backend_context *contexts[CONTEXTS_MAX];
    struct weir_err err = { 0 };
    enum weir_status status = WEIR_OK;
    uint32_t count = 0;
    while (status == WEIR_OK && count < CONTEXTS_MAX) {
        status = backend_context_create(model, &contexts[count], &err);
        count += status == WEIR_OK ? 1 : 0;
    }
    if (!say(check, count > 0, "a context can be made", "%s", err.text)) {
        return;
    }
    (void)say(check, status == WEIR_OK || (status == WEIR_ECONFLICT && err.text[0] != '\0'),
              "one context too many is refused with WEIR_ECONFLICT and a sentence",
              "found %s: '%s'", weir_status_name(status), err.text);
    check_rows(check, signature, contexts[0]);
    check_repeats(check, signature, contexts[0]);
    check_threads(check, signature, contexts, count);
    check_terminate(check, signature, contexts[0]);
    for (uint32_t i = 0; i < count; i++) {
        backend_context_destroy(contexts[i]);
    }
    status = backend_context_create(model, &contexts[0], &err);
    if (say(check, status == WEIR_OK, "contexts that are gone can be made again", "%s", err.text)) {
        backend_context_destroy(contexts[0]);
    }
}

static uint64_t allocated(void)
{
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void check_reloads(struct check *check)
{
    struct weir_err err = { 0 };
    enum weir_status status = WEIR_OK;
    uint64_t before = 0;
    for (int i = 0; i < LOADS && status == WEIR_OK; i++) {
        struct backend_model *model;
        status = backend_load(check->ops, &check->how, &model, &err);
        if (status == WEIR_OK) {
            backend_unload(model);
        }
        before = i == 0 ? allocated() : before;
    }
    if (say(check, status == WEIR_OK, "a model loads again after unload()", "%s", err.text)) {
        const uint64_t after = allocated();
        (void)say(check, after <= before + GROWTH_BYTES_MAX, "unload() gives its memory back",
                  "%" PRIu64 " bytes more after %d rounds", after - before, LOADS - 1);
    }
}

static void check_missing_model(struct check *check)
{
    struct backend_load how = check->how;
    how.folder_fd = open("/proc/self/fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (how.folder_fd < 0) {
        return;
    }
    struct weir_err err = { 0 };
    struct backend_model *model = NULL;
    const enum weir_status status = backend_load(check->ops, &how, &model, &err);
    (void)say(check, status != WEIR_OK && err.text[0] != '\0',
              "a folder that holds no model is refused with a sentence", "found %s: '%s'",
              weir_status_name(status), err.text);
    if (status == WEIR_OK) {
        backend_unload(model);
    }
    (void)close(how.folder_fd);
}

static void check_needs(struct check *check)
{
    struct weir_err err = { 0 };
    struct weir_plugin_needs needs;
    const enum weir_status status = plugin_needs(check->ops, &check->how, &needs, &err);
    (void)say(check, status == WEIR_OK, "needs() answers before load()", "%s", err.text);
}

static void check_model(struct check *check)
{
    struct weir_err err = { 0 };
    struct backend_model *model = NULL;
    check_needs(check);
    const enum weir_status status = backend_load(check->ops, &check->how, &model, &err);
    if (!say(check, status == WEIR_OK, "the model loads and is described", "%s", err.text)) {
        return;
    }
    check_contexts(check, model);
    backend_unload(model);
    check_reloads(check);
    check_missing_model(check);
}

static bool take_settings(struct check *check)
{
    const struct conformance_options *options = check->options;
    for (uint32_t i = 0; i < options->setting_count && i < SETTINGS_MAX; i++) {
        char *equals = strchr(options->settings[i], '=');
        if (equals == NULL) {
            return say(check, false, "settings are KEY=VALUE", "found '%s'", options->settings[i]);
        }
        *equals = '\0'; /* A word of the command line: ours to change. */
        check->settings[i] = (struct setting){ options->settings[i], equals + 1 };
    }
    check->how.settings = check->settings;
    check->how.setting_count =
        options->setting_count < SETTINGS_MAX ? options->setting_count : SETTINGS_MAX;
    return true;
}

static void check_plugin(struct check *check)
{
    struct weir_err err = { 0 };
    const enum weir_status status = plugin_add(check->options->library, &err);
    if (!say(check, status == WEIR_OK, "the library has a table of this ABI and starts", "%s",
             err.text)) {
        return;
    }
    check->ops = plugin_at(0);
    check->how.folder_fd = open(check->options->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (say(check, check->how.folder_fd >= 0, "the model's folder can be opened", "%s: %s",
            check->options->folder, strerror(errno)) &&
        take_settings(check)) {
        check_model(check);
    }
    if (check->how.folder_fd >= 0) {
        (void)close(check->how.folder_fd);
    }
    plugin_remove_all();
}

bool conformance_check(const struct conformance_options *options, conformance_report_fn *report,
                       void *context)
{
    struct check check = { .options = options, .report = report, .context = context, .good = true };
    clock_init(&check.clock);
    check.blocks = block_pool_create(KEPT_BYTES);
    check.how = (struct backend_load){
        .model_name = "tested",
        .version = 1,
        .folder_fd = -1,
        .device = "cpu",
        .intra_threads = 1,
        .contexts_max = CONTEXTS_MAX,
        .clock = &check.clock,
        .blocks = check.blocks,
    };
    check_plugin(&check);
    block_pool_destroy(check.blocks);
    return check.good;
}
