/*
 * budget.h — the configuration's budgets of memory, and its rules for who may use them.
 */
#ifndef WEIR_SERVER_BUDGET_H
#define WEIR_SERVER_BUDGET_H

#include "engine/room.h"
#include "server/config.h"

/* WEIR_EINVAL: a budget that is none, or of a device that there is not, or names that none can
 * have; with `out` NULL it is only checked. */
WEIR_MUST_USE enum weir_status budget_read(const struct config *config, struct room_options *out,
                                           struct weir_err *err);

#endif
