/*
 * A line is made of whole pieces: a key with its value either fits or is left
 * out, and a text that is too long is cut at a character and ends in "...".
 * A few bytes are kept back for the end, which says `cut` when something is
 * missing; so a JSON line stays valid JSON however much it was given.
 */
#include "util/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "util/bytes.h"

#define LINE_BYTES 4096
#define END_BYTES 16       /* Room for `,"cut":true}` and the newline. */
#define VALUE_BYTES 1024   /* One text, escaped; so that it leaves room for the others. */
#define PIECE_BYTES_MAX 12 /* The longest escape or UTF-8 character. */

struct line {
    char data[LINE_BYTES];
    size_t size;
    bool json;
    bool cut;
};

static const char *const level_texts[] = {
#define LOG_LEVEL_TEXT(name, text) text,
    LOG_LEVELS(LOG_LEVEL_TEXT)
#undef LOG_LEVEL_TEXT
};

static _Atomic int level_now = LOG_INFO;
static _Atomic bool json_now;
static _Atomic bool wipe_now;

void log_setup(bool json)
{
    atomic_store_explicit(&json_now, json, memory_order_relaxed);
}

bool log_is_json(void)
{
    return atomic_load_explicit(&json_now, memory_order_relaxed);
}

void log_wipe_line(bool wipe)
{
    atomic_store_explicit(&wipe_now, wipe, memory_order_relaxed);
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&level_now, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
    return (enum log_level)atomic_load_explicit(&level_now, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return level <= log_get_level();
}

static size_t room(const struct line *line)
{
    return LINE_BYTES - END_BYTES - line->size;
}

/* All or nothing. */
static bool put(struct line *line, const char *data, size_t size)
{
    if (size > room(line)) {
        line->cut = true;
        return false;
    }
    memcpy(line->data + line->size, data, size);
    line->size += size;
    return true;
}

static bool put_text(struct line *line, const char *text)
{
    return put(line, text, strlen(text));
}

static const char *short_escape(unsigned char c)
{
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    default:
        return NULL;
    }
}

/* Writes how the character at the start of `text` is shown and returns how many bytes it had.  All
 * that could end a line, move a cursor or break the quotes is escaped. */
static size_t escape(struct bytes text, char out[PIECE_BYTES_MAX], size_t *out_size)
{
    const size_t size = bytes_utf8_size(text);
    const unsigned char c = (unsigned char)text.data[0];
    const bool c1 = size == 2 && c == 0xC2 && (unsigned char)text.data[1] < 0xA0;
    const char *known = size == 0 ? "\\ufffd" : short_escape(c);
    int written;
    if (known != NULL) {
        written = snprintf(out, PIECE_BYTES_MAX, "%s", known);
    } else if (c < 0x20 || c == 0x7F || c1) {
        const unsigned code = c1 ? (unsigned char)text.data[1] : c;
        written = snprintf(out, PIECE_BYTES_MAX, "\\u%04x", code);
    } else {
        memcpy(out, text.data, size);
        written = (int)size;
    }
    *out_size = (size_t)written;
    return size == 0 ? 1 : size;
}

/* Escaped and cut; `after` bytes of the line are left free. */
static void put_escaped(struct line *line, const char *text, size_t after)
{
    static const char ellipsis[] = "...";
    const size_t free_bytes = room(line) > after ? room(line) - after : 0;
    const size_t bytes_max = free_bytes < VALUE_BYTES ? free_bytes : VALUE_BYTES;
    const size_t start = line->size;
    size_t whole = start; /* Where the text may end so that the ellipsis still fits. */
    struct bytes left = bytes_of(text);
    while (left.size > 0) {
        char piece[PIECE_BYTES_MAX];
        size_t piece_size;
        const size_t taken = escape(left, piece, &piece_size);
        if (line->size - start + piece_size > bytes_max) {
            line->size = whole;
            (void)put(line, ellipsis, bytes_max < 3 ? bytes_max : 3);
            line->cut = true;
            return;
        }
        (void)put(line, piece, piece_size);
        left.data += taken;
        left.size -= taken;
        if (line->size - start + 3 <= bytes_max) {
            whole = line->size;
        }
    }
}

/* Text form: what a reader splitting at spaces and '=' would misread is quoted. */
static bool needs_quotes(const char *text)
{
    if (text[0] == '\0') {
        return true;
    }
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c <= ' ' || c >= 0x7F || c == '"' || c == '=' || c == '\\') {
            return true;
        }
    }
    return false;
}

static bool put_value_text(struct line *line, const char *text)
{
    if (text == NULL) {
        return put_text(line, "null");
    }
    if (!line->json && !needs_quotes(text)) {
        put_escaped(line, text, 0);
        return true;
    }
    if (!put_text(line, "\"")) {
        return false;
    }
    put_escaped(line, text, 1);
    return put_text(line, "\"");
}

static bool put_value(struct line *line, const struct log_field *field)
{
    char text[48];
    switch (field->kind) {
    case LOG_KIND_STR:
        return put_value_text(line, field->text);
    case LOG_KIND_I64:
        (void)snprintf(text, sizeof(text), "%" PRId64, (int64_t)field->number);
        break;
    case LOG_KIND_MS:
        (void)snprintf(text, sizeof(text), "%" PRIu64 ".%03" PRIu64, field->number / 1000000,
                       field->number / 1000 % 1000);
        break;
    case LOG_KIND_BYTES:
        if (!line->json) {
            return put_value_text(line, bytes_format_size(field->number, text));
        }
        (void)snprintf(text, sizeof(text), "%" PRIu64, field->number);
        break;
    case LOG_KIND_U64:
    case LOG_KIND_END:
        (void)snprintf(text, sizeof(text), "%" PRIu64, field->number);
        break;
    }
    return put_text(line, text);
}

/* A key and its value, or neither. */
static void put_field(struct line *line, const struct log_field *field)
{
    const size_t before = line->size;
    const bool whole = put_text(line, line->json ? ",\"" : " ") && put_text(line, field->key) &&
                       put_text(line, line->json ? "\":" : "=") && put_value(line, field);
    if (!whole) {
        line->size = before;
        line->cut = true;
    }
}

static void put_head(struct line *line, enum log_level level, const char *message)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    (void)gmtime_r(&now.tv_sec, &utc);
    char time[32];
    const size_t size = strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(time + size, sizeof(time) - size, ".%03dZ", (int)(now.tv_nsec / 1000000));
    char head[96];
    (void)snprintf(head, sizeof(head),
                   line->json ? "{\"time\":\"%s\",\"level\":\"%s\",\"message\":\"" : "%s %-7s ",
                   time, level_texts[level]);
    (void)put_text(line, head);
    put_escaped(line, message, 1);
    (void)put_text(line, line->json ? "\"" : "");
}

static void put_end(struct line *line)
{
    char *end = line->data + line->size;
    if (line->cut) {
        end = stpcpy(end, line->json ? ",\"cut\":true" : " cut=true");
    }
    if (line->json) {
        *end++ = '}';
    }
    *end++ = '\n';
    line->size = (size_t)(end - line->data);
}

void log_fields(enum log_level level, const char *message, const struct log_field *fields)
{
    struct line line;
    line.size = 0;
    line.json = atomic_load_explicit(&json_now, memory_order_relaxed);
    line.cut = false;
    if (atomic_load_explicit(&wipe_now, memory_order_relaxed)) {
        (void)put_text(&line, "\r\x1b[K");
    }
    put_head(&line, level, message);
    for (; fields->kind != LOG_KIND_END; fields++) {
        put_field(&line, fields);
    }
    put_end(&line);
    /* A log that cannot be written must not stop the server: other errors are ignored. */
    while (write(STDERR_FILENO, line.data, line.size) < 0 && errno == EINTR) {
    }
}
