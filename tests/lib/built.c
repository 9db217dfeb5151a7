#include "built.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void built_path(const char *file, char *out, size_t size)
{
    char program[PATH_MAX] = "";
    assert_true(readlink("/proc/self/exe", program, sizeof(program) - 1) > 0);
    char *folder = strstr(program, "/tests/unit/");
    assert_non_null(folder);
    *folder = '\0';
    const int written = snprintf(out, size, "%s/%s", program, file);
    assert_true(written > 0 && (size_t)written < size);
}
