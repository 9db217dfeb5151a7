/*
 * json.h — strict reading with limits, and writing straight into a buffer.
 *
 * Reading is yyjson's; this header adds the limits (depth, bytes, no duplicate
 * keys at the top of an object where asked) and sentences that say what was
 * expected.  Writing needs no tree: the writer appends text, numbers in
 * shortest round-trip form.
 */
#ifndef WEIR_UTIL_JSON_H
#define WEIR_UTIL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <yyjson.h>

#include "util/bytes.h"
#include "util/err.h"

#define JSON_DEPTH_MAX 100 /* As Triton's nesting limit. */

/* Parses exactly one document: RFC 8259, no comments, no trailing text, UTF-8 checked; `NaN`,
 * `Infinity` and `-Infinity` are refused.  Fails with WEIR_EINVAL, naming line and column, also
 * when nested deeper than JSON_DEPTH_MAX; WEIR_ENOMEM.  The document owns its memory and is freed
 * with yyjson_doc_free(); `text` is only borrowed for the call. */
WEIR_MUST_USE enum weir_status json_read(struct bytes text, yyjson_doc **out, struct weir_err *err);

/* "an object", "the string 'a'", "the number 3": what was found, for error sentences.  Valid until
 * the same thread calls it again. */
const char *json_kind(yyjson_val *value);

/* Fetches a member and checks its type.  Absent: WEIR_OK and *out untouched when not `required`,
 * else WEIR_EINVAL.  `where` names the object in the sentence, e.g. "inputs[0]"; NULL or "" is the
 * document itself.  JSON_UINT is a whole number from 0 to 2^64-1 written without point or exponent,
 * JSON_NUMBER any number.  WEIR_EINVAL also when `object` is no object. */
enum json_type { JSON_BOOL, JSON_STRING, JSON_ARRAY, JSON_OBJECT, JSON_UINT, JSON_NUMBER };
WEIR_MUST_USE enum weir_status json_member(yyjson_val *object, const char *where, const char *key,
                                           enum json_type type, bool required, yyjson_val **out,
                                           struct weir_err *err);

/* WEIR_EINVAL when an object has the same key twice; names it.  WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status json_unique(yyjson_val *object, const char *where,
                                           struct weir_err *err);

/* Writers: append to `out`; look at out->failed once at the end.  A number or text is there whole
 * or not at all. */

/* Quoted and escaped; a byte that is no UTF-8 becomes U+FFFD. */
void json_text(struct buffer *out, struct bytes text);
void json_string(struct buffer *out, const char *text);

/* Shortest that reads back as the same FP64 or FP32; NaN, Infinity and -Infinity bare, as Triton
 * writes them. */
void json_double(struct buffer *out, double value);
void json_float(struct buffer *out, float value);
void json_bool(struct buffer *out, bool value);

/* The values as a flat array in brackets, as json_double() writes them. */
void json_doubles(struct buffer *out, const double *values, size_t count);

/* ,"key": with the comma only when the last byte is not '{' or '['. */
void json_key(struct buffer *out, const char *key);

/* The same comma alone, for the items of an array. */
void json_comma(struct buffer *out);

#endif
