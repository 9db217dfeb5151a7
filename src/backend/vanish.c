/*
 * The handler puts a page of zeros where the file had one.  It stays until the mapping goes, so
 * that each page costs one signal.
 */
#include "backend/vanish.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static struct sigaction before;
static uintptr_t page_bytes;
static _Thread_local struct vanish_mark *watching;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    (void)context;
    struct vanish_mark *mark = watching;
    if (info->si_code == BUS_ADRERR && mark != NULL) {
        const uintptr_t page = (uintptr_t)info->si_addr / page_bytes * page_bytes;
        void *zeros = mmap((void *)page, page_bytes, PROT_READ,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (zeros != MAP_FAILED) {
            atomic_store_explicit(&mark->lost, true, memory_order_relaxed);
            return;
        }
    }
    (void)sigaction(signal, &before, NULL); /* It reads again, and ends there. */
}

void vanish_install(void)
{
    struct sigaction action = { .sa_flags = SA_SIGINFO | SA_NODEFER };
    action.sa_sigaction = on_fault;
    sigemptyset(&action.sa_mask);
    struct sigaction now;
    page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (sigaction(SIGBUS, NULL, &now) == 0 && now.sa_sigaction != on_fault) {
        before = now;
        (void)sigaction(SIGBUS, &action, NULL);
    }
}

struct vanish_mark *vanish_watch(struct vanish_mark *mark)
{
    struct vanish_mark *last = watching;
    watching = mark;
    return last;
}
