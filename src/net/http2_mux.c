/*
 * A stream's state lies in a ring, at its number; the number of a new stream is the next whose
 * place is free (HTTP/2 lets clients pass numbers over), so nothing is ever looked for.
 *
 *     free --begin--> sending --(body gone)--> waiting --(end of stream, reset)--> free
 *                        |                                                          ^
 *                        +--(answered or canceled)--> over --(out of the line)------+
 *
 * Streams with body left stand in a line and send in turn, a frame each; one whose own window is
 * closed leaves the line until the server opens it.  A stream that ends while it is in the line
 * keeps its place until its turn, because the line is linked forwards only.
 */
#include "net/http2_mux.h"

#include <assert.h>

#include "net/http2_plan.h"
#include "net/http2_table.h"
#include "util/mem.h"

#define OUT_BYTES ((size_t)256 << 10)
#define COPIED_MAX 2048   /* Larger pieces of bodies are lent. */
#define FRAME_BYTES 16384 /* The protocol's default, which is not changed. */
#define FRAME_HEAD 9
#define BLOCK_BYTES_MAX ((size_t)64 << 10)
#define WINDOW_DEFAULT 65535
#define WINDOW_MAX INT32_MAX
#define WINDOW_REFILL (1 << 29)
#define STREAM_LAST (INT32_MAX - 1024)
#define NONE UINT32_MAX

enum {
    FRAME_DATA = 0,
    FRAME_HEADERS = 1,
    FRAME_RST_STREAM = 3,
    FRAME_SETTINGS = 4,
    FRAME_PUSH_PROMISE = 5,
    FRAME_PING = 6,
    FRAME_GOAWAY = 7,
    FRAME_WINDOW_UPDATE = 8,
    FRAME_CONTINUATION = 9,
};

enum {
    FLAG_END_STREAM = 1,
    FLAG_ACK = 1,
    FLAG_END_HEADERS = 4,
    FLAG_PADDED = 8,
    FLAG_PRIORITY = 32
};

enum {
    SETTING_TABLE = 1,
    SETTING_PUSH = 2,
    SETTING_STREAMS = 3,
    SETTING_WINDOW = 4,
    SETTING_FRAME = 5,
};

enum { ERROR_NO_ERROR = 0, ERROR_CANCEL = 8 };

enum state { STREAM_FREE, STREAM_SENDING, STREAM_WAITING, STREAM_OVER };

struct stream {
    uint32_t id;
    uint32_t tag;
    enum state state;
    bool queued; /* In the line of those that send. */
    int grpc;
    int http;
    int64_t window;
    const char *body;
    size_t left;
    uint32_t next; /* In the line: its place in the ring. */
};

struct http2_mux {
    struct http2_plan *plan;
    struct http2_mux_options options;
    struct stream *ring;
    uint32_t mask;
    uint32_t active;
    uint32_t next_id;
    uint32_t line_first;
    uint32_t line_last;

    /* The server's side. */
    bool ready;
    bool closing;
    struct http2_table table;
    uint32_t peer_streams;
    uint32_t peer_frame;
    int64_t peer_window; /* Of new streams. */
    int64_t window;      /* Of the connection. */
    uint64_t consumed;   /* Since it was last given back. */

    /* The frame that is coming in. */
    uint8_t frame_head[FRAME_HEAD];
    uint32_t frame_held; /* Of its head. */
    uint32_t size;
    uint32_t left;
    uint8_t type;
    uint8_t flags;
    uint32_t id;
    struct buffer payload; /* Of a frame that is cut. */
    struct buffer block;   /* Of headers in several frames. */
    uint32_t block_id;     /* 0: none is open. */
    bool block_ends;

    struct http2_out out;
};

/* ---- Writing --------------------------------------------------------------------------------- */

static size_t out_room(const struct http2_mux *mux)
{
    return http2_out_room(&mux->out);
}

static void put(struct http2_mux *mux, const void *bytes, size_t size)
{
    http2_out_put(&mux->out, bytes, size);
}

static void store32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static uint32_t load32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
}

static void put_frame_head(char *at, size_t size, unsigned type, unsigned flags, uint32_t id)
{
    uint8_t head[FRAME_HEAD] = { (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size,
                                 (uint8_t)type, (uint8_t)flags };
    store32(head + 5, id);
    memcpy(at, head, FRAME_HEAD);
}

static void put_frame(struct http2_mux *mux, size_t size, unsigned type, unsigned flags,
                      uint32_t id)
{
    char head[FRAME_HEAD];
    put_frame_head(head, size, type, flags, id);
    put(mux, head, FRAME_HEAD);
}

/* Frames of a few bytes always fit: requests leave them room, and each answers one that came. */
#define OUT_RESERVE ((size_t)16 << 10)

static bool has_reserve(struct http2_mux *mux, size_t size)
{
    return out_room(mux) >= size;
}

static void put_number_frame(struct http2_mux *mux, unsigned type, uint32_t id, uint32_t number)
{
    uint8_t payload[4];
    if (has_reserve(mux, FRAME_HEAD + sizeof(payload))) {
        store32(payload, number);
        put_frame(mux, sizeof(payload), type, 0, id);
        put(mux, payload, sizeof(payload));
    }
}

static void put_hello(struct http2_mux *mux)
{
    static const uint16_t keys[] = { SETTING_TABLE, SETTING_PUSH, SETTING_WINDOW };
    static const uint32_t values[] = { 0, 0, WINDOW_MAX };
    put(mux, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    put_frame(mux, sizeof(keys) / sizeof(*keys) * 6, FRAME_SETTINGS, 0, 0);
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        uint8_t setting[6] = { (uint8_t)(keys[i] >> 8), (uint8_t)keys[i] };
        store32(setting + 2, values[i]);
        put(mux, setting, sizeof(setting));
    }
    put_number_frame(mux, FRAME_WINDOW_UPDATE, 0, WINDOW_MAX - WINDOW_DEFAULT);
}

static void put_headers(struct http2_mux *mux, const struct http2_head *head, uint32_t id,
                        bool ends)
{
    const size_t at = mux->out.size;
    put_frame(mux, 0, FRAME_HEADERS, 0, id);
    http2_table_put(&mux->table, mux->plan, head, &mux->out);
    put_frame_head(mux->out.own + at, mux->out.size - at - FRAME_HEAD, FRAME_HEADERS,
                   FLAG_END_HEADERS | (ends ? FLAG_END_STREAM : 0), id);
}

/* ---- Streams --------------------------------------------------------------------------------- */

static struct stream *find(struct http2_mux *mux, uint32_t id)
{
    struct stream *stream = &mux->ring[(id >> 1) & mux->mask];
    const bool there = stream->state == STREAM_SENDING || stream->state == STREAM_WAITING;
    return there && stream->id == id ? stream : NULL;
}

static void queue(struct http2_mux *mux, struct stream *stream)
{
    const uint32_t at = (uint32_t)(stream - mux->ring);
    stream->queued = true;
    stream->next = NONE;
    if (mux->line_first == NONE) {
        mux->line_first = at;
    } else {
        mux->ring[mux->line_last].next = at;
    }
    mux->line_last = at;
}

static struct stream *unqueue(struct http2_mux *mux)
{
    struct stream *stream = &mux->ring[mux->line_first];
    mux->line_first = stream->next;
    stream->queued = false;
    return stream;
}

static void end(struct http2_mux *mux, struct stream *stream)
{
    mux->active--;
    stream->state = stream->queued ? STREAM_OVER : STREAM_FREE;
}

static void answer(struct http2_mux *mux, struct stream *stream, bool reset, uint32_t code,
                   struct bytes text)
{
    const struct http2_mux_answer told = {
        .http = stream->http, .grpc = stream->grpc, .reset = reset, .code = code, .text = text
    };
    const uint32_t tag = stream->tag;
    if (stream->state == STREAM_SENDING && !reset) {
        put_number_frame(mux, FRAME_RST_STREAM, stream->id, ERROR_NO_ERROR);
    }
    end(mux, stream);
    mux->options.answered(mux->options.user, tag, &told);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* One frame of the stream's body; true when more of it can leave. */
static bool send_some(struct http2_mux *mux, struct stream *stream)
{
    int64_t size = least((int64_t)stream->left, (int64_t)mux->peer_frame);
    size = least(size, least(stream->window, mux->window));
    const bool last = size == (int64_t)stream->left;
    put_frame(mux, (size_t)size, FRAME_DATA, last ? FLAG_END_STREAM : 0, stream->id);
    if (size > COPIED_MAX) {
        http2_out_lend(&mux->out, (struct bytes){ stream->body, (size_t)size });
    } else {
        put(mux, stream->body, (size_t)size);
    }
    stream->body += size;
    stream->left -= (size_t)size;
    stream->window -= size;
    mux->window -= size;
    if (last) {
        stream->state = STREAM_WAITING;
    }
    return !last && stream->window > 0;
}

static bool can_send(const struct http2_mux *mux)
{
    return mux->window > 0 && http2_out_can_lend(&mux->out) &&
           out_room(mux) > OUT_RESERVE + FRAME_HEAD + COPIED_MAX;
}

static void pump(struct http2_mux *mux)
{
    while (mux->line_first != NONE && can_send(mux)) {
        struct stream *stream = unqueue(mux);
        if (stream->state == STREAM_OVER) {
            stream->state = STREAM_FREE;
        } else if (stream->window > 0 && send_some(mux, stream)) { /* Settings may shrink it. */
            queue(mux, stream);
        }
    }
}

/* ---- Incoming frames ------------------------------------------------------------------------- */

static enum weir_status broken(const char *what, struct weir_err *err)
{
    return err_set(err, WEIR_EIO, "the server breaks the rules of HTTP/2: %s", what);
}

static enum weir_status on_block(struct http2_mux *mux, struct bytes bytes, uint32_t id, bool ends,
                                 struct weir_err *err)
{
    const struct http2_block *block = http2_plan_block(mux->plan, bytes);
    if (block == NULL) {
        return broken("its headers cannot be read", err);
    }
    struct stream *stream = find(mux, id);
    if (stream == NULL) {
        return WEIR_OK; /* It was canceled. */
    }
    stream->http = block->http != 0 ? block->http : stream->http;
    stream->grpc = block->grpc >= 0 ? block->grpc : stream->grpc;
    if (ends) {
        answer(mux, stream, false, 0, (struct bytes){ block->text, block->text_size });
    }
    return WEIR_OK;
}

static enum weir_status on_headers(struct http2_mux *mux, struct bytes payload,
                                   struct weir_err *err)
{
    size_t skip = 0;
    size_t padding = 0;
    if (mux->type == FRAME_HEADERS) {
        padding =
            (mux->flags & FLAG_PADDED) != 0 && payload.size > 0 ? (uint8_t)payload.data[0] : 0;
        skip = (mux->flags & FLAG_PADDED) != 0 ? 1U : 0U;
        skip += (mux->flags & FLAG_PRIORITY) != 0 ? 5U : 0U;
        mux->block_ends = (mux->flags & FLAG_END_STREAM) != 0;
        buffer_clear(&mux->block);
    }
    if (skip + padding > payload.size ||
        (mux->type == FRAME_CONTINUATION) != (mux->block_id != 0) ||
        (mux->block_id != 0 && mux->block_id != mux->id)) {
        return broken("its headers are out of order", err);
    }
    payload.data += skip;
    payload.size -= skip + padding;
    const bool whole = (mux->flags & FLAG_END_HEADERS) != 0;
    mux->block_id = whole ? 0 : mux->id;
    if (whole && mux->block.size == 0) {
        return on_block(mux, payload, mux->id, mux->block_ends, err);
    }
    buffer_append(&mux->block, payload.data, payload.size);
    if (mux->block.failed) {
        return broken("its headers are too long", err);
    }
    const struct bytes all = { mux->block.data, mux->block.size };
    return whole ? on_block(mux, all, mux->id, mux->block_ends, err) : WEIR_OK;
}

static void change_window(struct http2_mux *mux, uint32_t value)
{
    const int64_t change = (int64_t)value - mux->peer_window;
    mux->peer_window = value;
    for (uint32_t i = 0; i <= mux->mask; i++) {
        struct stream *stream = &mux->ring[i];
        if (stream->state == STREAM_SENDING) {
            stream->window += change;
            if (stream->window > 0 && !stream->queued) {
                queue(mux, stream);
            }
        }
    }
}

static enum weir_status on_settings(struct http2_mux *mux, struct bytes payload,
                                    struct weir_err *err)
{
    if ((mux->flags & FLAG_ACK) != 0) {
        return WEIR_OK;
    }
    if (payload.size % 6 != 0) {
        return broken("its settings are cut", err);
    }
    for (const uint8_t *at = (const uint8_t *)payload.data; payload.size > 0;
         at += 6, payload.size -= 6) {
        const uint32_t key = (uint32_t)at[0] << 8 | at[1];
        const uint32_t value = load32(at + 2);
        if (key == SETTING_TABLE) {
            http2_table_resize(&mux->table, value);
        } else if (key == SETTING_STREAMS) {
            mux->peer_streams = value;
        } else if (key == SETTING_WINDOW && value <= WINDOW_MAX) {
            change_window(mux, value);
        } else if (key == SETTING_FRAME && value >= FRAME_BYTES && value < 1 << 24) {
            mux->peer_frame = value;
        }
    }
    if (has_reserve(mux, FRAME_HEAD)) {
        put_frame(mux, 0, FRAME_SETTINGS, FLAG_ACK, 0);
    }
    mux->ready = true;
    return WEIR_OK;
}

static void on_window(struct http2_mux *mux, struct bytes payload)
{
    const uint32_t more = load32((const uint8_t *)payload.data) & INT32_MAX;
    if (mux->id == 0) {
        mux->window += more;
        return;
    }
    struct stream *stream = find(mux, mux->id);
    if (stream != NULL && stream->state == STREAM_SENDING) {
        stream->window += more;
        if (stream->window > 0 && !stream->queued) {
            queue(mux, stream);
        }
    }
}

static void on_reset(struct http2_mux *mux, struct bytes payload)
{
    struct stream *stream = find(mux, mux->id);
    if (stream != NULL) {
        answer(mux, stream, true, load32((const uint8_t *)payload.data), (struct bytes){ NULL, 0 });
    }
}

/* Calls beyond the last one that the server takes are as good as reset. */
static void on_goaway(struct http2_mux *mux, struct bytes payload)
{
    const uint32_t last = load32((const uint8_t *)payload.data) & INT32_MAX;
    mux->closing = true;
    for (uint32_t i = 0; i <= mux->mask; i++) {
        struct stream *stream = &mux->ring[i];
        if (stream->id > last &&
            (stream->state == STREAM_SENDING || stream->state == STREAM_WAITING)) {
            answer(mux, stream, true, load32((const uint8_t *)payload.data + 4),
                   (struct bytes){ NULL, 0 });
        }
    }
}

static void on_ping(struct http2_mux *mux, struct bytes payload)
{
    if ((mux->flags & FLAG_ACK) == 0 && has_reserve(mux, FRAME_HEAD + 8)) {
        put_frame(mux, 8, FRAME_PING, FLAG_ACK, 0);
        put(mux, payload.data, 8);
    }
}

static enum weir_status on_frame(struct http2_mux *mux, struct bytes payload, struct weir_err *err)
{
    if (mux->block_id != 0 && mux->type != FRAME_CONTINUATION) {
        return broken("a frame stands between its headers", err);
    }
    switch (mux->type) {
    case FRAME_HEADERS:
    case FRAME_CONTINUATION:
        return on_headers(mux, payload, err);
    case FRAME_SETTINGS:
        return on_settings(mux, payload, err);
    case FRAME_PUSH_PROMISE:
        return broken("it pushes, which was refused", err);
    default:
        break;
    }
    const size_t least_size = mux->type == FRAME_PING || mux->type == FRAME_GOAWAY ? 8 : 4;
    if (mux->type > FRAME_CONTINUATION || mux->type == 2) {
        return WEIR_OK; /* Unknown ones and PRIORITY. */
    }
    if (payload.size < least_size) {
        return broken("a frame is cut", err);
    }
    if (mux->type == FRAME_RST_STREAM) {
        on_reset(mux, payload);
    } else if (mux->type == FRAME_WINDOW_UPDATE) {
        on_window(mux, payload);
    } else if (mux->type == FRAME_GOAWAY) {
        on_goaway(mux, payload);
    } else {
        on_ping(mux, payload);
    }
    return WEIR_OK;
}

/* The end of a DATA frame. */
static void on_data_end(struct http2_mux *mux)
{
    mux->consumed += mux->size;
    if (mux->consumed >= WINDOW_REFILL) {
        put_number_frame(mux, FRAME_WINDOW_UPDATE, 0, (uint32_t)mux->consumed);
        mux->consumed = 0;
    }
    struct stream *stream = (mux->flags & FLAG_END_STREAM) != 0 ? find(mux, mux->id) : NULL;
    if (stream != NULL) {
        answer(mux, stream, false, 0, (struct bytes){ NULL, 0 });
    }
}

/* Takes up to a frame's head; true when it is whole. */
static bool take_frame_head(struct http2_mux *mux, struct bytes *in)
{
    const size_t wanted = FRAME_HEAD - mux->frame_held;
    const size_t taken = in->size < wanted ? in->size : wanted;
    memcpy(mux->frame_head + mux->frame_held, in->data, taken);
    mux->frame_held += (uint32_t)taken;
    in->data += taken;
    in->size -= taken;
    if (mux->frame_held < FRAME_HEAD) {
        return false;
    }
    const uint8_t *at = mux->frame_head;
    mux->size = (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2];
    mux->left = mux->size;
    mux->type = at[3];
    mux->flags = at[4];
    mux->id = load32(at + 5) & INT32_MAX;
    buffer_clear(&mux->payload);
    return true;
}

/* The payload of a frame other than DATA, here or put together; false: it goes on. */
static bool take_payload(struct http2_mux *mux, struct bytes *in, struct bytes *payload)
{
    const size_t taken = in->size < mux->left ? in->size : mux->left;
    const bool whole = taken == mux->size;
    if (!whole) {
        buffer_append(&mux->payload, in->data, taken);
    }
    *payload = whole ? (struct bytes){ in->data, taken }
                     : (struct bytes){ mux->payload.data, mux->payload.size };
    in->data += taken;
    in->size -= taken;
    mux->left -= (uint32_t)taken;
    return mux->left == 0;
}

static void skip_data(struct http2_mux *mux, struct bytes *in)
{
    const size_t taken = in->size < mux->left ? in->size : mux->left;
    in->data += taken;
    in->size -= taken;
    mux->left -= (uint32_t)taken;
    if (mux->left == 0) {
        mux->frame_held = 0;
        on_data_end(mux);
    }
}

enum weir_status http2_mux_input(struct http2_mux *mux, struct bytes in, struct weir_err *err)
{
    while (in.size > 0) {
        if (mux->frame_held < FRAME_HEAD) {
            if (!take_frame_head(mux, &in)) {
                return WEIR_OK;
            }
            if (mux->size > FRAME_BYTES || (!mux->ready && mux->type != FRAME_SETTINGS)) {
                return err_set(err, WEIR_EIO, "the server does not speak HTTP/2");
            }
            if (mux->left > 0 && in.size == 0) {
                return WEIR_OK;
            }
        }
        if (mux->type == FRAME_DATA) {
            skip_data(mux, &in);
            continue;
        }
        struct bytes payload;
        if (!take_payload(mux, &in, &payload)) {
            return mux->payload.failed ? err_nomem(err, "a frame", mux->size) : WEIR_OK;
        }
        mux->frame_held = 0;
        const enum weir_status status = on_frame(mux, payload, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

/* ---- A connection ---------------------------------------------------------------------------- */

static uint32_t ring_size(uint32_t streams_max)
{
    uint32_t size = 16;
    while (size < 4 * streams_max) {
        size *= 2;
    }
    return size;
}

struct http2_mux *http2_mux_create(struct http2_plan *plan, const struct http2_mux_options *options)
{
    assert(options->streams_max > 0 && options->streams_max <= HTTP2_MUX_STREAMS_MAX);
    struct http2_mux *mux = mem_try_zero(1, sizeof(*mux));
    if (mux == NULL) {
        return NULL;
    }
    mux->plan = plan;
    mux->options = *options;
    mux->mask = ring_size(options->streams_max) - 1;
    mux->ring = mem_try_zero(mux->mask + 1, sizeof(*mux->ring));
    buffer_init(&mux->payload, FRAME_BYTES);
    buffer_init(&mux->block, BLOCK_BYTES_MAX);
    if (http2_out_init(&mux->out, OUT_BYTES) != WEIR_OK || mux->ring == NULL) {
        http2_mux_destroy(mux);
        return NULL;
    }
    mux->next_id = 1;
    mux->line_first = NONE;
    mux->peer_streams = UINT32_MAX;
    mux->peer_frame = FRAME_BYTES;
    mux->peer_window = WINDOW_DEFAULT;
    mux->window = WINDOW_DEFAULT;
    http2_table_init(&mux->table);
    put_hello(mux);
    return mux;
}

void http2_mux_destroy(struct http2_mux *mux)
{
    if (mux != NULL) {
        buffer_finish(&mux->payload);
        buffer_finish(&mux->block);
        mem_free(mux->ring);
        http2_out_finish(&mux->out);
        mem_free(mux);
    }
}

uint32_t http2_mux_active(const struct http2_mux *mux)
{
    return mux->active;
}

bool http2_mux_is_ready(const struct http2_mux *mux)
{
    return mux->ready;
}

bool http2_mux_is_closing(const struct http2_mux *mux)
{
    return mux->closing;
}

uint32_t http2_mux_room(const struct http2_mux *mux)
{
    const uint32_t most =
        mux->peer_streams < mux->options.streams_max ? mux->peer_streams : mux->options.streams_max;
    if (!mux->ready || mux->closing || mux->active >= most ||
        out_room(mux) < OUT_RESERVE + HTTP2_HEAD_BYTES_MAX + FRAME_HEAD) {
        return 0;
    }
    return most - mux->active;
}

uint32_t http2_mux_begin(struct http2_mux *mux, const struct http2_head *head, struct bytes body,
                         uint32_t tag)
{
    assert(http2_mux_room(mux) > 0);
    while (mux->ring[(mux->next_id >> 1) & mux->mask].state != STREAM_FREE) {
        mux->next_id += 2;
    }
    const uint32_t id = mux->next_id;
    struct stream *stream = &mux->ring[(id >> 1) & mux->mask];
    *stream = (struct stream){ .id = id,
                               .tag = tag,
                               .state = body.size > 0 ? STREAM_SENDING : STREAM_WAITING,
                               .grpc = -1,
                               .window = mux->peer_window,
                               .body = body.data,
                               .left = body.size };
    mux->next_id += 2;
    mux->closing = mux->next_id > STREAM_LAST;
    mux->active++;
    put_headers(mux, head, id, body.size == 0);
    if (body.size > 0 && mux->peer_window > 0) {
        queue(mux, stream);
        pump(mux);
    }
    return id;
}

void http2_mux_cancel(struct http2_mux *mux, uint32_t id)
{
    struct stream *stream = find(mux, id);
    if (stream != NULL) {
        put_number_frame(mux, FRAME_RST_STREAM, id, ERROR_CANCEL);
        end(mux, stream);
    }
}

uint32_t http2_mux_output(struct http2_mux *mux, struct bytes pieces[HTTP2_OUT_PIECES_MAX])
{
    pump(mux);
    return http2_out_pieces(&mux->out, pieces);
}

void http2_mux_sent(struct http2_mux *mux, size_t size)
{
    http2_out_sent(&mux->out, size);
}

bool http2_mux_next(const struct http2_mux *mux, uint32_t *at, uint32_t *tag)
{
    while (*at <= mux->mask) {
        const struct stream *stream = &mux->ring[(*at)++];
        if (stream->state == STREAM_SENDING || stream->state == STREAM_WAITING) {
            *tag = stream->tag;
            return true;
        }
    }
    return false;
}
