/* Lets ThreadSanitizer see what libuv closes.
 *
 * libuv closes descriptors by syscall(SYS_close), which ThreadSanitizer does not watch: it takes
 * the next file that gets the number for the one before, and reports a race between the two.  So
 * tests under ThreadSanitizer have a syscall() of their own, found before that of the C library,
 * that closes by close(). */
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef long syscall_fn(long number, ...);

static syscall_fn *library;

/* At the start: a child that was forked beside other threads may not look for symbols. */
__attribute__((constructor)) static void find_library(void)
{
    *(void **)&library = dlsym(RTLD_NEXT, "syscall");
}

__attribute__((visibility("default"))) long syscall(long number, ...)
{
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(rest, long);
    }
    va_end(rest);
    if (number == SYS_close) {
        return close((int)a[0]);
    }
    if (library == NULL) {
        find_library();
    }
    return library(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
