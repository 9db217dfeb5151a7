#include "server/activation.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/bytes.h"

#define SOCKETS_MAX 1024

uint32_t activation_take(void)
{
    const struct bytes pid_text = bytes_of(getenv("LISTEN_PID"));
    const struct bytes count_text = bytes_of(getenv("LISTEN_FDS"));
    uint64_t pid = 0;
    uint64_t count = 0;
    if (pid_text.data == NULL || count_text.data == NULL ||
        !bytes_to_u64(pid_text, INT32_MAX, &pid) || pid != (uint64_t)getpid() ||
        !bytes_to_u64(count_text, SOCKETS_MAX, &count)) {
        return 0;
    }
    for (uint64_t i = 0; i < count; i++) {
        (void)fcntl(ACTIVATION_FIRST + (int)i, F_SETFD, FD_CLOEXEC);
    }
    (void)unsetenv("LISTEN_PID");
    (void)unsetenv("LISTEN_FDS");
    (void)unsetenv("LISTEN_FDNAMES");
    return (uint32_t)count;
}
