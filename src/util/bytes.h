/*
 * bytes.h — borrowed bytes, and a buffer that grows up to a limit.
 */
#ifndef WEIR_UTIL_BYTES_H
#define WEIR_UTIL_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "weir/status.h"

/* Borrowed; not NUL-terminated. */
struct bytes {
    const char *data;
    size_t size;
};

#define BYTES_LITERAL(text) ((struct bytes){ (text), sizeof(text) - 1 })

static inline struct bytes bytes_of(const char *text)
{
    return (struct bytes){ text, text == NULL ? 0 : strlen(text) };
}

static inline bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* ASCII letters compare without case. */
bool bytes_equal_nocase(struct bytes a, struct bytes b);

/* Bytes of the well-formed UTF-8 character at the start of `text`: 1..4, or 0 when there is
 * none. */
size_t bytes_utf8_size(struct bytes text);

/* The decimal number that a name such as "gpu12" ends with, and the size of what is before it.  0,
 * and all of it, where there is no such number, or none of 32 bits. */
uint32_t bytes_number_at_end(struct bytes text, size_t *stem_size);

/* A whole decimal number without sign, spaces or leading '+'; false when it is anything else or
 * above `max`.  The one strict reader for header numbers, path versions and options. */
WEIR_MUST_USE bool bytes_to_u64(struct bytes text, uint64_t max, uint64_t *out);

/* Decodes each %XX once into `out`; false where a % has no two digits behind it, or `out` has no
 * room for all. */
WEIR_MUST_USE bool bytes_decode_percent(struct bytes text, char *out, size_t room, size_t *size);

/* A counted size such as "64KiB", "1.5 GiB", "10MB" or "4096"; false when malformed.  At most six
 * decimals and one space before the unit, whose case does not matter: B, KiB to TiB, KB to TB. */
WEIR_MUST_USE bool bytes_to_size(struct bytes text, uint64_t *out);

/* A duration such as "500us", "1.5s", "10 min" or "0", in ns; a bare number other than 0 is
 * refused, because its unit would be a guess.  Units: ns, us, ms, s, min, h. */
WEIR_MUST_USE bool bytes_to_duration_ns(struct bytes text, uint64_t *out);

/* Writes e.g. "1.5 GiB" and "250 us", rounded to a tenth; `out` has at least 32 bytes.  Returns
 * `out`. */
char *bytes_format_size(uint64_t size, char *out);
char *bytes_format_duration(uint64_t ns, char *out);

/*
 * A growable buffer.  It cannot be made without a limit: appending beyond
 * size_max sets `failed` and changes nothing else, so that a writer may append
 * many pieces and look once.  One thread at a time.
 */
struct buffer {
    char *data; /* NULL while capacity is 0. */
    size_t size;
    size_t capacity;
    size_t size_max;
    /* An append did not fit or memory was out; nothing more is appended until buffer_clear(). */
    bool failed;
    bool full; /* It failed at size_max: memory was not out. */
};

void buffer_init(struct buffer *buffer, size_t size_max);
void buffer_finish(struct buffer *buffer); /* Frees; zeroed buffers are fine. */
void buffer_clear(struct buffer *buffer);  /* size 0, not failed; keeps the memory. */

/* Makes room for `extra` more bytes; false (and failed) when there is none. */
bool buffer_reserve(struct buffer *buffer, size_t extra);
void buffer_append(struct buffer *buffer, const void *data, size_t size);
void buffer_text(struct buffer *buffer, const char *text);
void buffer_char(struct buffer *buffer, char c);
void buffer_printf(struct buffer *buffer, const char *format, ...) WEIR_PRINTF(2, 3);
void buffer_u64(struct buffer *buffer, uint64_t value);
void buffer_i64(struct buffer *buffer, int64_t value);

#endif
