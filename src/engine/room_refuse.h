/*
 * room_refuse.h — what is said of a load that finds no room, or waits for it.
 */
#ifndef WEIR_ENGINE_ROOM_REFUSE_H
#define WEIR_ENGINE_ROOM_REFUSE_H

#include <stdbool.h>

struct entry;
struct ledger_lack;

/* The entry's loads fail, and the budget that lacks room is named.  Manager thread. */
void room_refuse(struct entry *entry, const struct ledger_lack *lack);

/* Notes in entry.waits what it waits for: for those that go, or for somebody who may later; `lack`
 * NULL: behind another load.  Manager thread. */
void room_tell_wait(struct entry *entry, const struct ledger_lack *lack, bool goes);

#endif
