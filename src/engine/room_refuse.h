/*
 * room_refuse.h — what is said of a load that finds no room.
 */
#ifndef WEIR_ENGINE_ROOM_REFUSE_H
#define WEIR_ENGINE_ROOM_REFUSE_H

struct entry;
struct ledger_lack;

/* The entry's loads fail, and the budget that lacks room is named.  Manager thread. */
void room_refuse(struct entry *entry, const struct ledger_lack *lack);

#endif
