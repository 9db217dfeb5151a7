/*
 * sequence_plan.h — which of a sequence model's tensors the engine fills in, and with what.
 *
 * A sequence model has inputs that clients neither send nor see: *controls* (does this row start a
 * sequence, is there anything in it, whose is it) and *states* (an output of the sequence's last
 * request).  The plan is made once at load: `shown` is the signature without them, which clients
 * meet as model.signature; `full` is what the backend takes.
 *
 * Immutable after sequence_plan_complete(); lives in its configuration's arena.
 */
#ifndef WEIR_ENGINE_SEQUENCE_PLAN_H
#define WEIR_ENGINE_SEQUENCE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "engine/model_config.h"
#include "engine/request.h"
#include "tensor/block.h"

struct plan_control {
    uint32_t input; /* Index in `full`. */
    enum sequence_control_kind kind;
    enum dtype dtype;
    uint8_t off[8]; /* One element each; not for CORRID. */
    uint8_t on[8];
};

struct plan_state {
    const char *name; /* The input's. */
    uint32_t input;   /* Indices in `full`. */
    uint32_t output;
    struct tensor initial; /* One row; its memory is the arena's. */
};

struct sequence_plan {
    struct signature shown;
    const struct signature *full;
    uint32_t *inputs;  /* From an index in `shown` to that in `full`. */
    uint32_t *outputs; /* The same. */
    struct plan_control *controls;
    uint32_t control_count;
    struct plan_state *states;
    uint32_t state_count;
    bool batched;     /* Tensors have a leading batch dimension. */
    bool states_vary; /* Some state's shape may change from request to request. */
};

/* What one row of a run is about. */
struct plan_row {
    bool ready; /* false: nobody's row, filled with zeros. */
    bool start;
    bool end;
    struct sequence_id id;
    const struct tensor *states; /* state_count of one row each; NULL: the initial ones. */
};

/* Finds the controls and states in `full`.  The plan goes to *out, in the configuration's arena.
 * Loader thread, before effective_complete().  WEIR_EINVAL names what does not fit; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status sequence_plan_create(const struct model_config *config,
                                                    const struct signature *full,
                                                    struct sequence_plan **out,
                                                    struct weir_err *err);

/* Checks shapes against the batch size and reads the initial states: `model_fd` is the model's
 * folder, -1: none.  After effective_complete(). */
WEIR_MUST_USE enum weir_status sequence_plan_complete(struct sequence_plan *plan,
                                                      const struct model_config *config,
                                                      int model_fd, struct weir_err *err);

/* WEIR_EINVAL: the id cannot be told to the model (a text where it takes a number, or too
 * large). */
WEIR_MUST_USE enum weir_status sequence_plan_check_id(const struct sequence_plan *plan,
                                                      const struct sequence_id *id,
                                                      struct weir_err *err);

/* The state of that row, or its initial one; NULL: the row is nobody's. */
const struct tensor *sequence_plan_state(const struct sequence_plan *plan,
                                         const struct plan_row *row, uint32_t state);

/* Fills in the controls and states among `inputs` (as many as `full` has) for `count` rows, at
 * least one ready; states of ready rows have equal shapes.  What it makes holds a block, what it
 * borrows does not.  WEIR_ENOMEM: what was filled in holds its block still. */
WEIR_MUST_USE enum weir_status sequence_plan_fill(const struct sequence_plan *plan,
                                                  const struct plan_row *rows, uint32_t count,
                                                  struct block_pool *blocks, struct tensor *inputs,
                                                  struct weir_err *err);

#endif
