#include "util/limits.h"

#include <stdio.h>
#include <unistd.h>

/* Where a control group says how much memory this process may have: version 2, then 1. */
static const char *const cgroup_files[] = {
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
};

/* UINT64_MAX when there is no such file or it says "max". */
static uint64_t read_limit(const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return UINT64_MAX;
    }
    unsigned long long value;
    const int found = fscanf(file, "%20llu", &value);
    (void)fclose(file);
    return found == 1 ? value : UINT64_MAX;
}

uint64_t limits_memory_bytes(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES);
    const long page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t bytes = UINT64_C(1) << 30;
    if (pages > 0 && page_bytes > 0) {
        bytes = (uint64_t)pages * (uint64_t)page_bytes;
    }
    for (size_t i = 0; i < sizeof(cgroup_files) / sizeof(cgroup_files[0]); i++) {
        const uint64_t limit = read_limit(cgroup_files[i]);
        bytes = limit < bytes ? limit : bytes;
    }
    return bytes;
}

void limits_init(struct limits *limits)
{
    *limits = (struct limits){
#define LIMIT_DEFAULT(field, value, kind, help) .field = UINT64_C(value),
        LIMITS(LIMIT_DEFAULT)
#undef LIMIT_DEFAULT
    };
    limits->bodies_bytes_max = limits_memory_bytes() / 4;
}

void limits_set(struct limits *limits, const struct limits *wanted)
{
#define LIMIT_SET(field, value, kind, help) limits->field = wanted->field;
    LIMITS(LIMIT_SET)
#undef LIMIT_SET
}
