/*
 * client.h — a small blocking HTTP/1.1 client: one connection, one call at a time.
 *
 * One thread at a time.  The connection is made at the first call and kept; when the server has
 * closed it meanwhile, the call is made once more on a new one.
 */
#ifndef WEIR_CMD_CLIENT_H
#define WEIR_CMD_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "net/tls.h"
#include "util/bytes.h"
#include "util/err.h"

#define DEFAULT_URL "http://127.0.0.1:8000"

struct client {
    char host[256]; /* Or the socket's path. */
    char port[8];   /* "" for a Unix socket. */
    uint64_t timeout_ns;
    bool secure; /* By TLS, */
    bool http2;  /* where HTTP/2 is to be spoken, not HTTP/1.1; the caller's to set. */
    int fd;
    struct tls_link *link; /* NULL: plain. */
    char *sealed;          /* What came last for it. */
};

#define CLIENT_PIECES_MAX 64

/* The API key to send, from the environment variable WEIR_API_KEY, so that it is on no command
 * line; "": none, or one that no header can carry. */
const char *client_key(void);

struct client_request {
    const char *method;
    const char *path;
    const char *fields;         /* More header lines, each with its CRLF. */
    const struct bytes *pieces; /* The body's. */
    size_t piece_count;
};

struct client_reply {
    int status;
    size_t json_size;    /* Inference-Header-Content-Length; SIZE_MAX: absent. */
    struct bytes timing; /* Server-Timing, or empty. */
    struct bytes body;
    struct buffer head; /* What the views above point into. */
    struct buffer content;
};

/* Does a URL's scheme ask for gRPC, for TLS? */
bool client_is_grpc(const char *url);
bool client_is_secure(const char *url);

/* `url`: SCHEME://HOST[:PORT] with http, https, grpc or grpcs, HOST:PORT or unix:/PATH.  `timeout_ns` is for connecting and for
 * each wait for bytes.  WEIR_EINVAL; where it asks for TLS, what secure_read() returns. */
WEIR_MUST_USE enum weir_status client_init(struct client *client, const char *url,
                                           uint64_t timeout_ns, struct weir_err *err);
void client_finish(struct client *client);

/* The connection by itself, for other protocols: makes it (with TLS its handshake, too), sends all, appends what comes next (at
 * most `most` bytes; *got 0: the server has closed).  client_finish() ends it; it may be made
 * again.  WEIR_EIO and WEIR_ETIMEOUT name the server. */
WEIR_MUST_USE enum weir_status client_dial(struct client *client, struct weir_err *err);
WEIR_MUST_USE enum weir_status client_send(const struct client *client, struct bytes bytes,
                                           struct weir_err *err);
WEIR_MUST_USE enum weir_status client_receive(const struct client *client, struct buffer *into,
                                              size_t most, size_t *got, struct weir_err *err);

/* Any HTTP status is a success here.  WEIR_EIO names the server; WEIR_ETIMEOUT, WEIR_ETOOBIG,
 * WEIR_ENOMEM. `reply` is initialised here and finished by the caller, also after a failure. */
WEIR_MUST_USE enum weir_status client_call(struct client *client,
                                           const struct client_request *request,
                                           struct client_reply *reply, struct weir_err *err);
void client_reply_finish(struct client_reply *reply);

/* The sentence for an answer that is none: the server's {"error": ...} where it has one.
 * WEIR_EIO. */
enum weir_status client_refusal(const struct client_reply *reply, struct weir_err *err);

#endif
