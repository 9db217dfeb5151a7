/*
 * api_bed.h — the API over real sockets: a listener on a loop with a thread of its own, for tests
 * of what clients see.
 */
#ifndef WEIR_TESTS_API_BED_H
#define WEIR_TESTS_API_BED_H

#include <pthread.h>

#include "api/api.h"
#include "model_bed.h"
#include "net/loop.h"

struct api_bed {
    struct loop loop;
    struct api *api;
    struct api_loop api_loop;
    struct api_options options;
    pthread_t thread;
    uint16_t port;
};

/* Starts the models' bed, with all its models loaded, and serves them until the stop. */
void api_bed_start(struct api_bed *bed, struct model_bed *models);
void api_bed_stop(struct api_bed *bed); /* The models' bed is stopped after it. */

#endif
