/*
 * From frames to exchanges.
 *
 * A header's fields are copied into the exchange's arena as they are decoded, and the whole is judged at
 * its end: so a header beyond the limits costs no memory, and its client is told rather than cut off.
 * `:authority` becomes the field "host", so that handlers need not know which version asked.
 *
 * The connection's window is given back as bytes arrive, a stream's when they are used: one stream that is held back
 * does not hold the others.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "net/http2.h"
#include "net/target.h"

#define FIELDS_FIRST 16   /* Room for so many fields at first. */
#define FIELD_OVERHEAD 32 /* Bytes counted per field beside its text, RFC 9113, section 6.5.2. */
#define FRAME_BYTES_FIRST \
    16384 /* That clients may send in one frame, as long as they send little. */
#define FRAME_BYTES_LARGE 1048576
#define STREAMS_FREE 64          /* More on one connection count as bodies do, and so do */
#define HEAD_BYTES_FREE 4096     /* longer headers; */
#define HEADS_BYTES_MAX 16777216 /* all of a connection's have a limit of their own. */
#define KEEP_FIRST 4             /* So many headers unlike the one before are remembered, */
#define KEEP_EVERY 64            /* of so many. */
#define HEAD_EXCESS_MAX 1048576 /* Of a header beyond its limit that is still read, to answer it. */

/* A callback's answer when the connection was closed from within. */
static int after(const struct http_conn *c)
{
    return c->state == CONN_GONE ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static bool is_request(const nghttp2_frame *frame)
{
    return frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST;
}

/* Streams whose client has gone count until their handlers let go; and when there are many, so does their
 * memory. */
static bool may_begin(const struct http2 *h, uint64_t *held_bytes)
{
    const struct http_conn *c = h->conn;
    const struct limits *limits = c->loop->limits;
    if (c->stream_count >= 2 * limits->streams_max || h->heads_bytes > HEADS_BYTES_MAX) {
        return false;
    }
    if (c->stream_count < STREAMS_FREE) {
        return true;
    }
    if (body_try_hold(sizeof(struct stream), limits, NULL) != WEIR_OK) {
        return false;
    }
    *held_bytes = sizeof(struct stream);
    return true;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct http2 *h = user;
    struct http_conn *c = h->conn;
    if (!is_request(frame)) {
        return 0;
    }
    uint64_t held_bytes = 0;
    http2_scan_opened(&h->scan, frame->hd.stream_id);
    struct stream *s = may_begin(h, &held_bytes) ? stream_create(c->net) : NULL;
    if (s == NULL) {
        if (held_bytes > 0) {
            body_let_go(held_bytes);
        }
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                  NGHTTP2_REFUSED_STREAM);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (c->stream_count == 0) {
        h->scan_ns = c->loop->now_ns; /* Looked at soon. */
    }
    conn_adopt(c, s);
    s->id = frame->hd.stream_id;
    s->held_bytes = held_bytes;
    s->x.version = HTTP_2;
    s->moved_ns = c->loop->now_ns;
    nghttp2_session_set_stream_user_data(session, s->id, s);
    h->latest = s;
    s->matching = h->head != NULL;
    s->recalled = http2_recall_has(&h->recall, s->id);
    if (s->recalled) {
        assert(h->head != NULL);
        s->matched = h->head->list_count;
        s->head_bytes = h->recall.head_bytes;
        s->announced = h->recall.announces;
        s->owed = h->head->facts.body_size;
        h->heads_bytes += s->head_bytes;
    }
    head_draft_begin(&h->draft);
    return 0;
}

/* Copies a field into the arena.  False when memory is out. */
static bool add_field(struct stream *s, struct bytes name, struct bytes value)
{
    struct exchange *x = &s->x;
    struct http_field *fields = (struct http_field *)(uintptr_t)x->fields;
    if (x->field_count == s->field_room) {
        const uint32_t room = x->field_count == 0 ? FIELDS_FIRST : 2 * x->field_count;
        fields = arena_try_alloc(&x->arena, room * sizeof(*fields));
        if (fields == NULL) {
            return false;
        }
        if (x->field_count > 0) {
            memcpy(fields, x->fields, x->field_count * sizeof(*fields));
        }
        x->fields = fields;
        s->field_room = room;
    }
    char *text = arena_try_aligned(&x->arena, name.size + value.size + 1, 1);
    if (text == NULL) {
        return false;
    }
    memcpy(text, name.data, name.size);
    memcpy(text + name.size, value.data, value.size);
    fields[x->field_count++] =
        (struct http_field){ { text, name.size }, { text + name.size, value.size } };
    return true;
}

/* `:path` waits in x->target until the method is known for certain. */
static bool add_pseudo(struct stream *s, struct bytes name, struct bytes value)
{
    if (bytes_equal(name, BYTES_LITERAL(":path"))) {
        char *copy = arena_try_strndup(&s->x.arena, value.data, value.size);
        s->x.target = (struct bytes){ copy, value.size };
        return copy != NULL;
    }
    if (bytes_equal(name, BYTES_LITERAL(":method"))) {
        struct weir_err err;
        return target_method(value, &s->x.method, &err) == WEIR_OK;
    }
    if (bytes_equal(name, BYTES_LITERAL(":authority"))) {
        s->authority = true;
        return add_field(s, BYTES_LITERAL("host"), value);
    }
    return true;
}

/* False when memory is out. */
static bool take_field(struct http2 *h, struct stream *s, struct bytes name, struct bytes value)
{
    head_draft_add(&h->draft, name, value);
    if (s->authority && bytes_equal(name, BYTES_LITERAL("host"))) {
        return true; /* RFC 9113, section 8.3.1: `:authority` goes before it. */
    }
    return name.size > 0 && name.data[0] == ':' ? add_pseudo(s, name, value)
                                                : add_field(s, name, value);
}

/* The header is another one than the one before after all.  False when memory is out. */
static bool stop_matching(struct http2 *h, struct stream *s)
{
    s->matching = false;
    for (uint32_t i = 0; i < s->matched; i++) {
        if (!take_field(h, s, h->head->list[i].name, h->head->list[i].value)) {
            return false;
        }
    }
    return true;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name_data,
                     size_t name_size, const uint8_t *value_data, size_t value_size, uint8_t flags,
                     void *user)
{
    (void)session;
    (void)flags;
    struct http2 *h = user;
    struct stream *s = http2_stream(h, frame->hd.stream_id);
    if (s == NULL) {
        return 0;
    }
    const struct limits *limits = h->conn->loop->limits;
    const struct bytes name = { (const char *)name_data, name_size };
    const struct bytes value = { (const char *)value_data, value_size };
    const uint64_t size = name_size + value_size + FIELD_OVERHEAD;
    if (!is_request(frame)) { /* Trailers: read over. */
        s->trailer_bytes += size;
        return s->trailer_bytes <= limits->header_bytes_max ? 0
                                                            : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (s->recalled) {
        return 0;
    }
    s->head_bytes += size;
    h->heads_bytes += size;
    if (s->matching && head_has(h->head, s->matched, name, value)) {
        s->matched++;
        return 0;
    }
    if (s->matching && !stop_matching(h, s)) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (s->head_bytes > limits->header_bytes_max || s->x.field_count >= limits->header_fields_max) {
        s->oversized = true;
        if (s->head_bytes > limits->header_bytes_max + HEAD_EXCESS_MAX) {
            http2_terminate(h, NGHTTP2_ENHANCE_YOUR_CALM);
        }
        return 0;
    }
    return take_field(h, s, name, value) ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* A field that no HTTP allows: the library would pass it over, but a request is either good or not. */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame,
                             const uint8_t *name, size_t name_size, const uint8_t *value,
                             size_t value_size, uint8_t flags, void *user)
{
    (void)session;
    (void)frame;
    (void)name;
    (void)name_size;
    (void)value;
    (void)value_size;
    (void)flags;
    (void)user;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

void http2_refuse(struct stream *s, enum weir_status status, const char *text)
{
    if (s->x.status == 0) {
        http_count_refusal(status);
        exchange_fail(&s->x, status, text, weir_status_http(status) == 503);
    }
}

static enum weir_status judge_head(struct stream *s, uint64_t *body_size, bool *expects,
                                   struct weir_err *err)
{
    struct exchange *x = &s->x;
    const struct limits *limits = x->loop->limits;
    const uint64_t held = s->head_bytes > HEAD_BYTES_FREE ? s->head_bytes : 0;
    if (s->oversized) {
        return err_set(err, WEIR_EHEADERS, "request header: more than %llu bytes or %llu fields",
                       (unsigned long long)limits->header_bytes_max,
                       (unsigned long long)limits->header_fields_max);
    }
    if (held > 0) {
        const enum weir_status status = body_try_hold(held, limits, err);
        if (status != WEIR_OK) {
            return status;
        }
        s->held_bytes += held;
    }
    const struct bytes host = exchange_field(x, "host");
    if (!target_is_host(host)) {
        return err_set(err, WEIR_EINVAL, "Host '%.*s': expected HOST or HOST:PORT",
                       (int)(host.size < 64 ? host.size : 64), host.data);
    }
    const struct bytes length = exchange_field(x, "content-length");
    if (length.data != NULL && !bytes_to_u64(length, INT64_MAX, body_size)) {
        return err_set(err, WEIR_EINVAL, "Content-Length: expected a whole number");
    }
    *expects = bytes_equal_nocase(exchange_field(x, "expect"), BYTES_LITERAL("100-continue"));
    return target_read(x, x->target, err);
}

/* Remembers a header that was found good; but seldom for clients whose headers are never the same. */
static void keep_head(struct http2 *h, const struct stream *s, uint64_t body_size, bool expects)
{
    if (h->heads_unlike++ % KEEP_EVERY >= KEEP_FIRST || s->head_bytes > HEAD_BYTES_FREE) {
        return;
    }
    head_release(h->head);
    h->head = head_create_drafted(&s->x, &h->draft);
    if (h->head != NULL) {
        h->head->facts.body_size = body_size;
        h->head->facts.expects_continue = expects;
    }
}

static void learn(struct http2 *h, const struct stream *s)
{
    if (!h->recall.known) {
        http2_recall_learn(&h->recall, s->id, s->head_bytes,
                           exchange_field(&s->x, "content-length").data != NULL);
    }
}

/* The header is complete.  WEIR_OK: it is good. */
static enum weir_status end_head(struct http2 *h, struct stream *s, uint64_t *body_size,
                                 bool *expects, struct weir_err *err)
{
    if (s->matching && s->matched == h->head->list_count && head_share(h->head, &s->x)) {
        h->heads_unlike = 0;
        learn(h, s);
        *body_size = h->head->facts.body_size;
        *expects = h->head->facts.expects_continue;
        return WEIR_OK;
    }
    if (s->matching && !stop_matching(h, s)) {
        return err_nomem(err, "a request header", s->head_bytes);
    }
    const enum weir_status status = judge_head(s, body_size, expects, err);
    if (status == WEIR_OK) {
        keep_head(h, s, *body_size, *expects);
    }
    return status;
}

static void take_head(struct http2 *h, struct stream *s, bool last)
{
    static const nghttp2_nv go_on = { (uint8_t *)(uintptr_t) ":status",
                                      (uint8_t *)(uintptr_t) "100", 7, 3, 0 };
    struct exchange *x = &s->x;
    struct weir_err err;
    uint64_t body_size = 0;
    bool expects = false;
    const enum weir_status status = end_head(h, s, &body_size, &expects, &err);
    if (status != WEIR_OK) {
        http2_refuse(s, status, err.text);
        return;
    }
    s->headed = true;
    x->body_size = body_size;
    s->handler->head(s->handler->context, x);
    if (x->status != 0) {
        return;
    }
    if (body_size > x->body_bytes_max) {
        char text[128];
        (void)snprintf(text, sizeof(text),
                       "request body: Content-Length %llu, at most %llu bytes are allowed",
                       (unsigned long long)body_size, (unsigned long long)x->body_bytes_max);
        http2_refuse(s, WEIR_ETOOBIG, text);
        return;
    }
    stream_begin_body(s, body_size);
    if (expects && !last &&
        nghttp2_submit_headers(h->session, NGHTTP2_FLAG_NONE, s->id, NULL, &go_on, 1, NULL) == 0) {
        conn_dirty(h->conn);
    }
}

static void take_end(struct stream *s)
{
    struct exchange *x = &s->x;
    s->complete = true;
    x->received_ns = x->loop->came_ns;
    x->body = (struct bytes){ s->body.data, s->body.size };
    if (s->headed && !x->finished && (x->status == 0 || x->incremental)) {
        stream_ask(s);
        s->handler->request(s->handler->context, x);
    }
}

/* Who fills frames sends tensors, and may send them in fewer. */
static void allow_large_frames(struct http2 *h)
{
    const nghttp2_settings_entry setting = { NGHTTP2_SETTINGS_MAX_FRAME_SIZE, FRAME_BYTES_LARGE };
    if (!h->large && nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, &setting, 1) == 0) {
        h->large = true;
    }
}

/* More of the body has come.  False: the stream is broken off, as it is not what its header says; where the session
 * knows the header, it has seen to that. */
static bool is_as_announced(struct stream *s, size_t size, bool last)
{
    if (!s->announced || (size <= s->owed && (!last || size == s->owed))) {
        s->owed -= s->announced ? size : 0;
        return true;
    }
    if (!s->reset) {
        http2_reset(s, NGHTTP2_PROTOCOL_ERROR);
        http2_take_fault(s->x.conn->http2);
    }
    return false;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct http2 *h = user;
    if (frame->hd.type == NGHTTP2_SETTINGS) {
        h->settled = true;
        return 0;
    }
    if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0 && h->noticed) {
        h->heard = true;
        const int32_t last = nghttp2_session_get_last_proc_stream_id(session);
        nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
        return 0;
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) {
        return 0;
    }
    struct stream *s = http2_stream(h, frame->hd.stream_id);
    if (s == NULL) {
        return 0;
    }
    const bool last = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (frame->hd.type == NGHTTP2_DATA && frame->hd.length >= FRAME_BYTES_FIRST) {
        allow_large_frames(h);
    }
    if (!is_as_announced(s, 0, last)) {
        return 0;
    }
    if (is_request(frame)) {
        take_head(h, s, last);
    }
    /* Nothing here can have ended `s`: the session closes streams only between its callbacks. */
    if (last && h->conn->state == CONN_OPEN) {
        take_end(s);
    }
    return after(h->conn);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t size, void *user)
{
    struct http2 *h = user;
    struct stream *s = http2_stream(h, id);
    nghttp2_session_consume_connection(session, size);
    if (s == NULL) {
        return 0;
    }
    if (!is_as_announced(s, size, false)) {
        return 0;
    }
    const struct bytes bytes = { (const char *)data, size };
    s->moved_ns = h->conn->loop->now_ns;
    s->ending = (flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (s->headed && s->x.incremental && !s->x.finished) {
        s->handler->data(s->handler->context, &s->x, bytes);
        return after(h->conn);
    }
    nghttp2_session_consume_stream(session, id, size);
    if (s->x.status != 0) {
        return 0;
    }
    struct weir_err err;
    const enum weir_status status = stream_take_body(s, h->conn->loop->limits, bytes, &err);
    if (status != WEIR_OK) {
        http2_refuse(s, status, err.text);
    }
    return 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int code,
                            void *user)
{
    (void)session;
    (void)frame;
    (void)code;
    http2_take_fault(user);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    struct http2 *h = user;
    struct stream *s = http2_stream(h, id);
    (void)session;
    if (s == NULL) {
        return 0;
    }
    const uint64_t now_ns = h->conn->loop->came_ns; /* Both times of what is read together. */
    const bool whole =
        code == NGHTTP2_NO_ERROR && http2_is_said(s) && s->framed == s->x.unsent_bytes;
    if (!whole && !s->reset && !http2_guard_reset(&h->guard, s->x.begun_ns, now_ns)) {
        http2_terminate(h, NGHTTP2_ENHANCE_YOUR_CALM);
    }
    http2_scan_ended(&h->scan, id, s->reset);
    s->closed = true;
    s->id = 0;
    list_remove(&s->ready);
    if (whole || s->x.finished || !http2_is_known(s)) {
        http2_retire(s); /* Now, or when its handler is done. */
    } else {
        s->x.canceled = true;
        s->handler->canceled(s->handler->context, &s->x);
    }
    return after(h->conn);
}

void http2_set_request_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
}
