/*
 * Certificates, keys and whom they let in: read whole before anything changes, so that a broken
 * file leaves everything as it was.
 */
#include "net/tls_files.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "util/file.h"
#include "util/mem.h"
#include "util/watch.h"

#define FILE_BYTES_MAX ((size_t)1 << 20)
#define TLS_FILES 3

/* Forward secrecy and authenticated encryption only, as HTTP/2 demands of TLS 1.2 (RFC 9113,
 * 9.2.2). */
#define CIPHERS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20"

static const char session_context[] = "weir";

struct tls {
    struct tls_options options;
    struct watch watches[TLS_FILES]; /* For the one thread that reloads. */
    pthread_mutex_t lock;            /* Guards the rest; held for looks and swaps only. */
    SSL_CTX *context;
    struct tls_facts facts;
};

/* --- Reading files --- */

/* The latest word of OpenSSL, for the end of a sentence. */
static const char *reason(void)
{
    const unsigned long code = ERR_peek_last_error();
    const char *text = code == 0 ? NULL : ERR_reason_error_string(code);
    return text == NULL ? "no reason given" : text;
}

static enum weir_status broken(struct weir_err *err, const char *what, const char *path,
                               const char *expected)
{
    const enum weir_status status =
        err_set(err, WEIR_EINVAL, "%s '%s': %s, expected %s", what, path, reason(), expected);
    ERR_clear_error();
    return status;
}

/* No passphrase: a server starts without anybody to ask. */
static int no_passphrase(char *at, int room, int writing, void *context)
{
    (void)at;
    (void)room;
    (void)writing;
    (void)context;
    return -1;
}

/* Reads a file's text; a reader over it in *out, both to be given to forget(). */
static enum weir_status open_pem(const char *what, const char *path, struct buffer *text, BIO **out,
                                 struct weir_err *err)
{
    ERR_clear_error();
    const enum weir_status status = file_read(AT_FDCWD, path, FILE_BYTES_MAX, text, err);
    if (status != WEIR_OK) {
        (void)err_prefix(err, "%s", what);
        return status;
    }
    *out = BIO_new_mem_buf(text->size == 0 ? "" : text->data, (int)text->size);
    return *out == NULL ? err_nomem(err, what, text->size) : WEIR_OK;
}

static void forget(struct buffer *text, BIO *pem)
{
    BIO_free(pem);
    if (text->data != NULL) {
        OPENSSL_cleanse(text->data, text->capacity);
    }
    buffer_finish(text);
}

/* PEM_read ends with "no start line" behind the last certificate; anything else is a fault. */
static bool at_end(void)
{
    const bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (end) {
        ERR_clear_error();
    }
    return end;
}

static bool take_chain(SSL_CTX *context, BIO *pem)
{
    X509 *leaf = PEM_read_bio_X509(pem, NULL, no_passphrase, NULL);
    if (leaf == NULL) {
        return false;
    }
    const bool taken = SSL_CTX_use_certificate(context, leaf) == 1;
    X509_free(leaf);
    if (!taken) {
        return false;
    }
    for (;;) {
        X509 *next = PEM_read_bio_X509(pem, NULL, no_passphrase, NULL);
        if (next == NULL) {
            return at_end();
        }
        if (SSL_CTX_add0_chain_cert(context, next) != 1) {
            X509_free(next);
            return false;
        }
    }
}

static enum weir_status read_certificate(SSL_CTX *context, const struct tls_pair *pair,
                                         struct weir_err *err)
{
    struct buffer text = { 0 };
    BIO *pem = NULL;
    enum weir_status status = open_pem(pair->certificate_name, pair->certificate, &text, &pem, err);
    if (status == WEIR_OK && !take_chain(context, pem)) {
        status = broken(err, pair->certificate_name, pair->certificate,
                        "certificates in PEM, the key's own first");
    }
    forget(&text, pem);
    return status;
}

static enum weir_status read_key(SSL_CTX *context, const struct tls_pair *pair,
                                 struct weir_err *err)
{
    struct buffer text = { 0 };
    BIO *pem = NULL;
    EVP_PKEY *key = NULL;
    enum weir_status status = open_pem(pair->key_name, pair->key, &text, &pem, err);
    if (status == WEIR_OK) {
        key = PEM_read_bio_PrivateKey(pem, NULL, no_passphrase, NULL);
        if (key == NULL) {
            status =
                broken(err, pair->key_name, pair->key, "a private key in PEM without a passphrase");
        } else if (X509_check_private_key(SSL_CTX_get0_certificate(context), key) != 1) {
            ERR_clear_error();
            status =
                err_set(err, WEIR_EINVAL, "%s '%s': does not belong to the certificate in '%s'",
                        pair->key_name, pair->key, pair->certificate);
        } else if (SSL_CTX_use_PrivateKey(context, key) != 1) {
            status = broken(err, pair->key_name, pair->key, "a key that TLS can use");
        }
    }
    EVP_PKEY_free(key);
    forget(&text, pem);
    return status;
}

enum weir_status tls_show(SSL_CTX *context, const struct tls_pair *pair, struct weir_err *err)
{
    const enum weir_status status = read_certificate(context, pair, err);
    return status == WEIR_OK ? read_key(context, pair, err) : status;
}

static bool take_authorities(SSL_CTX *context, BIO *pem, unsigned *count)
{
    for (*count = 0;; (*count)++) {
        X509 *authority = PEM_read_bio_X509(pem, NULL, no_passphrase, NULL);
        if (authority == NULL) {
            return *count > 0 && at_end();
        }
        const bool taken = X509_STORE_add_cert(SSL_CTX_get_cert_store(context), authority) == 1 &&
                           SSL_CTX_add_client_CA(context, authority) == 1;
        X509_free(authority);
        if (!taken) {
            return false;
        }
    }
}

static enum weir_status read_client_ca(SSL_CTX *context, const struct tls_options *options,
                                       struct weir_err *err)
{
    struct buffer text = { 0 };
    BIO *pem = NULL;
    unsigned count = 0;
    enum weir_status status = open_pem("tls_client_ca", options->client_ca, &text, &pem, err);
    if (status == WEIR_OK && !take_authorities(context, pem, &count)) {
        status = broken(err, "tls_client_ca", options->client_ca,
                        "certificates in PEM of those who sign clients' certificates");
    }
    forget(&text, pem);
    const int mode = SSL_VERIFY_PEER |
                     (options->client == TLS_CLIENT_REQUIRED ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);
    SSL_CTX_set_verify(context, mode, NULL);
    return status;
}

/* --- Contexts --- */

/* HTTP/2 where the client offers it.  One that offers neither is refused, as RFC 7301 wants it. */
static int select_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_size,
                           const unsigned char *offered, unsigned offered_size, void *context)
{
    static const unsigned char ours[] = "\x02h2\x08http/1.1";
    (void)ssl;
    (void)context;
    unsigned char *chosen = NULL;
    if (SSL_select_next_proto(&chosen, out_size, ours, sizeof(ours) - 1, offered, offered_size) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static bool set_up(SSL_CTX *context, const struct tls_options *options)
{
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(context, select_protocol, NULL);
    return SSL_CTX_set_min_proto_version(context, options->tls13_only ? TLS1_3_VERSION
                                                                      : TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(context, CIPHERS_1_2) == 1 &&
           SSL_CTX_set_session_id_context(context, (const unsigned char *)session_context,
                                          sizeof(session_context) - 1) == 1;
}

void tls_common_name(const X509 *certificate, char out[TLS_NAME_BYTES])
{
    char name[TLS_NAME_BYTES] = "";
    const int size = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName,
                                               name, sizeof(name));
    /* A name with a NUL inside, or one that was cut, is not what its signer signed. */
    const bool whole = size > 0 && (size_t)size == strlen(name) && size < TLS_NAME_BYTES - 1;
    (void)snprintf(out, TLS_NAME_BYTES, "%s", whole ? name : "");
}

static struct tls_facts facts_of(SSL_CTX *context)
{
    struct tls_facts facts = { 0 };
    const X509 *certificate = SSL_CTX_get0_certificate(context);
    tls_common_name(certificate, facts.subject);
    const ASN1_TIME *end = X509_get0_notAfter(certificate);
    struct tm parts;
    if (ASN1_TIME_to_tm(end, &parts) == 1) {
        facts.expires_s = (int64_t)timegm(&parts);
    }
    facts.expired = X509_cmp_current_time(end) < 0;
    return facts;
}

static enum weir_status make_context(const struct tls_options *options, SSL_CTX **out,
                                     struct weir_err *err)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || !set_up(context, options)) {
        SSL_CTX_free(context);
        ERR_clear_error();
        return err_nomem(err, "TLS", 0);
    }
    const struct tls_pair pair = { options->certificate, "tls_certificate", options->key,
                                   "tls_key" };
    enum weir_status status = tls_show(context, &pair, err);
    if (status == WEIR_OK && options->client_ca[0] != '\0') {
        status = read_client_ca(context, options, err);
    }
    ERR_clear_error();
    if (status != WEIR_OK) {
        SSL_CTX_free(context);
        return status;
    }
    *out = context;
    return WEIR_OK;
}

/* --- Looking for changes --- */

/* Remembers what the files look like; true when one looks different. */
static bool look_again(struct tls *tls)
{
    const char *const paths[TLS_FILES] = { tls->options.certificate, tls->options.key,
                                           tls->options.client_ca };
    bool different = false;
    for (int i = 0; i < TLS_FILES; i++) {
        different = watch_look(&tls->watches[i], paths[i]) || different;
    }
    return different;
}

/* --- What listeners have in common --- */

enum weir_status tls_create(const struct tls_options *options, struct tls **out,
                            struct weir_err *err)
{
    struct tls *tls = mem_alloc(sizeof(*tls));
    tls->options = *options;
    pthread_mutex_init(&tls->lock, NULL);
    (void)look_again(tls); /* Before reading: what changes meanwhile is seen as a change. */
    const enum weir_status status = make_context(&tls->options, &tls->context, err);
    if (status != WEIR_OK) {
        tls_destroy(tls);
        return status;
    }
    tls->facts = facts_of(tls->context);
    *out = tls;
    return WEIR_OK;
}

void tls_destroy(struct tls *tls)
{
    if (tls == NULL) {
        return;
    }
    SSL_CTX_free(tls->context);
    pthread_mutex_destroy(&tls->lock);
    mem_free(tls);
}

enum weir_status tls_reload(struct tls *tls, bool force, bool *changed, struct weir_err *err)
{
    *changed = false;
    if (!look_again(tls) && !force) {
        return WEIR_OK;
    }
    SSL_CTX *context = NULL;
    const enum weir_status status = make_context(&tls->options, &context, err);
    if (status != WEIR_OK) {
        return status;
    }
    const struct tls_facts facts = facts_of(context);
    pthread_mutex_lock(&tls->lock);
    SSL_CTX *before = tls->context;
    tls->context = context;
    tls->facts = facts;
    pthread_mutex_unlock(&tls->lock);
    SSL_CTX_free(before);
    *changed = true;
    return WEIR_OK;
}

struct tls_facts tls_facts(struct tls *tls)
{
    pthread_mutex_lock(&tls->lock);
    const struct tls_facts facts = tls->facts;
    pthread_mutex_unlock(&tls->lock);
    return facts;
}

SSL_CTX *tls_context(struct tls *tls)
{
    pthread_mutex_lock(&tls->lock);
    SSL_CTX *context = tls->context;
    SSL_CTX_up_ref(context);
    pthread_mutex_unlock(&tls->lock);
    return context;
}
