/*
 * bad_requests.h — requests that a server must refuse, because two readers could understand them
 * differently or because they are no HTTP/1 at all.
 */
#ifndef WEIR_TESTS_BAD_REQUESTS_H
#define WEIR_TESTS_BAD_REQUESTS_H

#include <stddef.h>

struct bad_request {
    const char *name;
    const char *data;
    size_t size;
    int status;       /* The answer's. */
    const char *says; /* Part of the error's text. */
};

extern const struct bad_request bad_requests[];
extern const size_t bad_request_count;

#endif
