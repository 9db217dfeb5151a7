/*
 * One connection's end of TLS.
 *
 * OpenSSL reads and writes through a BIO of our own.  Reading takes from the bytes that were fed,
 * where they lie; OpenSSL itself keeps a record that is not complete.  Writing appends to `next`.
 * What is on its way to the socket is in `out`, which does not move meanwhile: the system may still
 * be reading it when an answer to a handshake or an alert is written.
 */
#include "net/tls.h"

#include <assert.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "net/tls_files.h"
#include "util/mem.h"

#define KEPT_BYTES 4096 /* Of an empty buffer; larger ones are given back. */

struct tls_link {
    SSL *ssl;
    struct bytes in; /* Not used up. */
    char *held;      /* A copy of `in`, or NULL. */
    struct buffer out;
    size_t out_sent;
    struct buffer next;
    bool ready;
    bool failed;        /* Nothing may be asked of `ssl` any more. */
    const char *reason; /* Then: why; static storage, or NULL. */
    char client[TLS_NAME_BYTES];
};

static _Atomic uint64_t handshakes;
static _Atomic uint64_t failures;

uint64_t tls_handshakes(void)
{
    return atomic_load_explicit(&handshakes, memory_order_relaxed);
}

uint64_t tls_failures(void)
{
    return atomic_load_explicit(&failures, memory_order_relaxed);
}

/* --- The BIO --- */

static int bio_read(BIO *bio, char *at, int room)
{
    struct tls_link *link = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (link->in.size == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    const size_t size = (size_t)room < link->in.size ? (size_t)room : link->in.size;
    memcpy(at, link->in.data, size);
    link->in.data += size;
    link->in.size -= size;
    return (int)size;
}

static int bio_write(BIO *bio, const char *data, int size)
{
    struct tls_link *link = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    buffer_append(&link->next, data, (size_t)size);
    return link->next.failed ? -1 : size;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *method; /* Made once. */

static void make_method(void)
{
    method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "weir link");
    if (method != NULL) {
        BIO_meth_set_read(method, bio_read);
        BIO_meth_set_write(method, bio_write);
        BIO_meth_set_ctrl(method, bio_control);
    }
}

static BIO *make_bio(struct tls_link *link)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_method);
    BIO *bio = method == NULL ? NULL : BIO_new(method);
    if (bio != NULL) {
        BIO_set_data(bio, link);
        BIO_set_init(bio, 1);
    }
    return bio;
}

/* --- Links --- */

struct tls_link *tls_link_create(SSL_CTX *context)
{
    struct tls_link *link = mem_try_zero(1, sizeof(*link));
    if (link == NULL) {
        return NULL;
    }
    buffer_init(&link->out, TLS_OUTGOING_BYTES_MAX);
    buffer_init(&link->next, TLS_OUTGOING_BYTES_MAX);
    link->ssl = SSL_new(context);
    BIO *bio = link->ssl == NULL ? NULL : make_bio(link);
    if (bio == NULL) {
        tls_close(link);
        return NULL;
    }
    SSL_set_bio(link->ssl, bio, bio);
    return link;
}

SSL *tls_link_ssl(const struct tls_link *link)
{
    return link->ssl;
}

const char *tls_link_reason(const struct tls_link *link)
{
    return link->reason == NULL ? "no reason given" : link->reason;
}

struct tls_link *tls_open(struct tls *tls)
{
    SSL_CTX *context = tls_context(tls);
    struct tls_link *link = tls_link_create(context);
    SSL_CTX_free(context); /* The link has its own count. */
    if (link != NULL) {
        SSL_set_accept_state(link->ssl);
    }
    return link;
}

void tls_close(struct tls_link *link)
{
    if (link == NULL) {
        return;
    }
    if (!link->ready && !link->failed) {
        atomic_fetch_add_explicit(&failures, 1, memory_order_relaxed);
    }
    SSL_free(link->ssl);
    ERR_clear_error();
    buffer_finish(&link->out);
    buffer_finish(&link->next);
    mem_free(link->held);
    mem_free(link);
}

void tls_feed(struct tls_link *link, struct bytes in)
{
    assert(link->in.size == 0);
    link->in = in;
}

bool tls_hold(struct tls_link *link)
{
    if (link->in.size == 0 || link->held != NULL) {
        return true;
    }
    link->held = mem_try_alloc(link->in.size);
    if (link->held == NULL) {
        return false;
    }
    memcpy(link->held, link->in.data, link->in.size);
    link->in.data = link->held;
    return true;
}

static void read_client_name(struct tls_link *link)
{
    X509 *certificate = SSL_get0_peer_certificate(link->ssl);
    if (certificate != NULL && SSL_get_verify_result(link->ssl) == X509_V_OK) {
        tls_common_name(certificate, link->client);
    }
}

/* A failure is told to the client by an alert, which OpenSSL has written. */
static enum tls_result fail(struct tls_link *link)
{
    const bool plain = !link->ready && ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST;
    if (!link->ready) {
        atomic_fetch_add_explicit(&failures, 1, memory_order_relaxed);
    }
    link->reason = ERR_reason_error_string(ERR_peek_error());
    ERR_clear_error();
    link->failed = true;
    link->in.size = 0;
    return plain ? TLS_PLAIN : TLS_FAILED;
}

static enum tls_result result_of(struct tls_link *link, int returned)
{
    switch (SSL_get_error(link->ssl, returned)) {
    case SSL_ERROR_WANT_READ:
        mem_free(link->held); /* All of it was used up. */
        link->held = NULL;
        return TLS_MORE;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_END;
    default:
        return fail(link);
    }
}

enum tls_result tls_read(struct tls_link *link, char *at, size_t room, size_t *size)
{
    if (link->failed) {
        return TLS_FAILED;
    }
    ERR_clear_error();
    if (!link->ready) {
        const int returned = SSL_do_handshake(link->ssl);
        if (returned != 1) {
            return result_of(link, returned);
        }
        link->ready = true;
        atomic_fetch_add_explicit(&handshakes, 1, memory_order_relaxed);
        read_client_name(link);
        return TLS_READY;
    }
    const int returned = SSL_read_ex(link->ssl, at, room, size);
    return returned == 1 ? TLS_DATA : result_of(link, returned);
}

bool tls_ready(const struct tls_link *link)
{
    return link->ready;
}

enum tls_protocol tls_protocol(const struct tls_link *link)
{
    const unsigned char *name = NULL;
    unsigned size = 0;
    SSL_get0_alpn_selected(link->ssl, &name, &size);
    if (size == 0) {
        return TLS_NO_PROTOCOL;
    }
    return size == 2 ? TLS_HTTP2 : TLS_HTTP1;
}

struct bytes tls_client_name(const struct tls_link *link)
{
    return bytes_of(link->client);
}

/* --- Sealing --- */

static bool seal(struct tls_link *link, const char *data, size_t size)
{
    size_t written = 0;
    return size == 0 || (SSL_write_ex(link->ssl, data, size, &written) == 1 && written == size);
}

/* Small pieces share a record; large ones are taken from where they are. */
bool tls_seal(struct tls_link *link, const struct bytes *pieces, size_t count, char *scratch)
{
    size_t gathered = 0;
    bool good = !link->failed;
    ERR_clear_error();
    for (size_t i = 0; i < count && good; i++) {
        struct bytes left = pieces[i];
        while (left.size > 0 && good) {
            if (gathered == 0 && left.size >= TLS_RECORD_BYTES) {
                const size_t whole = left.size - left.size % TLS_RECORD_BYTES;
                good = seal(link, left.data, whole);
                left.data += whole;
                left.size -= whole;
                continue;
            }
            const size_t room = TLS_RECORD_BYTES - gathered;
            const size_t part = left.size < room ? left.size : room;
            memcpy(scratch + gathered, left.data, part);
            gathered += part;
            left.data += part;
            left.size -= part;
            if (gathered == TLS_RECORD_BYTES) {
                good = seal(link, scratch, gathered);
                gathered = 0;
            }
        }
    }
    good = good && seal(link, scratch, gathered);
    if (!good) {
        ERR_clear_error();
        link->failed = true;
    }
    return good;
}

void tls_farewell(struct tls_link *link)
{
    if (link->ready && !link->failed) {
        ERR_clear_error();
        (void)SSL_shutdown(link->ssl);
        ERR_clear_error();
    }
}

struct bytes tls_outgoing(struct tls_link *link)
{
    if (link->out.size == 0) {
        const struct buffer empty = link->out;
        link->out = link->next;
        link->next = empty;
    }
    if (link->out.size == 0) {
        return (struct bytes){ NULL, 0 };
    }
    return (struct bytes){ link->out.data + link->out_sent, link->out.size - link->out_sent };
}

void tls_sent(struct tls_link *link, size_t size)
{
    assert(size <= link->out.size - link->out_sent);
    link->out_sent += size;
    if (link->out_sent < link->out.size) {
        return;
    }
    link->out_sent = 0;
    if (link->out.capacity > KEPT_BYTES) {
        buffer_finish(&link->out);
        buffer_init(&link->out, TLS_OUTGOING_BYTES_MAX);
    } else {
        buffer_clear(&link->out);
    }
}
