/*
 * watch.h — notices that a file has changed.
 *
 * By what stat() says of it, links followed, so that a folder of mounted secrets, which is
 * exchanged as a whole, is seen too.  One thread at a time; blocking.
 */
#ifndef WEIR_UTIL_WATCH_H
#define WEIR_UTIL_WATCH_H

#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>

/* Zeroed: nothing has been seen yet, which a file that is not there does not differ from. */
struct watch {
    bool there;
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

/* Looks at `path` and remembers it; true when it differs from the last look.  "" is never there. */
bool watch_look(struct watch *watch, const char *path);

#endif
