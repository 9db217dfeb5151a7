/*
 * process_serve.h — in a model's process: one channel, and the thread that serves it.
 */
#ifndef WEIR_BACKEND_PROCESS_SERVE_H
#define WEIR_BACKEND_PROCESS_SERVE_H

#include "backend/process_memory.h"
#include "util/list.h"

struct served {
    struct list_node node; /* In the process's list, under its lock. */
    uint64_t id;           /* The server's. */
};

/* Makes a context and its thread; takes both descriptors (the head's memory, the channel's socket)
 * and the area of lent inputs (zeroed: none) on WEIR_OK. */
WEIR_MUST_USE enum weir_status serve_open(struct backend_model *model, uint64_t id, int head_fd,
                                          int socket, const struct process_area *lent,
                                          struct served **out, struct weir_err *err);

/* The server has ended the turns.  Waits for the thread.  NULL is fine. */
void serve_close(struct served *served);

/* Any thread: stops the run that is under way if it is the one that the server wants stopped. */
void serve_stop(struct served *served);

/* From now on a fault leaves a mark in the channel whose thread it happened in.  Before threads
 * exist. */
void serve_catch_faults(void);

#endif
