/*
 * Reading HTTP/1 more strictly than any parser does by default.
 *
 * Requests get smuggled where two readers disagree about where one ends.  So
 * nothing ambiguous passes: the bytes of a header are checked as they arrive (line
 * ends, control bytes, folding), the request line as soon as it is there, and
 * the whole header, once its empty line has come, is given to llhttp without any lenient flag; both
 * must agree on where it ends.  Bodies are framed here: a length is counted down, chunks are
 * read by a machine that knows one spelling of each thing.
 *
 * llhttp has rules of its own for CONNECT, PRI and the methods of RTSP.  None applies
 * here: methods that are not in HTTP_METHODS are shown to it as POST.
 */
#include "net/http1.h"

#include <assert.h>
#include <ctype.h>
#include <endian.h>
#include <string.h>

#include "net/fields.h"
#include "net/target.h"

#define HEAD_BYTES_FIRST 1024 /* Room for a header that arrives in parts. */
#define CHUNK_DIGITS_MAX 16
#define CHUNKS_FREE 4096    /* So many chunks may be tiny; beyond, their mean must reach */
#define CHUNK_BYTES_MEAN 16 /* this, because each costs more to read than its bytes. */

/* The first control byte other than a tab, or `size`.  Eight bytes at a time: of those below 0x20
 * or equal to 0x7f the top bit is set, for certain in the lowest of them. */
static size_t find_control(const char *data, size_t size)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    size_t i = 0;
    uint64_t word;
    while (size - i >= sizeof(word)) {
        memcpy(&word, data + i, sizeof(word));
        word = le64toh(word);
        const uint64_t del = word ^ (ones * 0x7f);
        const uint64_t hits = (((word - ones * 0x20) & ~word) | ((del - ones) & ~del)) & ones << 7;
        if (hits == 0) {
            i += sizeof(word);
            continue;
        }
        i += (size_t)__builtin_ctzll(hits) / 8;
        if (data[i] != '\t') {
            return i;
        }
        i++;
    }
    for (; i < size; i++) {
        const unsigned char c = (unsigned char)data[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return i;
        }
    }
    return size;
}

static enum weir_status bad_byte(struct weir_err *err, const char *where, char c)
{
    if (c == '\n') {
        return err_set(err, WEIR_EINVAL, "%s: line feed without carriage return before it", where);
    }
    return err_set(err, WEIR_EINVAL, "%s: control byte 0x%02x", where, (unsigned)(unsigned char)c);
}

/* Takes one step at data[0] where the place is not inside a line's text; *used is 0 or 1. */
static enum weir_status step_line(struct http1 *r, char c, size_t *used, bool *done,
                                  struct weir_err *err)
{
    *used = 1;
    switch (r->place) {
    case HTTP1_LINE_START:
        if (c == ' ' || c == '\t') {
            return err_set(err, WEIR_EINVAL, "request header: line begins with white space");
        }
        *used = c == '\r';
        r->place = c == '\r' ? HTTP1_BLANK_CR : HTTP1_LINE_TEXT;
        return WEIR_OK;
    case HTTP1_LINE_CR:
        r->line_count++;
        r->place = HTTP1_LINE_START;
        break;
    default:
        assert(r->place == HTTP1_BLANK_CR);
        r->place = HTTP1_LINE_START;
        *done = true;
        break;
    }
    if (c != '\n') {
        return err_set(err, WEIR_EINVAL, "request header: carriage return without line feed");
    }
    return WEIR_OK;
}

/* How many bytes of `in` belong to the header; *done when its empty line is among them. */
static enum weir_status scan_head(struct http1 *r, struct bytes in, size_t *size, bool *done,
                                  struct weir_err *err)
{
    size_t i = 0;
    while (i < in.size && !*done) {
        size_t used = 0;
        if (r->place != HTTP1_LINE_TEXT) {
            const enum weir_status status = step_line(r, in.data[i], &used, done, err);
            if (status != WEIR_OK) {
                return status;
            }
            i += used;
            continue;
        }
        i += find_control(in.data + i, in.size - i);
        if (i < in.size && in.data[i] != '\r') {
            return bad_byte(err, "request header", in.data[i]);
        }
        if (i < in.size) {
            r->place = HTTP1_LINE_CR;
            i++;
        }
    }
    *size = i;
    return WEIR_OK;
}

static enum weir_status keep_head(struct http1 *r, struct arena *arena, struct bytes part,
                                  bool whole, struct weir_err *err)
{
    const size_t size = r->head_size + part.size;
    if (size > r->head_capacity) {
        size_t capacity = size;
        if (!whole) {
            capacity = size < HEAD_BYTES_FIRST ? HEAD_BYTES_FIRST : 2 * size;
        }
        char *head = arena_try_aligned(arena, capacity, 1);
        if (head == NULL) {
            return err_nomem(err, "a request header", capacity);
        }
        if (r->head_size > 0) {
            memcpy(head, r->head, r->head_size);
        }
        r->head = head;
        r->head_capacity = capacity;
    }
    memcpy(r->head + r->head_size, part.data, part.size);
    r->head_size = size;
    return WEIR_OK;
}

static enum weir_status check_head_limits(const struct http1 *r, size_t more, struct weir_err *err)
{
    if (r->head_size + more > r->limits->header_bytes_max) {
        return err_set(err, WEIR_EHEADERS, "request header: more than %llu bytes",
                       (unsigned long long)r->limits->header_bytes_max);
    }
    if (r->line_count > r->limits->header_fields_max + 1) {
        return err_set(err, WEIR_EHEADERS, "request header: more than %llu fields",
                       (unsigned long long)r->limits->header_fields_max);
    }
    return WEIR_OK;
}

/* "METHOD TARGET HTTP/1.x", single spaces, nothing else; the line ends at the first CR. */
static enum weir_status read_request_line(struct http1 *r, struct exchange *x, struct weir_err *err)
{
    const char *end = memchr(r->head, '\r', r->head_size);
    assert(end != NULL);
    const char *space = memchr(r->head, ' ', (size_t)(end - r->head));
    const char *second = NULL;
    if (space != NULL) {
        second = memchr(space + 1, ' ', (size_t)(end - space - 1));
    }
    if (second == NULL || second == space + 1) {
        return err_set(err, WEIR_EINVAL, "request line: expected 'METHOD TARGET HTTP/1.1'");
    }
    const struct bytes method = { r->head, (size_t)(space - r->head) };
    const enum weir_status status = target_method(method, &x->method, err);
    if (status != WEIR_OK) {
        return status;
    }
    const struct bytes version = { second + 1, (size_t)(end - second - 1) };
    const bool v1_0 = bytes_equal(version, BYTES_LITERAL("HTTP/1.0"));
    if (!v1_0 && !bytes_equal(version, BYTES_LITERAL("HTTP/1.1"))) {
        return err_set(err, WEIR_EINVAL,
                       "request line: version '%.*s', expected HTTP/1.1 or HTTP/1.0",
                       (int)(version.size < 16 ? version.size : 16), version.data);
    }
    r->facts.version_1_0 = v1_0;
    x->version = v1_0 ? HTTP_1_0 : HTTP_1_1;
    return target_read(x, (struct bytes){ space + 1, (size_t)(second - space - 1) }, err);
}

static void read_connection(struct http1_facts *facts, struct bytes value)
{
    size_t i = 0;
    while (i < value.size) {
        size_t end = i;
        while (end < value.size && value.data[end] != ',') {
            end++;
        }
        const struct bytes member = fields_trim((struct bytes){ value.data + i, end - i });
        if (bytes_equal_nocase(member, BYTES_LITERAL("close"))) {
            facts->keep_alive = false;
        } else if (facts->version_1_0 && bytes_equal_nocase(member, BYTES_LITERAL("keep-alive"))) {
            facts->keep_alive = true;
        }
        i = end + 1;
    }
}

/* How often the fields appear of which one is the most. */
struct seen {
    uint32_t host;
    uint32_t length;
    uint32_t encoding;
};

static enum weir_status read_field(struct http1_facts *facts, struct seen *seen,
                                   const struct http_field *field, struct weir_err *err)
{
    const struct bytes value = field->value;
    const int shown = (int)(value.size < 64 ? value.size : 64);
    switch (field->name.size) {
    case 4:
        if (bytes_equal_nocase(field->name, BYTES_LITERAL("Host"))) {
            seen->host++;
            if (!target_is_host(value)) {
                return err_set(err, WEIR_EINVAL, "Host '%.*s': expected HOST or HOST:PORT", shown,
                               value.data);
            }
        }
        break;
    case 6:
        if (bytes_equal_nocase(field->name, BYTES_LITERAL("Expect"))) {
            facts->expects_continue = bytes_equal_nocase(value, BYTES_LITERAL("100-continue"));
        }
        break;
    case 10:
        if (bytes_equal_nocase(field->name, BYTES_LITERAL("Connection"))) {
            read_connection(facts, value);
        }
        break;
    case 14:
        if (bytes_equal_nocase(field->name, BYTES_LITERAL("Content-Length"))) {
            seen->length++;
            if (!bytes_to_u64(value, INT64_MAX, &facts->body_size)) {
                return err_set(err, WEIR_EINVAL, "Content-Length '%.*s': expected a whole number",
                               shown, value.data);
            }
        }
        break;
    case 17:
        if (bytes_equal_nocase(field->name, BYTES_LITERAL("Transfer-Encoding"))) {
            seen->encoding++;
            facts->chunked = true;
            if (!bytes_equal_nocase(value, BYTES_LITERAL("chunked"))) {
                return err_set(err, WEIR_EINVAL, "Transfer-Encoding '%.*s': expected 'chunked'",
                               shown, value.data);
            }
        }
        break;
    default:
        break;
    }
    return WEIR_OK;
}

static enum weir_status judge_fields(struct http1 *r, const struct exchange *x,
                                     struct weir_err *err)
{
    struct seen seen = { 0 };
    struct http1_facts *facts = &r->facts;
    facts->keep_alive = !facts->version_1_0;
    for (uint32_t i = 0; i < x->field_count; i++) {
        const enum weir_status status = read_field(facts, &seen, &x->fields[i], err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    if (seen.host > 1 || (seen.host == 0 && !facts->version_1_0)) {
        return err_set(err, WEIR_EINVAL, "Host: found %u of them, expected one", seen.host);
    }
    if (seen.length > 1) {
        return err_set(err, WEIR_EINVAL, "Content-Length: found %u of them, expected one",
                       seen.length);
    }
    if (seen.encoding > 1) {
        return err_set(err, WEIR_EINVAL, "Transfer-Encoding: found %u of them, expected one",
                       seen.encoding);
    }
    if (seen.encoding == 1 && (seen.length == 1 || facts->version_1_0)) {
        return err_set(err, WEIR_EINVAL, "Transfer-Encoding: not together with %s",
                       facts->version_1_0 ? "HTTP/1.0" : "Content-Length");
    }
    facts->expects_continue = facts->expects_continue && !facts->version_1_0;
    return WEIR_OK;
}

static enum weir_status parse_head(struct http1 *r, struct exchange *x, struct weir_err *err)
{
    enum weir_status status = read_request_line(r, x, err);
    if (status != WEIR_OK) {
        return status;
    }
    const uint32_t room = r->line_count - 1;
    struct http_field *fields = arena_try_zero(&x->arena, room, sizeof(*fields));
    if (fields == NULL) {
        return err_nomem(err, "header fields", room * sizeof(*fields));
    }
    x->fields = fields;
    const bool known = x->method != HTTP_OTHER;
    const char *from = known ? r->head : x->target.data - 1;
    const struct bytes rest = { from, r->head_size - (size_t)(from - r->head) };
    status = fields_read(known ? "" : "POST", rest, fields, room, &x->field_count, err);
    status = status != WEIR_OK ? status : judge_fields(r, x, err);
    if (status == WEIR_OK) {
        head_release(r->latest);
        r->latest = head_create(x, (struct bytes){ r->head, r->head_size }, &r->facts);
    }
    return status;
}

/* The header before once more, and there as a whole.  False: it has to be read. */
static bool recall_head(struct http1 *r, struct exchange *x, struct bytes *in)
{
    struct head *head = r->latest;
    if (head == NULL || r->head_size > 0 || r->place != HTTP1_LINE_START ||
        head->text.size > in->size || memcmp(head->text.data, in->data, head->text.size) != 0 ||
        !head_share(head, x)) {
        return false;
    }
    r->facts = head->facts;
    in->data += head->text.size;
    in->size -= head->text.size;
    return true;
}

/* Takes what belongs to the header; WEIR_OK and *done when it is complete and good. */
static enum weir_status take_head(struct http1 *r, struct exchange *x, struct bytes *in, bool *done,
                                  struct weir_err *err)
{
    size_t size = 0;
    *done = recall_head(r, x, in);
    if (*done) {
        return WEIR_OK;
    }
    enum weir_status status = scan_head(r, *in, &size, done, err);
    if (status == WEIR_OK) {
        status = check_head_limits(r, size, err);
    }
    if (status == WEIR_OK && *done && r->line_count == 0) {
        /* RFC 9112, section 2.2: an empty line before a request is passed over; here only one. */
        *done = false;
        in->data += size;
        in->size -= size;
        if (r->blank_skipped) {
            return err_set(err, WEIR_EINVAL, "request line: found empty lines");
        }
        r->blank_skipped = true;
        r->head_size = 0;
        return WEIR_OK;
    }
    if (status == WEIR_OK) {
        status = keep_head(r, &x->arena, (struct bytes){ in->data, size }, *done, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    in->data += size;
    in->size -= size;
    if (*done) {
        return parse_head(r, x, err);
    }
    if (r->line_count > 0 && !r->line_checked) {
        r->line_checked = true;
        return read_request_line(r, x, err);
    }
    return WEIR_OK;
}

static enum weir_status bad_chunk(struct weir_err *err, const char *what, char c)
{
    return err_set(err, WEIR_EINVAL, "chunked body: byte 0x%02x %s", (unsigned)(unsigned char)c,
                   what);
}

static enum weir_status add_framing(struct http1 *r, uint64_t size, struct weir_err *err)
{
    r->framing_size += size;
    if (r->framing_size > r->limits->header_bytes_max) {
        return err_set(err, WEIR_EHEADERS,
                       "chunked body: more than %llu bytes of chunk extensions and trailers",
                       (unsigned long long)r->limits->header_bytes_max);
    }
    return WEIR_OK;
}

/* The size is read; what follows depends on it. */
static enum weir_status begin_chunk(struct http1 *r, struct weir_err *err)
{
    r->chunk_count++;
    if (r->chunk_count > CHUNKS_FREE &&
        r->received / CHUNK_BYTES_MEAN < r->chunk_count - CHUNKS_FREE) {
        return err_set(err, WEIR_EINVAL, "chunked body: %llu chunks for %llu bytes",
                       (unsigned long long)r->chunk_count, (unsigned long long)r->received);
    }
    r->state = r->left == 0 ? HTTP1_IN_TRAILER : HTTP1_IN_CHUNK;
    r->place = HTTP1_LINE_START;
    r->line_count = 0;
    return WEIR_OK;
}

static unsigned hex_value(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : ((unsigned)c & 0xfU) + 9;
}

static enum weir_status step_chunk_size(struct http1 *r, char c, struct weir_err *err)
{
    if (r->place == HTTP1_LINE_CR) {
        r->place = HTTP1_LINE_START;
        return c == '\n' ? begin_chunk(r, err)
                         : bad_chunk(err, "behind the carriage return of a size", c);
    }
    if (isxdigit((unsigned char)c)) {
        r->left = r->left << 4 | hex_value(c);
        r->digit_count++;
        if (r->digit_count > CHUNK_DIGITS_MAX || r->left > INT64_MAX) {
            return err_set(err, WEIR_EINVAL, "chunked body: chunk size of %u digits",
                           r->digit_count);
        }
        return WEIR_OK;
    }
    if (r->digit_count == 0 || (c != '\r' && c != ';')) {
        return bad_chunk(err, "in a chunk size", c);
    }
    if (c == ';') {
        r->state = HTTP1_IN_CHUNK_EXTENSION;
    } else {
        r->place = HTTP1_LINE_CR;
    }
    return WEIR_OK;
}

static enum weir_status step_chunk_extension(struct http1 *r, char c, struct weir_err *err)
{
    if (r->place == HTTP1_LINE_CR) {
        r->place = HTTP1_LINE_START;
        return c == '\n' ? begin_chunk(r, err)
                         : bad_chunk(err, "behind the carriage return of an extension", c);
    }
    if (c == '\r') {
        r->place = HTTP1_LINE_CR;
        return WEIR_OK;
    }
    if (find_control(&c, 1) == 0) {
        return bad_chunk(err, "in a chunk extension", c);
    }
    return add_framing(r, 1, err);
}

static enum weir_status step_chunk_end(struct http1 *r, char c, struct weir_err *err)
{
    const char expected = r->place == HTTP1_LINE_CR ? '\n' : '\r';
    if (c != expected) {
        return bad_chunk(err, "where a chunk should have ended", c);
    }
    if (c == '\r') {
        r->place = HTTP1_LINE_CR;
        return WEIR_OK;
    }
    r->place = HTTP1_LINE_START;
    r->state = HTTP1_IN_CHUNK_SIZE;
    r->digit_count = 0;
    return WEIR_OK;
}

/* Trailers are checked and dropped: nothing here gives one a meaning. */
static enum weir_status step_trailer(struct http1 *r, char c, struct weir_err *err)
{
    switch (r->place) {
    case HTTP1_LINE_START:
        r->place = c == '\r' ? HTTP1_BLANK_CR : HTTP1_LINE_NAME;
        if (c == '\r') {
            return WEIR_OK;
        }
        if (!target_is_token(c)) {
            return bad_chunk(err, "at the start of a trailer", c);
        }
        break;
    case HTTP1_LINE_NAME:
        if (c == ':') {
            r->place = HTTP1_LINE_TEXT;
        } else if (!target_is_token(c)) {
            return bad_chunk(err, "in the name of a trailer", c);
        }
        break;
    case HTTP1_LINE_TEXT:
        if (c == '\r') {
            r->place = HTTP1_LINE_CR;
        } else if (find_control(&c, 1) == 0) {
            return bad_chunk(err, "in a trailer", c);
        }
        break;
    default:
        if (c != '\n') {
            return bad_chunk(err, "behind the carriage return of a trailer", c);
        }
        if (r->place == HTTP1_BLANK_CR) {
            r->state = HTTP1_AT_END;
        } else if (++r->line_count > r->limits->header_fields_max) {
            return err_set(err, WEIR_EHEADERS, "chunked body: more than %llu trailers",
                           (unsigned long long)r->limits->header_fields_max);
        }
        r->place = HTTP1_LINE_START;
        break;
    }
    return add_framing(r, 1, err);
}

static enum weir_status step(struct http1 *r, char c, struct weir_err *err)
{
    switch (r->state) {
    case HTTP1_IN_CHUNK_SIZE:
        return step_chunk_size(r, c, err);
    case HTTP1_IN_CHUNK_EXTENSION:
        return step_chunk_extension(r, c, err);
    case HTTP1_IN_CHUNK_END:
        return step_chunk_end(r, c, err);
    default:
        assert(r->state == HTTP1_IN_TRAILER);
        return step_trailer(r, c, err);
    }
}

static enum weir_status take_framing(struct http1 *r, struct bytes *in, struct weir_err *err)
{
    const enum http1_state state = r->state;
    while (in->size > 0 && r->state == state) {
        const enum weir_status status = step(r, in->data[0], err);
        if (status != WEIR_OK) {
            return status;
        }
        in->data++;
        in->size--;
    }
    return WEIR_OK;
}

static enum http1_event take_data(struct http1 *r, struct bytes *in, struct bytes *data)
{
    if (in->size == 0) {
        return HTTP1_MORE;
    }
    const size_t size = in->size < r->left ? in->size : (size_t)r->left;
    *data = (struct bytes){ in->data, size };
    in->data += size;
    in->size -= size;
    r->left -= size;
    if (r->state == HTTP1_IN_CHUNK) {
        r->received += size;
    }
    if (r->left == 0) {
        r->state = r->state == HTTP1_IN_BODY ? HTTP1_AT_END : HTTP1_IN_CHUNK_END;
    }
    return HTTP1_DATA;
}

static enum http1_event end_head(struct http1 *r)
{
    r->left = r->facts.body_size;
    r->place = HTTP1_LINE_START;
    if (r->facts.chunked) {
        r->state = HTTP1_IN_CHUNK_SIZE;
    } else {
        r->state = r->left > 0 ? HTTP1_IN_BODY : HTTP1_AT_END;
    }
    return HTTP1_HEAD;
}

static enum http1_event refuse(struct http1 *r)
{
    r->state = HTTP1_IS_REFUSED;
    return HTTP1_REFUSED;
}

void http1_init(struct http1 *reader, const struct limits *limits)
{
    *reader = (struct http1){ .limits = limits };
}

void http1_finish(struct http1 *reader)
{
    head_release(reader->latest);
    reader->latest = NULL;
}

/* The next request begins. */
static void restart(struct http1 *reader)
{
    *reader = (struct http1){ .limits = reader->limits, .latest = reader->latest };
}

enum http1_event http1_next(struct http1 *reader, struct exchange *x, struct bytes *in,
                            struct bytes *data, struct weir_err *err)
{
    while (in->size > 0 || reader->state == HTTP1_AT_END) {
        bool done = false;
        switch (reader->state) {
        case HTTP1_IN_HEAD:
            if (take_head(reader, x, in, &done, err) != WEIR_OK) {
                return refuse(reader);
            }
            if (done) {
                return end_head(reader);
            }
            break;
        case HTTP1_IN_BODY:
        case HTTP1_IN_CHUNK:
            return take_data(reader, in, data);
        case HTTP1_AT_END:
            restart(reader);
            return HTTP1_END;
        case HTTP1_IS_REFUSED:
            return HTTP1_REFUSED;
        default:
            if (take_framing(reader, in, err) != WEIR_OK) {
                return refuse(reader);
            }
            break;
        }
    }
    return HTTP1_MORE;
}

bool http1_begun(const struct http1 *reader)
{
    return reader->state != HTTP1_IN_HEAD || reader->head_size > 0 ||
           reader->place != HTTP1_LINE_START;
}
