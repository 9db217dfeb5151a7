/*
 * grpc_bed.h — one gRPC call without a connection: bytes in, and what became of them.
 *
 * The exchange is a real one; what stands in for HTTP/2 writes down what it is told.
 */
#ifndef WEIR_TESTS_GRPC_BED_H
#define WEIR_TESTS_GRPC_BED_H

#include "net/conn.h"
#include "net/grpc.h"
#include "net/net.h"
#include "net/stream.h"

#define GRPC_BED_FIELDS 8

struct grpc_bed {
    struct limits limits;
    struct loop loop;
    struct http_conn conn;
    struct http_field fields[GRPC_BED_FIELDS];
    struct exchange *x;
    struct grpc_call *call; /* NULL: refused at its head. */
    struct grpc_reader reader;
    uint64_t consumed_bytes;
    bool over; /* The exchange is finished. */

    /* What the reader heard: of each message "<SIZE>" and its bytes, and at the end "." */
    struct buffer heard;
    uint64_t announced; /* By the last begin(). */
    uint64_t delivered; /* Bytes of that message. */
    uint32_t messages;
    uint32_t pause_every; /* Pauses after so many messages; 0: never. */
    bool half_closed;
    bool canceled;
    bool echo; /* Finishes with WEIR_OK at the end of the request. */
};

/* Names and values in turn; up to GRPC_BED_FIELDS fields, NULL at the end. */
void grpc_bed_init(struct grpc_bed *bed, bool unary, uint64_t message_bytes_max,
                   const char *const *fields);
void grpc_bed_finish(struct grpc_bed *bed);

/* Bytes of the client; then its end; or its going away. */
void grpc_bed_data(struct grpc_bed *bed, struct bytes bytes);
void grpc_bed_end(struct grpc_bed *bed);
void grpc_bed_cancel(struct grpc_bed *bed);

/* Lets a paused call go on, and waits for workers, until neither changes anything. */
void grpc_bed_settle(struct grpc_bed *bed);

/* Of the answer: a trailer, or a field where there were only trailers; "" when there is none. */
struct bytes grpc_bed_status(const struct grpc_bed *bed, const char *name);

/* The answer's body; heap memory. */
struct bytes grpc_bed_body(const struct grpc_bed *bed);

#endif
