/*
 * secret.h — making, hashing and comparing secrets.  Any thread.
 */
#ifndef WEIR_NET_SECRET_H
#define WEIR_NET_SECRET_H

#include <stdbool.h>
#include <stdint.h>

#include "util/bytes.h"

#define SECRET_DIGEST_BYTES 32
#define SECRET_HEX_BYTES (2 * SECRET_DIGEST_BYTES + 1) /* With its NUL. */

/* SHA-256. */
struct secret_digest {
    uint64_t words[SECRET_DIGEST_BYTES / sizeof(uint64_t)];
};

/* False when the system has no random numbers. */
WEIR_MUST_USE bool secret_random(void *out, size_t size);

struct secret_digest secret_digest(struct bytes text);

/* In a time that does not tell where they differ. */
bool secret_same(const struct secret_digest *a, const struct secret_digest *b);

void secret_hex(const struct secret_digest *digest, char out[SECRET_HEX_BYTES]);
WEIR_MUST_USE bool secret_unhex(struct bytes hex, struct secret_digest *out);

/* Overwrites what must not stay in memory. */
void secret_wipe(void *at, size_t size);

#endif
