/*
 * http2_plan.h — the inside of struct http2_plan, for http2_mux.c.
 */
#ifndef WEIR_NET_HTTP2_PLAN_H
#define WEIR_NET_HTTP2_PLAN_H

#include "net/http2_mux.h"

#define HTTP2_PLAN_FIELDS_MAX 64
#define HTTP2_PLAN_BLOCKS 8
#define HTTP2_HEAD_BYTES_MAX 6000 /* Of a request's fields, as they are sent the first time. */

/* A header block of an answer, and what it says. */
struct http2_block {
    int http; /* 0: nothing. */
    int grpc; /* -1: nothing. */
    uint16_t size;
    uint16_t text_size;
    char bytes[200];
    char text[HTTP2_MUX_TEXT_MAX];
};

struct http2_plan {
    struct http2_client_field fields[HTTP2_PLAN_FIELDS_MAX];
    uint32_t field_count;
    struct nghttp2_hd_inflater *inflater; /* Has no table: it serves all connections. */
    struct http2_block blocks[HTTP2_PLAN_BLOCKS];
    uint32_t block_next; /* To be overwritten. */
};

/* Valid until the next call.  NULL: it cannot be read. */
const struct http2_block *http2_plan_block(struct http2_plan *plan, struct bytes bytes);

#endif
