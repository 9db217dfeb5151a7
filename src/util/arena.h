/*
 * arena.h — memory that dies together.
 *
 * One request has one arena for everything of its lifetime.  Blocks grow by
 * doubling up to 64 KiB; larger pieces get a block of their own.  The first
 * block can be the caller's, so that small requests allocate nothing.  Memory
 * is never moved and is freed only by arena_reset() or arena_finish().
 * Owned by one thread at a time.
 */
#ifndef WEIR_UTIL_ARENA_H
#define WEIR_UTIL_ARENA_H

#include <stdalign.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "weir/status.h"

struct arena_block;

/* Something counted or foreign that must be let go when the arena ends. */
struct arena_disposable {
    struct arena_disposable *next;
    void (*dispose)(struct arena_disposable *self);
};

struct arena {
    char *at; /* Next free byte of the current block. */
    char *end;
    struct arena_block *blocks; /* Own blocks, newest first. */
    struct arena_disposable *disposables;
    size_t used_bytes; /* Bytes in own blocks. */
    size_t bytes_max;  /* arena_try_* fails beyond this many bytes in own blocks. */
    void *first;       /* The caller's first block, and its size. */
    size_t first_bytes;
};

/* `first` may be NULL; it is borrowed until arena_finish().  bytes_max 0 means no limit. */
void arena_init(struct arena *arena, void *first, size_t first_bytes, size_t bytes_max);

/* Disposes and frees everything; the arena is as after arena_init(). */
void arena_reset(struct arena *arena);
void arena_finish(struct arena *arena);

/* Not zeroed; NULL when memory is out or bytes_max is reached. */
WEIR_MUST_USE void *arena_try_aligned(struct arena *arena, size_t size, size_t align);

/* The same, aligned for any type.  Inline: nearly all of a request's pieces fit into the current
 * block. */
WEIR_MUST_USE static inline void *arena_try_alloc(struct arena *arena, size_t size)
{
#ifndef WEIR_ALLOC_FAULT /* Test builds count every piece. */
    const size_t gap = (size_t)(-(uintptr_t)arena->at & (alignof(max_align_t) - 1));
    const size_t left = (size_t)((uintptr_t)arena->end - (uintptr_t)arena->at);
    if (size > 0 && gap <= left && size <= left - gap) {
        void *piece = arena->at + gap;
        arena->at += gap + size;
        return piece;
    }
#endif
    return arena_try_aligned(arena, size, alignof(max_align_t));
}

WEIR_MUST_USE static inline void *arena_try_zero(struct arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        return NULL;
    }
    void *piece = arena_try_alloc(arena, bytes);
    if (piece != NULL) {
        memset(piece, 0, bytes);
    }
    return piece;
}

/* A NUL-terminated copy of `size` bytes; NULL when memory is out. */
WEIR_MUST_USE char *arena_try_strndup(struct arena *arena, const char *text, size_t size);
WEIR_MUST_USE char *arena_try_printf(struct arena *arena, const char *format, ...)
    WEIR_PRINTF(2, 3);

/* Calls item->dispose(item) at reset or finish, last added first. */
void arena_dispose(struct arena *arena, struct arena_disposable *item);

#endif
