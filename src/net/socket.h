/*
 * socket.h — bytes to and from a connected socket, by the calls that cost the kernel least.
 *
 * libuv waits for sockets and owns them; it reads and writes them as files, which costs a small
 * request several percent more.  Any thread that owns the socket; none of these blocks or raises
 * SIGPIPE.
 */
#ifndef WEIR_NET_SOCKET_H
#define WEIR_NET_SOCKET_H

#include <sys/socket.h>
#include <sys/types.h>

#include <uv.h>

#define SOCKET_JOIN_BYTES 16384 /* As much is cheaper to put together than to name in pieces. */

/* libuv's, of a TCP or a Unix socket, by all the names that its calls know it under. */
union socket_handle {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
};

/* How many of `bytes`, the sum of the pieces, the socket took; 0: it is full.  Negative: an error
 * of libuv's.  `scratch` has SOCKET_JOIN_BYTES. */
ssize_t socket_send(int fd, const uv_buf_t *bufs, unsigned count, size_t bytes, char *scratch);

/* What was read.  UV_EAGAIN: there is nothing; UV_EOF, and other errors of libuv's. */
ssize_t socket_receive(int fd, char *data, size_t room);

/* For a listening socket of `address`, and what it accepts: within one machine nothing is
 * congested, and what some algorithms do about congestion (BBR paces by timers) only makes large
 * answers late.  Other addresses keep the system's. */
void socket_prepare(int fd, const struct sockaddr *address);

#endif
