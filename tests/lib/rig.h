/*
 * rig.h — an engine with one simulated model and one home, for tests of what is decided: the clock
 * is turned and executors are pulled by hand, on the test's own thread.
 *
 *     rig_start(&rig, NULL);
 *     rig.config.max_batch_size = 4;
 *     rig_load(&rig, settings, 2);      from here on the model's signature can be changed
 *     rig_adopt(&rig);
 *     a request of rig.home for rig.model is submitted
 *     rig_finish(&rig, rig_pull(&rig));
 *     rig_stop(&rig);
 *
 * With options.threads the engine has its own executors and the system's clock: nothing is pulled
 * and no time passed by hand.
 */
#ifndef WEIR_TESTS_RIG_H
#define WEIR_TESTS_RIG_H

#include "engine/engine.h"
#include "engine/home.h"
#include "engine/model.h"
#include "util/clock.h"
#include "util/limits.h"

struct instance;

/* Must stay where it is. */
struct rig {
    struct limits limits;
    struct clock clock;
    struct engine *engine;
    struct model_config config;
    struct model model;
    struct home home;
};

/* Makes the engine as `options` say (may be NULL), but with the rig's limits and clock; one turned by
 * hand begins at one second.  Where no devices are named there is a "cpu" with one executor.
 * rig.config is of a model "m" there, with runs of 8 rows at most and requests that wait for any
 * time. */
void rig_start(struct rig *rig, const struct engine_options *options);

/* Loads the model that rig.config describes, with these settings of the simulated device. */
void rig_load(struct rig *rig, const struct setting *settings, uint32_t setting_count);
void rig_adopt(struct rig *rig);
void rig_unload(struct rig *rig);

/* Every request has ended, and every block is back, or the test fails. */
void rig_stop(struct rig *rig);

struct instance *rig_pull(struct rig *rig);                  /* NULL: nothing is to run. */
void rig_finish(struct rig *rig, struct instance *instance); /* Runs it; the home has its ends. */
uint32_t rig_run_all(struct rig *rig);                       /* How many runs that were. */
void rig_pass(struct rig *rig, uint64_t ns);                 /* Time passes. */

#endif
