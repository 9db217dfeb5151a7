/*
 * A plug-in that breaks one promise, named by -DBREAKS_...: for tests of the checks.
 */
#include <stdlib.h>
#include <string.h>

#include <weir/plugin.h>

struct weir_plugin_model {
    int contexts;
};

struct weir_plugin_context {
    struct weir_plugin_model *model;
    float last;
};

static const struct weir_plugin_host *host;
static const struct weir_plugin_spec x = { "x", WEIR_FP32, 2, { -1, 4 } };
static const struct weir_plugin_spec y = { "y",
#ifdef BREAKS_TYPE
                                           WEIR_BYTES,
#else
                                           WEIR_FP32,
#endif
                                           2,
                                           { -1, 4 } };

static enum weir_status start(const struct weir_plugin_host *ours, struct weir_err *err)
{
    host = ours;
#ifdef BREAKS_START
    return host->fail(err, WEIR_EBACKEND, "no device of kind '%s' was found", "npu");
#else
    (void)err;
    return WEIR_OK;
#endif
}

static enum weir_status needs(const struct weir_plugin_load *load, struct weir_plugin_needs *out,
                              struct weir_err *err)
{
    (void)load;
    (void)err;
    out->contexts_max = 2;
    return WEIR_OK;
}

static enum weir_status load(const struct weir_plugin_load *how, struct weir_plugin_model **out,
                             struct weir_err *err)
{
#ifdef BREAKS_SILENCE
    return WEIR_EBACKEND;
#endif
    *out = calloc(1, sizeof(**out));
    for (uint32_t i = 0; i < how->setting_count; i++) {
        if (strcmp(how->settings[i].key, "refuse") == 0) {
            free(*out);
            return host->fail(err, WEIR_EINVAL, "refused: %s", how->settings[i].value);
        }
    }
    return WEIR_OK;
}

static void unload(struct weir_plugin_model *model)
{
    free(model);
#ifdef BREAKS_MEMORY
    static void *kept[64];
    static int count;
    if (count < 64) {
        kept[count++] = memset(malloc(4 << 20), 1, 4 << 20);
    }
#endif
}

static void describe(const struct weir_plugin_model *model, struct weir_plugin_signature *out)
{
    (void)model;
    *out = (struct weir_plugin_signature){ &x, 1, &y, 1 };
}

static enum weir_status context_create(struct weir_plugin_model *model,
                                       struct weir_plugin_context **out, struct weir_err *err)
{
    (void)err;
    *out = calloc(1, sizeof(**out));
    (*out)->model = model;
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
#ifdef BREAKS_STATUS
    if (((const float *)in->data)[0] < 0) {
        return (enum weir_status) - 7; /* Of the vendor's library. */
    }
#endif
#ifdef BREAKS_OUTPUT
    (void)context;
    (void)err;
    (void)in;
    return WEIR_OK;
#else
    float *to = host->output(run->host, 0, in->rank, in->dims);
    if (to == NULL) {
        return host->fail(err, WEIR_ENOMEM, "out of memory for the output");
    }
    memcpy(to, in->data, in->size);
#ifdef BREAKS_REPEATS
    to[0] += context->last;
    context->last += 1;
#else
    (void)context;
#endif
    return WEIR_OK;
#endif
}

static const struct weir_plugin table = {
#ifdef BREAKS_ABI
    .abi = 99,
#else
    .abi = WEIR_PLUGIN_ABI,
#endif
    .size = sizeof(table),
#ifdef BREAKS_NAME
    .name = "No Name",
#elif defined BREAKS_TAKEN
    .name = "onnxruntime",
#else
    .name = "broken",
#endif
    .version = "1",
    .capabilities = 0,
    .start = start,
    .needs = needs,
    .load = load,
    .unload = unload,
    .describe = describe,
    .context_create = context_create,
    .context_destroy = context_destroy,
    .run = run,
};

#ifndef BREAKS_SYMBOL
const struct weir_plugin *weir_plugin(void)
{
    return &table;
}
#else
const struct weir_plugin *other_plugin(void);
const struct weir_plugin *other_plugin(void)
{
    return &table;
}
#endif
