/*
 * tls_files.h — what net/tls*.c know of each other, and nobody else.
 */
#ifndef WEIR_NET_TLS_FILES_H
#define WEIR_NET_TLS_FILES_H

#include <openssl/ssl.h>

#include "net/tls.h"

/* What new links begin with, counted: SSL_CTX_free().  Any thread. */
SSL_CTX *tls_context(struct tls *tls);

/* The common name of a certificate's subject; empty where it has none that fits. */
void tls_common_name(const X509 *certificate, char out[TLS_NAME_BYTES]);

/* A link that is still to be told which end it is.  NULL: memory is out. */
struct tls_link *tls_link_create(SSL_CTX *context);
SSL *tls_link_ssl(const struct tls_link *link);

/* Why it failed, as OpenSSL has it; static storage. */
const char *tls_link_reason(const struct tls_link *link);

#endif
