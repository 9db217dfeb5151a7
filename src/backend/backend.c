/*
 * The table of backends, and the calls that go through it.
 */
#include "backend/backend.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend_impl.h"
#include "backend/divide.h"
#include "backend/onnx.h"
#include "backend/plugin.h"
#include "backend/process.h"
#include "backend/process_watch.h"
#include "backend/sim.h"
#include "backend/vanish.h"

struct backend_row {
    const char *name;
    const struct backend_ops *ops;
};

/* The first name of a backend is its own; what follows are Triton's names for the same. */
static const struct backend_row backends[] = {
    { "onnxruntime", &onnx_ops },
    { "onnxruntime_onnx", &onnx_ops },
    { "onnx", &onnx_ops },
    { "sim", &sim_ops },
};

#define BACKEND_COUNT (sizeof(backends) / sizeof(backends[0]))

const struct backend_ops *backend_find(const char *name)
{
    for (size_t i = 0; i < BACKEND_COUNT; i++) {
        if (strcmp(backends[i].name, name) == 0) {
            return backends[i].ops;
        }
    }
    return plugin_find(name);
}

const char *backend_name(uint32_t index)
{
    if (index < BACKEND_COUNT) {
        return backends[index].name;
    }
    const struct backend_ops *ops = plugin_at(index - (uint32_t)BACKEND_COUNT);
    return ops == NULL ? NULL : ops->name;
}

const char *backend_ops_name(const struct backend_ops *ops)
{
    return ops->name;
}

const char *backend_ops_platform(const struct backend_ops *ops)
{
    return ops->platform;
}

bool backend_knows(const struct backend_ops *ops)
{
    return ops->needs != NULL;
}

enum weir_status backend_needs(const struct backend_ops *ops, const struct backend_load *how,
                               struct backend_needs *out, struct weir_err *err)
{
    *out = (struct backend_needs){ 0 };
    return ops->needs == NULL ? WEIR_OK : ops->needs(ops, how, out, err);
}

enum weir_status backend_load(const struct backend_ops *ops, const struct backend_load *how,
                              struct backend_model **out, struct weir_err *err)
{
    assert(how->clock != NULL && how->blocks != NULL && how->intra_threads >= 1);
    if (how->isolation != NULL) {
        return process_load(ops, how, out, err);
    }
    return ops->load(ops, how, out, err);
}

static const struct {
    const char *text;
    bool suspects;
} deaths[] = {
#define DEATH_ROW(name, text, suspects) [DEATH_##name] = { text, suspects },
    BACKEND_DEATHS(DEATH_ROW)
#undef DEATH_ROW
};

const char *backend_death_text(enum backend_death death)
{
    return deaths[death].text;
}

bool backend_death_suspects(enum backend_death death)
{
    return deaths[death].suspects;
}

void backend_unload(struct backend_model *model)
{
    if (model != NULL) {
        model->ops->unload(model);
    }
}

const struct signature *backend_signature(const struct backend_model *model)
{
    return &model->signature;
}

uint64_t backend_promotion(const struct backend_model *model)
{
    return model->ops->promotion == NULL ? 0 : model->ops->promotion(model);
}

enum weir_status backend_promote(struct backend_model *model, struct weir_err *err)
{
    return model->ops->promote(model, err);
}

struct block *backend_input_block(struct backend_model *model, size_t front, size_t size)
{
    return model->ops->input_block == NULL ? NULL : model->ops->input_block(model, front, size);
}

uint32_t backend_stages(const struct backend_model *model)
{
    if (model->ops->stages != NULL) {
        return model->ops->stages(model);
    }
    return (model->ops->prepare != NULL ? (uint32_t)BACKEND_PREPARES : 0) |
           (model->ops->finish != NULL ? (uint32_t)BACKEND_FINISHES : 0);
}

void backend_memory(const struct backend_model *model, struct backend_memory *out)
{
    *out = (struct backend_memory){ 0 };
    if (model->ops->memory != NULL) {
        model->ops->memory(model, out);
    }
}

enum weir_status backend_context_create(struct backend_model *model, struct backend_context **out,
                                        struct weir_err *err)
{
    return model->ops->context_create(model, out, err);
}

void backend_context_destroy(struct backend_context *context)
{
    if (context != NULL) {
        context->model->ops->context_destroy(context);
    }
}

enum weir_status backend_prepare(struct backend_context *context, struct backend_run *run,
                                 struct weir_err *err)
{
    const struct backend_ops *ops = context->model->ops;
    run->death = DEATH_NONE;
    run->told = DEATH_NONE;
    return ops->prepare == NULL ? WEIR_OK : ops->prepare(context, run, err);
}

enum weir_status backend_run(struct backend_context *context, struct backend_run *run,
                             struct weir_err *err)
{
    return context->model->ops->run(context, run, err);
}

enum weir_status backend_finish(struct backend_context *context, struct backend_run *run,
                                struct weir_err *err)
{
    const struct backend_ops *ops = context->model->ops;
    return ops->finish == NULL ? WEIR_OK : ops->finish(context, run, err);
}

void backend_terminate(struct backend_context *context)
{
    context->model->ops->terminate(context, true);
}

void backend_rearm(struct backend_context *context)
{
    context->model->ops->terminate(context, false);
}

void backend_start(void)
{
    /* The official builds of ONNX Runtime upload telemetry unless told not to; the variable is
     * read when the environment is created, and setenv() is safe only while there is one thread. */
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    divide_install();
    vanish_install();
}

void backend_stop(void)
{
    process_stop();
    plugin_remove_all();
    onnx_stop();
}

static char versions[64];

static void write_versions(void)
{
    snprintf(versions, sizeof(versions), "ONNX Runtime %s", onnx_version());
}

const char *backend_versions(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, write_versions);
    return versions;
}

const char *backend_warning(void)
{
    return onnx_is_old() ? "this ONNX Runtime is older than 1.30: a hostile model or input can "
                           "crash it or read files outside the repository"
                         : NULL;
}
