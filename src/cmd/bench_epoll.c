#include "cmd/bench_epoll.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "util/clock.h"

int epoll_wait_ns(int epoll, struct epoll_event *events, int events_max, uint64_t wait_ns)
{
    static bool coarse; /* The kernel is older than Linux 5.11. */
    if (!coarse) {
        const struct timespec wait = { .tv_sec = (time_t)(wait_ns / NS_PER_S),
                                       .tv_nsec = (long)(wait_ns % NS_PER_S) };
        const int count = epoll_pwait2(epoll, events, events_max, &wait, NULL);
        if (count >= 0 || errno != ENOSYS) {
            return count;
        }
        coarse = true;
    }
    return epoll_wait(epoll, events, events_max, (int)((wait_ns + NS_PER_MS - 1) / NS_PER_MS));
}
