/*
 * Between the commands and the backends, which do not know each other.
 */
#include "server/processes.h"

#include <assert.h>

#include "backend/process_child.h"
#include "backend/process_watch.h"

static_assert(sizeof(PROCESSES_WORD) == sizeof(PROCESS_ZYGOTE_WORD), "one word");

int processes_main(void)
{
    return process_zygote();
}

void processes_use_self(void)
{
    process_set_program("/proc/self/exe");
}
