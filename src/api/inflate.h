/*
 * inflate.h — bodies that come compressed.
 */
#ifndef WEIR_API_INFLATE_H
#define WEIR_API_INFLATE_H

#include "api/call.h"
#include "net/encoding.h"

/* Has a worker inflate the exchange's body within the limits (bodies_bytes_max, inflate_ratio_max,
 * the route's), then handles the call; a body that cannot be inflated is answered.  The result
 * lives as long as the exchange. */
void inflate_begin(struct call *call, enum encoding encoding);

#endif
