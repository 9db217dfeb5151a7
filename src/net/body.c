/*
 * Small bodies live in their exchange's arena.  Larger ones get a block of the declared size: the
 * system hands out its pages only as bytes arrive, and the socket is read straight into it.
 * A chunked body doubles its block; its bytes are copied out of the read buffer anyway.
 */
#include "net/body.h"

#include <stdatomic.h>
#include <string.h>

#include "util/mem.h"

#define ARENA_BYTES_MAX 16384 /* A body up to this size shares the arena's blocks. */

static _Atomic uint64_t held_bytes; /* All bodies of all loops, both ways. */

static enum weir_status grow(struct body *b, struct arena *arena, size_t needed,
                             struct weir_err *err)
{
    size_t capacity = b->expected != 0 ? (size_t)b->expected : 2 * needed;
    if (capacity > b->bytes_max) {
        capacity = (size_t)b->bytes_max;
    }
    const size_t pad = (size_t)(-b->align_at & (MEM_ALIGN - 1));
    size_t total = 0;
    void *heap = NULL;
    char *block = NULL;
    if (!__builtin_add_overflow(capacity, pad, &total)) {
        const bool small = total <= ARENA_BYTES_MAX;
        heap = small ? NULL : mem_try_aligned(total);
        block = small ? arena_try_aligned(arena, total, MEM_ALIGN) : heap;
    }
    if (block == NULL) {
        return err_nomem(err, "a request body", capacity);
    }
    if (b->size > 0) {
        memcpy(block + pad, b->data, b->size);
    }
    mem_free(b->heap);
    b->heap = heap;
    b->lent = false;
    b->data = block + pad;
    b->capacity = capacity;
    return WEIR_OK;
}

enum weir_status body_try_hold(uint64_t size, const struct limits *limits, struct weir_err *err)
{
    const uint64_t held = atomic_fetch_add_explicit(&held_bytes, size, memory_order_relaxed) + size;
    if (limits->bodies_bytes_max != 0 && held > limits->bodies_bytes_max) {
        atomic_fetch_sub_explicit(&held_bytes, size, memory_order_relaxed);
        return err_set(
            err, WEIR_EFULL,
            "request body: the server holds %llu bytes of bodies, at most %llu are allowed",
            (unsigned long long)(held - size), (unsigned long long)limits->bodies_bytes_max);
    }
    return WEIR_OK;
}

void body_lend(struct body *b, char *memory, size_t capacity)
{
    b->data = memory;
    b->capacity = capacity;
    b->lent = true;
}

enum weir_status body_append(struct body *b, struct arena *arena, const struct limits *limits,
                             struct bytes bytes, struct weir_err *err)
{
    if (bytes.size > b->bytes_max - b->size) {
        return err_set(err, WEIR_ETOOBIG, "request body: more than %llu bytes",
                       (unsigned long long)b->bytes_max);
    }
    enum weir_status status = body_try_hold(bytes.size, limits, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (bytes.size > b->capacity - b->size) {
        status = grow(b, arena, b->size + bytes.size, err);
        if (status != WEIR_OK) {
            atomic_fetch_sub_explicit(&held_bytes, bytes.size, memory_order_relaxed);
            return status;
        }
    }
    if (bytes.data != b->data + b->size) {
        memcpy(b->data + b->size, bytes.data, bytes.size);
    }
    b->size += bytes.size;
    return WEIR_OK;
}

bool body_place(const struct body *b, char **out, size_t *room)
{
    if ((b->heap == NULL && !b->lent) || b->expected == 0 || b->size == b->capacity) {
        return false;
    }
    *out = b->data + b->size;
    *room = b->capacity - b->size;
    return true;
}

void body_finish(struct body *b)
{
    mem_free(b->heap);
    if (b->size > 0) {
        atomic_fetch_sub_explicit(&held_bytes, b->size, memory_order_relaxed);
    }
    *b = (struct body){ 0 };
}

void body_hold(uint64_t size)
{
    atomic_fetch_add_explicit(&held_bytes, size, memory_order_relaxed);
}

void body_let_go(uint64_t size)
{
    atomic_fetch_sub_explicit(&held_bytes, size, memory_order_relaxed);
}

uint64_t body_bytes_of_all(void)
{
    return atomic_load_explicit(&held_bytes, memory_order_relaxed);
}
