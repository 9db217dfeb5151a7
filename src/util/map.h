/*
 * map.h — from a name to a pointer.
 *
 * Open addressing, SipHash-1-3 with a key drawn at start, so that clients cannot
 * choose colliding names.  Names are borrowed and must outlive their entry.
 * Guarded by its owner.
 */
#ifndef WEIR_UTIL_MAP_H
#define WEIR_UTIL_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "util/bytes.h"

struct map_slot {
    struct bytes name;
    uint64_t hash;
    void *value; /* NULL: removed when name.data is set, else never used. */
};

struct map {
    struct map_slot *slots;
    size_t capacity; /* 0 or a power of two. */
    size_t count;    /* Live entries. */
    size_t used;     /* Live and removed entries. */
};

void map_init(struct map *map);
void map_finish(struct map *map);

/* WEIR_ENOMEM, or WEIR_ECONFLICT when the name is there already; `value` is not NULL. */
WEIR_MUST_USE enum weir_status map_add(struct map *map, struct bytes name, void *value);
void *map_get(const struct map *map, struct bytes name); /* NULL when absent. */
void *map_remove(struct map *map, struct bytes name);    /* What was removed, or NULL. */

/* Walks all entries in no order: start with *at = 0; NULL at the end.  No changes meanwhile. */
void *map_next(const struct map *map, size_t *at);

/* The keyed hash itself, for shape and cache keys; other after each start. */
uint64_t map_hash(const void *data, size_t size);

/* The same with a given key, for what must stay equal from start to start. */
uint64_t map_hash_keyed(uint64_t key0, uint64_t key1, const void *data, size_t size);

/* SipHash's longer sibling: 128 bits, for digests that stand for what they are of. */
void map_hash_wide(uint64_t key0, uint64_t key1, const void *data, size_t size, uint64_t out[2]);

#endif
