/*
 * Every change goes through charge(), which keeps an account's sum and its parts in step; what is
 * taken off is exactly what was put on, as it stands in the booking.
 */
#include "engine/ledger.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const char *const source_texts[] = {
#define LEDGER_SOURCE_TEXT(name, text) text,
    LEDGER_SOURCES(LEDGER_SOURCE_TEXT)
#undef LEDGER_SOURCE_TEXT
};

const char *ledger_source_text(enum ledger_source source)
{
    return source_texts[source];
}

uint64_t ledger_counts_bytes(const struct ledger_counts *counts)
{
    return counts->heap_bytes + counts->mapped_bytes + counts->device_bytes;
}

/* ---- Accounts -------------------------------------------------------------------------------- */

static void add_account(struct ledger *ledger, const char *name, enum ledger_kind kind)
{
    struct ledger_account *account = &ledger->accounts[ledger->account_count++];
    *account = (struct ledger_account){ .kind = kind };
    (void)snprintf(account->name, sizeof(account->name), "%s", name);
}

void ledger_init(struct ledger *ledger)
{
    *ledger = (struct ledger){ 0 };
    add_account(ledger, "total", LEDGER_KIND_TOTAL);
}

void ledger_device(struct ledger *ledger, const char *name)
{
    assert(ledger->account_count == 1 + ledger->device_count); /* No groups yet. */
    assert(ledger->device_count < LEDGER_DEVICES_MAX);
    add_account(ledger, name, LEDGER_KIND_DEVICE);
    ledger->device_count++;
}

enum weir_status ledger_group(struct ledger *ledger, const char *name, uint32_t *group,
                              struct weir_err *err)
{
    const uint32_t first = 1 + ledger->device_count;
    for (uint32_t i = first; i < ledger->account_count; i++) {
        if (strcmp(ledger->accounts[i].name, name) == 0) {
            *group = i - first;
            return WEIR_OK;
        }
    }
    if (ledger->account_count - first == LEDGER_GROUPS_MAX) {
        return err_set(err, WEIR_EFULL,
                       "memory_group '%s': found %d groups already, expected no more", name,
                       LEDGER_GROUPS_MAX);
    }
    if (strlen(name) >= LEDGER_NAME_BYTES) {
        return err_set(err, WEIR_EINVAL, "memory_group '%.64s...': expected at most %d characters",
                       name, LEDGER_NAME_BYTES - 1);
    }
    *group = ledger->account_count - first;
    add_account(ledger, name, LEDGER_KIND_GROUP);
    return WEIR_OK;
}

struct ledger_account *ledger_total(struct ledger *ledger)
{
    return &ledger->accounts[0];
}

struct ledger_account *ledger_device_account(struct ledger *ledger, uint32_t device)
{
    assert(device < ledger->device_count);
    return &ledger->accounts[1 + device];
}

struct ledger_account *ledger_group_account(struct ledger *ledger, uint32_t group)
{
    assert(group < ledger->account_count - 1 - ledger->device_count);
    return &ledger->accounts[1 + ledger->device_count + group];
}

void ledger_clear_budgets(struct ledger *ledger)
{
    ledger->models_max = 0;
    for (uint32_t i = 0; i < ledger->account_count; i++) {
        ledger->accounts[i].max_bytes = 0;
    }
}

/* ---- Room ------------------------------------------------------------------------------------ */

static bool is_on(const struct ledger_need *need, uint32_t device)
{
    return device == need->device || (need->also >> device & 1) != 0;
}

static int device_count(const struct ledger_need *need)
{
    return 1 + __builtin_popcountll(need->also);
}

/* What `need` takes of the account. */
static uint64_t share_of(const struct ledger *ledger, const struct ledger_need *need,
                         const struct ledger_account *account)
{
    const uint32_t index = (uint32_t)(account - ledger->accounts);
    const uint32_t first_group = 1 + ledger->device_count;
    if (index == 0 || (need->group != LEDGER_NO_GROUP && index == first_group + need->group)) {
        return need->host_bytes + need->device_bytes * (uint64_t)device_count(need);
    }
    return (index == 1 ? need->host_bytes : 0) +
           (index < first_group && is_on(need, index - 1) ? need->device_bytes : 0);
}

bool ledger_charges(const struct ledger *ledger, const struct ledger_need *need,
                    const struct ledger_account *account)
{
    return share_of(ledger, need, account) > 0;
}

static uint64_t missing_bytes(const struct ledger_account *account, uint64_t bytes, bool later)
{
    const uint64_t held = account->held_bytes - (later ? account->leaving_bytes : 0);
    const uint64_t max = account->max_bytes;
    if (bytes == 0 || max == 0 || (held <= max && bytes <= max - held)) {
        return 0;
    }
    return bytes > UINT64_MAX - held ? UINT64_MAX - max : held + bytes - max;
}

bool ledger_fits(struct ledger *ledger, const struct ledger_need *need, bool later,
                 struct ledger_lack *lack)
{
    struct ledger_account *total = &ledger->accounts[0];
    const uint64_t models = total->models - (later ? total->leaving_models : 0);
    if (ledger->models_max > 0 && models + need->models > ledger->models_max) {
        *lack = (struct ledger_lack){ .account = total };
        return false;
    }
    for (uint32_t i = 0; i < ledger->account_count; i++) {
        struct ledger_account *account = &ledger->accounts[i];
        const uint64_t bytes = share_of(ledger, need, account);
        const uint64_t missing = missing_bytes(account, bytes, later);
        if (missing > 0) {
            *lack = (struct ledger_lack){ account, bytes, missing };
            return false;
        }
    }
    return true;
}

bool ledger_is_over(const struct ledger *ledger, const struct ledger_account *account)
{
    const bool models = account == &ledger->accounts[0] && ledger->models_max > 0 &&
                        account->models - account->leaving_models > ledger->models_max;
    const uint64_t held = account->held_bytes - account->leaving_bytes;
    return models || (account->max_bytes > 0 && held > account->max_bytes);
}

/* ---- Bookings -------------------------------------------------------------------------------- */

enum change { PUT, TAKE };

static void charge(struct ledger_account *account, enum ledger_source source, uint64_t bytes,
                   enum change change)
{
    assert(change == PUT || account->bytes[source] >= bytes);
    account->bytes[source] += change == PUT ? bytes : 0 - bytes;
    account->held_bytes += change == PUT ? bytes : 0 - bytes;
}

/* On all accounts that a booking charges. */
static void charge_all(struct ledger *ledger, const struct ledger_need *need,
                       enum ledger_source source, uint64_t bytes, bool device, enum change change)
{
    const uint64_t all = bytes * (uint64_t)(device ? device_count(need) : 1);
    charge(&ledger->accounts[0], source, all, change);
    for (uint32_t i = 0; i < ledger->device_count; i++) {
        if (device ? is_on(need, i) : i == 0) {
            charge(&ledger->accounts[1 + i], source, bytes, change);
        }
    }
    if (need->group != LEDGER_NO_GROUP) {
        charge(ledger_group_account(ledger, need->group), source, all, change);
    }
}

static void change_booking(struct ledger *ledger, const struct ledger_booking *booking,
                           enum change change)
{
    const struct ledger_need *need = &booking->need;
    if (booking->state == LEDGER_BOOKED) {
        charge_all(ledger, need, LEDGER_LOADING, need->host_bytes, false, change);
        charge_all(ledger, need, LEDGER_LOADING, need->device_bytes, true, change);
        return;
    }
    charge_all(ledger, need, LEDGER_HEAP, booking->counts.heap_bytes, false, change);
    charge_all(ledger, need, LEDGER_MAPPED, booking->counts.mapped_bytes, false, change);
    charge_all(ledger, need, LEDGER_DEVICE, booking->counts.device_bytes, true, change);
}

static void count_models(struct ledger *ledger, const struct ledger_need *need, enum change change)
{
    const uint64_t by = change == PUT ? need->models : 0 - need->models;
    ledger->accounts[0].models += by;
    for (uint32_t i = 0; i < ledger->device_count; i++) {
        ledger->accounts[1 + i].models += is_on(need, i) ? by : 0;
    }
    if (need->group != LEDGER_NO_GROUP) {
        ledger_group_account(ledger, need->group)->models += by;
    }
}

static void change_leaving(struct ledger *ledger, const struct ledger_need *need,
                           enum change change)
{
    for (uint32_t i = 0; i < ledger->account_count; i++) {
        struct ledger_account *account = &ledger->accounts[i];
        const uint64_t bytes = share_of(ledger, need, account);
        account->leaving_bytes += change == PUT ? bytes : 0 - bytes;
    }
    ledger->accounts[0].leaving_models += change == PUT ? 1 : UINT64_MAX;
}

void ledger_book(struct ledger *ledger, struct ledger_booking *booking,
                 const struct ledger_need *need)
{
    assert(booking->state == LEDGER_NONE && need->models <= 1);
    *booking = (struct ledger_booking){ .state = LEDGER_BOOKED, .need = *need };
    change_booking(ledger, booking, PUT);
    count_models(ledger, need, PUT);
}

void ledger_move(struct ledger *ledger, struct ledger_booking *booking, uint32_t device,
                 uint64_t also)
{
    assert(booking->state == LEDGER_BOOKED);
    struct ledger_need need = booking->need;
    need.device = device;
    need.also = also;
    ledger_return(ledger, booking);
    ledger_book(ledger, booking, &need);
}

void ledger_measure(struct ledger *ledger, struct ledger_booking *booking,
                    const struct ledger_counts *counts)
{
    assert(booking->state == LEDGER_BOOKED || booking->state == LEDGER_LOADED);
    change_booking(ledger, booking, TAKE);
    booking->state = LEDGER_LOADED;
    booking->counts = *counts;
    booking->need.host_bytes = counts->heap_bytes + counts->mapped_bytes;
    booking->need.device_bytes = counts->device_bytes;
    change_booking(ledger, booking, PUT);
}

void ledger_leave(struct ledger *ledger, struct ledger_booking *booking)
{
    assert(booking->state == LEDGER_LOADED);
    booking->state = LEDGER_LEAVING;
    change_leaving(ledger, &booking->need, PUT);
}

void ledger_stay(struct ledger *ledger, struct ledger_booking *booking)
{
    assert(booking->state == LEDGER_LEAVING);
    change_leaving(ledger, &booking->need, TAKE);
    booking->state = LEDGER_LOADED;
}

void ledger_return(struct ledger *ledger, struct ledger_booking *booking)
{
    if (booking->state == LEDGER_NONE) {
        return;
    }
    if (booking->state == LEDGER_LEAVING) {
        change_leaving(ledger, &booking->need, TAKE);
    }
    change_booking(ledger, booking, TAKE);
    count_models(ledger, &booking->need, TAKE);
    *booking = (struct ledger_booking){ 0 };
}

void ledger_observe(struct ledger *ledger, uint64_t buffer_bytes, uint64_t server_bytes)
{
    for (uint32_t i = 0; i < 2; i++) { /* Everything, and main memory. */
        struct ledger_account *account = &ledger->accounts[i];
        charge(account, LEDGER_BUFFERS, account->bytes[LEDGER_BUFFERS], TAKE);
        charge(account, LEDGER_SERVER, account->bytes[LEDGER_SERVER], TAKE);
        charge(account, LEDGER_BUFFERS, buffer_bytes, PUT);
        charge(account, LEDGER_SERVER, server_bytes, PUT);
    }
}
