/*
 * simulated.h — a model of the simulated backend, for tests of the engine.
 */
#ifndef WEIR_TESTS_SIMULATED_H
#define WEIR_TESTS_SIMULATED_H

#include "engine/engine.h"
#include "engine/model.h"

/*
 * Loads the model that `config` describes (name, device, intra_threads, settings) into the zeroed
 * *model: version 1, rows may be batched, one lease, nothing happens when the last lease is given
 * back.  Both must stay where they are.  Ends the program with the backend's sentence where it does
 * not load.
 */
void simulated_load(struct model *model, struct model_config *config, struct engine *engine);

/* The same, and adopted by the engine. */
void simulated_adopt(struct model *model, struct model_config *config, struct engine *engine);

/* The same on all devices that `config` means; the backends of its replicas are the caller's to
 * unload. */
void simulated_spread(struct model *model, struct model_config *config, struct engine *engine);

#endif
