/*
 * http1_client.h — reads the answers on a kept-alive HTTP/1.1 connection, without a socket.
 *
 * Only as far as a load generator needs: the status, where the answer ends, and the first bytes of
 * an error's body.  Bodies are counted, not kept, so that an answer costs little more than its
 * system call.  One request is under way at a time; interim answers (1xx) are passed over.
 * Allocates nothing.  One thread at a time.
 */
#ifndef WEIR_NET_HTTP1_CLIENT_H
#define WEIR_NET_HTTP1_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "util/bytes.h"

#define HTTP1_CLIENT_HEAD_MAX 8192 /* Larger heads are no answers. */
#define HTTP1_CLIENT_TEXT_MAX 240

enum http1_client_step {
    HTTP1_CLIENT_MORE,   /* All bytes are used up, and the answer goes on. */
    HTTP1_CLIENT_ANSWER, /* One is whole; what is left of the bytes belongs to the next. */
    HTTP1_CLIENT_BROKEN, /* It is no HTTP/1.1 answer; there is no going on. */
};

enum http1_client_part {
    HTTP1_CLIENT_HEAD,
    HTTP1_CLIENT_BODY,        /* `left` bytes. */
    HTTP1_CLIENT_UNTIL_CLOSE, /* Of unknown length. */
    HTTP1_CLIENT_CHUNK_SIZE,
    HTTP1_CLIENT_CHUNK, /* `left` bytes, its end of line included. */
    HTTP1_CLIENT_TRAILER,
};

struct http1_client {
    /* Of the answer that is whole, or under way behind its head. */
    uint16_t status;
    bool close; /* The server takes no more requests on this connection. */

    enum http1_client_part part;
    bool chunked;
    uint64_t left;
    uint32_t held; /* Bytes in `head`: of a head, or of a line between chunks. */
    uint32_t text_size;
    char head[HTTP1_CLIENT_HEAD_MAX];
    char text[HTTP1_CLIENT_TEXT_MAX]; /* The body's first bytes, unless the status is 2xx. */
};

void http1_client_init(struct http1_client *client);

/* Reads on in `*in`, which it moves. */
enum http1_client_step http1_client_input(struct http1_client *client, struct bytes *in);

/* The server has closed: whether that was the end of an answer, and not a break. */
bool http1_client_ended(const struct http1_client *client);

#endif
