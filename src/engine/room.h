/*
 * room.h — which models may be in memory, and which must go for another.
 *
 * Every load books what it needs before it begins: what the model took the last time, else a multiple
 * of its files; once loaded, what was measured.  A booking ends when the memory is back.  Where the
 * budget does not hold it, and models are loaded on demand, those that are missed least go: never one
 * that works, is pinned, is part of an ensemble that serves, or came a moment ago.
 *
 * A load that finds no room waits in line for what leaves, or for what will have stayed long enough; when
 * nothing can go it fails and says so.
 *
 * Manager thread.
 */
#ifndef WEIR_ENGINE_ROOM_H
#define WEIR_ENGINE_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/evict.h"
#include "util/err.h"
#include "util/list.h"

struct entry;
struct load_job;
struct entry_host;
struct slot;

struct room_options {
    uint64_t memory_max;   /* Bytes of all models; 0: no limit. */
    uint64_t models_max;   /* Versions in memory; 0: no limit. */
    uint64_t residency_ns; /* Nobody goes sooner after it came. */
    uint64_t idle_ns;      /* Who was not asked for so long goes; 0: never. */
    enum eviction eviction;
    const char *const *pinned; /* Names of models that stay. */
    uint64_t pinned_count;
};

/* In entry_host. */
struct room {
    uint64_t booked_bytes;  /* Loaded, being loaded, and leaving. */
    uint64_t leaving_bytes; /* Those of them that are on their way out. */
    uint64_t booked_models;
    uint64_t leaving_models;
    struct list waiting; /* Of entry.room: loads without room, first come first served. */
    uint64_t evictions;
    uint64_t refusals;
};

void room_init(struct room *room);

/* What loading this version will take. */
uint64_t room_estimate(const struct slot *slot, uint64_t fingerprint, uint64_t file_bytes);

/* The entry's prepared loads want to begin: it goes on by entry_send_loads() at once or later, or fails by
 * entry_refuse_loads(). */
void room_ask(struct entry *entry);

/* A load came up: what was measured is booked instead. */
void room_measured(struct entry *entry, const struct load_job *load);

/* A load came to nothing; what was loaded is on its way out; its memory is back. */
void room_cancel(struct room *room, uint64_t bytes);
void room_leave(struct room *room, uint64_t bytes);
void room_return(struct room *room, uint64_t bytes);

/* Once per turn, before publishing: goes on with those that wait, lets idle models go.  *next_ns: when to
 * look again at the latest. */
void room_turn(struct entry_host *host, uint64_t now_ns, uint64_t *next_ns);

/* Stopping: nobody waits any more. */
void room_stop(struct entry_host *host);

#endif
