/*
 * wire_send() writes at once where it is HTTP/1.1, because one request is one segment anyhow.  With
 * gRPC it only adds to the connection's output, which leaves with the next turn: everything that
 * one turn of the loop begins travels together.
 */
#include "cmd/bench_wire.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/bench_epoll.h"
#include "cmd/bench_link.h"
#include "cmd/secure.h"
#include "util/mem.h"

#define READ_BYTES ((size_t)256 << 10)
#define EVENTS_MAX 64

/* ---- The address ----------------------------------------------------------------------------- */

/* Of the first address that answers: "localhost" has two, and often one server.  With TLS that one
 * shakes hands, too: what is wrong with a certificate is said once, and before anything else. */
static enum weir_status resolve(struct wire *wire, struct weir_err *err)
{
    struct client *server = &wire->server;
    server->http2 = wire->options.plan != NULL;
    enum weir_status status = client_dial(server, err);
    wire->address_size = sizeof(wire->address);
    if (status == WEIR_OK &&
        getpeername(server->fd, (struct sockaddr *)&wire->address, &wire->address_size) != 0) {
        status = err_set(err, WEIR_EIO, "%s:%s: %s", server->host, server->port, strerror(errno));
    }
    client_finish(server);
    return status;
}

/* ---- Sending --------------------------------------------------------------------------------- */

/* Something sealed has not left yet. */
static bool holds_sealed(const struct link *link)
{
    return link->tls != NULL && tls_outgoing(link->tls).size > 0;
}

/* A link that breaks while it sends is told of at the next turn: see bench_wire.h. */
static void set_fault(struct wire *wire, struct link *link, int fault)
{
    wire->faulty += link->fault == 0;
    link->fault = fault;
}

/* As much as the socket takes. */
static void write_http(struct wire *wire, struct link *link, uint32_t index)
{
    struct bytes *out = &link->out;
    size_t sent = 1;
    while (out->size > 0 && sent > 0) {
        const int fault = secure_write(link->tls, link->fd, out, 1, &sent);
        if (fault != 0) {
            set_fault(wire, link, fault);
            return;
        }
        out->data += sent;
        out->size -= sent;
        wire->bytes_sent += sent;
    }
    const bool more = out->size > 0 || holds_sealed(link);
    if (link->writing != more) {
        link_watch(wire, link, index, more, EPOLL_CTL_MOD);
    }
}

static void write_mux(struct wire *wire, struct link *link, uint32_t index)
{
    struct bytes pieces[HTTP2_OUT_PIECES_MAX];
    bool full = false;
    for (uint32_t count = http2_mux_output(link->mux, pieces); count > 0 && !full;
         count = http2_mux_output(link->mux, pieces)) {
        size_t all = 0;
        size_t sent = 0;
        for (uint32_t i = 0; i < count; i++) {
            all += pieces[i].size;
        }
        const int fault = secure_write(link->tls, link->fd, pieces, count, &sent);
        if (fault != 0) {
            set_fault(wire, link, fault);
            return;
        }
        wire->bytes_sent += sent;
        http2_mux_sent(link->mux, sent);
        full = link->tls != NULL ? sent == 0 : sent < all; /* It seals only so much at once. */
    }
    full = full || holds_sealed(link);
    if (link->writing != full) {
        link_watch(wire, link, index, full, EPOLL_CTL_MOD);
    }
}

static void flush(struct wire *wire)
{
    for (uint32_t i = 0; i < wire->dirty_count; i++) {
        const uint32_t index = wire->dirty[i];
        struct link *link = wire->links[index];
        link->dirty = false;
        if (link->state == LINK_UP && link->mux != NULL && !link->writing && link->fault == 0) {
            write_mux(wire, link, index);
        }
    }
    wire->dirty_count = 0;
}

static bool send_http(struct wire *wire, uint32_t tag, struct bytes request)
{
    uint32_t index = LINK_NONE;
    while (wire->idle_count > 0 && index == LINK_NONE) {
        const uint32_t top = wire->idle[--wire->idle_count];
        struct link *link = wire->links[top];
        link->stacked = false;
        if (link->state == LINK_UP && link->tag == LINK_NONE && link->fault == 0) {
            index = top;
        }
    }
    if (index == LINK_NONE) {
        int fault = 0;
        if (wire->link_count == wire->options.connections_max || wire->down_count > 0 ||
            link_add(wire, &fault) == NULL) {
            return false;
        }
        index = wire->link_count - 1;
    }
    struct link *link = wire->links[index];
    link->tag = tag;
    link->out = request;
    wire->places[tag].link = index;
    if (link->state == LINK_UP) {
        write_http(wire, link, index);
    }
    return true;
}

static bool send_grpc(struct wire *wire, uint32_t tag, const struct wire_request *request)
{
    for (uint32_t i = 0; i < wire->link_count; i++) {
        const uint32_t index = wire->cursor;
        struct link *link = wire->links[index];
        wire->cursor = index + 1 < wire->link_count ? index + 1 : 0;
        if (link->state == LINK_UP && link->fault == 0 && http2_mux_room(link->mux) > 0) {
            wire->places[tag].link = index;
            wire->places[tag].stream =
                http2_mux_begin(link->mux, &request->head, request->body, tag);
            link_mark_dirty(wire, link, index);
            return true;
        }
    }
    return false;
}

bool wire_send(struct wire *wire, uint32_t tag, const struct wire_request *request)
{
    return wire->options.plan == NULL ? send_http(wire, tag, request->http)
                                      : send_grpc(wire, tag, request);
}

void wire_cancel(struct wire *wire, uint32_t tag)
{
    const uint32_t index = wire->places[tag].link;
    if (index == LINK_NONE) {
        return;
    }
    struct link *link = wire->links[index];
    wire->places[tag].link = LINK_NONE;
    if (link->mux != NULL) {
        http2_mux_cancel(link->mux, wire->places[tag].stream);
        link_mark_dirty(wire, link, index);
    } else {
        link->tag = LINK_NONE; /* HTTP/1.1 has no other way than to hang up. */
        link_break(wire, link, "", true);
    }
}

/* ---- Receiving ------------------------------------------------------------------------------- */

void wire_on_mux_answer(void *user, uint32_t tag, const struct http2_mux_answer *answer)
{
    struct wire *wire = user;
    const bool bare = !answer->reset && answer->grpc < 0 && answer->http == 200;
    const struct wire_answer told = {
        .http = answer->http,
        .grpc = answer->grpc,
        .text = answer->reset ? bytes_of("the server reset the stream")
                : bare        ? bytes_of("the server's answer has no grpc-status")
                              : answer->text,
        .broken = answer->reset || bare,
    };
    struct link *link = wire->links[wire->places[tag].link];
    link->served = true;
    wire->places[tag].link = LINK_NONE;
    wire->happened++;
    wire->options.answered(wire->options.user, tag, &told);
}

/* One whole answer of HTTP/1.1. */
static void on_http_answer(struct wire *wire, struct link *link, uint32_t index)
{
    const uint32_t tag = link->tag;
    const struct wire_answer answer = { .http = link->reader.status,
                                        .grpc = -1,
                                        .text = { link->reader.text, link->reader.text_size } };
    link->tag = LINK_NONE;
    link->served = true;
    wire->places[tag].link = LINK_NONE;
    wire->happened++;
    if (link->out.size > 0 || link->reader.close) {
        link_break(wire, link, "",
                   true); /* Answered before the request was through, or the last. */
    } else {
        link_push_idle(wire, link, index);
    }
    wire->options.answered(wire->options.user, tag, &answer);
}

static void read_http(struct wire *wire, struct link *link, uint32_t index, struct bytes in)
{
    while (in.size > 0) {
        if (link->tag == LINK_NONE) {
            link_break(wire, link, "", false); /* Nobody asked. */
            return;
        }
        const enum http1_client_step step = http1_client_input(&link->reader, &in);
        if (step == HTTP1_CLIENT_BROKEN) {
            link_break(wire, link, "the server does not speak HTTP/1.1", false);
            return;
        }
        if (step == HTTP1_CLIENT_MORE) {
            return;
        }
        on_http_answer(wire, link, index);
        if (link->state != LINK_UP) {
            return;
        }
    }
}

static void read_mux(struct wire *wire, struct link *link, uint32_t index, struct bytes in)
{
    struct weir_err err = { 0 };
    if (http2_mux_input(link->mux, in, &err) != WEIR_OK) {
        link_break(wire, link, err.text, false);
    } else if (http2_mux_is_closing(link->mux) && http2_mux_active(link->mux) == 0) {
        link_break(wire, link, "", true);
    } else {
        link_mark_dirty(wire, link, index);
    }
}

static void on_close(struct wire *wire, struct link *link, uint32_t index, int fault)
{
    if (fault == 0 && link->mux == NULL && link->tag != LINK_NONE &&
        http1_client_ended(&link->reader)) {
        link->reader.close = true;
        on_http_answer(wire, link, index);
        return;
    }
    link_break(wire, link,
               fault != 0 ? strerror(fault) : "the server closed the connection before its answer",
               link->served && fault == 0);
}

static void read_plain(struct wire *wire, struct link *link, uint32_t index, struct bytes in)
{
    if (link->mux != NULL) {
        read_mux(wire, link, index, in);
    } else {
        read_http(wire, link, index, in);
    }
}

/* What TLS has to say itself: handshakes, alerts. */
static void flush_sealed(struct wire *wire, struct link *link, uint32_t index)
{
    const int fault = secure_flush(link->tls, link->fd);
    if (fault != 0 && fault != EAGAIN) {
        set_fault(wire, link, fault);
    } else if (link->writing != (fault != 0)) {
        link_watch(wire, link, index, fault != 0, EPOLL_CTL_MOD);
    }
}

void wire_read_sealed(struct wire *wire, struct link *link, uint32_t index, struct bytes in)
{
    tls_feed(link->tls, in);
    while (link->fd >= 0) {
        size_t size = 0;
        switch (tls_read(link->tls, wire->plain, READ_BYTES, &size)) {
        case TLS_DATA:
            read_plain(wire, link, index, (struct bytes){ wire->plain, size });
            break;
        case TLS_READY:
            link_set_up(wire, link, index);
            break;
        case TLS_MORE:
            flush_sealed(wire, link, index);
            return;
        case TLS_END:
            on_close(wire, link, index, 0);
            return;
        default:
            (void)secure_flush(link->tls, link->fd);
            link_break(wire, link, tls_trust_fault(link->tls), false);
            return;
        }
    }
}

static void on_readable(struct wire *wire, struct link *link, uint32_t index)
{
    ssize_t size;
    do {
        size = recv(link->fd, wire->in, READ_BYTES, 0);
    } while (size < 0 && errno == EINTR);
    if (size < 0 && errno == EAGAIN) {
        return;
    }
    if (size <= 0) {
        on_close(wire, link, index, size < 0 ? errno : 0);
        return;
    }
    wire->bytes_received += (uint64_t)size;
    const struct bytes in = { wire->in, (size_t)size };
    if (link->tls != NULL) {
        wire_read_sealed(wire, link, index, in);
    } else {
        read_plain(wire, link, index, in);
    }
}

static int dial_fault(const struct link *link)
{
    int fault = 0;
    socklen_t size = sizeof(fault);
    (void)getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &fault, &size);
    return fault;
}

static void on_writable(struct wire *wire, struct link *link, uint32_t index)
{
    if (link->state == LINK_DIALING) {
        const int fault = dial_fault(link);
        if (fault != 0) {
            link_break(wire, link, strerror(fault), false);
            return;
        }
        link_connected(wire, link, index);
    }
    if (link->tls != NULL) {
        flush_sealed(wire, link, index);
    }
    if (link->state != LINK_UP || link->fault != 0 || holds_sealed(link)) {
        return;
    }
    if (link->mux != NULL) {
        write_mux(wire, link, index);
    } else {
        write_http(wire, link, index);
    }
}

static void on_event(struct wire *wire, const struct epoll_event *event)
{
    const uint32_t index = event->data.u32;
    struct link *link = wire->links[index];
    if (link->fd < 0) {
        return; /* Broken since by one before it. */
    }
    if ((event->events & EPOLLOUT) != 0 || link->state == LINK_DIALING) {
        on_writable(wire, link, index);
    }
    if ((event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && link->fd >= 0 &&
        link->state != LINK_DIALING) {
        on_readable(wire, link, index);
    }
}

/* ---- A turn ---------------------------------------------------------------------------------- */

static void tell_faults(struct wire *wire)
{
    for (uint32_t i = 0; i < wire->link_count && wire->faulty > 0; i++) {
        if (wire->links[i]->fault != 0) {
            link_break(wire, wire->links[i], strerror(wire->links[i]->fault), false);
        }
    }
}

uint32_t wire_turn(struct wire *wire, uint64_t wait_ns)
{
    struct epoll_event events[EVENTS_MAX];
    wire->happened = 0;
    link_redial_due(wire);
    flush(wire);
    tell_faults(wire);
    if (wire->happened > 0) {
        wait_ns = 0;
    }
    if (wire->down_count > 0 && wire->retry_ns != CLOCK_NEVER) {
        wait_ns = wait_ns < LINK_RETRY_NS ? wait_ns : LINK_RETRY_NS;
    }
    const int count =
        epoll_wait_ns(wire->epoll, events, EVENTS_MAX, wait_ns < NS_PER_S ? wait_ns : NS_PER_S);
    for (int i = 0; i < count; i++) {
        on_event(wire, &events[i]);
    }
    flush(wire);
    return wire->happened + (count > 0 ? (uint32_t)count : 0);
}

/* ---- The whole ------------------------------------------------------------------------------- */

static enum weir_status make_room(struct wire *wire, struct weir_err *err)
{
    const uint32_t links = wire->options.connections_max;
    wire->links = mem_try_zero(links, sizeof(*wire->links));
    wire->idle = mem_try_zero(links, sizeof(*wire->idle));
    wire->dirty = mem_try_zero(links, sizeof(*wire->dirty));
    wire->places = mem_try_zero(wire->options.tags, sizeof(*wire->places));
    wire->in = mem_try_alloc(READ_BYTES);
    wire->plain = wire->server.secure ? mem_try_alloc(READ_BYTES) : wire->in;
    if (wire->links == NULL || wire->idle == NULL || wire->dirty == NULL || wire->places == NULL ||
        wire->in == NULL || wire->plain == NULL) {
        return err_nomem(err, "connections", links * sizeof(struct link));
    }
    for (uint32_t i = 0; i < wire->options.tags; i++) {
        wire->places[i].link = LINK_NONE;
    }
    wire->epoll = epoll_create1(EPOLL_CLOEXEC);
    return wire->epoll < 0 ? err_set(err, WEIR_EIO, "epoll: %s", strerror(errno)) : WEIR_OK;
}

static bool is_ready(const struct wire *wire)
{
    for (uint32_t i = 0; i < wire->link_count; i++) {
        const struct link *link = wire->links[i];
        if (link->state != LINK_UP || (link->mux != NULL && !http2_mux_is_ready(link->mux))) {
            return false;
        }
    }
    return true;
}

static enum weir_status connect_all(struct wire *wire, struct weir_err *err)
{
    const struct client *server = &wire->server;
    for (uint32_t i = 0; i < wire->options.connections; i++) {
        int fault = 0;
        if (link_add(wire, &fault) == NULL) {
            return err_set(err, WEIR_EIO, "%s:%s: cannot make connection %u of %u: %s",
                           server->host, server->port, i + 1, wire->options.connections,
                           strerror(fault));
        }
    }
    const uint64_t until_ns = clock_now_ns(&wire->clock) + wire->options.timeout_ns;
    while (!is_ready(wire)) {
        if (clock_now_ns(&wire->clock) > until_ns) {
            return err_set(
                err, WEIR_ETIMEOUT, "%s:%s: of %u connections %u are there after %llu ms%s",
                server->host, server->port, wire->options.connections, wire->up_count,
                (unsigned long long)(wire->options.timeout_ns / NS_PER_MS),
                wire->options.plan != NULL && wire->up_count > 0 ? "; does it speak HTTP/2?" : "");
        }
        (void)wire_turn(wire, NS_PER_MS);
    }
    return WEIR_OK;
}

enum weir_status wire_open(const struct wire_options *options, struct wire **out,
                           struct weir_err *err)
{
    struct wire *wire = mem_try_zero(1, sizeof(*wire));
    if (wire == NULL) {
        return err_nomem(err, "connections", sizeof(*wire));
    }
    wire->options = *options;
    wire->epoll = -1;
    wire->retry_ns = CLOCK_NEVER;
    clock_init(&wire->clock);
    enum weir_status status = client_init(&wire->server, options->url, options->timeout_ns, err);
    if (status == WEIR_OK) {
        status = resolve(wire, err);
    }
    if (status == WEIR_OK) {
        status = make_room(wire, err);
    }
    if (status == WEIR_OK) {
        status = connect_all(wire, err);
    }
    if (status != WEIR_OK) {
        wire_close(wire);
        return status;
    }
    *out = wire;
    return WEIR_OK;
}

void wire_close(struct wire *wire)
{
    if (wire == NULL) {
        return;
    }
    for (uint32_t i = 0; i < wire->link_count; i++) {
        struct link *link = wire->links[i];
        if (link->fd >= 0) {
            (void)close(link->fd);
        }
        http2_mux_destroy(link->mux);
        tls_close(link->tls);
        mem_free(link);
    }
    if (wire->epoll >= 0) {
        (void)close(wire->epoll);
    }
    mem_free(wire->links);
    mem_free(wire->idle);
    mem_free(wire->dirty);
    mem_free(wire->places);
    if (wire->plain != wire->in) {
        mem_free(wire->plain);
    }
    mem_free(wire->in);
    mem_free(wire);
}

uint64_t wire_bytes_sent(const struct wire *wire)
{
    return wire->bytes_sent;
}

uint64_t wire_bytes_received(const struct wire *wire)
{
    return wire->bytes_received;
}
