/*
 * http2_table.h — the fields of a connection's requests, and the table of them that its server keeps
 * (HPACK, RFC 7541).  For http2_mux.c; one thread.
 */
#ifndef WEIR_NET_HTTP2_TABLE_H
#define WEIR_NET_HTTP2_TABLE_H

#include "net/http2_out.h"
#include "net/http2_plan.h"

#define HTTP2_TABLE_BYTES 4096 /* The protocol's default. */

struct http2_table {
    bool spelled;                             /* The server's is smaller: fields are spelled out. */
    bool shrunk;                              /* And it has yet to be told. */
    uint32_t inserted[HTTP2_PLAN_FIELDS_MAX]; /* When, 0..; UINT32_MAX: not sent. */
    uint32_t inserted_count;
    size_t bytes;
};

void http2_table_init(struct http2_table *table);

/* From here on the server's table takes so many bytes. */
void http2_table_resize(struct http2_table *table, uint32_t bytes);

/* The header block of a request.  `out` has room for HTTP2_HEAD_BYTES_MAX. */
void http2_table_put(struct http2_table *table, const struct http2_plan *plan,
                     const struct http2_head *head, struct http2_out *out);

#endif
