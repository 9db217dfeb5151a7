/*
 * tls_trust.h — TLS as a client: whom it trusts, and its ends of connections (struct tls_link of
 * tls.h).
 *
 * A server shows a certificate that is signed by somebody trusted and good for the host's name.
 * Any thread; it outlives its links.
 */
#ifndef WEIR_NET_TLS_TRUST_H
#define WEIR_NET_TLS_TRUST_H

#include "net/tls.h"

struct tls_trust;

struct tls_trust_options {
    const char
        *ca;       /* PEM file: who may sign servers' certificates; NULL: whom the system trusts. */
    bool insecure; /* Any certificate will do. */
};

/* WEIR_EINVAL names the file; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status tls_trust_create(const struct tls_trust_options *options,
                                                struct tls_trust **out, struct weir_err *err);
void tls_trust_destroy(struct tls_trust *trust); /* NULL is fine. */

/* A link to `host`, a name or an address, that will speak HTTP/2 or HTTP/1.1.  NULL: memory is
 * out. */
struct tls_link *tls_trust_open(struct tls_trust *trust, const char *host, bool http2);

/* Of a link that failed: is it for the server's certificate? */
bool tls_trust_doubts(const struct tls_link *link);

/* Why; static storage. */
const char *tls_trust_fault(const struct tls_link *link);

#endif
