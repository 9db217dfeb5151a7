/*
 * quarantine.h — inputs that are known to crash their model, and are not run any more.
 *
 * An entry is the digest of a request (cache.h) to one load of a model.  Entries expire, the oldest
 * goes when there are too many, an unload forgets those of its model, and an administrator may
 * clear them.  While it is empty nobody needs a digest: quarantine_count() is one atomic load.
 *
 * Any thread; one lock, held for a look-up or a link.
 */
#ifndef WEIR_ENGINE_QUARANTINE_H
#define WEIR_ENGINE_QUARANTINE_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "engine/request.h"

struct quarantine;

#define QUARANTINE_NAME_BYTES 129 /* Of a model, with its NUL. */

/* A copy of what is known about one input. */
struct quarantine_entry {
    struct request_key key;
    uint64_t serial; /* Of the load. */
    char model[QUARANTINE_NAME_BYTES];
    uint64_t version;
    enum backend_death death; /* What it did. */
    uint64_t since_ns;
    uint64_t refused; /* Requests since then. */
};

struct quarantine_stats {
    uint64_t entries;
    uint64_t convicted; /* Ever. */
    uint64_t refused;   /* Requests, ever. */
};

/* WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status quarantine_create(uint64_t entries_max, uint64_t keep_ns,
                                                 struct quarantine **out);
void quarantine_destroy(struct quarantine *quarantine); /* NULL is fine. */

/* How many there are; some may have expired. */
uint32_t quarantine_count(const struct quarantine *quarantine);

/* Adds a copy of `entry`, since now.  Without memory for it the input is only refused this once. */
void quarantine_add(struct quarantine *quarantine, const struct quarantine_entry *entry,
                    uint64_t now_ns);

/* True: requests with this key are refused; this one is counted. */
bool quarantine_refuses(struct quarantine *quarantine, const struct request_key *key,
                        uint64_t now_ns);

/* The version with this serial number is gone. */
void quarantine_forget(struct quarantine *quarantine, uint64_t serial);

/* Clears all, or those of one model; how many there were. */
uint64_t quarantine_clear(struct quarantine *quarantine, const char *model, uint64_t now_ns);

/* The index-th entry, the oldest first; false: there are no more. */
bool quarantine_at(struct quarantine *quarantine, uint64_t index, uint64_t now_ns,
                   struct quarantine_entry *out);

/* In how many ns an entry of that time expires. */
uint64_t quarantine_left_ns(const struct quarantine *quarantine, uint64_t since_ns,
                            uint64_t now_ns);

struct quarantine_stats quarantine_stats(struct quarantine *quarantine, uint64_t now_ns);

#endif
