/*
 * Small bodies live in their exchange's arena.  Larger ones get a block of the declared size: the
 * system hands out its pages only as bytes arrive, and the socket is read straight into it.
 * A chunked body doubles its block; its bytes are copied out of the read buffer anyway.
 *
 * What is too large for the heap to keep comes from the system without pages: getting them anew takes
 * longer than the body itself.  So the last few are kept here.
 */
#include "net/body.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "util/mem.h"

#define ARENA_BYTES_MAX 16384 /* A body up to this size shares the arena's blocks. */

#define SPARES 2                        /* Kept at most, */
#define SPARE_BYTES_MIN (4 << 20)       /* of this size */
#define SPARE_BYTES_MAX (16 << 20)      /* to this, */
#define SPARE_STEP ((size_t)(64 << 10)) /* in such steps, so that they are alike. */

static struct {
    pthread_mutex_t lock;
    void *memory[SPARES]; /* NULL: none. */
    size_t size[SPARES];
    unsigned next; /* The oldest. */
} spare = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Atomic uint64_t held_bytes; /* All bodies of all loops, both ways. */

static bool is_spare_size(size_t size)
{
    return size >= SPARE_BYTES_MIN && size <= SPARE_BYTES_MAX;
}

static size_t spare_size(size_t size)
{
    return (size + SPARE_STEP - 1) / SPARE_STEP * SPARE_STEP;
}

/* NULL: no memory. */
static void *take_heap(size_t size)
{
    if (!is_spare_size(size)) {
        return mem_try_aligned(size);
    }
    void *memory = NULL;
    pthread_mutex_lock(&spare.lock);
    for (unsigned i = 0; i < SPARES && memory == NULL; i++) {
        if (spare.size[i] == spare_size(size)) {
            memory = spare.memory[i];
            spare.memory[i] = NULL;
            spare.size[i] = 0;
        }
    }
    pthread_mutex_unlock(&spare.lock);
    return memory != NULL ? memory : mem_try_aligned(spare_size(size));
}

/* `size`: as it was asked for. */
static void give_heap(void *memory, size_t size)
{
    if (memory == NULL || !is_spare_size(size)) {
        mem_free(memory);
        return;
    }
    pthread_mutex_lock(&spare.lock);
    void *oldest = spare.memory[spare.next];
    spare.memory[spare.next] = memory;
    spare.size[spare.next] = spare_size(size);
    spare.next = (spare.next + 1) % SPARES;
    pthread_mutex_unlock(&spare.lock);
    mem_free(oldest);
}

/* In front of the data, so that what is to be aligned is. */
static size_t pad_of(const struct body *b)
{
    return (size_t)(-b->align_at & (MEM_ALIGN - 1));
}

static enum weir_status grow(struct body *b, struct arena *arena, size_t needed,
                             struct weir_err *err)
{
    size_t capacity = b->expected != 0 ? (size_t)b->expected : 2 * needed;
    if (capacity > b->bytes_max) {
        capacity = (size_t)b->bytes_max;
    }
    const size_t pad = pad_of(b);
    size_t total = 0;
    void *heap = NULL;
    char *block = NULL;
    if (!__builtin_add_overflow(capacity, pad, &total)) {
        const bool small = total <= ARENA_BYTES_MAX;
        heap = small ? NULL : take_heap(total);
        block = small ? arena_try_aligned(arena, total, MEM_ALIGN) : heap;
    }
    if (block == NULL) {
        return err_nomem(err, "a request body", capacity);
    }
    if (b->size > 0) {
        memcpy(block + pad, b->data, b->size);
    }
    give_heap(b->heap, b->capacity + pad);
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
    give_heap(b->heap, b->capacity + pad_of(b));
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
