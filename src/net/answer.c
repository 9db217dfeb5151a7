/*
 * The head of an HTTP/1 answer, put together from ready-made lines: formatting each head would cost
 * a tiny request more than everything else here.
 */
#include <stdint.h>
#include <string.h>

#include "net/http1.h"

/* X(code, phrase), most frequent first */
#define STATUS_LINES(X)                       \
    X(200, "OK")                              \
    X(202, "Accepted")                        \
    X(204, "No Content")                      \
    X(304, "Not Modified")                    \
    X(400, "Bad Request")                     \
    X(401, "Unauthorized")                    \
    X(403, "Forbidden")                       \
    X(404, "Not Found")                       \
    X(405, "Method Not Allowed")              \
    X(408, "Request Timeout")                 \
    X(409, "Conflict")                        \
    X(413, "Content Too Large")               \
    X(415, "Unsupported Media Type")          \
    X(422, "Unprocessable Content")           \
    X(429, "Too Many Requests")               \
    X(431, "Request Header Fields Too Large") \
    X(499, "Client Closed Request")           \
    X(500, "Internal Server Error")           \
    X(501, "Not Implemented")                 \
    X(503, "Service Unavailable")             \
    X(504, "Gateway Timeout")                 \
    X(507, "Insufficient Storage")

#define LINE(text)               \
    {                            \
        (text), sizeof(text) - 1 \
    }

static const struct {
    int code;
    struct bytes line;
} status_lines[] = {
#define STATUS_LINE(code, phrase) { (code), LINE("HTTP/1.1 " #code " " phrase "\r\n") },
    STATUS_LINES(STATUS_LINE)
#undef STATUS_LINE
};

/* Any other three-digit status gets a line without a phrase, which RFC 9112 allows. */
static struct bytes status_line(int code, char *spare)
{
    for (size_t i = 0; i < sizeof(status_lines) / sizeof(status_lines[0]); i++) {
        if (status_lines[i].code == code) {
            return status_lines[i].line;
        }
    }
    static const char line[] = "HTTP/1.1 000 \r\n";
    memcpy(spare, line, sizeof(line));
    for (int i = 11; i >= 9; i--) {
        spare[i] = (char)('0' + code % 10);
        code /= 10;
    }
    return (struct bytes){ spare, sizeof(line) - 1 };
}

static char *put(char *at, struct bytes text)
{
    memcpy(at, text.data, text.size);
    return at + text.size;
}

char *answer_put_u64(char *at, uint64_t value)
{
    char digits[ANSWER_DIGITS_MAX];
    size_t i = sizeof(digits);
    do {
        i--;
        digits[i] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    return put(at, (struct bytes){ digits + i, sizeof(digits) - i });
}

static const struct bytes line_type = LINE("Content-Type: ");
static const struct bytes line_length = LINE("Content-Length: ");
static const struct bytes line_chunked = LINE("Transfer-Encoding: chunked\r\n");
static const struct bytes line_close = LINE("Connection: close\r\n");
static const struct bytes line_keep = LINE("Connection: keep-alive\r\n");
static const struct bytes line_date = LINE("Date: ");
static const struct bytes line_colon = LINE(": ");
static const struct bytes line_end = LINE("\r\n");

/* The most that the fixed lines and labels take. */
#define HEAD_BYTES_FIXED 256

bool http1_head(struct arena *arena, const struct http1_answer *answer, struct bytes *out)
{
    const struct bytes type = bytes_of(answer->content_type);
    const struct bytes date = bytes_of(answer->date);
    size_t size = HEAD_BYTES_FIXED + type.size + date.size;
    for (const struct answer_field *f = answer->fields; f != NULL; f = f->next) {
        size += f->name.size + f->value.size + 4;
    }
    char *head = arena_try_aligned(arena, size, 1);
    if (head == NULL) {
        return false;
    }
    char spare[20];
    char *at = put(head, status_line(answer->status, spare));
    if (type.data != NULL) {
        at = put(put(put(at, line_type), type), line_end);
    }
    if (answer->chunked) {
        at = put(at, line_chunked);
    } else if (answer->body_size != HTTP_STREAM && answer->status != 204) {
        at = put(answer_put_u64(put(at, line_length), answer->body_size), line_end);
    }
    if (date.size > 0) {
        at = put(put(put(at, line_date), date), line_end);
    }
    for (const struct answer_field *f = answer->fields; f != NULL; f = f->next) {
        at = put(put(put(put(at, f->name), line_colon), f->value), line_end);
    }
    if (answer->close) {
        at = put(at, line_close);
    } else if (answer->keep_alive_1_0) {
        at = put(at, line_keep);
    }
    at = put(at, line_end);
    *out = (struct bytes){ head, (size_t)(at - head) };
    return true;
}

bool answer_field(struct arena *arena, const char *name, struct bytes value,
                  struct answer_field **out)
{
    const struct bytes label = bytes_of(name);
    size_t size = 0;
    if (__builtin_add_overflow(sizeof(struct answer_field) + label.size, value.size, &size)) {
        return false;
    }
    struct answer_field *field = arena_try_alloc(arena, size);
    if (field == NULL) {
        return false;
    }
    char *text = (char *)(field + 1);
    char *at = put(text, label);
    for (size_t i = 0; i < value.size; i++) {
        const unsigned char c = (unsigned char)value.data[i];
        at[i] = (c < 0x20 && c != '\t') || c == 0x7f ? '?' : value.data[i];
    }
    *field = (struct answer_field){ .name = { text, label.size }, .value = { at, value.size } };
    *out = field;
    return true;
}

bool answer_bodyless(int status)
{
    return status < 200 || status == 204 || status == 304;
}

size_t http1_chunk_head(char *out, uint64_t size, bool first)
{
    char digits[16];
    size_t i = sizeof(digits);
    do {
        i--;
        digits[i] = "0123456789abcdef"[size & 0xf];
        size >>= 4;
    } while (size != 0);
    char *at = first ? out : put(out, line_end);
    at = put(at, (struct bytes){ digits + i, sizeof(digits) - i });
    at = put(at, line_end);
    return (size_t)(at - out);
}
