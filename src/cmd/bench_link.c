/*
 * A link that broke stays down for a moment, so that a server that is gone does not keep this
 * thread busy with failing; one that the server closed in order is dialed again at once.  Links
 * of HTTP/1.1 that are up and have nothing in hand stand on a stack: the one that was busy last
 * goes first, which is kind to caches here and there.
 */
#include "cmd/bench_link.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cmd/secure.h"
#include "util/mem.h"

void link_watch(struct wire *wire, struct link *link, uint32_t index, bool writing, int how)
{
    struct epoll_event event = { .events = EPOLLIN | (writing ? EPOLLOUT : 0U), .data.u32 = index };
    link->writing = writing;
    (void)epoll_ctl(wire->epoll, how, link->fd, &event);
}

void link_mark_dirty(struct wire *wire, struct link *link, uint32_t index)
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
    wire->places[tag].link = LINK_NONE;
    wire->happened++;
    wire->options.answered(wire->options.user, tag, &answer);
}

void link_break(struct wire *wire, struct link *link, const char *why, bool at_once)
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
    link->tag = LINK_NONE;
    set_down(wire, link, clock_now_ns(&wire->clock) + (at_once ? 0 : LINK_RETRY_NS));
    if (tag != LINK_NONE) {
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

void link_push_idle(struct wire *wire, struct link *link, uint32_t index)
{
    if (!link->stacked) {
        link->stacked = true;
        wire->idle[wire->idle_count++] = index;
    }
}

void link_set_up(struct wire *wire, struct link *link, uint32_t index)
{
    link->state = LINK_UP;
    wire->up_count++;
    wire->happened++;
    if (link->mux != NULL) {
        link_mark_dirty(wire, link, index);
    } else if (link->tag == LINK_NONE) {
        link_push_idle(wire, link, index);
    }
}

void link_connected(struct wire *wire, struct link *link, uint32_t index)
{
    const int on = 1;
    (void)setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (link->tls == NULL) {
        link_set_up(wire, link, index);
        return;
    }
    link->state = LINK_SECURING;
    wire_read_sealed(wire, link, index, (struct bytes){ NULL, 0 }); /* The client speaks first. */
}

/* What speaks on a link; 0, or errno. */
static int make_speakers(struct wire *wire, struct link *link)
{
    const bool http2 = wire->options.plan != NULL;
    if (http2) {
        const struct http2_mux_options options = { .streams_max = wire->options.streams_max,
                                                   .answered = wire_on_mux_answer,
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
    link_watch(wire, link, index, !now, EPOLL_CTL_ADD);
    if (now) {
        link_connected(wire, link, index);
    }
    return 0;
}

void link_redial_due(struct wire *wire)
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
            set_down(wire, link, link->retry_ns > now_ns ? link->retry_ns : now_ns + LINK_RETRY_NS);
        }
    }
}

struct link *link_add(struct wire *wire, int *fault)
{
    struct link *link = mem_try_zero(1, sizeof(*link));
    *fault = ENOMEM;
    if (link != NULL) {
        link->fd = -1;
        link->tag = LINK_NONE;
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
