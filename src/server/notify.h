/*
 * notify.h — tells systemd how the service is (sd_notify(3)): READY=1, STOPPING=1, WATCHDOG=1.
 *
 * Facts: the socket's name is in NOTIFY_SOCKET (a path, or an abstract name after '@'), one
 * datagram per message; WATCHDOG_USEC says how often WATCHDOG=1 is expected, WATCHDOG_PID of whom.
 * Without them nothing happens.  Main thread.
 */
#ifndef WEIR_SERVER_NOTIFY_H
#define WEIR_SERVER_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

struct notify {
    int fd;               /* -1: nobody listens. */
    uint64_t watchdog_ns; /* A message is expected this often; CLOCK_NEVER: not. */
};

/* Reads the environment, and takes the variables out of it: children are no services. */
void notify_init(struct notify *notify);
void notify_finish(struct notify *notify);

/* One message, such as "READY=1\nSTATUS=3 models".  Never blocks; one that cannot be sent is
 * lost. */
void notify_send(const struct notify *notify, const char *text);

#endif
