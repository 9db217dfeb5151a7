/*
 * Counted memory and the pool it comes back to.
 *
 * A block made here is one allocation: its head is in the first cache line, the
 * data follows, so that the data is aligned and a take touches one list.  A
 * pool's blocks have power-of-two sizes: a freed one fits every later request of its
 * class, and a steady load finds what it needs without looking for a best fit.  What comes
 * back when the pool is full takes the place of blocks of the class that nobody has asked
 * for longest: else the sizes of yesterday's requests would be kept, and today's made anew.
 * What is kept is poisoned under AddressSanitizer, so that use after the last
 * release is found although the memory was never freed.
 *
 * Sockets copy with `rep movsb` where the processor calls that fast.  On AMD's Zen it is 13 times slower (3.5 GB/s
 * of 46) where the target lies 1 to 15 bytes above the source, modulo a page.  The kernel puts what is sent at once
 * from the beginning of a page: a tensor begins there behind its heads, some dozens of bytes.  So the data of large
 * blocks is kept away from that, in the middle of a page.
 */
#include "tensor/block.h"

#include <assert.h>
#include <pthread.h>

#include "util/mem.h"

#if defined(__SANITIZE_ADDRESS__)
#define BLOCK_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BLOCK_POISONS 1
#endif
#endif

#ifdef BLOCK_POISONS
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(data, size) ((void)(data), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(data, size) ((void)(data), (void)(size))
#endif

#define CLASS_MIN_BITS 8 /* The smallest class holds 256 bytes ... */
#define CLASS_COUNT 40   /* ... and the largest 2^47, more than any request may ask for. */

#define LARGE_BYTES 32768 /* From here on data begins in the middle of a page. */
#define LARGE_LEAD (MEM_PAGE / 2)

#define LEAVING_MAX 256 /* Blocks that go at once for one that comes. */

static_assert(sizeof(struct block) <= MEM_ALIGN && LARGE_LEAD % MEM_ALIGN == 0,
              "the head leaves the data aligned");

struct block_pool {
    pthread_mutex_t lock; /* Guards the lists; both counts change under it. */
    struct block *free[CLASS_COUNT];
    uint64_t asked[CLASS_COUNT]; /* The value of `asks` when one was asked for last. */
    uint64_t asks;
    uint64_t bytes_max;
    _Atomic uint64_t used_bytes;
    _Atomic uint64_t kept_bytes;
};

static void free_block(struct block *block)
{
    mem_free(block);
}

static struct block *make_block(size_t size, void (*release)(struct block *))
{
    const bool large = size >= LARGE_BYTES;
    const size_t lead = large ? LARGE_LEAD : MEM_ALIGN;
    size_t whole;
    if (__builtin_add_overflow(size, lead, &whole)) {
        return NULL;
    }
    struct block *block = large ? mem_try_pages(whole) : mem_try_aligned(whole);
    if (block != NULL) {
        block_init(block, (uint8_t *)block + lead, size, release);
    }
    return block;
}

static unsigned class_of(size_t size)
{
    unsigned index = 0;
    while (index < CLASS_COUNT && (UINT64_C(1) << (CLASS_MIN_BITS + index)) < size) {
        index++;
    }
    return index;
}

static void free_blocks(struct block *list)
{
    while (list != NULL) {
        struct block *next = list->next;
        ASAN_UNPOISON_MEMORY_REGION(list->data, list->size);
        free_block(list);
        list = next;
    }
}

/* The class with free blocks that was asked for before all others, and before `index`; CLASS_COUNT: none.
 * The pool's lock is held. */
static unsigned oldest_before(const struct block_pool *pool, unsigned index)
{
    unsigned oldest = CLASS_COUNT;
    uint64_t asked = pool->asked[index];
    for (unsigned i = 0; i < CLASS_COUNT; i++) {
        if (pool->free[i] != NULL && pool->asked[i] < asked) {
            oldest = i;
            asked = pool->asked[i];
        }
    }
    return oldest;
}

/* Makes room for a block of the class; the caller frees what goes.  The pool's lock is held. */
static struct block *make_room(struct block_pool *pool, unsigned index, size_t size)
{
    struct block *leaving = NULL;
    for (int i = 0; i < LEAVING_MAX && pool->kept_bytes + size > pool->bytes_max; i++) {
        const unsigned oldest = oldest_before(pool, index);
        if (oldest == CLASS_COUNT) {
            break;
        }
        struct block *block = pool->free[oldest];
        pool->free[oldest] = block->next;
        pool->kept_bytes -= block->size;
        block->next = leaving;
        leaving = block;
    }
    return leaving;
}

static void give_back(struct block *block)
{
    struct block_pool *pool = block->pool;
    const size_t size = block->size;
    const unsigned index = class_of(size);
    pthread_mutex_lock(&pool->lock);
    pool->used_bytes -= size;
    struct block *leaving = size <= pool->bytes_max ? make_room(pool, index, size) : NULL;
    const bool keep = pool->kept_bytes + size <= pool->bytes_max;
    if (keep) {
        ASAN_POISON_MEMORY_REGION(block->data, size);
        block->next = pool->free[index];
        pool->free[index] = block;
        pool->kept_bytes += size;
    }
    pthread_mutex_unlock(&pool->lock);
    free_blocks(leaving);
    if (!keep) {
        free_block(block);
    }
}

static struct block *take_kept(struct block_pool *pool, unsigned index, size_t size)
{
    pthread_mutex_lock(&pool->lock);
    pool->asked[index] = ++pool->asks;
    struct block *block = pool->free[index];
    if (block != NULL) {
        pool->free[index] = block->next;
        pool->kept_bytes -= size;
        pool->used_bytes += size;
    }
    pthread_mutex_unlock(&pool->lock);
    return block;
}

/* A client may announce much and send little, so the pages of a new block are small, and taken as bytes come.  One
 * that is taken again is of a size that is used, and gets huge ones. */
static void renew(struct block *block)
{
    const struct block head = *block;
    mem_renew(block, LARGE_LEAD + head.size);
    *block = head;
    block->renewed = true;
}

struct block *block_create(size_t size)
{
    return make_block(size, free_block);
}

void block_init(struct block *block, void *data, size_t size, void (*release)(struct block *))
{
    *block = (struct block){ .data = data, .size = size, .release = release };
    atomic_init(&block->holders, 1);
}

void block_acquire(struct block *block)
{
    if (block != NULL) {
        atomic_fetch_add_explicit(&block->holders, 1, memory_order_relaxed);
    }
}

void block_release(struct block *block)
{
    if (block == NULL) {
        return;
    }
    const uint32_t before = atomic_fetch_sub_explicit(&block->holders, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before == 1) {
        block->release(block);
    }
}

struct block_pool *block_pool_create(uint64_t bytes_max)
{
    struct block_pool *pool = mem_alloc(sizeof(*pool));
    pthread_mutex_init(&pool->lock, NULL);
    pool->bytes_max = bytes_max;
    return pool;
}

void block_pool_destroy(struct block_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    assert(pool->used_bytes == 0);
    block_pool_trim(pool);
    pthread_mutex_destroy(&pool->lock);
    mem_free(pool);
}

struct block *block_pool_take(struct block_pool *pool, size_t size)
{
    const unsigned index = class_of(size);
    if (index == CLASS_COUNT) {
        return NULL;
    }
    const size_t rounded = (size_t)1 << (CLASS_MIN_BITS + index);
    struct block *block = take_kept(pool, index, rounded);
    if (block != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(block->data, rounded);
        if (rounded >= MEM_HUGE_PAGE && !block->renewed) {
            renew(block);
        }
        block->next = NULL;
        atomic_store_explicit(&block->holders, 1, memory_order_relaxed);
        return block;
    }
    block = make_block(rounded, give_back);
    if (block != NULL) {
        block->pool = pool;
        pool->used_bytes += rounded;
    }
    return block;
}

void block_pool_trim(struct block_pool *pool)
{
    for (unsigned index = 0; index < CLASS_COUNT; index++) {
        pthread_mutex_lock(&pool->lock);
        struct block *list = pool->free[index];
        pool->free[index] = NULL;
        for (struct block *block = list; block != NULL; block = block->next) {
            pool->kept_bytes -= block->size;
        }
        pthread_mutex_unlock(&pool->lock);
        free_blocks(list);
    }
}

uint64_t block_pool_used_bytes(const struct block_pool *pool)
{
    return pool->used_bytes;
}

uint64_t block_pool_kept_bytes(const struct block_pool *pool)
{
    return pool->kept_bytes;
}
