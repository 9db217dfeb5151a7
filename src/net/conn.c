/*
 * A connection's socket: bytes in, bytes out.
 *
 * Nothing is written while a request is handled: whatever a turn has to say leaves in one gathering
 * write at its end.  What the socket does not take goes on in slices, each of which shows progress
 * to the write time-out.
 *
 * A closed socket with unread bytes resets the connection, and the reset may overtake
 * the answer.  So after a last answer the connection lingers: it shuts its side and reads on until
 * the client has closed too.
 */
#include "net/conn.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "net/protocol.h"
#include "net/socket.h"
#include "util/mem.h"

#define PIECES_MAX 64 /* Of one gathering write. */
#define SLICE_BYTES 65536
#define SLICE_PIECES 4               /* libuv allocates beyond four. */
#define PLACE_BYTES_MAX (256 * 1024) /* Read at once into a body, */
#define HEAD_READ_BYTES 4096         /* Behind a body that was: what precedes the next one. */
#define TURN_READS 8                 /* and so often in a turn, so that others get theirs. */
#define TURN_HANDSHAKES 4            /* Steps of TLS handshakes per turn of a loop. */
#define REFUSED_CONNECTIONS_MAX 64   /* Above connections_max: those being told so. */

static _Atomic uint64_t connection_count; /* Of all loops. */

static const bool moves[CONN_STATE_COUNT][CONN_STATE_COUNT] = {
    [CONN_OPEN] = { [CONN_LAST] = true, [CONN_GONE] = true },
    [CONN_LAST] = { [CONN_LINGER] = true, [CONN_GONE] = true },
    [CONN_LINGER] = { [CONN_GONE] = true },
};

void conn_move(struct http_conn *c, enum conn_state to)
{
    assert(moves[c->state][to]);
    c->state = to;
}

/* --- Exchanges --- */

static void free_if_over(struct http_conn *c)
{
    if (c->closed && list_empty(&c->streams)) {
        c->protocol->release(c);
        tls_close(c->tls);
        list_remove(&c->node);
        c->loop->connection_count--;
        atomic_fetch_sub(&connection_count, 1);
        mem_free(c);
    }
}

void conn_adopt(struct http_conn *c, struct stream *s)
{
    s->handler = c->handler;
    s->x.loop = c->loop;
    s->x.conn = c;
    s->x.method = HTTP_OTHER;
    s->x.listener = c->listener;
    s->x.peer = (struct bytes){ c->peer, c->peer_size };
    s->x.peer_memo = &c->peer_memo;
    s->x.peer_user = c->peer_user;
    s->x.client = c->tls == NULL ? (struct bytes){ 0 } : tls_client_name(c->tls);
    s->x.begun_ns = c->loop->came_ns;
    s->x.body_bytes_max = c->loop->limits->body_bytes_max;
    list_append(&c->streams, &s->x.node);
    c->stream_count++;
    c->loop->exchange_count++;
}

void conn_retire(struct http_conn *c, struct stream *s)
{
    list_remove(&s->x.node);
    c->stream_count--;
    c->loop->exchange_count--;
    c->loop->asked_count -= s->requested && s->x.status == 0 ? 1 : 0;
    c->loop->ended_count++;
    c->idle_ns = c->loop->now_ns;
    if (s->headed) {
        s->handler->done(s->handler->context, &s->x);
    }
    stream_destroy(c->net, s);
    free_if_over(c);
}

/* --- Reading --- */

void conn_pause(struct http_conn *c, struct bytes rest)
{
    if (rest.size > 0) {
        char *held = mem_try_alloc(rest.size);
        if (held == NULL) {
            conn_close(c);
            return;
        }
        memcpy(held, rest.data, rest.size);
        mem_free(c->held);
        c->held = held;
    }
    c->held_size = rest.size;
    c->paused = true;
    uv_read_stop(&c->uv.stream);
}

void conn_resume_later(struct http_conn *c)
{
    if (!list_linked(&c->resume)) {
        list_append(&c->net->resume, &c->resume);
        loop_wake(c->loop);
    }
}

static const char preface[CONN_SNIFF_BYTES + 1] = "PRI ";

/* The first bytes tell which protocol it is; a few may have to wait for the next. */
static void choose(struct http_conn *c, struct bytes in)
{
    size_t size = c->sniffed_size;
    while (size < CONN_SNIFF_BYTES && in.size > 0 && in.data[0] == preface[size]) {
        c->sniffed[size++] = in.data[0];
        in.data++;
        in.size--;
    }
    c->sniffed_size = (uint8_t)size;
    if (size < CONN_SNIFF_BYTES && in.size == 0) {
        return;
    }
    c->chosen = true;
    c->used = true;
    if (size == CONN_SNIFF_BYTES && !http2_open(c)) {
        conn_close(c);
        return;
    }
    if (size > 0) {
        c->protocol->feed(c, (struct bytes){ c->sniffed, size });
    }
    if (c->state == CONN_OPEN && in.size > 0) {
        c->protocol->feed(c, in);
    }
}

static void take(struct http_conn *c, struct bytes in)
{
    if (!c->chosen) {
        choose(c, in);
    } else if (c->state == CONN_OPEN) {
        c->protocol->feed(c, in);
    }
}

static void end(struct http_conn *c)
{
    c->ended = true;
    if (c->state == CONN_LINGER) {
        conn_close(c);
    } else if (c->state != CONN_GONE) {
        c->protocol->ended(c);
    }
}

/* --- TLS --- */

/* The handshake is over. */
static void take_agreement(struct http_conn *c)
{
    const enum tls_protocol protocol = tls_protocol(c->tls);
    c->chosen = protocol != TLS_NO_PROTOCOL;
    c->used = c->chosen;
    if (protocol == TLS_HTTP2 && !http2_open(c)) {
        conn_close(c);
    }
}

/* Alerts and farewells are small, and the last of what is sent: where the socket is full nobody
 * reads. */
static void send_last(struct http_conn *c)
{
    const struct bytes out = tls_outgoing(c->tls);
    const uv_buf_t buf = { (char *)(uintptr_t)out.data, out.size };
    if (out.size > 0 && !c->writing) {
        const ssize_t sent = socket_send(c->fd, &buf, 1, buf.len, c->net->joined);
        tls_sent(c->tls, sent < 0 ? 0 : (size_t)sent);
    }
}

/* The client speaks plain HTTP where TLS is due, and is told in its own language. */
static void answer_plainly(struct http_conn *c)
{
    tls_close(c->tls);
    c->tls = NULL;
    c->chosen = true;
    line_refuse(c, WEIR_EINVAL, "this port speaks HTTP over TLS: expected https");
}

/* One step through what was fed; false when it is used up, or of no use any more. */
static bool open_some(struct http_conn *c)
{
    char *at = c->net->plain;
    size_t room = sizeof(c->net->plain);
    size_t size = 0;
    if (c->state == CONN_OPEN) {
        (void)c->protocol->place(c, &at, &room);
    }
    switch (tls_read(c->tls, at, room, &size)) {
    case TLS_MORE:
        return false;
    case TLS_READY:
        take_agreement(c);
        return true;
    case TLS_DATA:
        take(c, (struct bytes){ at, size });
        return true;
    case TLS_END:
        end(c);
        return false;
    case TLS_PLAIN:
        answer_plainly(c);
        return false;
    case TLS_FAILED:
        break;
    }
    send_last(c);
    conn_linger(c);
    return false;
}

/* Goes through what was fed, until it is used up or the protocol has enough. */
static void open_all(struct http_conn *c)
{
    while (c->state == CONN_OPEN && !c->paused && open_some(c)) {
    }
    if (c->state == CONN_GONE) {
        return;
    }
    if (c->paused && !tls_hold(c->tls)) {
        conn_close(c);
        return;
    }
    conn_dirty(c); /* Handshakes have answers. */
}

/* Counts a step of a handshake, which can cost a millisecond; false when this turn has had enough
 * of them: the others wait, so that clients who are already here are answered in between. */
static bool may_open(struct http_conn *c)
{
    struct http_net *net = c->net;
    if (tls_ready(c->tls)) {
        return true;
    }
    if (net->handshake_ns != c->loop->now_ns) {
        net->handshake_ns = c->loop->now_ns;
        net->handshakes = 0;
    }
    return net->handshakes++ < TURN_HANDSHAKES;
}

static void open_now_or_later(struct http_conn *c)
{
    if (may_open(c)) {
        open_all(c);
        return;
    }
    conn_pause(c, (struct bytes){ NULL, 0 });
    if (tls_hold(c->tls)) {
        conn_resume_later(c);
    } else {
        conn_close(c);
    }
}

/* Where the next bytes go. */
static uv_buf_t room_of(struct http_conn *c)
{
    uv_buf_t room = { c->net->read_buffer, NET_READ_BYTES };
    size_t size = 0;
    if (c->tls == NULL && c->state == CONN_OPEN && c->protocol->place(c, &room.base, &size)) {
        room.len = size < PLACE_BYTES_MAX ? size : PLACE_BYTES_MAX;
    } else if (c->bulky) {
        room.len = HEAD_READ_BYTES;
    }
    return room;
}

/* libuv asks where to read to when there is something to read, and is told nowhere: on_read()
 * reads. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)handle;
    (void)suggested;
    *buf = (uv_buf_t){ NULL, 0 };
}

static void take_read(struct http_conn *c, struct bytes in)
{
    c->read_ns = c->loop->now_ns;
    if (c->tls == NULL) {
        take(c, in);
    } else if (c->state == CONN_OPEN) {
        tls_feed(c->tls, in);
        open_now_or_later(c);
    }
    conn_rearm(c);
}

/* Reads once.  True when there may be more, of which the turn may have some. */
static bool read_some(struct http_conn *c)
{
    const uv_buf_t room = room_of(c);
    const ssize_t size = socket_receive(c->fd, room.base, room.len);
    if (size == UV_EAGAIN) {
        return false;
    }
    if (size == UV_EOF) {
        uv_read_stop(&c->uv.stream);
        end(c);
        return false;
    }
    if (size < 0) {
        conn_close(c);
        return false;
    }
    c->bulky = room.base != c->net->read_buffer;
    take_read(c, (struct bytes){ room.base, (size_t)size });
    return (size_t)size == room.len && c->state != CONN_GONE && !c->paused &&
           (!c->bulky || room.len == PLACE_BYTES_MAX); /* Behind large bodies is seldom more. */
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    (void)buf;
    struct http_conn *c = stream->data;
    loop_turn_begin(c->loop);
    if (size == UV_EOF) { /* libuv may find the end by itself. */
        end(c);
    } else if (size == UV_ENOBUFS) {
        for (unsigned i = 0; i < TURN_READS && read_some(c); i++) {
        }
    } else if (size < 0) {
        conn_close(c);
    }
}

static void start_reading(struct http_conn *c)
{
    c->loop->newcomers = true;
    if (uv_read_start(&c->uv.stream, on_alloc, on_read) != 0) {
        conn_close(c);
    }
}

static void resume_reading(struct http_conn *c)
{
    if (c->tls != NULL && !may_open(c)) {
        conn_resume_later(c);
        return;
    }
    if (!c->paused) {
        return; /* It lingers since, and reads. */
    }
    c->paused = false;
    char *held = c->held;
    c->held = NULL;
    c->protocol->feed(c, (struct bytes){ held, c->held_size });
    mem_free(held);
    if (c->tls != NULL && !c->paused && c->state == CONN_OPEN) {
        open_all(c);
    }
    if (!c->paused && c->state != CONN_GONE) {
        c->held_size = 0;
        start_reading(c);
        conn_rearm(c);
    }
}

/* --- Writing --- */

/* libuv wants to tell somebody; what matters is that the client closes. */
static void on_shutdown(uv_shutdown_t *request, int status)
{
    (void)request;
    (void)status;
}

/* Where only its form made the last answer the last (a stream to an HTTP/1.0 client), there may be
 * requests behind it, which end here. */
void conn_linger(struct http_conn *c)
{
    if (!list_empty(&c->streams)) {
        conn_close(c);
        return;
    }
    if (c->state == CONN_OPEN) {
        conn_move(c, CONN_LAST);
    }
    conn_move(c, CONN_LINGER);
    c->idle_ns = c->loop->now_ns;
    if (c->tls != NULL) {
        tls_farewell(c->tls);
        send_last(c);
    }
    if (c->ended || uv_shutdown(&c->shutdown, &c->uv.stream, on_shutdown) != 0) {
        conn_close(c);
    } else if (c->paused) {
        c->paused = false;
        start_reading(c);
    }
}

static void on_write(uv_write_t *request, int status)
{
    struct http_conn *c = request->data;
    loop_turn_begin(c->loop);
    c->writing = false;
    if (c->state == CONN_GONE) {
        return;
    }
    if (status != 0) {
        conn_close(c);
        return;
    }
    if (c->tls != NULL) {
        tls_sent(c->tls, c->slice_bytes);
        conn_dirty(c);
    } else if (c->protocol->advance(c, c->slice_bytes)) {
        conn_dirty(c);
    }
}

/* The socket is full: lets libuv wait for it. */
static void write_later(struct http_conn *c, const uv_buf_t *bufs, unsigned count)
{
    c->slice_left = c->slice_bytes;
    c->write_ns = c->loop->now_ns;
    c->write.data = c;
    if (uv_write(&c->write, &c->uv.stream, bufs, count, on_write) != 0) {
        conn_close(c);
        return;
    }
    c->writing = true;
}

static void write_slice(struct http_conn *c)
{
    uv_buf_t bufs[SLICE_PIECES];
    const unsigned count = c->protocol->gather(c, bufs, SLICE_PIECES, SLICE_BYTES, &c->slice_bytes);
    write_later(c, bufs, count);
}

/* Sends what is sealed.  False when there is nothing to seal now: the socket is full, or gone. */
static bool flush_sealed(struct http_conn *c)
{
    for (struct bytes out = tls_outgoing(c->tls); out.size > 0; out = tls_outgoing(c->tls)) {
        const uv_buf_t buf = { (char *)(uintptr_t)out.data, out.size };
        const ssize_t sent = socket_send(c->fd, &buf, 1, buf.len, c->net->joined);
        if (sent < 0) {
            conn_close(c);
            return false;
        }
        tls_sent(c->tls, (size_t)sent);
        if ((size_t)sent < out.size) {
            c->slice_bytes = out.size - (size_t)sent;
            const uv_buf_t rest = { buf.base + sent, c->slice_bytes };
            write_later(c, &rest, 1);
            return false;
        }
    }
    const size_t gone = c->sealed_bytes;
    c->sealed_bytes = 0;
    return gone == 0 || c->protocol->advance(c, gone);
}

/* Seals what the protocol has to say.  False when that is nothing. */
static bool seal_some(struct http_conn *c)
{
    uv_buf_t bufs[PIECES_MAX];
    struct bytes pieces[PIECES_MAX];
    if (!tls_ready(c->tls)) {
        return false;
    }
    const unsigned count =
        c->protocol->gather(c, bufs, PIECES_MAX, TLS_SEAL_BYTES_MAX, &c->sealed_bytes);
    for (unsigned i = 0; i < count; i++) {
        pieces[i] = (struct bytes){ bufs[i].base, bufs[i].len };
    }
    if (count > 0 && !tls_seal(c->tls, pieces, count, c->net->plain)) {
        conn_close(c);
        return false;
    }
    return count > 0;
}

static void flush_tls(struct http_conn *c)
{
    while (flush_sealed(c) && seal_some(c)) {
    }
}

/* One write in the usual case; more only for more than PIECES_MAX pieces. */
static void flush(struct http_conn *c)
{
    if (c->writing || c->state == CONN_LINGER || !c->protocol->settle(c)) {
        return;
    }
    if (c->tls != NULL) {
        flush_tls(c);
        return;
    }
    for (;;) {
        uv_buf_t bufs[PIECES_MAX];
        size_t bytes = 0;
        const unsigned count = c->protocol->gather(c, bufs, PIECES_MAX, SIZE_MAX, &bytes);
        if (count == 0) {
            break;
        }
        const ssize_t sent = socket_send(c->fd, bufs, count, bytes, c->net->joined);
        if (sent < 0) {
            conn_close(c);
            return;
        }
        if (!c->protocol->advance(c, (size_t)sent)) {
            return;
        }
        if ((size_t)sent < bytes) {
            write_slice(c);
            return;
        }
    }
}

void conn_dirty(struct http_conn *c)
{
    if (c->state != CONN_GONE && !list_linked(&c->dirty)) {
        list_append(&c->loop->dirty, &c->dirty);
    }
}

void conn_flush_dirty(struct loop *loop)
{
    if (list_empty(&loop->dirty)) {
        return;
    }
    struct list now;
    list_init(&now);
    list_splice(&now, &loop->dirty);
    for (struct list_node *node = list_pop(&now); node != NULL; node = list_pop(&now)) {
        struct http_conn *c = list_entry(node, struct http_conn, dirty);
        flush(c);
        if (c->state == CONN_GONE) {
            continue; /* Its memory lasts until libuv's close callback. */
        }
        c->protocol->flushed(c);
        if (c->state == CONN_GONE) {
            continue;
        }
        conn_rearm(c);
    }
    if (!list_empty(&loop->dirty)) {
        loop_wake(loop); /* Streams that go on as fast as the socket takes them. */
    }
}

void conn_resume(struct loop *loop)
{
    if (loop->net == NULL) {
        return;
    }
    struct list now;
    list_init(&now);
    list_splice(&now, &loop->net->resume);
    for (struct list_node *node = list_pop(&now); node != NULL; node = list_pop(&now)) {
        resume_reading(list_entry(node, struct http_conn, resume));
    }
}

/* --- The end --- */

static void on_closed(uv_handle_t *handle)
{
    struct http_conn *c = handle->data;
    c->closed = true;
    free_if_over(c);
}

void conn_close(struct http_conn *c)
{
    if (c->state == CONN_GONE) {
        return;
    }
    if (c->tls != NULL) {
        tls_farewell(c->tls);
        send_last(c);
    }
    conn_move(c, CONN_GONE);
    loop_timer_clear(c->loop, &c->timer);
    list_remove(&c->dirty);
    list_remove(&c->resume);
    mem_free(c->held);
    c->held = NULL;
    uv_close(&c->uv.handle, on_closed);
    c->protocol->cancel(c);
}

static void time_out(struct http_conn *c)
{
    const struct limits *limits = c->loop->limits;
    const uint64_t now_ns = c->loop->now_ns;
    if (c->state == CONN_LINGER) {
        conn_close(c);
        return;
    }
    if (c->writing && now_ns >= clock_add(c->write_ns, limits->write_timeout_ns)) {
        const size_t left = uv_stream_get_write_queue_size(&c->uv.stream);
        if (left == c->slice_left) {
            conn_close(c);
            return;
        }
        c->slice_left = left;
        c->write_ns = now_ns;
    }
    if (now_ns >= c->protocol->deadline_ns(c)) {
        c->protocol->overdue(c);
    } else if (c->stream_count == 0 && !c->writing) {
        conn_close(c);
    }
}

static void on_timer(struct loop_timer *timer)
{
    struct http_conn *c = list_entry(timer, struct http_conn, timer);
    if (conn_deadline_ns(c) <= c->loop->now_ns) {
        time_out(c);
    }
    conn_rearm(c);
}

/* --- The beginning --- */

/* Who has the other end of a Unix socket. */
static void read_user(struct http_conn *c, bool tcp)
{
    struct ucred user;
    socklen_t size = sizeof(user);
    c->peer_user = -1;
    if (!tcp && getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &user, &size) == 0) {
        c->peer_user = user.uid;
    }
}

static void read_peer(struct http_conn *c, bool tcp)
{
    struct sockaddr_storage address;
    int size = sizeof(address);
    char host[46] = "";
    unsigned port = 0;
    if (!tcp || uv_tcp_getpeername(&c->uv.tcp, (struct sockaddr *)&address, &size) != 0) {
        c->peer_size = (uint32_t)snprintf(c->peer, sizeof(c->peer), "%s", tcp ? "unknown" : "unix");
        return;
    }
    const bool v6 = address.ss_family == AF_INET6;
    if (v6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&address;
        (void)uv_ip6_name(in6, host, sizeof(host));
        port = ntohs(in6->sin6_port);
    } else {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)&address;
        (void)uv_ip4_name(in4, host, sizeof(host));
        port = ntohs(in4->sin_port);
    }
    c->peer_size =
        (uint32_t)snprintf(c->peer, sizeof(c->peer), v6 ? "[%s]:%u" : "%s:%u", host, port);
}

static struct http_conn *create(struct http_net *net, bool tcp)
{
    struct loop *loop = net->loop;
    struct http_conn *c = mem_try_zero(1, sizeof(*c));
    if (c == NULL) {
        return NULL;
    }
    const int failed =
        tcp ? uv_tcp_init(&loop->uv, &c->uv.tcp) : uv_pipe_init(&loop->uv, &c->uv.pipe, 0);
    if (failed != 0) {
        mem_free(c);
        return NULL;
    }
    c->uv.handle.data = c;
    c->loop = loop;
    c->net = net;
    c->timer.fire = on_timer;
    c->read_ns = loop->now_ns;
    c->idle_ns = loop->now_ns;
    list_init(&c->streams);
    http1_init(&c->line.http1, loop->limits);
    c->protocol = &line_protocol;
    list_append(&loop->connections, &c->node);
    loop->connection_count++;
    return c;
}

bool conn_accept(struct http_net *net, uv_stream_t *server, struct tls *tls,
                 const struct http_handler *handler, uint32_t listener)
{
    const bool tcp = server->type == UV_TCP;
    struct http_conn *c = create(net, tcp);
    if (c == NULL) {
        return false;
    }
    c->handler = handler;
    c->listener = listener;
    const uint64_t count = atomic_fetch_add(&connection_count, 1) + 1;
    const uint64_t count_max = net->loop->limits->connections_max;
    if (uv_accept(server, &c->uv.stream) != 0 || count > count_max + REFUSED_CONNECTIONS_MAX) {
        conn_close(c);
        return true;
    }
    if (uv_fileno(&c->uv.handle, &c->fd) != 0) {
        conn_close(c);
        return true;
    }
    if (tcp) {
        uv_tcp_nodelay(&c->uv.tcp, 1);
    }
    read_peer(c, tcp);
    read_user(c, tcp);
    if (tls != NULL) {
        c->tls = tls_open(tls);
        if (c->tls == NULL) {
            conn_close(c);
            return true;
        }
    }
    start_reading(c);
    if (count > count_max && c->tls != NULL) {
        conn_close(c); /* Telling it would take a handshake. */
    } else if (count > count_max && c->state == CONN_OPEN) {
        /* Accepted and told, rather than left in the backlog, where a client can only guess. */
        line_refuse(c, WEIR_EFULL, "too many connections");
    }
    conn_rearm(c);
    return true;
}

void conn_drain(struct http_conn *c)
{
    if (c->state == CONN_OPEN) {
        c->protocol->drain(c);
        conn_rearm(c);
    }
}
