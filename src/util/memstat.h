/*
 * memstat.h — how much memory this process has, as the system counts it.
 *
 * Any thread.  Zeros where the system does not say.
 */
#ifndef WEIR_UTIL_MEMSTAT_H
#define WEIR_UTIL_MEMSTAT_H

#include <stdint.h>

struct memstat {
    uint64_t resident_bytes; /* All of it. */
    uint64_t private_bytes;  /* Allocated: not of files. */
    uint64_t file_bytes; /* Of mapped files, as far as it is in memory; the program's own too. */
};

/* Cheap: the kernel keeps these sums. */
void memstat_read(struct memstat *out);

/* The proportional set size: pages that several processes share count in parts.  Walks over all
 * pages, milliseconds for a gigabyte. */
uint64_t memstat_proportional_bytes(void);

#endif
