/*
 * A thin layer over the C library: it exists so that running out has exactly
 * two meanings, and so that tests can make the nth allocation fail.
 */
#include "util/mem.h"

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MAPPED_BYTES_MIN (4 << 20)    /* Larger blocks are mappings of their own, */
#define MAPPED_BYTES_LIMIT (32 << 20) /* at the latest from here on. */
#define KEPT_BYTES_MAX (8 << 20)      /* At the end of a heap, for what comes next. */

#ifdef WEIR_ALLOC_FAULT
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <unistd.h>

#define FRAMES 24
#define FRAME_BYTES 300

static _Atomic uint64_t fault_at;
static _Atomic uint64_t fault_calls;
static pthread_once_t sites_once = PTHREAD_ONCE_INIT;
static int sites_fd = -1;
static char program[FRAME_BYTES]; /* Whose own name need not be a path. */

/* Early: later the process may be confined. */
static void open_sites(void)
{
    void *frame;
    const char *path = getenv("WEIR_FAULT_SITES");
    if (path != NULL && backtrace(&frame, 1) > 0) {
        sites_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        (void)!readlink("/proc/self/exe", program, sizeof(program) - 1);
    }
}

/* Appends a line to the file WEIR_FAULT_SITES: the calls that led here, innermost first, as FILE+OFFSET. */
static void note_site(void)
{
    void *frames[FRAMES];
    char line[FRAMES * FRAME_BYTES];
    size_t size = 0;
    const int count = sites_fd < 0 ? 0 : backtrace(frames, FRAMES);
    for (int i = 0; i < count; i++) {
        Dl_info info;
        if (dladdr(frames[i], &info) != 0) {
            const ptrdiff_t offset = (char *)frames[i] - (char *)info.dli_fbase;
            const char *file = info.dli_fname[0] == '/' ? info.dli_fname : program;
            const int written = snprintf(line + size, FRAME_BYTES, "%.250s+0x%tx ", file, offset);
            size += written > 0 ? (size_t)written : 0;
        }
    }
    if (size > 0) {
        line[size - 1] = '\n';
        (void)!write(sites_fd, line, size);
    }
}

uint64_t mem_fault_arm(uint64_t nth)
{
    (void)pthread_once(&sites_once, open_sites);
    atomic_store(&fault_at, nth);
    return atomic_exchange(&fault_calls, 0);
}

/* The count passes each number once, hence at most one failure per arming. */
bool mem_fault(void)
{
    const uint64_t call = atomic_fetch_add(&fault_calls, 1) + 1;
    const bool fails = call == atomic_load(&fault_at);
    if (fails) {
        note_site();
    }
    return fails;
}
#else
uint64_t mem_fault_arm(uint64_t nth)
{
    (void)nth;
    return 0;
}
#endif

static void *or_abort(void *memory, size_t size)
{
    if (memory == NULL) {
        (void)fprintf(stderr, "weir: out of memory (%zu bytes)\n", size);
        abort();
    }
    return memory;
}

/* The C library may answer a size of 0 with NULL, which here always means failure. */
static size_t at_least_one(size_t size)
{
    return size == 0 ? 1 : size;
}

/* No object is larger than a pointer difference can tell; every allocator refuses such sizes, some
 * of those used for testing by aborting. */
static bool refused(size_t size)
{
    return size > PTRDIFF_MAX || mem_fault();
}

void *mem_alloc(size_t size)
{
    return or_abort(calloc(1, at_least_one(size)), size);
}

char *mem_strdup(const char *text)
{
    return or_abort(strdup(text), strlen(text) + 1);
}

void *mem_try_alloc(size_t size)
{
    return refused(size) ? NULL : malloc(at_least_one(size));
}

void *mem_try_zero(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || refused(bytes)) {
        return NULL;
    }
    return calloc(1, at_least_one(bytes));
}

void *mem_try_resize(void *memory, size_t size)
{
    return refused(size) ? NULL : realloc(memory, at_least_one(size));
}

/* `align` is a power of two.  aligned_alloc() would want a multiple of it. */
static void *try_aligned(size_t align, size_t size)
{
    void *memory;
    return refused(size) || posix_memalign(&memory, align, at_least_one(size)) != 0 ? NULL : memory;
}

void *mem_try_aligned(size_t size)
{
    return try_aligned(MEM_ALIGN, size);
}

void *mem_try_pages(size_t size)
{
    return try_aligned(size < MEM_HUGE_PAGE ? MEM_PAGE : MEM_HUGE_PAGE, size);
}

void mem_renew(void *memory, size_t size)
{
    const size_t whole = size & ~(MEM_HUGE_PAGE - 1);
    if (madvise(memory, whole, MADV_HUGEPAGE) == 0) {
        (void)madvise(memory, whole, MADV_DONTNEED);
    }
}

char *mem_try_strdup(const char *text)
{
    return mem_try_strndup(text, strlen(text));
}

char *mem_try_strndup(const char *text, size_t size)
{
    return mem_write_text(size < SIZE_MAX ? mem_try_alloc(size + 1) : NULL, text, size);
}

void mem_free(void *memory)
{
    free(memory);
}

char *mem_write_text(char *memory, const char *text, size_t size)
{
    if (memory == NULL) {
        return NULL;
    }
    if (size > 0) {
        memcpy(memory, text, size);
    }
    memory[size] = '\0';
    return memory;
}

/* One at a time: where malloc is not glibc's own (a sanitizer's, a preloaded one), the first call
 * sets glibc's heap up, and a second beside it reads what is not there yet. */
void mem_trim(void)
{
#ifdef __GLIBC__
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    (void)pthread_mutex_lock(&lock);
    (void)malloc_trim(0);
    (void)pthread_mutex_unlock(&lock);
#endif
}

/* By itself glibc lets both thresholds follow the largest block that was ever freed: then weights
 * of 16 MiB come from heaps, where some stay behind when they are freed. */
void *mem_widen_heap(size_t size)
{
#ifdef __GLIBC__
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_LIMIT);
    void *volatile piece = malloc(size);
    free(piece); /* Pages that were never written to: the heap keeps the right to them only. */
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_BYTES_MAX);
    return piece;
#else
    (void)size;
    return NULL;
#endif
}

void mem_populate(void *memory, size_t size)
{
    const uintptr_t page = ((uintptr_t)memory + MEM_PAGE - 1) & ~(uintptr_t)(MEM_PAGE - 1);
#ifdef MADV_POPULATE_WRITE
    (void)madvise((void *)page, size & ~(size_t)(MEM_PAGE - 1), MADV_POPULATE_WRITE);
#else
    (void)page;
    (void)size;
#endif
}
