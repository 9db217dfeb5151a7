/*
 * Compressed fields, RFC 7541, section 6: a reference to the table; a literal that is added to it; a new size of it;
 * a literal that is not added.  The second and the third change the table.
 *
 * Blocks are seen ahead of the session, so between a block and what it meant others may have been seen.  Any of those
 * ends what is known, and only the latest that was seen can become known: then nothing has changed the table since.
 */
#include "net/http2_recall.h"

#include <string.h>

#define VARINT_BYTES_MAX 5

/* What a session asks of a request: `:method: POST`, `:scheme: http` and `:path: /` of the static table, and
 * `:authority` with a value. */
static const uint8_t stand_in[] = { 0x83, 0x86, 0x84, 0x01, 1, 'h' };

_Static_assert(HTTP2_RECALL_BYTES_MIN == 1 + sizeof(stand_in) &&
                   HTTP2_RECALL_BYTES_MAX == HTTP2_RECALL_BYTES_MIN + UINT8_MAX,
               "a byte says how long the padding is");

/* A number whose first byte has `bits` of it.  False where it is cut or too large. */
static bool read_number(const uint8_t **at, const uint8_t *end, unsigned bits, size_t *out)
{
    const uint8_t most = (uint8_t)((1u << bits) - 1);
    if (*at == end) {
        return false;
    }
    size_t number = *(*at)++ & most;
    if (number == most) {
        unsigned count = 0;
        uint8_t byte;
        do {
            if (*at == end || count == VARINT_BYTES_MAX - 1) {
                return false;
            }
            byte = *(*at)++;
            number += (size_t)(byte & 0x7f) << (7 * count++);
        } while (byte >= 0x80);
    }
    *out = number;
    return true;
}

static bool skip_text(const uint8_t **at, const uint8_t *end)
{
    size_t size;
    if (!read_number(at, end, 7, &size) || size > (size_t)(end - *at)) {
        return false;
    }
    *at += size;
    return true;
}

/* True when reading the block leaves the table as it is. */
static bool leaves_table(const uint8_t *at, const uint8_t *end)
{
    while (at < end) {
        const uint8_t kind = *at;
        const bool reference = kind >= 0x80;
        size_t index;
        if ((!reference && kind >= 0x20) || !read_number(&at, end, reference ? 7 : 4, &index)) {
            return false;
        }
        if (!reference && ((index == 0 && !skip_text(&at, end)) || !skip_text(&at, end))) {
            return false;
        }
    }
    return true;
}

bool http2_recall_take(struct http2_recall *recall, uint8_t *block, size_t size, int32_t id)
{
    if (recall->known && size == recall->size && memcmp(block, recall->bytes, size) == 0) {
        block[0] = (uint8_t)(size - 1 - sizeof(stand_in)); /* Padding behind it. */
        memcpy(block + 1, stand_in, sizeof(stand_in));
        recall->first_id = recall->first_id == 0 ? id : recall->first_id;
        recall->last_id = id;
        return true;
    }
    http2_recall_forget(recall);
    if (size >= HTTP2_RECALL_BYTES_MIN && size <= HTTP2_RECALL_BYTES_MAX &&
        leaves_table(block, block + size)) {
        recall->id = id;
        recall->size = (uint16_t)size;
        memcpy(recall->bytes, block, size);
    }
    return false;
}

void http2_recall_forget(struct http2_recall *recall)
{
    recall->known = false;
    recall->id = 0;
}

void http2_recall_learn(struct http2_recall *recall, int32_t id, uint64_t head_bytes,
                        bool announces)
{
    if (recall->id == id && !recall->known) {
        recall->known = true;
        recall->announces = announces;
        recall->head_bytes = head_bytes;
        recall->first_id = 0;
    }
}
