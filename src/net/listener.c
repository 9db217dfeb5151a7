/*
 * Listening sockets.
 *
 * Several loops share a TCP port by SO_REUSEPORT: each has its own accept queue, and the kernel
 * spreads connections.  But a socket bound with that option also shares its port with any other
 * process of the same user, so a second server would start without a word and take half of the
 * connections.  Hence the first socket of a port is bound without the option, which fails if
 * anybody else has it, and gets the option afterwards, for our own loops to join.  Loops on one
 * Unix socket share the listening descriptor instead, and so they do where somebody else has bound
 * it.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/conn.h"
#include "util/bytes.h"
#include "util/mem.h"

#define BACKLOG 1024
#define HOST_BYTES_MAX 256
#define RETRY_NS (100 * NS_PER_MS) /* Out of memory for a client: try again. */

struct http_listener {
    union socket_handle uv;
    struct list_node node; /* In `all`. */
    struct list_node own;  /* In net->listeners. */
    struct loop_timer retry;
    struct http_net *net;
    const struct http_handler *handler;
    struct tls *tls; /* NULL: without. */
    uint32_t index;
    int fd;
    struct sockaddr_storage address;
    socklen_t address_size;
    bool owner; /* Of a Unix socket's path: the one that unlinks it. */
};

/* Guards `all`, the listeners of every loop; held for look-ups and links only, with nothing else.
 * */
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list all = { { &all.head, &all.head } };

/* The descriptor of our own listener at that address, or -1. */
static int find_own(const struct sockaddr_storage *address, socklen_t size)
{
    int fd = -1;
    pthread_mutex_lock(&all_lock);
    for (struct list_node *node = list_first(&all); node != NULL; node = list_next(&all, node)) {
        const struct http_listener *l = list_entry(node, struct http_listener, node);
        if (l->address_size == size && memcmp(&l->address, address, size) == 0) {
            fd = l->fd;
        }
    }
    pthread_mutex_unlock(&all_lock);
    return fd;
}

static enum weir_status io_error(struct weir_err *err, const char *address, const char *what)
{
    const int code = errno;
    if (code == EADDRINUSE) {
        return err_set(err, WEIR_EIO, "listen on %s: the address is in use by another program",
                       address);
    }
    return err_set(err, WEIR_EIO, "listen on %s: %s: %s", address, what, strerror(code));
}

static enum weir_status malformed(struct weir_err *err, const char *address)
{
    return err_set(err, WEIR_EINVAL,
                   "listen on '%s': expected HOST:PORT, [IPV6]:PORT or unix:/PATH", address);
}

/* Splits "HOST:PORT" and "[::1]:PORT". */
static enum weir_status split(const char *address, char *host, const char **port,
                              struct weir_err *err)
{
    const char *colon = strrchr(address, ':');
    uint64_t number = 0;
    if (colon == NULL || !bytes_to_u64(bytes_of(colon + 1), 65535, &number)) {
        return malformed(err, address);
    }
    size_t size = (size_t)(colon - address);
    const bool bracketed = size >= 2 && address[0] == '[' && colon[-1] == ']';
    const char *from = bracketed ? address + 1 : address;
    size -= bracketed ? 2 : 0;
    if (size == 0 || size >= HOST_BYTES_MAX || (!bracketed && memchr(from, ':', size) != NULL)) {
        return malformed(err, address);
    }
    memcpy(host, from, size);
    host[size] = '\0';
    *port = colon + 1;
    return WEIR_OK;
}

static enum weir_status resolve(struct http_listener *l, const char *address, struct weir_err *err)
{
    char host[HOST_BYTES_MAX];
    const char *port = NULL;
    const enum weir_status status = split(address, host, &port, err);
    if (status != WEIR_OK) {
        return status;
    }
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    struct addrinfo *found = NULL;
    const int failed = getaddrinfo(host, port, &hints, &found);
    if (failed != 0) {
        return err_set(err, WEIR_EIO, "listen on %s: %s", address, gai_strerror(failed));
    }
    memcpy(&l->address, found->ai_addr, found->ai_addrlen);
    l->address_size = found->ai_addrlen;
    freeaddrinfo(found);
    return WEIR_OK;
}

static bool set(int fd, int option)
{
    const int on = 1;
    return setsockopt(fd, SOL_SOCKET, option, &on, sizeof(on)) == 0;
}

static enum weir_status bind_tcp(struct http_listener *l, const char *address, struct weir_err *err)
{
    const bool joining = find_own(&l->address, l->address_size) >= 0;
    l->fd = socket(l->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0) {
        return io_error(err, address, "socket");
    }
    if (!set(l->fd, SO_REUSEADDR) || (joining && !set(l->fd, SO_REUSEPORT))) {
        return io_error(err, address, "setsockopt");
    }
    socket_prepare(l->fd, (const struct sockaddr *)&l->address);
    if (bind(l->fd, (struct sockaddr *)&l->address, l->address_size) != 0) {
        return io_error(err, address, "bind");
    }
    if (!joining && !set(l->fd, SO_REUSEPORT)) {
        return io_error(err, address, "setsockopt");
    }
    l->address_size = sizeof(l->address);
    memset(&l->address, 0, sizeof(l->address));
    if (getsockname(l->fd, (struct sockaddr *)&l->address, &l->address_size) != 0) {
        return io_error(err, address, "getsockname");
    }
    return WEIR_OK;
}

/* Removes a socket that a dead server left behind; a living one's stays. */
static enum weir_status remove_stale(const struct http_listener *l, const char *address,
                                     const char *path, struct weir_err *err)
{
    struct stat info;
    if (lstat(path, &info) != 0) {
        return WEIR_OK;
    }
    if (!S_ISSOCK(info.st_mode)) {
        return err_set(err, WEIR_EIO, "listen on %s: a file that is not a socket is there",
                       address);
    }
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const bool refused = fd >= 0 &&
                         connect(fd, (const struct sockaddr *)&l->address, l->address_size) != 0 &&
                         errno == ECONNREFUSED;
    if (fd >= 0) {
        close(fd);
    }
    if (!refused) {
        errno = EADDRINUSE;
        return io_error(err, address, "connect");
    }
    return unlink(path) == 0 ? WEIR_OK : io_error(err, address, "unlink");
}

static enum weir_status bind_unix(struct http_listener *l, const char *address,
                                  struct weir_err *err)
{
    const struct bytes path = bytes_of(address + 5);
    struct sockaddr_un *un = (struct sockaddr_un *)(void *)&l->address;
    if (path.size == 0 || path.data[0] != '/' || path.size >= sizeof(un->sun_path)) {
        return err_set(err, WEIR_EINVAL,
                       "listen on '%s': expected unix: and an absolute path of at most %zu bytes",
                       address, sizeof(un->sun_path) - 1);
    }
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path.data, path.size + 1);
    l->address_size = sizeof(*un);
    const int own = find_own(&l->address, l->address_size);
    if (own >= 0) {
        l->fd = dup(own);
        return l->fd >= 0 ? WEIR_OK : io_error(err, address, "dup");
    }
    const enum weir_status status = remove_stale(l, address, path.data, err);
    if (status != WEIR_OK) {
        return status;
    }
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* The mode of the descriptor becomes that of the path, without a moment in between. */
    if (l->fd < 0 || fchmod(l->fd, S_IRUSR | S_IWUSR) != 0 ||
        bind(l->fd, (struct sockaddr *)&l->address, l->address_size) != 0) {
        return io_error(err, address, "bind");
    }
    l->owner = true;
    return WEIR_OK;
}

static void take_client(struct http_listener *l)
{
    struct loop *loop = l->net->loop;
    if (!conn_accept(l->net, &l->uv.stream, l->tls, l->handler, l->index)) {
        loop_timer_set(loop, &l->retry, clock_add(loop->now_ns, RETRY_NS));
    }
}

static void on_retry(struct loop_timer *timer)
{
    take_client(list_entry(timer, struct http_listener, retry));
}

static void on_connection(uv_stream_t *server, int status)
{
    struct http_listener *l = server->data;
    if (status == 0) {
        loop_turn_begin(l->net->loop);
        take_client(l);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct http_listener *l = handle->data;
    l->net->listener_count--;
    mem_free(l);
}

static bool is_unix(const char *address)
{
    return strncmp(address, "unix:", 5) == 0;
}

/* Gives the bound descriptor to libuv.  From then on the listener is freed by closing it. */
static enum weir_status start(struct http_listener *l, const char *address, struct weir_err *err)
{
    uv_loop_t *uv = &l->net->loop->uv;
    const bool local = l->address.ss_family == AF_UNIX;
    int failed = local ? uv_pipe_init(uv, &l->uv.pipe, 0) : uv_tcp_init(uv, &l->uv.tcp);
    assert(failed == 0); /* Without flags neither creates anything. */
    l->uv.handle.data = l;
    l->retry.fire = on_retry;
    l->net->listener_count++;
    list_append(&l->net->listeners, &l->own);
    failed = local ? uv_pipe_open(&l->uv.pipe, l->fd) : uv_tcp_open(&l->uv.tcp, l->fd);
    if (failed != 0) {
        close(l->fd);
    } else {
        failed = uv_listen(&l->uv.stream, BACKLOG, on_connection);
    }
    pthread_mutex_lock(&all_lock);
    list_append(&all, &l->node);
    pthread_mutex_unlock(&all_lock);
    if (failed != 0) {
        http_listener_close(l);
        errno = -failed;
        return io_error(err, address, "listen");
    }
    return WEIR_OK;
}

static struct http_listener *create(struct loop *loop, uint32_t index,
                                    const struct http_handler *handler)
{
    struct http_listener *l = mem_alloc(sizeof(*l));
    l->net = net_of(loop);
    l->handler = handler;
    l->index = index;
    l->fd = -1;
    return l;
}

/* Starts what was bound, or drops what was not. */
static enum weir_status start_or_drop(struct http_listener *l, const char *address,
                                      enum weir_status bound, struct http_listener **out,
                                      struct weir_err *err)
{
    if (bound != WEIR_OK) {
        if (l->fd >= 0) {
            close(l->fd);
        }
        mem_free(l);
        return bound;
    }
    const enum weir_status status = start(l, address, err);
    if (status == WEIR_OK) {
        *out = l;
    }
    return status;
}

enum weir_status http_listen(struct loop *loop, const char *address, uint32_t index,
                             const struct http_handler *handler, struct http_listener **out,
                             struct weir_err *err)
{
    struct http_listener *l = create(loop, index, handler);
    enum weir_status status = WEIR_OK;
    if (is_unix(address)) {
        status = bind_unix(l, address, err);
    } else {
        status = resolve(l, address, err);
        if (status == WEIR_OK) {
            status = bind_tcp(l, address, err);
        }
    }
    return start_or_drop(l, address, status, out, err);
}

static int socket_fact(int fd, int option)
{
    int fact = -1;
    socklen_t size = sizeof(fact);
    return getsockopt(fd, SOL_SOCKET, option, &fact, &size) == 0 ? fact : -1;
}

/* Checks what it was given, and keeps a descriptor of its own. */
static enum weir_status adopt(struct http_listener *l, int fd, const char *address,
                              struct weir_err *err)
{
    if (socket_fact(fd, SO_TYPE) != SOCK_STREAM || socket_fact(fd, SO_ACCEPTCONN) != 1) {
        return err_set(err, WEIR_EINVAL, "listen on %s: expected a stream socket that listens",
                       address);
    }
    l->address_size = sizeof(l->address);
    if (getsockname(fd, (struct sockaddr *)&l->address, &l->address_size) != 0) {
        return io_error(err, address, "getsockname");
    }
    const sa_family_t family = l->address.ss_family;
    if (family != AF_INET && family != AF_INET6 && family != AF_UNIX) {
        return err_set(err, WEIR_EINVAL,
                       "listen on %s: found address family %d, expected IP or Unix", address,
                       (int)family);
    }
    socket_prepare(fd, (const struct sockaddr *)&l->address);
    l->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return l->fd >= 0 ? WEIR_OK : io_error(err, address, "dup");
}

enum weir_status http_listen_fd(struct loop *loop, int fd, uint32_t index,
                                const struct http_handler *handler, struct http_listener **out,
                                struct weir_err *err)
{
    char address[32];
    (void)snprintf(address, sizeof(address), "descriptor %d", fd);
    struct http_listener *l = create(loop, index, handler);
    return start_or_drop(l, address, adopt(l, fd, address, err), out, err);
}

void http_listener_secure(struct http_listener *listener, struct tls *tls)
{
    listener->tls = tls;
}

uint16_t http_listener_port(const struct http_listener *listener)
{
    const struct sockaddr_storage *address = &listener->address;
    switch (address->ss_family) {
    case AF_INET:
        return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
    case AF_INET6:
        return ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
    default:
        return 0;
    }
}

void http_listener_name(const struct http_listener *listener, char out[HTTP_LISTENER_NAME_BYTES])
{
    const struct sockaddr *address = (const struct sockaddr *)(const void *)&listener->address;
    const unsigned port = http_listener_port(listener);
    char host[INET6_ADDRSTRLEN] = "";
    if (address->sa_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)address;
        (void)snprintf(out, HTTP_LISTENER_NAME_BYTES, "unix:%.*s", (int)sizeof(un->sun_path),
                       un->sun_path);
        return;
    }
    (void)uv_ip_name(address, host, sizeof(host));
    (void)snprintf(out, HTTP_LISTENER_NAME_BYTES,
                   address->sa_family == AF_INET6 ? "[%s]:%u" : "%s:%u", host, port);
}

void http_listener_close(struct http_listener *listener)
{
    if (listener == NULL) {
        return;
    }
    pthread_mutex_lock(&all_lock);
    list_remove(&listener->node);
    pthread_mutex_unlock(&all_lock);
    list_remove(&listener->own);
    loop_timer_clear(listener->net->loop, &listener->retry);
    if (listener->owner) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)&listener->address;
        (void)unlink(un->sun_path);
    }
    uv_close(&listener->uv.handle, on_closed);
}

void listener_close_all(struct http_net *net)
{
    for (struct list_node *node = list_first(&net->listeners); node != NULL;
         node = list_first(&net->listeners)) {
        http_listener_close(list_entry(node, struct http_listener, own));
    }
}
