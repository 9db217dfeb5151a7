/*
 * tls_trust.h — TLS as a client: whom it trusts, what it shows, and its ends of connections (struct
 * tls_link of tls.h).
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
    const char *certificate; /* PEM file: to show to servers that ask for one; NULL: none. */
    const char *key;         /* PEM file, without a passphrase; NULL: in the same file. */
};

/* WEIR_EINVAL, WEIR_ENOENT and WEIR_EIO name the file; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status tls_trust_create(const struct tls_trust_options *options,
                                                struct tls_trust **out, struct weir_err *err);
void tls_trust_destroy(struct tls_trust *trust); /* NULL is fine. */

/* A link to `host`, a name or an address, that will speak HTTP/2 or HTTP/1.1.  NULL: memory is
 * out. */
struct tls_link *tls_trust_open(struct tls_trust *trust, const char *host, bool http2);

/* Of a link that failed: is it for the server's certificate? */
bool tls_trust_doubts(const struct tls_link *link);

/* Or because the server wants a certificate, and was shown none?  Known with TLS 1.3 only. */
bool tls_trust_is_asked(const struct tls_link *link);

/* Why; static storage. */
const char *tls_trust_fault(const struct tls_link *link);

#endif
