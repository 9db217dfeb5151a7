/*
 * modelconfig.h — a model's configuration: config.pbtxt, model.yaml, and the text given with a
 * load.
 *
 * All three have the settings of Triton's ModelConfig under its names, plus Weir's own, and go
 * through one table; model.yaml lies over config.pbtxt field by field:
 *
 *     max_batch_size: 16
 *     input:
 *       - { name: image, data_type: FP32, dims: [1, 256, 256] }
 *     dynamic_batching: { max_queue_delay_microseconds: 500 }
 *     batching: insist          # Weir's: auto, insist or off
 *
 * A load override (ModelConfig as JSON, which is YAML too) takes the place of both files.
 * Everything may be left out; what is missing is inferred from the model (effective.h).
 */
#ifndef WEIR_SERVER_MODELCONFIG_H
#define WEIR_SERVER_MODELCONFIG_H

#include "engine/model.h"
#include "engine/registry.h"
#include "util/bytes.h"
#include "util/err.h"
#include "util/yaml.h"

#define MODELCONFIG_BYTES_MAX (1 << 20)

/* A registry_configure_fn: `context` is not used.  WEIR_EINVAL with file, line, what was found and
 * what is allowed; WEIR_EIO, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status modelconfig_read(void *context, const char *name, int folder_fd,
                                                const char *override, struct model_config **out,
                                                struct weir_err *err);

/* The same for text at hand; `file` names it in sentences.  With `loose`, keys may also be in
 * protobuf's camelCase.  `config` comes from effective_create(). */
WEIR_MUST_USE enum weir_status modelconfig_parse(struct model_config *config, const char *name,
                                                 const char *file, struct bytes text, bool loose,
                                                 struct weir_err *err);

/* The same for the text of a config.pbtxt. */
WEIR_MUST_USE enum weir_status modelconfig_parse_pbtxt(struct model_config *config,
                                                       const char *name, const char *file,
                                                       struct bytes text, struct weir_err *err);

/* A model's configuration and where it comes from: for people. */
struct modelconfig_look {
    struct model_config *config;
    /* What the files say, merged, each value with its file and line; NULL: nothing. */
    struct yaml *root;
    struct buffer problems; /* All mistakes, one per line. */
};

/* As modelconfig_read(), but what was found is in `look` also when it fails; finish it either
 * way. */
WEIR_MUST_USE enum weir_status modelconfig_look(struct modelconfig_look *look, const char *name,
                                                int folder_fd, const char *override,
                                                struct weir_err *err);
void modelconfig_look_finish(struct modelconfig_look *look);

/* The effective configuration of a loaded model as Triton's ModelConfig in JSON: snake_case names,
 * all scalar fields, enums by name, 64-bit integers as numbers. */
void modelconfig_to_json(const struct model *model, struct buffer *out);

/* The table as text, one setting per line: key, what it expects, what it does. */
void modelconfig_document(struct buffer *out);

#endif
