#include "util/memstat.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES 256

void memstat_read(struct memstat *out)
{
    *out = (struct memstat){ 0 };
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) {
        return;
    }
    unsigned long long total = 0;
    unsigned long long resident = 0;
    unsigned long long shared = 0;
    const int found = fscanf(file, "%20llu %20llu %20llu", &total, &resident, &shared);
    (void)fclose(file);
    const long page_bytes = sysconf(_SC_PAGESIZE);
    if (found == 3 && page_bytes > 0 && shared <= resident) {
        out->resident_bytes = resident * (uint64_t)page_bytes;
        out->file_bytes = shared * (uint64_t)page_bytes;
        out->private_bytes = out->resident_bytes - out->file_bytes;
    }
}

uint64_t memstat_proportional_bytes(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "re");
    if (file == NULL) {
        return 0;
    }
    char line[LINE_BYTES];
    unsigned long long kilobytes = 0;
    while (fgets(line, sizeof(line), file) != NULL &&
           sscanf(line, "Pss: %20llu", &kilobytes) != 1) {
    }
    (void)fclose(file);
    return kilobytes * 1024;
}
