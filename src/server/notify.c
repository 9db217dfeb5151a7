#include "server/notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/clock.h"
#include "util/log.h"

static int connect_to(const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const size_t size = strlen(name);
    if ((name[0] != '/' && name[0] != '@') || size >= sizeof(address.sun_path)) {
        return -1;
    }
    memcpy(address.sun_path, name, size);
    if (name[0] == '@') {
        address.sun_path[0] = '\0';
    }
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)(const void *)&address, length) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static uint64_t watchdog_of_environment(void)
{
    const char *every = getenv("WATCHDOG_USEC");
    const char *whose = getenv("WATCHDOG_PID");
    uint64_t us = 0;
    uint64_t pid = (uint64_t)getpid();
    const bool ours = whose == NULL || (bytes_to_u64(bytes_of(whose), UINT32_MAX, &pid) &&
                                        pid == (uint64_t)getpid());
    return every != NULL && ours && bytes_to_u64(bytes_of(every), UINT64_MAX / NS_PER_US, &us) &&
                   us > 0
               ? us * NS_PER_US
               : CLOCK_NEVER;
}

void notify_init(struct notify *notify)
{
    *notify = (struct notify){ .fd = -1, .watchdog_ns = CLOCK_NEVER };
    const char *name = getenv("NOTIFY_SOCKET");
    if (name == NULL) {
        return;
    }
    notify->fd = connect_to(name);
    if (notify->fd < 0) {
        log_event(LOG_WARNING, "NOTIFY_SOCKET is no socket that can be told anything",
                  LOG_STR("name", name));
    } else {
        notify->watchdog_ns = watchdog_of_environment();
    }
    (void)unsetenv("NOTIFY_SOCKET");
    (void)unsetenv("WATCHDOG_USEC");
    (void)unsetenv("WATCHDOG_PID");
}

void notify_finish(struct notify *notify)
{
    if (notify->fd >= 0) {
        (void)close(notify->fd);
    }
}

void notify_send(const struct notify *notify, const char *text)
{
    if (notify->fd >= 0) {
        (void)send(notify->fd, text, strlen(text), MSG_NOSIGNAL);
    }
}
