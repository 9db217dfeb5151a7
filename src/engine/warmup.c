#include "engine/warmup.h"

#include <stdio.h>
#include <string.h>

#include "util/bytes.h"
#include "util/err.h"
#include "util/file.h"

#define PATH_BYTES 512

/* One configured warm-up in progress. */
struct warmup {
    const struct probe *probe;
    const struct warmup_config *config;
    struct probe_run run;
    int folder_fd;
};

/* One input of a warm-up, as the configuration has it. */
static int find_input(const struct warmup *warmup, const char *name)
{
    for (uint32_t i = 0; i < warmup->config->input_count; i++) {
        if (strcmp(warmup->config->inputs[i].input, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static struct shape full_shape(const struct warmup *warmup, const struct shape *dims)
{
    struct shape shape = { 0 };
    if (warmup->probe->config->max_batch_size > 0 && dims->rank < TENSOR_RANK_MAX) {
        shape.dims[shape.rank++] = warmup->config->batch_size > 0 ? warmup->config->batch_size : 1;
    }
    for (uint32_t i = 0; i < dims->rank && shape.rank < TENSOR_RANK_MAX; i++) {
        shape.dims[shape.rank++] = dims->dims[i];
    }
    return shape;
}

/* Repeats the file's content, one row, for each row of `tensor`. */
static enum weir_status repeat_rows(const struct warmup *warmup, const struct buffer *content,
                                    struct tensor *tensor, struct weir_err *err)
{
    const bool batched = warmup->probe->config->max_batch_size > 0;
    const uint64_t rows = batched ? (uint64_t)tensor->shape.dims[0] : 1;
    size_t size;
    if (__builtin_mul_overflow(content->size, rows, &size) || size > PROBE_BYTES_MAX) {
        return err_set(err, WEIR_EINVAL, "its data is too large");
    }
    tensor->block = block_pool_take(warmup->probe->blocks, size == 0 ? 1 : size);
    if (tensor->block == NULL) {
        return err_nomem(err, "warm-up data", size);
    }
    tensor->data = tensor->block->data;
    tensor->size = size;
    tensor->present = true;
    for (uint64_t i = 0; i < rows && content->size > 0; i++) {
        memcpy(tensor->data + i * content->size, content->data, content->size);
    }
    if (tensor->dtype == DTYPE_BYTES) {
        return tensor_check_strings(tensor, err);
    }
    size_t expected;
    const enum weir_status status = tensor_bytes(tensor->dtype, &tensor->shape, &expected, err);
    if (status == WEIR_OK && expected != size) {
        return err_set(err, WEIR_EINVAL, "its file has %zu bytes, expected %zu", content->size,
                       expected / (size_t)(rows == 0 ? 1 : rows));
    }
    return status;
}

static enum weir_status read_input(const struct warmup *warmup, const char *file,
                                   struct tensor *tensor, struct weir_err *err)
{
    char path[PATH_BYTES];
    const int length = snprintf(path, sizeof(path), "warmup/%s", file);
    if (length < 0 || (size_t)length >= sizeof(path)) {
        return err_set(err, WEIR_EINVAL, "the file name is too long");
    }
    struct buffer content = { 0 };
    enum weir_status status = file_read(warmup->folder_fd, path, PROBE_BYTES_MAX, &content, err);
    if (status == WEIR_OK) {
        status = repeat_rows(warmup, &content, tensor, err);
    }
    buffer_finish(&content);
    return status;
}

static enum weir_status make_input(struct warmup *warmup, uint32_t index, struct weir_err *err)
{
    const struct tensor_spec *spec = &warmup->probe->signature->inputs[index];
    struct tensor *tensor = &warmup->run.inputs[index];
    const int at = find_input(warmup, spec->name);
    if (at < 0) {
        return spec->optional ? WEIR_OK : err_set(err, WEIR_EINVAL, "it is not given");
    }
    if (warmup->config->inputs[at].dtype != spec->dtype) {
        return err_set(err, WEIR_EINVAL, "it is given as %s, expected %s",
                       dtype_text(warmup->config->inputs[at].dtype), dtype_text(spec->dtype));
    }
    const struct shape shape = full_shape(warmup, &warmup->config->inputs[at].dims);
    if (!shape_fits(&shape, &spec->shape)) {
        char found[SHAPE_TEXT];
        char expected[SHAPE_TEXT];
        return err_set(err, WEIR_EINVAL, "it is given with shape %s, expected %s",
                       shape_format(&shape, found), shape_format(&spec->shape, expected));
    }
    switch (warmup->config->inputs[at].kind) {
    case WARMUP_FILE:
        *tensor = (struct tensor){ .dtype = spec->dtype, .shape = shape };
        return read_input(warmup, warmup->config->inputs[at].file, tensor, err);
    case WARMUP_RANDOM:
        return probe_tensor(warmup->probe, spec->dtype, &shape, PROBE_LOW, index, tensor, err);
    default:
        return probe_tensor(warmup->probe, spec->dtype, &shape, PROBE_ZERO, 0, tensor, err);
    }
}

static enum weir_status check_names(const struct warmup *warmup, struct weir_err *err)
{
    const struct signature *signature = warmup->probe->signature;
    for (uint32_t i = 0; i < warmup->config->input_count; i++) {
        bool known = false;
        for (uint32_t s = 0; s < signature->input_count; s++) {
            known =
                known || strcmp(signature->inputs[s].name, warmup->config->inputs[i].input) == 0;
        }
        if (!known) {
            return err_set(err, WEIR_EINVAL, "the model has no input '%s'",
                           warmup->config->inputs[i].input);
        }
    }
    return WEIR_OK;
}

static enum weir_status make_inputs(struct warmup *warmup, struct weir_err *err)
{
    const struct signature *signature = warmup->probe->signature;
    enum weir_status status = check_names(warmup, err);
    for (uint32_t i = 0; status == WEIR_OK && i < signature->input_count; i++) {
        status = make_input(warmup, i, err);
        if (status != WEIR_OK) {
            (void)err_prefix(err, "input '%s'", signature->inputs[i].name);
        }
    }
    return status;
}

static enum weir_status run_one(struct warmup *warmup, struct weir_err *err)
{
    enum weir_status status = make_inputs(warmup, err);
    const uint32_t rows = warmup->config->batch_size > 0 ? warmup->config->batch_size : 1;
    const uint32_t count = warmup->config->count > 0 ? warmup->config->count : 1;
    for (uint32_t i = 0; status == WEIR_OK && i < count; i++) {
        status = probe_go(warmup->probe, &warmup->run, rows, err);
    }
    return status;
}

enum weir_status warmup_run(const struct probe *probe, int folder_fd, struct weir_err *err)
{
    for (uint32_t i = 0; i < probe->config->warmup_count; i++) {
        struct warmup warmup = {
            .probe = probe,
            .config = &probe->config->warmups[i],
            .folder_fd = folder_fd,
        };
        enum weir_status status = probe_run_init(probe, &warmup.run, err);
        status = status == WEIR_OK ? run_one(&warmup, err) : status;
        probe_run_finish(probe, &warmup.run);
        if (status != WEIR_OK) {
            (void)err_prefix(err, "model_warmup '%s'",
                             warmup.config->name == NULL ? "" : warmup.config->name);
            return status;
        }
    }
    return WEIR_OK;
}

bool warmup_canary(const struct probe *probe, uint32_t *size)
{
    static const int64_t sizes[PROBE_SIZE_COUNT] = PROBE_SIZES;
    const uint32_t size_count = probe_has_sizes(probe) ? PROBE_SIZE_COUNT : 1;
    struct probe_run run = { 0 };
    if (probe_run_init(probe, &run, NULL) != WEIR_OK) {
        return false;
    }
    bool good = false;
    for (uint32_t i = 0; i < size_count && !good; i++) {
        good = probe_inputs(probe, &run, 1, sizes[i], PROBE_ZERO, 0, NULL) == WEIR_OK &&
               probe_go(probe, &run, 1, NULL) == WEIR_OK;
        *size = good ? i : 0;
    }
    probe_run_finish(probe, &run);
    return good;
}

enum weir_status warmup_sample(const struct probe *probe, int folder_fd, struct tensor **out,
                               struct weir_err *err)
{
    struct warmup warmup = {
        .probe = probe,
        .config = &probe->config->warmups[0],
        .folder_fd = folder_fd,
    };
    enum weir_status status = probe_run_init(probe, &warmup.run, err);
    status = status == WEIR_OK ? make_inputs(&warmup, err) : status;
    if (status == WEIR_OK) {
        *out = warmup.run.inputs;
        warmup.run.inputs = NULL;
    }
    probe_run_finish(probe, &warmup.run);
    return status;
}
