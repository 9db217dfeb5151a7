/*
 * http1.h — HTTP/1.0 and HTTP/1.1 as bytes, without socket and clock.
 *
 * Reading: bytes go in, events come out, and the parts of a request land in an
 * exchange.  The caller feeds what arrived until HTTP1_MORE, and stores the
 * body's bytes itself.  Writing: an answer's head, as text.
 * One connection's thread owns a reader.
 */
#ifndef WEIR_NET_HTTP1_H
#define WEIR_NET_HTTP1_H

#include "net/answer.h"
#include "net/head.h"
#include "net/http.h"
#include "util/err.h"
#include "util/limits.h"

enum http1_event {
    HTTP1_MORE, /* All bytes are used up. */
    HTTP1_HEAD, /* The header is complete: the exchange's request part and `facts` are filled in. */
    HTTP1_DATA, /* `data` is the next part of the body, inside the bytes that were fed. */
    HTTP1_END,  /* The request is complete; the next byte begins another. */
    HTTP1_REFUSED, /* err says why; the reader is of no further use. */
};

enum http1_state {
    HTTP1_IN_HEAD,
    HTTP1_IN_BODY, /* Of known length. */
    HTTP1_IN_CHUNK_SIZE,
    HTTP1_IN_CHUNK_EXTENSION,
    HTTP1_IN_CHUNK,
    HTTP1_IN_CHUNK_END, /* The line end behind a chunk's bytes. */
    HTTP1_IN_TRAILER,
    HTTP1_AT_END,
    HTTP1_IS_REFUSED,
};

/* Where in a line a reader stands. */
enum http1_place {
    HTTP1_LINE_START,
    HTTP1_LINE_NAME, /* Trailers only: before the colon. */
    HTTP1_LINE_TEXT,
    HTTP1_LINE_CR,  /* Behind the carriage return that ends a line. */
    HTTP1_BLANK_CR, /* The same in an empty line. */
};

struct http1 {
    const struct limits *limits;
    struct head *latest; /* The header before; NULL: none that could come again. */
    enum http1_state state;
    enum http1_place place;
    char *head; /* The header so far, in the exchange's arena. */
    size_t head_size;
    size_t head_capacity;
    uint32_t line_count;      /* Complete lines of the header or trailer. */
    bool line_checked;        /* The request line is known to be good. */
    bool blank_skipped;       /* The one empty line that may stand before a request was there. */
    struct http1_facts facts; /* Valid from HTTP1_HEAD on. */
    uint64_t left;            /* Bytes to come of the body or chunk. */
    uint64_t received;        /* Bytes of a chunked body so far. */
    uint64_t chunk_count;
    uint32_t digit_count;  /* Of a chunk size. */
    uint64_t framing_size; /* Bytes of chunk extensions and trailers. */
};

/* `limits` is borrowed. */
void http1_init(struct http1 *reader, const struct limits *limits);
void http1_finish(struct http1 *reader);

/* Takes bytes from the front of *in.  `x` is the exchange under construction, the same from a
 * request's first byte to its HTTP1_END; its arena receives the header.  Call again until
 * HTTP1_MORE. Refusals: WEIR_EINVAL, WEIR_EHEADERS, WEIR_ENOMEM. */
enum http1_event http1_next(struct http1 *reader, struct exchange *x, struct bytes *in,
                            struct bytes *data, struct weir_err *err);

/* True from a request's first byte until its HTTP1_END. */
bool http1_begun(const struct http1 *reader);

/* What decides the form of an answer. */
struct http1_answer {
    int status;
    const char *content_type; /* NULL: none. */
    uint64_t body_size;       /* HTTP_STREAM: not known. */
    const char *date;
    const struct answer_field *fields;
    bool close;
    bool keep_alive_1_0; /* Must be said to an HTTP/1.0 client. */
    bool chunked;
};

/* The head in `arena`; false when memory is out. */
WEIR_MUST_USE bool http1_head(struct arena *arena, const struct http1_answer *answer,
                              struct bytes *out);

/* The size line of a chunk, with the line end of the one before unless it is the first; at least
 * HTTP1_CHUNK_HEAD_MAX bytes in `out`.  Returns its length. */
#define HTTP1_CHUNK_HEAD_MAX 24
size_t http1_chunk_head(char *out, uint64_t size, bool first);

#endif
