/*
 * http.h — a request and its answer, whatever version of HTTP carried them.
 *
 * An *exchange* begins when a request's header is complete and ends when its
 * answer has been written (or its client is gone) and the handler has finished
 * it.  It lives on one loop; all calls here are for that loop's thread.
 *
 *   head(x)     header complete: accept, set body rules, or refuse with a reply
 *   request(x)  body complete: answer now, or keep x and answer later
 *   canceled(x) the client went away before the answer was finished; the handler still
 *               has to call exchange_finish() once, which may be at any later time
 *   done(x)     everything is written or given up; the last look at x (access log)
 *
 * An exchange whose request never becomes complete (cut off, too slow, malformed or too large in
 * its body) gets neither request() nor canceled(): net answers it where it can, and done() is all
 * that follows head().  What fails before its header is complete reaches no handler at all.
 *
 * An *incremental* exchange (head() sets it, where version is HTTP_2) is the handler's from head()
 * on: data() brings the body piece by piece, request() its end; it may be answered at any time, and
 * canceled() comes if it is cut off.  The client may send only as much as exchange_consume() has
 * let it, in its own time, unless the handler says by `expecting` that bytes are due.
 *
 * Answers: exchange_header() any number of times, then either exchange_reply(),
 * or exchange_begin(), exchange_piece()..., exchange_finish().  On a canceled
 * exchange all of them do nothing but end it.
 */
#ifndef WEIR_NET_HTTP_H
#define WEIR_NET_HTTP_H

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/fields.h"
#include "net/loop.h"
#include "util/arena.h"
#include "util/bytes.h"

/* X(name) */
#define HTTP_METHODS(X) X(GET) X(HEAD) X(POST) X(PUT) X(DELETE) X(OPTIONS) X(PATCH) X(OTHER)

enum http_method {
#define HTTP_METHOD_ENUM(name) HTTP_##name,
    HTTP_METHODS(HTTP_METHOD_ENUM)
#undef HTTP_METHOD_ENUM
};

enum http_version { HTTP_1_0, HTTP_1_1, HTTP_2 };

struct http_conn; /* The connection, known to net only. */
struct head;      /* Known to net only. */

/* What a handler makes of a request header, so that it need not when the same comes again: zeroed
 * at first, and lives as long as the fields of the exchange, which it may point into. */
#define HTTP_MEMO_BYTES 352
struct http_memo {
    bool set; /* The handler's, as the rest. */
    alignas(max_align_t) unsigned char bytes[HTTP_MEMO_BYTES];
};

struct exchange {
    struct loop *loop;
    struct http_conn *conn;
    struct arena arena;    /* Everything of this exchange's lifetime. */
    struct list_node node; /* In the connection's line of exchanges. */

    /* The request. */
    enum http_version version;
    enum http_method method;
    struct bytes target; /* As received: path and query. */
    struct bytes path;   /* Without query; not percent-decoded. */
    struct bytes query;  /* After '?', or empty. */
    const struct http_field *fields;
    uint32_t field_count;
    struct head *head;    /* Shared with others that had the same; NULL: only this one has it. */
    uint64_t *peer_memo;  /* The handler's, one per connection; 0 at first. */
    struct bytes peer;    /* "127.0.0.1:4711", or "unix". */
    int64_t peer_user;    /* Its user's number on a Unix socket; -1: not known. */
    struct bytes client;  /* The name in the client's certificate, which was checked; or empty. */
    uint32_t listener;    /* Index given to http_listen(). */
    struct bytes body;    /* Complete when request() is called; not NUL-terminated. */
    uint64_t body_size;   /* Declared, known to head(); 0: not declared. */
    uint64_t begun_ns;    /* First byte of the header came, at the earliest. */
    uint64_t received_ns; /* And the last one of the body. */

    /* Set by head(). */
    uint64_t body_bytes_max; /* Preset to limits->body_bytes_max. */
    size_t body_align_at;    /* Offset in the body that will be MEM_ALIGN-aligned; preset 0. */
    /* Asked at the body's first byte: memory for body_size bytes, good until done(), or NULL; preset
     * NULL: it is net's. */
    char *(*body_room)(struct exchange *x);
    bool incremental; /* The body goes to data() as it arrives and is not kept; preset false. */
    bool expecting;   /* Incremental, at any time: bytes are due within the body time-out. */

    /* The answer. */
    int status;            /* 0 until begun. */
    bool streaming;        /* Begun with an unknown size. */
    bool finished;         /* The handler is done with it. */
    bool canceled;         /* The client is gone. */
    uint64_t sent_bytes;   /* Body bytes handed to the system. */
    uint64_t unsent_bytes; /* Body bytes not yet taken by the socket. */

    void *user; /* The handler's. */
};

/* What a server does with exchanges; one table per listener set.  `context` is passed through. */
struct http_handler {
    void *context;
    void (*head)(void *context, struct exchange *x);
    /* The next bytes of an incremental body, valid during the call; never on a canceled
     * exchange. */
    void (*data)(void *context, struct exchange *x, struct bytes bytes);
    /* Where the next of them should be, and how many at most; false: anywhere.  Good until anything
     * else is called; may be NULL. */
    bool (*place)(void *context, struct exchange *x, char **at, size_t *room);
    void (*request)(void *context, struct exchange *x);
    void (*canceled)(void *context, struct exchange *x);
    void (*done)(void *context, struct exchange *x);
    /* A streaming answer's unsent bytes fell to zero; may be NULL.  It may add pieces and
     * finish. */
    void (*drained)(void *context, struct exchange *x);
};

struct http_listener;
struct tls;

/* Listens on "HOST:PORT", "[::1]:PORT" or "unix:/PATH"; port 0 picks one.  `index` is copied into
 * exchanges.  WEIR_EIO names the address and the system's reason. */
WEIR_MUST_USE enum weir_status http_listen(struct loop *loop, const char *address, uint32_t index,
                                           const struct http_handler *handler,
                                           struct http_listener **out, struct weir_err *err);

/* The same on a socket that somebody else bound and that listens already; `fd` stays the caller's.
 * WEIR_EINVAL says what else it is. */
WEIR_MUST_USE enum weir_status http_listen_fd(struct loop *loop, int fd, uint32_t index,
                                              const struct http_handler *handler,
                                              struct http_listener **out, struct weir_err *err);

/* Before the loop runs: its connections speak TLS.  `tls` is borrowed for the listener's life. */
void http_listener_secure(struct http_listener *listener, struct tls *tls);

uint16_t http_listener_port(const struct http_listener *listener); /* 0 for a Unix socket. */

/* "127.0.0.1:8000", "[::1]:8000" or "unix:/PATH". */
#define HTTP_LISTENER_NAME_BYTES 120
void http_listener_name(const struct http_listener *listener, char out[HTTP_LISTENER_NAME_BYTES]);

/* Stops accepting; connections stay.  Frees the listener; loop_finish() does it for those left. */
void http_listener_close(struct http_listener *listener);

/* From now on answers carry `Connection: close`, idle connections are closed, and no connection
 * takes a further request after its current ones. */
void http_drain(struct loop *loop);

/* Bytes of bodies held on all loops now (requests', and large answers' that are not sent yet), and
 * requests that net itself refused, by status;
 * any thread. */
uint64_t http_bodies_bytes(void);
uint64_t http_refused_count(enum weir_status status);

/* The handler's memo about the exchange's header; NULL: there is none. */
struct http_memo *exchange_memo(const struct exchange *x);

/* The first field of that name (case-insensitive), or an empty value with data NULL. */
struct bytes exchange_find_field(const struct exchange *x, struct bytes name);
static inline struct bytes exchange_field(const struct exchange *x, const char *name)
{
    return exchange_find_field(x, bytes_of(name));
}

/* Adds a field to the answer; name and value are copied.  Before reply or begin only. */
void exchange_header(struct exchange *x, const char *name, struct bytes value);

/* The whole answer at once: begins, lends `body` and finishes.  content_type NULL: no such field
 * (for an empty body). */
void exchange_reply(struct exchange *x, int status, const char *content_type, struct bytes body);

/* {"error": text} with the status's HTTP code, Retry-After where `retry_after_s` > 0. */
void exchange_fail(struct exchange *x, enum weir_status status, const char *text,
                   uint32_t retry_after_s);

/* Begins an answer of known size (pieces follow, exactly body_size bytes), or of unknown size
 * with HTTP_STREAM (chunked on HTTP/1.1). */
#define HTTP_STREAM UINT64_MAX
/* Like HTTP_STREAM, but of few pieces only: their bookkeeping lives until the exchange ends. */
#define HTTP_BRIEF (UINT64_MAX - 1)
void exchange_begin(struct exchange *x, int status, const char *content_type, uint64_t body_size);

/* Lends bytes that live at least as long as the exchange's arena.  An answer of known size that is
 * finished with fewer, or one that memory ran out for, ends with its connection, so that the client
 * sees the cut. */
void exchange_piece(struct exchange *x, struct bytes bytes);

/* Copies bytes: for streams, whose memory must not grow with their length. */
void exchange_copy(struct exchange *x, struct bytes bytes);

/* Of an incremental body: `size` bytes of what data() brought are used up, the client may send as
 * many more.  (HTTP/2 only: there a stream can be held back without the others.) */
void exchange_consume(struct exchange *x, size_t size);

/* Adds a field behind the body; name (lower case) and value are copied.  After begin, before
 * finish.  HTTP/1 answers that are not chunked have no trailers: it does nothing there. */
void exchange_trailer(struct exchange *x, const char *name, struct bytes value);

/* The handler is done.  Must be called exactly once for every exchange that reached request() or
 * canceled(), unless exchange_reply() or exchange_fail() was.  x may be gone when it returns. */
void exchange_finish(struct exchange *x);

#endif
