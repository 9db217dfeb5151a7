/*
 * A link is one connection:
 *
 *     DOWN --dial--> DIALING --connected--> UP --closed, broken--> DOWN
 *                           \-> SECURING --/    (TLS shakes hands)
 *
 * A link that broke stays down for a moment, so that a server that is gone does not keep this
 * thread busy with failing; one that the server closed in order is dialed again at once.  Links
 * of HTTP/1.1 that are up and have nothing in hand stand on a stack: the one that was busy last
 * goes first, which is kind to caches here and there.
 *
 * wire_send() writes at once where it is HTTP/1.1, because one request is one segment anyhow.  With
 * gRPC it only adds to the connection's output, which leaves with the next turn: everything that
 * one turn of the loop begins travels together.
 */
#include "cmd/bench_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/bench_epoll.h"
#include "cmd/client.h"
#include "cmd/secure.h"
#include "net/http1_client.h"
#include "util/clock.h"
#include "util/mem.h"

#define READ_BYTES ((size_t)256 << 10)
#define EVENTS_MAX 64
#define RETRY_NS (20 * NS_PER_MS)
#define NONE UINT32_MAX

enum link_state { LINK_DOWN, LINK_DIALING, LINK_SECURING, LINK_UP };

struct link {
    int fd;
    enum link_state state;
    bool stacked; /* On the stack of idle ones, perhaps no longer idle. */
    bool writing; /* Waits for room in the socket. */
    bool dirty;   /* Has output, and is in the list of those. */
    bool served;  /* Has answered since it was dialed. */
    int fault;    /* errno of a link that broke while sending; 0: none. */
    uint32_t tag; /* HTTP/1.1: in hand; NONE. */
    struct bytes out;
    uint64_t retry_ns;
    struct http1_client reader;
    struct http2_mux *mux;
    struct tls_link *tls; /* NULL: plain. */
};

struct place {
    uint32_t link; /* NONE: not under way. */
    uint32_t stream;
};

struct wire {
    struct wire_options options;
    struct clock clock;
    struct client server; /* Its address as text. */
    struct sockaddr_storage address;
    socklen_t address_size;
    int epoll;
    struct link **links;
    uint32_t link_count;
    uint32_t up_count;
    uint32_t down_count;
    uint64_t retry_ns; /* When the first link that is down is due. */
    uint32_t *idle;
    uint32_t idle_count;
    uint32_t *dirty;
    uint32_t dirty_count;
    uint32_t cursor; /* gRPC: where to look for room next. */
    uint32_t faulty; /* Links with a fault to tell. */
    uint32_t happened;
    struct place *places;
    char *in;
    char *plain; /* Of what came sealed. */
    uint64_t bytes_sent;
    uint64_t bytes_received;
};

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

/* ---- Links come and go ----------------------------------------------------------------------- */

static void on_mux_answer(void *user, uint32_t tag, const struct http2_mux_answer *answer);

static void watch(struct wire *wire, struct link *link, uint32_t index, bool writing, int how)
{
    struct epoll_event event = { .events = EPOLLIN | (writing ? EPOLLOUT : 0U), .data.u32 = index };
    link->writing = writing;
    (void)epoll_ctl(wire->epoll, how, link->fd, &event);
}

static void mark_dirty(struct wire *wire, struct link *link, uint32_t index)
{
    if (!link->dirty) {
        link->dirty = true;
        wire->dirty[wire->dirty_count++] = index;
    }
}

static void set_down(struct wire *wire, struct link *link, uint64_t retry_ns)
{
    link->state = LINK_DOWN;
    link->retry_ns = retry_ns;
    wire->down_count++;
    wire->retry_ns = retry_ns < wire->retry_ns ? retry_ns : wire->retry_ns;
}

static void tell_broken(struct wire *wire, uint32_t tag, const char *why)
{
    const struct wire_answer answer = { .grpc = -1, .broken = true, .text = bytes_of(why) };
    wire->places[tag].link = NONE;
    wire->happened++;
    wire->options.answered(wire->options.user, tag, &answer);
}

/* Takes the link down and tells of everything that was under way on it. */
static void break_link(struct wire *wire, struct link *link, const char *why, bool at_once)
{
    struct http2_mux *mux = link->mux;
    struct tls_link *tls = link->tls;
    const uint32_t tag = link->tag;
    wire->up_count -= link->state == LINK_UP;
    wire->faulty -= link->fault != 0;
    (void)close(link->fd);
    link->fd = -1;
    link->fault = 0;
    link->mux = NULL;
    link->tls = NULL;
    link->tag = NONE;
    set_down(wire, link, clock_now_ns(&wire->clock) + (at_once ? 0 : RETRY_NS));
    if (tag != NONE) {
        tell_broken(wire, tag, why);
    }
    uint32_t at = 0;
    uint32_t each;
    while (mux != NULL && http2_mux_next(mux, &at, &each)) {
        tell_broken(wire, each, why);
    }
    http2_mux_destroy(mux);
    tls_close(tls);
}

static void push_idle(struct wire *wire, struct link *link, uint32_t index)
{
    if (!link->stacked) {
        link->stacked = true;
        wire->idle[wire->idle_count++] = index;
    }
}

static void set_up(struct wire *wire, struct link *link, uint32_t index)
{
    link->state = LINK_UP;
    wire->up_count++;
    wire->happened++;
    if (link->mux != NULL) {
        mark_dirty(wire, link, index);
    } else if (link->tag == NONE) {
        push_idle(wire, link, index);
    }
}

static void read_sealed(struct wire *wire, struct link *link, uint32_t index, struct bytes in);

static void on_connected(struct wire *wire, struct link *link, uint32_t index)
{
    const int on = 1;
    (void)setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (link->tls == NULL) {
        set_up(wire, link, index);
        return;
    }
    link->state = LINK_SECURING;
    read_sealed(wire, link, index, (struct bytes){ NULL, 0 }); /* The client speaks first. */
}

/* What speaks on a link; 0, or errno. */
static int make_speakers(struct wire *wire, struct link *link)
{
    const bool http2 = wire->options.plan != NULL;
    if (http2) {
        const struct http2_mux_options options = { .streams_max = wire->options.streams_max,
                                                   .answered = on_mux_answer,
                                                   .user = wire };
        link->mux = http2_mux_create(wire->options.plan, &options);
    }
    const bool secured =
        !wire->server.secure || secure_open(wire->server.host, http2, &link->tls, NULL) == WEIR_OK;
    return secured && (link->mux != NULL || !http2) ? 0 : ENOMEM;
}

static int give_up(struct link *link, int fault)
{
    if (link->fd >= 0) {
        (void)close(link->fd);
    }
    http2_mux_destroy(link->mux);
    tls_close(link->tls);
    link->mux = NULL;
    link->tls = NULL;
    link->fd = -1;
    link->state = LINK_DOWN;
    return fault;
}

/* 0, or errno. */
static int dial(struct wire *wire, struct link *link, uint32_t index)
{
    if (make_speakers(wire, link) != 0) {
        return give_up(link, ENOMEM);
    }
    http1_client_init(&link->reader);
    link->served = false;
    link->out = (struct bytes){ NULL, 0 };
    link->fd = socket(wire->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (link->fd < 0) {
        return give_up(link, errno);
    }
    link->state = LINK_DIALING;
    const bool now =
        connect(link->fd, (const struct sockaddr *)&wire->address, wire->address_size) == 0;
    if (!now && errno != EINPROGRESS) {
        return give_up(link, errno);
    }
    watch(wire, link, index, !now, EPOLL_CTL_ADD);
    if (now) {
        on_connected(wire, link, index);
    }
    return 0;
}

static void redial_due(struct wire *wire)
{
    const uint64_t now_ns = clock_now_ns(&wire->clock);
    if (wire->down_count == 0 || now_ns < wire->retry_ns) {
        return;
    }
    wire->retry_ns = CLOCK_NEVER;
    for (uint32_t i = 0; i < wire->link_count; i++) {
        struct link *link = wire->links[i];
        if (link->state != LINK_DOWN) {
            continue;
        }
        wire->down_count--;
        if (link->retry_ns > now_ns || dial(wire, link, i) != 0) {
            set_down(wire, link, link->retry_ns > now_ns ? link->retry_ns : now_ns + RETRY_NS);
        }
    }
}

/* NULL: memory is out, or it cannot be dialed (*fault). */
static struct link *add_link(struct wire *wire, int *fault)
{
    struct link *link = mem_try_zero(1, sizeof(*link));
    *fault = ENOMEM;
    if (link != NULL) {
        link->fd = -1;
        link->tag = NONE;
        const uint32_t index = wire->link_count;
        *fault = dial(wire, link, index);
        if (*fault == 0) {
            wire->links[wire->link_count++] = link;
            return link;
        }
        mem_free(link);
    }
    return NULL;
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
        watch(wire, link, index, more, EPOLL_CTL_MOD);
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
        watch(wire, link, index, full, EPOLL_CTL_MOD);
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
    uint32_t index = NONE;
    while (wire->idle_count > 0 && index == NONE) {
        const uint32_t top = wire->idle[--wire->idle_count];
        struct link *link = wire->links[top];
        link->stacked = false;
        if (link->state == LINK_UP && link->tag == NONE && link->fault == 0) {
            index = top;
        }
    }
    if (index == NONE) {
        int fault = 0;
        if (wire->link_count == wire->options.connections_max || wire->down_count > 0 ||
            add_link(wire, &fault) == NULL) {
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
            mark_dirty(wire, link, index);
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
    if (index == NONE) {
        return;
    }
    struct link *link = wire->links[index];
    wire->places[tag].link = NONE;
    if (link->mux != NULL) {
        http2_mux_cancel(link->mux, wire->places[tag].stream);
        mark_dirty(wire, link, index);
    } else {
        link->tag = NONE; /* HTTP/1.1 has no other way than to hang up. */
        break_link(wire, link, "", true);
    }
}

/* ---- Receiving ------------------------------------------------------------------------------- */

static void on_mux_answer(void *user, uint32_t tag, const struct http2_mux_answer *answer)
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
    wire->places[tag].link = NONE;
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
    link->tag = NONE;
    link->served = true;
    wire->places[tag].link = NONE;
    wire->happened++;
    if (link->out.size > 0 || link->reader.close) {
        break_link(wire, link, "",
                   true); /* Answered before the request was through, or the last. */
    } else {
        push_idle(wire, link, index);
    }
    wire->options.answered(wire->options.user, tag, &answer);
}

static void read_http(struct wire *wire, struct link *link, uint32_t index, struct bytes in)
{
    while (in.size > 0) {
        if (link->tag == NONE) {
            break_link(wire, link, "", false); /* Nobody asked. */
            return;
        }
        const enum http1_client_step step = http1_client_input(&link->reader, &in);
        if (step == HTTP1_CLIENT_BROKEN) {
            break_link(wire, link, "the server does not speak HTTP/1.1", false);
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
        break_link(wire, link, err.text, false);
    } else if (http2_mux_is_closing(link->mux) && http2_mux_active(link->mux) == 0) {
        break_link(wire, link, "", true);
    } else {
        mark_dirty(wire, link, index);
    }
}

static void on_close(struct wire *wire, struct link *link, uint32_t index, int fault)
{
    if (fault == 0 && link->mux == NULL && link->tag != NONE && http1_client_ended(&link->reader)) {
        link->reader.close = true;
        on_http_answer(wire, link, index);
        return;
    }
    break_link(wire, link,
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
        watch(wire, link, index, fault != 0, EPOLL_CTL_MOD);
    }
}

static void read_sealed(struct wire *wire, struct link *link, uint32_t index, struct bytes in)
{
    tls_feed(link->tls, in);
    while (link->fd >= 0) {
        size_t size = 0;
        switch (tls_read(link->tls, wire->plain, READ_BYTES, &size)) {
        case TLS_DATA:
            read_plain(wire, link, index, (struct bytes){ wire->plain, size });
            break;
        case TLS_READY:
            set_up(wire, link, index);
            break;
        case TLS_MORE:
            flush_sealed(wire, link, index);
            return;
        case TLS_END:
            on_close(wire, link, index, 0);
            return;
        default:
            (void)secure_flush(link->tls, link->fd);
            break_link(wire, link, tls_trust_fault(link->tls), false);
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
        read_sealed(wire, link, index, in);
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
            break_link(wire, link, strerror(fault), false);
            return;
        }
        on_connected(wire, link, index);
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
            break_link(wire, wire->links[i], strerror(wire->links[i]->fault), false);
        }
    }
}

uint32_t wire_turn(struct wire *wire, uint64_t wait_ns)
{
    struct epoll_event events[EVENTS_MAX];
    wire->happened = 0;
    redial_due(wire);
    flush(wire);
    tell_faults(wire);
    if (wire->happened > 0) {
        wait_ns = 0;
    }
    if (wire->down_count > 0 && wire->retry_ns != CLOCK_NEVER) {
        wait_ns = wait_ns < RETRY_NS ? wait_ns : RETRY_NS;
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
        wire->places[i].link = NONE;
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
        if (add_link(wire, &fault) == NULL) {
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
