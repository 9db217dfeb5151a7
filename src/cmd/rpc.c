#include "cmd/rpc.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "net/http2_client.h"
#include "util/clock.h"

#define BODY_BYTES_MAX ((size_t)2 << 30)
#define READ_BYTES ((size_t)64 << 10)
#define PREFIX_BYTES 5 /* Compressed or not, and the message's size. */
#define MESSAGE_BYTES_MAX INT32_MAX

/* gRPC's own names of its codes, for people who look them up. */
static const char *const code_names[] = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

#define CODE_COUNT (sizeof code_names / sizeof code_names[0])

const char *rpc_code_name(uint64_t code)
{
    return code < CODE_COUNT ? code_names[code] : "a code that gRPC has not";
}

void rpc_init(struct rpc *rpc, struct client *client)
{
    *rpc = (struct rpc){ .client = client };
}

static void hang_up(struct rpc *rpc)
{
    http2_client_destroy(rpc->http2);
    rpc->http2 = NULL;
    client_finish(rpc->client);
}

void rpc_finish(struct rpc *rpc)
{
    http2_client_destroy(rpc->http2);
    rpc->http2 = NULL;
}

void rpc_reply_finish(struct rpc_reply *reply)
{
    buffer_finish(&reply->content);
    *reply = (struct rpc_reply){ 0 };
}

static enum weir_status connect_once(struct rpc *rpc, struct weir_err *err)
{
    if (rpc->http2 != NULL) {
        return WEIR_OK;
    }
    rpc->client->http2 = true;
    const enum weir_status status = client_dial(rpc->client, err);
    if (status != WEIR_OK) {
        return status;
    }
    rpc->http2 = http2_client_create(BODY_BYTES_MAX);
    return rpc->http2 == NULL ? err_nomem(err, "a connection", 0) : WEIR_OK;
}

static enum weir_status send_output(struct rpc *rpc, struct weir_err *err)
{
    for (;;) {
        struct bytes out;
        enum weir_status status = http2_client_output(rpc->http2, &out, err);
        if (status != WEIR_OK || out.size == 0) {
            return status;
        }
        status = client_send(rpc->client, out, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
}

/* Sends and receives until the request is done. */
static enum weir_status converse(struct rpc *rpc, struct buffer *in, struct weir_err *err)
{
    const struct client *client = rpc->client;
    while (!http2_client_is_done(rpc->http2)) {
        size_t got = 0;
        enum weir_status status = send_output(rpc, err);
        if (status == WEIR_OK) {
            buffer_clear(in);
            status = client_receive(client, in, READ_BYTES, &got, err);
        }
        if (status == WEIR_OK && got == 0) {
            const bool silent = !client->secure && !http2_client_is_answered(rpc->http2);
            return err_set(
                err, WEIR_EIO, "%s:%s: the server closed the connection before its answer ended%s",
                client->host, client->port, silent ? "; if it speaks TLS, say grpcs://" : "");
        }
        if (status == WEIR_OK) {
            status = http2_client_input(rpc->http2, (struct bytes){ in->data, in->size }, err);
            if (status == WEIR_EIO) {
                (void)err_prefix(err, "%s:%s", client->host, client->port);
            }
        }
        if (status != WEIR_OK) {
            return status;
        }
    }
    return send_output(rpc, err); /* Acknowledgements, so that the server sees us leave in order. */
}

static enum weir_status attempt(struct rpc *rpc, const struct http2_client_request *request,
                                bool *again, struct weir_err *err)
{
    const bool fresh = rpc->http2 == NULL;
    struct buffer in;
    buffer_init(&in, READ_BYTES);
    *again = false;
    enum weir_status status = connect_once(rpc, err);
    if (status == WEIR_OK) {
        status = http2_client_begin(rpc->http2, request, err);
    }
    if (status == WEIR_OK) {
        status = converse(rpc, &in, err);
    }
    if (status != WEIR_OK) {
        *again = !fresh && status == WEIR_EIO &&
                 (rpc->http2 == NULL || !http2_client_is_answered(rpc->http2));
        hang_up(rpc);
    }
    buffer_finish(&in);
    return status;
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

void rpc_decode_message(struct bytes text, char *out, size_t size_max)
{
    size_t size = 0;
    for (size_t i = 0; i < text.size && size + 1 < size_max; i++) {
        char c = text.data[i];
        if (c == '%' && text.size - i > 2 && hex(text.data[i + 1]) >= 0 &&
            hex(text.data[i + 2]) >= 0) {
            c = (char)(hex(text.data[i + 1]) * 16 + hex(text.data[i + 2]));
            i += 2;
        }
        out[size++] = c;
    }
    out[size] = '\0';
}

/* Without the HTTP status that is behind it a refusal would have no meaning for this program. */
static enum weir_status refused(uint64_t code, struct bytes message, struct weir_err *err)
{
    char text[400];
    rpc_decode_message(message, text, sizeof text);
    return err_set(err, code == 4 ? WEIR_ETIMEOUT : WEIR_EIO,
                   "the server answers %s (%" PRIu64 ")%s%s", rpc_code_name(code), code,
                   text[0] == '\0' ? "" : ": ", text);
}

static enum weir_status check_status(const struct rpc *rpc, struct weir_err *err)
{
    const struct bytes http = http2_client_field(rpc->http2, ":status");
    const struct bytes grpc = http2_client_field(rpc->http2, "grpc-status");
    uint64_t code;
    if (grpc.data != NULL && bytes_to_u64(grpc, INT32_MAX, &code)) {
        return code == 0 ? WEIR_OK
                         : refused(code, http2_client_field(rpc->http2, "grpc-message"), err);
    }
    if (http.data != NULL && !bytes_equal(http, BYTES_LITERAL("200"))) {
        return err_set(err, WEIR_EIO, "the server answers HTTP %.*s: it may be no gRPC server",
                       (int)http.size, http.data);
    }
    return err_set(err, WEIR_EIO,
                   "the server's answer has no grpc-status (its stream ended with code %" PRIu32
                   "): it may be no gRPC server",
                   http2_client_reset_code(rpc->http2));
}

/* The one message of an answer. */
static enum weir_status take_message(struct rpc *rpc, struct rpc_reply *reply, struct weir_err *err)
{
    const struct bytes body = http2_client_body(rpc->http2);
    const uint8_t *at = (const uint8_t *)body.data;
    if (body.size < PREFIX_BYTES || at[0] != 0) {
        return err_set(err, WEIR_EIO, "the server's answer makes no sense: %s",
                       body.size < PREFIX_BYTES ? "it has no message"
                                                : "it is compressed, which was not asked for");
    }
    const uint32_t size =
        (uint32_t)at[1] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 8 | (uint32_t)at[4];
    if (size != body.size - PREFIX_BYTES) {
        return err_set(err, WEIR_EIO,
                       "the server's answer makes no sense: a message of %" PRIu32 " bytes in %zu",
                       size, body.size - PREFIX_BYTES);
    }
    http2_client_take_body(rpc->http2, &reply->content);
    reply->message = (struct bytes){ reply->content.data + PREFIX_BYTES, size };
    return WEIR_OK;
}

/* The largest unit that keeps the number within eight digits. */
static void write_timeout(uint64_t ns, char *out, size_t size)
{
    const uint64_t ms = ns / NS_PER_MS;
    if (ms < 100000000) {
        (void)snprintf(out, size, "%" PRIu64 "m", ms == 0 ? 1 : ms);
    } else {
        (void)snprintf(out, size, "%" PRIu64 "S", ns / NS_PER_S % 100000000);
    }
}

enum weir_status rpc_call(struct rpc *rpc, const char *path, const struct bytes *pieces,
                          size_t piece_count, struct rpc_reply *reply, struct weir_err *err)
{
    struct bytes all[CLIENT_PIECES_MAX + 1];
    char timeout[24];
    char authority[sizeof rpc->client->host + sizeof rpc->client->port + 4];
    uint64_t size = 0;
    *reply = (struct rpc_reply){ 0 };
    assert(piece_count <= CLIENT_PIECES_MAX);
    for (size_t i = 0; i < piece_count; i++) {
        all[i + 1] = pieces[i];
        size += pieces[i].size;
    }
    if (size > MESSAGE_BYTES_MAX) {
        return err_set(err, WEIR_ETOOBIG,
                       "the request has %" PRIu64 " bytes, expected at most %d in one gRPC message",
                       size, MESSAGE_BYTES_MAX);
    }
    const uint8_t prefix[PREFIX_BYTES] = { 0, (uint8_t)(size >> 24), (uint8_t)(size >> 16),
                                           (uint8_t)(size >> 8), (uint8_t)size };
    all[0] = (struct bytes){ (const char *)prefix, PREFIX_BYTES };
    write_timeout(rpc->client->timeout_ns, timeout, sizeof timeout);
    const bool tcp = rpc->client->port[0] != '\0';
    const bool bracket = strchr(rpc->client->host, ':') != NULL;
    (void)snprintf(authority, sizeof authority, "%s%s%s%s%s", bracket ? "[" : "",
                   tcp ? rpc->client->host : "localhost", bracket ? "]" : "", tcp ? ":" : "",
                   rpc->client->port);
    struct http2_client_field fields[5] = {
        { BYTES_LITERAL("te"), BYTES_LITERAL("trailers") },
        { BYTES_LITERAL("content-type"), BYTES_LITERAL("application/grpc") },
        { BYTES_LITERAL("user-agent"), BYTES_LITERAL("weir/" WEIR_VERSION) },
    };
    size_t count = 3;
    if (rpc->client->timeout_ns > 0) {
        fields[count++] =
            (struct http2_client_field){ BYTES_LITERAL("grpc-timeout"), bytes_of(timeout) };
    }
    if (client_key()[0] != '\0') {
        fields[count++] =
            (struct http2_client_field){ BYTES_LITERAL("x-api-key"), bytes_of(client_key()) };
    }
    const struct http2_client_request request = {
        .secure = rpc->client->secure,
        .authority = bytes_of(authority),
        .path = bytes_of(path),
        .fields = fields,
        .field_count = count,
        .pieces = all,
        .piece_count = piece_count + 1,
    };
    bool again = false;
    enum weir_status status = attempt(rpc, &request, &again, err);
    if (again) {
        status = attempt(rpc, &request, &again, err);
    }
    if (status == WEIR_OK) {
        status = check_status(rpc, err);
    }
    return status == WEIR_OK ? take_message(rpc, reply, err) : status;
}
