/*
 * identity.h — certificates for a test, made in memory.
 */
#ifndef WEIR_TESTS_IDENTITY_H
#define WEIR_TESTS_IDENTITY_H

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdbool.h>

struct identity {
    EVP_PKEY *key;
    X509 *certificate;
};

/* Signed by `issuer`, or by itself; good for so many seconds from now on. */
struct identity identity_make(const char *name, const struct identity *issuer, long expires_s);
void identity_drop(struct identity *identity);

/* Writes its certificate or its key, in PEM. */
void identity_put(const char *path, const struct identity *identity, bool key);

#endif
