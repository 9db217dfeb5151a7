/*
 * From answers to frames, and the queue in which they leave.
 *
 * An answer is given to the session when the connection's turn to write comes, not when it begins: by then a
 * small one is complete, and goes as header and end in one frame.
 */
#include <string.h>

#include "net/http2.h"
#include "util/mem.h"

#define FRAME_HEAD_BYTES 9
#define ANSWER_FIELDS_MAX 64 /* Beside status, type, length and date. */

/* --- The queue --- */

static char *text_room(struct http2 *h, size_t size)
{
    if (h->text == NULL) {
        struct http_net *net = h->conn->net;
        h->text = net->spare_text;
        net->spare_text = NULL;
        if (h->text == NULL) {
            h->text = mem_try_alloc(HTTP2_TEXT_BYTES);
        }
        h->text_size = 0;
    }
    return h->text == NULL || size > HTTP2_TEXT_BYTES - h->text_size ? NULL
                                                                     : h->text + h->text_size;
}

/* Behind what is in the queue; `text` bytes that follow one another are one segment. */
static void push_segment(struct http2 *h, const char *data, size_t size, struct stream *s)
{
    struct http2_segment *last = h->count > h->first ? &h->segments[h->count - 1] : NULL;
    if (s == NULL && last != NULL && last->stream == NULL) {
        last->size += size;
        return;
    }
    h->segments[h->count++] = (struct http2_segment){ data, size, s };
    if (s != NULL) {
        s->queued++;
        s->framed += size;
    }
}

/* The room was written to. */
static void took_room(struct http2 *h, const char *room, size_t size)
{
    h->text_size += size;
    push_segment(h, room, size, NULL);
}

static void release_text(struct http2 *h)
{
    h->first = 0;
    h->count = 0;
    if (h->text != NULL && h->conn->net->spare_text == NULL) {
        h->conn->net->spare_text = h->text;
    } else {
        mem_free(h->text);
    }
    h->text = NULL;
}

/* Bytes of a stream's pieces went: with the socket, or copied. */
static void advance_stream(struct stream *s, size_t size)
{
    const bool had_unsent = s->x.unsent_bytes > 0;
    s->moved_ns = s->x.loop->now_ns;
    stream_advance(s, size);
    if (had_unsent && s->x.unsent_bytes == 0 && s->x.streaming && !s->x.finished && !s->closed &&
        s->handler->drained != NULL) {
        s->handler->drained(s->handler->context, &s->x);
    }
}

void http2_took(struct http2 *h, size_t size)
{
    while (size > 0) {
        struct http2_segment *segment = &h->segments[h->first];
        const size_t part = segment->size < size ? segment->size : size;
        struct stream *s = segment->stream;
        segment->data += part;
        segment->size -= part;
        size -= part;
        const bool over = segment->size == 0;
        h->first += over;
        if (s == NULL) {
            continue;
        }
        s->framed -= part;
        s->queued -= over;
        advance_stream(s, part);
        if (s->queued == 0 && s->closed) {
            http2_retire(s);
        }
    }
    if (h->first == h->count) {
        release_text(h);
    }
}

void http2_drop_queue(struct http2 *h)
{
    for (uint32_t i = h->first; i < h->count; i++) {
        struct stream *s = h->segments[i].stream;
        if (s != NULL) {
            s->queued = 0;
        }
    }
    release_text(h);
    h->frame_left = 0;
}

/* --- The session's questions --- */

/* Unframed bytes of the stream, in at most HTTP2_FRAME_PIECES_MAX pieces. */
static size_t available(const struct stream *s, size_t size_max)
{
    size_t skip = (size_t)s->framed;
    size_t size = 0;
    unsigned count = 0;
    for (const struct piece *piece = s->pieces;
         piece != NULL && size < size_max && count < HTTP2_FRAME_PIECES_MAX; piece = piece->next) {
        const size_t skipped = skip < piece->bytes.size ? skip : piece->bytes.size;
        skip -= skipped;
        size += piece->bytes.size - skipped;
        count += piece->bytes.size > skipped;
    }
    return size < size_max ? size : size_max;
}

static nghttp2_nv pair(struct bytes name, struct bytes value, uint8_t flags)
{
    return (nghttp2_nv){ (uint8_t *)(uintptr_t)name.data, (uint8_t *)(uintptr_t)value.data,
                         name.size, value.size, (uint8_t)(flags | NGHTTP2_NV_FLAG_NO_COPY_NAME) };
}

/* Fields of an answer, their names in lower case.  They live as long as the stream. */
static size_t put_fields(nghttp2_nv *out, const struct answer_field *field)
{
    size_t count = 0;
    for (; field != NULL && count < ANSWER_FIELDS_MAX; field = field->next) {
        char *name = (char *)(uintptr_t)field->name.data;
        for (size_t i = 0; i < field->name.size; i++) {
            name[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + 'a' - 'A') : name[i];
        }
        out[count++] = pair(field->name, field->value, NGHTTP2_NV_FLAG_NO_COPY_VALUE);
    }
    return count;
}

static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t size_max,
                       uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)buffer;
    (void)user;
    struct stream *s = source->ptr;
    const size_t size = available(s, size_max);
    const bool all = s->framed + size == s->x.unsent_bytes;
    const bool said = http2_is_said(s);
    if (s->broken || (size == 0 && !said)) {
        s->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (!all || !said) {
        return (ssize_t)size;
    }
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (s->trailers != NULL) {
        nghttp2_nv fields[ANSWER_FIELDS_MAX];
        const size_t count = put_fields(fields, s->trailers);
        if (nghttp2_submit_trailer(session, id, fields, count) != 0) {
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    }
    return (ssize_t)size;
}

/* Lends the next `size` unframed bytes. */
static void lend(struct http2 *h, struct stream *s, size_t size)
{
    size_t skip = (size_t)s->framed;
    for (struct piece *piece = s->pieces; size > 0; piece = piece->next) {
        const size_t skipped = skip < piece->bytes.size ? skip : piece->bytes.size;
        const size_t left = piece->bytes.size - skipped;
        const size_t part = left < size ? left : size;
        skip -= skipped;
        size -= part;
        if (part > 0) {
            push_segment(h, piece->bytes.data + skipped, part, s);
        }
    }
}

/* A small payload is copied, and its pieces are done with, unless others of them are still lent. */
static bool is_copied(const struct stream *s, size_t size)
{
    return size <= HTTP2_COPY_BYTES_MAX && s->queued == 0 && !s->x.streaming;
}

static void copy_pieces(struct stream *s, char *to, size_t size)
{
    s->moved_ns = s->x.loop->now_ns;
    while (size > 0) {
        const struct bytes front = s->pieces->bytes;
        const size_t part = front.size < size ? front.size : size;
        memcpy(to, front.data, part);
        to += part;
        size -= part;
        stream_advance(s, part);
    }
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                        size_t size, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)frame;
    struct http2 *h = user;
    struct stream *s = source->ptr;
    const size_t text_size = FRAME_HEAD_BYTES + (is_copied(s, size) ? size : 0);
    char *text =
        HTTP2_SEGMENTS_MAX - h->count < HTTP2_FRAME_PIECES_MAX + 1 ? NULL : text_room(h, text_size);
    if (text == NULL) {
        return h->count == h->first ? NGHTTP2_ERR_CALLBACK_FAILURE : NGHTTP2_ERR_WOULDBLOCK;
    }
    memcpy(text, head, FRAME_HEAD_BYTES);
    if (text_size > FRAME_HEAD_BYTES) {
        copy_pieces(s, text + FRAME_HEAD_BYTES, size);
    }
    took_room(h, text, text_size);
    if (text_size == FRAME_HEAD_BYTES) {
        lend(h, s, size);
    }
    http2_guard_sent(&h->guard, size);
    return 0;
}

static ssize_t on_length(nghttp2_session *session, uint8_t type, int32_t id, int32_t session_window,
                         int32_t stream_window, uint32_t frame_max, void *user)
{
    (void)session;
    (void)type;
    (void)id;
    (void)user;
    int64_t size = HTTP2_FRAME_BYTES_MAX;
    size = session_window < size ? session_window : size;
    size = stream_window < size ? stream_window : size;
    return (ssize_t)(frame_max < size ? frame_max : size);
}

/* An answer that ended before its request did: the client need not send the rest. */
static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    if ((frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) ||
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) {
        return 0;
    }
    struct stream *s = http2_stream(user, frame->hd.stream_id);
    if (s != NULL && !s->complete && !s->reset) {
        s->reset = true;
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
    }
    return 0;
}

void http2_set_answer_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, on_length);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
}

/* --- Answers --- */

static bool has_body(const struct stream *s)
{
    return !s->bodyless && (s->pieces != NULL || !s->x.finished || s->trailers != NULL);
}

static int submit(struct http2 *h, struct stream *s)
{
    nghttp2_nv fields[4 + ANSWER_FIELDS_MAX];
    const int code = s->x.status;
    const char status[3] = { (char)('0' + code / 100), (char)('0' + code / 10 % 10),
                             (char)('0' + code % 10) };
    char length[ANSWER_DIGITS_MAX];
    size_t count = 0;
    const struct bytes type = bytes_of(s->content_type);
    fields[count++] = pair(BYTES_LITERAL(":status"), (struct bytes){ status, sizeof(status) }, 0);
    if (type.data != NULL) {
        fields[count++] = pair(BYTES_LITERAL("content-type"), type, NGHTTP2_NV_FLAG_NO_COPY_VALUE);
    }
    if (s->body_size < HTTP_BRIEF && !answer_bodyless(s->x.status)) {
        const size_t size = (size_t)(answer_put_u64(length, s->body_size) - length);
        fields[count++] = pair(BYTES_LITERAL("content-length"), (struct bytes){ length, size }, 0);
    }
    fields[count++] = pair(BYTES_LITERAL("date"), bytes_of(net_date(h->conn->net)),
                           NGHTTP2_NV_FLAG_NO_COPY_VALUE);
    count += put_fields(fields + count, s->fields);
    const nghttp2_data_provider body = { .source.ptr = s, .read_callback = on_read };
    s->submitted = true;
    s->moved_ns = h->conn->loop->now_ns;
    return nghttp2_submit_response(h->session, s->id, fields, count, has_body(s) ? &body : NULL);
}

void http2_ready(struct stream *s)
{
    if (!s->closed && !list_linked(&s->ready)) {
        list_append(&s->x.conn->http2->ready, &s->ready);
    }
    conn_dirty(s->x.conn);
}

/* Tells the session what is new of a stream. */
static int announce(struct http2 *h, struct stream *s)
{
    if (s->broken) {
        const uint32_t code = s->x.canceled ? NGHTTP2_CANCEL : NGHTTP2_INTERNAL_ERROR;
        if (s->reset) {
            return 0;
        }
        s->reset = true;
        return nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, s->id, code);
    }
    if (s->x.status != 0 && !s->submitted) {
        return submit(h, s);
    }
    if (s->deferred) {
        s->deferred = false;
        s->moved_ns = h->conn->loop->now_ns;
        return nghttp2_session_resume_data(h->session, s->id);
    }
    return 0;
}

static bool announce_ready(struct http2 *h)
{
    for (struct list_node *node = list_pop(&h->ready); node != NULL; node = list_pop(&h->ready)) {
        const int failed = announce(h, list_entry(node, struct stream, ready));
        if (failed != 0 && nghttp2_is_fatal(failed)) {
            return false;
        }
    }
    return true;
}

/* Moves the session's bytes into `text`.  False when they have no room there now. */
static bool copy_frame(struct http2 *h)
{
    while (h->frame_left > 0) {
        char *text = h->count == HTTP2_SEGMENTS_MAX ? NULL : text_room(h, 1);
        if (text == NULL) {
            return false;
        }
        const size_t room = HTTP2_TEXT_BYTES - h->text_size;
        const size_t part = h->frame_left < room ? h->frame_left : room;
        memcpy(text, h->frame, part);
        took_room(h, text, part);
        h->frame += part;
        h->frame_left -= part;
    }
    return true;
}

bool http2_fill(struct http2 *h)
{
    while (copy_frame(h)) {
        if (!announce_ready(h)) {
            return false;
        }
        const ssize_t size = nghttp2_session_mem_send(h->session, &h->frame);
        if (size < 0) {
            return false;
        }
        if (size == 0) {
            return true;
        }
        h->frame_left = (size_t)size;
    }
    return h->text != NULL;
}
