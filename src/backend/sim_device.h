/*
 * sim_device.h — the simulated accelerator: a timeline, a number of contexts and a memory.
 *
 * Models that name the same device share one; it lives while one of them has it.  All functions
 * lock the device themselves and never wait for simulated time: who books waits for the end of
 * what it booked.
 */
#ifndef WEIR_BACKEND_SIM_DEVICE_H
#define WEIR_BACKEND_SIM_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

struct sim_device;

/* How the runs of one context take their turn.  One run at a time. */
struct sim_lane {
    bool exclusive;    /* They follow all others on the device. */
    double contention; /* Else: how much they slow down beside others, as in sim.h. */
    uint64_t free_ns;  /* The device's: not exclusive, and when the lane's last run ends. */
};

/* The device of that name, made where there is none; NULL: out of memory. */
struct sim_device *sim_device_acquire(const char *name);
void sim_device_release(struct sim_device *device); /* NULL is fine. */

const char *sim_device_name(const struct sim_device *device);

/* False: the device has not that much left of `limit` bytes (0: no limit). */
bool sim_device_book_memory(struct sim_device *device, uint64_t bytes, uint64_t limit);
void sim_device_unbook_memory(struct sim_device *device, uint64_t bytes);

/* False: it has `limit` contexts already (0: no limit). */
bool sim_device_enter(struct sim_device *device, uint64_t limit);
void sim_device_leave(struct sim_device *device);

/* When the run is over that is submitted then and takes `cost_ns` alone; the time is booked. */
uint64_t sim_device_book(struct sim_device *device, struct sim_lane *lane, uint64_t submit_ns,
                         uint64_t cost_ns);

/* A run was stopped now that would have ended at `end_ns`: the device is free for others.  Those
 * who booked behind it keep their time. */
void sim_device_unbook(struct sim_device *device, struct sim_lane *lane, uint64_t now_ns,
                       uint64_t end_ns, uint64_t cost_ns);

#endif
