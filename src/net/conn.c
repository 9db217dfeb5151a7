/*
 * A connection: bytes in, exchanges out, answers back in the order of the requests.
 *
 * Requests are read ahead while earlier ones run, up to pipelined_max and AHEAD_BYTES_MAX; then the
 * socket is left alone, so that the client feels the back-pressure.  Nothing is written while a request is
 * handled: whatever a turn has to say leaves in one gathering write at its end.  What the socket
 * does not take goes on in slices, each of which shows progress to the write time-out.
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

#include "net/stream.h"
#include "util/mem.h"

#define PIECES_MAX 64 /* Of one gathering write. */
#define SLICE_BYTES 65536
#define SLICE_PIECES 4               /* libuv allocates beyond four. */
#define PLACE_BYTES_MAX (256 * 1024) /* Read at once into a body, so that others get their turn. */
#define DISCARD_BYTES_MAX 65536      /* Of a body that is read in vain to keep a connection. */
#define AHEAD_BYTES_MAX 262144 /* Headers and unsent answers beyond which no request is read. */
#define LINGER_NS (2 * NS_PER_S)
#define REFUSED_CONNECTIONS_MAX 64 /* Above connections_max: those being told so. */

static _Atomic uint64_t connection_count; /* Of all loops. */

static const bool moves[CONN_STATE_COUNT][CONN_STATE_COUNT] = {
    [CONN_OPEN] = { [CONN_LAST] = true, [CONN_GONE] = true },
    [CONN_LAST] = { [CONN_LINGER] = true, [CONN_GONE] = true },
    [CONN_LINGER] = { [CONN_GONE] = true },
};

static void move(struct http_conn *c, enum conn_state to)
{
    assert(moves[c->state][to]);
    c->state = to;
}

/* --- Time-outs --- */

/* The earliest time at which something must have happened.  One timer serves all of them; it is
 * moved only when it would fire too late, so that a busy connection hardly touches it. */
static uint64_t deadline_ns(const struct http_conn *c)
{
    const struct limits *limits = c->loop->limits;
    if (c->state == CONN_LINGER) {
        return clock_add(c->idle_ns, LINGER_NS);
    }
    uint64_t at_ns = CLOCK_NEVER;
    if (c->writing) {
        at_ns = clock_add(c->write_ns, limits->write_timeout_ns);
    }
    uint64_t read_at_ns = CLOCK_NEVER;
    if (c->reading != NULL) {
        read_at_ns = c->reading->headed
                         ? clock_add(c->read_ns, limits->body_timeout_ns)
                         : clock_add(c->reading->x.begun_ns, limits->header_timeout_ns);
    } else if (c->line_count == 0) {
        read_at_ns = c->used ? clock_add(c->idle_ns, limits->idle_timeout_ns)
                             : clock_add(c->read_ns, limits->header_timeout_ns);
    }
    return read_at_ns < at_ns ? read_at_ns : at_ns;
}

static void rearm(struct http_conn *c)
{
    if (c->state == CONN_GONE) {
        return;
    }
    const uint64_t at_ns = deadline_ns(c);
    if (at_ns != CLOCK_NEVER && (!c->timer.node.in || at_ns < c->timer.node.key)) {
        loop_timer_set(c->loop, &c->timer, at_ns);
    }
}

/* --- The line of streams --- */

static struct stream *front(const struct http_conn *c)
{
    return stream_at(list_first(&c->line));
}

static void free_if_over(struct http_conn *c)
{
    if (c->closed && list_empty(&c->line)) {
        list_remove(&c->node);
        c->loop->connection_count--;
        atomic_fetch_sub(&connection_count, 1);
        mem_free(c);
    }
}

void conn_retire(struct http_conn *c, struct stream *s)
{
    assert(s->complete || c->state == CONN_GONE);
    list_remove(&s->x.node);
    c->line_count--;
    c->ahead_bytes -= s->head_bytes;
    c->idle_ns = c->loop->now_ns;
    if (c->reading == s) {
        c->reading = NULL;
    }
    if (s->headed) {
        s->handler->done(s->handler->context, &s->x);
    }
    stream_destroy(c->net, s);
    free_if_over(c);
}

static struct stream *begin_stream(struct http_conn *c)
{
    struct stream *s = stream_create(c->net);
    if (s == NULL) {
        return NULL;
    }
    s->handler = c->handler;
    s->x.loop = c->loop;
    s->x.conn = c;
    s->x.method = HTTP_OTHER;
    s->x.listener = c->listener;
    s->x.peer = (struct bytes){ c->peer, c->peer_size };
    s->x.begun_ns = c->loop->now_ns;
    s->x.body_bytes_max = c->loop->limits->body_bytes_max;
    list_append(&c->line, &s->x.node);
    c->line_count++;
    return s;
}

static void drop_reading(struct http_conn *c)
{
    struct stream *s = c->reading;
    c->reading = NULL;
    if (s == NULL) {
        return;
    }
    s->complete = true;
    if (s->x.status == 0) {
        conn_retire(c, s);
    }
}

/* --- Reading --- */

/* Nothing more is read for `s`; with `last`, nor for any other. */
static void end_reading(struct http_conn *c, struct stream *s, bool last)
{
    c->reading = NULL;
    s->complete = true;
    if (last) {
        s->last = true;
        move(c, CONN_LAST);
    }
    conn_dirty(c);
}

static void refuse(struct http_conn *c, enum weir_status status, const char *text)
{
    struct stream *s = c->reading;
    end_reading(c, s, true);
    if (s->x.status == 0) {
        http_count_refusal(status);
        exchange_fail(&s->x, status, text, weir_status_http(status) == 503);
    }
}

static void take_head(struct http_conn *c, struct stream *s, bool more)
{
    const struct http1_facts *facts = &c->http1.facts;
    struct exchange *x = &s->x;
    /* Should the handler refuse already now, a short body is read in vain and the connection kept;
     * otherwise it ends, and the answer has to say so. */
    const bool skippable =
        !facts->chunked && !facts->expects_continue && facts->body_size <= DISCARD_BYTES_MAX;
    s->version_1_0 = facts->version_1_0;
    s->keep_alive_1_0 = facts->version_1_0 && facts->keep_alive;
    s->last = !facts->keep_alive || c->net->draining || !skippable;
    s->headed = true;
    s->handler->head(s->handler->context, x);
    if (x->status != 0) {
        if (!skippable) {
            end_reading(c, s, true);
        }
        return;
    }
    s->last = !facts->keep_alive;
    if (facts->body_size > x->body_bytes_max) {
        char text[128];
        (void)snprintf(text, sizeof(text),
                       "request body: Content-Length %llu, at most %llu bytes are allowed",
                       (unsigned long long)facts->body_size, (unsigned long long)x->body_bytes_max);
        refuse(c, WEIR_ETOOBIG, text);
        return;
    }
    s->body.expected = facts->body_size;
    s->body.align_at = x->body_align_at;
    s->body.bytes_max = x->body_bytes_max;
    if (facts->expects_continue && !more) {
        stream_continue(s);
        conn_dirty(c);
    }
}

static void take_data(struct http_conn *c, struct stream *s, struct bytes data)
{
    if (s->x.status != 0) {
        return;
    }
    struct weir_err err;
    const enum weir_status status = body_append(&s->body, &s->x.arena, c->loop->limits, data, &err);
    if (status != WEIR_OK) {
        refuse(c, status, err.text);
    }
}

static void take_end(struct http_conn *c, struct stream *s)
{
    struct exchange *x = &s->x;
    s->head_bytes = x->arena.used_bytes;
    c->ahead_bytes += s->head_bytes;
    end_reading(c, s, s->last || c->net->draining);
    x->received_ns = c->loop->now_ns;
    x->body = (struct bytes){ s->body.data, s->body.size };
    if (x->status == 0) {
        s->requested = true;
        s->handler->request(s->handler->context, x);
    }
}

static void stop_reading(struct http_conn *c, struct bytes rest)
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

static bool is_full(const struct http_conn *c)
{
    return c->line_count >= c->loop->limits->pipelined_max || c->ahead_bytes > AHEAD_BYTES_MAX;
}

/* Half empty: so that a full line is not looked at for each of its answers. */
static bool has_room(const struct http_conn *c)
{
    return c->line_count <= c->loop->limits->pipelined_max / 2 && c->ahead_bytes <= AHEAD_BYTES_MAX;
}

/* Gives bytes to the reader and follows its events until they are used up. */
static void feed(struct http_conn *c, struct bytes in)
{
    struct weir_err err;
    struct bytes data;
    while (c->state == CONN_OPEN) {
        if (c->reading == NULL && is_full(c)) {
            stop_reading(c, in);
            return;
        }
        if (c->reading == NULL) {
            if (in.size == 0) {
                return;
            }
            c->reading = begin_stream(c);
            if (c->reading == NULL) {
                conn_close(c);
                return;
            }
        }
        struct stream *s = c->reading;
        switch (http1_next(&c->http1, &s->x, &in, &data, &err)) {
        case HTTP1_MORE:
            if (!http1_begun(&c->http1)) {
                drop_reading(c); /* It was an empty line only. */
            }
            return;
        case HTTP1_HEAD:
            take_head(c, s, in.size > 0);
            break;
        case HTTP1_DATA:
            take_data(c, s, data);
            break;
        case HTTP1_END:
            take_end(c, s);
            break;
        case HTTP1_REFUSED:
            refuse(c, err.status, err.text);
            break;
        }
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct http_conn *c = handle->data;
    size_t room = 0;
    if (c->state == CONN_OPEN && c->reading != NULL && c->reading->x.status == 0 &&
        body_place(&c->reading->body, &buf->base, &room)) {
        buf->len = room < PLACE_BYTES_MAX ? room : PLACE_BYTES_MAX;
        return;
    }
    buf->base = c->net->read_buffer;
    buf->len = NET_READ_BYTES;
}

/* True when every answer of the line is there, so that only sending remains. */
static bool all_finished(const struct http_conn *c)
{
    for (struct list_node *node = list_first(&c->line); node != NULL;
         node = list_next(&c->line, node)) {
        if (!stream_at(node)->x.finished) {
            return false;
        }
    }
    return true;
}

/* The client sends no more.  That is how clients hang up, so whatever is unfinished is canceled;
 * but answers that are ready still go out, for those that only shut their side. */
static void end_of_stream(struct http_conn *c)
{
    c->ended = true;
    drop_reading(c);
    if (c->state == CONN_LINGER || list_empty(&c->line) || !all_finished(c)) {
        conn_close(c);
        return;
    }
    stream_at(c->line.head.prev)->last = true;
    if (c->state == CONN_OPEN) {
        move(c, CONN_LAST);
    }
    uv_read_stop(&c->uv.stream);
    conn_dirty(c);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct http_conn *c = stream->data;
    loop_turn_begin(c->loop);
    if (size == 0) {
        return;
    }
    if (size == UV_EOF) {
        end_of_stream(c);
        return;
    }
    if (size < 0) {
        conn_close(c);
        return;
    }
    c->read_ns = c->loop->now_ns;
    c->used = true;
    if (c->state == CONN_OPEN) {
        feed(c, (struct bytes){ buf->base, (size_t)size });
    }
    rearm(c);
}

static void start_reading(struct http_conn *c)
{
    if (uv_read_start(&c->uv.stream, on_alloc, on_read) != 0) {
        conn_close(c);
    }
}

static void resume_reading(struct http_conn *c)
{
    c->paused = false;
    char *held = c->held;
    c->held = NULL;
    feed(c, (struct bytes){ held, c->held_size });
    mem_free(held);
    if (!c->paused && c->state != CONN_GONE) {
        c->held_size = 0;
        start_reading(c);
        rearm(c);
    }
}

/* --- Writing --- */

/* The pieces of the line that may leave now, in order. */
static unsigned gather(const struct http_conn *c, uv_buf_t *bufs, unsigned bufs_max,
                       size_t bytes_max, size_t *bytes)
{
    unsigned count = 0;
    *bytes = 0;
    for (struct list_node *node = list_first(&c->line); node != NULL;
         node = list_next(&c->line, node)) {
        const struct stream *s = stream_at(node);
        for (const struct piece *piece = s->pieces; piece != NULL; piece = piece->next) {
            if (count == bufs_max || *bytes == bytes_max) {
                return count;
            }
            const size_t room = bytes_max - *bytes;
            bufs[count].base = (char *)(uintptr_t)piece->bytes.data;
            bufs[count].len = piece->bytes.size < room ? piece->bytes.size : room;
            *bytes += bufs[count].len;
            count++;
        }
        if (!s->x.finished || s->broken || s->last) {
            break;
        }
    }
    return count;
}

/* libuv wants to tell somebody; what matters is that the client closes. */
static void on_shutdown(uv_shutdown_t *request, int status)
{
    (void)request;
    (void)status;
}

/* The last answer is sent.  Where only its form made it the last (a stream to an HTTP/1.0 client),
 * there may be requests behind it, which end here. */
static void linger(struct http_conn *c)
{
    if (!list_empty(&c->line)) {
        conn_close(c);
        return;
    }
    if (c->state == CONN_OPEN) {
        move(c, CONN_LAST);
    }
    move(c, CONN_LINGER);
    c->idle_ns = c->loop->now_ns;
    if (c->ended || uv_shutdown(&c->shutdown, &c->uv.stream, on_shutdown) != 0) {
        conn_close(c);
    } else if (c->paused) {
        c->paused = false;
        start_reading(c);
    }
}

/* Ends streams at the front that have said everything.  False when the connection is over. */
static bool retire_sent(struct http_conn *c)
{
    for (struct stream *s = front(c); s != NULL && s->pieces == NULL; s = front(c)) {
        if (s->broken) {
            conn_close(c);
            return false;
        }
        if (!s->x.finished || !s->complete) {
            return true;
        }
        const bool last = s->last;
        conn_retire(c, s);
        if (last) {
            linger(c);
            return false;
        }
    }
    return true;
}

/* Tells the handler of a stream at the front that all its bytes are gone, or were dropped. */
static void tell_drained(struct stream *s)
{
    s->dropped = false;
    if (s->x.streaming && !s->x.finished && s->handler->drained != NULL) {
        s->handler->drained(s->handler->context, &s->x);
    }
}

/* The socket took `size` bytes of what gather() showed it. */
static bool advance(struct http_conn *c, size_t size)
{
    while (size > 0) {
        struct stream *s = front(c);
        const size_t part = s->pieces->bytes.size < size ? s->pieces->bytes.size : size;
        const bool had_unsent = s->x.unsent_bytes > 0;
        stream_advance(s, part);
        size -= part;
        if (had_unsent && s->x.unsent_bytes == 0) {
            tell_drained(s);
        }
        if (s->pieces == NULL && !retire_sent(c)) {
            return false;
        }
    }
    return true;
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
    if (advance(c, c->slice_bytes)) {
        conn_dirty(c);
    }
}

/* The socket is full: lets libuv wait for it with the next slice. */
static void write_slice(struct http_conn *c)
{
    uv_buf_t bufs[SLICE_PIECES];
    const unsigned count = gather(c, bufs, SLICE_PIECES, SLICE_BYTES, &c->slice_bytes);
    c->slice_left = c->slice_bytes;
    c->write_ns = c->loop->now_ns;
    c->write.data = c;
    if (uv_write(&c->write, &c->uv.stream, bufs, count, on_write) != 0) {
        conn_close(c);
        return;
    }
    c->writing = true;
}

/* One write in the usual case; more only for more than PIECES_MAX pieces. */
static void flush(struct http_conn *c)
{
    if (c->writing || !retire_sent(c)) {
        return;
    }
    for (;;) {
        uv_buf_t bufs[PIECES_MAX];
        size_t bytes = 0;
        const unsigned count = gather(c, bufs, PIECES_MAX, SIZE_MAX, &bytes);
        if (count == 0) {
            break;
        }
        int sent = uv_try_write(&c->uv.stream, bufs, count);
        if (sent < 0 && sent != UV_EAGAIN) {
            conn_close(c);
            return;
        }
        sent = sent < 0 ? 0 : sent;
        if (!advance(c, (size_t)sent)) {
            return;
        }
        if ((size_t)sent < bytes) {
            write_slice(c);
            return;
        }
    }
    if (front(c) != NULL && front(c)->dropped) {
        tell_drained(front(c));
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
        if (c->paused && c->state == CONN_OPEN && !list_linked(&c->resume) && has_room(c)) {
            /* In the next turn, so that what is then read gets its hooks. */
            list_append(&c->net->resume, &c->resume);
            uv_async_send(&loop->wake);
        }
        rearm(c);
    }
    if (!list_empty(&loop->dirty)) {
        uv_async_send(&loop->wake); /* Streams that go on as fast as the socket takes them. */
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

/* Tells the handler about every answer that nobody waits for any more.  A handler may finish
 * any exchange from within, hence always from the front. */
static void cancel_line(struct http_conn *c)
{
    struct list_node *node = list_first(&c->line);
    while (node != NULL) {
        struct stream *s = stream_at(node);
        struct exchange *x = &s->x;
        const bool known = s->requested || x->status != 0;
        if (x->canceled) {
            node = list_next(&c->line, node);
            continue;
        }
        if (x->finished || !known) {
            conn_retire(c, s);
        } else {
            x->canceled = true;
            s->handler->canceled(s->handler->context, x);
        }
        node = list_first(&c->line);
    }
}

void conn_close(struct http_conn *c)
{
    if (c->state == CONN_GONE) {
        return;
    }
    move(c, CONN_GONE);
    loop_timer_clear(c->loop, &c->timer);
    list_remove(&c->dirty);
    list_remove(&c->resume);
    mem_free(c->held);
    c->held = NULL;
    uv_close(&c->uv.handle, on_closed);
    cancel_line(c);
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
    if (c->reading != NULL) {
        const bool body = c->reading->headed;
        if (now_ns >= (body ? clock_add(c->read_ns, limits->body_timeout_ns)
                            : clock_add(c->reading->x.begun_ns, limits->header_timeout_ns))) {
            refuse(c, WEIR_ESTALLED,
                   body ? "request body: no byte arrived within the body time-out"
                        : "request header: not complete within the header time-out");
        }
    } else if (c->line_count == 0) {
        conn_close(c);
    }
}

static void on_timer(struct loop_timer *timer)
{
    struct http_conn *c = list_entry(timer, struct http_conn, timer);
    if (deadline_ns(c) <= c->loop->now_ns) {
        time_out(c);
    }
    rearm(c);
}

/* --- The beginning --- */

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
    list_init(&c->line);
    http1_init(&c->http1, loop->limits);
    list_append(&loop->connections, &c->node);
    loop->connection_count++;
    return c;
}

bool conn_accept(struct http_net *net, uv_stream_t *server, const struct http_handler *handler,
                 uint32_t listener)
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
    if (tcp) {
        uv_tcp_nodelay(&c->uv.tcp, 1);
    }
    read_peer(c, tcp);
    start_reading(c);
    if (count > count_max && c->state == CONN_OPEN) {
        /* Accepted and told, rather than left in the backlog, where a client can only guess. */
        c->reading = begin_stream(c);
        if (c->reading == NULL) {
            conn_close(c);
            return true;
        }
        refuse(c, WEIR_EFULL, "too many connections");
    }
    rearm(c);
    return true;
}

void conn_drain(struct http_conn *c)
{
    if (c->state != CONN_OPEN || c->reading != NULL) {
        return;
    }
    if (list_empty(&c->line)) {
        conn_close(c);
        return;
    }
    stream_at(c->line.head.prev)->last = true;
    move(c, CONN_LAST);
    conn_dirty(c);
}
