/*
 * http2.h — HTTP/2 on a connection: an nghttp2 session and what it has to say.
 *
 *   bytes in ─► session ─► http2_request.c: headers and bodies become exchanges
 *   answers  ─► http2_answer.c: submitted to the session ─► queue ─► bytes out
 *
 * What the session writes waits in a queue of segments: small frames are copied one behind the
 * other into `text`, the payload of large DATA frames is lent from the answers' pieces.  The queue
 * is filled when it is empty, so a client that does not read holds one filling.
 *
 * For the connection's loop.
 */
#ifndef WEIR_NET_HTTP2_H
#define WEIR_NET_HTTP2_H

#include <nghttp2/nghttp2.h>

#include "net/head.h"
#include "net/http2_guard.h"
#include "net/http2_recall.h"
#include "net/protocol.h"

#define HTTP2_TEXT_BYTES 32768       /* Of frames that are copied. */
#define HTTP2_SEGMENTS_MAX 64        /* As many as one gathering write takes. */
#define HTTP2_FRAME_PIECES_MAX 32    /* Of one DATA frame. */
#define HTTP2_COPY_BYTES_MAX 2048    /* A payload up to this size is copied. */
#define HTTP2_ENDED_COUNT 16         /* Streams that are remembered when they are over. */
#define HTTP2_FRAME_BYTES_MAX 262144 /* Of one DATA frame that we send: others get their turn. */

/* Bytes that leave next. */
struct http2_segment {
    const char *data;
    size_t size;
    struct stream *stream; /* Whose pieces they are in; NULL: in `text`. */
};

/* Where the frames that come in begin, and what streams there have been. */
struct http2_scan {
    size_t left; /* Of the preface, or the frame that is being read. */
    unsigned char head[9];
    uint8_t head_size; /* Of it that has come. */
    size_t size;       /* Of the frame. */
    int32_t data_id;   /* The stream whose data it is; 0: it has others, or padding. */
    bool ends;         /* The frame may end a stream: what follows is judged after it. */
    int32_t last_id;   /* Of the streams that the client has opened. */
    int32_t known_id;  /* Of those that the session knows. */
    int32_t open_id;   /* The same, or 0 when that stream is over. */
    int32_t gap_from;  /* Numbers between these two, */
    int32_t gap_to;    /* the client has left out. */
    int32_t ended[HTTP2_ENDED_COUNT]; /* The latest streams that ended, other than by us. */
    uint32_t ended_next;
};

struct http2 {
    struct http_conn *conn;
    nghttp2_session *session;
    struct list ready; /* Streams with something new to say, by `ready`. */
    struct http2_segment segments[HTTP2_SEGMENTS_MAX];
    uint32_t first; /* Of the segments that are left. */
    uint32_t count; /* Behind the last. */
    char *text;     /* HTTP2_TEXT_BYTES while anything is in it. */
    size_t text_size;
    const uint8_t *frame; /* What the session gave and `text` had no room for. */
    size_t frame_left;
    struct http2_scan scan;
    uint64_t scan_ns; /* When streams are next looked at for time-outs. */
    struct http2_guard guard;
    struct head *head;          /* The header before; NULL: none that could come again. */
    uint32_t heads_unlike;      /* So many since then were another one. */
    struct head_draft draft;    /* The header that is being read. */
    struct http2_recall recall; /* The block that means `head`. */
    struct stream *latest;      /* Looked for last, while it lives: the next frame is often its. */
    uint64_t heads_bytes;       /* Of the headers of all streams. */
    bool settled;               /* The client has said how it is set. */
    bool large;                 /* The client may send large frames. */
    bool noticed; /* The client was told to go; the last stream is told when it has heard. */
    bool heard;   /* It has. */
};

/* --- http2_scan.c: frames, before the session sees them --- */

void http2_scan_init(struct http2_scan *scan);

/* Looks at what came, and writes over what is known; the session is to be fed as many bytes before
 * more is looked at.  The bytes are the connection's own. */
size_t http2_scan(struct http2 *h, struct bytes in);

/* The session knows a stream; it has ended it. */
void http2_scan_opened(struct http2_scan *scan, int32_t id);
void http2_scan_ended(struct http2_scan *scan, int32_t id, bool by_us);

/* A frame was wrong, or about nothing. */
void http2_take_fault(struct http2 *h);

/* --- http2_request.c: the callbacks that read --- */

void http2_set_request_callbacks(nghttp2_session_callbacks *callbacks);

/* Answers a stream whose request is not, or not completely, there. */
void http2_refuse(struct stream *s, enum weir_status status, const char *text);

/* --- http2_answer.c: the callbacks that write, and the queue --- */

void http2_set_answer_callbacks(nghttp2_session_callbacks *callbacks);

/* Puts `s` into the line of those that have something to say. */
void http2_ready(struct stream *s);

/* Fills the empty queue.  False after a failure that ends the connection. */
WEIR_MUST_USE bool http2_fill(struct http2 *h);

/* The first `size` bytes of the queue are with the socket. */
void http2_took(struct http2 *h, size_t size);

/* Drops the queue. */
void http2_drop_queue(struct http2 *h);

/* --- http2.c --- */

/* Ends a stream that the session has closed, once nothing refers to it. */
void http2_retire(struct stream *s);

/* Breaks a stream off. */
void http2_reset(struct stream *s, uint32_t code);

/* Ends the connection with GOAWAY. */
void http2_terminate(struct http2 *h, uint32_t code);

/* NULL: there is none any more, or it is none of ours. */
static inline struct stream *http2_stream(struct http2 *h, int32_t id)
{
    if (h->latest == NULL || h->latest->id != id) {
        h->latest = nghttp2_session_get_stream_user_data(h->session, id);
    }
    return h->latest;
}

/* True when the answer is all there, though its handler may not be done: as on HTTP/1, an answer of
 * known size ends where its size says. */
static inline bool http2_is_said(const struct stream *s)
{
    return s->x.finished || (s->submitted && s->body_size < HTTP_BRIEF && s->promised == 0);
}

/* True when the handler knows the exchange, and so has to finish it. */
static inline bool http2_is_known(const struct stream *s)
{
    return s->requested || s->x.status != 0 || (s->headed && s->x.incremental);
}

#endif
