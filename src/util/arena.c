/*
 * Each further block is as large as all before it together, up to 64 KiB, so a
 * request makes few allocations and wastes at most half.  A piece that would
 * fill such a block alone gets one of exactly its size and leaves the current
 * block current.
 */
#include "util/arena.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "util/mem.h"

#define BLOCK_BYTES_MIN 1024
#define BLOCK_BYTES_MAX 65536

struct arena_block {
    struct arena_block *next;
    alignas(max_align_t) char data[];
};

void arena_init(struct arena *arena, void *first, size_t first_bytes, size_t bytes_max)
{
    char *at = first;
    *arena = (struct arena){
        .at = at,
        .end = at == NULL ? NULL : at + first_bytes,
        .bytes_max = bytes_max,
        .first = first,
        .first_bytes = first_bytes,
    };
}

void arena_reset(struct arena *arena)
{
    /* Disposables usually live in the arena's own memory, and one may add another. */
    while (arena->disposables != NULL) {
        struct arena_disposable *item = arena->disposables;
        arena->disposables = item->next;
        item->dispose(item);
    }
    while (arena->blocks != NULL) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->next;
        mem_free(block);
    }
    arena_init(arena, arena->first, arena->first_bytes, arena->bytes_max);
}

void arena_finish(struct arena *arena)
{
    arena_reset(arena);
    arena_init(arena, NULL, 0, arena->bytes_max);
}

/* A piece from the current block, or NULL when it does not fit. */
static void *carve(struct arena *arena, size_t size, size_t align)
{
    if (arena->at == NULL) {
        return NULL;
    }
    const size_t left = (size_t)(arena->end - arena->at);
    const size_t gap = (size_t)(-(uintptr_t)arena->at & (align - 1));
    if (gap > left || size > left - gap) {
        return NULL;
    }
    char *piece = arena->at + gap;
    arena->at = piece + size;
    return piece;
}

/* What the next shared block should have; 0 when the limit is reached. */
static size_t block_bytes(const struct arena *arena)
{
    size_t bytes = arena->used_bytes < arena->first_bytes ? arena->first_bytes : arena->used_bytes;
    bytes = bytes < BLOCK_BYTES_MIN ? BLOCK_BYTES_MIN : bytes;
    bytes = bytes > BLOCK_BYTES_MAX ? BLOCK_BYTES_MAX : bytes;
    if (arena->bytes_max != 0 && bytes > arena->bytes_max - arena->used_bytes) {
        bytes = arena->bytes_max - arena->used_bytes;
    }
    return bytes;
}

static struct arena_block *add_block(struct arena *arena, size_t bytes)
{
    size_t total;
    if (__builtin_add_overflow(bytes, sizeof(struct arena_block), &total)) {
        return NULL;
    }
    if (arena->bytes_max != 0 && bytes > arena->bytes_max - arena->used_bytes) {
        return NULL;
    }
    struct arena_block *block = mem_try_alloc(total);
    if (block == NULL) {
        return NULL;
    }
    block->next = arena->blocks;
    arena->blocks = block;
    arena->used_bytes += bytes;
    return block;
}

void *arena_try_aligned(struct arena *arena, size_t size, size_t align)
{
    assert(align != 0 && (align & (align - 1)) == 0);
    if (mem_fault()) {
        return NULL;
    }
    size = size == 0 ? 1 : size; /* NULL always means failure. */
    void *piece = carve(arena, size, align);
    if (piece != NULL) {
        return piece;
    }
    size_t needed = size;
    if (align > alignof(max_align_t) &&
        __builtin_add_overflow(size, align - alignof(max_align_t), &needed)) {
        return NULL;
    }
    const size_t shared = block_bytes(arena);
    const bool alone = needed >= shared;
    struct arena_block *block = add_block(arena, alone ? needed : shared);
    if (block == NULL) {
        return NULL;
    }
    if (alone) {
        return block->data + (-(uintptr_t)block->data & (align - 1));
    }
    arena->at = block->data;
    arena->end = block->data + shared;
    return carve(arena, size, align);
}

char *arena_try_strndup(struct arena *arena, const char *text, size_t size)
{
    char *memory = size < SIZE_MAX ? arena_try_aligned(arena, size + 1, 1) : NULL;
    return mem_write_text(memory, text, size);
}

char *arena_try_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    va_list again;
    va_start(args, format);
    va_copy(again, args);
    char *text = NULL;
    const int size = vsnprintf(NULL, 0, format, args);
    if (size >= 0) {
        text = arena_try_aligned(arena, (size_t)size + 1, 1);
    }
    if (text != NULL) {
        (void)vsnprintf(text, (size_t)size + 1, format, again);
    }
    va_end(again);
    va_end(args);
    return text;
}

void arena_dispose(struct arena *arena, struct arena_disposable *item)
{
    item->next = arena->disposables;
    arena->disposables = item;
}
