/*
 * sequence_world.h — what sim_sequence.c and its backend (sequence_keeper.c) share: the world of
 * one seed.
 */
#ifndef WEIR_TESTS_SEQUENCE_WORLD_H
#define WEIR_TESTS_SEQUENCE_WORLD_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend_impl.h"
#include "engine/effective.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "engine/sequence.h"
#include "flights.h"
#include "seeds.h"
#include "util/mem.h"

#define HOMES_MAX 3
#define IDS 10
#define TEXT_IDS 5 /* The first so many ids are texts. */
#define REQUESTS_MAX 240
#define ROWS_MAX 8
#define INSTANCES_MAX 3
#define FACTOR 31
#define POISON INT64_C(-7) /* A row with it makes the run fail. */

enum { IN_X, IN_START, IN_READY, IN_END, IN_ID, IN_STATE, IN_COUNT };
enum { OUT_Y, OUT_STATE, OUT_COUNT };

struct sim_home {
    struct home home;
    bool woken;
};

struct sim_request {
    struct request request;
    struct tensor input;
    struct tensor output;
    int64_t x;
    int64_t expected;
    uint32_t id;
    uint32_t generation; /* Which START of its id it follows. */
    bool accepted;
    bool canceled;
    uint32_t ends;
    uint64_t arrives_ns;
    uint64_t cancels_ns;
};

/* What the test knows of an id. */
struct shadow {
    bool open; /* The last accepted request was no END. */
    uint32_t generation;
    int64_t value;
};

struct keeper_context {
    struct backend_context base;
    struct world *world;
    int64_t owners[ROWS_MAX]; /* Direct: id + 1 of the sequence in each row; 0: nobody. */
};

struct world {
    uint64_t seed;
    uint64_t random;
    struct clock clock;
    struct limits limits;
    struct engine *engine;
    struct pool *pool;
    struct sim_home homes[HOMES_MAX];
    uint32_t home_count;
    struct model model;
    struct model_config *config;
    struct backend_model backend;
    struct tensor_spec inputs[IN_COUNT];
    struct tensor_spec outputs[OUT_COUNT];
    struct keeper_context *contexts[INSTANCES_MAX];
    uint32_t context_count;
    bool batched;
    bool grows;
    bool unleased;
    bool faults; /* Allocations fail now and then. */
    uint64_t cost_ns;
    uint64_t lag_ns;
    struct shadow shadows[IDS];
    int64_t last_run[IDS]; /* Index of the last request that ran well. */
    struct sim_request requests[REQUESTS_MAX];
    uint32_t request_count;
    struct flights flights;
    uint64_t wake_ns;
    uint32_t accepted;
    uint32_t ended;
    uint64_t succeeded;
};

/* The model that checks what it is given.  Contexts made from now on are of that world. */
extern const struct backend_ops keeper;
void keeper_load(struct world *world);

const char *text_of(uint32_t id);       /* Of ids below TEXT_IDS. */
int64_t step(int64_t value, int64_t x); /* What the model computes. */
int64_t at(const struct tensor *tensor, uint64_t index);

#endif
