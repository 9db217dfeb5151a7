#include "net/tls_trust.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <unistd.h>

#include "net/tls_files.h"
#include "util/mem.h"

struct tls_trust {
    SSL_CTX *context;
};

static enum weir_status refuse_trust(const char *ca, struct weir_err *err)
{
    if (ca == NULL) {
        return err_set(err, WEIR_EIO,
                       "the system's certificates cannot be read; --ca FILE says whom to trust");
    }
    return err_set(err, WEIR_EINVAL, "--ca '%s': %s, expected a file with certificates in PEM", ca,
                   access(ca, R_OK) != 0 ? strerror(errno) : "found none");
}

static enum weir_status set_trust(SSL_CTX *context, const struct tls_trust_options *options,
                                  struct weir_err *err)
{
    SSL_CTX_set_verify(context, options->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    const int read = options->ca != NULL ? SSL_CTX_load_verify_file(context, options->ca)
                                         : SSL_CTX_set_default_verify_paths(context);
    ERR_clear_error();
    return read == 1 ? WEIR_OK : refuse_trust(options->ca, err);
}

static enum weir_status show(SSL_CTX *context, const struct tls_trust_options *options,
                             struct weir_err *err)
{
    const char *key = options->key != NULL ? options->key : options->certificate;
    const struct tls_pair pair = { options->certificate, "--cert", key, "--key" };
    if (options->certificate != NULL) {
        return tls_show(context, &pair, err);
    }
    return options->key == NULL
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL, "--key '%s': without its certificate, expected --cert",
                         options->key);
}

enum weir_status tls_trust_create(const struct tls_trust_options *options, struct tls_trust **out,
                                  struct weir_err *err)
{
    struct tls_trust *trust = mem_try_zero(1, sizeof(*trust));
    if (trust == NULL) {
        return err_nomem(err, "TLS", sizeof(*trust));
    }
    trust->context = SSL_CTX_new(TLS_client_method());
    enum weir_status status =
        trust->context == NULL || SSL_CTX_set_min_proto_version(trust->context, TLS1_2_VERSION) != 1
            ? err_nomem(err, "TLS", 0)
            : set_trust(trust->context, options, err);
    status = status == WEIR_OK ? show(trust->context, options, err) : status;
    if (status != WEIR_OK) {
        tls_trust_destroy(trust);
        return status;
    }
    SSL_CTX_set_options(trust->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                            SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(trust->context, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    *out = trust;
    return WEIR_OK;
}

void tls_trust_destroy(struct tls_trust *trust)
{
    if (trust != NULL) {
        SSL_CTX_free(trust->context);
        mem_free(trust);
    }
}

/* Whom the server has to be.  An address is looked for among a certificate's addresses, and is
 * never sent as a name. */
static bool expect_host(SSL *ssl, const char *host)
{
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1) {
        return true;
    }
    ERR_clear_error();
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

struct tls_link *tls_trust_open(struct tls_trust *trust, const char *host, bool http2)
{
    static const unsigned char protocols[] = "\x02h2\x08http/1.1";
    struct tls_link *link = tls_link_create(trust->context);
    if (link == NULL) {
        return NULL;
    }
    SSL *ssl = tls_link_ssl(link);
    SSL_set_connect_state(ssl);
    const bool made =
        expect_host(ssl, host) && SSL_set_alpn_protos(ssl, http2 ? protocols : protocols + 3,
                                                      http2 ? 3 : sizeof(protocols) - 1 - 3) == 0;
    if (!made) {
        tls_close(link);
        return NULL;
    }
    return link;
}

bool tls_trust_doubts(const struct tls_link *link)
{
    SSL *ssl = tls_link_ssl(link);
    return SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE && SSL_get_verify_result(ssl) != X509_V_OK;
}

bool tls_trust_is_asked(const struct tls_link *link)
{
    const char *asked =
        ERR_reason_error_string(ERR_PACK(ERR_LIB_SSL, 0, SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED));
    return asked != NULL && strcmp(tls_link_reason(link), asked) == 0;
}

const char *tls_trust_fault(const struct tls_link *link)
{
    return tls_trust_doubts(link)
               ? X509_verify_cert_error_string(SSL_get_verify_result(tls_link_ssl(link)))
               : tls_link_reason(link);
}
