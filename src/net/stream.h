/*
 * stream.h — an exchange as net sees it: with what is still to be sent, and how far its
 * request has come.  Owned by its loop.
 *
 * One request per stream on HTTP/1; the connection keeps its streams in the order of their
 * requests, which is the order of the answers.
 */
#ifndef WEIR_NET_STREAM_H
#define WEIR_NET_STREAM_H

#include <stdalign.h>
#include <stddef.h>

#include "net/body.h"
#include "net/http.h"
#include "net/http1.h"

/* Bytes on their way to the socket. */
struct piece {
    struct piece *next;
    struct bytes bytes; /* What is left of it. */
    void *heap;         /* Freed once sent; else the bytes outlive the stream. */
    size_t held;        /* Counted by body_hold() and its connection; small ones are not. */
    bool body;          /* Counts as body, unlike heads and chunk sizes. */
};

#define STREAM_BLOCK_BYTES 4096 /* A small request and its answer fit in it. */

struct stream {
    struct exchange x; /* First. */
    const struct http_handler *handler;
    struct body body;
    struct piece *pieces;
    struct piece **pieces_end;
    struct http1_line *lines; /* Added by exchange_header(), latest first. */
    uint64_t head_bytes;      /* Memory of the request's header, beyond `block`. */
    uint64_t promised;        /* Body bytes that a begun answer of known size still owes. */
    bool version_1_0;
    bool keep_alive_1_0;
    bool headed;    /* The handler knows it: head() was called. */
    bool requested; /* request() was called. */
    bool complete;  /* Nothing more is read for it. */
    bool last;      /* The connection ends with its answer. */
    bool chunked;
    bool chunk_sent;
    bool bodyless; /* HEAD, or a status without body. */
    bool dropped;  /* Body bytes of a stream went nowhere, and its handler waits for more. */
    bool broken;   /* Its answer cannot be completed: the connection ends where it stops. */
    alignas(max_align_t) char block[STREAM_BLOCK_BYTES];
};

/* From the loop's spare ones; NULL when memory is out. */
WEIR_MUST_USE struct stream *stream_create(struct http_net *net);

/* Lets go of everything of a stream that is in no line. */
void stream_destroy(struct http_net *net, struct stream *s);

static inline struct stream *stream_of(struct exchange *x)
{
    return (struct stream *)(void *)x;
}

static inline struct stream *stream_at(struct list_node *node)
{
    return node == NULL ? NULL : stream_of(list_entry(node, struct exchange, node));
}

/* "HTTP/1.1 100 Continue" ahead of the answer. */
void stream_continue(struct stream *s);

/* Bytes of the front piece are with the socket. */
void stream_advance(struct stream *s, size_t size);

/* Counts a request that net refused by itself. */
void http_count_refusal(enum weir_status status);

#endif
