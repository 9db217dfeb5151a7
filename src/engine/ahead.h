/*
 * ahead.h — loads the model that will probably be asked for next, where there is room.
 *
 * What it learns from are the requests that had to wait for a load: who waits soon after another
 * follows it.  Nobody has to go for a model that nobody has asked for yet, and one that was loaded
 * in vain teaches too.
 *
 * Manager thread.  Does nothing unless room_options.preload_next is set.
 */
#ifndef WEIR_ENGINE_AHEAD_H
#define WEIR_ENGINE_AHEAD_H

#include <stdint.h>

struct entry;
struct entry_host;

/* A request waits for the entry's load. */
void ahead_asked(struct entry *entry);

/* That load came up. */
void ahead_loaded(struct entry *entry);

/* The entry is unloaded, or is about to be forgotten. */
void ahead_unloaded(struct entry *entry);
void ahead_forget(struct entry *entry);

#endif
