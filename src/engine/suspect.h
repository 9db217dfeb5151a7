/*
 * suspect.h — requests whose run died, until it is known which of them is to blame.
 *
 * A *trial* is held by the executor whose run died: each member of that run is re-run once, alone,
 * in a probation child.  Meanwhile no other run carries an input equal to a suspect's: such
 * requests wait with the suspect, as members of the batch that its trial belongs to, and go on or
 * are refused by its verdict.
 *
 * The calls with a list are guarded by the pool's lock; the count may be read by any thread.
 */
#ifndef WEIR_ENGINE_SUSPECT_H
#define WEIR_ENGINE_SUSPECT_H

#include <stdatomic.h>

#include "backend/backend.h"
#include "engine/request.h"
#include "util/list.h"

#define SUSPECT_DEATHS_MAX 3 /* Runs that a request may take part in that die, its own included. */

struct suspect {
    struct list_node node; /* In suspects.list. */
    struct request_key key;
    struct batch *batch;     /* Where its trial is. */
    struct request *request; /* Itself. */
    struct list waiting;     /* Of request.line: equal ones of other runs. */
};

/* Of one model. */
struct suspects {
    struct list list;
    _Atomic uint32_t count;
};

/* X(name): what becomes of a request whose run died. */
#define SUSPECT_FATES(X)                                         \
    X(AGAIN)   /* Nobody is to blame: run all again. */          \
    X(TRIAL)   /* Alone, in a probation child. */                \
    X(CONVICT) /* It died alone, too. */                         \
    X(FAIL)    /* It cannot be run again. */

enum suspect_fate {
#define SUSPECT_FATE_ENUM(name) SUSPECT_##name,
    SUSPECT_FATES(SUSPECT_FATE_ENUM)
#undef SUSPECT_FATE_ENUM
};

/* `probation`: it ran alone in a child of its own. */
enum suspect_fate suspect_fate(const struct request *request, enum backend_death death,
                               bool probation);

void suspects_init(struct suspects *suspects);

/* Who stands for that input, or NULL. */
struct suspect *suspects_find(const struct suspects *suspects, const struct request_key *key);

/* `suspect` is zeroed but for its key, batch and request, and stays where it is until it is
 * removed. */
void suspects_add(struct suspects *suspects, struct suspect *suspect);

/* The verdict is spoken: those who waited are appended to `waited`. */
void suspects_remove(struct suspects *suspects, struct suspect *suspect, struct list *waited);

#endif
