/*
 * protowire.h — protobuf's wire format, read piece by piece and written in two passes.
 *
 *     struct protowire wire;
 *     protowire_init(&wire, message_size);
 *     per chunk:  protowire_feed(&wire, chunk);
 *                 until PROTOWIRE_MORE:  protowire_next(&wire, &token, err)
 *                 at PROTOWIRE_BEGIN:    protowire_enter() for a message, protowire_skip() for what
 *                                        nobody wants; else its bytes come as they arrive
 *
 * A message may be cut anywhere, within a number too; nothing of it is kept.  Sizes are checked
 * against the message around them before anyone sees them.  Groups are passed over.
 * Pure; one thread at a time.
 */
#ifndef WEIR_UTIL_PROTOWIRE_H
#define WEIR_UTIL_PROTOWIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/bytes.h"
#include "util/err.h"

#define PROTOWIRE_DEPTH_MAX 8  /* Messages within each other. */
#define PROTOWIRE_GROUPS_MAX 8 /* Groups within each other. */

enum protowire_type {
    PROTOWIRE_TYPE_VARINT = 0,
    PROTOWIRE_TYPE_FIXED64 = 1,
    PROTOWIRE_TYPE_BYTES = 2,
    PROTOWIRE_TYPE_GROUP = 3,
    PROTOWIRE_TYPE_GROUP_END = 4,
    PROTOWIRE_TYPE_FIXED32 = 5,
};

enum protowire_kind {
    PROTOWIRE_MORE,    /* The chunk is used up (or the message complete: protowire_is_done()). */
    PROTOWIRE_VARINT,  /* number */
    PROTOWIRE_FIXED32, /* number */
    PROTOWIRE_FIXED64, /* number */
    PROTOWIRE_BEGIN,   /* A field of `number` bytes: a string, a message or packed numbers. */
    PROTOWIRE_BYTES,   /* The next of them. */
    PROTOWIRE_END,     /* The last BEGIN that was not ended yet has ended. */
};

struct protowire_token {
    enum protowire_kind kind;
    uint32_t field; /* Not for MORE, BYTES and END. */
    uint64_t number;
    struct bytes bytes;
};

/* A number that may be cut: zeroed before each. */
struct protowire_varint {
    uint64_t value;
    uint32_t shift;
};

enum protowire_varint_state { VARINT_MORE, VARINT_DONE, VARINT_BAD };

struct protowire {
    const uint8_t *at; /* Of the chunk. */
    const uint8_t *end;
    uint64_t offset;                    /* Of `at` in the message. */
    uint64_t ends[PROTOWIRE_DEPTH_MAX]; /* Of the messages that are open. */
    uint32_t depth;
    uint32_t groups[PROTOWIRE_GROUPS_MAX]; /* Their field numbers. */
    uint32_t group_count;
    int state;
    uint32_t field;
    uint32_t fixed_bytes; /* Of a fixed number that is being read. */
    struct protowire_varint number;
    uint64_t left; /* Of a field that is no message. */
};

void protowire_init(struct protowire *wire, uint64_t message_size);
void protowire_feed(struct protowire *wire, struct bytes chunk); /* The one before is used up. */

/* WEIR_EINVAL: no protobuf; there is no going on. */
WEIR_MUST_USE enum weir_status protowire_next(struct protowire *wire, struct protowire_token *out,
                                              struct weir_err *err);

void protowire_enter(struct protowire *wire); /* Right after BEGIN, up to DEPTH_MAX. */

/* Right after BEGIN: all bytes of the field where the chunk has them; then neither they nor an end
 * follow. */
bool protowire_take(struct protowire *wire, struct bytes *out);

/* Bytes of the field whose bytes come now that are not there yet; 0 when there is none. */
uint64_t protowire_due(const struct protowire *wire);

void protowire_skip(struct protowire *wire); /* Right after BEGIN: neither bytes nor an end. */

/* Bytes until the end of the message that is open. */
uint64_t protowire_left(const struct protowire *wire);
bool protowire_is_done(const struct protowire *wire); /* All of the message was read. */

/* Reads on at *at, which it moves; for packed numbers. */
enum protowire_varint_state protowire_varint_read(struct protowire_varint *number,
                                                  const uint8_t **at, const uint8_t *end);

/*
 * Writing: the same calls first count (at NULL), then write; the size of each inner message is
 * what its own calls count.
 */
struct protowire_out {
    uint8_t *at; /* NULL: only counts. */
    uint64_t size;
};

void protowire_put_long(struct protowire_out *out,
                        uint64_t value); /* For protowire_put_varint(). */

static inline void protowire_put_varint(struct protowire_out *out, uint64_t value)
{
    if (value >= 0x80) {
        protowire_put_long(out, value);
        return;
    }
    out->size++;
    if (out->at != NULL) {
        *out->at++ = (uint8_t)value;
    }
}

void protowire_put_tag(struct protowire_out *out, uint32_t field, enum protowire_type type);
void protowire_put_number(struct protowire_out *out, uint32_t field, uint64_t value);
void protowire_put_double(struct protowire_out *out, uint32_t field, double value);

/* The tag and the size of a field whose bytes follow. */
void protowire_put_begin(struct protowire_out *out, uint32_t field, uint64_t size);
void protowire_put_bytes(struct protowire_out *out, uint32_t field, struct bytes bytes);
void protowire_put_raw(struct protowire_out *out, const void *data, size_t size);

#endif
