#include "net/socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

_Static_assert(sizeof(uv_buf_t) == sizeof(struct iovec) &&
                   offsetof(uv_buf_t, base) == offsetof(struct iovec, iov_base) &&
                   offsetof(uv_buf_t, len) == offsetof(struct iovec, iov_len),
               "libuv promises that its buffers can be cast");

static size_t join(const uv_buf_t *bufs, unsigned count, char *out)
{
    size_t size = 0;
    for (unsigned i = 0; i < count; i++) {
        memcpy(out + size, bufs[i].base, bufs[i].len);
        size += bufs[i].len;
    }
    return size;
}

static ssize_t send_pieces(int fd, const uv_buf_t *bufs, unsigned count)
{
    const struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)(const void *)bufs,
                                    .msg_iovlen = count };
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static ssize_t send_some(int fd, const uv_buf_t *bufs, unsigned count, size_t bytes, char *scratch)
{
    const char *data = bufs[0].base;
    if (count > 1 && bytes > SOCKET_JOIN_BYTES) {
        return send_pieces(fd, bufs, count);
    }
    if (count > 1) {
        bytes = join(bufs, count, scratch);
        data = scratch;
    }
    return send(fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t socket_send(int fd, const uv_buf_t *bufs, unsigned count, size_t bytes, char *scratch)
{
    ssize_t sent;
    do {
        sent = send_some(fd, bufs, count, bytes, scratch);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        return errno == EAGAIN || errno == ENOBUFS ? 0 : uv_translate_sys_error(errno);
    }
    return sent;
}

ssize_t socket_receive(int fd, char *data, size_t room)
{
    ssize_t size;
    do {
        size = recv(fd, data, room, MSG_DONTWAIT);
    } while (size < 0 && errno == EINTR);
    if (size < 0) {
        return errno == EAGAIN ? UV_EAGAIN : uv_translate_sys_error(errno);
    }
    return size == 0 ? UV_EOF : size;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)address;
        return ntohl(in4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;
    return address->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

void socket_prepare(int fd, const struct sockaddr *address)
{
    static const char plain[] = "reno"; /* Every kernel has it, and lets everybody choose it. */
    if (is_loopback(address)) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, plain, sizeof(plain) - 1);
    }
}
