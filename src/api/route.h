/*
 * route.h — the one table of what can be asked for.
 *
 * Which path takes which methods, what a handler may assume about the body, the text at GET /
 * and the Allow field all come from it.  Pure; any thread.
 *
 * Patterns: {model}, {repository} and {region} take one non-empty segment, {version} decimal
 * digits; what is in brackets may be absent.
 */
#ifndef WEIR_API_ROUTE_H
#define WEIR_API_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "net/http.h"
#include "util/bytes.h"
#include "util/err.h"

struct call;

/* X(name, text): what is allowed or denied together; Triton's categories, and metrics. */
#define ROUTE_GROUPS(X)                     \
    X(HEALTH, "health")                     \
    X(METADATA, "metadata")                 \
    X(INFERENCE, "inference")               \
    X(SHARED_MEMORY, "shared-memory")       \
    X(MODEL_CONFIG, "model-config")         \
    X(MODEL_REPOSITORY, "model-repository") \
    X(STATISTICS, "statistics")             \
    X(TRACE, "trace")                       \
    X(LOGGING, "logging")                   \
    X(METRICS, "metrics")

enum route_group {
#define ROUTE_GROUP_ENUM(name, text) GROUP_##name,
    ROUTE_GROUPS(ROUTE_GROUP_ENUM)
#undef ROUTE_GROUP_ENUM
    GROUP_COUNT
};

enum route_body {
    BODY_NONE,     /* Not looked at; a small one is tolerated. */
    BODY_SETTINGS, /* JSON that is small: read on the loop. */
    BODY_JSON,     /* At most limits->json_bytes_max. */
    BODY_TENSORS,  /* JSON, then binary tensors: limits->body_bytes_max in all. */
};

struct route {
    enum http_method method; /* A GET also answers HEAD. */
    const char *pattern;
    enum route_group group;
    enum route_body body;
    void (*handle)(struct call *call); /* The body is complete and decoded. */
    const char *help;
    bool loads; /* A model that is loaded on demand is loaded first. */
};

struct route_match {
    const struct route *route;
    struct bytes model; /* As in the path, not percent-decoded; data NULL: none. */
    struct bytes name;  /* {repository} or {region}, the same. */
    uint64_t version;
    bool has_version;
};

const char *route_group_text(enum route_group group);

/* WEIR_ENOENT: no such path.  WEIR_EMETHOD: *allow has a bit (1 << method) for each that there
 * is. */
WEIR_MUST_USE enum weir_status route_find(enum http_method method, struct bytes path,
                                          struct route_match *out, uint32_t *allow);

/* "GET, HEAD" for a set of methods; `out` has at least ROUTE_ALLOW_BYTES.  Returns `out`. */
#define ROUTE_ALLOW_BYTES 80
char *route_allow_format(uint32_t allow, char *out);

/* The table, for the text at GET /: from 0, NULL at the end. */
const struct route *route_at(uint32_t index);

#endif
