/*
 * pace.h — how a model's runs come out against their predictions, and how fast its line moves.
 *
 * A profile (profile.h) predicts the run alone.  What a request waits for is everything from the
 * pull to the end: gathering, hand-overs, neighbours on the same cores.  Kept are the mean ratio of
 * the two and its spread, the rate at which rows were served while there was work, and the rate at
 * which rows arrive.
 *
 * Pure: no clock, no allocation; guarded by the pool's lock.  A zeroed struct knows nothing yet.
 */
#ifndef WEIR_ENGINE_PACE_H
#define WEIR_ENGINE_PACE_H

#include <stdint.h>

struct pace {
    uint64_t runs;      /* With a prediction. */
    double ratio;       /* Real over predicted time, of late. */
    double spread;      /* Mean distance from that ratio. */
    double served_rows; /* Decayed sums: rows, and the time in which they were served. */
    double served_ns;
    double busy_ns;      /* The same while requests waited all the time: of its runs, */
    double room_ns;      /* and of the executors that could have run it. */
    uint64_t settled_ns; /* The last run's end. */
    double arriving;     /* Rows per ns. */
    uint64_t arrived_ns; /* The last arrival. */
};

/* What a run costs, with the pace in it: tau0 + alpha * rows, give or take `reserve` of it. */
struct pace_cost {
    double tau0_ns;
    double alpha_ns;
    double reserve;
};

/* A run that was predicted to take `predicted_ns` (0: it was not) took `real_ns`. */
void pace_ran(struct pace *pace, uint64_t predicted_ns, uint64_t real_ns);

/* A run of `rows` ended at `now_ns`; the oldest of them had come at `since_ns`. */
void pace_served(struct pace *pace, uint64_t rows, uint64_t since_ns, uint64_t now_ns);

/* The same run took `run_ns`, as one of `executors` that the model may have; before
 * pace_served(). */
void pace_shared(struct pace *pace, uint64_t run_ns, uint32_t executors, uint64_t since_ns,
                 uint64_t now_ns);

void pace_arrived(struct pace *pace, uint64_t rows, uint64_t now_ns);

/* The cost of a run that the profile says takes tau0_ns + alpha_ns * rows. */
struct pace_cost pace_cost(const struct pace *pace, double tau0_ns, double alpha_ns);

/* The part of the executors' time that the model gets while it has work: others want some, too. */
double pace_share(const struct pace *pace);

/* Time to serve so many rows at the measured rate; CLOCK_NEVER: nothing was measured. */
uint64_t pace_serve_ns(const struct pace *pace, uint64_t rows);

/* A run's expected time, without the reserve. */
uint64_t pace_run_ns(const struct pace_cost *cost, uint64_t rows);

/* The most rows whose run takes no longer than `ns` with the reserve; 0: not even one. */
uint64_t pace_rows_within(const struct pace_cost *cost, uint64_t ns);

/* The batch that keeps a saturated executor in time where every request may take `allowed_ns`: one
 * waits for the run before its own, so a run may take half of that.  At least 1. */
uint64_t pace_rows_useful(const struct pace_cost *cost, uint64_t allowed_ns);

#endif
