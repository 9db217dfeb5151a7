/*
 * limits.h — everything that can grow, and how far.
 *
 * The server's option table (server/config.c) fills this from defaults, file,
 * environment and command line; each floor reads the fields it needs.  All
 * sizes in bytes, all times in ns.
 */
#ifndef WEIR_UTIL_LIMITS_H
#define WEIR_UTIL_LIMITS_H

#include <stdint.h>

/* X(field, default, kind, help); kind: COUNT, SIZE or DURATION. */
#define LIMITS(X)                                                                                  \
    X(connections_max, 4096, COUNT, "open client connections")                                     \
    X(pipelined_max, 64, COUNT, "requests read ahead on one HTTP/1.1 connection")                  \
    X(streams_max, 1024, COUNT, "requests in flight on one HTTP/2 connection")                     \
    X(stream_window, 8388608, SIZE, "bytes an HTTP/2 client may send ahead on one stream")         \
    X(header_bytes_max, 65536, SIZE, "bytes of one request's header")                              \
    X(header_fields_max, 100, COUNT, "fields in one request's header")                             \
    X(json_bytes_max, 67108864, SIZE, "bytes of one JSON body")                                    \
    X(body_bytes_max, 1073741824, SIZE, "bytes of one request body")                               \
    X(bodies_bytes_max, 0, SIZE, "bytes of all bodies in flight; 0 is a quarter of memory")        \
    X(inflate_ratio_max, 200, COUNT, "bytes a compressed body may grow to, per byte received")     \
    X(response_bytes_max, 2147483648, SIZE, "bytes of one response")                               \
    X(header_timeout_ns, 10000000000, DURATION, "time to receive a request's header")              \
    X(body_timeout_ns, 30000000000, DURATION, "time without progress while receiving a body")      \
    X(idle_timeout_ns, 60000000000, DURATION, "time a connection may stay without a request")      \
    X(write_timeout_ns, 30000000000, DURATION, "time without progress while sending")              \
    X(requests_max, 1024, COUNT, "requests waiting per model")                                     \
    X(queue_bytes_max, 268435456, SIZE, "bytes of inputs waiting per model")                       \
    X(shared_regions_max, 1024, COUNT, "regions of clients' shared memory")                        \
    X(shared_bytes_max, 68719476736, SIZE, "bytes of all regions of clients' shared memory")       \
    X(ensemble_runs_max, 1024, COUNT, "requests under way per ensemble")                           \
    X(sequences_max, 16384, COUNT, "sequences open or waiting per model")                          \
    X(sequence_bytes_max, 1073741824, SIZE, "bytes of the states of one model's sequences")        \
    X(requests_total_max, 8192, COUNT, "requests waiting and running on a device")                 \
    X(batch_bytes_max, 1073741824, SIZE, "bytes of outputs one batch may hold")                    \
    X(quarantine_max, 1024, COUNT, "inputs kept in quarantine")                                    \
    X(quarantine_ns, 3600000000000, DURATION, "time that an input stays in quarantine")            \
    X(parts_max, 256, COUNT, "unread parts of one streamed answer")                                \
    X(models_max, 1024, COUNT, "models in the repositories")                                       \
    X(model_bytes_max, 17179869184, SIZE, "bytes of one model file")                               \
    X(log_line_bytes_max, 4096, SIZE, "bytes of one log line")                                     \
    X(drain_grace_ns, 1000000000, DURATION, "time between not ready and refusing, when stopping")  \
    X(drain_timeout_ns, 30000000000, DURATION, "time to finish accepted requests, when stopping")

/* Read by any thread at any time, while limits_set() changes them. */
struct limits {
#define LIMIT_FIELD(field, value, kind, help) _Atomic uint64_t field;
    LIMITS(LIMIT_FIELD)
#undef LIMIT_FIELD
};

/* The defaults of the table; bodies_bytes_max is computed from the machine's memory. */
void limits_init(struct limits *limits);

/* Any thread: each limit is from now on as in `wanted`. */
void limits_set(struct limits *limits, const struct limits *wanted);

/* Memory this process may use: the machine's, or its control group's limit where that is less. */
uint64_t limits_memory_bytes(void);

#endif
