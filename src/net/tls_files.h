/*
 * tls_files.h — what tls.c knows of certificates; for net/tls*.c only.
 */
#ifndef WEIR_NET_TLS_FILES_H
#define WEIR_NET_TLS_FILES_H

#include <openssl/ssl.h>

#include "net/tls.h"

/* What new links begin with, counted: SSL_CTX_free().  Any thread. */
SSL_CTX *tls_context(struct tls *tls);

/* The common name of a certificate's subject; empty where it has none that fits. */
void tls_common_name(const X509 *certificate, char out[TLS_NAME_BYTES]);

#endif
