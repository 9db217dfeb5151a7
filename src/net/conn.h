/*
 * conn.h — one client's connection: its socket, its exchanges, its time-outs.
 *
 *   OPEN ──last request read or refused──► LAST ──its answer sent──► LINGER ──end, time──► GONE
 *     └────────────────────────────────────────┴── client gone, error, time-out ───────────► GONE
 *
 *   OPEN    requests are read
 *   LAST    answers are sent, bytes that arrive are dropped
 *   LINGER  our side is shut; reading on until the client has seen the answer
 *   GONE    the socket is closed; the memory stays until the last exchange is finished
 *
 * TLS sits between the socket and the protocol, which knows nothing of it: bytes of the socket go
 * through tls_read() before the protocol is fed, what the protocol gathers goes through tls_seal()
 * before it is written, and the protocol hears that bytes are gone once all that they were sealed
 * into is with the socket.
 *
 * Everything here belongs to the loop's thread.
 */
#ifndef WEIR_NET_CONN_H
#define WEIR_NET_CONN_H

#include "net/http.h"
#include "net/http1.h"
#include "net/loop.h"
#include "net/net.h"
#include "net/socket.h"
#include "net/tls.h"

enum conn_state { CONN_OPEN, CONN_LAST, CONN_LINGER, CONN_GONE, CONN_STATE_COUNT };

struct stream;
struct protocol;
struct http2;

/* HTTP/1's part of a connection. */
struct line {
    struct stream *reading; /* The end of the line while its request is incomplete. */
    struct http1 http1;
};

#define CONN_SNIFF_BYTES 4 /* Enough to tell HTTP/2's preface ("PRI ") from a request line. */

struct http_conn {
    union socket_handle uv;
    int fd; /* Of the same, from its accept to its close. */
    struct loop *loop;
    struct http_net *net;
    const struct http_handler *handler;
    uint32_t listener;
    struct tls_link *tls; /* NULL without. */
    size_t sealed_bytes;  /* What the protocol gathered for what TLS has to send. */
    enum conn_state state;
    struct list_node node;   /* In loop->connections. */
    struct list_node dirty;  /* In loop->dirty. */
    struct list_node resume; /* In net->resume. */
    const struct protocol *protocol;
    struct line line;
    struct http2 *http2; /* NULL on HTTP/1. */
    struct list streams; /* HTTP/1: in the order of their answers. */
    uint32_t stream_count;
    uint64_t ahead_bytes; /* Memory of requests' headers, and of answers not sent yet. */
    char *held;           /* Bytes read but not looked at while it is paused. */
    size_t held_size;
    char sniffed[CONN_SNIFF_BYTES]; /* First bytes, until they tell the protocol. */
    uint8_t sniffed_size;
    bool chosen;  /* The protocol is. */
    bool paused;  /* Not reading, because the protocol has enough. */
    bool ended;   /* The client has ended its stream. */
    bool closed;  /* libuv is done with the handle. */
    bool bulky;   /* The latest bytes were read to where they belong. */
    bool used;    /* Has carried a first byte. */
    bool writing; /* `write` is under way with slice_bytes. */
    size_t slice_bytes;
    size_t slice_left; /* At the last look. */
    struct loop_timer timer;
    uint64_t read_ns;  /* When bytes last arrived. */
    uint64_t write_ns; /* When the socket last took bytes of a slice. */
    uint64_t idle_ns;  /* Since when there are no streams; in LINGER, since when it lingers. */
    uv_write_t write;
    uv_shutdown_t shutdown;
    uint64_t peer_memo; /* As in the exchange. */
    char peer[56];
    uint32_t peer_size;
    int64_t peer_user; /* As in the exchange. */
};

/* Takes the next client of a listening handle, UV_TCP or UV_NAMED_PIPE; `tls` NULL: without.  False
 * when memory is out; libuv then keeps the client, and accepts no other, until this is called
 * again. */
WEIR_MUST_USE bool conn_accept(struct http_net *net, uv_stream_t *server, struct tls *tls,
                               const struct http_handler *handler, uint32_t listener);

/* Something of this connection changed: it is looked at in this turn's writes. */
void conn_dirty(struct http_conn *c);

/* The loop stops taking requests. */
void conn_drain(struct http_conn *c);

/* Closes the socket and cancels what is unfinished; `c` stays valid until libuv's close
 * callback. */
void conn_close(struct http_conn *c);

/* For loop.c: the writes of a turn, and reading on where it had stopped. */
void conn_flush_dirty(struct loop *loop);
void conn_resume(struct loop *loop);

/* --- For protocols --- */

/* Makes `s` one of the connection's; takes a finished one out and ends it. */
void conn_adopt(struct http_conn *c, struct stream *s);
void conn_retire(struct http_conn *c, struct stream *s);

void conn_move(struct http_conn *c, enum conn_state to);

/* Its client was heard a moment ago: a request may be on its way. */
bool conn_is_fresh(const struct http_conn *c);

/* When a connection without streams has been idle for `timeout_ns`, or is given up because the loop
 * drains. */
uint64_t conn_idle_until_ns(const struct http_conn *c, uint64_t timeout_ns);

/* The earliest time at which something must have happened.  One timer serves all of them;
 * conn_rearm() moves it only when it would fire too late, so that a busy connection hardly touches
 * it. */
uint64_t conn_deadline_ns(const struct http_conn *c);
void conn_rearm(struct http_conn *c);

/* Stops reading; `rest` is fed again when it goes on.  That is in the next turn, so that what is
 * then read gets its hooks. */
void conn_pause(struct http_conn *c, struct bytes rest);
void conn_resume_later(struct http_conn *c);

/* Everything is said: shuts our side and waits for the client's end. */
void conn_linger(struct http_conn *c);

#endif
