/*
 * status.h — the one table of outcomes.
 *
 * Every function of Weir that can fail returns one of these.  The table alone
 * knows each status's text, its HTTP code, its gRPC code and whether the same
 * request may succeed later or elsewhere; nothing else in the tree decides any
 * of the four.  HTTP codes follow RFC 9110, gRPC codes grpc/statuscodes.md,
 * the pairing follows KServe v2 and Triton where clients depend on it.
 */
#ifndef WEIR_STATUS_H
#define WEIR_STATUS_H

#include <stdbool.h>

/* X(name, text, HTTP status, gRPC code, worth retrying elsewhere or later) */
#define WEIR_STATUSES(X)                                                    \
    X(OK,           "ok",                                   200,  0, false) \
    X(EINVAL,       "invalid request",                      400,  3, false) \
    X(EUNAUTH,      "credentials missing or wrong",         401, 16, false) \
    X(EFORBIDDEN,   "not allowed",                          403,  7, false) \
    X(ENOENT,       "not found",                            404,  5, false) \
    X(EMETHOD,      "method not allowed here",              405, 12, false) \
    X(ESTALLED,     "client too slow",                      408,  4, true)  \
    X(ECONFLICT,    "not possible in this state",           409,  9, false) \
    X(ETOOBIG,      "too large",                            413,  8, false) \
    X(EENCODING,    "content encoding not supported",       415, 12, false) \
    X(EQUARANTINED, "input crashed the model before",       422,  3, false) \
    X(ERATE,        "client's limit reached",               429,  8, true)  \
    X(EHEADERS,     "request header too large",             431,  8, false) \
    X(ECANCELED,    "canceled by the client",               499,  1, false) \
    X(EBACKEND,     "backend failed",                       500, 13, false) \
    X(EIO,          "input or output failed",               500, 13, false) \
    X(EUNSUPPORTED, "not supported",                        501, 12, false) \
    X(EFULL,        "too many requests waiting",            503, 14, true)  \
    X(EOVERLOAD,    "overloaded, the deadline cannot be met", 503, 14, true) \
    X(ELOADING,     "model is loading",                     503, 14, true)  \
    X(EUNAVAILABLE, "model is unavailable",                 503, 14, true)  \
    X(EDRAINING,    "server is shutting down",              503, 14, true)  \
    X(ENOMEM,       "memory exhausted",                     503,  8, true)  \
    X(ETIMEOUT,     "deadline passed",                      504,  4, true)

enum weir_status {
#define WEIR_STATUS_ENUM(name, text, http, grpc, retry) WEIR_##name,
    WEIR_STATUSES(WEIR_STATUS_ENUM)
#undef WEIR_STATUS_ENUM
    WEIR_STATUS_COUNT
};

#if defined(__GNUC__)
#define WEIR_MUST_USE __attribute__((warn_unused_result))
#define WEIR_PRINTF(text, first) __attribute__((format(printf, text, first)))
#define WEIR_API __attribute__((visibility("default")))
#else
#define WEIR_MUST_USE
#define WEIR_PRINTF(text, first)
#define WEIR_API
#endif

/* "deadline passed"; for a number outside the table "unknown status".  Static storage. */
WEIR_API const char *weir_status_text(enum weir_status status);

/* "ETIMEOUT": the name without its prefix.  Static storage. */
WEIR_API const char *weir_status_name(enum weir_status status);

WEIR_API int weir_status_http(enum weir_status status);
WEIR_API int weir_status_grpc(enum weir_status status);
WEIR_API bool weir_status_retry(enum weir_status status);

/*
 * Says why a call failed, in one sentence for a person: the thing, what was
 * found, what was expected.  The caller owns it; calls that take one accept
 * NULL and write it only when they fail.
 */
struct weir_err {
    enum weir_status status;
    char text[512]; /* NUL-terminated UTF-8, one line; empty when nothing failed. */
};

#endif
