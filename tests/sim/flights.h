/*
 * flights.h — batches that executors have taken, and when their virtual runs end.
 */
#ifndef WEIR_TESTS_FLIGHTS_H
#define WEIR_TESTS_FLIGHTS_H

#include <assert.h>
#include <stdint.h>

#include "engine/batch.h"
#include "engine/engine.h"
#include "util/clock.h"

#define FLIGHTS_MAX 64

struct flight {
    struct instance *instance;
    uint64_t ends_ns;
};

/* Open, so that laws can look at what is under way. */
struct flights {
    struct flight items[FLIGHTS_MAX];
    uint32_t count;
};

/* Runs what the instance has gathered; it lands at the run's virtual end. */
static inline void flights_start(struct flights *flights, struct instance *instance)
{
    assert(flights->count < FLIGHTS_MAX);
    batch_run(instance);
    flights->items[flights->count++] = (struct flight){ instance, instance->batch.computed_ns };
}

static inline uint32_t flights_on(const struct flights *flights, const struct pool *pool)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < flights->count; i++) {
        count += flights->items[i].instance->model->pool == pool ? 1 : 0;
    }
    return count;
}

/* One that has ended by now, to be settled; NULL: there is none. */
static inline struct instance *flights_land(struct flights *flights, uint64_t now_ns)
{
    for (uint32_t i = 0; i < flights->count; i++) {
        if (flights->items[i].ends_ns <= now_ns) {
            struct instance *instance = flights->items[i].instance;
            flights->items[i] = flights->items[--flights->count];
            return instance;
        }
    }
    return NULL;
}

static inline uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When the next one lands; CLOCK_NEVER: none is under way. */
static inline uint64_t flights_next_ns(const struct flights *flights)
{
    uint64_t next_ns = CLOCK_NEVER;
    for (uint32_t i = 0; i < flights->count; i++) {
        next_ns = sooner(next_ns, flights->items[i].ends_ns);
    }
    return next_ns;
}

#endif
