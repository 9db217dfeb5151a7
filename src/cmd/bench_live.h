/*
 * bench_live.h — one line on a terminal that says how a run goes.
 */
#ifndef WEIR_CMD_BENCH_LIVE_H
#define WEIR_CMD_BENCH_LIVE_H

#include "cmd/bench_load.h"

struct live {
    bool on; /* Standard error is a terminal, and nobody asked for silence. */
    const char *target;
    char load[48]; /* "64 under way" */
    uint32_t run;  /* 1.. */
    uint32_t runs; /* 0: nobody knows how many there will be. */
};

void live_show(void *live, const struct load_progress *progress);
void live_wipe(const struct live *live);

#endif
