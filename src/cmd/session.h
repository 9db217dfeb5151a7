/*
 * session.h — one thread's way to a model: over HTTP or gRPC to a server, or through the library
 * right here.
 *
 * All answer alike, so that the command need not care.  A session belongs to one thread at a
 * time; sessions of the same `local` engine share it.
 */
#ifndef WEIR_CMD_SESSION_H
#define WEIR_CMD_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <weir/weir.h>

#include "cmd/client.h"
#include "cmd/rpc.h"
#include "tensor/tensor.h"
#include "util/arena.h"

/* A tensor the model takes or gives; a dimension of -1 is variable. */
struct spec {
    const char *name;
    enum dtype dtype;
    struct shape shape;
};

struct interface {
    const char *model;
    const char *version; /* The one that answers. */
    const char *platform;
    struct spec *inputs;
    struct spec *outputs;
    uint32_t input_count;
    uint32_t output_count;
};

struct value {
    const char *name;
    struct tensor tensor; /* Its bytes lie in some arena or answer. */
};

/* Where the server says the time went; zeroed where it does not. */
struct stages {
    uint64_t queue_ns;
    uint64_t gather_ns;
    uint64_t compute_ns;
    uint64_t total_ns;
    bool known;
};

struct answer {
    struct value *outputs;
    uint32_t output_count;
    const char *version;
    struct stages stages;
    uint64_t latency_ns; /* As this side saw it. */
    struct arena arena;
    struct client_reply reply;  /* Holds the bytes: this one, */
    struct rpc_reply message;   /* this one with gRPC, */
    struct weir_result *result; /* or this one. */
};

struct session_options {
    const char *url;    /* Unless local. */
    bool grpc;          /* By gRPC at this url, not REST. */
    struct weir *local; /* NULL: over HTTP. */
    const char *model;
    uint64_t version;    /* 0: the latest. */
    uint64_t timeout_ns; /* 0: none. */
};

struct session {
    struct session_options options;
    struct client client;
    struct rpc rpc; /* On `client`, when it is to be gRPC. */
};

WEIR_MUST_USE enum weir_status
session_open(struct session *session, const struct session_options *options, struct weir_err *err);
void session_close(struct session *session);

/* What the model takes and gives; in `arena`. */
WEIR_MUST_USE enum weir_status session_describe(struct session *session, struct arena *arena,
                                                struct interface *out, struct weir_err *err);

/* One inference.  On success the caller owns the answer: answer_finish(). */
WEIR_MUST_USE enum weir_status session_infer(struct session *session, const struct value *inputs,
                                             uint32_t input_count, struct answer *out,
                                             struct weir_err *err);
void answer_finish(struct answer *answer); /* Zeroed ones are fine. */

/* The library's view of a tensor and ours: the same bytes. */
struct tensor tensor_from_public(const struct weir_tensor *from);
struct weir_tensor tensor_to_public(const char *name, const struct tensor *from);

#endif
