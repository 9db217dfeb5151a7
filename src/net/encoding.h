/*
 * encoding.h — gzip and deflate bodies, with a limit on what they may become.
 *
 * Pure functions over zlib; any thread.  "deflate" is RFC 9110's: a zlib stream; a raw one and a
 * gzip one are told apart by their first bytes, as clients in the field mix them up.
 */
#ifndef WEIR_NET_ENCODING_H
#define WEIR_NET_ENCODING_H

#include "util/bytes.h"
#include "util/err.h"

/* X(name, text) */
#define ENCODINGS(X) X(IDENTITY, "identity") X(DEFLATE, "deflate") X(GZIP, "gzip")

enum encoding {
#define ENCODING_ENUM(name, text) ENCODING_##name,
    ENCODINGS(ENCODING_ENUM)
#undef ENCODING_ENUM
};

const char *encoding_text(enum encoding encoding);

/* Reads a Content-Encoding value; empty means identity.  WEIR_EENCODING names what was found. */
WEIR_MUST_USE enum weir_status encoding_of(struct bytes value, enum encoding *out,
                                           struct weir_err *err);

/* The one of ours with the highest weight in an Accept-Encoding value, the first of several;
 * identity when the value is empty or nothing fits. */
enum encoding encoding_choose(struct bytes accept);

/* Inflates the whole of `in` into `out`, whose size_max is the limit (WEIR_ETOOBIG beyond it, or
 * beyond ratio_max bytes per byte received plus 16 MiB).  WEIR_EINVAL when malformed, cut short or
 * followed by other bytes.  On failure `out` is finished. */
WEIR_MUST_USE enum weir_status encoding_inflate(enum encoding encoding, struct bytes in,
                                                uint64_t ratio_max, struct buffer *out,
                                                struct weir_err *err);

/* The most that `in_size` bytes may become there, at most size_max. */
size_t encoding_inflated_max(size_t in_size, uint64_t ratio_max, size_t size_max);

/* Compresses `count` pieces into `out`.  WEIR_ENOMEM, WEIR_ETOOBIG. */
WEIR_MUST_USE enum weir_status encoding_deflate(enum encoding encoding, const struct bytes *pieces,
                                                size_t count, struct buffer *out,
                                                struct weir_err *err);

#endif
