/*
 * entry_parts.h — an ensemble in the registry: what the comings and goings of its parts mean for
 * it.
 *
 * An ensemble holds a lease on each model that its steps name, so what serves stays whole.  Its
 * load waits until its parts are settled (in EXPLICIT mode it has them loaded); when one of them is
 * loaded anew, the ensemble is put together anew; when one goes, the ensemble goes with it and says
 * why; when what was missing comes, it is tried again.
 *
 * Manager thread, but for entry_parts_read().
 */
#ifndef WEIR_ENGINE_ENTRY_PARTS_H
#define WEIR_ENGINE_ENTRY_PARTS_H

#include "engine/entry.h"

/* Scanner: notes in look->parts what the configuration's steps name; nothing for other models. */
WEIR_MUST_USE enum weir_status entry_parts_read(struct look_job *look,
                                                const struct model_config *config);

/* After the look: the entry waits for its parts, or fails at once; entry_parts_turn() goes on. */
void entry_parts_await(struct entry *entry);

/* Once per turn, before publishing. */
void entry_parts_turn(struct entry_host *host);

/* True when what the steps get now is not what `model` was put together of. */
bool entry_parts_differ(const struct entry *entry, const struct model *model);

/* The leases of a load that is over. */
void entry_parts_release(struct entry *entry);

/* Its load is over: where it lacked room, the parts that came only for it go again. */
void entry_parts_end(struct entry *entry, enum weir_status status);

/* Wishes what only this ensemble uses to be unloaded; before its own models are let go. */
void entry_parts_unwant(struct entry *entry);

#endif
