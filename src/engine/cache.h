/*
 * cache.h — answers of earlier requests, for models that say that equal requests have equal
 * answers.
 *
 *     cache_key(request)       of a checked request
 *     cache_find()             its outputs are there, or it is run
 *     cache_keep()             after the run
 *
 * The key is a digest of 128 bits over the loaded version (its serial number, new at each load, so
 * a reload never meets old answers), which outputs are wanted, and every input's type, shape and
 * bytes.  Inputs are not kept and compared: the digest is SipHash's under a key drawn at start
 * that nobody outside knows, so clients cannot look for collisions, and by chance one among 2^32
 * entries has a likelihood of about 2^-65.
 *
 * Answers are copies, at most bytes_max of them; the least recently used go first.  What a client
 * still reads keeps its memory until it is done.  Any thread; one lock, held for a look-up or a
 * link, never for copying.
 */
#ifndef WEIR_ENGINE_CACHE_H
#define WEIR_ENGINE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/request.h"

struct cache;

#define CACHE_INPUT_BYTES_MAX (UINT64_C(1) << 20) /* Digesting more would hold up a loop. */

/* What a cache has done and holds. */
struct cache_stats {
    uint64_t bytes;
    uint64_t bytes_max;
    uint64_t entries;
    uint64_t hits;
    uint64_t misses;
    uint64_t evictions;
};

/* WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status cache_create(uint64_t bytes_max, struct cache **out);
void cache_destroy(struct cache *cache); /* NULL is fine. */

/* False: it keeps nothing, and need not be asked. */
bool cache_is_on(const struct cache *cache);

/* From now on it keeps at most so many bytes; 0: none. */
void cache_set(struct cache *cache, uint64_t bytes_max);

/* The request's digest, however many bytes it has. */
struct request_key cache_digest(const struct request *request, uint64_t serial);

/* The same for the cache; false: it has too many bytes of inputs to be worth it. */
WEIR_MUST_USE bool cache_key(const struct request *request, uint64_t serial,
                             struct request_key *out);

/* True: the request's wanted outputs are filled in, each with a held block. */
WEIR_MUST_USE bool cache_find(struct cache *cache, const struct request_key *key,
                              const struct request *request);

/* Keeps a copy of the request's outputs, which stay its own.  Quietly does nothing when they are
 * too large, memory is out or somebody was quicker. */
void cache_keep(struct cache *cache, const struct request_key *key, uint64_t serial,
                const struct request *request);

/* The version with this serial number is gone. */
void cache_forget(struct cache *cache, uint64_t serial);

struct cache_stats cache_stats(struct cache *cache);

#endif
