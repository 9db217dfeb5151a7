/*
 * secure.h — TLS on the sockets of the commands, blocking or not.
 *
 * Whom to trust and what to show is said once, on the command line, and holds for every connection
 * of the program.
 */
#ifndef WEIR_CMD_SECURE_H
#define WEIR_CMD_SECURE_H

#include "net/tls_trust.h"

/* The rows of a command's table of flags, with the keys that the command names.  What it takes by the
 * key `trust` goes to secure_trust(), by `cert` and `key` to secure_certificate() and secure_key(). */
#define SECURE_FLAGS(trust, cert, key)                                                      \
    { "--ca", "FILE", "https://, grpcs://: trust these certificates (PEM)", (trust) },      \
        { "--insecure", NULL, "do not look at the server's certificate", (trust) },         \
        { "--cert", "FILE", "show this certificate (PEM) where one is asked for", (cert) }, \
    {                                                                                       \
        "--key", "FILE", "its private key (PEM) [in the same file]", (key)                  \
    }

/* Trusts the certificates of this PEM file, which is borrowed for good; NULL: any certificate will do.
 * Where neither was said, whom the system trusts.  Before the first connection. */
void secure_trust(const char *ca);

/* PEM files, borrowed for good.  Before the first connection. */
void secure_certificate(const char *path);
void secure_key(const char *path);

/* A link to a server; tls_close().  Any thread.  What tls_trust_create() returns. */
WEIR_MUST_USE enum weir_status secure_open(const char *host, bool http2, struct tls_link **out,
                                           struct weir_err *err);

/* Sends what is sealed.  0: all of it has left; else errno, EAGAIN where it was not all. */
int secure_flush(struct tls_link *link, int fd);

/* Sends some of the pieces, *taken bytes, maybe none; sealed, unless `link` is NULL.  What is sealed
 * counts as sent.  0 or errno. */
int secure_write(struct tls_link *link, int fd, const struct bytes *pieces, size_t count,
                 size_t *taken);

#endif
