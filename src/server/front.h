/*
 * front.h — the server's side to the network: its loops, their threads, and what they listen on.
 *
 *     front_start()      loops that listen, and their threads
 *     front_drain()      no new connections; each loop ends after its last connection and request
 *     front_finish()     stops what still turns
 *
 * The main thread's, but for front_is_live().
 */
#ifndef WEIR_SERVER_FRONT_H
#define WEIR_SERVER_FRONT_H

#include <stdbool.h>
#include <stdint.h>

#include "api/api.h"
#include "net/tls.h"
#include "server/config.h"
#include "util/err.h"

struct front_loop;

struct front_options {
    const struct config *config;
    const struct limits *limits;
    struct api *api;
    struct tls *tls; /* NULL: plain. */
    /* Listening sockets that were handed over; they stand for those configured. */
    uint32_t activated;
    void (*ended)(void *context); /* A loop has ended; on its thread. */
    void *context;
};

struct front {
    struct front_options options;
    struct front_loop *loops;
    uint32_t count; /* Loops that are to be finished. */
};

/* `options` are copied, what they point to is borrowed.  WEIR_EIO: a port is taken.  Finish it also
 * after a failure. */
WEIR_MUST_USE enum weir_status front_start(struct front *front, const struct front_options *options,
                                           struct weir_err *err);

/* Every watcher of readiness hears now that it has changed. */
void front_tell(struct front *front);

void front_drain(struct front *front);
bool front_has_ended(const struct front *front);

/* Where it listens: "http://127.0.0.1:8000 unix:/run/weir.sock", the first port first. */
void front_addresses(const struct front *front, struct buffer *out);

void front_finish(struct front *front); /* Zeroed is fine. */

#endif
