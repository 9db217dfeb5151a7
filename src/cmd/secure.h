/*
 * secure.h — TLS on the sockets of the commands, blocking or not.
 *
 * Whom to trust and what to show is said once, on the command line, and holds for every connection
 * of the program.
 */
#ifndef WEIR_CMD_SECURE_H
#define WEIR_CMD_SECURE_H

#include "net/tls_trust.h"

/* Keys of a command's table of flags, above those of its own. */
enum secure_flag { SECURE_TRUST = 1000, SECURE_CERTIFICATE, SECURE_KEY };

#define SECURE_FLAGS                                                                        \
    { "--ca", "FILE", "https://, grpcs://: trust these certificates (PEM)", SECURE_TRUST }, \
        { "--insecure", NULL, "do not look at the server's certificate", SECURE_TRUST },    \
        { "--cert", "FILE", "show this certificate (PEM) where one is asked for",           \
          SECURE_CERTIFICATE },                                                             \
    {                                                                                       \
        "--key", "FILE", "its private key (PEM) [in the same file]", SECURE_KEY             \
    }

/* Takes a flag of those, false for any other; its value is borrowed for good.  Where nothing was said,
 * whom the system trusts is trusted, and nothing shown.  Before the first connection. */
bool secure_take(int key, const char *value);

/* When all flags have been taken: do they go together, and with the URLs?  `wanted`: one of those asks
 * for TLS.  WEIR_EINVAL. */
WEIR_MUST_USE enum weir_status secure_check(bool wanted, struct weir_err *err);

/* Reads the files that were named, unless they have been read, so that one that is wrong is told
 * before anybody is called.  Any thread.  What tls_trust_create() returns. */
WEIR_MUST_USE enum weir_status secure_read(struct weir_err *err);

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
