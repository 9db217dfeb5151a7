/*
 * client.h — whose call it is, for the engine's fairness and its limits.
 *
 * A client is a key's name, else a request field that the server's operator chose
 * (`client_header`), else the peer's address without its port.  The engine only compares digests;
 * it shares a device's time between those that have work for it, by weight.
 */
#ifndef WEIR_API_CLIENT_H
#define WEIR_API_CLIENT_H

#include <stdint.h>

struct call;

struct client {
    uint64_t digest;        /* Equal for the calls of one client; never 0. */
    uint32_t weight;        /* Of its share of device time; at least 1. */
    uint32_t priority_best; /* The most urgent priority it may ask for; 0: any. */
};

/* Loop thread. */
struct client client_of(const struct call *call);

#endif
