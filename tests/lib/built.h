/*
 * built.h — what else the build made, for unit tests.
 */
#ifndef WEIR_TESTS_BUILT_H
#define WEIR_TESTS_BUILT_H

#include <stddef.h>

/* The path of `file`, which is named from the build's folder on; the test fails where that cannot be
 * told, or `size` is too small. */
void built_path(const char *file, char *out, size_t size);

#endif
