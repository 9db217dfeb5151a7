#include "grpc_bed.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "net/protocol.h"

#define HEARD_MAX (64 * 1024 * 1024)

static struct grpc_bed *bed_of(const struct http_conn *c)
{
    return (struct grpc_bed *)(void *)((char *)(uintptr_t)c - offsetof(struct grpc_bed, conn));
}

/* --- In place of HTTP/2 --- */

static void begin_answer(struct stream *s, const char *content_type, uint64_t body_size)
{
    s->content_type = content_type;
    s->body_size = body_size;
}

static void changed(struct stream *s)
{
    (void)s;
}

static void finish_answer(struct stream *s)
{
    bed_of(s->x.conn)->over = true;
}

static void consume(struct stream *s, size_t size)
{
    bed_of(s->x.conn)->consumed_bytes += size;
}

static const struct protocol protocol = {
    .begin = begin_answer,
    .changed = changed,
    .finish = finish_answer,
    .consume = consume,
};

/* --- The reader --- */

static void begin(struct grpc_call *call, uint64_t size)
{
    struct grpc_bed *bed = call->user;
    bed->announced = size;
    bed->delivered = 0;
    buffer_printf(&bed->heard, "<%llu>", (unsigned long long)size);
}

static void bytes(struct grpc_call *call, struct bytes part)
{
    struct grpc_bed *bed = call->user;
    assert(part.size > 0);
    bed->delivered += part.size;
    assert(bed->delivered <= bed->announced);
    buffer_append(&bed->heard, part.data, part.size);
}

static void end(struct grpc_call *call)
{
    struct grpc_bed *bed = call->user;
    assert(bed->delivered == bed->announced);
    bed->messages++;
    if (call->reader->unary) {
        assert(!bed->half_closed);
        bed->half_closed = true;
        buffer_char(&bed->heard, '.');
        if (bed->echo) {
            grpc_finish(call, WEIR_OK, NULL);
        }
    } else if (bed->pause_every > 0 && bed->messages % bed->pause_every == 0) {
        grpc_pause(call);
    }
}

static void half_closed(struct grpc_call *call)
{
    struct grpc_bed *bed = call->user;
    assert(!bed->half_closed);
    bed->half_closed = true;
    buffer_char(&bed->heard, '.');
    if (bed->echo) {
        grpc_finish(call, WEIR_OK, NULL);
    }
}

static void canceled(struct grpc_call *call)
{
    struct grpc_bed *bed = call->user;
    bed->canceled = true;
    grpc_finish(call, WEIR_ECANCELED, NULL);
}

/* --- The bed --- */

void grpc_bed_init(struct grpc_bed *bed, bool unary, uint64_t message_bytes_max,
                   const char *const *fields)
{
    memset(bed, 0, sizeof *bed);
    limits_init(&bed->limits);
    const enum weir_status status = loop_init(&bed->loop, &bed->limits, NULL);
    assert(status == WEIR_OK);
    (void)status;
    buffer_init(&bed->heard, HEARD_MAX);
    bed->conn.loop = &bed->loop;
    bed->conn.net = net_of(&bed->loop);
    bed->conn.protocol = &protocol;
    struct stream *s = stream_create(bed->conn.net);
    assert(s != NULL);
    bed->x = &s->x;
    bed->x->loop = &bed->loop;
    bed->x->conn = &bed->conn;
    bed->x->version = HTTP_2;
    bed->x->method = HTTP_POST;
    bed->x->begun_ns = bed->loop.now_ns;
    bed->x->fields = bed->fields;
    for (; fields != NULL && *fields != NULL; fields += 2) {
        bed->fields[bed->x->field_count++] =
            (struct http_field){ bytes_of(fields[0]), bytes_of(fields[1]) };
    }
    bed->reader = (struct grpc_reader){
        .unary = unary,
        .begin = begin,
        .bytes = bytes,
        .end = end,
        .half_closed = half_closed,
        .canceled = canceled,
    };
    bed->call = grpc_open(bed->x, &bed->reader, message_bytes_max);
    if (bed->call != NULL) {
        bed->call->user = bed;
    }
}

void grpc_bed_finish(struct grpc_bed *bed)
{
    while (bed->loop.uv.active_reqs.count > 0) {
        loop_turn_once(&bed->loop);
    }
    if (!bed->over) {
        grpc_bed_cancel(bed);
    }
    stream_destroy(bed->conn.net, stream_of(bed->x));
    buffer_finish(&bed->heard);
    loop_finish(&bed->loop);
}

void grpc_bed_data(struct grpc_bed *bed, struct bytes data)
{
    if (!bed->over && bed->call != NULL) {
        grpc_data(bed->call, data);
    }
}

void grpc_bed_end(struct grpc_bed *bed)
{
    if (!bed->over && bed->call != NULL) {
        grpc_request(bed->call);
    }
}

void grpc_bed_cancel(struct grpc_bed *bed)
{
    if (!bed->over && bed->call != NULL) {
        bed->x->canceled = true;
        grpc_cancel(bed->call);
    }
}

void grpc_bed_settle(struct grpc_bed *bed)
{
    while (!bed->over && bed->call != NULL) {
        if (bed->loop.uv.active_reqs.count > 0) {
            loop_turn_once(&bed->loop);
        } else if (bed->call->paused) {
            grpc_resume(bed->call);
        } else {
            return;
        }
    }
}

static struct bytes find(const struct answer_field *field, const char *name)
{
    for (; field != NULL; field = field->next) {
        if (bytes_equal(field->name, bytes_of(name))) {
            return field->value;
        }
    }
    return BYTES_LITERAL("");
}

struct bytes grpc_bed_status(const struct grpc_bed *bed, const char *name)
{
    const struct stream *s = stream_of(bed->x);
    return s->trailers != NULL ? find(s->trailers, name) : find(s->fields, name);
}

struct bytes grpc_bed_body(const struct grpc_bed *bed)
{
    const struct stream *s = stream_of(bed->x);
    char *body = malloc((size_t)bed->x->unsent_bytes + 1);
    size_t size = 0;
    assert(body != NULL);
    for (const struct piece *piece = s->pieces; piece != NULL; piece = piece->next) {
        memcpy(body + size, piece->bytes.data, piece->bytes.size);
        size += piece->bytes.size;
    }
    assert(size == bed->x->unsent_bytes);
    return (struct bytes){ body, size };
}
