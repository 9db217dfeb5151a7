/*
 * Linear probing in a table that is at most three quarters used.  A removed
 * entry leaves its slot marked, so that names behind it are still found; the
 * marks vanish when the table is built anew.
 *
 * The hash is SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input
 * PRF"): one round per eight bytes, three at the end.
 */
#include "util/map.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "util/mem.h"

#define CAPACITY_MIN 16

static uint64_t drawn_key[2];
static pthread_once_t drawn = PTHREAD_ONCE_INIT;

static void draw_key(void)
{
    if (getrandom(drawn_key, sizeof(drawn_key), 0) != (ssize_t)sizeof(drawn_key)) {
        (void)fprintf(stderr, "weir: the system gives no random bytes\n");
        abort();
    }
}

static uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

/* Up to eight bytes, the first the lowest. */
static uint64_t load_little(const unsigned char *data, size_t size)
{
    uint64_t word = 0;
    for (size_t i = 0; i < size; i++) {
        word |= (uint64_t)data[i] << (8 * i);
    }
    return word;
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

/* `tweak` is what the wide variant begins with. */
static void sip_absorb(uint64_t out[4], uint64_t key0, uint64_t key1, uint64_t tweak,
                       const void *data, size_t size)
{
    /* The constants spell "somepseudorandomlygeneratedbytes". */
    uint64_t v[4] = {
        key0 ^ UINT64_C(0x736f6d6570736575),
        key1 ^ UINT64_C(0x646f72616e646f6d) ^ tweak,
        key0 ^ UINT64_C(0x6c7967656e657261),
        key1 ^ UINT64_C(0x7465646279746573),
    };
    const unsigned char *at = data;
    for (size_t left = size / 8; left > 0; left--) {
        sip_word(v, load_little(at, 8));
        at += 8;
    }
    sip_word(v, load_little(at, size % 8) | (uint64_t)size << 56);
    for (int i = 0; i < 4; i++) {
        out[i] = v[i];
    }
}

static uint64_t sip_squeeze(uint64_t v[4])
{
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t map_hash_keyed(uint64_t key0, uint64_t key1, const void *data, size_t size)
{
    uint64_t v[4];
    sip_absorb(v, key0, key1, 0, data, size);
    v[2] ^= 0xFF;
    return sip_squeeze(v);
}

void map_hash_wide(uint64_t key0, uint64_t key1, const void *data, size_t size, uint64_t out[2])
{
    uint64_t v[4];
    sip_absorb(v, key0, key1, 0xEE, data, size);
    v[2] ^= 0xEE;
    out[0] = sip_squeeze(v);
    v[1] ^= 0xDD;
    out[1] = sip_squeeze(v);
}

uint64_t map_hash(const void *data, size_t size)
{
    (void)pthread_once(&drawn, draw_key);
    return map_hash_keyed(drawn_key[0], drawn_key[1], data, size);
}

void map_init(struct map *map)
{
    *map = (struct map){ .slots = NULL };
}

void map_finish(struct map *map)
{
    mem_free(map->slots);
    map_init(map);
}

/* The live slot of the name, or NULL. */
static struct map_slot *find(const struct map *map, struct bytes name, uint64_t hash)
{
    if (map->capacity == 0) {
        return NULL;
    }
    const size_t mask = map->capacity - 1;
    for (size_t at = (size_t)hash & mask;; at = (at + 1) & mask) {
        struct map_slot *slot = &map->slots[at];
        if (slot->value == NULL && slot->name.data == NULL) {
            return NULL;
        }
        if (slot->value != NULL && slot->hash == hash && bytes_equal(slot->name, name)) {
            return slot;
        }
    }
}

/* The first slot on the hash's way that holds nothing live. */
static struct map_slot *find_room(struct map_slot *slots, size_t capacity, uint64_t hash)
{
    const size_t mask = capacity - 1;
    size_t at = (size_t)hash & mask;
    while (slots[at].value != NULL) {
        at = (at + 1) & mask;
    }
    return &slots[at];
}

/* Makes sure that one more slot may be used. */
static bool make_room(struct map *map)
{
    if (map->used < map->capacity / 4 * 3) {
        return true;
    }
    size_t capacity = map->capacity < CAPACITY_MIN ? CAPACITY_MIN : map->capacity;
    if (map->count >= capacity / 2 && __builtin_mul_overflow(capacity, (size_t)2, &capacity)) {
        return false;
    }
    struct map_slot *slots = mem_try_zero(capacity, sizeof(*slots));
    if (slots == NULL) {
        return false;
    }
    for (size_t i = 0; i < map->capacity; i++) {
        if (map->slots[i].value != NULL) {
            *find_room(slots, capacity, map->slots[i].hash) = map->slots[i];
        }
    }
    mem_free(map->slots);
    map->slots = slots;
    map->capacity = capacity;
    map->used = map->count;
    return true;
}

enum weir_status map_add(struct map *map, struct bytes name, void *value)
{
    assert(value != NULL);
    const uint64_t hash = map_hash(name.data, name.size);
    if (find(map, name, hash) != NULL) {
        return WEIR_ECONFLICT;
    }
    if (!make_room(map)) {
        return WEIR_ENOMEM;
    }
    struct map_slot *slot = find_room(map->slots, map->capacity, hash);
    map->used += slot->name.data == NULL ? 1 : 0;
    map->count++;
    slot->name = name;
    slot->hash = hash;
    slot->value = value;
    return WEIR_OK;
}

void *map_get(const struct map *map, struct bytes name)
{
    const struct map_slot *slot = find(map, name, map_hash(name.data, name.size));
    return slot == NULL ? NULL : slot->value;
}

void *map_remove(struct map *map, struct bytes name)
{
    struct map_slot *slot = find(map, name, map_hash(name.data, name.size));
    if (slot == NULL) {
        return NULL;
    }
    void *value = slot->value;
    /* The mark must not point to the name, whose owner may free it now. */
    slot->name = BYTES_LITERAL("");
    slot->value = NULL;
    map->count--;
    return value;
}

void *map_next(const struct map *map, size_t *at)
{
    while (*at < map->capacity) {
        void *value = map->slots[*at].value;
        (*at)++;
        if (value != NULL) {
            return value;
        }
    }
    return NULL;
}
