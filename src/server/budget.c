#include "server/budget.h"

#include <stdio.h>
#include <string.h>

#include "util/bytes.h"

#define FIRST_USE_NS (1 * NS_PER_S) /* Longer than any thread waits for a processor. */

static bool is_device(const struct config *config, const char *name)
{
    if (strcmp(name, "cpu") == 0) {
        return true;
    }
    const size_t size = strlen(name);
    for (uint64_t i = 0; i < config->devices.count; i++) {
        const char *text = config->devices.items[i];
        if (strncmp(text, name, size) == 0 && text[size] == ':') {
            return true;
        }
    }
    return false;
}

/* "NAME:SIZE" */
static enum weir_status read_one(const char *key, const char *text, struct room_budget *out,
                                 struct weir_err *err)
{
    const char *colon = strrchr(text, ':');
    const size_t size = colon == NULL ? 0 : (size_t)(colon - text);
    uint64_t bytes = 0;
    if (size == 0 || size >= sizeof(out->name) || !bytes_to_size(bytes_of(colon + 1), &bytes) ||
        bytes == 0) {
        return err_set(
            err, WEIR_EINVAL,
            "%s: found '%s', expected NAME:SIZE such as npu:2GiB, the name of at most %zu "
            "characters",
            key, text, sizeof(out->name) - 1);
    }
    *out = (struct room_budget){ .max_bytes = bytes };
    memcpy(out->name, text, size);
    return WEIR_OK;
}

static enum weir_status read_list(const char *key, const struct config_list *list,
                                  struct room_budget *out, uint32_t most, uint32_t *count,
                                  struct weir_err *err)
{
    if (list->count > most) {
        return err_set(err, WEIR_EINVAL, "%s: found %llu budgets, expected at most %u", key,
                       (unsigned long long)list->count, most);
    }
    for (uint64_t i = 0; i < list->count; i++) {
        const enum weir_status status = read_one(key, list->items[i], &out[i], err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    *count = (uint32_t)list->count;
    return WEIR_OK;
}

static enum weir_status check_devices(const struct config *config, const struct room_options *room,
                                      struct weir_err *err)
{
    for (uint32_t i = 0; i < room->device_count; i++) {
        if (!is_device(config, room->devices[i].name)) {
            return err_set(
                err, WEIR_EINVAL,
                "memory_devices: found '%s', expected cpu or one of the devices that `devices` "
                "declares",
                room->devices[i].name);
        }
    }
    return WEIR_OK;
}

static enum weir_status read_pinned(const struct config_list *names, struct room_options *room,
                                    struct weir_err *err)
{
    for (uint64_t i = 0; i < names->count; i++) {
        if (i == ROOM_PINNED_MAX || strlen(names->items[i]) >= ROOM_NAME_BYTES) {
            return err_set(
                err, WEIR_EINVAL,
                "pinned: found '%.40s...' in %llu names, expected at most %d of at most %d "
                "characters",
                names->items[i], (unsigned long long)names->count, ROOM_PINNED_MAX,
                ROOM_NAME_BYTES - 1);
        }
        memcpy(room->pinned[i], names->items[i], strlen(names->items[i]) + 1);
        room->pinned_count++;
    }
    return WEIR_OK;
}

enum weir_status budget_read(const struct config *config, struct room_options *out,
                             struct weir_err *err)
{
    struct room_options room = {
        .memory_max = config->memory_max_bytes,
        .models_max = config->resident_models_max,
        .residency_ns = config->residency_min_ns,
        .first_use_ns = FIRST_USE_NS,
        .idle_ns = config->idle_unload_ns,
        .eviction = (enum eviction)config->eviction,
        .preload_next = config->preload_next,
    };
    enum weir_status status = read_list("memory_devices", &config->memory_devices, room.devices,
                                        LEDGER_DEVICES_MAX, &room.device_count, err);
    status = status == WEIR_OK ? read_list("memory_groups", &config->memory_groups, room.groups,
                                           LEDGER_GROUPS_MAX, &room.group_count, err)
                               : status;
    status = status == WEIR_OK ? check_devices(config, &room, err) : status;
    status = status == WEIR_OK ? read_pinned(&config->pinned, &room, err) : status;
    if (status == WEIR_OK && out != NULL) {
        *out = room;
    }
    return status;
}
