/*
 * secure.h — TLS on the sockets of the commands, blocking or not.
 *
 * Whom to trust is said once, on the command line, and holds for every connection of the program.
 */
#ifndef WEIR_CMD_SECURE_H
#define WEIR_CMD_SECURE_H

#include "net/tls_trust.h"

/* The rows of a command's table of flags; their keys are its own. */
#define SECURE_FLAGS(ca_key, insecure_key)                                              \
    { "--ca", "FILE", "https://, grpcs://: trust these certificates (PEM)", (ca_key) }, \
    {                                                                                   \
        "--insecure", NULL, "do not look at the server's certificate", (insecure_key)   \
    }

/* `ca` is a PEM file, NULL for whom the system trusts; with `insecure` any certificate will do.
 * Before the first connection. */
void secure_trust(const char *ca, bool insecure);

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
