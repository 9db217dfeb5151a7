/*
 * Why not the runtime's own arena: it belongs to one session, tells nobody how much it holds, and
 * grows with every new shape.  Here the bound is simple: what is in use and what is kept are
 * together no more than what was in use at once during the last runs.
 *
 * The runtime writes to what an allocator returns without looking at it.  So this one never returns
 * NULL: where memory is out it throws what the runtime's own would throw, by asking C++ for more
 * than there can be.  No frame in between has anything to clean up.
 */
#include "backend/onnx_memory.h"

#include <dlfcn.h>
#include <onnxruntime_c_api.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "backend/onnx.h"
#include "backend/vanish.h"
#include "util/list.h"
#include "util/mem.h"

#define LARGE_BYTES ((size_t)256 << 10) /* From here on a block is a mapping, */
#define LARGE_STEP ((size_t)64 << 10)   /* of a multiple of this. */
#define WASTE_MAX 2                     /* A kept block serves for a half of its size. */
#define WINDOW_RUNS 256

struct onnx_account {
    _Atomic uint64_t bytes;
    _Atomic uint64_t bytes_peak;
    _Atomic uint64_t holders; /* Blocks in use, and the model. */
    struct vanish_mark files;
    pthread_mutex_t lock; /* Guards what follows, about large blocks. */
    struct list spares;   /* Of block_head.node, the last freed first. */
    uint64_t used_bytes;
    uint64_t spare_bytes;
    uint64_t used_bytes_peak; /* Of the window before this one, or of this one if that is more. */
    uint64_t window_peak;
    uint32_t window_runs;
    bool closed;
};

/* In front of every block. */
struct block_head {
    alignas(MEM_ALIGN) struct onnx_account *account; /* NULL: nobody's. */
    size_t size;                                     /* Of it all. */
    struct list_node node;
};

static _Thread_local struct onnx_account *current;

/* ---- Accounts -------------------------------------------------------------------------------- */

struct onnx_account *onnx_account_create(void)
{
    struct onnx_account *account = mem_try_zero(1, sizeof(*account));
    if (account != NULL) {
        atomic_init(&account->holders, 1);
        pthread_mutex_init(&account->lock, NULL);
        list_init(&account->spares);
    }
    return account;
}

static void release(struct onnx_account *account)
{
    if (atomic_fetch_sub(&account->holders, 1) == 1) {
        pthread_mutex_destroy(&account->lock);
        mem_free(account);
    }
}

static void add_bytes(struct onnx_account *account, uint64_t bytes)
{
    const uint64_t now =
        atomic_fetch_add_explicit(&account->bytes, bytes, memory_order_relaxed) + bytes;
    uint64_t peak = atomic_load_explicit(&account->bytes_peak, memory_order_relaxed);
    while (now > peak &&
           !atomic_compare_exchange_weak_explicit(&account->bytes_peak, &peak, now,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void drop_bytes(struct onnx_account *account, uint64_t bytes)
{
    (void)atomic_fetch_sub_explicit(&account->bytes, bytes, memory_order_relaxed);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Unmaps the spares that were kept longest until all blocks together have at most `bytes`. */
static void shrink_locked(struct onnx_account *account, uint64_t bytes)
{
    while (account->spare_bytes > 0 && account->used_bytes + account->spare_bytes > bytes) {
        struct list_node *last = account->spares.head.prev;
        struct block_head *head = list_entry(last, struct block_head, node);
        list_remove(last);
        account->spare_bytes -= head->size;
        drop_bytes(account, head->size);
        (void)munmap(head, head->size);
    }
}

void onnx_account_trim(struct onnx_account *account)
{
    pthread_mutex_lock(&account->lock);
    shrink_locked(account, 0);
    account->used_bytes_peak = account->used_bytes;
    account->window_peak = account->used_bytes;
    pthread_mutex_unlock(&account->lock);
}

void onnx_account_close(struct onnx_account *account)
{
    if (account == NULL) {
        return;
    }
    pthread_mutex_lock(&account->lock);
    account->closed = true;
    shrink_locked(account, 0);
    pthread_mutex_unlock(&account->lock);
    release(account);
}

struct onnx_account *onnx_account_enter(struct onnx_account *account)
{
    struct onnx_account *before = current;
    current = account;
    (void)vanish_watch(account == NULL ? NULL : &account->files);
    return before;
}

bool onnx_account_lost(const struct onnx_account *account)
{
    return atomic_load_explicit(&account->files.lost, memory_order_relaxed);
}

void onnx_account_tick(struct onnx_account *account)
{
    pthread_mutex_lock(&account->lock);
    if (++account->window_runs >= WINDOW_RUNS) {
        account->window_runs = 0;
        account->used_bytes_peak = account->window_peak;
        account->window_peak = account->used_bytes;
        shrink_locked(account, account->used_bytes_peak);
    }
    pthread_mutex_unlock(&account->lock);
}

void onnx_account_read(const struct onnx_account *account, uint64_t *bytes, uint64_t *bytes_peak)
{
    *bytes = atomic_load_explicit(&account->bytes, memory_order_relaxed);
    *bytes_peak = atomic_load_explicit(&account->bytes_peak, memory_order_relaxed);
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

/* Does not return: throws std::bad_alloc, or ends the process where nobody could catch it. */
static void throw_no_memory(void)
{
    union {
        void *symbol;
        void (*call)(void);
    } bad_alloc = { dlsym(RTLD_DEFAULT,
                          "_ZSt17__throw_bad_allocv") }; /* std::__throw_bad_alloc() */
    if (bad_alloc.symbol != NULL) {
        bad_alloc.call();
    }
    (void)fprintf(stderr, "weir: out of memory in ONNX Runtime\n");
    abort();
}

/* The smallest spare that will do. */
static struct block_head *find_spare_locked(const struct onnx_account *account, size_t size)
{
    struct block_head *best = NULL;
    for (struct list_node *n = list_first(&account->spares); n != NULL;
         n = list_next(&account->spares, n)) {
        struct block_head *head = list_entry(n, struct block_head, node);
        if (head->size >= size && head->size / WASTE_MAX <= size &&
            (best == NULL || head->size < best->size)) {
            best = head;
        }
    }
    return best;
}

static struct block_head *map_block(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    struct block_head *head = memory;
    head->size = size;
    return head;
}

static void note_used_locked(struct onnx_account *account, size_t size)
{
    account->used_bytes += size;
    account->window_peak = larger(account->window_peak, account->used_bytes);
    account->used_bytes_peak = larger(account->used_bytes_peak, account->window_peak);
}

static struct block_head *take_large(struct onnx_account *account, size_t size)
{
    if (account == NULL) {
        return map_block(size);
    }
    pthread_mutex_lock(&account->lock);
    struct block_head *head = find_spare_locked(account, size);
    if (head != NULL) {
        list_remove(&head->node);
        account->spare_bytes -= head->size;
        note_used_locked(account, head->size);
    }
    pthread_mutex_unlock(&account->lock);
    if (head != NULL) {
        return head;
    }
    head = map_block(size);
    if (head != NULL) {
        add_bytes(account, size);
        pthread_mutex_lock(&account->lock);
        note_used_locked(account, size);
        shrink_locked(account, account->used_bytes_peak);
        pthread_mutex_unlock(&account->lock);
    }
    return head;
}

static void give_large(struct onnx_account *account, struct block_head *head)
{
    bool kept = false;
    if (account != NULL) {
        pthread_mutex_lock(&account->lock);
        account->used_bytes -= head->size;
        kept = !account->closed;
        if (kept) {
            list_prepend(&account->spares, &head->node);
            account->spare_bytes += head->size;
        }
        pthread_mutex_unlock(&account->lock);
    }
    if (!kept) {
        if (account != NULL) {
            drop_bytes(account, head->size);
        }
        (void)munmap(head, head->size);
    }
}

static struct block_head *take_small(struct onnx_account *account, size_t size)
{
    struct block_head *head = mem_try_aligned(size);
    if (head != NULL) {
        head->size = size;
        if (account != NULL) {
            add_bytes(account, size);
        }
    }
    return head;
}

static void *ORT_API_CALL take(OrtAllocator *self, size_t size)
{
    (void)self;
    struct onnx_account *account = current;
    size_t whole;
    struct block_head *head = NULL;
    if (!__builtin_add_overflow(size, sizeof(*head) + LARGE_STEP, &whole)) {
        whole -= LARGE_STEP;
        head = whole < LARGE_BYTES
                   ? take_small(account, whole)
                   : take_large(account, (whole + LARGE_STEP - 1) / LARGE_STEP * LARGE_STEP);
    }
    if (head == NULL) {
        throw_no_memory();
        return NULL;
    }
    head->account = account;
    if (account != NULL) {
        (void)atomic_fetch_add_explicit(&account->holders, 1, memory_order_relaxed);
    }
    return head + 1;
}

static void ORT_API_CALL give(OrtAllocator *self, void *memory)
{
    (void)self;
    if (memory == NULL) {
        return;
    }
    struct block_head *head = (struct block_head *)memory - 1;
    struct onnx_account *account = head->account;
    if (head->size >= LARGE_BYTES) {
        give_large(account, head);
    } else {
        if (account != NULL) {
            drop_bytes(account, head->size);
        }
        mem_free(head);
    }
    if (account != NULL) {
        release(account);
    }
}

/* ---- The allocator --------------------------------------------------------------------------- */

static OrtMemoryInfo *info;

static const OrtMemoryInfo *ORT_API_CALL get_info(const OrtAllocator *self)
{
    (void)self;
    return info;
}

static OrtAllocator allocator = {
    .version = ORT_API_VERSION,
    .Alloc = take,
    .Free = give,
    .Info = get_info,
    .Reserve = take,
};

OrtStatus *onnx_memory_register(OrtEnv *env)
{
    OrtStatus *failed =
        info != NULL ? NULL
                     : onnx_api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &info);
    return failed != NULL ? failed : onnx_api->RegisterAllocator(env, &allocator);
}
