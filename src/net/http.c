/*
 * Exchanges: from their first byte to their last.
 *
 * Streams are recycled per loop, each with a block for its arena, so that a small request
 * allocates nothing.  An answer is a chain of pieces: its head, lent body bytes, chunk sizes; the
 * connection sends the chains of its line one after the other.
 */
#include "net/http.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "net/conn.h"
#include "net/head.h"
#include "net/http1.h"
#include "net/protocol.h"
#include "net/stream.h"
#include "util/json.h"
#include "util/mem.h"

#define SPARE_MAX 1024       /* Streams kept for reuse per loop: at most 5 MiB, after a peak. */
#define FAIL_BYTES_MAX 4096  /* Of an error's JSON text. */
#define HELD_BYTES_MIN 16384 /* Smaller pieces of answers are not counted. */

static _Atomic uint64_t refused[WEIR_STATUS_COUNT];

void http_count_refusal(enum weir_status status)
{
    atomic_fetch_add_explicit(&refused[status], 1, memory_order_relaxed);
}

uint64_t http_refused_count(enum weir_status status)
{
    return atomic_load_explicit(&refused[status], memory_order_relaxed);
}

uint64_t http_bodies_bytes(void)
{
    return body_bytes_of_all();
}

struct stream *stream_create(struct http_net *net)
{
    struct stream *s = stream_at(list_pop(&net->spare));
    if (s != NULL) {
        net->spare_count--;
    } else {
        s = mem_try_alloc(sizeof(*s));
    }
    if (s == NULL) {
        return NULL;
    }
    memset(s, 0, offsetof(struct stream, block));
    arena_init(&s->x.arena, s->block, sizeof(s->block), 0);
    s->pieces_end = &s->pieces;
    return s;
}

/* The socket has it, or nobody wants it any more. */
static void release_piece(struct stream *s, struct piece *piece)
{
    if (piece->held > 0) {
        body_let_go(piece->held);
        s->x.conn->ahead_bytes -= piece->held;
    }
    mem_free(piece->heap);
}

void stream_drop_pieces(struct stream *s)
{
    while (s->pieces != NULL) {
        struct piece *piece = s->pieces;
        s->pieces = piece->next;
        release_piece(s, piece);
    }
    s->pieces_end = &s->pieces;
}

void stream_begin_body(struct stream *s, uint64_t size)
{
    s->body.expected = size;
    s->body.align_at = s->x.body_align_at;
    s->body.bytes_max = s->x.body_bytes_max;
}

enum weir_status stream_take_body(struct stream *s, const struct limits *limits, struct bytes bytes,
                                  struct weir_err *err)
{
    if (s->body.size == 0 && s->x.body_room != NULL) { /* Who only promises bytes gets none. */
        char *room = s->x.body_room(&s->x);
        s->x.body_room = NULL;
        if (room != NULL) {
            body_lend(&s->body, room, (size_t)s->body.expected);
        }
    }
    return body_append(&s->body, &s->x.arena, limits, bytes, err);
}

void stream_destroy(struct http_net *net, struct stream *s)
{
    stream_drop_pieces(s);
    body_finish(&s->body);
    arena_finish(&s->x.arena);
    if (net->spare_count >= SPARE_MAX) {
        mem_free(s);
        return;
    }
    net->spare_count++;
    list_prepend(&net->spare, &s->x.node); /* The latest is the warmest. */
}

static void append(struct stream *s, struct piece *piece)
{
    *s->pieces_end = piece;
    s->pieces_end = &piece->next;
    if (piece->body) {
        s->x.unsent_bytes += piece->bytes.size;
    }
    if (piece->body && piece->bytes.size >= HELD_BYTES_MIN) {
        piece->held = piece->bytes.size;
        body_hold(piece->held);
        s->x.conn->ahead_bytes += piece->held;
    }
}

/* A piece in the arena; without memory the answer is broken. */
static void push(struct stream *s, struct bytes bytes, bool body)
{
    struct piece *piece = s->broken ? NULL : arena_try_alloc(&s->x.arena, sizeof(*piece));
    if (piece == NULL) {
        s->broken = true;
        return;
    }
    *piece = (struct piece){ .bytes = bytes, .body = body };
    append(s, piece);
}

void stream_push(struct stream *s, struct bytes bytes)
{
    push(s, bytes, false);
}

void stream_advance(struct stream *s, size_t size)
{
    struct piece *piece = s->pieces;
    assert(piece != NULL && size <= piece->bytes.size);
    piece->bytes.data += size;
    piece->bytes.size -= size;
    if (piece->body) {
        s->x.sent_bytes += size;
        s->x.unsent_bytes -= size;
    }
    if (piece->bytes.size == 0) {
        s->pieces = piece->next;
        if (s->pieces == NULL) {
            s->pieces_end = &s->pieces;
        }
        release_piece(s, piece);
    }
}

struct http_memo *exchange_memo(const struct exchange *x)
{
    return x->head == NULL ? NULL : &x->head->memo;
}

struct bytes exchange_find_field(const struct exchange *x, struct bytes name)
{
    for (uint32_t i = 0; i < x->field_count; i++) {
        const struct bytes found = x->fields[i].name;
        if (found.size == name.size &&
            (bytes_equal(found, name) || bytes_equal_nocase(found, name))) {
            return x->fields[i].value;
        }
    }
    return (struct bytes){ 0 };
}

/* Adds a field in front of the others. */
static void add_field(struct exchange *x, struct answer_field **to, const char *name,
                      struct bytes value)
{
    struct answer_field *field = NULL;
    if (x->canceled) {
        return;
    }
    if (!answer_field(&x->arena, name, value, &field)) {
        stream_of(x)->broken = true;
        return;
    }
    field->next = *to;
    *to = field;
}

void exchange_header(struct exchange *x, const char *name, struct bytes value)
{
    assert(x->status == 0);
    add_field(x, &stream_of(x)->fields, name, value);
}

void exchange_trailer(struct exchange *x, const char *name, struct bytes value)
{
    assert(x->status != 0 && !x->finished);
    add_field(x, &stream_of(x)->trailers, name, value);
}

static const struct protocol *protocol_of(const struct exchange *x)
{
    return x->conn->protocol;
}

void exchange_begin(struct exchange *x, int status, const char *content_type, uint64_t body_size)
{
    struct stream *s = stream_of(x);
    assert(x->status == 0 && status >= 100 && status <= 999);
    x->status = status;
    x->loop->asked_count -= s->requested ? 1 : 0;
    if (x->canceled) {
        return;
    }
    s->brief = body_size == HTTP_BRIEF && x->version == HTTP_2;
    x->streaming = body_size >= HTTP_BRIEF && !s->brief;
    s->bodyless = x->method == HTTP_HEAD || answer_bodyless(status);
    s->promised = body_size >= HTTP_BRIEF || s->bodyless ? 0 : body_size;
    protocol_of(x)->begin(s, content_type, body_size);
}

/* True when body bytes of this stream go anywhere. */
static bool takes_body(struct stream *s, size_t size)
{
    assert(s->x.status != 0 && !s->x.finished);
    if (s->x.canceled || s->broken || size == 0) {
        return false;
    }
    if (s->bodyless) {
        s->dropped = true;
        protocol_of(&s->x)->changed(s);
        return false;
    }
    if (!s->x.streaming && !s->brief) {
        assert(size <= s->promised);
        s->promised -= size;
    }
    return true;
}

/* One block: the piece, then what it copies, then a second piece for a chunk's size line. */
struct copied {
    struct piece size_line;
    struct piece body;
    char size_text[HTTP1_CHUNK_HEAD_MAX];
    char bytes[];
};

/* Streams may go on for hours: their pieces are freed one by one, so none is in the arena. */
static void push_streamed(struct stream *s, struct bytes bytes, bool copy)
{
    size_t size = sizeof(struct copied);
    struct copied *block = NULL;
    if (!__builtin_add_overflow(size, copy ? bytes.size : 0, &size)) {
        block = mem_try_alloc(size);
    }
    if (block == NULL) {
        s->broken = true;
        return;
    }
    if (copy) {
        memcpy(block->bytes, bytes.data, bytes.size);
        bytes.data = block->bytes;
    }
    if (s->chunked) {
        const size_t length = http1_chunk_head(block->size_text, bytes.size, !s->chunk_sent);
        block->size_line = (struct piece){ .bytes = { block->size_text, length } };
        append(s, &block->size_line);
        s->chunk_sent = true;
    }
    block->body = (struct piece){ .bytes = bytes, .heap = block, .body = true };
    append(s, &block->body);
}

void exchange_piece(struct exchange *x, struct bytes bytes)
{
    struct stream *s = stream_of(x);
    if (!takes_body(s, bytes.size)) {
        return;
    }
    if (x->streaming) {
        push_streamed(s, bytes, false);
    } else {
        push(s, bytes, true);
    }
    protocol_of(x)->changed(s);
}

void exchange_copy(struct exchange *x, struct bytes bytes)
{
    struct stream *s = stream_of(x);
    if (!takes_body(s, bytes.size)) {
        return;
    }
    if (x->streaming) {
        push_streamed(s, bytes, true);
    } else {
        const char *copy = arena_try_strndup(&x->arena, bytes.data, bytes.size);
        s->broken = s->broken || copy == NULL;
        push(s, (struct bytes){ copy, bytes.size }, true);
    }
    protocol_of(x)->changed(s);
}

void exchange_finish(struct exchange *x)
{
    struct stream *s = stream_of(x);
    assert(!x->finished && (x->status != 0 || x->canceled));
    x->finished = true;
    s->broken = s->broken || (s->promised > 0 && !x->canceled);
    protocol_of(x)->finish(s);
}

void exchange_consume(struct exchange *x, size_t size)
{
    assert(x->incremental);
    if (!x->canceled) {
        protocol_of(x)->consume(stream_of(x), size);
    }
}

void exchange_reply(struct exchange *x, int status, const char *content_type, struct bytes body)
{
    exchange_begin(x, status, content_type, body.size);
    exchange_piece(x, body);
    exchange_finish(x);
}

static struct bytes error_body(struct arena *arena, const char *text)
{
    struct buffer json;
    buffer_init(&json, FAIL_BYTES_MAX);
    buffer_text(&json, "{\"error\":");
    json_string(&json, text);
    buffer_char(&json, '}');
    char *copy = json.failed ? NULL : arena_try_strndup(arena, json.data, json.size);
    const struct bytes body = { copy, copy == NULL ? 0 : json.size };
    buffer_finish(&json);
    return body.data == NULL ? BYTES_LITERAL("{\"error\":\"\"}") : body;
}

void exchange_fail(struct exchange *x, enum weir_status status, const char *text,
                   uint32_t retry_after_s)
{
    if (retry_after_s > 0) {
        char *seconds = arena_try_printf(&x->arena, "%u", (unsigned)retry_after_s);
        if (seconds != NULL) {
            exchange_header(x, "Retry-After", bytes_of(seconds));
        }
    }
    exchange_reply(x, weir_status_http(status), "application/json", error_body(&x->arena, text));
}
