/*
 * rpc.h — one unary gRPC call at a time over a client's connection.
 *
 * One thread at a time.  The connection is made at the first call and kept; when the server
 * has closed it meanwhile, the call is made once more on a new one.
 */
#ifndef WEIR_CMD_RPC_H
#define WEIR_CMD_RPC_H

#include "cmd/client.h"

struct http2_client;

struct rpc {
    struct client *client;
    struct http2_client *http2; /* NULL: not connected. */
};

struct rpc_reply {
    struct bytes message; /* The answer's, without what gRPC puts before it. */
    struct buffer content;
};

void rpc_init(struct rpc *rpc, struct client *client); /* Borrows it. */
void rpc_finish(struct rpc *rpc);

/* Calls `path` with a message in at most CLIENT_PIECES_MAX pieces.  What the server refuses is an
 * error whose sentence is the server's.  WEIR_EIO, WEIR_ETIMEOUT, WEIR_ETOOBIG, WEIR_ENOMEM;
 * a refusal has the status of its gRPC code where there is one.  `reply` is initialised here and
 * finished by the caller, also after a failure. */
WEIR_MUST_USE enum weir_status rpc_call(struct rpc *rpc, const char *path,
                                        const struct bytes *pieces, size_t piece_count,
                                        struct rpc_reply *reply, struct weir_err *err);
void rpc_reply_finish(struct rpc_reply *reply); /* Zeroed ones are fine. */

/* "UNAVAILABLE" for 14: gRPC's own names. */
const char *rpc_code_name(uint64_t code);

/* A grpc-message, which is percent-encoded, as text; cut where `out` ends. */
void rpc_decode_message(struct bytes text, char *out, size_t size_max);

#endif
