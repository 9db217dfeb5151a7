/*
 * access.h — the one place that says who may call what.
 *
 * It goes by the group of the handler that routing has found, not by the path, so REST and gRPC
 * have the same rules, and no second way to a handler has others.  In order:
 *
 *   web       administration is not for web pages of other sites
 *   header    groups that are restricted as Triton restricts them need a header
 *   key       where there is a file of keys, groups that are not open need a key that allows them
 *   limits    of that key
 *
 * Any thread, but for reloading, which is for one at a time.
 */
#ifndef WEIR_API_ACCESS_H
#define WEIR_API_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "api/keys.h"
#include "api/route.h"
#include "util/err.h"

/* A list of words, borrowed for the life of the struct access. */
struct access_words {
    const char *const *items;
    uint64_t count;
};

struct access_options {
    const char *keys; /* File; "": none. */
    struct access_words open_groups;
    /* "GROUP:HEADER=VALUE"; groups without are the next one's. */
    struct access_words http_restricted;
    struct access_words grpc_restricted;
    struct access_words origins; /* Of web pages that may call; "*": all. */
};

struct access;
struct call;

/* WEIR_EINVAL with the option's name; what keys_create() returns. */
WEIR_MUST_USE enum weir_status access_create(const struct access_options *options,
                                             struct access **out, struct weir_err *err);
void access_destroy(struct access *access); /* NULL is fine. */

struct keys *access_keys(struct access *access); /* NULL: without. */

/* At the head, after routing.  WEIR_OK: the call counts as its key's until its exchange is over;
 * otherwise why not, and what the answer needs for that is in its header.  `access` NULL: only the
 * rules for web pages hold. */
WEIR_MUST_USE enum weir_status access_enter(struct access *access, struct call *call,
                                            enum route_group group, struct weir_err *err);

/* A request of a stream is a call of its own; the first is the one that opened the stream, whose
 * place it takes over.  WEIR_OK: it counts as one of *out (NULL: of no key) until key_leave().
 * WEIR_ERATE: it may come again after *retry_s. */
WEIR_MUST_USE enum weir_status access_enter_message(struct call *call, struct key_use **out,
                                                    uint64_t *retry_s, struct weir_err *err);

/* Before routing: lets pages of configured origins read the answer. */
void access_share(struct access *access, struct call *call);

/* True when this is a browser's question whether a page may call, of a page that may: then it is
 * answered.  `allow` is as from route_find(). */
WEIR_MUST_USE bool access_preflight(struct access *access, struct call *call, uint32_t allow);

#endif
