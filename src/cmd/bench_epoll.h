/*
 * bench_epoll.h — epoll_wait() by nanoseconds, where the kernel can.
 */
#ifndef WEIR_CMD_BENCH_EPOLL_H
#define WEIR_CMD_BENCH_EPOLL_H

#include <stdint.h>
#include <sys/epoll.h>

/* Else it waits for whole milliseconds, rather longer.  One thread at a time. */
int epoll_wait_ns(int epoll, struct epoll_event *events, int events_max, uint64_t wait_ns);

#endif
