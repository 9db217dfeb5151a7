/*
 * descriptors.h — how many files and connections the process may have open.
 *
 * The system starts programs with a soft limit that suits those which use select(), mostly 1024,
 * and lets them raise it.
 */
#ifndef WEIR_UTIL_DESCRIPTORS_H
#define WEIR_UTIL_DESCRIPTORS_H

#include <stdint.h>

/* Raises the limit to `wanted`, or as far as it can be; never lowers it.  Returns what holds. */
uint64_t descriptors_raise(uint64_t wanted);

#endif
