/*
 * What others see of an entry: its part of a snapshot, and its events for the log.
 */
#include <stdio.h>

#include "engine/entry.h"
#include "util/err.h"
#include "util/mem.h"

bool entry_is_required(const struct entry *entry)
{
    return entry->counts == REQUIRED_AUTO ? entry->required : entry->counts == REQUIRED_TRUE;
}

enum weir_status entry_show(const struct entry *entry, struct catalogue *catalogue)
{
    const bool demand =
        entry->host->options->control == CONTROL_DEMAND && entry->present && !entry->barred;
    const char *why = entry->why.text[0] == '\0' ? NULL : entry->why.text;
    const char *idle =
        demand && entry->slot_count == 0 ? "not loaded: it is loaded when it is asked for" : NULL;
    why = why == NULL ? idle : why;
    const bool waits = list_linked(&entry->room) && entry->waits.text[0] != '\0';
    why = waits ? entry->waits.text : why;
    struct catalogue_entry *shown = catalogue_add(catalogue, entry->name, why, entry->slot_count);
    if (shown == NULL) {
        return WEIR_ENOMEM;
    }
    shown->on_demand = demand || entry->replacing;
    catalogue->on_demand = catalogue->on_demand || shown->on_demand;
    shown->required = entry_is_required(entry);
    shown->loading = entry->busy || entry->want_load;
    shown->waits = waits;
    for (struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        const struct catalogue_version version = {
            .version = slot->version,
            .state = slot->state,
            .reason = slot->why.text[0] == '\0' ? NULL : slot->why.text,
            .model = slot->model,
            .failed = slot->failed && slot->model == NULL,
        };
        const enum weir_status status = slot->state == MODEL_UNKNOWN
                                            ? WEIR_OK
                                            : catalogue_add_version(catalogue, shown, &version);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

static void tell(const struct entry_host *host, const char *name, uint64_t version,
                 enum model_state state, const char *reason, const struct model *model)
{
    if (host->options->changed != NULL) {
        host->options->changed(host->options->changed_context, name, version, state, reason, model);
    }
}

void entry_announce(struct entry *entry)
{
    if (entry->host->stopping) {
        return; /* What was broken off is no failure. */
    }
    if (entry->announce) {
        entry->announce = false;
        tell(entry->host, entry->name, 0, MODEL_UNAVAILABLE, entry->why.text, NULL);
    }
    for (struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (!slot->announce) {
            continue;
        }
        slot->announce = false;
        const char *reason = slot->why.text[0] == '\0' ? NULL : slot->why.text;
        const bool stays = slot->state == MODEL_UNLOADING && reason != NULL;
        if (slot->failed || stays) {
            tell(entry->host, entry->name, slot->version, MODEL_UNAVAILABLE, reason, NULL);
        } else if (slot->model != NULL) {
            tell(entry->host, entry->name, slot->version, MODEL_READY, reason, slot->model);
        }
    }
}

void entry_announce_gone(struct entry_host *host)
{
    for (struct list_node *node = list_pop(&host->gone); node != NULL;
         node = list_pop(&host->gone)) {
        struct resident *resident = list_entry(node, struct resident, node);
        struct entry *entry = resident->entry;
        const struct slot *slot = entry_find_slot(entry, resident->version);
        char bytes[32];
        char before[32];
        char after[32];
        char reason[192];
        (void)snprintf(
            reason, sizeof(reason), "%s, %s of memory returned to the system: %s before, %s after",
            slot != NULL && slot->model != NULL ? "unloaded, replaced by a newer load" : "unloaded",
            bytes_format_size(resident->freed.bytes, bytes),
            bytes_format_size(resident->freed.before, before),
            bytes_format_size(resident->freed.after, after));
        tell(host, entry->name, resident->version, MODEL_UNAVAILABLE, reason, NULL);
        entry->residents--;
        mem_free(resident);
        entry_prune(entry);
        host->dirty = host->dirty || entry->slot_count == 0;
    }
}
