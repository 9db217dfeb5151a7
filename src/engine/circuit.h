/*
 * circuit.h — when a model whose child keeps dying is not asked any more.
 *
 *             too many deaths            pause over, a run begins
 *   CLOSED ──────────────────► OPEN ────────────────────────────► TRYING
 *      ▲                        ▲                                  │  │
 *      │                        └─────────── it died ──────────────┘  │
 *      └──────────────────────────── a run completed ─────────────────┘
 *
 * Only deaths without a completed run between them count: a model whose child dies now and then
 * goes on.  Each such death makes the next child wait longer (the back-off); at the last one the
 * circuit opens, and nothing runs for a pause, which doubles with each attempt that dies.  A reload
 * begins anew, since a circuit belongs to one load.
 *
 * Runs that began before the last death that was counted say nothing new by dying: several runs
 * share a child, and its death is one.  Pure; guarded by the pool's lock.
 */
#ifndef WEIR_ENGINE_CIRCUIT_H
#define WEIR_ENGINE_CIRCUIT_H

#include <stdbool.h>
#include <stdint.h>

#include "util/clock.h"

#define CIRCUIT_DEATHS_MAX 5
#define CIRCUIT_BACK_OFF_NS (50 * NS_PER_MS) /* Before the second attempt in a row; then doubled. */
#define CIRCUIT_PAUSE_NS (5 * NS_PER_S)
#define CIRCUIT_PAUSE_MAX_NS (300 * NS_PER_S)

/* X(name) */
#define CIRCUIT_STATES(X) X(CLOSED) X(OPEN) X(TRYING)

enum circuit_state {
#define CIRCUIT_STATE_ENUM(name) CIRCUIT_##name,
    CIRCUIT_STATES(CIRCUIT_STATE_ENUM)
#undef CIRCUIT_STATE_ENUM
};

/* Zeroed: closed. */
struct circuit {
    enum circuit_state state;
    uint32_t deaths;   /* Without a completed run since. */
    uint64_t died_ns;  /* The last of them. */
    uint64_t pause_ns; /* The last one; 0: none yet. */
    uint64_t until_ns; /* OPEN: when a run may be tried. */
};

/* A run that began at `began_ns` died now.  Where a death was counted since it began, this counts as
 * the same: children of several instances or devices that die at once say no more than one. */
void circuit_died(struct circuit *circuit, uint64_t began_ns, uint64_t now_ns);

/* A run completed. */
void circuit_ran(struct circuit *circuit);

/* Would a run be refused now? */
bool circuit_refuses(const struct circuit *circuit, uint64_t now_ns);

/* How long one would be refused; 0: not at all. */
uint64_t circuit_left_ns(const struct circuit *circuit, uint64_t now_ns);

/* True: a run may begin; where it is the one that is tried, no other one may until it has died,
 * completed or been given up. */
bool circuit_enter(struct circuit *circuit, uint64_t now_ns);

/* A run that entered came to nothing and says nothing: it was terminated, or refused its input. */
void circuit_give_up(struct circuit *circuit);

/* When the next child may be started, by the back-off. */
uint64_t circuit_start_ns(const struct circuit *circuit);

#endif
