/*
 * round_trip.h — what the server says of a configuration must be a configuration again.
 */
#ifndef WEIR_TESTS_ROUND_TRIP_H
#define WEIR_TESTS_ROUND_TRIP_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/effective.h"
#include "server/modelconfig.h"
#include "util/mem.h"

#define ROUND_TRIP_BYTES_MAX 500 /* A key of twice as many, escaped, is beyond YAML's own limits. */

/* Text that comes back as it was. */
static inline bool round_trip_is_plain(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if ((data[i] < 0x20 && data[i] != '\n') || data[i] > 0x7E || data[i] == '\\') {
            return false;
        }
    }
    return size <= ROUND_TRIP_BYTES_MAX;
}

static inline void round_trip_read(const struct buffer *json)
{
    struct model_config *config = effective_create();
    struct weir_err err = { 0 };
    assert(config != NULL);
    const enum weir_status status = modelconfig_parse(
        config, "m", "again", (struct bytes){ json->data, json->size }, true, &err);
    assert(status == WEIR_OK);
    (void)status;
    config->release(config);
}

/* Writes the configuration as JSON, and reads that where it is `plain`. */
static inline void round_trip(struct model_config *config, const struct signature *signature,
                              bool plain)
{
    struct model *model = mem_alloc(sizeof(*model));
    struct buffer json;
    buffer_init(&json, 1 << 24);
    model->name = "m";
    model->config = config;
    model->signature = signature;
    model->instance_count = 1;
    modelconfig_to_json(model, &json);
    if (plain && !json.failed) {
        round_trip_read(&json);
    }
    buffer_finish(&json);
    mem_free(model);
}

#endif
