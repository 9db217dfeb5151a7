/*
 * process_slot.h — a place that has a process, or gets a new one when it is needed.
 *
 * A model has one, a group of models shares one, or each context has its own.  When its process has
 * died, the next who enters gets a fresh one.  How often that makes sense is the engine's to say.
 */
#ifndef WEIR_BACKEND_PROCESS_SLOT_H
#define WEIR_BACKEND_PROCESS_SLOT_H

#include "backend/process_inputs.h"
#include "backend/process_watch.h"

struct process_slot;

/* What every process of a model is told. */
struct process_load {
    const char *backend; /* A name of the table, or a plug-in's. */
    const char *plugin;  /* Its library; NULL: built in. */
    struct backend_load how;
    uint32_t index;                /* Of the model in its slot. */
    uint32_t stages;               /* BACKEND_... bits; with: */
    struct buffer signature;       /* As its first process gave it. */
    struct process_inputs *inputs; /* NULL: none. */
};

/* A slot for the load, by its isolation; load->index is set.  WEIR_ENOMEM; WEIR_ECONFLICT: the
 * group is full. */
WEIR_MUST_USE enum weir_status slot_acquire(struct process_load *load, struct process_slot **out,
                                            struct weir_err *err);
void slot_release(struct process_slot *slot, const struct process_load *load); /* NULL is fine. */

/* A live process that has loaded the model; the caller holds it.  Statuses as of backend_load(),
 * and WEIR_EUNAVAILABLE: none can be made.  *ended: there was one, which ended meanwhile. */
WEIR_MUST_USE enum weir_status slot_enter(struct process_slot *slot, struct process_load *load,
                                          struct process **out, bool *ended, struct weir_err *err);

/* What its process tells of the model, and how often there was a new one. */
struct slot_figures {
    struct backend_memory memory;
    uint64_t resident_bytes;
    uint64_t restarts;
    pid_t pid; /* 0: none now. */
};

/* Any thread; cheap.  False: the slot is busy getting a process. */
bool slot_look(struct process_slot *slot, const struct process_load *load,
               struct slot_figures *out);

#endif
