/*
 * grpc.h — one gRPC call over an HTTP/2 exchange: messages in, messages out, a status at the end.
 *
 * Messages stream in without being put together: begin(), bytes()..., end() for each, half_closed()
 * after the last; a compressed one is inflated first.  The owner of the exchange's handler passes
 * the exchange's events on (grpc_data() and so on); the reader sees the call's.
 *
 * A reader answers with grpc_send() any number of times and grpc_finish() exactly once, at any
 * time; after canceled() too.  After grpc_finish() it is called no more, and the call may be gone.
 * A call whose framing is wrong ends by itself: what its reader says after that goes nowhere.
 *
 * Facts: grpc/grpc doc/PROTOCOL-HTTP2.md.  For the loop's thread.
 */
#ifndef WEIR_NET_GRPC_H
#define WEIR_NET_GRPC_H

#include "net/encoding.h"
#include "net/http.h"
#include "util/clock.h"

#define GRPC_PREFIX_BYTES 5
#define GRPC_TEXT_BYTES_MAX \
    4096 /* Of a percent-encoded grpc-message: clients refuse large trailers. */

struct grpc_call;

struct grpc_reader {
    bool unary; /* Exactly one message each way. */
    void (*begin)(struct grpc_call *call, uint64_t size);
    void (*bytes)(struct grpc_call *call, struct bytes bytes);
    /* Within a message, between calls of bytes(): where the next of them should be, and how many at
     * most.  False: anywhere.  May be NULL. */
    bool (*place)(const struct grpc_call *call, char **at, size_t *room);
    void (*end)(struct grpc_call *call);
    void (*half_closed)(struct grpc_call *call); /* May be NULL where it is unary. */
    void (*canceled)(struct grpc_call *call);
    void (*drained)(struct grpc_call *call); /* Everything sent is with the socket; may be NULL. */
    void (*drain)(struct grpc_call *call);   /* The server stops: end soon; may be NULL. */
    void (*tell)(struct grpc_call *call);    /* Readiness has changed; may be NULL. */
};

struct grpc_inflation;

/* Lives in the exchange's arena. */
struct grpc_call {
    struct exchange *x;
    const struct grpc_reader *reader;
    void *user;              /* The reader's. */
    uint64_t deadline_ns;    /* Of the loop's clock; CLOCK_NEVER. */
    uint64_t pushback_ms;    /* What to tell a client that may try again; preset 1000. */
    enum weir_status status; /* What it was finished with. */
    const char *text;
    uint64_t message_bytes_max;
    enum encoding encoding; /* Of messages that say that they are compressed. */
    bool encoding_unknown;
    bool finished;
    bool canceled;
    bool paused;
    bool half_closed; /* By the client. */
    bool told;        /* half_closed() was called. */
    bool reading;     /* Within grpc_data(). */
    bool in_message;
    uint32_t message_count;
    uint64_t received_bytes;
    uint8_t prefix[GRPC_PREFIX_BYTES];
    uint32_t prefix_size;
    uint64_t left;                    /* Of the message that is being read. */
    struct buffer held;               /* What came while nothing could be read. */
    size_t held_at;                   /* How much of it is read. */
    struct grpc_inflation *inflation; /* A compressed message, until it is inflated. */
};

/* "application/grpc", "+" or ";" and more. */
bool grpc_is_type(struct bytes content_type);

/* From the exchange's head(): makes it a call.  NULL after having answered. */
struct grpc_call *grpc_open(struct exchange *x, const struct grpc_reader *reader,
                            uint64_t message_bytes_max);

/* Ends an exchange that never became a call.  `pushback_ms` is what to tell a client that may try
 * again; 0: the usual. */
void grpc_fail(struct exchange *x, enum weir_status status, const char *text, uint64_t pushback_ms);

/* As http_handler.place(). */
bool grpc_place(const struct grpc_call *call, char **at, size_t *room);

/* The exchange's events. */
void grpc_data(struct grpc_call *call, struct bytes bytes);
void grpc_request(struct grpc_call *call);
void grpc_cancel(struct grpc_call *call);
void grpc_drained(struct grpc_call *call);

/* Lends one message; its bytes live until drained(), or where the reader is unary, until the end of
 * the call. */
void grpc_send(struct grpc_call *call, const struct bytes *pieces, size_t count);

/* The end.  `text` is for anything but WEIR_OK and is copied. */
void grpc_finish(struct grpc_call *call, enum weir_status status, const char *text);

/* Between them nothing more is read, and the client is held back. */
void grpc_pause(struct grpc_call *call);
void grpc_resume(struct grpc_call *call);

#endif
