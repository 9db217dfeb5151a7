/*
 * tls.h — TLS between a socket and what is spoken over it.
 *
 * A `struct tls` is what the listeners of a server have in common: certificate, key, and whom they
 * let in.  Any thread may use it.  Its files can be read again while it is in use: connections that
 * are open keep what they began with, later ones get the new.
 *
 * A `struct tls_link` is one connection's end, for one thread; tls_trust.h makes the other side's.
 * It touches no socket: bytes of the client go in by tls_feed(), what they mean comes out of
 * tls_read(); what is to be said goes in by tls_seal(), and what has to leave comes out of
 * tls_outgoing().
 *
 * TLS 1.2 with forward secrecy and authenticated encryption, and TLS 1.3; no renegotiation, no
 * compression, no early data; sessions are resumed by tickets, of which the server remembers
 * nothing.
 */
#ifndef WEIR_NET_TLS_H
#define WEIR_NET_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/bytes.h"
#include "util/err.h"

#define TLS_RECORD_BYTES 16384        /* Of plain text in one record. */
#define TLS_SEAL_BYTES_MAX 65536      /* Of plain text to tls_seal() at once. */
#define TLS_OUTGOING_BYTES_MAX 262144 /* Sealed and not sent; beyond it the link fails. */
#define TLS_NAME_BYTES 65

/* X(name, text): of a client's certificate. */
#define TLS_CLIENTS(X)      \
    X(OPTIONAL, "optional") \
    X(REQUIRED, "required")

enum tls_client {
#define TLS_CLIENT_ENUM(name, text) TLS_CLIENT_##name,
    TLS_CLIENTS(TLS_CLIENT_ENUM)
#undef TLS_CLIENT_ENUM
};

/* Borrowed for the life of the struct tls. */
struct tls_options {
    const char *certificate; /* PEM file: the server's, then those that lead to its root. */
    const char *key;         /* PEM file, without a passphrase. */
    /* PEM file: who may sign clients' certificates; "": none is asked for. */
    const char *client_ca;
    enum tls_client client; /* With client_ca. */
    bool tls13_only;
};

/* What there is to say about the certificate in use. */
struct tls_facts {
    char subject[TLS_NAME_BYTES]; /* Its common name. */
    int64_t expires_s;            /* Seconds since 1970. */
    bool expired;
};

struct tls;

/* Reads the files.  WEIR_ENOENT, WEIR_EINVAL, WEIR_EIO with a sentence that names the file;
 * WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status tls_create(const struct tls_options *options, struct tls **out,
                                          struct weir_err *err);
void tls_destroy(struct tls *tls); /* Links may outlive it; NULL is fine. */

/* Reads the files again if one has changed since the last look, or all the same with `force`;
 * *changed says whether they are in use now.  After a failure what was in use stays, and is not
 * looked at again until the files change.  Blocking; one thread at a time. */
WEIR_MUST_USE enum weir_status tls_reload(struct tls *tls, bool force, bool *changed,
                                          struct weir_err *err);
struct tls_facts tls_facts(struct tls *tls);

/* Handshakes of all links so far, those that came to an end and those that failed; any thread. */
uint64_t tls_handshakes(void);
uint64_t tls_failures(void);

enum tls_result {
    TLS_MORE,   /* Everything fed is used up. */
    TLS_READY,  /* The handshake is over; go on. */
    TLS_DATA,   /* Plain text was written. */
    TLS_END,    /* The client has said that it will say no more. */
    TLS_PLAIN,  /* The client speaks HTTP without TLS; the link is of no use any more. */
    TLS_FAILED, /* Tell what is outgoing, and close. */
};

/* What both sides agreed to speak. */
enum tls_protocol { TLS_NO_PROTOCOL, TLS_HTTP1, TLS_HTTP2 };

struct tls_link;

/* NULL when memory is out. */
struct tls_link *tls_open(struct tls *tls);
void tls_close(struct tls_link *link); /* NULL is fine. */

/* Lends bytes of the client until they are used up or tls_hold() was called. */
void tls_feed(struct tls_link *link, struct bytes in);

/* Uses up what was fed, up to `room` bytes of plain text. */
enum tls_result tls_read(struct tls_link *link, char *at, size_t room, size_t *size);

/* Keeps a copy of what is not used up.  False when memory is out. */
WEIR_MUST_USE bool tls_hold(struct tls_link *link);

bool tls_ready(const struct tls_link *link);
enum tls_protocol tls_protocol(const struct tls_link *link);

/* The common name in the client's certificate, which was checked; empty without one. */
struct bytes tls_client_name(const struct tls_link *link);

/* Seals up to TLS_SEAL_BYTES_MAX bytes; `scratch` has TLS_RECORD_BYTES.  False: close the
 * connection. */
WEIR_MUST_USE bool tls_seal(struct tls_link *link, const struct bytes *pieces, size_t count,
                            char *scratch);

/* Says that we will say no more. */
void tls_farewell(struct tls_link *link);

/* What has to leave next; it stays where it is until tls_sent() has counted all of it. */
struct bytes tls_outgoing(struct tls_link *link);
void tls_sent(struct tls_link *link, size_t size);

#endif
