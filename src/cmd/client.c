#include "cmd/client.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "cmd/secure.h"
#include "util/clock.h"
#include "util/json.h"
#include "util/mem.h"

#define HEAD_BYTES_MAX ((size_t)64 << 10)
#define BODY_BYTES_MAX ((size_t)4 << 30)
#define READ_BYTES ((size_t)64 << 10)

static const struct {
    const char *text;
    const char *port; /* Where none is named. */
    bool secure;
} schemes[] = {
    { "http://", "80", false },  { "https://", "443", true }, { "grpc://", "80", false },
    { "grpcs://", "443", true }, { "", "80", false },
};

/* ---- Addresses ------------------------------------------------------------------------------- */

static bool is_port(const char *text)
{
    uint64_t port;
    return bytes_to_u64(bytes_of(text), 65535, &port);
}

/* "HOST:PORT", "[::1]:PORT" or either without a port. */
static bool split_address(struct client *client, const char *text, size_t size, const char *port)
{
    char address[sizeof(client->host) + sizeof(client->port)];
    if (size == 0 || size >= sizeof(address)) {
        return false;
    }
    memcpy(address, text, size);
    address[size] = '\0';
    char *host = address;
    char *rest = strchr(address, ':');
    if (address[0] == '[') {
        host = address + 1;
        char *bracket = strchr(host, ']');
        if (bracket == NULL) {
            return false;
        }
        *bracket = '\0';
        rest = bracket[1] == '\0' ? NULL : bracket + 1;
    }
    if (rest != NULL && *rest != ':') {
        return false;
    }
    if (rest != NULL) {
        *rest = '\0';
        port = rest + 1;
    }
    const int host_size = snprintf(client->host, sizeof(client->host), "%s", host);
    const int port_size = snprintf(client->port, sizeof(client->port), "%s", port);
    return host_size > 0 && (size_t)host_size < sizeof(client->host) && is_port(port) &&
           (size_t)port_size < sizeof(client->port);
}

bool client_is_grpc(const char *url)
{
    return strncmp(url, "grpc://", 7) == 0 || strncmp(url, "grpcs://", 8) == 0;
}

/* The one without a text takes all others. */
static size_t scheme_of(const char *url)
{
    size_t i = 0;
    while (strncmp(url, schemes[i].text, strlen(schemes[i].text)) != 0) {
        i++;
    }
    return i;
}

bool client_is_secure(const char *url)
{
    return schemes[scheme_of(url)].secure;
}

enum weir_status client_init(struct client *client, const char *url, uint64_t timeout_ns,
                             struct weir_err *err)
{
    *client = (struct client){ .fd = -1, .timeout_ns = timeout_ns };
    if (strncmp(url, "unix:", 5) == 0) {
        const int size = snprintf(client->host, sizeof(client->host), "%s", url + 5);
        if (size > 0 && (size_t)size < sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
            return WEIR_OK;
        }
        return err_set(err, WEIR_EINVAL,
                       "url: found '%s', expected unix:/PATH of at most 107 bytes", url);
    }
    const size_t i = scheme_of(url);
    const char *address = url + strlen(schemes[i].text);
    const size_t size = strcspn(address, "/");
    const bool bare = address[size] == '\0' || strcmp(address + size, "/") == 0;
    client->secure = schemes[i].secure;
    if (!bare || !split_address(client, address, size, schemes[i].port)) {
        return err_set(
            err, WEIR_EINVAL,
            "url: found '%s', expected http://HOST:PORT, https://HOST:PORT or unix:/PATH", url);
    }
    return client->secure ? secure_read(err) : WEIR_OK;
}

static void hang_up(struct client *client)
{
    if (client->link != NULL) {
        tls_farewell(client->link);
        (void)secure_flush(client->link, client->fd);
        tls_close(client->link);
        mem_free(client->sealed);
        client->link = NULL;
    }
    if (client->fd >= 0) {
        (void)close(client->fd);
        client->fd = -1;
    }
}

void client_finish(struct client *client)
{
    hang_up(client);
}

/* ---- Connecting ------------------------------------------------------------------------------ */

static enum weir_status failed(const struct client *client, const char *what, struct weir_err *err)
{
    const bool late = errno == EAGAIN || errno == ETIMEDOUT;
    const char *colon = client->port[0] == '\0' ? "" : ":";
    const char *hint = errno == ECONNREFUSED ? "; does a server run there?" : "";
    return err_set(err, late ? WEIR_ETIMEOUT : WEIR_EIO, "%s%s%s: %s: %s%s", client->host, colon,
                   client->port, what, late ? "it took too long" : strerror(errno), hint);
}

static void set_timeouts(const struct client *client, int fd)
{
    const struct timeval timeout = {
        .tv_sec = (time_t)(client->timeout_ns / NS_PER_S),
        .tv_usec = (suseconds_t)(client->timeout_ns % NS_PER_S / NS_PER_US),
    };
    const int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static bool try_address(struct client *client, int family, const struct sockaddr *address,
                        socklen_t size)
{
    const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    set_timeouts(client, fd);
    if (connect(fd, address, size) != 0) {
        const int reason = errno == EINPROGRESS ? ETIMEDOUT : errno;
        (void)close(fd);
        errno = reason;
        return false;
    }
    client->fd = fd;
    return true;
}

static enum weir_status dial_unix(struct client *client, struct weir_err *err)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%.*s",
                   (int)sizeof(address.sun_path) - 1, client->host);
    return try_address(client, AF_UNIX, (const struct sockaddr *)&address, sizeof(address))
               ? WEIR_OK
               : failed(client, "cannot connect", err);
}

static enum weir_status dial(struct client *client, struct weir_err *err)
{
    if (client->port[0] == '\0') {
        return dial_unix(client, err);
    }
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *list = NULL;
    const int fault = getaddrinfo(client->host, client->port, &hints, &list);
    if (fault != 0) {
        return err_set(err, WEIR_EIO, "cannot find host '%s': %s", client->host,
                       gai_strerror(fault));
    }
    bool connected = false;
    for (const struct addrinfo *at = list; at != NULL && !connected; at = at->ai_next) {
        connected = try_address(client, at->ai_family, at->ai_addr, at->ai_addrlen);
    }
    const int reason = errno;
    freeaddrinfo(list);
    errno = reason;
    return connected ? WEIR_OK : failed(client, "cannot connect", err);
}

/* Sends what is sealed. */
static enum weir_status flush(const struct client *client, struct weir_err *err)
{
    errno = secure_flush(client->link, client->fd);
    return errno == 0 ? WEIR_OK : failed(client, "cannot send", err);
}

static const char *advice(const struct tls_link *link)
{
    if (tls_trust_doubts(link)) {
        return "--ca FILE says whom to trust, --insecure takes any";
    }
    return tls_trust_is_asked(link) ? "--cert FILE shows it one" : "does it speak TLS?";
}

/* Plain bytes, or that the handshake is over (*got 0), or that the server has closed (*got 0). */
static enum weir_status unseal(const struct client *client, char *at, size_t room, size_t *got,
                               struct weir_err *err)
{
    for (;;) {
        *got = 0;
        const enum tls_result result = tls_read(client->link, at, room, got);
        const enum weir_status status = flush(client, err);
        if (result == TLS_FAILED || result == TLS_PLAIN) {
            return err_set(err, WEIR_EIO, "%s:%s: TLS: %s; %s", client->host, client->port,
                           tls_trust_fault(client->link), advice(client->link));
        }
        if (status != WEIR_OK || result != TLS_MORE) {
            return status;
        }
        ssize_t size;
        do {
            size = recv(client->fd, client->sealed, READ_BYTES, 0);
        } while (size < 0 && errno == EINTR);
        if (size <= 0) {
            return size == 0 ? WEIR_OK : failed(client, "no answer", err);
        }
        tls_feed(client->link, (struct bytes){ client->sealed, (size_t)size });
    }
}

static enum weir_status shake_hands(struct client *client, struct weir_err *err)
{
    size_t got;
    enum weir_status status = secure_open(client->host, client->http2, &client->link, err);
    if (status != WEIR_OK) {
        return status;
    }
    client->sealed = mem_try_alloc(READ_BYTES);
    status = client->sealed == NULL ? err_nomem(err, "a connection", READ_BYTES)
                                    : unseal(client, NULL, 0, &got, err);
    return status == WEIR_OK && !tls_ready(client->link)
               ? err_set(err, WEIR_EIO,
                         "%s:%s: the server closed the connection during TLS's "
                         "handshake",
                         client->host, client->port)
               : status;
}

enum weir_status client_dial(struct client *client, struct weir_err *err)
{
    enum weir_status status = dial(client, err);
    if (status == WEIR_OK && client->secure) {
        status = shake_hands(client, err);
    }
    if (status != WEIR_OK) {
        hang_up(client);
    }
    return status;
}

/* ---- Sending --------------------------------------------------------------------------------- */

enum weir_status client_send(const struct client *client, struct bytes bytes, struct weir_err *err)
{
    while (bytes.size > 0) {
        size_t taken = 0;
        const int fault = secure_write(client->link, client->fd, &bytes, 1, &taken);
        if (fault != 0 || taken == 0) {
            errno = fault != 0 ? fault : EAGAIN; /* The time is up. */
            return failed(client, "cannot send", err);
        }
        bytes.data += taken;
        bytes.size -= taken;
    }
    return client->link == NULL ? WEIR_OK : flush(client, err);
}

const char *client_key(void)
{
    const char *key = getenv("WEIR_API_KEY");
    for (const char *at = key; at != NULL && *at != '\0'; at++) {
        if (*at <= ' ' || *at > '~') {
            return "";
        }
    }
    return key == NULL ? "" : key;
}

static enum weir_status send_request(const struct client *client,
                                     const struct client_request *request, struct weir_err *err)
{
    size_t size = 0;
    for (size_t i = 0; i < request->piece_count; i++) {
        size += request->pieces[i].size;
    }
    struct buffer head;
    buffer_init(&head, HEAD_BYTES_MAX);
    const bool bracket = strchr(client->host, ':') != NULL;
    const bool tcp = client->port[0] != '\0';
    buffer_printf(&head, "%s %s HTTP/1.1\r\nHost: %s%s%s%s%s\r\n", request->method, request->path,
                  bracket ? "[" : "", tcp ? client->host : "localhost", bracket ? "]" : "",
                  tcp ? ":" : "", client->port);
    buffer_printf(&head, "User-Agent: weir/" WEIR_VERSION "\r\n%s",
                  request->fields == NULL ? "" : request->fields);
    if (client_key()[0] != '\0') {
        buffer_printf(&head, "X-Api-Key: %s\r\n", client_key());
    }
    if (strcmp(request->method, "GET") != 0) {
        buffer_printf(&head, "Content-Length: %zu\r\n", size);
    }
    buffer_text(&head, "\r\n");
    enum weir_status status = head.failed ? err_nomem(err, "a request", head.size) : WEIR_OK;
    if (status == WEIR_OK) {
        status = client_send(client, (struct bytes){ head.data, head.size }, err);
    }
    for (size_t i = 0; i < request->piece_count && status == WEIR_OK; i++) {
        status = client_send(client, request->pieces[i], err);
    }
    buffer_finish(&head);
    return status;
}

/* ---- Receiving ------------------------------------------------------------------------------- */

/* What the header says about the body and the connection. */
struct framing {
    bool chunked;
    bool sized;
    bool close;
    uint64_t size;
};

enum weir_status client_receive(const struct client *client, struct buffer *into, size_t most,
                                size_t *got, struct weir_err *err)
{
    most = most < READ_BYTES ? most : READ_BYTES;
    if (!buffer_reserve(into, most)) {
        return into->full ? err_set(err, WEIR_ETOOBIG, "%s:%s: an answer of more than %zu bytes",
                                    client->host, client->port, into->size_max)
                          : err_nomem(err, "an answer", into->size + most);
    }
    if (client->link != NULL) {
        const enum weir_status status = unseal(client, into->data + into->size, most, got, err);
        into->size += status == WEIR_OK ? *got : 0;
        return status;
    }
    ssize_t size;
    do {
        size = recv(client->fd, into->data + into->size, most, 0);
    } while (size < 0 && errno == EINTR);
    if (size < 0) {
        return failed(client, "no answer", err);
    }
    into->size += (size_t)size;
    *got = (size_t)size;
    return WEIR_OK;
}

static enum weir_status cut_off(const struct client *client, struct weir_err *err)
{
    return err_set(err, WEIR_EIO, "%s:%s: the server closed the connection before its answer ended",
                   client->host, client->port);
}

static enum weir_status bad_answer(const struct client *client, const char *what,
                                   struct weir_err *err)
{
    return err_set(err, WEIR_EIO, "%s:%s: not an HTTP/1.1 server: %s", client->host, client->port,
                   what);
}

static void read_field(struct bytes name, struct bytes value, struct client_reply *reply,
                       struct framing *framing)
{
    uint64_t number = 0;
    if (bytes_equal_nocase(name, BYTES_LITERAL("content-length"))) {
        framing->sized = bytes_to_u64(value, BODY_BYTES_MAX, &framing->size);
    } else if (bytes_equal_nocase(name, BYTES_LITERAL("transfer-encoding"))) {
        framing->chunked = bytes_equal_nocase(value, BYTES_LITERAL("chunked"));
    } else if (bytes_equal_nocase(name, BYTES_LITERAL("connection"))) {
        framing->close = bytes_equal_nocase(value, BYTES_LITERAL("close"));
    } else if (bytes_equal_nocase(name, BYTES_LITERAL("inference-header-content-length")) &&
               bytes_to_u64(value, BODY_BYTES_MAX, &number)) {
        reply->json_size = (size_t)number;
    } else if (bytes_equal_nocase(name, BYTES_LITERAL("server-timing"))) {
        reply->timing = value;
    }
}

/* Reads the `size` bytes of a complete header; false when it is none. */
static bool read_head(struct client_reply *reply, size_t size, struct framing *framing)
{
    const char *at = reply->head.data;
    const char *end = at + size;
    uint64_t status = 0;
    if (size < 13 || memcmp(at, "HTTP/1.", 7) != 0 || at[8] != ' ' ||
        !bytes_to_u64((struct bytes){ at + 9, 3 }, 999, &status)) {
        return false;
    }
    reply->status = (int)status;
    reply->json_size = SIZE_MAX;
    for (at = memchr(at, '\n', size); at != NULL && ++at < end;
         at = memchr(at, '\n', (size_t)(end - at))) {
        const size_t line = (size_t)((const char *)memchr(at, '\n', (size_t)(end - at)) - at);
        const char *colon = memchr(at, ':', line);
        if (colon == NULL) {
            continue;
        }
        const char *value = colon + 1;
        const char *stop = at + line;
        while (value < stop && (*value == ' ' || *value == '\t')) {
            value++;
        }
        while (stop > value && (stop[-1] == '\r' || stop[-1] == ' ')) {
            stop--;
        }
        read_field((struct bytes){ at, (size_t)(colon - at) },
                   (struct bytes){ value, (size_t)(stop - value) }, reply, framing);
    }
    return true;
}

/* Receives until a header that is not of the 1xx kind is complete; *size is its end. */
static enum weir_status receive_head(const struct client *client, struct client_reply *reply,
                                     size_t *size, struct framing *framing, struct weir_err *err)
{
    for (;;) {
        const char *end = reply->head.size == 0
                              ? NULL
                              : memmem(reply->head.data, reply->head.size, "\r\n\r\n", 4);
        if (end == NULL) {
            size_t got = 0;
            const enum weir_status status =
                client_receive(client, &reply->head, HEAD_BYTES_MAX / 2, &got, err);
            if (status != WEIR_OK) {
                return status;
            }
            if (got == 0) {
                return cut_off(client, err);
            }
            continue;
        }
        *size = (size_t)(end - reply->head.data) + 4;
        *framing = (struct framing){ 0 };
        if (!read_head(reply, *size, framing)) {
            return bad_answer(client, "its answer has no status line", err);
        }
        if (reply->status >= 200) {
            return WEIR_OK;
        }
        reply->head.size -= *size;
        memmove(reply->head.data, reply->head.data + *size, reply->head.size);
    }
}

/* Makes sure that at least `size` bytes are in `into`. */
static enum weir_status receive_until(const struct client *client, struct buffer *into, size_t size,
                                      struct weir_err *err)
{
    while (into->size < size) {
        size_t got = 0;
        const enum weir_status status = client_receive(client, into, size - into->size, &got, err);
        if (status != WEIR_OK) {
            return status;
        }
        if (got == 0) {
            return cut_off(client, err);
        }
    }
    return WEIR_OK;
}

/* The end of the line that begins at `from`, received if need be; SIZE_MAX on failure. */
static enum weir_status receive_line(const struct client *client, struct buffer *in, size_t from,
                                     size_t *end, struct weir_err *err)
{
    for (size_t size = from;; size = in->size + 1) {
        const enum weir_status status = receive_until(client, in, size, err);
        if (status != WEIR_OK) {
            return status;
        }
        const char *line = in->size > from ? memchr(in->data + from, '\n', in->size - from) : NULL;
        if (line != NULL) {
            *end = (size_t)(line - in->data);
            return WEIR_OK;
        }
    }
}

/* "1a3;name=value" */
static bool chunk_size(const char *text, size_t size, size_t *out)
{
    size_t value = 0;
    size_t digits = 0;
    for (; digits < size; digits++) {
        const char c = text[digits];
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) {
            break;
        }
        value = value * 16 + (size_t)digit;
        if (value > BODY_BYTES_MAX) {
            return false;
        }
    }
    *out = value;
    return digits > 0;
}

/* Takes the chunks in `in` apart into reply->content. */
static enum weir_status receive_chunks(const struct client *client, struct buffer *in,
                                       struct client_reply *reply, struct weir_err *err)
{
    for (size_t at = 0;;) {
        size_t end = 0;
        size_t size = 0;
        enum weir_status status = receive_line(client, in, at, &end, err);
        if (status != WEIR_OK) {
            return status;
        }
        if (!chunk_size(in->data + at, end - at, &size)) {
            return bad_answer(client, "a chunk without size", err);
        }
        at = end + 1;
        if (size == 0) {
            break;
        }
        status = receive_until(client, in, at + size + 2, err);
        if (status != WEIR_OK) {
            return status;
        }
        buffer_append(&reply->content, in->data + at, size);
        at += size + 2;
    }
    return reply->content.failed ? err_nomem(err, "an answer", reply->content.size) : WEIR_OK;
}

static enum weir_status receive_rest(const struct client *client, struct buffer *into,
                                     struct weir_err *err)
{
    size_t got = 1;
    enum weir_status status = WEIR_OK;
    while (got > 0 && status == WEIR_OK) {
        status = client_receive(client, into, READ_BYTES, &got, err);
    }
    return status;
}

static enum weir_status receive_body(const struct client *client, struct client_reply *reply,
                                     size_t head_size, struct framing *framing,
                                     struct weir_err *err)
{
    struct bytes early = { reply->head.data + head_size, reply->head.size - head_size };
    if (reply->status == 204 || reply->status == 304) {
        return WEIR_OK;
    }
    if (!framing->chunked) {
        buffer_append(&reply->content, early.data, early.size);
        if (framing->sized) {
            return receive_until(client, &reply->content, (size_t)framing->size, err);
        }
        framing->close = true;
        return receive_rest(client, &reply->content, err);
    }
    struct buffer in;
    buffer_init(&in, BODY_BYTES_MAX);
    buffer_append(&in, early.data, early.size);
    const enum weir_status status = receive_chunks(client, &in, reply, err);
    buffer_finish(&in);
    return status;
}

static enum weir_status call_once(struct client *client, const struct client_request *request,
                                  struct client_reply *reply, struct weir_err *err)
{
    enum weir_status status = client->fd >= 0 ? WEIR_OK : client_dial(client, err);
    if (status == WEIR_OK) {
        status = send_request(client, request, err);
    }
    size_t head_size = 0;
    struct framing framing = { 0 };
    if (status == WEIR_OK || status == WEIR_EIO) {
        /* A server that refuses early may answer and close before it has read everything. */
        struct weir_err sending = { 0 };
        const enum weir_status head = client->fd < 0
                                          ? status
                                          : receive_head(client, reply, &head_size, &framing,
                                                         status == WEIR_OK ? err : &sending);
        status = head == WEIR_OK ? WEIR_OK : status == WEIR_OK ? head : status;
    }
    if (status == WEIR_OK) {
        status = receive_body(client, reply, head_size, &framing, err);
    }
    if (status != WEIR_OK || framing.close) {
        hang_up(client);
    }
    reply->body = (struct bytes){ reply->content.data, reply->content.size };
    return status;
}

static void reply_init(struct client_reply *reply)
{
    *reply = (struct client_reply){ .json_size = SIZE_MAX };
    buffer_init(&reply->head, HEAD_BYTES_MAX);
    buffer_init(&reply->content, BODY_BYTES_MAX);
}

enum weir_status client_call(struct client *client, const struct client_request *request,
                             struct client_reply *reply, struct weir_err *err)
{
    const bool kept = client->fd >= 0;
    reply_init(reply);
    enum weir_status status = call_once(client, request, reply, err);
    if (status == WEIR_EIO && kept && reply->head.size == 0) {
        client_reply_finish(reply);
        reply_init(reply);
        status = call_once(client, request, reply, err);
    }
    return status;
}

void client_reply_finish(struct client_reply *reply)
{
    buffer_finish(&reply->head);
    buffer_finish(&reply->content);
    *reply = (struct client_reply){ 0 };
}

enum weir_status client_refusal(const struct client_reply *reply, struct weir_err *err)
{
    yyjson_doc *doc = NULL;
    const char *why = NULL;
    if (json_read(reply->body, &doc, NULL) == WEIR_OK) {
        why = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "error"));
    }
    const enum weir_status status =
        why != NULL ? err_set(err, WEIR_EIO, "the server answers %d: %s", reply->status, why)
                    : err_set(err, WEIR_EIO, "the server answers %d%s", reply->status,
                              reply->status == 404 ? ": it may be no KServe v2 server" : "");
    yyjson_doc_free(doc);
    return status;
}
