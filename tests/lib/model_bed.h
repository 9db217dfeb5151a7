/*
 * model_bed.h — a repository in a temporary folder, an engine, a registry and one home, for
 * tests of models' lives.  Waiting fails the test after two minutes.
 */
#ifndef WEIR_TESTS_MODEL_BED_H
#define WEIR_TESTS_MODEL_BED_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "engine/home.h"
#include "engine/registry.h"

#define MODEL_BED_EVENTS 1024
#define MODEL_BED_ROOTS 2
#define MODEL_BED_LEASES 8

/* What options.changed was told. */
struct model_event {
    char name[160];
    uint64_t version;
    enum model_state state;
    char reason[512];
};

struct model_bed {
    char folders[MODEL_BED_ROOTS][64];
    const char *roots[MODEL_BED_ROOTS];
    struct limits limits;
    struct clock clock;
    struct engine *engine;
    struct registry_options options;
    struct registry *registry;
    struct home home;
    struct model *leases[MODEL_BED_LEASES];

    pthread_mutex_t lock; /* Guards the rest. */
    pthread_cond_t changed;
    bool woken;
    struct model_event events[MODEL_BED_EVENTS];
    uint32_t event_count;
    uint32_t seen; /* Events that model_bed_await() has passed. */
};

/* Makes the folders and defaults: one root, EXPLICIT, model.yaml and ensembles as the server has
 * them. */
void model_bed_init(struct model_bed *bed);
void model_bed_finish(struct model_bed *bed); /* Stops and removes the folders. */

/* The same as cmocka's set-up and tear-down of a test that has this bed. */
#define MODEL_BED_TEST(function, bed) \
    cmocka_unit_test_prestate_setup_teardown(function, model_bed_set_up, model_bed_tear_down, bed)
int model_bed_set_up(void **state);
int model_bed_tear_down(void **state);

/* Writes a file, making the folders on its way; `path` is relative to the root. */
void model_bed_put(struct model_bed *bed, uint32_t root, const char *path, const char *text);
void model_bed_remove(struct model_bed *bed, uint32_t root, const char *path); /* With all in it. */

/* Version 1 of NAME: what tests/data/models has of SOURCE. */
void model_bed_copy(struct model_bed *bed, uint32_t root, const char *name, const char *source);

/* A simulated model: NAME/model.yaml with these further `parameters` (lines of "  key: value"), and
 * an empty folder for VERSION. */
void model_bed_sim(struct model_bed *bed, const char *name, uint64_t version,
                   const char *parameters);

/* An ensemble NAME whose whole configuration is `text`, and its empty version 1. */
void model_bed_ensemble(struct model_bed *bed, const char *name, const char *text);

void model_bed_start(struct model_bed *bed);
void model_bed_start_all(struct model_bed *bed); /* Load-all; until nothing is being loaded. */
void model_bed_stop(struct model_bed *bed);

/* Turns the home, when it has mail and when a deadline is reached, until *done. */
void model_bed_turn_until(struct model_bed *bed, const bool *done);

/* Gives the order and waits for its end; `err` may be NULL. */
enum weir_status model_bed_order(struct model_bed *bed, enum registry_order_kind kind,
                                 const char *name, const char *override, struct weir_err *err);

/* Waits for the next event of that model, version and state; what lies between is passed over. */
struct model_event model_bed_await(struct model_bed *bed, const char *name, uint64_t version,
                                   enum model_state state);
uint32_t model_bed_count(struct model_bed *bed, const char *name, enum model_state state);

/* Waits until no load is under way; until so many that were written off are not back. */
void model_bed_settle(struct model_bed *bed);
void model_bed_await_lost(struct model_bed *bed, uint64_t count);

/* The snapshot of now as "name/version STATE reason\n" lines; the caller frees it with free(). */
char *model_bed_index(struct model_bed *bed);

/* Fails the test unless a line of it begins with `prefix` and has `part` in it. */
void model_bed_expect(struct model_bed *bed, const char *prefix, const char *part);

/* Leases and runs: one row of zeros, or `rows`.  The status of the lease, the submit or the end. */
enum weir_status model_bed_infer(struct model_bed *bed, const char *name, uint64_t version);
enum weir_status model_bed_infer_on(struct model_bed *bed, struct model *model);

/* A lease, which model_bed_stop() gives back where a failed test did not. */
struct model *model_bed_lease(struct model_bed *bed, const char *name, uint64_t version);
void model_bed_release(struct model_bed *bed, struct model *model);

#endif
