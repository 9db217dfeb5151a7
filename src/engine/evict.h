/*
 * evict.h — which loaded model is missed least.
 *
 * Pure: how much a model was used of late, and what it is worth to keep.  The least worth goes
 * first.
 */
#ifndef WEIR_ENGINE_EVICT_H
#define WEIR_ENGINE_EVICT_H

#include <stdint.h>

/* X(name, text): what counts. */
#define EVICTIONS(X)                                                                       \
    X(LRU, "lru")   /* How long ago it was used last. */                                   \
    X(LFU, "lfu")   /* How often it is used. */                                            \
    X(COST, "cost") /* What not having it costs: time to load x uses per second / bytes. */

enum eviction {
#define EVICTION_ENUM(name, text) EVICTION_##name,
    EVICTIONS(EVICTION_ENUM)
#undef EVICTION_ENUM
};

/* Uses per second, forgotten with a time constant of EVICT_MEMORY_NS; zeroed: never used. */
#define EVICT_MEMORY_NS (UINT64_C(120) * 1000000000)

struct usage {
    double rate;      /* As of at_ns. */
    uint64_t at_ns;   /* Last look. */
    uint64_t used_ns; /* The last look that found new uses, or the load. */
};

/* `uses` more since the last look. */
void usage_add(struct usage *usage, uint64_t uses, uint64_t now_ns);
double usage_rate(const struct usage *usage, uint64_t now_ns);

struct evict_candidate {
    const struct usage *usage;
    uint64_t load_ns; /* What loading it took. */
    uint64_t bytes;   /* What unloading it gives back. */
};

/* Comparable for one policy and time; the least goes first. */
double evict_worth(enum eviction eviction, const struct evict_candidate *candidate,
                   uint64_t now_ns);

#endif
