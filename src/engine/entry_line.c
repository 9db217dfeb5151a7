/*
 * What is wanted of an entry stands in line: orders first, then what the folders say.
 *
 * A load on demand that failed is not repeated at once: the next requests get the same answer, for
 * a second at first, twice as long each time.
 */
#include <string.h>

#include "engine/ahead.h"
#include "engine/entry.h"
#include "engine/entry_parts.h"
#include "util/err.h"

#define BACKOFF_NS (1 * NS_PER_S)
#define BACKOFF_DOUBLINGS 6

void entry_note_demand(struct entry *entry, enum weir_status status)
{
    if (status == WEIR_OK || status == WEIR_EDRAINING) {
        entry->failures = 0;
        entry->retry_ns = 0;
        return;
    }
    const uint32_t doublings =
        entry->failures < BACKOFF_DOUBLINGS ? entry->failures : BACKOFF_DOUBLINGS;
    entry->failures++;
    entry->retry_ns = clock_add(clock_now_ns(entry->host->clock), BACKOFF_NS << doublings);
}

/* It does not serve, and it is too early to try again: why, as far as it is known. */
static void refuse_need(struct entry *entry, struct registry_order *order)
{
    struct weir_err err = entry->why;
    for (const struct slot *slot = entry_first_slot(entry); slot != NULL && err.text[0] == '\0';
         slot = entry_next_slot(entry, slot)) {
        if (slot->failed) {
            (void)err_set(&err, WEIR_EUNAVAILABLE, "%s", slot->why.text);
        }
    }
    if (err.text[0] == '\0') {
        (void)err_set(&err, WEIR_EUNAVAILABLE, "model '%s' is not loaded", entry->name);
    }
    entry_answer(entry->host, order, err.status, &err);
}

/* Where models are not loaded on demand, it only waited for what was under way. */
static void take_need(struct entry *entry, struct registry_order *order)
{
    const bool demand = entry->host->options->control == CONTROL_DEMAND;
    if (entry->serving) {
        entry_answer(entry->host, order, WEIR_OK, NULL);
    } else if (demand && clock_now_ns(entry->host->clock) >= entry->retry_ns) {
        entry->active = order;
        ahead_asked(entry);
        entry_start(entry, NULL);
    } else {
        refuse_need(entry, order);
    }
}

static void take_order(struct entry *entry, struct registry_order *order)
{
    if (entry->host->stopping) {
        entry_answer(entry->host, order, WEIR_EDRAINING, NULL);
    } else if (order->kind == REGISTRY_UNLOAD) {
        if (order->dependents) {
            entry_parts_unwant(entry);
        }
        entry_drop(entry);
        entry_answer(entry->host, order, WEIR_OK, NULL);
    } else if (entry->barred) {
        entry_answer(entry->host, order, WEIR_EINVAL, &entry->why);
    } else if (order->kind == REGISTRY_NEED) {
        take_need(entry, order);
    } else {
        entry->active = order;
        entry->brought_by = NULL; /* From now on it is there for its own sake. */
        entry_start(entry, order->override);
    }
}

void entry_advance(struct entry *entry)
{
    while (!entry->busy) {
        struct list_node *node = list_pop(&entry->orders);
        if (node != NULL) {
            take_order(entry, list_entry(node, struct registry_order, node));
        } else if (entry->want_unload) {
            entry->want_unload = false;
            entry_drop(entry);
        } else if (entry->want_load) {
            entry->want_load = false;
            entry_start(entry, NULL);
        } else if (entry->want_ahead) {
            entry->want_ahead = false;
            entry_start_ahead(entry);
        } else {
            return;
        }
    }
}

void entry_order(struct entry *entry, struct registry_order *order)
{
    list_append(&entry->orders, &order->node);
    entry_advance(entry);
}

void entry_refuse_needs(struct entry *entry)
{
    struct list orders;
    list_init(&orders);
    list_splice(&orders, &entry->orders);
    if (entry->active != NULL && entry->active->kind == REGISTRY_NEED) {
        entry_answer(entry->host, entry->active, WEIR_EDRAINING, NULL);
        entry->active = NULL;
    }
    for (struct list_node *node = list_pop(&orders); node != NULL; node = list_pop(&orders)) {
        struct registry_order *order = list_entry(node, struct registry_order, node);
        if (order->kind == REGISTRY_NEED) {
            entry_answer(entry->host, order, WEIR_EDRAINING, NULL);
        } else {
            list_append(&entry->orders, node);
        }
    }
}

void entry_stop(struct entry *entry)
{
    entry->want_load = false;
    entry->want_ahead = false;
    entry->want_unload = false;
    if (!entry->busy) {
        entry_advance(entry);
        entry_drop(entry);
    }
}

void entry_bar(struct entry *entry, const char *why)
{
    if (entry->barred && strcmp(entry->why.text, why) == 0) {
        return;
    }
    entry->barred = true;
    entry->announce = true;
    (void)err_set(&entry->why, WEIR_EINVAL, "%s", why);
    entry->host->dirty = true;
}

bool entry_is_busy(const struct entry *entry)
{
    return entry->busy || entry->want_load || entry->want_unload || !list_empty(&entry->orders);
}

bool entry_is_empty(const struct entry *entry)
{
    return !entry_is_busy(entry) && !entry->present && !entry->required && entry->slot_count == 0 &&
           entry->residents == 0 && entry->lost == 0 && !entry->announce;
}
