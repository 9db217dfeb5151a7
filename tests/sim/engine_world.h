/*
 * engine_world.h — what sim_engine.c and its laws (engine_laws.c) share: the world of one seed.
 */
#ifndef WEIR_TESTS_ENGINE_WORLD_H
#define WEIR_TESTS_ENGINE_WORLD_H

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "flights.h"
#include "seeds.h"
#include "util/mem.h"

#define MODELS_MAX 4
#define HOMES_MAX 3
#define REQUESTS_MAX 160
#define WIDTH_MAX 3
#define PARTS_MAX 4
#define POISON (-1.0F) /* A row with this value makes the run fail (setting `poison`). */

struct world;

struct sim_home {
    struct home home;
    struct world *world;
    bool woken;
};

struct sim_model {
    struct model model;
    struct model_config config;
    struct rate_resource resource;
    struct setting settings[16];
    char texts[16][32];
    bool unleased;
    uint32_t rows_in_memory; /* A run of more is out of memory. */
    uint32_t parts;          /* More than 1: it streams. */
    bool fails_at_random;    /* A fault that is nobody's fault: any member may fail. */
};

struct sim_request {
    struct request request;
    struct world *world;
    struct tensor input;
    struct tensor output;
    uint32_t rows;
    uint32_t width;
    bool accepted;
    bool canceled;
    bool unwanted; /* Canceled or late while it ran: its answer must not count. */
    bool poisoned;
    bool joined;   /* Was joined to an equal one when it came. */
    uint32_t twin; /* The request whose rows it has: itself, or an earlier one. */
    uint32_t ends;
    uint32_t lates;
    uint32_t parts;
    struct request_part *unread[PARTS_MAX];
    uint64_t arrives_ns;
    uint64_t cancels_ns;
};

struct world {
    uint64_t seed;
    uint64_t random;
    struct clock clock;
    struct limits limits;
    struct engine *engine;
    struct sim_home homes[HOMES_MAX];
    uint32_t home_count;
    struct sim_model models[MODELS_MAX];
    uint32_t model_count;
    struct sim_request requests[REQUESTS_MAX];
    uint32_t request_count;
    struct flights flights;
    uint64_t wakes_ns[ENGINE_POOLS_MAX];
    struct order_options order;
    int64_t credit_ns[ORDER_CLASSES];  /* Before the last pull: of classes, */
    uint64_t times[ORDER_CLIENTS + 1]; /* of clients */
    bool reserved; /* Somebody waited for places before the pull: its turn may have come. */
    uint64_t served_ns[MODELS_MAX]; /* and of models. */
    uint64_t lag_ns;                /* Homes come to their deadlines this much late. */
    uint32_t accepted;
    uint32_t ended;
};

/* The laws of batches as they are pulled, of executors that find nothing, and of what stands
 * where. */
void note_turn(struct world *world, const struct pool *pool); /* Before a pull. */
void check_batch(struct world *world, const struct instance *instance);
void check_order(struct world *world, const struct instance *instance);
void check_delay(struct world *world, const struct instance *instance);
void check_idle(struct world *world, const struct pool *pool);
void check_resources(struct world *world);
void check_places(struct world *world, const struct pool *pool);
void check_lines(struct world *world);
void check_joined(struct world *world);

#endif
