/*
 * A block's class stands before it, so that it is known when it is freed.
 */
#include "net/http2_memory.h"

#include <stdalign.h>
#include <stddef.h>
#include <string.h>

#include "util/mem.h"

struct http2_block {
    union {
        struct http2_block *next; /* While it is spare. */
        size_t size;              /* Without this header. */
    } head;
    alignas(max_align_t) char data[];
};

static struct http2_block *block_of(void *data)
{
    return (struct http2_block *)(void *)((char *)data - offsetof(struct http2_block, data));
}

/* HTTP2_MEMORY_CLASSES for a block that is not kept. */
static size_t class_of(size_t size)
{
    const size_t class = size == 0 ? 0 : (size - 1) / HTTP2_MEMORY_STEP;
    return class < HTTP2_MEMORY_CLASSES ? class : HTTP2_MEMORY_CLASSES;
}

static void *take(size_t size, void *user)
{
    struct http2_memory *memory = user;
    const size_t class = class_of(size);
    size_t total = (class + 1) * HTTP2_MEMORY_STEP;
    struct http2_block *block = NULL;
    if (class < HTTP2_MEMORY_CLASSES && memory->spare[class] != NULL) {
        block = memory->spare[class];
        memory->spare[class] = block->head.next;
        memory->count[class]--;
    } else {
        total = class < HTTP2_MEMORY_CLASSES ? total : size;
        if (!__builtin_add_overflow(total, sizeof(*block), &total)) {
            block = mem_try_alloc(total);
        }
    }
    if (block == NULL) {
        return NULL;
    }
    block->head.size = size;
    return block->data;
}

static void give(void *data, void *user)
{
    struct http2_memory *memory = user;
    if (data == NULL) {
        return;
    }
    struct http2_block *block = block_of(data);
    const size_t class = class_of(block->head.size);
    if (class == HTTP2_MEMORY_CLASSES || memory->count[class] == HTTP2_MEMORY_KEPT) {
        mem_free(block);
        return;
    }
    block->head.next = memory->spare[class];
    memory->spare[class] = block;
    memory->count[class]++;
}

static void *take_zero(size_t count, size_t size, void *user)
{
    size_t total = 0;
    void *data = __builtin_mul_overflow(count, size, &total) ? NULL : take(total, user);
    return data == NULL ? NULL : memset(data, 0, total);
}

static void *resize(void *data, size_t size, void *user)
{
    if (data == NULL) {
        return take(size, user);
    }
    const size_t before = block_of(data)->head.size;
    void *moved = take(size, user);
    if (moved != NULL) {
        memcpy(moved, data, before < size ? before : size);
        give(data, user);
    }
    return moved;
}

nghttp2_mem http2_memory_of(struct http2_memory *memory)
{
    return (nghttp2_mem){ memory, take, give, take_zero, resize };
}

void http2_memory_finish(struct http2_memory *memory)
{
    for (size_t i = 0; i < HTTP2_MEMORY_CLASSES; i++) {
        while (memory->spare[i] != NULL) {
            struct http2_block *block = memory->spare[i];
            memory->spare[i] = block->head.next;
            mem_free(block);
        }
        memory->count[i] = 0;
    }
}
