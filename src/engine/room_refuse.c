#include "engine/room_refuse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/entry.h"
#include "util/bytes.h"
#include "util/err.h"

/* What the setting of the account's budget is called, into `out`. */
static const char *setting_of(const struct ledger_account *account,
                              char out[LEDGER_NAME_BYTES + 32])
{
    if (account->kind == LEDGER_KIND_TOTAL) {
        return "memory_max";
    }
    (void)snprintf(out, LEDGER_NAME_BYTES + 32, "%s %s",
                   account->kind == LEDGER_KIND_DEVICE ? "memory_devices" : "memory_groups",
                   account->name);
    return out;
}

/* The setting that bounds what there is too little of. */
static const char *limit_of(const struct ledger_lack *lack, char out[LEDGER_NAME_BYTES + 32])
{
    return lack->missing_bytes > 0 ? setting_of(lack->account, out) : "resident_models_max";
}

static const char *why_none_goes(const struct ledger_account *account)
{
    return account->leaving_models > 0 || account->leaving_bytes > 0
               ? "those that go are still in use"
               : "none of the others can go";
}

static void explain_bytes(const struct entry *entry, const struct ledger_lack *lack,
                          struct weir_err *err)
{
    const struct ledger_account *account = lack->account;
    char texts[4][32];
    char setting[LEDGER_NAME_BYTES + 32];
    (void)err_set(
        err, WEIR_ENOMEM,
        "no room for model '%s': it needs about %s, %s are held of the %s that %s allows, %s are "
        "missing, and %s",
        entry->name, bytes_format_size(lack->need_bytes, texts[0]),
        bytes_format_size(account->held_bytes, texts[1]),
        bytes_format_size(account->max_bytes, texts[2]), setting_of(account, setting),
        bytes_format_size(lack->missing_bytes, texts[3]),
        entry_serves(entry) ? "it cannot stand beside the one that serves, which stays "
                              "(update: replace would let that go first)"
                            : why_none_goes(account));
}

/* A version that goes so that the load can follow it, and is still there; NULL: none. */
static const struct slot *find_replaced(const struct entry *entry)
{
    const struct slot *slot = entry->replacing ? entry_first_slot(entry) : NULL;
    while (slot != NULL && slot->leaving == 0) {
        slot = entry_next_slot(entry, slot);
    }
    return slot;
}

void room_tell_wait(struct entry *entry, const struct ledger_lack *lack, bool goes)
{
    char setting[LEDGER_NAME_BYTES + 32];
    struct weir_err now = { 0 };
    const struct slot *replaced = find_replaced(entry);
    if (replaced != NULL) {
        (void)err_set(&now, WEIR_ELOADING,
                      "the load under way waits for version %" PRIu64
                      ", which it replaces and which is still in use",
                      replaced->version);
    } else if (lack == NULL) {
        (void)err_set(&now, WEIR_ELOADING, "the load under way waits for room behind another one");
    } else {
        (void)err_set(&now, WEIR_ELOADING, "the load under way waits for room (%s): %s",
                      limit_of(lack, setting),
                      goes ? "those that go are still in use"
                           : "those that could go work, are being loaded or came just now");
    }
    if (strcmp(now.text, entry->waits.text) != 0) {
        entry->waits = now;
        entry->host->dirty = true;
    }
}

void room_refuse(struct entry *entry, const struct ledger_lack *lack)
{
    const struct ledger *ledger = &entry->host->room.ledger;
    struct weir_err err = { 0 };
    entry->host->room.refusals += entry->ahead ? 0 : 1;
    if (lack->missing_bytes > 0) {
        explain_bytes(entry, lack, &err);
    } else {
        (void)err_set(&err, WEIR_ENOMEM,
                      "no room for model '%s': %" PRIu64 " models are loaded, resident_models_max "
                      "allows %" PRIu64 ", and %s",
                      entry->name, lack->account->models, ledger->models_max,
                      why_none_goes(lack->account));
    }
    entry_refuse_loads(entry, &err);
}
