/*
 * The five bytes before each message, and the trailers behind the last.
 *
 * Bytes go to the reader as they arrive.  While it cannot take any (it has paused, or a message is
 * being inflated) they are held, uncounted for the client, whose window then bounds them.
 */
#include "net/grpc.h"

#include <assert.h>
#include <stdio.h>

#include "net/body.h"
#include "net/head.h"
#include "util/mem.h"

#define TYPE "application/grpc"
#define INLINE_INFLATE_BYTES 1024 /* More may become more than a loop should wait for. */
#define PUSHBACK_MS 1000

/* A compressed message. */
struct grpc_inflation {
    struct loop_work work;
    struct grpc_call *call;
    struct buffer in;
    struct buffer out;
    uint64_t held_bytes; /* Counted with the bodies. */
    struct weir_err err;
    bool busy; /* With a worker. */
};

/* What the arena cannot free by itself. */
struct closing {
    struct arena_disposable disposable;
    struct grpc_call *call;
};

/* --- The end --- */

static void drop_inflation(struct grpc_call *call)
{
    struct grpc_inflation *self = call->inflation;
    if (self != NULL) {
        body_let_go(self->held_bytes);
        buffer_finish(&self->in);
        buffer_finish(&self->out);
        mem_free(self);
        call->inflation = NULL;
    }
}

static void drop_held(struct grpc_call *call)
{
    body_let_go(call->held.size);
    buffer_finish(&call->held);
    call->held_at = 0;
}

static void close_call(struct arena_disposable *disposable)
{
    struct grpc_call *call = ((struct closing *)(void *)disposable)->call;
    drop_inflation(call);
    drop_held(call);
}

/* Percent-encoded as grpc-message wants it: everything outside of printable ASCII, and '%'. */
static struct bytes encode_text(struct arena *arena, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    const struct bytes in = bytes_of(text);
    const size_t room = in.size < GRPC_TEXT_BYTES_MAX / 3 ? 3 * in.size : GRPC_TEXT_BYTES_MAX;
    char *out = arena_try_aligned(arena, room + 1, 1);
    size_t size = 0;
    for (size_t i = 0; out != NULL && i < in.size; i++) {
        const unsigned char c = (unsigned char)in.data[i];
        const bool plain = c >= 0x20 && c <= 0x7e && c != '%';
        if (size + (plain ? 1 : 3) > room) {
            break;
        }
        if (plain) {
            out[size++] = in.data[i];
        } else {
            out[size++] = '%';
            out[size++] = digits[c >> 4];
            out[size++] = digits[c & 0xf];
        }
    }
    return (struct bytes){ out, out == NULL ? 0 : size };
}

typedef void add_fn(struct exchange *x, const char *name, struct bytes value);

static void add_status(struct exchange *x, add_fn *add, enum weir_status status, const char *text,
                       uint64_t pushback_ms)
{
    char number[24];
    if (status == WEIR_OK) {
        add(x, "grpc-status", BYTES_LITERAL("0"));
        return;
    }
    (void)snprintf(number, sizeof(number), "%d", weir_status_grpc(status));
    add(x, "grpc-status", bytes_of(number));
    add(x, "grpc-message", encode_text(&x->arena, text == NULL ? weir_status_text(status) : text));
    const int http = weir_status_http(status); /* Where REST says Retry-After. */
    if ((http == 503 || http == 429) && weir_status_retry(status)) {
        (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)pushback_ms);
        add(x, "grpc-retry-pushback-ms", bytes_of(number));
    }
}

static void end_exchange(struct exchange *x, enum weir_status status, const char *text,
                         uint64_t pushback_ms)
{
    if (x->canceled) {
        exchange_finish(x);
        return;
    }
    if (x->status == 0) {
        add_status(x, exchange_header, status, text, pushback_ms);
        exchange_begin(x, 200, TYPE, HTTP_BRIEF);
    } else {
        add_status(x, exchange_trailer, status, text, pushback_ms);
    }
    exchange_finish(x);
}

void grpc_fail(struct exchange *x, enum weir_status status, const char *text, uint64_t pushback_ms)
{
    if (status == WEIR_EENCODING) {
        exchange_header(x, "grpc-accept-encoding", BYTES_LITERAL("identity,deflate,gzip"));
    }
    end_exchange(x, status, text, pushback_ms == 0 ? PUSHBACK_MS : pushback_ms);
}

static bool is_busy(const struct grpc_call *call)
{
    return call->inflation != NULL && call->inflation->busy;
}

void grpc_finish(struct grpc_call *call, enum weir_status status, const char *text)
{
    if (call->finished) {
        return;
    }
    call->finished = true;
    call->status = status;
    call->x->expecting = false;
    if (is_busy(call)) {
        /* A worker still reads from the call: it ends when that is back. */
        call->text = text == NULL ? NULL : arena_try_strndup(&call->x->arena, text, strlen(text));
        return;
    }
    end_exchange(call->x, status, text, call->pushback_ms);
}

/* Ends a call whose messages make no sense. */
static void refuse(struct grpc_call *call, enum weir_status status, const char *text)
{
    if (status == WEIR_EENCODING && call->x->status == 0) {
        exchange_header(call->x, "grpc-accept-encoding", BYTES_LITERAL("identity,deflate,gzip"));
    }
    grpc_finish(call, status, text);
}

/* --- Sending --- */

/* The five bytes: in the arena where there is one message, freed with it in a stream. */
static void send_prefix(struct grpc_call *call, uint64_t size)
{
    const char prefix[GRPC_PREFIX_BYTES] = { 0, (char)(size >> 24), (char)(size >> 16),
                                             (char)(size >> 8), (char)size };
    char *kept = call->reader->unary ? arena_try_aligned(&call->x->arena, sizeof(prefix), 1) : NULL;
    if (kept == NULL) {
        exchange_copy(call->x, (struct bytes){ prefix, sizeof(prefix) });
        return;
    }
    memcpy(kept, prefix, sizeof(prefix));
    exchange_piece(call->x, (struct bytes){ kept, sizeof(prefix) });
}

void grpc_send(struct grpc_call *call, const struct bytes *pieces, size_t count)
{
    struct exchange *x = call->x;
    uint64_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += pieces[i].size;
    }
    assert(size <= UINT32_MAX);
    if (x->canceled || call->finished) {
        return;
    }
    if (x->status == 0) {
        exchange_begin(x, 200, TYPE, call->reader->unary ? HTTP_BRIEF : HTTP_STREAM);
    }
    send_prefix(call, size);
    for (size_t i = 0; i < count; i++) {
        exchange_piece(x, pieces[i]);
    }
}

/* --- Receiving --- */

static void say_end(struct grpc_call *call)
{
    call->in_message = false;
    call->message_count++;
    if (!call->reader->unary) {
        call->reader->end(call);
    }
}

static void deliver(struct grpc_call *call)
{
    struct grpc_inflation *self = call->inflation;
    if (self->err.status != WEIR_OK) {
        refuse(call, self->err.status, self->err.text);
        return;
    }
    call->reader->begin(call, self->out.size);
    if (!call->finished && self->out.size > 0) {
        call->reader->bytes(call, (struct bytes){ self->out.data, self->out.size });
    }
    if (!call->finished) {
        drop_inflation(call);
        say_end(call);
    }
}

static void inflate(struct grpc_inflation *self)
{
    const uint64_t ratio_max = self->call->x->loop->limits->inflate_ratio_max;
    const struct bytes in = { self->in.data, self->in.size };
    self->err.status =
        encoding_inflate(self->call->encoding, in, ratio_max, &self->out, &self->err);
}

static void read_held(struct grpc_call *call);

static void run_inflation(struct loop_work *work)
{
    inflate((struct grpc_inflation *)(void *)work);
}

static void inflation_done(struct loop_work *work)
{
    struct grpc_inflation *self = (struct grpc_inflation *)(void *)work;
    struct grpc_call *call = self->call;
    self->busy = false;
    if (call->finished) {
        end_exchange(call->x, call->status, call->text, call->pushback_ms);
    } else if (call->canceled) {
        call->reader->canceled(call);
    } else {
        deliver(call);
        if (!call->finished) {
            read_held(call);
        }
    }
}

/* Counts what the message may become before it is there. */
static enum weir_status book_inflation(struct grpc_call *call, struct weir_err *err)
{
    struct grpc_inflation *self = call->inflation;
    const struct limits *limits = call->x->loop->limits;
    const size_t size_max = encoding_inflated_max(self->in.size, limits->inflate_ratio_max,
                                                  (size_t)call->message_bytes_max);
    buffer_init(&self->out, size_max);
    const enum weir_status status = body_try_hold(size_max, limits, err);
    self->held_bytes += status == WEIR_OK ? size_max : 0;
    return status;
}

static void begin_inflating(struct grpc_call *call)
{
    struct grpc_inflation *self = call->inflation;
    struct weir_err err;
    const enum weir_status status = book_inflation(call, &err);
    if (status != WEIR_OK) {
        refuse(call, status, err.text);
        return;
    }
    if (self->in.size <= INLINE_INFLATE_BYTES) {
        inflate(self);
        deliver(call);
        return;
    }
    self->busy = true;
    self->work = (struct loop_work){ .run = run_inflation, .done = inflation_done };
    loop_work(call->x->loop, &self->work);
}

static void begin_compressed(struct grpc_call *call)
{
    struct grpc_inflation *self = mem_try_zero(1, sizeof(*self));
    if (self == NULL) {
        refuse(call, WEIR_ENOMEM, "out of memory for a compressed message");
        return;
    }
    self->call = call;
    buffer_init(&self->in, call->left);
    call->inflation = self;
}

/* The next bytes of a compressed message. */
static void gather(struct grpc_call *call, struct bytes part)
{
    struct grpc_inflation *self = call->inflation;
    struct weir_err err;
    const enum weir_status status = body_try_hold(part.size, call->x->loop->limits, &err);
    if (status != WEIR_OK) {
        refuse(call, status, err.text);
        return;
    }
    self->held_bytes += part.size;
    buffer_append(&self->in, part.data, part.size);
    if (self->in.failed) {
        refuse(call, WEIR_ENOMEM, "out of memory for a compressed message");
    } else if (call->left == 0) {
        begin_inflating(call);
    }
}

static void begin_message(struct grpc_call *call)
{
    const uint8_t *p = call->prefix;
    const uint8_t flag = p[0];
    char text[160];
    call->left = (uint64_t)p[1] << 24 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 8 | p[4];
    call->prefix_size = 0;
    if (flag > 1 || (flag == 1 && call->encoding == ENCODING_IDENTITY && !call->encoding_unknown)) {
        (void)snprintf(text, sizeof(text), "message: compressed flag %u, expected 0%s",
                       (unsigned)flag,
                       flag == 1 ? " because grpc-encoding was not given" : " or 1");
        refuse(call, WEIR_EINVAL, text);
    } else if (flag == 1 && call->encoding_unknown) {
        refuse(call, WEIR_EENCODING, "grpc-encoding: expected identity, deflate or gzip");
    } else if (call->left > call->message_bytes_max) {
        (void)snprintf(text, sizeof(text), "Received message larger than max (%llu vs. %llu)",
                       (unsigned long long)call->left, (unsigned long long)call->message_bytes_max);
        refuse(call, WEIR_ETOOBIG, text);
    } else if (call->reader->unary && call->message_count > 0) {
        refuse(call, WEIR_EINVAL, "this call takes one message, and a second one came");
    } else if (flag == 1) {
        call->in_message = true;
        begin_compressed(call);
        if (!call->finished && call->left == 0) {
            begin_inflating(call);
        }
    } else {
        call->in_message = true;
        call->reader->begin(call, call->left);
        if (!call->finished && call->left == 0) {
            say_end(call);
        }
    }
}

static bool can_read(const struct grpc_call *call)
{
    return !call->finished && !call->canceled && !call->paused && !is_busy(call);
}

/* Takes from the front of `in` what can be read now. */
static void read_bytes(struct grpc_call *call, struct bytes *in)
{
    while (in->size > 0 && can_read(call)) {
        if (!call->in_message) {
            call->prefix[call->prefix_size++] = (uint8_t)in->data[0];
            in->data++;
            in->size--;
            if (call->prefix_size == GRPC_PREFIX_BYTES) {
                begin_message(call);
            }
            continue;
        }
        const struct bytes part = { in->data,
                                    in->size < call->left ? in->size : (size_t)call->left };
        in->data += part.size;
        in->size -= part.size;
        call->left -= part.size;
        if (call->inflation != NULL) {
            gather(call, part);
            continue;
        }
        call->reader->bytes(call, part);
        if (!call->finished && call->left == 0) {
            say_end(call);
        }
    }
}

/* The client has said everything, and all of it is read. */
static void say_half_closed(struct grpc_call *call)
{
    if (call->told || !call->half_closed || !can_read(call) || call->held.size > call->held_at) {
        return;
    }
    call->told = true;
    if (call->in_message || call->prefix_size > 0) {
        refuse(call, WEIR_EINVAL, "the call ended within a message");
    } else if (!call->reader->unary) {
        call->reader->half_closed(call);
    } else if (call->message_count == 0) {
        refuse(call, WEIR_EINVAL, "this call takes one message, and none came");
    } else {
        call->reader->end(call);
    }
}

static void say_expecting(struct grpc_call *call)
{
    call->x->expecting = can_read(call) && !call->half_closed &&
                         (call->in_message || call->prefix_size > 0 || call->reader->unary);
}

/* A call that is never read to its end must not keep what it has read. */
static void compact(struct grpc_call *call)
{
    struct buffer *held = &call->held;
    if (call->held_at > 0 && call->held_at >= held->size / 2) {
        held->size -= call->held_at;
        memmove(held->data, held->data + call->held_at, held->size);
        body_let_go(call->held_at);
        call->held_at = 0;
    }
}

static void hold(struct grpc_call *call, struct bytes rest)
{
    compact(call);
    struct weir_err err;
    const enum weir_status status = body_try_hold(rest.size, call->x->loop->limits, &err);
    if (status != WEIR_OK) {
        refuse(call, status, err.text);
        return;
    }
    buffer_append(&call->held, rest.data, rest.size);
    if (call->held.failed) {
        body_let_go(rest.size);
        refuse(call, WEIR_ENOMEM, "out of memory for this call");
    }
}

/* Reads on in what was held. */
static void read_held(struct grpc_call *call)
{
    if (call->reading) {
        return;
    }
    call->reading = true;
    struct bytes in = { NULL, call->held.size - call->held_at };
    const size_t before = in.size;
    if (in.size > 0) {
        in.data = call->held.data + call->held_at;
        read_bytes(call, &in);
        call->held_at = call->held.size - in.size;
    }
    call->reading = false;
    if (call->finished) {
        return;
    }
    if (before > in.size) {
        exchange_consume(call->x, before - in.size);
    }
    if (in.size == 0) {
        drop_held(call);
        buffer_init(&call->held, SIZE_MAX);
    }
    say_half_closed(call);
    if (!call->finished) {
        say_expecting(call);
    }
}

bool grpc_place(const struct grpc_call *call, char **at, size_t *room)
{
    if (!can_read(call) || !call->in_message || call->inflation != NULL || call->held.size > 0 ||
        call->reader->place == NULL || !call->reader->place(call, at, room)) {
        return false;
    }
    *room = *room < call->left ? *room : (size_t)call->left;
    return true;
}

void grpc_data(struct grpc_call *call, struct bytes bytes)
{
    const size_t size = bytes.size;
    call->received_bytes += size;
    if (call->finished) {
        return;
    }
    if (call->held.size == 0) {
        call->reading = true;
        read_bytes(call, &bytes);
        call->reading = false;
    }
    if (!call->finished && bytes.size > 0) {
        hold(call, bytes);
    }
    if (call->finished) {
        return;
    }
    if (size > bytes.size) {
        exchange_consume(call->x, size - bytes.size);
    }
    say_expecting(call);
}

void grpc_request(struct grpc_call *call)
{
    if (call->finished) {
        return;
    }
    call->half_closed = true;
    say_half_closed(call);
    if (!call->finished) {
        say_expecting(call);
    }
}

void grpc_cancel(struct grpc_call *call)
{
    call->canceled = true;
    if (!is_busy(call)) {
        call->reader->canceled(call);
    }
}

void grpc_drained(struct grpc_call *call)
{
    if (!call->finished && call->reader->drained != NULL) {
        call->reader->drained(call);
    }
}

void grpc_pause(struct grpc_call *call)
{
    call->paused = true;
    call->x->expecting = false;
}

void grpc_resume(struct grpc_call *call)
{
    call->paused = false;
    if (can_read(call)) {
        read_held(call);
    }
}

/* --- The beginning --- */

bool grpc_is_type(struct bytes type)
{
    const size_t size = sizeof(TYPE) - 1;
    return type.size >= size &&
           bytes_equal_nocase((struct bytes){ type.data, size }, BYTES_LITERAL(TYPE)) &&
           (type.size == size || type.data[size] == '+' || type.data[size] == ';');
}

/* "<1 to 8 digits><unit>"; absent is for ever. */
static bool read_timeout(struct bytes text, uint64_t *out_ns)
{
    static const struct {
        char unit;
        uint64_t ns;
    } units[] = { { 'H', 3600 * NS_PER_S }, { 'M', 60 * NS_PER_S }, { 'S', NS_PER_S },
                  { 'm', NS_PER_MS },       { 'u', 1000 },          { 'n', 1 } };
    uint64_t number = 0;
    if (text.data == NULL) {
        *out_ns = CLOCK_NEVER;
        return true;
    }
    if (text.size < 2 ||
        !bytes_to_u64((struct bytes){ text.data, text.size - 1 }, 99999999, &number)) {
        return false;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (text.data[text.size - 1] == units[i].unit) {
            if (__builtin_mul_overflow(number, units[i].ns, out_ns)) {
                *out_ns = CLOCK_NEVER;
            }
            return true;
        }
    }
    return false;
}

/* What the header says of the call.  False: its time-out makes no sense. */
static bool read_head(const struct exchange *x, struct head_grpc *out)
{
    *out = (struct head_grpc){ .known = true };
    out->encoding_unknown =
        encoding_of(exchange_field(x, "grpc-encoding"), &out->encoding, NULL) != WEIR_OK;
    return read_timeout(exchange_field(x, "grpc-timeout"), &out->timeout_ns);
}

struct grpc_call *grpc_open(struct exchange *x, const struct grpc_reader *reader,
                            uint64_t message_bytes_max)
{
    struct grpc_call *call = arena_try_zero(&x->arena, 1, sizeof(*call));
    struct closing *closing = arena_try_zero(&x->arena, 1, sizeof(*closing));
    struct head_grpc own;
    struct head_grpc *head = x->head == NULL ? &own : &x->head->grpc;
    if (call == NULL || closing == NULL) {
        grpc_fail(x, WEIR_ENOMEM, "out of memory for this call", 0);
        return NULL;
    }
    if ((head == &own || !head->known) && !read_head(x, head)) {
        head->known = false;
        grpc_fail(x, WEIR_EINVAL,
                  "grpc-timeout: expected up to eight digits and one of H, M, S, m, u, n", 0);
        return NULL;
    }
    call->x = x;
    call->reader = reader;
    call->message_bytes_max = message_bytes_max;
    call->deadline_ns = clock_add(x->begun_ns, head->timeout_ns);
    call->pushback_ms = PUSHBACK_MS;
    call->encoding = head->encoding;
    call->encoding_unknown = head->encoding_unknown;
    buffer_init(&call->held, SIZE_MAX);
    closing->call = call;
    closing->disposable.dispose = close_call;
    arena_dispose(&x->arena, &closing->disposable);
    x->incremental = true;
    x->expecting = reader->unary;
    return call;
}
