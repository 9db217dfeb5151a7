/*
 * fuzz.h — what every fuzz target defines.
 *
 * A target feeds `data` to one parser and checks what must hold for any input.  It keeps no state
 * between calls, so that one file is a reproduction.
 */
#ifndef WEIR_TESTS_FUZZ_H
#define WEIR_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Always returns 0; a broken promise aborts. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
