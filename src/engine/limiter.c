/*
 * The mean over requests is what counts, not the oldest of each run: under an overload that the
 * window has in hand the oldest of each batch come close to their deadlines, which is as it should
 * be, while in a line that is too long all of them do.
 *
 * The limit starts at its upper bound and only grows while it is used, so that healthy traffic
 * never meets it.
 */
#include "engine/limiter.h"

#include <math.h>

#include "util/clock.h"

#define BASELINE_SHARE (1 / 600.0)
#define BASELINE_RUNS_AT_ONCE 3.0 /* One running, its own, and one to spare. */
#define DEADLINE_USED 0.9
#define EXCESS_SHARE (1 / 64.0) /* Of each request. */
#define EXCESS_MISSED 2.0 /* Of one that missed its deadline: it would have taken longer still. */
#define GRADIENT_MIN 0.5
#define SMOOTHING 0.2

void limiter_init(struct limiter *limiter, uint32_t most)
{
    const double limit = most > LIMITER_LEAST ? most : LIMITER_LEAST;
    *limiter = (struct limiter){ .limit = limit, .most = limit };
}

void limiter_ended(struct limiter *limiter, uint64_t total_ns, uint64_t allowed_ns)
{
    double should_ns = BASELINE_RUNS_AT_ONCE * limiter->service_ns;
    if (allowed_ns != CLOCK_NEVER && DEADLINE_USED * (double)allowed_ns > should_ns) {
        should_ns = DEADLINE_USED * (double)allowed_ns;
    }
    if (should_ns <= 0) {
        return;
    }
    double excess = (double)total_ns / should_ns;
    if (total_ns >= allowed_ns && excess < EXCESS_MISSED) {
        excess = EXCESS_MISSED;
    }
    limiter->excess += EXCESS_SHARE * (excess - limiter->excess);
    limiter->ended = true;
}

void limiter_turn(struct limiter *limiter, uint64_t service_ns, uint32_t in_hand)
{
    const double service = (double)service_ns;
    limiter->service_ns +=
        limiter->service_ns > 0 ? BASELINE_SHARE * (service - limiter->service_ns) : service;
    if (!limiter->ended) {
        return;
    }
    limiter->ended = false;
    double gradient = limiter->excess > 1 ? 1 / limiter->excess : 1;
    gradient = gradient < GRADIENT_MIN ? GRADIENT_MIN : gradient;
    if (gradient >= 1 && in_hand < limiter->limit / 2) {
        return; /* A limit that nobody comes near to says nothing by being held. */
    }
    const double growth = gradient >= 1 ? sqrt(limiter->limit) : 0;
    const double next =
        (1 - SMOOTHING) * limiter->limit + SMOOTHING * (limiter->limit * gradient + growth);
    limiter->limit = next < LIMITER_LEAST   ? LIMITER_LEAST
                     : next > limiter->most ? limiter->most
                                            : next;
}

uint32_t limiter_limit(const struct limiter *limiter)
{
    return (uint32_t)limiter->limit;
}
