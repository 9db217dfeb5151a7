#include "net/http2_out.h"

#include "util/mem.h"

#define MOVED_MAX ((size_t)32 << 10) /* More than this waits in its place until it is sent. */

enum weir_status http2_out_init(struct http2_out *out, size_t capacity)
{
    *out = (struct http2_out){ .own = mem_try_alloc(capacity), .capacity = capacity };
    return out->own == NULL ? WEIR_ENOMEM : WEIR_OK;
}

void http2_out_finish(struct http2_out *out)
{
    mem_free(out->own);
    *out = (struct http2_out){ 0 };
}

static uint32_t place(const struct http2_out *out, uint32_t index)
{
    return (out->lent_first + index) % HTTP2_OUT_LENT_MAX;
}

void http2_out_lend(struct http2_out *out, struct bytes bytes)
{
    assert(http2_out_can_lend(out) && bytes.size > 0);
    out->lent[place(out, out->lent_count++)] =
        (struct http2_out_lent){ .at = out->size, .bytes = bytes };
}

uint32_t http2_out_pieces(const struct http2_out *out, struct bytes pieces[HTTP2_OUT_PIECES_MAX])
{
    uint32_t count = 0;
    size_t at = out->from;
    for (uint32_t i = 0; i < out->lent_count; i++) {
        const struct http2_out_lent *lent = &out->lent[place(out, i)];
        if (lent->at > at) {
            pieces[count++] = (struct bytes){ out->own + at, lent->at - at };
            at = lent->at;
        }
        pieces[count++] = lent->bytes;
    }
    if (out->size > at) {
        pieces[count++] = (struct bytes){ out->own + at, out->size - at };
    }
    return count;
}

/* Own bytes to the front again, where that is little work. */
static void make_room(struct http2_out *out)
{
    const size_t left = out->size - out->from;
    if (out->from == 0 || left > MOVED_MAX) {
        return;
    }
    memmove(out->own, out->own + out->from, left);
    for (uint32_t i = 0; i < out->lent_count; i++) {
        out->lent[place(out, i)].at -= out->from;
    }
    out->size = left;
    out->from = 0;
}

void http2_out_sent(struct http2_out *out, size_t size)
{
    while (size > 0) {
        struct http2_out_lent *lent = out->lent_count > 0 ? &out->lent[out->lent_first] : NULL;
        const size_t own = (lent != NULL ? lent->at : out->size) - out->from;
        size_t gone = own < size ? own : size;
        out->from += gone;
        if (gone == 0) {
            assert(lent != NULL);
            gone = lent->bytes.size < size ? lent->bytes.size : size;
            lent->bytes.data += gone;
            lent->bytes.size -= gone;
            if (lent->bytes.size == 0) {
                out->lent_first = place(out, 1);
                out->lent_count--;
            }
        }
        size -= gone;
    }
    make_room(out);
}
