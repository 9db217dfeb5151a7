/*
 * room.h — which models may be in memory, and which must go for another.
 *
 * Every load books its peak before it begins (ledger.h): what the model took the last time, else
 * what its configuration or its backend says, else a multiple of its files; once loaded, what was
 * measured.  A booking ends when the memory is back.  Where a budget does not hold it, and models
 * are loaded on demand, those that are missed least go: never one that works, is pinned, is part of
 * an ensemble that serves, or came a moment ago.
 *
 * A load that finds no room waits in line for what leaves, or for what will have stayed long
 * enough, and with it those behind it that need the same budget; when nothing can go it fails and
 * says so.  A reload whose model says `update: replace` lets what it replaces go first.
 *
 * Manager thread.
 */
#ifndef WEIR_ENGINE_ROOM_H
#define WEIR_ENGINE_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/evict.h"
#include "engine/ledger.h"
#include "engine/worker.h"
#include "util/err.h"
#include "util/list.h"

struct catalogue;
struct engine;
struct entry;
struct load_job;
struct entry_host;
struct slot;

#define ROOM_PINNED_MAX 64
#define ROOM_NAME_BYTES 129 /* Of a model, with its NUL. */

/* Of a device, or of a group of models. */
struct room_budget {
    char name[LEDGER_NAME_BYTES];
    uint64_t max_bytes;
};

struct room_options {
    uint64_t memory_max;   /* Bytes of everything; 0: no limit. */
    uint64_t models_max;   /* Versions in memory; 0: no limit. */
    uint64_t residency_ns; /* Nobody goes sooner after it came, */
    uint64_t first_use_ns; /* or so soon unless it was used: it was loaded for somebody. */
    uint64_t idle_ns;      /* Who was not asked for so long goes; 0: never. */
    enum eviction eviction;
    bool preload_next; /* Load ahead what is usually asked for next, where there is room. */
    char pinned[ROOM_PINNED_MAX][ROOM_NAME_BYTES]; /* Names of models that stay. */
    uint32_t pinned_count;
    struct room_budget devices[LEDGER_DEVICES_MAX]; /* Those of no device are not looked at. */
    uint32_t device_count;
    struct room_budget groups[LEDGER_GROUPS_MAX];
    uint32_t group_count;
};

/* In entry_host. */
struct room {
    struct ledger ledger;
    struct list waiting; /* Of entry.room: loads without room, first come first served. */

    uint64_t server_file;     /* Bytes of mapped files before there were models. */
    uint64_t elsewhere_bytes; /* Of models, in processes of their own. */
    struct worker_job check;  /* While `checking`: the scanner reads the system's own count */
    uint64_t check_bytes;     /* into this, */
    bool checking;
    uint64_t checked_ns;         /* last at this time. */
    uint64_t proportional_bytes; /* What it was then, */
    uint64_t unseen_bytes;       /* and what of it the ledger did not know of. */

    uint64_t kept_ns;   /* When budgets were last looked at without a load. */
    uint64_t first_ns;  /* Of all models that came back: their first loads, */
    uint64_t reload_ns; /* and the ones after. */
    uint64_t evictions;
    uint64_t refusals;
    uint64_t ahead; /* Models loaded ahead. */
};

void room_init(struct room *room, const struct engine *engine, const struct room_options *options);

/* From now on these hold.  Groups beyond LEDGER_GROUPS_MAX have no budget. */
void room_set(struct room *room, const struct room_options *options);

/* What loading this version will take at its peak, where the backend did not say it. */
struct ledger_need room_estimate(const struct entry_host *host, const struct slot *slot,
                                 uint64_t fingerprint, uint64_t file_bytes);

/* The entry's prepared loads want to begin: it goes on by entry_send_loads() at once or later, or
 * fails by entry_refuse_loads(). */
void room_ask(struct entry *entry);

/* A load came up: what was measured is booked instead, and remembered. */
void room_measured(struct entry *entry, const struct load_job *load);

/* Work that was written off: what it may take counts as taken.  As work under way it would keep all
 * others from being measured, perhaps for ever. */
void room_keep(struct room *room, struct ledger_booking *booking);

/* Once per turn, before publishing: goes on with those that wait, lets idle models go.  *next_ns:
 * when to look again at the latest. */
void room_turn(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns);

/* Stopping: nobody waits any more. */
void room_stop(struct entry_host *host);

/* What a snapshot shows of it.  WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status room_show(struct entry_host *host, struct catalogue *catalogue);

#endif
