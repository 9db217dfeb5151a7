/*
 * stream.h — an exchange as net sees it: with what is still to be sent, and how far its
 * request has come.  Owned by its loop.
 *
 * On HTTP/1 the connection keeps its streams in the order of their requests, which is the order of
 * the answers; on HTTP/2 the order means nothing.
 */
#ifndef WEIR_NET_STREAM_H
#define WEIR_NET_STREAM_H

#include <stdalign.h>
#include <stddef.h>

#include "net/answer.h"
#include "net/body.h"
#include "net/http.h"

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
    struct answer_field *fields;   /* Added by exchange_header(), latest first. */
    struct answer_field *trailers; /* Added by exchange_trailer(). */
    uint64_t head_bytes;           /* Memory of the request's header, beyond `block`. */
    uint64_t promised;             /* Body bytes that a begun answer of known size still owes. */
    bool keep_alive_1_0;
    bool headed;    /* The handler knows it: head() was called. */
    bool requested; /* request() was called. */
    bool complete;  /* Nothing more is read for it. */
    bool last;      /* The connection ends with its answer. */
    bool chunked;
    bool chunk_sent;
    bool brief;    /* Of unannounced size, with few pieces. */
    bool bodyless; /* HEAD, or a status without body. */
    bool dropped;  /* Body bytes of a stream went nowhere, and its handler waits for more. */
    bool broken;   /* Its answer cannot be completed: it ends where it stops. */

    /* HTTP/2 only. */
    struct list_node ready; /* In the session's line of streams with something to say. */
    int32_t id;
    uint32_t queued;          /* Segments of the session's queue that point into its pieces. */
    uint64_t framed;          /* Bytes of its pieces that are in that queue. */
    const char *content_type; /* Of the begun answer. */
    uint64_t body_size;
    uint64_t moved_ns;      /* When bytes last came in or went out. */
    uint64_t trailer_bytes; /* Of its client. */
    uint64_t held_bytes;    /* Of its own and its header's memory: counted by body_try_hold(). */
    bool ending;      /* Its last frame of data is being read: its window is of no use any more. */
    bool submitted;   /* The session knows the answer. */
    bool deferred;    /* The session asked for bytes when there were none. */
    bool closed;      /* The session has ended it. */
    bool reset;       /* By us. */
    bool oversized;   /* Its header is beyond the limits. */
    bool authority;   /* The first field is `:authority`. */
    bool matching;    /* All fields so far are those of the header before. */
    bool recalled;    /* And so are the rest: the session was given a stand-in, */
    bool announced;   /* and does not know that the header says how long the body is, */
    uint64_t owed;    /* of which so many bytes have yet to come. */
    uint32_t matched; /* How many. */
    uint32_t field_room; /* In x.fields. */
    alignas(max_align_t) char block[STREAM_BLOCK_BYTES];
};

/* From the loop's spare ones; NULL when memory is out. */
WEIR_MUST_USE struct stream *stream_create(struct http_net *net);

/* Once head() has said where a body of `size` bytes, 0: not declared, shall go. */
void stream_begin_body(struct stream *s, uint64_t size);

/* More of it, as body_append(). */
WEIR_MUST_USE enum weir_status stream_take_body(struct stream *s, const struct limits *limits,
                                                struct bytes bytes, struct weir_err *err);

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

/* Ahead of, between or behind body bytes: text of HTTP/1 itself, which lives as long as the arena.
 * Without memory the answer is broken. */
void stream_push(struct stream *s, struct bytes bytes);

/* request() is about to be called. */
static inline void stream_ask(struct stream *s)
{
    s->requested = true;
    s->x.loop->asked_count += s->x.status == 0 ? 1 : 0;
}

/* Forgets what is still to be sent. */
void stream_drop_pieces(struct stream *s);

/* Bytes of the front piece are with the socket. */
void stream_advance(struct stream *s, size_t size);

/* Counts a request that net refused by itself. */
void http_count_refusal(enum weir_status status);

#endif
