/*
 * limiter.h — how many requests of a model may be in hand, waiting and running, by the time they
 * take.
 *
 * The outer limit, for when the predictions of the window and of admission are wrong or missing: a
 * gradient in the manner of Netflix's Gradient2.  While requests take no longer than they should,
 * the limit grows; as they take longer it shrinks by the ratio of the two.
 *
 *     gradient = should / take, 0.5 to 1
 *     limit    = 0.8 limit + 0.2 (limit * gradient + sqrt(limit) while gradient is 1)
 *
 * What they should take is learned from live traffic and never probed for: a time in line is known
 * apart from the time of service, which no line makes longer, so the baseline is the mean service
 * time of about 600 runs, and a request should take no more than three of them; or, where requests
 * bring deadlines, nine tenths of what they allow, if that is more.
 *
 * Pure: no clock, no allocation; guarded by the pool's lock.
 */
#ifndef WEIR_ENGINE_LIMITER_H
#define WEIR_ENGINE_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#define LIMITER_LEAST 20

struct limiter {
    double limit;
    double most;
    double service_ns; /* The baseline; 0: none yet. */
    double excess;     /* Time taken over time that it should take, of late. */
    bool ended;        /* A request has ended since the last turn. */
};

/* `most` is where it starts, and its upper bound. */
void limiter_init(struct limiter *limiter, uint32_t most);

/* A request has ended `total_ns` after it came; its deadline had allowed it `allowed_ns`
 * (CLOCK_NEVER: it had none). */
void limiter_ended(struct limiter *limiter, uint64_t total_ns, uint64_t allowed_ns);

/* A run has ended that took `service_ns`, with `in_hand` requests waiting and running before. */
void limiter_turn(struct limiter *limiter, uint64_t service_ns, uint32_t in_hand);

uint32_t limiter_limit(const struct limiter *limiter);

#endif
