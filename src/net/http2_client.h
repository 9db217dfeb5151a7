/*
 * http2_client.h — the client's side of HTTP/2, one request at a time, without a socket.
 *
 *     http2_client_create(&client)                      per connection
 *     http2_client_begin(client, &request)
 *     until http2_client_is_done(client):
 *         send what http2_client_output() gives, receive, http2_client_input()
 *     http2_client_field(client, "grpc-status"), http2_client_body(client)
 *
 * For tools and tests.  One thread at a time.
 */
#ifndef WEIR_NET_HTTP2_CLIENT_H
#define WEIR_NET_HTTP2_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "util/bytes.h"
#include "util/err.h"

struct http2_client;

struct http2_client_field {
    struct bytes name; /* Lower case. */
    struct bytes value;
};

/* POST, with a body; all of it must stay until the request is done. */
struct http2_client_request {
    bool secure; /* The scheme is https. */
    struct bytes authority;
    struct bytes path;
    const struct http2_client_field *fields;
    size_t field_count;
    const struct bytes *pieces;
    size_t piece_count;
};

#define HTTP2_CLIENT_FIELDS_MAX 16

/* Answers above body_bytes_max are WEIR_ETOOBIG.  NULL: memory is out. */
WEIR_MUST_USE struct http2_client *http2_client_create(size_t body_bytes_max);
void http2_client_destroy(struct http2_client *client); /* NULL is fine. */

/* The one before is done.  WEIR_EIO: the server takes no more on this connection; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status http2_client_begin(struct http2_client *client,
                                                  const struct http2_client_request *request,
                                                  struct weir_err *err);

/* What is to be sent now, valid until the next call; empty: nothing before more comes in.
 * WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status http2_client_output(struct http2_client *client, struct bytes *out,
                                                   struct weir_err *err);

/* What has come.  WEIR_EIO: it is no HTTP/2; WEIR_ETOOBIG, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status http2_client_input(struct http2_client *client, struct bytes bytes,
                                                  struct weir_err *err);

bool http2_client_is_done(const struct http2_client *client);

/* Whether anything of the answer has come: until then the request may be made elsewhere. */
bool http2_client_is_answered(const struct http2_client *client);

/* The error code with which the stream ended; 0: in order. */
uint32_t http2_client_reset_code(const struct http2_client *client);

/* A field of the answer or of its trailers, the latest of that name; data NULL: none. */
struct bytes http2_client_field(const struct http2_client *client, const char *name);
struct bytes http2_client_body(const struct http2_client *client);

/* Moves the body out, to be freed with buffer_finish(). */
void http2_client_take_body(struct http2_client *client, struct buffer *out);

#endif
