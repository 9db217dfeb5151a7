/*
 * Ensembles and their parts.
 *
 * An entry is judged anew only after something that serves has changed, and a
 * failed attempt is repeated only when its steps would now get other models, so
 * that an ensemble that cannot be put together is not tried for ever.
 */
#include "engine/entry_parts.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "util/err.h"
#include "util/mem.h"

enum weir_status entry_parts_read(struct look_job *look, const struct model_config *config)
{
    const struct ensemble_config *ensemble = &config->ensemble;
    size_t size = ensemble->step_count * sizeof(struct entry_part);
    for (uint32_t i = 0; i < ensemble->step_count; i++) {
        size += strlen(ensemble->steps[i].model) + 1;
    }
    look->parts = NULL;
    if (ensemble->step_count == 0) {
        return WEIR_OK;
    }
    struct entry_parts *parts = mem_try_alloc(sizeof(*parts) + size);
    if (parts == NULL) {
        return err_nomem(&look->err, "an ensemble's parts", size);
    }
    char *text = (char *)&parts->items[ensemble->step_count];
    parts->count = ensemble->step_count;
    for (uint32_t i = 0; i < parts->count; i++) {
        const struct ensemble_step *step = &ensemble->steps[i];
        const size_t bytes = strlen(step->model) + 1;
        memcpy(text, step->model, bytes);
        parts->items[i].name = text;
        parts->items[i].version = step->version < 0 ? 0 : (uint64_t)step->version;
        text += bytes;
    }
    look->parts = parts;
    return WEIR_OK;
}

/* What a step that names this gets, or NULL. */
static struct model *resolve(const struct entry_host *host, const char *name, uint64_t version)
{
    const struct entry *entry = entry_find(host, name);
    struct model *found = NULL;
    for (struct slot *slot = entry == NULL ? NULL : entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (slot->model != NULL && (version == 0 || slot->version == version)) {
            found = slot->model;
        }
    }
    return found;
}

static struct model *resolve_step(const struct entry_host *host, const struct ensemble_step *step)
{
    return resolve(host, step->model, step->version < 0 ? 0 : (uint64_t)step->version);
}

/* Parts are loaded with the ensemble, not by themselves. */
static bool loads_parts(const struct entry_host *host)
{
    return host->options->control == CONTROL_EXPLICIT || host->options->control == CONTROL_DEMAND;
}

/* Tells one set of parts from another. */
static uint64_t digest(const struct entry *entry)
{
    uint64_t words[2] = { 0 };
    for (uint32_t i = 0; i < entry->wants->count; i++) {
        const struct entry_part *part = &entry->wants->items[i];
        const struct model *model = resolve(entry->host, part->name, part->version);
        words[1] = model == NULL ? 0 : model->serial;
        words[0] = map_hash(words, sizeof(words));
    }
    return words[0];
}

static bool all_there(const struct entry *entry)
{
    for (uint32_t i = 0; i < entry->wants->count; i++) {
        const struct entry_part *part = &entry->wants->items[i];
        if (resolve(entry->host, part->name, part->version) == NULL) {
            return false;
        }
    }
    return true;
}

/* ---- A load ---------------------------------------------------------------------------------- */

static bool leads_to(struct entry *from, const struct entry *target);

static bool step_leads_to(const struct entry_host *host, const char *name,
                          const struct entry *target)
{
    struct entry *next = entry_find(host, name);
    if (next == NULL || next == target) {
        return next != NULL;
    }
    if (next->walked == host->walk) {
        return false;
    }
    next->walked = host->walk;
    return leads_to(next, target);
}

/* By way of what waits and of what serves; who is only being looked at asks for itself when it
 * is. */
static bool leads_to(struct entry *from, const struct entry *target)
{
    for (uint32_t i = 0; from->waiting && i < from->wants->count; i++) {
        if (step_leads_to(from->host, from->wants->items[i].name, target)) {
            return true;
        }
    }
    for (struct slot *slot = entry_first_slot(from); slot != NULL && from != target;
         slot = entry_next_slot(from, slot)) {
        for (uint32_t i = 0; slot->model != NULL && i < slot->model->part_count; i++) {
            if (step_leads_to(from->host, slot->model->parts[i]->name, target)) {
                return true;
            }
        }
    }
    return false;
}

/* Whoever had them loaded is not the only one who wants them. */
static void share_parts(const struct entry *entry)
{
    for (uint32_t i = 0; i < entry->wants->count; i++) {
        struct entry *part = entry_find(entry->host, entry->wants->items[i].name);
        if (part != NULL) {
            part->brought_by = NULL;
        }
    }
}

static enum weir_status order_parts(struct entry *entry, struct weir_err *err)
{
    struct entry_host *host = entry->host;
    for (uint32_t i = 0; i < entry->wants->count; i++) {
        const char *name = entry->wants->items[i].name;
        if (!repository_name_ok(bytes_of(name))) {
            return err_set(err, WEIR_EINVAL, "step %" PRIu32 ": '%.130s' is no model name", i + 1,
                           name);
        }
        struct entry *part = entry_need(host, name);
        if (part == NULL) {
            return err_nomem(err, "a model", sizeof(*part));
        }
        if (!entry_serves(part) && !entry_is_busy(part)) {
            part->brought_by = entry;
            part->want_load = true;
            entry_advance(part);
        }
    }
    return WEIR_OK;
}

void entry_parts_await(struct entry *entry)
{
    struct entry_host *host = entry->host;
    struct weir_err err = { 0 };
    enum weir_status status = WEIR_OK;
    mem_free(entry->wants);
    entry->wants = entry->look.parts;
    entry->look.parts = NULL;
    entry->waiting = true;
    share_parts(entry);
    host->walk++;
    if (leads_to(entry, entry)) {
        status = err_set(&err, WEIR_EINVAL, "ensemble '%s' is a step of itself", entry->name);
    } else if (loads_parts(host) && !entry->retrying) {
        status = order_parts(entry, &err);
    }
    if (status != WEIR_OK) {
        entry->waiting = false;
        entry_fail(entry, status, &err);
    }
}

static bool parts_settled(const struct entry *entry)
{
    for (uint32_t i = 0; i < entry->wants->count; i++) {
        const struct entry *part = entry_find(entry->host, entry->wants->items[i].name);
        if (part != NULL && entry_is_busy(part)) {
            return false;
        }
    }
    return true;
}

/* Why there is no such part.  Want of room passes; all else is the ensemble's own fault. */
static enum weir_status complain(const struct entry *entry, uint32_t index, struct weir_err *err)
{
    const struct entry_part *part = &entry->wants->items[index];
    const struct entry *other = entry_find(entry->host, part->name);
    const char *why = other == NULL ? "there is no such model" : "it is not loaded";
    const bool lacks_room = other != NULL && other->why.status == WEIR_ENOMEM;
    if (other != NULL && other->why.text[0] != '\0') {
        why = other->why.text;
    }
    for (struct slot *slot = other == NULL ? NULL : entry_first_slot(other); slot != NULL;
         slot = entry_next_slot(other, slot)) {
        const bool meant = (part->version == 0 || part->version == slot->version) &&
                           (slot->failed || other->why.text[0] == '\0');
        why = meant && slot->why.text[0] != '\0' ? slot->why.text : why;
    }
    char version[32] = "";
    if (part->version > 0) {
        (void)snprintf(version, sizeof(version), " version %" PRIu64, part->version);
    }
    return err_set(err, lacks_room ? WEIR_ENOMEM : WEIR_EINVAL,
                   "step %" PRIu32 " needs model '%.130s'%s: %.250s", index + 1, part->name,
                   version, why);
}

static enum weir_status take_parts(struct entry *entry, struct weir_err *err)
{
    const uint32_t count = entry->wants->count;
    entry->parts = arena_try_zero(&entry->arena, count, sizeof(struct model *));
    if (entry->parts == NULL) {
        return err_nomem(err, "an ensemble's parts", count * sizeof(struct model *));
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct entry_part *part = &entry->wants->items[i];
        struct model *model = resolve(entry->host, part->name, part->version);
        if (model == NULL) {
            return complain(entry, i, err);
        }
        model_acquire(model);
        entry->parts[entry->part_count++] = model;
    }
    return WEIR_OK;
}

static void resume(struct entry *entry)
{
    struct weir_err err = { 0 };
    entry->waiting = false;
    if (entry->host->stopping) {
        (void)err_set(&err, WEIR_EDRAINING, "the server is shutting down");
        entry_fail(entry, WEIR_EDRAINING, &err);
        return;
    }
    /* Until it is taken over it is missing something, be it only what would make its parts fit. */
    entry->lacking = !entry_serves(entry);
    entry->tried = digest(entry);
    entry->judged = entry->host->changes;
    const enum weir_status status = take_parts(entry, &err);
    if (status == WEIR_OK) {
        entry_start_loads(entry);
    } else {
        entry_fail(entry, status, &err);
    }
}

void entry_parts_release(struct entry *entry)
{
    while (entry->part_count > 0) {
        model_release(entry->parts[--entry->part_count]);
    }
    entry->parts = NULL;
}

bool entry_parts_differ(const struct entry *entry, const struct model *model)
{
    if (entry->part_count != model->part_count) {
        return true;
    }
    for (uint32_t i = 0; i < model->part_count; i++) {
        if (entry->parts[i] != model->parts[i]) {
            return true;
        }
    }
    return false;
}

/* ---- What serves ----------------------------------------------------------------------------- */

enum verdict { SOUND, CHANGED, BROKEN };

/* *step: the first that gets nothing. */
static enum verdict judge_model(const struct entry_host *host, const struct model *model,
                                uint32_t *step)
{
    enum verdict verdict = SOUND;
    for (uint32_t i = 0; i < model->part_count; i++) {
        const struct model *now = resolve_step(host, &model->config->ensemble.steps[i]);
        if (now == NULL) {
            *step = i;
            return BROKEN;
        }
        verdict = now != model->parts[i] ? CHANGED : verdict;
    }
    return verdict;
}

/* Of all versions that serve: they are put together of the same parts. */
static enum verdict judge(const struct entry *entry, const struct model **model, uint32_t *step)
{
    for (struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (slot->model != NULL) {
            *model = slot->model;
            return judge_model(entry->host, slot->model, step);
        }
    }
    return CHANGED;
}

/* A part is gone; what was put together of it is offered no more. */
static void drop(struct entry *entry, const struct model *model, uint32_t step)
{
    struct weir_err why = { 0 };
    (void)err_set(&why, WEIR_EUNAVAILABLE,
                  "step %" PRIu32 " needs model '%s', which is no longer loaded", step + 1,
                  model->parts[step]->name);
    for (struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        if (slot->model != NULL) {
            entry_let_go(slot);
            slot->failed = true;
            slot->announce = true;
            slot->why = why;
        }
    }
    entry->lacking = true;
    entry->serving = false;
    if (loads_parts(entry->host)) {
        entry->required = false; /* Somebody wanted it so. */
    }
    entry->host->dirty = true;
}

/* Also while it waits for its parts: one of them may come only once what serves has let the part
 * before go (`update: replace`). */
static void review(struct entry *entry)
{
    const struct model *model = NULL;
    uint32_t step = 0;
    if ((entry_is_busy(entry) && !entry->waiting) || entry->wants == NULL ||
        entry->judged == entry->host->changes || (!entry_serves(entry) && !entry->lacking)) {
        return;
    }
    entry->judged = entry->host->changes;
    const enum verdict verdict = judge(entry, &model, &step);
    if (verdict == BROKEN) {
        drop(entry, model, step);
    } else if (verdict == CHANGED && !entry->waiting && all_there(entry) &&
               digest(entry) != entry->tried) {
        entry->want_load = true;
        entry->retrying = true;
        entry_advance(entry);
    }
}

void entry_parts_turn(struct entry_host *host)
{
    bool again = true;
    while (again) {
        const uint64_t before = host->changes;
        again = false;
        for (struct entry *entry = entry_first(host); entry != NULL; entry = entry_next(entry)) {
            if (entry->waiting && (host->stopping || parts_settled(entry))) {
                resume(entry);
                again = true; /* Others may have waited for it. */
            } else if (!host->stopping) {
                review(entry);
            }
        }
        again = again || host->changes != before;
    }
}

/* ---- Unloading with the parts ---------------------------------------------------------------- */

static bool used_by_others(const struct entry *part)
{
    for (const struct entry *other = entry_first(part->host); other != NULL;
         other = entry_next(other)) {
        for (struct slot *slot = entry_first_slot(other); slot != NULL && !other->want_unload;
             slot = entry_next_slot(other, slot)) {
            for (uint32_t i = 0; slot->model != NULL && i < slot->model->part_count; i++) {
                if (strcmp(slot->model->parts[i]->name, part->name) == 0) {
                    return true;
                }
            }
        }
    }
    return false;
}

/* As an ensemble is no part of itself, this ends. */
static void unwant(struct entry *entry)
{
    entry->want_unload = true;
    for (struct slot *slot = entry_first_slot(entry); slot != NULL;
         slot = entry_next_slot(entry, slot)) {
        for (uint32_t i = 0; slot->model != NULL && i < slot->model->part_count; i++) {
            struct entry *part = entry_find(entry->host, slot->model->parts[i]->name);
            if (part != NULL && !part->want_unload && !used_by_others(part)) {
                unwant(part);
            }
        }
    }
}

void entry_parts_unwant(struct entry *entry)
{
    const bool before = entry->want_unload;
    unwant(entry);
    entry->want_unload = before;
    for (struct entry *other = entry_first(entry->host); other != NULL; other = entry_next(other)) {
        if (other != entry) {
            entry_advance(other);
        }
    }
}

/* ---- A load that is over --------------------------------------------------------------------- */

/* One part may be a part of another: each that went may set further ones free. */
static void let_brought_go(const struct entry *entry)
{
    bool again = true;
    while (again) {
        again = false;
        for (struct entry *part = entry_first(entry->host); part != NULL; part = entry_next(part)) {
            if (part->brought_by == entry && entry_serves(part) && !entry_is_busy(part) &&
                !used_by_others(part)) {
                part->brought_by = NULL;
                part->want_unload = true;
                entry_advance(part);
                again = true;
            }
        }
    }
}

void entry_parts_end(struct entry *entry, enum weir_status status)
{
    struct entry_host *host = entry->host;
    if (entry->wants == NULL || host->stopping) {
        return;
    }
    if (status == WEIR_ENOMEM && host->options->control == CONTROL_EXPLICIT) {
        let_brought_go(entry);
    }
    for (struct entry *part = entry_first(host); part != NULL; part = entry_next(part)) {
        if (part->brought_by == entry) {
            part->brought_by = status == WEIR_OK ? entry->brought_by : NULL;
        }
    }
}
