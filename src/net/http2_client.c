/*
 * nghttp2 keeps the connection; this keeps one request and its answer.  Windows are
 * wide: a tensor of megabytes should not wait for a round trip every 64 KiB.
 */
#include "net/http2_client.h"

#include <assert.h>
#include <nghttp2/nghttp2.h>

#include "util/mem.h"

#define WINDOW_BYTES (16 << 20)
#define FIELDS_BYTES_MAX 65536

/* ":method", ":scheme", ":path" and ":authority". */
#define PSEUDO_FIELDS 4

struct http2_client {
    nghttp2_session *session;
    int32_t stream; /* Of the request; 0: none yet. */
    size_t piece;   /* The one being sent, */
    size_t at;      /* and how far. */
    bool done;
    bool answered;
    bool no_room; /* For the answer. */
    bool goaway;  /* The server takes no more requests here. */
    uint32_t reset_code;
    struct buffer fields; /* "name\0value\0" after each other. */
    struct buffer body;
};

static ssize_t read_pieces(nghttp2_session *session, int32_t stream, uint8_t *to, size_t size,
                           uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct http2_client *client = user;
    const struct http2_client_request *request = source->ptr;
    size_t filled = 0;
    (void)session;
    (void)stream;
    while (client->piece < request->piece_count && filled < size) {
        const struct bytes piece = request->pieces[client->piece];
        const size_t left = piece.size - client->at;
        const size_t here = left < size - filled ? left : size - filled;
        if (here > 0) {
            memcpy(to + filled, piece.data + client->at, here);
        }
        filled += here;
        client->at += here;
        if (client->at == piece.size) {
            client->piece++;
            client->at = 0;
        }
    }
    *flags = client->piece == request->piece_count ? NGHTTP2_DATA_FLAG_EOF : 0;
    return (ssize_t)filled;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *user)
{
    struct http2_client *client = user;
    (void)session;
    (void)flags;
    if (frame->hd.stream_id == client->stream) {
        client->answered = true;
        buffer_append(&client->fields, name, name_size);
        buffer_char(&client->fields, '\0');
        buffer_append(&client->fields, value, value_size);
        buffer_char(&client->fields, '\0');
        client->no_room = client->no_room || client->fields.failed;
    }
    return client->no_room ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t size, void *user)
{
    struct http2_client *client = user;
    (void)session;
    (void)flags;
    if (stream == client->stream) {
        buffer_append(&client->body, data, size);
        client->no_room = client->no_room || client->body.failed;
    }
    return client->no_room ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct http2_client *client = user;
    (void)session;
    client->goaway = client->goaway || frame->hd.type == NGHTTP2_GOAWAY;
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user)
{
    struct http2_client *client = user;
    (void)session;
    if (stream == client->stream) {
        client->done = true;
        client->reset_code = code;
    }
    return 0;
}

static nghttp2_session *make_session(struct http2_client *client)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_session *session = NULL;
    if (nghttp2_session_callbacks_new(&callbacks) != 0) {
        return NULL;
    }
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    const int failed = nghttp2_session_client_new(&session, callbacks, client);
    nghttp2_session_callbacks_del(callbacks);
    return failed == 0 ? session : NULL;
}

struct http2_client *http2_client_create(size_t body_bytes_max)
{
    struct http2_client *client = mem_try_zero(1, sizeof *client);
    if (client == NULL) {
        return NULL;
    }
    buffer_init(&client->fields, FIELDS_BYTES_MAX);
    buffer_init(&client->body, body_bytes_max);
    client->done = true;
    client->session = make_session(client);
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES },
    };
    if (client->session == NULL ||
        nghttp2_submit_settings(client->session, NGHTTP2_FLAG_NONE, settings, 2) != 0 ||
        nghttp2_session_set_local_window_size(client->session, NGHTTP2_FLAG_NONE, 0,
                                              WINDOW_BYTES) != 0) {
        http2_client_destroy(client);
        return NULL;
    }
    return client;
}

void http2_client_destroy(struct http2_client *client)
{
    if (client == NULL) {
        return;
    }
    nghttp2_session_del(client->session);
    buffer_finish(&client->fields);
    buffer_finish(&client->body);
    mem_free(client);
}

static nghttp2_nv field_of(struct bytes name, struct bytes value)
{
    return (nghttp2_nv){
        .name = (uint8_t *)(uintptr_t)name.data, /* nghttp2 copies. */
        .value = (uint8_t *)(uintptr_t)value.data,
        .namelen = name.size,
        .valuelen = value.size,
        .flags = NGHTTP2_NV_FLAG_NONE,
    };
}

enum weir_status http2_client_begin(struct http2_client *client,
                                    const struct http2_client_request *request,
                                    struct weir_err *err)
{
    assert(client->done && request->field_count <= HTTP2_CLIENT_FIELDS_MAX);
    nghttp2_nv fields[PSEUDO_FIELDS + HTTP2_CLIENT_FIELDS_MAX] = {
        field_of(BYTES_LITERAL(":method"), BYTES_LITERAL("POST")),
        field_of(BYTES_LITERAL(":scheme"), bytes_of(request->secure ? "https" : "http")),
        field_of(BYTES_LITERAL(":path"), request->path),
        field_of(BYTES_LITERAL(":authority"), request->authority),
    };
    for (size_t i = 0; i < request->field_count; i++) {
        fields[PSEUDO_FIELDS + i] = field_of(request->fields[i].name, request->fields[i].value);
    }
    if (client->goaway) {
        return err_set(err, WEIR_EIO, "the server takes no more requests on this connection");
    }
    const nghttp2_data_provider provider = {
        .source = { .ptr = (void *)(uintptr_t)request },
        .read_callback = read_pieces,
    };
    client->piece = 0;
    client->at = 0;
    client->done = false;
    client->answered = false;
    client->reset_code = 0;
    buffer_clear(&client->fields);
    buffer_clear(&client->body);
    const int32_t stream = nghttp2_submit_request(
        client->session, NULL, fields, PSEUDO_FIELDS + request->field_count, &provider, NULL);
    client->stream = stream;
    if (stream < 0) {
        client->done = true;
        client->stream = 0;
        return err_set(err, stream == NGHTTP2_ERR_NOMEM ? WEIR_ENOMEM : WEIR_EIO,
                       "cannot make a request: %s", nghttp2_strerror(stream));
    }
    return WEIR_OK;
}

enum weir_status http2_client_output(struct http2_client *client, struct bytes *out,
                                     struct weir_err *err)
{
    const uint8_t *data;
    const ssize_t size = nghttp2_session_mem_send(client->session, &data);
    if (size < 0) {
        return err_set(err, WEIR_ENOMEM, "HTTP/2: %s", nghttp2_strerror((int)size));
    }
    *out = (struct bytes){ (const char *)data, (size_t)size };
    return WEIR_OK;
}

enum weir_status http2_client_input(struct http2_client *client, struct bytes bytes,
                                    struct weir_err *err)
{
    const ssize_t used =
        nghttp2_session_mem_recv(client->session, (const uint8_t *)bytes.data, bytes.size);
    if (client->no_room && !client->fields.full && !client->body.full) {
        return err_nomem(err, "an answer", client->body.size);
    }
    if (client->no_room) {
        return err_set(err, WEIR_ETOOBIG, "an answer of more than %zu bytes",
                       client->body.size_max);
    }
    if (used < 0) {
        return err_set(err, used == NGHTTP2_ERR_NOMEM ? WEIR_ENOMEM : WEIR_EIO,
                       "not an HTTP/2 server: %s", nghttp2_strerror((int)used));
    }
    if (!client->done && nghttp2_session_want_read(client->session) == 0 &&
        nghttp2_session_want_write(client->session) == 0) {
        return err_set(err, WEIR_EIO, "the server gave the connection up");
    }
    return WEIR_OK;
}

bool http2_client_is_done(const struct http2_client *client)
{
    return client->done;
}

bool http2_client_is_answered(const struct http2_client *client)
{
    return client->answered;
}

uint32_t http2_client_reset_code(const struct http2_client *client)
{
    return client->reset_code;
}

struct bytes http2_client_field(const struct http2_client *client, const char *name)
{
    struct bytes found = { NULL, 0 };
    const char *end = client->fields.data + client->fields.size;
    for (const char *at = client->fields.data; at != NULL && at < end;) {
        const char *value = at + strlen(at) + 1;
        if (strcmp(at, name) == 0) {
            found = bytes_of(value);
        }
        at = value + strlen(value) + 1;
    }
    return found;
}

struct bytes http2_client_body(const struct http2_client *client)
{
    return (struct bytes){ client->body.data, client->body.size };
}

void http2_client_take_body(struct http2_client *client, struct buffer *out)
{
    *out = client->body;
    buffer_init(&client->body, out->size_max);
}
