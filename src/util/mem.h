/*
 * mem.h — two ways to allocate, chosen by what running out means.
 *
 * mem_alloc() and friends are for start-up and fixed-size structures: out of
 * memory aborts with a message.  mem_try_alloc() and friends are for every
 * load, configuration or request path: they return NULL and the caller answers
 * with WEIR_ENOMEM.  Built with WEIR_ALLOC_FAULT, the nth mem_try_* call fails.
 * All are thread-safe; mem_free() takes what any of them returned, and NULL.
 */
#ifndef WEIR_UTIL_MEM_H
#define WEIR_UTIL_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weir/status.h"

/* Alignment of mem_*_aligned(): a cache line, and enough for any vector unit. */
#define MEM_ALIGN 64
#define MEM_PAGE 4096
#define MEM_HUGE_PAGE ((size_t)2 << 20)

void *mem_alloc(size_t size);       /* Zeroed; aborts rather than return NULL. */
char *mem_strdup(const char *text); /* Aborts rather than return NULL. */

WEIR_MUST_USE void *mem_try_alloc(size_t size);                /* Not zeroed. */
WEIR_MUST_USE void *mem_try_zero(size_t count, size_t size);   /* Zeroed; NULL on overflow too. */
WEIR_MUST_USE void *mem_try_resize(void *memory, size_t size); /* Old memory survives a failure. */
WEIR_MUST_USE void *mem_try_aligned(size_t size); /* MEM_ALIGN-aligned, not zeroed; mem_free(). */
WEIR_MUST_USE void *mem_try_pages(size_t size);   /* MEM_PAGE- or, large, MEM_HUGE_PAGE-aligned. */
WEIR_MUST_USE char *mem_try_strdup(const char *text);
WEIR_MUST_USE char *mem_try_strndup(const char *text, size_t size); /* Adds the NUL. */
void mem_free(void *memory);

/* Writes `size` bytes of text and the NUL; returns `memory`, which may be NULL: then nothing
 * happens. */
char *mem_write_text(char *memory, const char *text, size_t size);

/* For memory of mem_try_pages() whose content is of no use any more: what is written there next
 * lies in huge pages, as far as they fit and where the system has some for who asks.  Large copies
 * are faster there. */
void mem_renew(void *memory, size_t size);

/* Returns freed heap pages to the system; slow (milliseconds), for after an unload. */
void mem_trim(void);

/* For a thread that is about to allocate `size` bytes (less than 32 MiB) in small pieces, and the
 * process large ones: makes room in the thread's heap, which glibc otherwise widens page by page,
 * with a system call for each, and holds no memory.  From then on blocks of 4 MiB or more go back
 * to the system when they are freed.  Returns where the pieces will begin; NULL: unknown. */
void *mem_widen_heap(size_t size);

/* Brings the pages that memory will need when it is first written to; its content stays.  Nothing
 * happens where it is not there, or the system cannot do it. */
void mem_populate(void *memory, size_t size);

/* Test builds: let the nth following mem_try_* fail once (1 is the next; 0 disarms).  Returns
 * the number of mem_try_* calls since the last arming.  Without WEIR_ALLOC_FAULT: does nothing
 * and returns 0. */
uint64_t mem_fault_arm(uint64_t nth);

/* Counts as a mem_try_*: whether it is the one that fails.  For allocators that hand out pieces of
 * what they have, so that each of those can fail, too. */
#ifdef WEIR_ALLOC_FAULT
bool mem_fault(void);
#else
static inline bool mem_fault(void)
{
    return false;
}
#endif

#endif
