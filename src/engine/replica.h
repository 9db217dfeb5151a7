/*
 * replica.h — a model on one of several devices that stand in for each other.
 *
 * Devices of one kind form a pool and share its lines.  A model has a *replica* on each device that it is placed on: the
 * backend's model loaded there, and its part of the model's instances.  An executor belongs to a device and takes
 * instances of that device's replica only; so what differs between devices stays with their executors:
 *
 *   - how long runs take: `pace` is a device's time over that of the model's profile, which is learned of the first replica
 *     and of the others by their pace;
 *   - how many rows it has memory for;
 *   - whether it can be used at all.  A run that ends with WEIR_EUNAVAILABLE has lost its device: its requests go back in
 *     line for another one (a few times, then they end so), and the replica is *out* for a pause that doubles from one
 *     loss to the next.  While all replicas are out, the line waits for the first one that comes back.
 *
 * A model on one device has one replica, whose pace is 1 and which is never out.  Guarded by the pool's lock.
 */
#ifndef WEIR_ENGINE_REPLICA_H
#define WEIR_ENGINE_REPLICA_H

#include <stdbool.h>
#include <stdint.h>

#include "util/clock.h"
#include "util/err.h"

struct backend_model;
struct batch;
struct instance;
struct model;
struct pool;

#define REPLICAS_MAX 16
#define REPLICA_RETURNS_MAX 3 /* Times that a request goes back in line. */
#define REPLICA_PAUSE_NS (100 * NS_PER_MS)
#define REPLICA_PAUSE_MAX_NS (5 * NS_PER_S)
#define REPLICA_WHY_BYTES 160

/* Whose turn it is: what an executor can run. */
struct seat {
    uint32_t device; /* In pool.devices, or SEAT_ANY. */
    int32_t node;    /* Of memory (util/numa.h), or SEAT_NODE_ANY. */
};

#define SEAT_ANY UINT32_MAX
#define SEAT_NODE_ANY (-1)

struct replica {
    struct backend_model *backend;
    uint32_t device;      /* In pool.devices; constant. */
    uint32_t free;        /* Of its instances. */
    uint32_t running;     /* The others that were taken: at most its part of model.runs_max. */
    uint32_t device_runs; /* Those that hold a pipelined device. */
    double pace;          /* A run's time over what the model's profile says; 0: not known yet. */
    uint64_t rows_cap;    /* More rows were out of memory there, of any shape; 0: not known. */
    uint64_t runs;
    uint64_t busy_ns;
    uint32_t losses;  /* Since the last run that came back; */
    uint64_t lost_ns; /* the latest: runs taken before it say nothing new. */
    uint64_t until_ns;
    bool out; /* Not before until_ns. */
    char why[REPLICA_WHY_BYTES];
};

/* What a person is told about one. */
struct replica_look {
    const char *device;
    bool out;
    double pace;
    uint64_t runs;
    uint64_t busy_ns;
    char why[REPLICA_WHY_BYTES];
};

/* Some instance is free that this seat can use. */
bool replica_is_free(const struct model *model, const struct seat *seat);

/* Takes such an instance, or the `wanted` one. */
struct instance *replica_take(struct model *model, const struct seat *seat,
                              struct instance *wanted);
void replica_put(struct instance *instance);

/* Whose pause is over comes back.  Afterwards: when the next one will be; CLOCK_NEVER: none is
 * out. */
uint64_t replica_revive(struct model *model, uint64_t now_ns);

/* How long runs take on that seat's device, over what the profile says; SEAT_ANY: on average. */
double replica_pace(const struct model *model, const struct seat *seat);
uint64_t replica_rows_cap(const struct model *model, const struct seat *seat);

/* More rows than that were out of memory. */
void replica_cap(struct replica *replica, uint64_t rows);

/* Executor, without the lock: does this status say that the device is gone, and others may have the
 * request? */
bool replica_is_lost(const struct instance *instance, enum weir_status status);

/* A batch is over, before its members end: counts, and sees to the replica.  True: a person should
 * hear `lost`. */
bool replica_settle(struct instance *instance, uint64_t now_ns, char lost[REPLICA_WHY_BYTES]);

/* The run's time as it would have been on the first replica; false: that cannot be told yet. */
bool replica_learn(struct instance *instance, uint64_t *ns);

/* Those of the batch that wait for another device go back in line. */
void replica_requeue(struct pool *pool, struct batch *batch, uint64_t now_ns);

/* Any thread with a lease: false behind the last one. */
bool replica_look(struct model *model, uint32_t index, struct replica_look *out);

#endif
