#include "engine/ahead.h"

#include "engine/entry.h"

#define FOLLOW_NS (10 * NS_PER_S) /* Who is asked for later does not follow. */

static bool is_on(const struct entry_host *host)
{
    return host->room_options.preload_next && host->options->control == CONTROL_DEMAND;
}

static bool was_used(const struct entry *entry)
{
    for (const struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (slot->model != NULL && model_uses(slot->model) > 0) {
            return true;
        }
    }
    return false;
}

static void judge(struct entry *entry, bool right)
{
    foresee_judge(&entry->foreseen_by->next, right);
    entry->foreseen_by = NULL;
}

/* Whom the last waiting request was followed by without waiting: it had been loaded ahead. */
static struct entry *follow(struct entry *last)
{
    const char *name = foresee_next(&last->next);
    struct entry *next = name == NULL ? NULL : entry_find(last->host, name);
    if (next == NULL || next->foreseen_by != last || !was_used(next)) {
        return last;
    }
    judge(next, true);
    return next;
}

void ahead_asked(struct entry *entry)
{
    struct entry_host *host = entry->host;
    if (!is_on(host)) {
        return;
    }
    const uint64_t now_ns = clock_now_ns(host->clock);
    struct entry *last = host->asked_last == NULL ? NULL : follow(host->asked_last);
    if (last != NULL && last != entry && now_ns - host->asked_last_ns <= FOLLOW_NS) {
        foresee_saw(&last->next, entry->name);
    }
    host->asked_last = entry;
    host->asked_last_ns = now_ns;
}

void ahead_loaded(struct entry *entry)
{
    struct entry_host *host = entry->host;
    const char *name = is_on(host) ? foresee_next(&entry->next) : NULL;
    struct entry *next = name == NULL ? NULL : entry_find(host, name);
    if (next == NULL || entry_serves(next) || entry_is_busy(next) || !next->present ||
        next->barred || clock_now_ns(host->clock) < next->retry_ns) {
        return;
    }
    next->foreseen_by = entry;
    next->want_ahead = true;
    entry_advance(next);
}

void ahead_unloaded(struct entry *entry)
{
    if (entry->foreseen_by != NULL) {
        judge(entry, was_used(entry));
    }
}

void ahead_forget(struct entry *entry)
{
    struct entry_host *host = entry->host;
    host->asked_last = host->asked_last == entry ? NULL : host->asked_last;
    for (struct entry *other = entry_first(host); other != NULL; other = entry_next(other)) {
        other->foreseen_by = other->foreseen_by == entry ? NULL : other->foreseen_by;
    }
}
