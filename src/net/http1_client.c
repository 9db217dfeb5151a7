/*
 * The fast path is a head that lies whole in what was received: it is read where it lies.  Only a
 * head that is cut goes through client->head.  Of the fields three matter, and their first letter
 * tells most others apart at once.
 */
#include "net/http1_client.h"

#include <string.h>

#define STATUS_LINE_MIN 12 /* "HTTP/1.1 200" */

void http1_client_init(struct http1_client *client)
{
    client->status = 0;
    client->close = false;
    client->part = HTTP1_CLIENT_HEAD;
    client->chunked = false;
    client->left = 0;
    client->held = 0;
    client->text_size = 0;
}

bool http1_client_ended(const struct http1_client *client)
{
    return client->part == HTTP1_CLIENT_UNTIL_CLOSE;
}

/* ---- The head -------------------------------------------------------------------------------- */

/* The rest of a line behind "Name:", when the line has that name. */
static bool field_is(struct bytes line, struct bytes name, struct bytes *value)
{
    if (line.size <= name.size || line.data[name.size] != ':' ||
        !bytes_equal_nocase((struct bytes){ line.data, name.size }, name)) {
        return false;
    }
    const char *at = line.data + name.size + 1;
    const char *end = line.data + line.size;
    while (at < end && (*at == ' ' || *at == '\t')) {
        at++;
    }
    while (end > at && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }
    *value = (struct bytes){ at, (size_t)(end - at) };
    return true;
}

static bool read_field(struct http1_client *client, struct bytes line)
{
    struct bytes value;
    const char first = (char)(line.data[0] | 0x20);
    if (first == 'c' && field_is(line, BYTES_LITERAL("content-length"), &value)) {
        client->part = HTTP1_CLIENT_BODY;
        return bytes_to_u64(value, INT64_MAX, &client->left);
    }
    if (first == 'c' && field_is(line, BYTES_LITERAL("connection"), &value)) {
        client->close = bytes_equal_nocase(value, BYTES_LITERAL("close"));
    } else if (first == 't' && field_is(line, BYTES_LITERAL("transfer-encoding"), &value)) {
        client->chunked = bytes_equal_nocase(value, BYTES_LITERAL("chunked"));
    }
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool read_status(struct http1_client *client, struct bytes line)
{
    const char *code = line.data + 9;
    if (line.size < STATUS_LINE_MIN || memcmp(line.data, "HTTP/1.", 7) != 0 || !is_digit(code[0]) ||
        !is_digit(code[1]) || !is_digit(code[2])) {
        return false;
    }
    client->status = (uint16_t)((code[0] - '0') * 100 + (code[1] - '0') * 10 + (code[2] - '0'));
    client->close = line.data[7] == '0';
    client->chunked = false;
    client->text_size = 0;
    client->left = 0;
    client->part = HTTP1_CLIENT_UNTIL_CLOSE; /* Until a field says where it ends. */
    return true;
}

/* `head` without its last empty line. */
static bool read_head(struct http1_client *client, struct bytes head)
{
    bool first = true;
    while (head.size > 0) {
        const char *end = memchr(head.data, '\n', head.size);
        const size_t whole = end == NULL ? head.size : (size_t)(end - head.data) + 1;
        struct bytes line = { head.data, end == NULL ? head.size : whole - 1 };
        line.size -= line.size > 0 && line.data[line.size - 1] == '\r';
        if (first ? !read_status(client, line) : line.size > 0 && !read_field(client, line)) {
            return false;
        }
        first = false;
        head.data += whole;
        head.size -= whole;
    }
    if (client->chunked) {
        client->part = HTTP1_CLIENT_CHUNK_SIZE;
    } else if (client->status == 204 || client->status == 304) {
        client->part = HTTP1_CLIENT_BODY;
        client->left = 0;
    }
    return !first;
}

/* Finds the whole head, here or behind what is held.  False: it goes on. */
static bool find_head(struct http1_client *client, struct bytes *in, struct bytes *head,
                      bool *broken)
{
    if (client->held == 0) {
        const char *end = memmem(in->data, in->size, "\r\n\r\n", 4);
        if (end != NULL) {
            *head = (struct bytes){ in->data, (size_t)(end - in->data) + 2 };
            in->data += head->size + 2;
            in->size -= head->size + 2;
            return true;
        }
    }
    const size_t room = HTTP1_CLIENT_HEAD_MAX - client->held;
    const size_t taken = in->size < room ? in->size : room;
    const size_t from = client->held < 3 ? 0 : client->held - 3;
    memcpy(client->head + client->held, in->data, taken);
    const char *end = memmem(client->head + from, client->held + taken - from, "\r\n\r\n", 4);
    if (end == NULL) {
        client->held += (uint32_t)taken;
        in->data += taken;
        in->size -= taken;
        *broken = client->held == HTTP1_CLIENT_HEAD_MAX;
        return false;
    }
    const size_t used = (size_t)(end - client->head) + 4 - client->held;
    *head = (struct bytes){ client->head, (size_t)(end - client->head) + 2 };
    in->data += used;
    in->size -= used;
    client->held = 0;
    return true;
}

/* ---- The body -------------------------------------------------------------------------------- */

static void keep_text(struct http1_client *client, struct bytes bytes)
{
    if (client->status >= 200 && client->status < 300) {
        return;
    }
    const size_t room = HTTP1_CLIENT_TEXT_MAX - client->text_size;
    const size_t taken = bytes.size < room ? bytes.size : room;
    memcpy(client->text + client->text_size, bytes.data, taken);
    client->text_size += (uint32_t)taken;
}

/* Passes over at most `left` bytes; true when none is left. */
static bool pass(struct http1_client *client, struct bytes *in)
{
    const size_t taken = in->size < client->left ? in->size : (size_t)client->left;
    keep_text(client, (struct bytes){ in->data, taken });
    in->data += taken;
    in->size -= taken;
    client->left -= taken;
    return client->left == 0;
}

/* A line between chunks, in client->head.  False: it goes on, or is too long. */
static bool find_line(struct http1_client *client, struct bytes *in, bool *broken)
{
    while (in->size > 0) {
        const char c = *in->data;
        in->data++;
        in->size--;
        if (c == '\n') {
            client->held -= client->held > 0 && client->head[client->held - 1] == '\r';
            return true;
        }
        if (client->held == HTTP1_CLIENT_HEAD_MAX) {
            *broken = true;
            return false;
        }
        client->head[client->held++] = c;
    }
    return false;
}

static int hex(char c)
{
    return is_digit(c)            ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The line in client->head as a chunk's size, with its end of line; 0 leads to the trailer. */
static bool read_chunk_size(struct http1_client *client)
{
    uint64_t size = 0;
    uint32_t digits = 0;
    while (digits < client->held && hex(client->head[digits]) >= 0) {
        size = size << 4 | (uint64_t)hex(client->head[digits]);
        digits++;
    }
    client->held = 0;
    if (digits == 0 || digits > 12) {
        return false;
    }
    client->part = size == 0 ? HTTP1_CLIENT_TRAILER : HTTP1_CLIENT_CHUNK;
    client->left = size + 2;
    return true;
}

/* One step through a chunked body; true when it is through. */
static bool read_chunks(struct http1_client *client, struct bytes *in, bool *broken)
{
    if (client->part == HTTP1_CLIENT_CHUNK) {
        if (pass(client, in)) {
            client->part = HTTP1_CLIENT_CHUNK_SIZE;
        }
        return false;
    }
    if (!find_line(client, in, broken)) {
        return false;
    }
    if (client->part == HTTP1_CLIENT_CHUNK_SIZE) {
        *broken = !read_chunk_size(client);
        return false;
    }
    const bool last = client->held == 0;
    client->held = 0;
    return last;
}

/* Reads on in a body; true when it is through. */
static bool read_body(struct http1_client *client, struct bytes *in, bool *broken)
{
    if (client->part == HTTP1_CLIENT_BODY) {
        return pass(client, in);
    }
    if (client->part == HTTP1_CLIENT_UNTIL_CLOSE) {
        client->left = UINT64_MAX;
        return pass(client, in);
    }
    return read_chunks(client, in, broken);
}

static bool is_interim(const struct http1_client *client)
{
    return client->status >= 100 && client->status < 200;
}

enum http1_client_step http1_client_input(struct http1_client *client, struct bytes *in)
{
    bool broken = false;
    for (;;) {
        if (client->part == HTTP1_CLIENT_HEAD) {
            struct bytes head;
            if (!find_head(client, in, &head, &broken)) {
                return broken ? HTTP1_CLIENT_BROKEN : HTTP1_CLIENT_MORE;
            }
            if (!read_head(client, head)) {
                return HTTP1_CLIENT_BROKEN;
            }
            if (is_interim(client)) {
                client->part = HTTP1_CLIENT_HEAD;
                continue;
            }
        }
        if (read_body(client, in, &broken)) {
            client->part = HTTP1_CLIENT_HEAD;
            return HTTP1_CLIENT_ANSWER;
        }
        if (broken || in->size == 0) {
            return broken ? HTTP1_CLIENT_BROKEN : HTTP1_CLIENT_MORE;
        }
    }
}
