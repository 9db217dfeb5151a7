#include "server/reload.h"

#include <string.h>

#include "api/api.h"
#include "engine/canary.h"
#include "engine/engine.h"
#include "engine/registry.h"
#include "server/budget.h"
#include "server/guard.h"
#include "server/option.h"
#include "util/log.h"
#include "util/mem.h"

static void apply_log(struct reload *reload, const struct config *config)
{
    (void)reload;
    log_set_level((enum log_level)config->log_level);
}

static void apply_order(struct reload *reload, const struct config *config)
{
    engine_set_order(reload->engine, &config->order);
}

static void apply_models(struct reload *reload, const struct config *config)
{
    struct room_options room;
    if (budget_read(config, &room, NULL) != WEIR_OK) {
        return; /* It was checked when it was read. */
    }
    registry_set(reload->registry, &room, config->poll_interval_ns);
}

static void apply_limits(struct reload *reload, const struct config *config)
{
    limits_set(reload->limits, &config->limits);
}

static void apply_canaries(struct reload *reload, const struct config *config)
{
    atomic_store(&reload->canaries->interval_ns, config->canary_interval_ns);
    reload->wake(reload->wake_context);
}

static void apply_cache(struct reload *reload, const struct config *config)
{
    engine_set_cache(reload->engine, config->cache_bytes);
}

static void apply_answers(struct reload *reload, const struct config *config)
{
    api_set_answers(reload->api, config->access_log, config->timing);
}

/* What files name is read again by guard.c; a new name needs a restart. */
static const struct live {
    const char *key;
    void (*apply)(struct reload *reload, const struct config *config);
} live[] = { { "log_level", apply_log },
             { "class_shares", apply_order },
             { "ageing", apply_order },
             { "blocking_budget", apply_order },
             { "memory_max", apply_models },
             { "resident_models_max", apply_models },
             { "eviction", apply_models },
             { "residency_min", apply_models },
             { "idle_unload", apply_models },
             { "memory_devices", apply_models },
             { "memory_groups", apply_models },
             { "preload_next", apply_models },
             { "pinned", apply_models },
             { "poll_interval", apply_models },
             { "canary_interval", apply_canaries },
             { "cache_bytes", apply_cache },
             { "timing", apply_answers },
             { "access_log", apply_answers },
#define LIMIT_LIVE(field, value, kind, help) { "limits." #field, apply_limits },
             LIMITS(LIMIT_LIVE)
#undef LIMIT_LIVE
};

/* Limits by which something was laid out at the start. */
static const char *const laid_out[] = { "limits.models_max", "limits.model_bytes_max",
                                        "limits.response_bytes_max", "limits.log_line_bytes_max" };

#define LIVE_COUNT (sizeof(live) / sizeof(*live))

bool reload_can(const char *key)
{
    for (size_t i = 0; i < sizeof(laid_out) / sizeof(*laid_out); i++) {
        if (strcmp(laid_out[i], key) == 0) {
            return false;
        }
    }
    for (size_t i = 0; i < LIVE_COUNT; i++) {
        if (strcmp(live[i].key, key) == 0) {
            return true;
        }
    }
    return false;
}

/* *lost is set when there was no memory to tell; it counts as changed then. */
static bool is_changed(const struct config *a, const struct config *b, const struct option *option,
                       bool *lost)
{
    struct buffer texts[2];
    for (int i = 0; i < 2; i++) {
        buffer_init(&texts[i], SIZE_MAX / 2);
        option_format(i == 0 ? a : b, option, &texts[i]);
    }
    const bool failed = texts[0].failed || texts[1].failed;
    const bool same = !failed && bytes_equal((struct bytes){ texts[0].data, texts[0].size },
                                             (struct bytes){ texts[1].data, texts[1].size });
    buffer_finish(&texts[0]);
    buffer_finish(&texts[1]);
    *lost = *lost || failed;
    return !same;
}

/* Names the changed settings that can, or cannot, change live; how many there are. */
static uint32_t changed(const struct reload *reload, const struct config *config, bool can,
                        struct buffer *names, bool *lost)
{
    uint32_t count = 0;
    for (size_t i = 0; i < option_count; i++) {
        if (reload_can(options[i].key) == can &&
            is_changed(reload->current, config, &options[i], lost)) {
            char key[OPTION_WORD_BYTES];
            option_key(&options[i], key);
            buffer_text(names, count == 0 ? "" : ", ");
            buffer_text(names, key);
            count++;
        }
    }
    buffer_char(names, '\0');
    return count;
}

static void apply(struct reload *reload, struct config *config)
{
    bool lost = false; /* To apply what has not changed does no harm. */
    for (size_t i = 0; i < option_count; i++) {
        for (size_t l = 0; l < LIVE_COUNT; l++) {
            if (strcmp(live[l].key, options[i].key) == 0 &&
                is_changed(reload->current, config, &options[i], &lost)) {
                live[l].apply(reload, config); /* With its neighbours, which it shares this with. */
            }
        }
    }
}

/* Takes the new settings over, or says why not. */
static enum weir_status take_over(struct reload *reload, struct config *config,
                                  struct buffer *names, struct weir_err *err)
{
    bool lost = false;
    const uint32_t refused = changed(reload, config, false, names, &lost);
    if (lost) {
        return err_nomem(err, "comparing the settings", 0);
    }
    if (refused > 0) {
        return err_set(err, WEIR_EINVAL, "some need a restart: %s",
                       names->failed ? "too many to list" : names->data);
    }
    buffer_clear(names);
    const uint32_t count = changed(reload, config, true, names, &lost);
    apply(reload, config);
    log_event(LOG_INFO, "settings reloaded", LOG_U64("changed", count),
              LOG_STR("settings", names->failed ? "too many to list" : names->data));
    return WEIR_OK;
}

static void drop(struct config *config)
{
    if (config != NULL) {
        config_finish(config);
        mem_free(config);
    }
}

static enum weir_status read_settings(struct reload *reload, struct buffer *names,
                                      struct weir_err *err)
{
    struct config *config = mem_try_zero(1, sizeof(*config));
    if (config == NULL) {
        return err_nomem(err, "the configuration", sizeof(*config));
    }
    enum weir_status status = reload->read(reload->context, config, err);
    status = status == WEIR_OK ? take_over(reload, config, names, err) : status;
    if (status != WEIR_OK) {
        drop(config);
        return status;
    }
    drop(reload->latest);
    reload->latest = config;
    reload->current = config;
    return WEIR_OK;
}

enum weir_status reload_settings(struct reload *reload, struct buffer *names, struct weir_err *err)
{
    pthread_mutex_lock(&reload->lock);
    guard_look(reload->guard, true);
    const enum weir_status status =
        reload->read == NULL ? WEIR_OK : read_settings(reload, names, err);
    pthread_mutex_unlock(&reload->lock);
    if (status != WEIR_OK) {
        log_event(LOG_WARNING, "settings not reloaded", LOG_STR("reason", err->text));
    }
    return status;
}

void reload_look(struct reload *reload)
{
    pthread_mutex_lock(&reload->lock);
    guard_look(reload->guard, false);
    pthread_mutex_unlock(&reload->lock);
}

void reload_init(struct reload *reload, const struct config *config, struct limits *limits,
                 struct guard *guard)
{
    *reload = (struct reload){ .current = config, .limits = limits, .guard = guard };
    pthread_mutex_init(&reload->lock, NULL);
}

void reload_from(struct reload *reload, reload_read_fn *read, void *context)
{
    pthread_mutex_lock(&reload->lock);
    reload->read = read;
    reload->context = context;
    pthread_mutex_unlock(&reload->lock);
}

void reload_finish(struct reload *reload)
{
    drop(reload->latest);
    pthread_mutex_destroy(&reload->lock);
}
