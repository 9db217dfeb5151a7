/*
 * tls_files.h — what net/tls*.c know of each other, and nobody else.
 */
#ifndef WEIR_NET_TLS_FILES_H
#define WEIR_NET_TLS_FILES_H

#include <openssl/ssl.h>

#include "net/tls.h"

/* What new links begin with, counted: SSL_CTX_free().  Any thread. */
SSL_CTX *tls_context(struct tls *tls);

/* PEM files of one who shows a certificate, and what they are called where they are wrong. */
struct tls_pair {
    const char *certificate; /* The key's, then those that lead to its root. */
    const char *certificate_name;
    const char *key; /* Without a passphrase. */
    const char *key_name;
};

/* WEIR_EINVAL, WEIR_ENOENT, WEIR_EIO, WEIR_ENOMEM name the file. */
WEIR_MUST_USE enum weir_status tls_show(SSL_CTX *context, const struct tls_pair *pair,
                                        struct weir_err *err);

/* The common name of a certificate's subject; empty where it has none that fits. */
void tls_common_name(const X509 *certificate, char out[TLS_NAME_BYTES]);

/* A link that is still to be told which end it is.  NULL: memory is out. */
struct tls_link *tls_link_create(SSL_CTX *context);
SSL *tls_link_ssl(const struct tls_link *link);

/* Why it failed, as OpenSSL has it; static storage. */
const char *tls_link_reason(const struct tls_link *link);

#endif
