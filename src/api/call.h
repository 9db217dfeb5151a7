/*
 * call.h — one exchange while the api answers it; for handlers.
 *
 * It lives in the exchange's arena and ends with it.  A handler is called once
 * the body is there.  It answers at once with call_reply() or call_fail(), or
 * sets `canceled` (and `drained`) and answers later; it may do so on a client
 * that has gone away, too.  Everything here is for the loop's thread.
 */
#ifndef WEIR_API_CALL_H
#define WEIR_API_CALL_H

#include <stdbool.h>
#include <stdint.h>

#include "api/api.h"
#include "api/keys.h"
#include "api/route.h"
#include "net/http.h"
#include "util/err.h"

/* X(name, field): the request fields that the api looks at. */
#define CALL_FIELDS(X)                                \
    X(JSON_SIZE, "inference-header-content-length")   \
    X(CONTENT_ENCODING, "content-encoding")           \
    X(ACCEPT_ENCODING, "accept-encoding")             \
    X(DEADLINE_MS, "weir-deadline-ms")                \
    X(TIMING, "weir-timing")                          \
    X(REQUEST_ID, "x-request-id")                     \
    X(TRACEPARENT, "traceparent")                     \
    X(AUTHORIZATION, "authorization")                 \
    X(API_KEY, "x-api-key")                           \
    X(ORIGIN, "origin")                               \
    X(HOST, "host")

enum call_field {
#define CALL_FIELD_ENUM(name, field) FIELD_##name,
    CALL_FIELDS(CALL_FIELD_ENUM)
#undef CALL_FIELD_ENUM
    FIELD_COUNT
};

#define CALL_INLINE_JSON_BYTES 262144    /* Larger JSON is read by a worker. */
#define CALL_INLINE_BINARY_BYTES 1048576 /* More binary data is checked and moved by a worker. */
#define CALL_INLINE_ELEMENTS 20000       /* More numbers are written by a worker. */
#define CALL_INLINE_DEFLATE_BYTES 16384  /* Larger answers are compressed by a worker. */

struct call_work;
struct grpc_call;
struct grpc_rpc;

/* The model that a path named the last time. */
struct call_lease {
    struct model *model; /* NULL: it is looked up. */
    uint64_t generation; /* Of the catalogue that it was in. */
};

struct call {
    struct exchange *x;
    struct api *api;
    struct api_loop *loop;
    struct route_match match;
    struct bytes fields[FIELD_COUNT]; /* data NULL: not sent. */
    struct bytes model;               /* Decoded and checked; data NULL where the route has none. */
    struct call_lease *leased;        /* Kept with a path that came before; NULL: no such. */
    struct bytes body;                /* Decoded. */
    struct key_grant grant;           /* By which it was let in; zero: by none. */
    struct arena_disposable leave;    /* Gives its place back, */
    bool has_place;                   /* if it still has it. */
    uint64_t retry_s;                 /* Its key's limit is reached: when to come again. */
    struct call_work *work;           /* Made at the first call_run(). */
    void (*canceled)(struct call *call); /* The client is gone; the handler still has to answer. */
    void (*drained)(struct call *call);  /* A stream's unsent bytes fell to zero. */
    void (*failing)(struct call *call);  /* An error is the answer: what it does not need may go. */
    void *state;                         /* The handler's. */
    void *waits;                         /* demand.c's, while the model is being loaded. */
    const struct grpc_rpc *rpc;          /* NULL: REST. */
    struct grpc_call *grpc;
    bool is_grpc;
    enum weir_status grpc_status; /* Of a call that ended before it was one. */
    struct list_node stream;      /* In the loop's streams, where it may go on for long. */
};

#define CALL_JSON "application/json"

/* All that is in a server. */
struct api {
    struct api_options options;
    struct http_handler handler;
    struct api_loop *loops[API_LOOPS_MAX];
    _Atomic uint32_t loop_count;
    uint64_t started_ms;   /* Wall clock. */
    uint64_t request_salt; /* First half of generated request ids. */
    _Atomic bool draining;
    _Atomic bool access_log; /* api_set_answers() */
    _Atomic bool timing;
    _Atomic uint64_t inflated_bytes; /* Of bodies that came compressed and are still held. */
    _Atomic uint64_t cpu_total;      /* Ticks at the last reading of /metrics. */
    _Atomic uint64_t cpu_idle;
    _Atomic uint32_t log_settings; /* Bits of admin_logging; see there. */
};

/* A piece of the exchange's arena; NULL after having answered WEIR_ENOMEM. */
WEIR_MUST_USE void *call_alloc(struct call *call, size_t size);

/* Looks the model up and leases it: WEIR_ENOENT, WEIR_ELOADING, WEIR_EUNAVAILABLE. */
WEIR_MUST_USE enum weir_status call_lease(struct call *call, struct model **out,
                                          struct weir_err *err);

/* The same of a model that can be asked now. */
WEIR_MUST_USE enum weir_status call_lease_ready(struct call *call, struct model **out,
                                                struct weir_err *err);

/* All loops turn. */
bool call_is_live(struct call *call);

/* All required models are ready, and the server is not stopping. */
bool call_is_ready(struct call *call);

/* Takes a name that was not in a path.  WEIR_ENOENT (or WEIR_EINVAL, to change something) when no
 * model can have it. */
WEIR_MUST_USE enum weir_status call_take_model(struct call *call, struct bytes name,
                                               struct weir_err *err);

/* The home's snapshot; valid until the loop's next turn. */
const struct catalogue *call_catalogue(struct call *call);

/* Parses the body; an empty one gives *out NULL where `empty` is allowed.  yyjson_doc_free(). */
struct yyjson_doc;
WEIR_MUST_USE enum weir_status call_json(struct call *call, bool empty, struct yyjson_doc **out,
                                         struct weir_err *err);

/* `run` on a worker thread, then `done` on the loop; one at a time per call.  False after having
 * answered WEIR_ENOMEM.  The client may be gone when `done` runs. */
bool call_run(struct call *call, void (*run)(struct call *call), void (*done)(struct call *call));

/* What call_run() needs, so that it cannot fail later: for those who may have begun an answer by
 * then. */
WEIR_MUST_USE enum weir_status call_prepare_run(struct call *call, struct weir_err *err);

/* 200 with what `write` makes of the catalogue: on the loop when there are few models, else by a
 * worker. */
typedef void call_write_fn(struct call *call, const struct catalogue *catalogue,
                           struct buffer *out);
void call_render(struct call *call, const char *content_type, call_write_fn *write);

/* Answers.  `call` may be gone when they return. */
void call_fail(struct call *call, enum weir_status status, const char *text);
void call_fail_model(struct call *call, enum weir_status status, const char *text,
                     struct model *model); /* Retry-After from its rate; NULL is fine. */
void call_fail_err(struct call *call, const struct weir_err *err);
void call_reply(struct call *call, struct bytes json); /* 200; lends. */

/* The whole answer to a request that is late; what is left is to finish the exchange at its end. */
struct request;
void call_begin_late(struct call *call, const struct request *request);

void call_reply_empty(struct call *call); /* 200 without a body. */

/* 200 with what was written into a buffer of limits->response_bytes_max; takes its memory,
 * clears it. */
void call_reply_buffer(struct call *call, const char *content_type, struct buffer *out);

/* The bytes of `out`, which is left empty, for as long as the arena lives; data NULL when memory
 * is out. */
struct bytes call_keep(struct call *call, struct buffer *out);

#endif
