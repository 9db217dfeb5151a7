/*
 * The session of a connection: made by its first bytes, fed, drained and freed.
 */
#include "net/http2.h"

#include <assert.h>
#include <stdlib.h>

#include "util/mem.h"

#define WINDOW_STREAMS 8 /* A connection's window is that of so many streams. */
#define WINDOW_MAX 0x7fffffff
#define PLACE_BYTES_MIN 4096 /* Less is as well copied. */
#define SCANS 4              /* Looks at the streams per shortest time-out. */
#define RESETS_UNLIMITED (UINT64_C(1) << 40)
#define QUEUE_FREE 4096 /* Frames that may wait to be sent, beside two per stream. */

void http2_retire(struct stream *s)
{
    if (s->closed && s->queued == 0 && (s->x.finished || !http2_is_known(s))) {
        struct http2 *h = s->x.conn->http2;
        list_remove(&s->ready);
        h->latest = h->latest == s ? NULL : h->latest;
        h->heads_bytes -= s->head_bytes;
        if (s->held_bytes > 0) {
            body_let_go(s->held_bytes);
        }
        conn_retire(s->x.conn, s);
    }
}

void http2_terminate(struct http2 *h, uint32_t code)
{
    nghttp2_session_terminate_session(h->session, code);
    conn_dirty(h->conn);
}

/* --- Bytes --- */

/* The data of a large frame can be read to where its handler wants it; of smaller ones one read
 * brings several. */
static bool http2_place(const struct http_conn *c, char **at, size_t *room)
{
    struct http2 *h = c->http2;
    const struct http2_scan *scan = &h->scan;
    if (scan->data_id == 0 || scan->size <= NET_READ_BYTES || scan->left < PLACE_BYTES_MIN) {
        return false;
    }
    struct stream *s = http2_stream(h, scan->data_id);
    if (s == NULL || !s->headed || !s->x.incremental || s->x.finished ||
        s->handler->place == NULL || !s->handler->place(s->handler->context, &s->x, at, room)) {
        return false;
    }
    *room = *room < scan->left ? *room : scan->left;
    return true;
}

static void http2_feed(struct http_conn *c, struct bytes in)
{
    struct http2 *h = c->http2;
    while (in.size > 0) {
        const size_t size = http2_scan(h, in);
        if (nghttp2_session_mem_recv(h->session, (const uint8_t *)in.data, size) < 0) {
            conn_close(c);
            return;
        }
        in.data += size;
        in.size -= size;
    }
    const uint64_t queue_max = QUEUE_FREE + 2 * c->loop->limits->streams_max;
    if (nghttp2_session_get_outbound_queue_size(h->session) > queue_max) {
        http2_terminate(h, NGHTTP2_ENHANCE_YOUR_CALM); /* It makes us talk, and does not listen. */
    }
    conn_dirty(c); /* Acknowledgements and windows. */
}

/* Nobody is left to read an answer. */
static void http2_ended(struct http_conn *c)
{
    conn_close(c);
}

static bool http2_settle(struct http_conn *c)
{
    (void)c;
    return true;
}

static unsigned http2_gather(struct http_conn *c, uv_buf_t *bufs, unsigned bufs_max,
                             size_t bytes_max, size_t *bytes)
{
    struct http2 *h = c->http2;
    unsigned count = 0;
    *bytes = 0;
    if (h->first == h->count && !http2_fill(h)) {
        conn_close(c);
        return 0;
    }
    for (uint32_t i = h->first; i < h->count && count < bufs_max && *bytes < bytes_max; i++) {
        const size_t room = bytes_max - *bytes;
        const struct http2_segment *segment = &h->segments[i];
        bufs[count].base = (char *)(uintptr_t)segment->data;
        bufs[count].len = segment->size < room ? segment->size : room;
        *bytes += bufs[count].len;
        count++;
    }
    return count;
}

static bool http2_advance(struct http_conn *c, size_t size)
{
    http2_took(c->http2, size);
    return c->state != CONN_GONE;
}

static void http2_flushed(struct http_conn *c)
{
    struct http2 *h = c->http2;
    if (h->noticed && h->heard && c->stream_count == 0) {
        h->noticed = false; /* Said once: saying it makes another turn. */
        http2_terminate(h, NGHTTP2_NO_ERROR);
    }
    if (c->state == CONN_OPEN && !c->writing && h->first == h->count &&
        nghttp2_session_want_read(h->session) == 0 && nghttp2_session_want_write(h->session) == 0) {
        conn_linger(c);
    }
}

/* --- Time-outs --- */

static uint64_t shortest_ns(const struct limits *limits)
{
    uint64_t ns = limits->header_timeout_ns;
    ns = limits->body_timeout_ns < ns ? limits->body_timeout_ns : ns;
    return limits->write_timeout_ns < ns ? limits->write_timeout_ns : ns;
}

/* Without streams the connection is idle, or its client does not even say how it is set, or that it
 * has heard that the loop drains. */
static uint64_t idle_until_ns(const struct http_conn *c)
{
    const struct limits *limits = c->loop->limits;
    const struct http2 *h = c->http2;
    const uint64_t timeout_ns = h->settled ? limits->idle_timeout_ns : limits->header_timeout_ns;
    if (h->scan_ns > c->idle_ns && h->scan_ns > c->net->drained_ns) {
        return clock_add(h->scan_ns, timeout_ns); /* It was told then. */
    }
    return conn_idle_until_ns(c, timeout_ns);
}

static uint64_t http2_deadline_ns(const struct http_conn *c)
{
    return c->stream_count == 0
               ? idle_until_ns(c)
               : clock_add(c->http2->scan_ns, shortest_ns(c->loop->limits) / SCANS);
}

void http2_reset(struct stream *s, uint32_t code)
{
    s->reset = true;
    nghttp2_submit_rst_stream(s->x.conn->http2->session, NGHTTP2_FLAG_NONE, s->id, code);
    conn_dirty(s->x.conn);
}

static void check_stream(struct stream *s, const struct limits *limits, uint64_t now_ns)
{
    struct exchange *x = &s->x;
    if (s->closed || s->reset) {
        return;
    }
    if (s->submitted && (x->unsent_bytes > 0 || x->finished)) {
        if (now_ns >= clock_add(s->moved_ns, limits->write_timeout_ns)) {
            http2_reset(s, NGHTTP2_CANCEL);
        }
        return;
    }
    if (s->complete || now_ns < clock_add(s->moved_ns, limits->body_timeout_ns)) {
        return;
    }
    if (x->status == 0 && !x->incremental) {
        http2_refuse(s, WEIR_ESTALLED, "request body: no byte arrived within the body time-out");
    } else if (x->expecting) {
        http2_reset(s, NGHTTP2_CANCEL);
    }
}

/* Looks at every stream; a header that is not complete holds up the connection, and ends it. */
static void http2_overdue(struct http_conn *c)
{
    const struct limits *limits = c->loop->limits;
    const uint64_t now_ns = c->loop->now_ns;
    c->http2->scan_ns = now_ns;
    if (c->stream_count == 0) { /* Told, so that a request which crosses it is made elsewhere. */
        http2_terminate(c->http2, NGHTTP2_NO_ERROR);
        return;
    }
    struct list_node *node = list_first(&c->streams);
    while (node != NULL) {
        struct stream *s = stream_at(node);
        node = list_next(&c->streams, node);
        if (!s->headed && s->x.status == 0 &&
            now_ns >= clock_add(s->x.begun_ns, limits->header_timeout_ns)) {
            http2_terminate(c->http2, NGHTTP2_ENHANCE_YOUR_CALM);
            return;
        }
        check_stream(s, limits, now_ns);
    }
}

/* --- The end --- */

/* Streams that cross the notice are still taken; the last one is told when the client's answer to a
 * PING shows that it has heard. */
static void http2_drain(struct http_conn *c)
{
    struct http2 *h = c->http2;
    if (c->stream_count == 0 && !conn_is_fresh(c)) {
        http2_terminate(h, NGHTTP2_NO_ERROR);
    } else if (!h->noticed) {
        h->noticed = true;
        nghttp2_submit_shutdown_notice(h->session);
        nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, NULL);
        conn_dirty(c);
    }
}

/* A handler may finish any exchange from within, hence always from the front. */
static void http2_cancel(struct http_conn *c)
{
    http2_drop_queue(c->http2);
    struct list_node *node = list_first(&c->streams);
    while (node != NULL) {
        struct stream *s = stream_at(node);
        s->closed = true;
        s->queued = 0;
        list_remove(&s->ready);
        if (s->x.canceled && !s->x.finished) {
            node = list_next(&c->streams, node);
            continue;
        }
        if (!s->x.finished && http2_is_known(s)) {
            s->x.canceled = true;
            s->handler->canceled(s->handler->context, &s->x);
        } else {
            http2_retire(s);
        }
        node = list_first(&c->streams);
    }
}

static void http2_release(struct http_conn *c)
{
    struct http2 *h = c->http2;
    nghttp2_session_del(h->session);
    head_release(h->head);
    mem_free(h->text);
    mem_free(h);
    c->http2 = NULL;
}

/* --- Answers --- */

static void http2_begin(struct stream *s, const char *content_type, uint64_t body_size)
{
    s->content_type = content_type;
    s->body_size = body_size;
    http2_ready(s);
}

static void http2_finish(struct stream *s)
{
    if (s->closed) {
        http2_retire(s);
    } else {
        http2_ready(s);
    }
}

static void http2_consume(struct stream *s, size_t size)
{
    if (!s->closed && !s->ending) {
        nghttp2_session_consume_stream(s->x.conn->http2->session, s->id, size);
        conn_dirty(s->x.conn);
    }
}

const struct protocol http2_protocol = {
    .place = http2_place,
    .feed = http2_feed,
    .ended = http2_ended,
    .settle = http2_settle,
    .gather = http2_gather,
    .advance = http2_advance,
    .flushed = http2_flushed,
    .deadline_ns = http2_deadline_ns,
    .overdue = http2_overdue,
    .drain = http2_drain,
    .cancel = http2_cancel,
    .release = http2_release,
    .begin = http2_begin,
    .changed = http2_ready,
    .finish = http2_finish,
    .consume = http2_consume,
};

/* --- The beginning --- */

static bool open_session(struct http2 *h)
{
    nghttp2_mem mem = http2_memory_of(&h->conn->net->http2_memory);
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    bool good = nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&option) == 0;
    if (good) {
        http2_set_request_callbacks(callbacks);
        http2_set_answer_callbacks(callbacks);
        nghttp2_option_set_no_auto_window_update(option, 1);
        nghttp2_option_set_no_closed_streams(option, 1);
        /* The library's limit ends channels whose deadlines expire; http2_guard_reset() takes its
         * place. */
        nghttp2_option_set_stream_reset_rate_limit(option, RESETS_UNLIMITED, RESETS_UNLIMITED);
        good = nghttp2_session_server_new3(&h->session, callbacks, h, option, &mem) == 0;
    }
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    return good;
}

static uint32_t window_of(uint64_t size)
{
    return (uint32_t)(size < WINDOW_MAX ? size : WINDOW_MAX);
}

static bool greet(struct http2 *h, const struct limits *limits)
{
    const uint32_t window = window_of(limits->stream_window);
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, window_of(limits->streams_max) },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, window_of(limits->header_bytes_max) },
    };
    const uint32_t whole = window_of((uint64_t)window * WINDOW_STREAMS);
    return nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings,
                                   sizeof(settings) / sizeof(settings[0])) == 0 &&
           nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0,
                                                 (int32_t)whole) == 0;
}

bool http2_open(struct http_conn *c)
{
    struct http2 *h = mem_try_zero(1, sizeof(*h));
    if (h == NULL) {
        return false;
    }
    h->conn = c;
    list_init(&h->ready);
    http2_scan_init(&h->scan);
    http2_guard_init(&h->guard, c->loop->now_ns);
    if (!open_session(h) || !greet(h, c->loop->limits)) {
        nghttp2_session_del(h->session);
        mem_free(h);
        return false;
    }
    c->http2 = h;
    c->protocol = &http2_protocol;
    return true;
}
