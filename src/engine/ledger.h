/*
 * ledger.h — who holds how much memory, and what may still be booked.
 *
 * An *account* is what can have a budget: everything together, each device (the first is main
 * memory), each group of models.  A *booking* stands for one load of one model version; it charges
 * everything, main memory for what it takes there, its device, and its group if it has one:
 *
 *     none ──book──► LOADING (its peak) ──measure──► LOADED (what was measured) ──leave──► LEAVING
 *       ▲               │                               │ ▲────────────── stay ────────────┤
 *       └───────────────┴────────────── return ─────────┴────────────────────────────────────┘
 *
 * What leaves still counts until it is back.  What nobody booked (buffers, the server itself) is
 * told to the ledger by ledger_observe() and charges main memory and everything.
 *
 * Pure: no clock, no system call, no allocation.  In the registry it is the manager's.
 */
#ifndef WEIR_ENGINE_LEDGER_H
#define WEIR_ENGINE_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

#define LEDGER_DEVICES_MAX 64
#define LEDGER_GROUPS_MAX 64
#define LEDGER_ACCOUNTS_MAX (1 + LEDGER_DEVICES_MAX + LEDGER_GROUPS_MAX)
#define LEDGER_NAME_BYTES 64
#define LEDGER_NO_GROUP UINT32_MAX

/* X(name, text): where bytes are. */
#define LEDGER_SOURCES(X)                                                                \
    X(LOADING, "loading") /* Booked for loads under way: their peaks. */                  \
    X(HEAP, "heap")       /* Allocated for models in main memory. */                      \
    X(MAPPED, "mapped")   /* Files of models, mapped. */                                  \
    X(DEVICE, "device")   /* Of models, in the memory of their device. */                 \
    X(BUFFERS, "buffers") /* Batches, inputs and outputs, in use or kept. */              \
    X(SERVER, "server")   /* The rest of the process: code, connections, runtime. */

enum ledger_source {
#define LEDGER_SOURCE_ENUM(name, text) LEDGER_##name,
    LEDGER_SOURCES(LEDGER_SOURCE_ENUM)
#undef LEDGER_SOURCE_ENUM
    LEDGER_SOURCE_COUNT
};

const char *ledger_source_text(enum ledger_source source);

/* X(name, text) */
#define LEDGER_KINDS(X) X(TOTAL, "total") X(DEVICE, "device") X(GROUP, "group")

enum ledger_kind {
#define LEDGER_KIND_ENUM(name, text) LEDGER_KIND_##name,
    LEDGER_KINDS(LEDGER_KIND_ENUM)
#undef LEDGER_KIND_ENUM
};

struct ledger_account {
    char name[LEDGER_NAME_BYTES];
    enum ledger_kind kind;
    uint64_t max_bytes;                  /* 0: no limit. */
    uint64_t held_bytes;                 /* The sum of the next. */
    uint64_t bytes[LEDGER_SOURCE_COUNT]; /* By source. */
    uint64_t leaving_bytes;              /* Part of held_bytes. */
    uint64_t models;
    uint64_t leaving_models; /* Part of models. */
    bool blocked;            /* For the caller: somebody waits for room in it. */
};

struct ledger {
    struct ledger_account accounts[LEDGER_ACCOUNTS_MAX]; /* Everything, devices, groups. */
    uint32_t device_count;
    uint32_t account_count;
    uint64_t models_max; /* Of everything; 0: no limit. */
};

/* What models take, or a load needs at its peak. */
struct ledger_need {
    uint32_t device; /* Index; 0: main memory, which then also has what is said of the device. */
    uint64_t also;   /* Bit per further device that takes the same. */
    uint32_t group;  /* Of ledger_group(), or LEDGER_NO_GROUP. */
    uint64_t models;
    uint64_t host_bytes;   /* In main memory. */
    uint64_t device_bytes; /* In the memory of each of its devices. */
};

/* What one loaded version was found to take. */
struct ledger_counts {
    uint64_t heap_bytes;
    uint64_t mapped_bytes;
    uint64_t device_bytes; /* Of each of its devices, or of that which has most. */
    uint64_t peak_bytes;   /* In main memory, the most during the load; at least heap and mapped. */
};

enum ledger_state { LEDGER_NONE, LEDGER_BOOKED, LEDGER_LOADED, LEDGER_LEAVING };

/* Zeroed: nothing is booked. */
struct ledger_booking {
    enum ledger_state state;
    struct ledger_need need; /* LOADING: the peak; later what is charged. */
    struct ledger_counts counts;
};

void ledger_init(struct ledger *ledger);

/* Devices come before groups, main memory before the others; at most LEDGER_DEVICES_MAX.  A long
 * name is cut. */
void ledger_device(struct ledger *ledger, const char *name);

/* The group of that name, which is made where there is none.  WEIR_EFULL: there are
 * LEDGER_GROUPS_MAX; WEIR_EINVAL: the name is too long. */
WEIR_MUST_USE enum weir_status ledger_group(struct ledger *ledger, const char *name,
                                            uint32_t *group, struct weir_err *err);

struct ledger_account *ledger_total(struct ledger *ledger);
struct ledger_account *ledger_device_account(struct ledger *ledger, uint32_t device);
struct ledger_account *ledger_group_account(struct ledger *ledger, uint32_t group);

/* The budgets of all accounts become "no limit", before new ones are set. */
void ledger_clear_budgets(struct ledger *ledger);

/* What is missing for `need`, now or once what leaves is gone (`later`). */
struct ledger_lack {
    struct ledger_account *account;
    uint64_t need_bytes;    /* Of this account. */
    uint64_t missing_bytes; /* 0: it is the number of models that is too large. */
};

/* False: *lack says what is missing. */
WEIR_MUST_USE bool ledger_fits(struct ledger *ledger, const struct ledger_need *need, bool later,
                               struct ledger_lack *lack);

/* Would returning what the booking holds help the account? */
bool ledger_charges(const struct ledger *ledger, const struct ledger_need *need,
                    const struct ledger_account *account);

/* Does it hold more than its budget, also once what leaves is gone? */
bool ledger_is_over(const struct ledger *ledger, const struct ledger_account *account);

void ledger_book(struct ledger *ledger, struct ledger_booking *booking,
                 const struct ledger_need *need);
/* What is booked is on these devices, not on those that were thought of. */
void ledger_move(struct ledger *ledger, struct ledger_booking *booking, uint32_t device,
                 uint64_t also);

void ledger_measure(struct ledger *ledger, struct ledger_booking *booking,
                    const struct ledger_counts *counts);
void ledger_leave(struct ledger *ledger, struct ledger_booking *booking);
void ledger_stay(struct ledger *ledger, struct ledger_booking *booking);   /* It does not leave. */
void ledger_return(struct ledger *ledger, struct ledger_booking *booking); /* In any state. */

/* What nobody booked, measured just now. */
void ledger_observe(struct ledger *ledger, uint64_t buffer_bytes, uint64_t server_bytes);

/* What a loaded version takes in all. */
uint64_t ledger_counts_bytes(const struct ledger_counts *counts);

#endif
