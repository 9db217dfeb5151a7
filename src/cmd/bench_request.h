/*
 * bench_request.h — the requests that `weir bench` sends, as bytes, built once.
 *
 * A model's inputs are filled at random (by seed), with zeros, or as given on the command line; a
 * few variants of them keep a server from answering everything from its caches.  All memory is
 * in the caller's arena.
 */
#ifndef WEIR_CMD_BENCH_REQUEST_H
#define WEIR_CMD_BENCH_REQUEST_H

#include "cmd/bench_wire.h"
#include "cmd/session.h"

#define REQUEST_SHAPES_MAX 32
#define REQUEST_HEADERS_MAX 8

/* "NAME=1,3,224,224" for inputs with variable dimensions. */
struct request_shape {
    const char *name;
    size_t name_size;
    struct shape shape;
};

/* What the tensors are. */
struct request_inputs_spec {
    const struct interface *model;
    const struct value *given; /* As told; others are made up. */
    uint32_t given_count;
    const struct request_shape *shapes;
    uint32_t shape_count;
    uint32_t rows;     /* Of the first dimension, where that is variable. */
    uint32_t variants; /* At least 1; as given where all are, fewer where they are large. */
    uint64_t seed;
    bool zero;
};

/* variant_count sets of model->input_count tensors. */
struct request_inputs {
    struct value *values;
    uint32_t input_count;
    uint32_t variant_count;
    size_t bytes; /* Of all tensors. */
};

/* WEIR_EINVAL: a dimension that nobody told, a shape that does not fit; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status request_inputs_make(struct arena *arena,
                                                   const struct request_inputs_spec *spec,
                                                   struct request_inputs *out,
                                                   struct weir_err *err);

enum request_format { REQUEST_BINARY, REQUEST_JSON, REQUEST_SHARED };

/* Where tensors lie in shared memory: inputs one behind the other, then outputs. */
struct request_region {
    const char *name;
    uint64_t input_stride;        /* Bytes of one variant's inputs. */
    uint64_t output_offset;       /* Where outputs begin, */
    uint64_t output_stride;       /* and bytes of one variant's. */
    const uint64_t *output_bytes; /* Of each output. */
};

/* What is said beside them. */
struct request_spec {
    const char *url; /* For Host and :authority. */
    const char *model;
    uint64_t version;                         /* 0: the latest. */
    const char *key;                          /* API key; NULL or "": none. */
    uint64_t priority;                        /* 0: none. */
    uint64_t deadline_ns;                     /* 0: none. */
    const char *headers[REQUEST_HEADERS_MAX]; /* "Name: value" */
    uint32_t header_count;
    enum request_format format;
    const struct request_region *region; /* REQUEST_SHARED. */
    const struct interface *interface;
};

/* One request for each variant.  With `plan` for gRPC, else for HTTP/1.1.  WEIR_EINVAL: fields that
 * cannot be sent; WEIR_ETOOBIG, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status request_make(struct arena *arena, const struct request_spec *spec,
                                            const struct request_inputs *inputs,
                                            struct http2_plan *plan, struct wire_request **out,
                                            struct weir_err *err);

/* The shape an input or output takes: told, or with `rows` for a variable first dimension.
 * WEIR_EINVAL when another one is variable. */
WEIR_MUST_USE enum weir_status request_shape_of(const struct spec *spec,
                                                const struct request_inputs_spec *wish,
                                                struct shape *out, struct weir_err *err);

#endif
