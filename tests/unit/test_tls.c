/* TLS: a client of OpenSSL's own against our end, byte for byte, without a socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <cmocka.h>

#include "faults.h"
#include "identity.h"
#include "net/tls.h"
#include "net/tls_trust.h"

#define YEAR_S (365L * 24 * 3600)

struct bed {
    char folder[64];
    char certificate[96];
    char key[96];
    char client_ca[96];
    struct identity root;
    struct identity server;
    struct identity client;
    struct tls_options options;
};

static void put_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int set_up(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));
    (void)snprintf(bed->folder, sizeof(bed->folder), "/tmp/weir-test-tls-XXXXXX");
    if (mkdtemp(bed->folder) == NULL) {
        return -1;
    }
    (void)snprintf(bed->certificate, sizeof(bed->certificate), "%s/cert.pem", bed->folder);
    (void)snprintf(bed->key, sizeof(bed->key), "%s/key.pem", bed->folder);
    (void)snprintf(bed->client_ca, sizeof(bed->client_ca), "%s/ca.pem", bed->folder);
    bed->root = identity_make("root", NULL, YEAR_S);
    bed->server = identity_make("localhost", &bed->root, YEAR_S);
    bed->client = identity_make("alice", &bed->root, YEAR_S);
    identity_put(bed->certificate, &bed->server, false);
    identity_put(bed->key, &bed->server, true);
    identity_put(bed->client_ca, &bed->root, false);
    bed->options =
        (struct tls_options){ .certificate = bed->certificate, .key = bed->key, .client_ca = "" };
    *state = bed;
    return 0;
}

static int tear_down(void **state)
{
    struct bed *bed = *state;
    identity_drop(&bed->root);
    identity_drop(&bed->server);
    identity_drop(&bed->client);
    unlink(bed->certificate);
    unlink(bed->key);
    unlink(bed->client_ca);
    rmdir(bed->folder);
    free(bed);
    return 0;
}

static struct tls *make_tls(const struct bed *bed)
{
    struct tls *tls = NULL;
    struct weir_err err = { 0 };
    if (tls_create(&bed->options, &tls, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    return tls;
}

/* --- A client --- */

struct peer {
    SSL_CTX *context;
    SSL *ssl;
    BIO *in;  /* What the server said. */
    BIO *out; /* What the client says. */
    struct tls_link *link;
    size_t step; /* Bytes of the client at once; 0: all. */
    enum tls_result last;
    bool was_ready;
    char got[1 << 20]; /* What the server understood. */
    size_t got_size;
};

/* Takes the link. */
static struct peer *make_peer_on(struct tls_link *link, const struct bed *bed, const char *alpn)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    peer->context = SSL_CTX_new(TLS_client_method());
    X509_STORE_add_cert(SSL_CTX_get_cert_store(peer->context), bed->root.certificate);
    SSL_CTX_set_verify(peer->context, SSL_VERIFY_PEER, NULL);
    peer->ssl = SSL_new(peer->context);
    if (alpn != NULL) {
        SSL_set_alpn_protos(peer->ssl, (const unsigned char *)alpn, (unsigned)strlen(alpn));
    }
    peer->in = BIO_new(BIO_s_mem());
    peer->out = BIO_new(BIO_s_mem());
    SSL_set_bio(peer->ssl, peer->in, peer->out);
    SSL_set_connect_state(peer->ssl);
    peer->link = link;
    return peer;
}

static struct peer *make_peer(struct tls *tls, const struct bed *bed, const char *alpn)
{
    struct tls_link *link = tls_open(tls);
    assert_non_null(link);
    return make_peer_on(link, bed, alpn);
}

static void show(struct peer *peer, const struct identity *identity)
{
    assert_int_equal(SSL_use_certificate(peer->ssl, identity->certificate), 1);
    assert_int_equal(SSL_use_PrivateKey(peer->ssl, identity->key), 1);
}

static void drop_peer(struct peer *peer)
{
    SSL_free(peer->ssl);
    SSL_CTX_free(peer->context);
    tls_close(peer->link);
    ERR_clear_error();
    free(peer);
}

/* Follows the server's end until it wants more. */
static void pump(struct peer *peer)
{
    for (;;) {
        size_t size = 0;
        const size_t room = sizeof(peer->got) - peer->got_size;
        peer->last = tls_read(peer->link, peer->got + peer->got_size, room, &size);
        if (peer->last == TLS_DATA) {
            peer->got_size += size;
        } else if (peer->last == TLS_READY) {
            peer->was_ready = true;
        } else {
            return;
        }
    }
}

static void feed(struct peer *peer, const char *data, size_t size)
{
    const size_t step = peer->step == 0 ? size : peer->step;
    for (size_t at = 0; at < size; at += step) {
        const size_t part = size - at < step ? size - at : step;
        /* A copy of its exact size, so that a sanitizer sees who reads beyond it. */
        char *copy = malloc(part);
        memcpy(copy, data + at, part);
        tls_feed(peer->link, (struct bytes){ copy, part });
        pump(peer);
        free(copy);
        if (peer->last != TLS_MORE) {
            return;
        }
    }
}

/* Carries bytes both ways until neither has any. */
static void exchange_bytes(struct peer *peer)
{
    for (;;) {
        (void)SSL_do_handshake(peer->ssl);
        char *data = NULL;
        const long size = BIO_get_mem_data(peer->out, &data);
        const struct bytes outgoing = tls_outgoing(peer->link);
        if (size == 0 && outgoing.size == 0) {
            return;
        }
        if (outgoing.size > 0) {
            BIO_write(peer->in, outgoing.data, (int)outgoing.size);
            tls_sent(peer->link, outgoing.size);
        }
        if (size > 0) {
            char *copy = malloc((size_t)size);
            memcpy(copy, data, (size_t)size);
            (void)BIO_reset(peer->out);
            if (peer->last != TLS_FAILED) {
                feed(peer, copy, (size_t)size);
            }
            free(copy);
        }
    }
}

static struct peer *meet(struct tls *tls, const struct bed *bed)
{
    struct peer *peer = make_peer(tls, bed, "\x08http/1.1");
    exchange_bytes(peer);
    assert_true(tls_ready(peer->link));
    assert_true(SSL_is_init_finished(peer->ssl));
    return peer;
}

static void client_says(struct peer *peer, const char *data, size_t size)
{
    assert_int_equal(SSL_write(peer->ssl, data, (int)size), (int)size);
    exchange_bytes(peer);
}

static void serial_of(struct peer *peer, char out[32])
{
    X509 *certificate = SSL_get0_peer_certificate(peer->ssl);
    (void)snprintf(out, 32, "%ld", ASN1_INTEGER_get(X509_get0_serialNumber(certificate)));
}

/* --- Tests --- */

static void test_both_ways(void **state)
{
    struct tls *tls = make_tls(*state);
    struct peer *peer = meet(tls, *state);
    client_says(peer, "hello", 5);
    assert_int_equal(peer->got_size, 5);
    assert_memory_equal(peer->got, "hello", 5);

    char scratch[TLS_RECORD_BYTES];
    static char large[40000];
    memset(large, 'x', sizeof(large));
    const struct bytes pieces[] = {
        { "one ", 4 }, { NULL, 0 }, { large, sizeof(large) }, { "!", 1 }
    };
    assert_true(tls_seal(peer->link, pieces, 4, scratch));
    exchange_bytes(peer);
    static char answer[50000];
    size_t total = 0;
    int size = 0;
    while ((size = SSL_read(peer->ssl, answer + total, (int)(sizeof(answer) - total))) > 0) {
        total += (size_t)size;
    }
    assert_int_equal(total, 4 + sizeof(large) + 1);
    assert_memory_equal(answer, "one xxx", 7);
    assert_int_equal(answer[total - 1], '!');
    drop_peer(peer);
    tls_destroy(tls);
}

/* A record may arrive byte by byte, and a reader may have little room. */
static void test_byte_by_byte(void **state)
{
    struct tls *tls = make_tls(*state);
    struct peer *peer = make_peer(tls, *state, NULL);
    peer->step = 1;
    exchange_bytes(peer);
    assert_true(peer->was_ready);
    assert_int_equal(tls_protocol(peer->link), TLS_NO_PROTOCOL);
    client_says(peer, "slow but sure", 13);
    assert_int_equal(peer->got_size, 13);
    drop_peer(peer);
    tls_destroy(tls);
}

/* What was fed and not read yet can be kept beyond the call that brought it. */
static void test_held(void **state)
{
    struct tls *tls = make_tls(*state);
    struct peer *peer = meet(tls, *state);
    SSL_write(peer->ssl, "first", 5);
    SSL_write(peer->ssl, "second", 6);
    char *data = NULL;
    const size_t size = (size_t)BIO_get_mem_data(peer->out, &data);
    char *copy = malloc(size);
    memcpy(copy, data, size);
    (void)BIO_reset(peer->out);
    tls_feed(peer->link, (struct bytes){ copy, size });
    char two[2];
    size_t got = 0;
    assert_int_equal(tls_read(peer->link, two, sizeof(two), &got), TLS_DATA);
    assert_int_equal(got, 2);
    assert_true(tls_hold(peer->link));
    free(copy);
    pump(peer);
    assert_int_equal(peer->last, TLS_MORE);
    assert_int_equal(peer->got_size, 9);
    assert_memory_equal(peer->got, "rstsecond", 9);
    drop_peer(peer);
    tls_destroy(tls);
}

static void test_protocols(void **state)
{
    static const struct {
        const char *offered;
        enum tls_protocol chosen;
    } cases[] = {
        { "\x02h2\x08http/1.1", TLS_HTTP2 }, { "\x08http/1.1\x02h2", TLS_HTTP2 },
        { "\x08http/1.1", TLS_HTTP1 },       { "\x02h2", TLS_HTTP2 },
        { NULL, TLS_NO_PROTOCOL },
    };
    struct tls *tls = make_tls(*state);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct peer *peer = make_peer(tls, *state, cases[i].offered);
        exchange_bytes(peer);
        assert_true(tls_ready(peer->link));
        assert_int_equal(tls_protocol(peer->link), cases[i].chosen);
        drop_peer(peer);
    }
    struct peer *peer = make_peer(tls, *state, "\x04spdy");
    exchange_bytes(peer);
    assert_int_equal(peer->last, TLS_FAILED);
    drop_peer(peer);
    tls_destroy(tls);
}

static void test_versions(void **state)
{
    struct bed *bed = *state;
    static const struct {
        int version;
        bool tls13_only;
        bool welcome;
    } cases[] = {
        { TLS1_3_VERSION, false, true },  { TLS1_2_VERSION, false, true },
        { TLS1_1_VERSION, false, false }, { TLS1_3_VERSION, true, true },
        { TLS1_2_VERSION, true, false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        bed->options.tls13_only = cases[i].tls13_only;
        struct tls *tls = make_tls(bed);
        struct peer *peer = make_peer(tls, bed, NULL);
        SSL_set_min_proto_version(peer->ssl, 0);
        SSL_set_max_proto_version(peer->ssl, cases[i].version);
        SSL_set_security_level(peer->ssl, 0);
        exchange_bytes(peer);
        assert_int_equal(tls_ready(peer->link), cases[i].welcome);
        drop_peer(peer);
        tls_destroy(tls);
    }
    bed->options.tls13_only = false;
}

/* Without forward secrecy, or without authenticated encryption: refused. */
static void test_weak_ciphers(void **state)
{
    struct tls *tls = make_tls(*state);
    static const char *const weak[] = { "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA",
                                        "ECDHE-ECDSA-AES256-SHA384" };
    for (size_t i = 0; i < sizeof(weak) / sizeof(*weak); i++) {
        struct peer *peer = make_peer(tls, *state, NULL);
        SSL_set_max_proto_version(peer->ssl, TLS1_2_VERSION);
        assert_int_equal(SSL_set_cipher_list(peer->ssl, weak[i]), 1);
        exchange_bytes(peer);
        assert_int_equal(peer->last, TLS_FAILED);
        drop_peer(peer);
    }
    tls_destroy(tls);
}

static void test_client_certificates(void **state)
{
    struct bed *bed = *state;
    struct identity stranger_root = identity_make("stranger", NULL, YEAR_S);
    struct identity stranger = identity_make("mallory", &stranger_root, YEAR_S);
    struct identity late = identity_make("late", &bed->root, -YEAR_S);
    const struct {
        enum tls_client mode;
        const struct identity *shown;
        const char *name; /* NULL: not let in. */
    } cases[] = {
        { TLS_CLIENT_REQUIRED, &bed->client, "alice" }, { TLS_CLIENT_REQUIRED, NULL, NULL },
        { TLS_CLIENT_REQUIRED, &stranger, NULL },       { TLS_CLIENT_REQUIRED, &late, NULL },
        { TLS_CLIENT_OPTIONAL, &bed->client, "alice" }, { TLS_CLIENT_OPTIONAL, NULL, "" },
        { TLS_CLIENT_OPTIONAL, &stranger, NULL },
    };
    bed->options.client_ca = bed->client_ca;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        bed->options.client = cases[i].mode;
        struct tls *tls = make_tls(bed);
        struct peer *peer = make_peer(tls, bed, NULL);
        if (cases[i].shown != NULL) {
            show(peer, cases[i].shown);
        }
        exchange_bytes(peer);
        assert_int_equal(tls_ready(peer->link), cases[i].name != NULL);
        if (cases[i].name != NULL) {
            const struct bytes name = tls_client_name(peer->link);
            assert_true(bytes_equal(name, bytes_of(cases[i].name)));
        }
        drop_peer(peer);
        tls_destroy(tls);
    }
    bed->options.client_ca = "";
    identity_drop(&late);
    identity_drop(&stranger);
    identity_drop(&stranger_root);
}

/* --- Reloading --- */

static bool reload(struct tls *tls, enum weir_status expected, struct weir_err *err)
{
    bool changed = false;
    assert_int_equal(tls_reload(tls, false, &changed, err), expected);
    return changed;
}

static void test_reload(void **state)
{
    struct bed *bed = *state;
    struct tls *tls = make_tls(bed);
    struct peer *old = meet(tls, bed);
    char before[32];
    char after[32];
    serial_of(old, before);
    struct weir_err err = { 0 };
    assert_false(reload(tls, WEIR_OK, &err));

    struct identity fresh = identity_make("renewed", &bed->root, YEAR_S);
    identity_put(bed->certificate, &fresh, false);
    identity_put(bed->key, &fresh, true);
    assert_true(reload(tls, WEIR_OK, &err));
    assert_string_equal(tls_facts(tls).subject, "renewed");
    struct peer *later = meet(tls, bed);
    serial_of(later, after);
    assert_string_not_equal(before, after);
    client_says(old, "still here", 10);
    assert_int_equal(old->got_size, 10);

    drop_peer(old);
    drop_peer(later);
    tls_destroy(tls);
    identity_drop(&fresh);
    identity_put(bed->certificate, &bed->server, false);
    identity_put(bed->key, &bed->server, true);
}

/* Half of a renewal, or rubbish: the old pair serves on, and each change is tried once. */
static void test_broken_reload(void **state)
{
    struct bed *bed = *state;
    struct tls *tls = make_tls(bed);
    struct identity fresh = identity_make("half", &bed->root, YEAR_S);
    struct weir_err err = { 0 };
    identity_put(bed->certificate, &fresh, false);
    assert_false(reload(tls, WEIR_EINVAL, &err));
    assert_non_null(strstr(err.text, "does not belong"));
    assert_false(reload(tls, WEIR_OK, &err));
    drop_peer(meet(tls, bed));
    assert_string_equal(tls_facts(tls).subject, "localhost");

    unlink(bed->key);
    assert_false(reload(tls, WEIR_ENOENT, &err));
    put_text(bed->key, "-----BEGIN PRIVATE KEY-----\nrubbish\n-----END PRIVATE KEY-----\n");
    assert_false(reload(tls, WEIR_EINVAL, &err));
    drop_peer(meet(tls, bed));

    identity_put(bed->key, &fresh, true);
    assert_true(reload(tls, WEIR_OK, &err));
    assert_string_equal(tls_facts(tls).subject, "half");
    tls_destroy(tls);
    identity_drop(&fresh);
    identity_put(bed->certificate, &bed->server, false);
    identity_put(bed->key, &bed->server, true);
}

/* A handshake and an answer, as far as they come. */
static void try_to_meet(struct tls *tls, const struct bed *bed)
{
    char scratch[TLS_RECORD_BYTES];
    const struct bytes answer = BYTES_LITERAL("answer");
    struct tls_link *link = tls_open(tls);
    if (link == NULL) {
        return;
    }
    struct peer *peer = make_peer_on(link, bed, "\x08http/1.1");
    exchange_bytes(peer);
    if (peer->last != TLS_FAILED && tls_ready(link) && tls_seal(link, &answer, 1, scratch)) {
        tls_feed(link, BYTES_LITERAL("\x17\x03"));
        (void)!tls_hold(link);
        tls_farewell(link);
        exchange_bytes(peer);
    }
    drop_peer(peer);
}

/* A connection without memory fails by itself; the next one is served. */
static void test_memory_runs_out_in_a_connection(void **state)
{
    struct tls *tls = make_tls(*state);
    uint64_t made = 0;
    for (uint64_t nth = 1; made + 1 >= nth; nth++) {
        (void)mem_fault_arm(nth);
        try_to_meet(tls, *state);
        made = mem_fault_arm(0);
        struct peer *peer = meet(tls, *state);
        client_says(peer, "hello", 5);
        assert_int_equal(peer->got_size, 5);
        drop_peer(peer);
    }
    tls_destroy(tls);
}

/* Certificates are read again: the new ones serve, or the old ones and the reason is said. */
static void test_memory_runs_out_in_a_reload(void **state)
{
    struct bed *bed = *state;
    struct tls *tls = make_tls(bed);
    uint64_t made = 0;
    for (uint64_t nth = 1; made + 1 >= nth; nth++) {
        struct weir_err err = { 0 };
        bool changed = false;
        (void)mem_fault_arm(nth);
        const enum weir_status status = tls_reload(tls, true, &changed, &err);
        made = mem_fault_arm(0);
        assert_true(status == WEIR_OK || err.text[0] != '\0');
        assert_int_equal(changed, status == WEIR_OK);
        drop_peer(meet(tls, bed));
    }
    tls_destroy(tls);
}

static void expect_refused(const struct bed *bed, const char *part)
{
    struct tls *tls = NULL;
    struct weir_err err = { 0 };
    const enum weir_status status = tls_create(&bed->options, &tls, &err);
    assert_int_not_equal(status, WEIR_OK);
    assert_null(tls);
    if (strstr(err.text, part) == NULL) {
        fail_msg("'%s' is not in: %s", part, err.text);
    }
}

static void test_wrong_files(void **state)
{
    struct bed *bed = *state;
    bed->options.certificate = "/nowhere/cert.pem";
    expect_refused(bed, "/nowhere/cert.pem");
    bed->options.certificate = bed->key;
    expect_refused(bed, "expected certificates in PEM");
    bed->options.certificate = bed->certificate;
    bed->options.key = bed->certificate;
    expect_refused(bed, "expected a private key in PEM");
    bed->options.key = bed->key;
    identity_put(bed->key, &bed->client, true);
    expect_refused(bed, "does not belong to the certificate");
    FILE *file = fopen(bed->key, "w");
    assert_int_equal(PEM_write_PrivateKey(file, bed->server.key, EVP_aes_128_cbc(),
                                          (const unsigned char *)"secret", 6, NULL, NULL),
                     1);
    fclose(file);
    expect_refused(bed, "without a passphrase");
    identity_put(bed->key, &bed->server, true);
    put_text(bed->client_ca, "");
    bed->options.client_ca = bed->client_ca;
    expect_refused(bed, "tls_client_ca");
    bed->options.client_ca = "";
    identity_put(bed->client_ca, &bed->root, false);
}

static void test_expired(void **state)
{
    struct bed *bed = *state;
    struct identity late = identity_make("late", &bed->root, -YEAR_S);
    identity_put(bed->certificate, &late, false);
    identity_put(bed->key, &late, true);
    struct tls *tls = make_tls(bed);
    assert_true(tls_facts(tls).expired);
    tls_destroy(tls);
    identity_drop(&late);
    identity_put(bed->certificate, &bed->server, false);
    identity_put(bed->key, &bed->server, true);
    tls = make_tls(bed);
    assert_false(tls_facts(tls).expired);
    assert_true(tls_facts(tls).expires_s > 1700000000);
    tls_destroy(tls);
}

/* --- Endings --- */

static void test_farewell(void **state)
{
    struct tls *tls = make_tls(*state);
    struct peer *peer = meet(tls, *state);
    tls_farewell(peer->link);
    exchange_bytes(peer);
    char byte;
    assert_int_equal(SSL_read(peer->ssl, &byte, 1), 0);
    assert_int_equal(SSL_get_shutdown(peer->ssl) & SSL_RECEIVED_SHUTDOWN, SSL_RECEIVED_SHUTDOWN);
    SSL_shutdown(peer->ssl);
    exchange_bytes(peer);
    assert_int_equal(peer->last, TLS_END);
    drop_peer(peer);
    tls_destroy(tls);
}

static void test_rubbish(void **state)
{
    struct tls *tls = make_tls(*state);
    const uint64_t before = tls_failures();
    struct peer *peer = make_peer(tls, *state, NULL);
    feed(peer, "\x16\x03\x01\x00\x05rubbish and more of it", 28);
    assert_int_equal(peer->last, TLS_FAILED);
    assert_true(tls_outgoing(peer->link).size > 0); /* An alert. */
    assert_false(tls_seal(peer->link, NULL, 0, NULL));
    drop_peer(peer);
    assert_int_equal(tls_failures(), before + 1);

    peer = make_peer(tls, *state, NULL);
    feed(peer, "GET / HTTP/1.1\r\n\r\n", 18);
    assert_int_equal(peer->last, TLS_PLAIN);
    drop_peer(peer);

    peer = meet(tls, *state); /* A record that was changed on its way. */
    SSL_write(peer->ssl, "signed", 6);
    char *data = NULL;
    const size_t size = (size_t)BIO_get_mem_data(peer->out, &data);
    data[size - 1] = (char)(data[size - 1] ^ 1);
    feed(peer, data, size);
    assert_int_equal(peer->last, TLS_FAILED);
    assert_int_equal(peer->got_size, 0);
    drop_peer(peer);
    tls_destroy(tls);
}

/* A client that has its keys changed without end and reads nothing is given up. */
static void test_bounded_output(void **state)
{
    struct tls *tls = make_tls(*state);
    struct peer *peer = meet(tls, *state);
    char *data = NULL;
    for (int i = 0; i < 20000 && peer->last != TLS_FAILED; i++) {
        SSL_key_update(peer->ssl, SSL_KEY_UPDATE_REQUESTED);
        (void)SSL_do_handshake(peer->ssl);
        const size_t size = (size_t)BIO_get_mem_data(peer->out, &data);
        feed(peer, data, size);
        (void)BIO_reset(peer->out);
    }
    assert_true(tls_outgoing(peer->link).size <= TLS_OUTGOING_BYTES_MAX);
    drop_peer(peer);
    tls_destroy(tls);
}

/* A session is resumed by its ticket, with what its client's certificate said. */
static void test_resumed(void **state)
{
    struct bed *bed = *state;
    bed->options.client_ca = bed->client_ca;
    bed->options.client = TLS_CLIENT_REQUIRED;
    struct tls *tls = make_tls(bed);
    struct peer *first = make_peer(tls, bed, NULL);
    show(first, &bed->client);
    exchange_bytes(first);
    char byte;
    (void)SSL_read(first->ssl, &byte, 1); /* Takes the tickets in. */
    SSL_SESSION *session = SSL_get1_session(first->ssl);
    assert_true(SSL_SESSION_is_resumable(session));
    struct peer *second = make_peer(tls, bed, NULL);
    assert_int_equal(SSL_set_session(second->ssl, session), 1);
    exchange_bytes(second);
    assert_true(tls_ready(second->link));
    assert_true(SSL_session_reused(second->ssl));
    assert_true(bytes_equal(tls_client_name(second->link), BYTES_LITERAL("alice")));
    SSL_SESSION_free(session);
    drop_peer(first);
    drop_peer(second);
    tls_destroy(tls);
    bed->options.client_ca = "";
}

/* --- Our own client's end --- */

/* What one side says to the other; how that takes it. */
static enum tls_result carry(struct tls_link *from, struct tls_link *to)
{
    char plain[64];
    size_t size = 0;
    const struct bytes out = tls_outgoing(from);
    tls_feed(to, out);
    enum tls_result result = tls_read(to, plain, sizeof(plain), &size);
    if (result == TLS_READY) {
        result = tls_read(to, plain, sizeof(plain), &size);
    }
    tls_sent(from, out.size);
    return result;
}

/* NULL: the client took the server for what it says; else why not. */
static const char *refusal_of(struct tls *tls, const struct tls_trust_options *options,
                              const char *host, bool http2)
{
    static char fault[128];
    struct tls_trust *trust = NULL;
    struct weir_err err = { 0 };
    if (tls_trust_create(options, &trust, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    struct tls_link *ours = tls_trust_open(trust, host, http2);
    struct tls_link *theirs = tls_open(tls);
    assert_non_null(ours);
    size_t size = 0;
    enum tls_result result = tls_read(ours, NULL, 0, &size); /* It speaks first. */
    while (result == TLS_MORE && !tls_ready(ours)) {
        assert_int_equal(carry(ours, theirs), TLS_MORE);
        result = carry(theirs, ours);
    }
    const bool good = tls_ready(ours);
    if (good) {
        char scratch[TLS_RECORD_BYTES];
        const struct bytes hello = BYTES_LITERAL("hello");
        assert_int_equal(tls_protocol(ours), http2 ? TLS_HTTP2 : TLS_HTTP1);
        assert_true(tls_seal(ours, &hello, 1, scratch));
        assert_int_equal(carry(ours, theirs), TLS_DATA);
    } else {
        (void)snprintf(fault, sizeof(fault), "%s", tls_trust_fault(ours));
    }
    tls_close(ours);
    tls_close(theirs);
    tls_trust_destroy(trust);
    return good ? NULL : fault;
}

static void test_our_client_looks_at_who_answers(void **state)
{
    const struct bed *bed = *state;
    struct tls *tls = make_tls(bed);
    const struct tls_trust_options root = { .ca = bed->client_ca };
    const struct tls_trust_options anybody = { .insecure = true };
    const struct tls_trust_options usual = { 0 };
    assert_null(refusal_of(tls, &root, "localhost", true));
    assert_null(refusal_of(tls, &root, "localhost", false));
    assert_non_null(strstr(refusal_of(tls, &root, "other.example", true), "ostname mismatch"));
    assert_non_null(strstr(refusal_of(tls, &root, "127.0.0.1", true), "IP address mismatch"));
    assert_non_null(strstr(refusal_of(tls, &usual, "localhost", true), "certificate"));
    assert_null(refusal_of(tls, &anybody, "other.example", true));
    tls_destroy(tls);

    struct tls_trust *trust = NULL;
    struct weir_err err = { 0 };
    const struct tls_trust_options key = { .ca = bed->key };
    assert_int_equal(tls_trust_create(&key, &trust, &err), WEIR_EINVAL);
    assert_non_null(strstr(err.text, bed->key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_protocols),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_weak_ciphers),
        cmocka_unit_test(test_client_certificates),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_broken_reload),
        cmocka_unit_test(test_memory_runs_out_in_a_connection),
        cmocka_unit_test(test_memory_runs_out_in_a_reload),
        cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_expired),
        cmocka_unit_test(test_farewell),
        cmocka_unit_test(test_rubbish),
        cmocka_unit_test(test_bounded_output),
        cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_our_client_looks_at_who_answers),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
