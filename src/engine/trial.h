/*
 * trial.h — how a batch goes on whose child died, and what is not run at all.
 *
 * A death that blames nobody (somebody killed the child) costs nothing: the batch runs again.
 * After a crash, a hang or too much memory each member is a suspect (suspect.h): it runs once more,
 * alone, in a probation child.  Who kills that one, too, is convicted and quarantined
 * (quarantine.h); all others have their answers.  Models whose children die and never complete a
 * run are given a pause (circuit.h).
 *
 * Executor's thread, between pool_pull() and pool_settle().
 */
#ifndef WEIR_ENGINE_TRIAL_H
#define WEIR_ENGINE_TRIAL_H

#include "engine/batch.h"

/* Before a batch runs: ends members that are quarantined, lets those wait elsewhere that equal a
 * suspect, and ends all while the model is unavailable.  What is left is to run. */
void trial_screen(struct instance *instance);

/* The child died during an attempt that began at `began_ns`, or there was none to be had (`status`
 * WEIR_EUNAVAILABLE): carries the members to their ends. */
void trial_hold(struct instance *instance, struct list *members, uint64_t began_ns,
                enum weir_status status, const struct weir_err *err);

/* An attempt came back with `status` and its child alive. */
void trial_note_alive(struct model *model, enum weir_status status);

#endif
