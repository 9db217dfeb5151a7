#include "util/clock.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

static uint64_t read_ns(clockid_t id)
{
    struct timespec now;
    const int failed = clock_gettime(id, &now);
    assert(failed == 0);
    (void)failed;
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void clock_init(struct clock *clock)
{
    clock->manual = false;
    atomic_init(&clock->manual_ns, 0);
}

void clock_init_manual(struct clock *clock, uint64_t now_ns)
{
    clock->manual = true;
    atomic_init(&clock->manual_ns, now_ns);
}

void clock_turn(struct clock *clock, uint64_t now_ns)
{
    assert(clock->manual);
    assert(now_ns >= atomic_load(&clock->manual_ns));
    atomic_store(&clock->manual_ns, now_ns);
}

uint64_t clock_now_ns(const struct clock *clock)
{
    return clock->manual ? atomic_load(&clock->manual_ns) : read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_wall_ms(void)
{
    return read_ns(CLOCK_REALTIME) / NS_PER_MS;
}

void clock_sleep_until(const struct clock *clock, uint64_t at_ns)
{
    if (clock->manual) {
        return;
    }
    const struct timespec at = {
        .tv_sec = (time_t)(at_ns / NS_PER_S),
        .tv_nsec = (long)(at_ns % NS_PER_S),
    };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {
    }
}
