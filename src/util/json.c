/*
 * JSON in and out.
 *
 * yyjson builds its document without recursion, but those who walk the document
 * may recurse, and a text of nothing but brackets costs sixteen bytes of memory
 * per byte.  So depth is looked at before yyjson sees the text.  A text with no
 * more brackets than levels are allowed cannot be too deep, which is nearly
 * always so and is counted eight bytes at a time; only others are followed
 * bracket by bracket.  The text need not be valid for this: what yyjson would
 * accept has its strings and brackets where this scan sees them.
 */
#include "util/json.h"

#include <inttypes.h>
#include <stdio.h>

#include "util/decimal.h"
#include "util/map.h"
#include "util/mem.h"

/* Eight bytes at a time, and the index of the first marked one in the order of memory. */
#define WORD_BYTES sizeof(uint64_t)
#define WORD_OF(byte) (UINT64_C(0x0101010101010101) * (byte))
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define FIRST_BYTE(marks) ((size_t)__builtin_ctzll(marks) / 8)
#else
#define FIRST_BYTE(marks) ((size_t)__builtin_clzll(marks) / 8)
#endif

#define LINEAR_KEYS_MAX 16 /* Up to here comparing all pairs is faster than a map. */
#define KIND_BYTES 96
#define QUOTED_BYTES_MAX 40

static void *alc_malloc(void *context, size_t size)
{
    (void)context;
    return mem_try_alloc(size);
}

static void *alc_realloc(void *context, void *memory, size_t old_size, size_t size)
{
    (void)context;
    (void)old_size;
    return mem_try_resize(memory, size);
}

static void alc_free(void *context, void *memory)
{
    (void)context;
    mem_free(memory);
}

static const yyjson_alc allocator = { alc_malloc, alc_realloc, alc_free, NULL };

/* 0x80 in every byte of `word` that is 0. */
static uint64_t zero_bytes(uint64_t word)
{
    const uint64_t low_bits = WORD_OF(0x7f);
    return ~(((word & low_bits) + low_bits) | word) & ~low_bits;
}

static uint64_t load_word(const char *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof word);
    return word;
}

/* '[' and '{' differ only in the bit 0x20. */
static bool has_more_openers_than(struct bytes text, size_t max)
{
    size_t count = 0;
    size_t at = 0;
    for (; text.size - at >= WORD_BYTES && count <= max; at += WORD_BYTES) {
        const uint64_t word = load_word(text.data + at) | WORD_OF(0x20);
        const uint64_t ones = zero_bytes(word ^ WORD_OF('{')) >> 7;
        count += (ones * WORD_OF(1)) >> 56;
    }
    for (; at < text.size; at++) {
        count += text.data[at] == '[' || text.data[at] == '{';
    }
    return count > max;
}

/* The index, from `at` on, of the next byte that may be a bracket or a quote, or the text's end.
 * Brackets are 0x7f once the bits 0x26, in which they differ, are set; so are 'Y', 'y' and '_',
 * which the caller passes over. */
static size_t find_structural(struct bytes text, size_t at)
{
    while (text.size - at >= WORD_BYTES) {
        const uint64_t word = load_word(text.data + at);
        const uint64_t hits =
            zero_bytes((word | WORD_OF(0x26)) ^ WORD_OF(0x7f)) | zero_bytes(word ^ WORD_OF('"'));
        if (hits != 0) {
            return at + FIRST_BYTE(hits);
        }
        at += WORD_BYTES;
    }
    return at;
}

/* The index of the quote that ends the string which starts after `at`, or the text's end. */
static size_t skip_string(struct bytes text, size_t at)
{
    while (++at < text.size && text.data[at] != '"') {
        at += text.data[at] == '\\';
    }
    return at;
}

/* The index of the first bracket that opens a level beyond JSON_DEPTH_MAX, or the text's end. */
static size_t find_too_deep(struct bytes text)
{
    int depth = 0;
    for (size_t at = find_structural(text, 0); at < text.size; at = find_structural(text, at + 1)) {
        const char c = text.data[at];
        if (c == '"') {
            at = skip_string(text, at);
            if (at >= text.size) {
                break;
            }
        } else if (c == '[' || c == '{') {
            depth++;
        } else if (c == ']' || c == '}') {
            depth--;
        }
        if (depth > JSON_DEPTH_MAX) {
            return at;
        }
    }
    return text.size;
}

static enum weir_status complain_at(struct bytes text, size_t at, const char *what,
                                    struct weir_err *err)
{
    size_t line = 1;
    size_t column = 1;
    size_t character = 0;
    if (text.size > 0) {
        (void)yyjson_locate_pos(text.data, text.size, at, &line, &column, &character);
    }
    return err_set(err, WEIR_EINVAL, "JSON line %zu, column %zu: %s", line, column, what);
}

enum weir_status json_read(struct bytes text, yyjson_doc **out, struct weir_err *err)
{
    if (has_more_openers_than(text, JSON_DEPTH_MAX)) {
        const size_t at = find_too_deep(text);
        if (at < text.size) {
            return complain_at(text, at, "nested deeper than 100 levels", err);
        }
    }
    yyjson_read_err fault = { 0 };
    /* Without YYJSON_READ_INSITU the text is only read, whatever the type says. */
    char *data = text.size == 0 ? (char *)(uintptr_t) "" : (char *)(uintptr_t)text.data;
    yyjson_doc *doc = yyjson_read_opts(data, text.size, YYJSON_READ_NOFLAG, &allocator, &fault);
    if (doc != NULL) {
        *out = doc;
        return WEIR_OK;
    }
    if (fault.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION) {
        return err_nomem(err, "a JSON document", text.size);
    }
    if (fault.code == YYJSON_READ_ERROR_EMPTY_CONTENT || text.size == 0) {
        return err_set(err, WEIR_EINVAL, "JSON: found nothing, expected a value");
    }
    return complain_at(text, fault.pos, fault.msg, err);
}

static void describe_number(yyjson_val *value, char *out)
{
    if (yyjson_is_uint(value)) {
        (void)snprintf(out, KIND_BYTES, "the number %" PRIu64, yyjson_get_uint(value));
    } else if (yyjson_is_sint(value)) {
        (void)snprintf(out, KIND_BYTES, "the number %" PRId64, yyjson_get_sint(value));
    } else {
        char digits[DECIMAL_MAX];
        const size_t size = decimal_double(yyjson_get_real(value), digits);
        (void)snprintf(out, KIND_BYTES, "the number %.*s", (int)size, digits);
    }
}

/* Up to QUOTED_BYTES_MAX bytes, cut between characters. */
static void describe_string(yyjson_val *value, char *out)
{
    const struct bytes text = { yyjson_get_str(value), yyjson_get_len(value) };
    size_t size = 0;
    while (size < text.size) {
        const struct bytes rest = { text.data + size, text.size - size };
        const size_t step = bytes_utf8_size(rest);
        if (step == 0 || rest.data[0] == '\0' || size + step > QUOTED_BYTES_MAX) {
            break;
        }
        size += step;
    }
    (void)snprintf(out, KIND_BYTES, "the string '%.*s%s'", (int)size, text.data,
                   size < text.size ? "..." : "");
}

const char *json_kind(yyjson_val *value)
{
    static _Thread_local char text[KIND_BYTES];
    switch (yyjson_get_type(value)) {
    case YYJSON_TYPE_NULL:
        return "null";
    case YYJSON_TYPE_BOOL:
        return yyjson_is_true(value) ? "true" : "false";
    case YYJSON_TYPE_NUM:
        describe_number(value, text);
        return text;
    case YYJSON_TYPE_STR:
        describe_string(value, text);
        return text;
    case YYJSON_TYPE_ARR:
        return "an array";
    case YYJSON_TYPE_OBJ:
        return "an object";
    default:
        return "nothing";
    }
}

struct type_row {
    const char *text;
    bool (*is)(yyjson_val *value);
};

static const struct type_row types[] = {
    [JSON_BOOL] = { "true or false", yyjson_is_bool },
    [JSON_STRING] = { "a string", yyjson_is_str },
    [JSON_ARRAY] = { "an array", yyjson_is_arr },
    [JSON_OBJECT] = { "an object", yyjson_is_obj },
    [JSON_UINT] = { "a whole number from 0 on", yyjson_is_uint },
    [JSON_NUMBER] = { "a number", yyjson_is_num },
};

/* "inputs[0].name" out of "inputs[0]" and "name". */
static const char *dot_after(const char *where)
{
    return where[0] == '\0' ? "" : ".";
}

enum weir_status json_member(yyjson_val *object, const char *where, const char *key,
                             enum json_type type, bool required, yyjson_val **out,
                             struct weir_err *err)
{
    where = where == NULL ? "" : where;
    if (!yyjson_is_obj(object)) {
        return err_set(err, WEIR_EINVAL, "%s: found %s, expected an object",
                       where[0] == '\0' ? "JSON" : where, json_kind(object));
    }
    yyjson_val *value = yyjson_obj_get(object, key);
    if (value == NULL && !required) {
        return WEIR_OK;
    }
    if (value == NULL) {
        return err_set(err, WEIR_EINVAL, "%s%s%s: missing, expected %s", where, dot_after(where),
                       key, types[type].text);
    }
    if (!types[type].is(value)) {
        return err_set(err, WEIR_EINVAL, "%s%s%s: found %s, expected %s", where, dot_after(where),
                       key, json_kind(value), types[type].text);
    }
    *out = value;
    return WEIR_OK;
}

static struct bytes key_bytes(yyjson_val *key)
{
    return (struct bytes){ yyjson_get_str(key), yyjson_get_len(key) };
}

static enum weir_status complain_twice(const char *where, struct bytes key, struct weir_err *err)
{
    where = where == NULL ? "" : where;
    return err_set(err, WEIR_EINVAL, "%s%s%.*s: found twice, expected once", where,
                   dot_after(where), (int)(key.size < 128 ? key.size : 128), key.data);
}

/* An object of few keys: compares each with those before it. */
static enum weir_status unique_few(yyjson_val *object, const char *where, struct weir_err *err)
{
    struct bytes seen[LINEAR_KEYS_MAX];
    size_t count = 0;
    yyjson_obj_iter iter = yyjson_obj_iter_with(object);
    for (yyjson_val *key = yyjson_obj_iter_next(&iter); key != NULL;
         key = yyjson_obj_iter_next(&iter)) {
        const struct bytes name = key_bytes(key);
        for (size_t i = 0; i < count; i++) {
            if (bytes_equal(seen[i], name)) {
                return complain_twice(where, name, err);
            }
        }
        seen[count++] = name;
    }
    return WEIR_OK;
}

static enum weir_status unique_many(yyjson_val *object, const char *where, struct map *seen,
                                    struct weir_err *err)
{
    yyjson_obj_iter iter = yyjson_obj_iter_with(object);
    for (yyjson_val *key = yyjson_obj_iter_next(&iter); key != NULL;
         key = yyjson_obj_iter_next(&iter)) {
        const enum weir_status status = map_add(seen, key_bytes(key), key);
        if (status == WEIR_ECONFLICT) {
            return complain_twice(where, key_bytes(key), err);
        }
        if (status != WEIR_OK) {
            return err_nomem(err, "the keys of a JSON object", yyjson_obj_size(object));
        }
    }
    return WEIR_OK;
}

enum weir_status json_unique(yyjson_val *object, const char *where, struct weir_err *err)
{
    if (yyjson_obj_size(object) <= LINEAR_KEYS_MAX) {
        return unique_few(object, where, err);
    }
    struct map seen;
    map_init(&seen);
    const enum weir_status status = unique_many(object, where, &seen, err);
    map_finish(&seen);
    return status;
}

/* What a byte of a text becomes: 0 as it is, 'u' \u00XX, 'x' part of a longer character, else the
 * letter after the backslash. */
static char escape_of(unsigned char c)
{
    static const char controls[32] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r',
    };
    if (c < 0x20) {
        return controls[c] == 0 ? 'u' : controls[c];
    }
    if (c == '"' || c == '\\') {
        return (char)c;
    }
    return c < 0x80 ? 0 : 'x';
}

/* Appends the character at the start of `text`, which cannot stand as it is; returns its bytes. */
static size_t append_escaped(struct buffer *out, struct bytes text, char escape)
{
    if (escape == 'x') {
        const size_t size = bytes_utf8_size(text);
        if (size == 0) {
            buffer_text(out, "\xef\xbf\xbd");
            return 1;
        }
        buffer_append(out, text.data, size);
        return size;
    }
    if (escape == 'u') {
        buffer_printf(out, "\\u%04x", (unsigned)(unsigned char)text.data[0]);
        return 1;
    }
    const char pair[2] = { '\\', escape };
    buffer_append(out, pair, sizeof pair);
    return 1;
}

void json_text(struct buffer *out, struct bytes text)
{
    const size_t before = out->size;
    buffer_char(out, '"');
    size_t plain = 0; /* Where the run of bytes that stand for themselves begins. */
    for (size_t at = 0; at < text.size;) {
        const char escape = escape_of((unsigned char)text.data[at]);
        if (escape == 0) {
            at++;
            continue;
        }
        buffer_append(out, text.data + plain, at - plain);
        at += append_escaped(out, (struct bytes){ text.data + at, text.size - at }, escape);
        plain = at;
    }
    if (plain < text.size) {
        buffer_append(out, text.data + plain, text.size - plain);
    }
    buffer_char(out, '"');
    if (out->failed) {
        out->size = before;
    }
}

void json_string(struct buffer *out, const char *text)
{
    json_text(out, bytes_of(text));
}

void json_double(struct buffer *out, double value)
{
    if (out->capacity - out->size >= DECIMAL_MAX) {
        out->size += decimal_double(value, out->data + out->size);
        return;
    }
    char text[DECIMAL_MAX];
    buffer_append(out, text, decimal_double(value, text));
}

void json_float(struct buffer *out, float value)
{
    if (out->capacity - out->size >= DECIMAL_MAX) {
        out->size += decimal_float(value, out->data + out->size);
        return;
    }
    char text[DECIMAL_MAX];
    buffer_append(out, text, decimal_float(value, text));
}

void json_bool(struct buffer *out, bool value)
{
    buffer_text(out, value ? "true" : "false");
}

void json_doubles(struct buffer *out, const double *values, size_t count)
{
    buffer_char(out, '[');
    for (size_t i = 0; i < count && !out->failed; i++) {
        if (i > 0) {
            buffer_char(out, ',');
        }
        json_double(out, values[i]);
    }
    buffer_char(out, ']');
}

void json_comma(struct buffer *out)
{
    if (out->size == 0) {
        return;
    }
    const char last = out->data[out->size - 1];
    if (last != '{' && last != '[') {
        buffer_char(out, ',');
    }
}

void json_key(struct buffer *out, const char *key)
{
    json_comma(out);
    json_string(out, key);
    buffer_char(out, ':');
}
