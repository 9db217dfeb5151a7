/*
 * HTTP/1 on a connection: bytes in, exchanges out, answers back in the order of the requests.
 *
 * Requests are read ahead while earlier ones run, up to pipelined_max and AHEAD_BYTES_MAX; then the
 * socket is left alone, so that the client feels the back-pressure.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "net/protocol.h"
#include "util/mem.h"

#define DISCARD_BYTES_MAX 65536 /* Of a body that is read in vain to keep a connection. */
#define AHEAD_BYTES_MAX 262144  /* Headers and unsent answers beyond which no request is read. */

static struct stream *front(const struct http_conn *c)
{
    return stream_at(list_first(&c->streams));
}

static struct stream *begin_stream(struct http_conn *c)
{
    struct stream *s = stream_create(c->net);
    if (s == NULL) {
        return NULL;
    }
    conn_adopt(c, s);
    return s;
}

static void retire(struct http_conn *c, struct stream *s)
{
    assert(s->complete || c->state == CONN_GONE);
    c->ahead_bytes -= s->head_bytes;
    if (c->line.reading == s) {
        c->line.reading = NULL;
    }
    conn_retire(c, s);
}

static void drop_reading(struct http_conn *c)
{
    struct stream *s = c->line.reading;
    c->line.reading = NULL;
    if (s == NULL) {
        return;
    }
    s->complete = true;
    if (s->x.status == 0) {
        retire(c, s);
    }
}

/* --- Reading --- */

/* Nothing more is read for `s`; with `last`, nor for any other. */
static void end_reading(struct http_conn *c, struct stream *s, bool last)
{
    c->line.reading = NULL;
    s->complete = true;
    if (last) {
        s->last = true;
        conn_move(c, CONN_LAST);
    }
    conn_dirty(c);
}

static void refuse(struct http_conn *c, enum weir_status status, const char *text)
{
    struct stream *s = c->line.reading;
    end_reading(c, s, true);
    if (s->x.status == 0) {
        http_count_refusal(status);
        exchange_fail(&s->x, status, text, weir_status_http(status) == 503);
    }
}

static void take_head(struct http_conn *c, struct stream *s, bool more)
{
    const struct http1_facts *facts = &c->line.http1.facts;
    struct exchange *x = &s->x;
    /* Should the handler refuse already now, a short body is read in vain and the connection kept;
     * otherwise it ends, and the answer has to say so. */
    const bool skippable =
        !facts->chunked && !facts->expects_continue && facts->body_size <= DISCARD_BYTES_MAX;
    s->keep_alive_1_0 = facts->version_1_0 && facts->keep_alive;
    s->last = !facts->keep_alive || c->net->draining || !skippable;
    s->headed = true;
    x->body_size = facts->body_size;
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
    stream_begin_body(s, facts->body_size);
    if (facts->expects_continue && !more) {
        stream_push(s, BYTES_LITERAL("HTTP/1.1 100 Continue\r\n\r\n"));
        conn_dirty(c);
    }
}

static void take_data(struct http_conn *c, struct stream *s, struct bytes data)
{
    if (s->x.status != 0) {
        return;
    }
    struct weir_err err;
    const enum weir_status status = stream_take_body(s, c->loop->limits, data, &err);
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
    x->received_ns = c->loop->came_ns;
    x->body = (struct bytes){ s->body.data, s->body.size };
    if (x->status == 0) {
        stream_ask(s);
        s->handler->request(s->handler->context, x);
    }
}

static bool is_full(const struct http_conn *c)
{
    return c->stream_count >= c->loop->limits->pipelined_max || c->ahead_bytes > AHEAD_BYTES_MAX;
}

/* Gives bytes to the reader and follows its events until they are used up. */
static void line_feed(struct http_conn *c, struct bytes in)
{
    struct weir_err err;
    struct bytes data;
    while (c->state == CONN_OPEN) {
        if (c->line.reading == NULL && is_full(c)) {
            conn_pause(c, in);
            return;
        }
        if (c->line.reading == NULL) {
            if (in.size == 0) {
                return;
            }
            c->line.reading = begin_stream(c);
            if (c->line.reading == NULL) {
                conn_close(c);
                return;
            }
        }
        struct stream *s = c->line.reading;
        switch (http1_next(&c->line.http1, &s->x, &in, &data, &err)) {
        case HTTP1_MORE:
            if (!http1_begun(&c->line.http1)) {
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

/* A large body is read straight to where it belongs. */
static bool line_place(const struct http_conn *c, char **at, size_t *room)
{
    const struct stream *s = c->line.reading;
    return s != NULL && s->x.status == 0 && body_place(&s->body, at, room);
}

/* True when every answer of the line is there, so that only sending remains. */
static bool all_finished(const struct http_conn *c)
{
    for (struct list_node *node = list_first(&c->streams); node != NULL;
         node = list_next(&c->streams, node)) {
        if (!stream_at(node)->x.finished) {
            return false;
        }
    }
    return true;
}

/* That is how clients hang up, so whatever is unfinished is canceled; but answers that are ready
 * still go out, for those that only shut their side. */
static void line_ended(struct http_conn *c)
{
    drop_reading(c);
    if (list_empty(&c->streams) || !all_finished(c)) {
        conn_close(c);
        return;
    }
    stream_at(c->streams.head.prev)->last = true;
    if (c->state == CONN_OPEN) {
        conn_move(c, CONN_LAST);
    }
    uv_read_stop(&c->uv.stream);
    conn_dirty(c);
}

/* The pieces of the line that may leave now, in order. */
static unsigned line_gather(struct http_conn *c, uv_buf_t *bufs, unsigned bufs_max,
                            size_t bytes_max, size_t *bytes)
{
    unsigned count = 0;
    *bytes = 0;
    for (struct list_node *node = list_first(&c->streams); node != NULL;
         node = list_next(&c->streams, node)) {
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

/* Ends streams at the front that have said everything.  False when the connection is over. */
static bool line_settle(struct http_conn *c)
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
        retire(c, s);
        if (last) {
            conn_linger(c);
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
static bool line_advance(struct http_conn *c, size_t size)
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
        if (s->pieces == NULL && !line_settle(c)) {
            return false;
        }
    }
    return true;
}

/* Tells the handler about every answer that nobody waits for any more.  A handler may finish
 * any exchange from within, hence always from the front. */
static void line_cancel(struct http_conn *c)
{
    struct list_node *node = list_first(&c->streams);
    while (node != NULL) {
        struct stream *s = stream_at(node);
        struct exchange *x = &s->x;
        const bool known = s->requested || x->status != 0;
        if (x->canceled) {
            node = list_next(&c->streams, node);
            continue;
        }
        if (x->finished || !known) {
            retire(c, s);
        } else {
            x->canceled = true;
            s->handler->canceled(s->handler->context, x);
        }
        node = list_first(&c->streams);
    }
}

/* Half empty: so that a full line is not looked at for each of its answers. */
static bool has_room(const struct http_conn *c)
{
    return c->stream_count <= c->loop->limits->pipelined_max / 2 &&
           c->ahead_bytes <= AHEAD_BYTES_MAX;
}

static void line_flushed(struct http_conn *c)
{
    if (!c->writing && front(c) != NULL && front(c)->dropped) {
        tell_drained(front(c));
    }
    if (c->paused && c->state == CONN_OPEN && has_room(c)) {
        conn_resume_later(c);
    }
}

static uint64_t line_deadline_ns(const struct http_conn *c)
{
    const struct limits *limits = c->loop->limits;
    const struct stream *s = c->line.reading;
    if (s == NULL) {
        return CLOCK_NEVER;
    }
    return s->headed ? clock_add(c->read_ns, limits->body_timeout_ns)
                     : clock_add(s->x.begun_ns, limits->header_timeout_ns);
}

static void line_overdue(struct http_conn *c)
{
    refuse(c, WEIR_ESTALLED,
           c->line.reading->headed ? "request body: no byte arrived within the body time-out"
                                   : "request header: not complete within the header time-out");
}

/* Makes the last answer due the last.  Who asked a moment ago may have asked again: that will be
 * the last. */
static void line_drain(struct http_conn *c)
{
    if (c->line.reading != NULL) {
        return;
    }
    if (list_empty(&c->streams)) {
        if (!conn_is_fresh(c)) {
            conn_close(c);
        }
        return;
    }
    stream_at(c->streams.head.prev)->last = true;
    conn_move(c, CONN_LAST);
    conn_dirty(c);
}

static void line_release(struct http_conn *c)
{
    http1_finish(&c->line.http1);
}

void line_refuse(struct http_conn *c, enum weir_status status, const char *text)
{
    c->line.reading = begin_stream(c);
    if (c->line.reading == NULL) {
        conn_close(c);
        return;
    }
    refuse(c, status, text);
}

/* --- Answers --- */

static void line_begin(struct stream *s, const char *content_type, uint64_t body_size)
{
    struct exchange *x = &s->x;
    s->chunked = x->streaming && x->version != HTTP_1_0 && !answer_bodyless(x->status);
    /* Where chunks are unknown, only the end of the connection can end a stream. */
    s->last = s->last || (x->streaming && !s->chunked && !s->bodyless);
    const struct http1_answer answer = {
        .status = x->status,
        .content_type = content_type,
        .body_size = x->streaming ? HTTP_STREAM : body_size,
        .date = net_date(x->conn->net),
        .fields = s->fields,
        .close = s->last,
        .keep_alive_1_0 = s->keep_alive_1_0,
        .chunked = s->chunked,
    };
    struct bytes head;
    if (http1_head(&x->arena, &answer, &head)) {
        stream_push(s, head);
    } else {
        s->broken = true;
    }
    conn_dirty(x->conn);
}

static void line_changed(struct stream *s)
{
    conn_dirty(s->x.conn);
}

/* The last chunk, and the trailers behind it. */
static void push_end(struct stream *s)
{
    stream_push(s, s->chunk_sent ? BYTES_LITERAL("\r\n0\r\n") : BYTES_LITERAL("0\r\n"));
    for (const struct answer_field *field = s->trailers; field != NULL; field = field->next) {
        stream_push(s, field->name);
        stream_push(s, BYTES_LITERAL(": "));
        stream_push(s, field->value);
        stream_push(s, BYTES_LITERAL("\r\n"));
    }
    stream_push(s, BYTES_LITERAL("\r\n"));
}

static void line_finish(struct stream *s)
{
    if (s->x.canceled) {
        retire(s->x.conn, s);
        return;
    }
    if (s->chunked && !s->bodyless) {
        push_end(s);
    }
    conn_dirty(s->x.conn);
}

static void line_consume(struct stream *s, size_t size)
{
    (void)s;
    (void)size;
}

const struct protocol line_protocol = {
    .place = line_place,
    .feed = line_feed,
    .ended = line_ended,
    .settle = line_settle,
    .gather = line_gather,
    .advance = line_advance,
    .flushed = line_flushed,
    .deadline_ns = line_deadline_ns,
    .overdue = line_overdue,
    .drain = line_drain,
    .cancel = line_cancel,
    .release = line_release,
    .begin = line_begin,
    .changed = line_changed,
    .finish = line_finish,
    .consume = line_consume,
};
