#include "server/reload.h"

#include <string.h>

#include "engine/engine.h"
#include "engine/registry.h"
#include "server/budget.h"
#include "server/option.h"
#include "util/log.h"
#include "util/mem.h"

#define NAMES_BYTES_MAX 400

static void apply_log(struct reload *reload, const struct config *config)
{
    (void)reload;
    log_set_level((enum log_level)config->log_level);
}

static void apply_order(struct reload *reload, const struct config *config)
{
    engine_set_order(reload->engine, &config->order);
}

static void apply_room(struct reload *reload, const struct config *config)
{
    struct room_options room;
    if (budget_read(config, &room, NULL) != WEIR_OK) {
        return; /* It was checked when it was read. */
    }
    registry_set_room(reload->registry, &room);
}

/* What files name is read again by guard.c; a new name needs a restart. */
static const struct live {
    const char *key;
    void (*apply)(struct reload *reload, const struct config *config);
} live[] = {
    { "log_level", apply_log },      { "class_shares", apply_order },
    { "ageing", apply_order },       { "blocking_budget", apply_order },
    { "memory_max", apply_room },    { "resident_models_max", apply_room },
    { "eviction", apply_room },      { "residency_min", apply_room },
    { "idle_unload", apply_room },   { "memory_devices", apply_room },
    { "memory_groups", apply_room }, { "preload_next", apply_room },
};

#define LIVE_COUNT (sizeof(live) / sizeof(*live))

static const struct live *live_of(const char *key)
{
    for (size_t i = 0; i < LIVE_COUNT; i++) {
        if (strcmp(live[i].key, key) == 0) {
            return &live[i];
        }
    }
    return NULL;
}

bool reload_can(const char *key)
{
    return live_of(key) != NULL;
}

static bool is_changed(const struct config *a, const struct config *b, const struct option *option)
{
    struct buffer texts[2];
    for (int i = 0; i < 2; i++) {
        buffer_init(&texts[i], SIZE_MAX / 2);
        option_format(i == 0 ? a : b, option, &texts[i]);
    }
    const bool same = !texts[0].failed && !texts[1].failed &&
                      bytes_equal((struct bytes){ texts[0].data, texts[0].size },
                                  (struct bytes){ texts[1].data, texts[1].size });
    buffer_finish(&texts[0]);
    buffer_finish(&texts[1]);
    return !same;
}

/* Names the changed settings that can, or cannot, change live; how many there are. */
static uint32_t changed(const struct reload *reload, const struct config *config, bool can,
                        struct buffer *names)
{
    uint32_t count = 0;
    for (size_t i = 0; i < option_count; i++) {
        if (reload_can(options[i].key) == can && is_changed(reload->current, config, &options[i])) {
            buffer_text(names, count == 0 ? "" : ", ");
            buffer_text(names, options[i].key);
            count++;
        }
    }
    buffer_char(names, '\0');
    return count;
}

static void apply(struct reload *reload, struct config *config)
{
    for (size_t i = 0; i < LIVE_COUNT; i++) {
        const struct option *option = option_find(option_key, live[i].key);
        if (option != NULL && is_changed(reload->current, config, option)) {
            live[i].apply(reload, config); /* With its neighbours, which it shares this with. */
        }
    }
}

/* Takes the new settings over, or says why not. */
static bool take_over(struct reload *reload, struct config *config)
{
    struct buffer names;
    buffer_init(&names, NAMES_BYTES_MAX);
    const bool refused = changed(reload, config, false, &names) > 0;
    if (refused) {
        log_event(LOG_WARNING, "settings not reloaded: some need a restart",
                  LOG_STR("settings", names.failed ? "too many to list" : names.data));
        buffer_finish(&names);
        return false;
    }
    buffer_clear(&names);
    const uint32_t count = changed(reload, config, true, &names);
    apply(reload, config);
    log_event(LOG_INFO, "settings reloaded", LOG_U64("changed", count),
              LOG_STR("settings", names.failed ? "too many to list" : names.data));
    buffer_finish(&names);
    return true;
}

void reload_settings(struct reload *reload)
{
    struct weir_err err = { 0 };
    struct config *config = reload->read == NULL ? NULL : mem_try_zero(1, sizeof(*config));
    if (config == NULL) {
        return;
    }
    const enum weir_status status = reload->read(reload->context, config, &err);
    if (status != WEIR_OK) {
        log_event(LOG_WARNING, "settings not reloaded", LOG_STR("reason", err.text));
    }
    if (status != WEIR_OK || !take_over(reload, config)) {
        config_finish(config);
        mem_free(config);
        return;
    }
    reload_finish(reload);
    reload->latest = config;
    reload->current = config;
}

void reload_finish(struct reload *reload)
{
    if (reload->latest != NULL) {
        config_finish(reload->latest);
        mem_free(reload->latest);
        reload->latest = NULL;
    }
}
