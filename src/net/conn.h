/*
 * conn.h — one client's connection: its socket, its line of exchanges, its time-outs.
 *
 *   OPEN ──last request read or refused──► LAST ──its answer sent──► LINGER ──end, time──► GONE
 *     └────────────────────────────────────────┴── client gone, error, time-out ───────────► GONE
 *
 *   OPEN    requests are read
 *   LAST    answers are sent, bytes that arrive are dropped
 *   LINGER  our side is shut; reading on until the client has seen the answer
 *   GONE    the socket is closed; the memory stays until the last exchange is finished
 *
 * Everything here belongs to the loop's thread.
 */
#ifndef WEIR_NET_CONN_H
#define WEIR_NET_CONN_H

#include "net/http.h"
#include "net/http1.h"
#include "net/loop.h"
#include "net/net.h"

enum conn_state { CONN_OPEN, CONN_LAST, CONN_LINGER, CONN_GONE, CONN_STATE_COUNT };

struct stream;

struct http_conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    struct loop *loop;
    struct http_net *net;
    const struct http_handler *handler;
    uint32_t listener;
    enum conn_state state;
    struct list_node node;   /* In loop->connections. */
    struct list_node dirty;  /* In loop->dirty. */
    struct list_node resume; /* In net->resume. */
    struct list line;        /* Streams, the next answer first. */
    uint32_t line_count;
    uint64_t ahead_bytes;   /* Memory of the line: headers of requests, and answers not sent yet. */
    struct stream *reading; /* The end of the line while its request is incomplete. */
    struct http1 http1;
    char *held; /* Bytes read but not looked at while the line is full. */
    size_t held_size;
    bool paused;  /* Not reading because the line is full. */
    bool ended;   /* The client has ended its stream. */
    bool closed;  /* libuv is done with the handle. */
    bool used;    /* Has carried a first byte. */
    bool writing; /* `write` is under way with slice_bytes. */
    size_t slice_bytes;
    size_t slice_left; /* At the last look. */
    struct loop_timer timer;
    uint64_t read_ns;  /* When bytes last arrived; at first, when it was opened. */
    uint64_t write_ns; /* When the socket last took bytes of a slice. */
    uint64_t idle_ns;  /* Since when the line is empty; in LINGER, since when it lingers. */
    uv_write_t write;
    uv_shutdown_t shutdown;
    char peer[56];
    uint32_t peer_size;
};

/* Takes the next client of a listening handle, UV_TCP or UV_NAMED_PIPE.  False when memory is out;
 * libuv then keeps the client, and accepts no other, until this is called again. */
WEIR_MUST_USE bool conn_accept(struct http_net *net, uv_stream_t *server,
                               const struct http_handler *handler, uint32_t listener);

/* Something of this connection changed: it is looked at in this turn's writes. */
void conn_dirty(struct http_conn *c);

/* Takes a finished stream out of its line and ends it. */
void conn_retire(struct http_conn *c, struct stream *s);

/* The loop stops taking requests: closes an idle connection, makes the last answer due the last. */
void conn_drain(struct http_conn *c);

/* Closes the socket and cancels what is unfinished; `c` stays valid until libuv's close callback.
 * */
void conn_close(struct http_conn *c);

/* For loop.c: the writes of a turn, and reading on where it had stopped. */
void conn_flush_dirty(struct loop *loop);
void conn_resume(struct loop *loop);

#endif
