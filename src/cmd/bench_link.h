/*
 * bench_link.h — the connections of `weir bench`, and the inside of struct wire, for bench_wire.c.
 *
 * A link is one connection:
 *
 *     DOWN --dial--> DIALING --connected--> UP --closed, broken--> DOWN
 *                           \-> SECURING --/    (TLS shakes hands)
 *
 * Here is how links come and go; bench_wire.c sends and receives.  One thread.
 */
#ifndef WEIR_CMD_BENCH_LINK_H
#define WEIR_CMD_BENCH_LINK_H

#include <sys/socket.h>

#include "cmd/bench_wire.h"
#include "cmd/client.h"
#include "net/http1_client.h"
#include "util/clock.h"

#define LINK_RETRY_NS (20 * NS_PER_MS)
#define LINK_NONE UINT32_MAX

enum link_state { LINK_DOWN, LINK_DIALING, LINK_SECURING, LINK_UP };

/* In wire.links, at its index. */
struct link {
    int fd;
    enum link_state state;
    bool stacked; /* On the stack of idle ones, perhaps no longer idle. */
    bool writing; /* Waits for room in the socket. */
    bool dirty;   /* Has output, and is in the list of those. */
    bool served;  /* Has answered since it was dialed. */
    int fault;    /* errno of a link that broke while sending; 0: none. */
    uint32_t tag; /* HTTP/1.1: in hand; LINK_NONE. */
    struct bytes out;
    uint64_t retry_ns;
    struct http1_client reader;
    struct http2_mux *mux;
    struct tls_link *tls; /* NULL: plain. */
};

/* Where a request is. */
struct place {
    uint32_t link; /* LINK_NONE: not under way. */
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

/* What is waited for.  Output leaves with the next turn. */
void link_watch(struct wire *wire, struct link *link, uint32_t index, bool writing, int how);
void link_mark_dirty(struct wire *wire, struct link *link, uint32_t index);

/* Takes the link down and tells of everything that was under way on it. */
void link_break(struct wire *wire, struct link *link, const char *why, bool at_once);

/* HTTP/1.1: it has nothing in hand. */
void link_push_idle(struct wire *wire, struct link *link, uint32_t index);

/* It can be used; its socket is connected. */
void link_set_up(struct wire *wire, struct link *link, uint32_t index);
void link_connected(struct wire *wire, struct link *link, uint32_t index);

/* Those that are down, and have been for long enough. */
void link_redial_due(struct wire *wire);

/* A new link, dialed.  NULL: memory is out, or it cannot be dialed (*fault). */
struct link *link_add(struct wire *wire, int *fault);

/* In bench_wire.c: bytes came from a link with TLS (or none: it is to begin); the answers of
 * link.mux. */
void wire_read_sealed(struct wire *wire, struct link *link, uint32_t index, struct bytes in);
void wire_on_mux_answer(void *user, uint32_t tag, const struct http2_mux_answer *answer);

#endif
