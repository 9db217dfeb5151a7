/*
 * HTTP/2 connections: any bytes after the preface, however they are cut.  Every exchange that was
 * begun ends once, frames that come back are whole, and when the client has left nothing is held
 * any more.
 *
 * The first byte seeds the cuts, the second says which windows the client opens; the rest is what
 * it sends.  What the server does with a request is told by the letter behind the path's slash.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/http.h"
#include "net/loop.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define LATER_MAX 64
#define TURNS_MAX 1000

static void require(bool promise)
{
    if (!promise) {
        abort();
    }
}

/* --- The server --- */

static struct {
    struct limits limits;
    struct loop loop;
    struct http_handler handler;
    struct http_listener *listener;
    struct sockaddr_un address;
    unsigned begun;
    unsigned done;
    struct exchange *later[LATER_MAX]; /* To be answered by and by. */
    unsigned later_count;
} server;

static char text[70000]; /* Answers. */

static char kind_of(const struct exchange *x)
{
    return x->path.size > 1 ? x->path.data[1] : '\0';
}

static void on_head(void *context, struct exchange *x)
{
    (void)context;
    server.begun++;
    require(x->version == HTTP_2 && x->path.size > 0 && x->path.data[0] == '/');
    for (uint32_t i = 0; i < x->field_count; i++) {
        const struct bytes name = x->fields[i].name;
        require(name.size > 0 && name.data[0] != ':');
        require(memchr(x->fields[i].value.data, '\n', x->fields[i].value.size) == NULL);
    }
    switch (kind_of(x)) {
    case 'i':
        x->incremental = true;
        break;
    case 'e':
        x->incremental = true;
        x->expecting = true;
        break;
    case 'r':
        exchange_fail(x, WEIR_ENOENT, "refused", 0);
        break;
    case 'm':
        x->body_bytes_max = 100;
        break;
    default:
        break;
    }
}

static void on_data(void *context, struct exchange *x, struct bytes bytes)
{
    (void)context;
    require(x->incremental && !x->canceled && !x->finished && bytes.size > 0);
    exchange_consume(x, bytes.size);
    if (x->status == 0 && bytes.data[0] == 'a') {
        exchange_header(x, "X-Early", BYTES_LITERAL("yes"));
        exchange_begin(x, 200, "text/plain", HTTP_STREAM);
    }
    if (x->status != 0) {
        exchange_copy(x, bytes);
    }
}

static void answer(struct exchange *x)
{
    switch (kind_of(x)) {
    case 'i':
    case 'e':
    case 't':
        if (x->status == 0) {
            exchange_begin(x, 200, "application/grpc", HTTP_BRIEF);
        }
        exchange_piece(x, (struct bytes){ text, 5 });
        exchange_piece(x, (struct bytes){ text, 3000 });
        exchange_trailer(x, "grpc-status", BYTES_LITERAL("0"));
        exchange_finish(x);
        break;
    case 'n':
        exchange_begin(x, 200, "application/grpc", 0);
        exchange_finish(x);
        break;
    case 'b':
        exchange_reply(x, 200, "text/plain", (struct bytes){ text, sizeof(text) });
        break;
    case 'c':
        exchange_begin(x, 200, NULL, 100);
        exchange_piece(x, (struct bytes){ text, 50 });
        exchange_finish(x); /* Cut short. */
        break;
    default:
        exchange_reply(x, 200, "text/plain", x->body);
        break;
    }
}

static void on_request(void *context, struct exchange *x)
{
    (void)context;
    require(x->body.size <= x->body_bytes_max);
    const char kind = kind_of(x);
    if ((kind == 'l' || kind == 'b' || kind == 't') && server.later_count < LATER_MAX) {
        server.later[server.later_count++] = x;
    } else if (kind == 's') {
        exchange_begin(x, 200, "text/event-stream", HTTP_STREAM);
        exchange_copy(x, (struct bytes){ text, 20000 });
    } else {
        answer(x);
    }
}

static void on_canceled(void *context, struct exchange *x)
{
    (void)context;
    require(x->canceled && !x->finished);
    for (unsigned i = 0; i < server.later_count; i++) {
        if (server.later[i] == x) {
            return; /* As engines do: by and by. */
        }
    }
    exchange_finish(x);
}

static void on_drained(void *context, struct exchange *x)
{
    (void)context;
    if (x->sent_bytes < 50000) {
        exchange_copy(x, (struct bytes){ text, 100 });
    } else {
        exchange_finish(x);
    }
}

static void on_done(void *context, struct exchange *x)
{
    (void)context;
    (void)x;
    server.done++;
}

static void answer_one(void)
{
    if (server.later_count > 0) {
        struct exchange *x = server.later[--server.later_count];
        if (x->canceled) {
            exchange_finish(x);
        } else {
            answer(x);
        }
    }
}

static void start(void)
{
    char address[100];
    limits_init(&server.limits);
    server.limits.streams_max = 100;
    server.limits.stream_window = 100000;
    require(loop_init(&server.loop, &server.limits, NULL) == WEIR_OK);
    server.handler = (struct http_handler){ .head = on_head,
                                            .data = on_data,
                                            .request = on_request,
                                            .canceled = on_canceled,
                                            .done = on_done,
                                            .drained = on_drained };
    (void)snprintf(address, sizeof(address), "unix:/tmp/weir-fuzz-http2-%d.sock", (int)getpid());
    require(http_listen(&server.loop, address, 0, &server.handler, &server.listener, NULL) ==
            WEIR_OK);
    server.address.sun_family = AF_UNIX;
    (void)snprintf(server.address.sun_path, sizeof(server.address.sun_path), "%s", address + 5);
    memset(text, 'x', sizeof(text));
}

/* Frees everything, so that a leak is seen. */
static void stop(void)
{
    http_listener_close(server.listener);
    loop_finish(&server.loop);
}

/* A turn that waits for nothing. */
static void turn(void)
{
    loop_wake(&server.loop);
    loop_turn_once(&server.loop);
}

/* --- The client --- */

struct client {
    int fd;
    unsigned char head[9]; /* Of the frame that comes in. */
    size_t head_size;
    size_t payload_left;
    bool closed;
};

/* Frames are of a known type and no larger than the client allows. */
static void take(struct client *c, const unsigned char *data, size_t size)
{
    while (size > 0) {
        if (c->payload_left > 0) {
            const size_t part = size < c->payload_left ? size : c->payload_left;
            c->payload_left -= part;
            data += part;
            size -= part;
            continue;
        }
        c->head[c->head_size++] = *data++;
        size--;
        if (c->head_size == sizeof(c->head)) {
            c->head_size = 0;
            c->payload_left =
                (size_t)c->head[0] << 16 | (size_t)c->head[1] << 8 | (size_t)c->head[2];
            require(c->head[3] <= 9 && c->head[3] != 2 && c->head[3] != 5);
        }
    }
}

static void read_all(struct client *c)
{
    unsigned char data[65536];
    ssize_t size = 0;
    while ((size = recv(c->fd, data, sizeof(data), MSG_DONTWAIT)) > 0) {
        take(c, data, (size_t)size);
    }
    c->closed = c->closed || size == 0;
}

static void send_all(struct client *c, const uint8_t *data, size_t size)
{
    while (size > 0 && !c->closed) {
        const ssize_t sent = send(c->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        }
        turn();
        read_all(c);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    if (server.listener == NULL) {
        start();
        atexit(stop);
    }
    server.begun = 0;
    server.done = 0;
    struct client c = { .fd = socket(AF_UNIX, SOCK_STREAM, 0) };
    require(c.fd >= 0 &&
            connect(c.fd, (struct sockaddr *)&server.address, sizeof(server.address)) == 0);
    const uint8_t settings[] = { 0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, data[1], data[1] };
    send_all(&c, (const uint8_t *)PREFACE, sizeof(PREFACE) - 1);
    send_all(&c, settings, sizeof(settings));
    const size_t step = data[0] == 0 ? size : 1 + (size_t)data[0] * data[0];
    for (size_t at = 2; at < size; at += step) {
        send_all(&c, data + at, size - at < step ? size - at : step);
        answer_one();
    }
    turn();
    answer_one();
    turn();
    read_all(&c);
    require(!c.closed || (c.head_size == 0 && c.payload_left == 0));
    close(c.fd);
    for (unsigned turns = 0; server.loop.connection_count > 0 && turns < TURNS_MAX; turns++) {
        turn();
        answer_one();
    }
    require(server.loop.connection_count == 0 && server.later_count == 0);
    require(server.begun == server.done && http_bodies_bytes() == 0);
    return 0;
}
