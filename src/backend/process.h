/*
 * process.h — `isolation: process`: a model in a process of its own.
 *
 * To those who call it it is one more backend: prepare, run and finish are carried to a process
 * that holds the model, and what comes back is checked.  A process that dies takes with it the runs
 * that it held, each of which ends with WEIR_EBACKEND and how the process died (enum
 * backend_death); the next run gets a fresh one.  Works for every backend of the table and for
 * plug-ins.
 */
#ifndef WEIR_BACKEND_PROCESS_H
#define WEIR_BACKEND_PROCESS_H

#include "backend/backend.h"

/* As backend_load(), which calls it for a load with isolation; `ops` is what the process is to
 * use. */
WEIR_MUST_USE enum weir_status process_load(const struct backend_ops *ops,
                                            const struct backend_load *how,
                                            struct backend_model **out, struct weir_err *err);

#endif
