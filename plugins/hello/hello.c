/*
 * hello.c — a whole plug-in: y = factor * x.
 *
 * A model is a folder with a file `factor.txt` that holds one number.  Build it with
 * `cc -shared -fPIC hello.c -o hello.so`; try it with `weir plugin-test hello.so FOLDER` and
 * `weir serve --plugin hello.so models`, where models/twice/model.yaml says `backend: hello`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <weir/plugin.h>

struct weir_plugin_model {
    float factor;
};

struct weir_plugin_context {
    const struct weir_plugin_model *model;
};

static const struct weir_plugin_host *host;

static const struct weir_plugin_spec x = { "x", WEIR_FP32, 2, { -1, -1 } };
static const struct weir_plugin_spec y = { "y", WEIR_FP32, 2, { -1, -1 } };

static enum weir_status start(const struct weir_plugin_host *ours, struct weir_err *err)
{
    (void)err;
    host = ours;
    return WEIR_OK;
}

static enum weir_status needs(const struct weir_plugin_load *load, struct weir_plugin_needs *out,
                              struct weir_err *err)
{
    (void)load;
    (void)err;
    out->host_bytes = sizeof(struct weir_plugin_model);
    return WEIR_OK;
}

/* `name` is the file in sentences: its path begins with a folder that only this process can see. */
static enum weir_status read_factor(const char *path, const char *name, float *out,
                                    struct weir_err *err)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return host->fail(err, WEIR_ENOENT, "%s: no such file, expected one with a number", name);
    }
    char text[64] = "";
    char *end = text;
    (void)!fgets(text, sizeof(text), file);
    (void)fclose(file);
    text[strcspn(text, "\n")] = '\0';
    *out = strtof(text, &end);
    return end != text
               ? WEIR_OK
               : host->fail(err, WEIR_EINVAL, "%s: found '%s', expected a number", name, text);
}

static enum weir_status load(const struct weir_plugin_load *how, struct weir_plugin_model **out,
                             struct weir_err *err)
{
    char path[4096];
    const char *name = how->file_name != NULL ? how->file_name : "factor.txt";
    if (snprintf(path, sizeof(path), "%s/%s", how->folder, name) >= (int)sizeof(path)) {
        return host->fail(err, WEIR_EINVAL, "%s: the path is too long", how->folder);
    }
    struct weir_plugin_model *model = malloc(sizeof(*model));
    if (model == NULL) {
        return host->fail(err, WEIR_ENOMEM, "out of memory for model '%s'", how->name);
    }
    const enum weir_status status = read_factor(path, name, &model->factor, err);
    if (status != WEIR_OK) {
        free(model);
        return status;
    }
    *out = model;
    return WEIR_OK;
}

static void unload(struct weir_plugin_model *model)
{
    free(model);
}

static void describe(const struct weir_plugin_model *model, struct weir_plugin_signature *out)
{
    (void)model;
    *out = (struct weir_plugin_signature){ &x, 1, &y, 1 };
}

static enum weir_status context_create(struct weir_plugin_model *model,
                                       struct weir_plugin_context **out, struct weir_err *err)
{
    struct weir_plugin_context *context = malloc(sizeof(*context));
    if (context == NULL) {
        return host->fail(err, WEIR_ENOMEM, "out of memory for a context");
    }
    context->model = model;
    *out = context;
    return WEIR_OK;
}

static void context_destroy(struct weir_plugin_context *context)
{
    free(context);
}

static enum weir_status run(struct weir_plugin_context *context, const struct weir_plugin_run *run,
                            struct weir_err *err)
{
    const struct weir_plugin_tensor *in = &run->inputs[0];
    const float *from = in->data;
    float *to = host->output(run->host, 0, in->rank, in->dims);
    if (to == NULL) {
        return host->fail(err, WEIR_ENOMEM, "out of memory for the output");
    }
    for (size_t i = 0; i < in->size / sizeof(float); i++) {
        to[i] = context->model->factor * from[i];
    }
    return WEIR_OK;
}

static const struct weir_plugin table = {
    .abi = WEIR_PLUGIN_ABI,
    .size = sizeof(table),
    .name = "hello",
    .version = "1",
    .capabilities = WEIR_PLUGIN_CAN_CONCURRENT | WEIR_PLUGIN_CAN_SHORT,
    .start = start,
    .needs = needs,
    .load = load,
    .unload = unload,
    .describe = describe,
    .context_create = context_create,
    .context_destroy = context_destroy,
    .run = run,
};

const struct weir_plugin *weir_plugin(void)
{
    return &table;
}
