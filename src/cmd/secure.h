/*
 * secure.h — TLS on the sockets of the commands, blocking or not.
 *
 * Whom to trust is said once, on the command line, and holds for every connection of the program.
 */
#ifndef WEIR_CMD_SECURE_H
#define WEIR_CMD_SECURE_H

#include "net/tls_trust.h"

/* The rows of a command's table of flags.  Both have the key that the command names; what it takes by
 * that key goes to secure_trust(). */
#define SECURE_FLAGS(key)                                                            \
    { "--ca", "FILE", "https://, grpcs://: trust these certificates (PEM)", (key) }, \
    {                                                                                \
        "--insecure", NULL, "do not look at the server's certificate", (key)         \
    }

/* Trusts the certificates of this PEM file, which is borrowed for good; NULL: any certificate will do.
 * Where neither was said, whom the system trusts.  Before the first connection. */
void secure_trust(const char *ca);

/* A link to a server; tls_close().  Any thread.  WEIR_EINVAL: the file is none; WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status secure_open(const char *host, bool http2, struct tls_link **out,
                                           struct weir_err *err);

/* Sends what is sealed.  0: all of it has left; else errno, EAGAIN where it was not all. */
int secure_flush(struct tls_link *link, int fd);

/* Sends some of the pieces, *taken bytes, maybe none; sealed, unless `link` is NULL.  What is sealed
 * counts as sent.  0 or errno. */
int secure_write(struct tls_link *link, int fd, const struct bytes *pieces, size_t count,
                 size_t *taken);

#endif
