#include "identity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#define YEAR_S (365L * 24 * 3600)

struct identity identity_make(const char *name, const struct identity *issuer, long expires_s)
{
    static long serial;
    struct identity made = { EVP_EC_gen("P-256"), X509_new() };
    X509 *x = made.certificate;
    ASN1_INTEGER_set(X509_get_serialNumber(x), ++serial);
    X509_set_version(x, X509_VERSION_3);
    X509_gmtime_adj(X509_getm_notBefore(x), -2 * YEAR_S);
    X509_gmtime_adj(X509_getm_notAfter(x), expires_s);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(issuer == NULL ? x : issuer->certificate));
    X509_set_pubkey(x, made.key);
    X509V3_CTX context;
    X509V3_set_ctx(&context, x, x, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(
        NULL, &context, NID_basic_constraints, issuer == NULL ? "critical,CA:TRUE" : "CA:FALSE");
    X509_add_ext(x, extension, -1);
    X509_EXTENSION_free(extension);
    assert_true(X509_sign(x, issuer == NULL ? made.key : issuer->key, EVP_sha256()) > 0);
    return made;
}

void identity_drop(struct identity *identity)
{
    EVP_PKEY_free(identity->key);
    X509_free(identity->certificate);
}

void identity_put(const char *path, const struct identity *identity, bool key)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    const int written = key ? PEM_write_PrivateKey(file, identity->key, NULL, NULL, 0, NULL, NULL)
                            : PEM_write_X509(file, identity->certificate);
    assert_int_equal(written, 1);
    fclose(file);
}
