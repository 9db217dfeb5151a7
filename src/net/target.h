/*
 * target.h — the parts of a request that every version of HTTP spells alike: method, target, host.
 *
 * Pure functions; any thread.
 */
#ifndef WEIR_NET_TARGET_H
#define WEIR_NET_TARGET_H

#include "net/http.h"
#include "util/err.h"

/* HTTP_OTHER for a token that is not in HTTP_METHODS; WEIR_EINVAL for what is no token. */
WEIR_MUST_USE enum weir_status target_method(struct bytes name, enum http_method *out,
                                             struct weir_err *err);

/* Checks `target` and sets x->target, path and query, for x->method.  WEIR_EINVAL names the
 * byte. */
WEIR_MUST_USE enum weir_status target_read(struct exchange *x, struct bytes target,
                                           struct weir_err *err);

/* tchar of RFC 9110, section 5.6.2. */
bool target_is_token(char c);

/* HOST or HOST:PORT, as characters. */
bool target_is_host(struct bytes value);

#endif
