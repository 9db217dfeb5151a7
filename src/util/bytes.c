/*
 * Reading of numbers is strict and in integers only: no locale, no sign, no
 * rounding that a person would not expect.
 */
#include "util/bytes.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "util/mem.h"

#define CAPACITY_MIN 256
#define DECIMALS_MAX 6 /* One million times the largest unit still fits 64 bits. */
#define FORMAT_BYTES 32

struct unit {
    const char *name;
    uint64_t scale;
};

/* Smallest first; decimal ones are read but never written. */
static const struct unit size_units[] = {
    { "B", 1 },
    { "KiB", UINT64_C(1) << 10 },
    { "MiB", UINT64_C(1) << 20 },
    { "GiB", UINT64_C(1) << 30 },
    { "TiB", UINT64_C(1) << 40 },
};
static const struct unit decimal_units[] = {
    { "KB", UINT64_C(1000) },
    { "MB", UINT64_C(1000000) },
    { "GB", UINT64_C(1000000000) },
    { "TB", UINT64_C(1000000000000) },
};
static const struct unit duration_units[] = {
    { "ns", 1 },
    { "us", UINT64_C(1000) },
    { "ms", UINT64_C(1000000) },
    { "s", UINT64_C(1000000000) },
    { "min", UINT64_C(60000000000) },
    { "h", UINT64_C(3600000000000) },
};
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool bytes_equal_nocase(struct bytes a, struct bytes b)
{
    if (a.size != b.size) {
        return false;
    }
    if (bytes_equal(a, b)) {
        return true; /* As most are that are equal at all. */
    }
    for (size_t i = 0; i < a.size; i++) {
        if (lower(a.data[i]) != lower(b.data[i])) {
            return false;
        }
    }
    return true;
}

/* How many bytes a lead byte announces, and which second bytes it allows (RFC 3629). */
static size_t utf8_announced(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    *high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (lead < 0x80) {
        return 1;
    }
    if (lead < 0xC2 || lead > 0xF4) {
        return 0;
    }
    return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

size_t bytes_utf8_size(struct bytes text)
{
    if (text.size == 0) {
        return 0;
    }
    unsigned char low;
    unsigned char high;
    const size_t size = utf8_announced((unsigned char)text.data[0], &low, &high);
    if (size > text.size) {
        return 0;
    }
    for (size_t i = 1; i < size; i++) {
        const unsigned char c = (unsigned char)text.data[i];
        if (c < low || c > high) {
            return 0;
        }
        low = 0x80;
        high = 0xBF;
    }
    return size;
}

bool bytes_to_u64(struct bytes text, uint64_t max, uint64_t *out)
{
    if (text.size == 0) {
        return false;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (!is_digit(text.data[i]) || __builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(text.data[i] - '0'), &value)) {
            return false;
        }
    }
    if (value > max) {
        return false;
    }
    *out = value;
    return true;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

bool bytes_decode_percent(struct bytes text, char *out, size_t room, size_t *size)
{
    size_t count = 0;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (c == '%') {
            if (text.size - i < 3 || hex_value(text.data[i + 1]) < 0 ||
                hex_value(text.data[i + 2]) < 0) {
                return false;
            }
            c = (char)(hex_value(text.data[i + 1]) * 16 + hex_value(text.data[i + 2]));
            i += 2;
        }
        if (count == room) {
            return false;
        }
        out[count++] = c;
    }
    *size = count;
    return true;
}

uint32_t bytes_number_at_end(struct bytes text, size_t *stem_size)
{
    size_t at = text.size;
    while (at > 0 && text.data[at - 1] >= '0' && text.data[at - 1] <= '9') {
        at--;
    }
    uint64_t number = 0;
    const bool found =
        bytes_to_u64((struct bytes){ text.data + at, text.size - at }, UINT32_MAX, &number);
    *stem_size = found ? at : text.size;
    return found ? (uint32_t)number : 0;
}

/* Splits off the leading digits. */
static struct bytes take_digits(struct bytes *text)
{
    struct bytes digits = { text->data, 0 };
    while (text->size > 0 && is_digit(text->data[0])) {
        text->data++;
        text->size--;
        digits.size++;
    }
    return digits;
}

/* A number with at most DECIMALS_MAX decimals, and the text behind it as its unit. */
struct quantity {
    uint64_t whole;
    uint64_t millionths;
    bool fraction;
    struct bytes unit;
};

static bool read_fraction(struct bytes *text, struct quantity *out)
{
    if (text->size == 0 || text->data[0] != '.') {
        return true;
    }
    text->data++;
    text->size--;
    const struct bytes digits = take_digits(text);
    if (digits.size > DECIMALS_MAX || !bytes_to_u64(digits, UINT64_MAX, &out->millionths)) {
        return false;
    }
    for (size_t i = digits.size; i < DECIMALS_MAX; i++) {
        out->millionths *= 10;
    }
    out->fraction = true;
    return true;
}

static bool read_quantity(struct bytes text, struct quantity *out)
{
    *out = (struct quantity){ .whole = 0 };
    if (!bytes_to_u64(take_digits(&text), UINT64_MAX, &out->whole) || !read_fraction(&text, out)) {
        return false;
    }
    if (text.size > 1 && text.data[0] == ' ') {
        text.data++;
        text.size--;
    }
    out->unit = text;
    return true;
}

static bool scale(const struct quantity *quantity, uint64_t factor, uint64_t *out)
{
    if (quantity->fraction && factor == 1) {
        return false;
    }
    uint64_t value;
    if (__builtin_mul_overflow(quantity->whole, factor, &value) ||
        __builtin_add_overflow(value, quantity->millionths * factor / 1000000, &value)) {
        return false;
    }
    *out = value;
    return true;
}

static const struct unit *find_unit(const struct unit *units, size_t count, struct bytes name,
                                    bool nocase)
{
    for (size_t i = 0; i < count; i++) {
        const struct bytes known = bytes_of(units[i].name);
        if (nocase ? bytes_equal_nocase(known, name) : bytes_equal(known, name)) {
            return &units[i];
        }
    }
    return NULL;
}

bool bytes_to_size(struct bytes text, uint64_t *out)
{
    struct quantity quantity;
    if (!read_quantity(text, &quantity)) {
        return false;
    }
    if (quantity.unit.size == 0) {
        return scale(&quantity, 1, out);
    }
    const struct unit *unit = find_unit(size_units, COUNT_OF(size_units), quantity.unit, true);
    if (unit == NULL) {
        unit = find_unit(decimal_units, COUNT_OF(decimal_units), quantity.unit, true);
    }
    return unit != NULL && scale(&quantity, unit->scale, out);
}

bool bytes_to_duration_ns(struct bytes text, uint64_t *out)
{
    struct quantity quantity;
    if (!read_quantity(text, &quantity)) {
        return false;
    }
    if (quantity.unit.size == 0) {
        if (quantity.whole != 0 || quantity.fraction) {
            return false;
        }
        *out = 0;
        return true;
    }
    const struct unit *unit =
        find_unit(duration_units, COUNT_OF(duration_units), quantity.unit, false);
    return unit != NULL && scale(&quantity, unit->scale, out);
}

/* In the largest unit that leaves at least 1, rounded to a tenth of it. */
static char *format_quantity(const struct unit *units, size_t count, uint64_t value, char *out)
{
    size_t at = 0;
    while (at + 1 < count && value >= units[at + 1].scale) {
        at++;
    }
    uint64_t whole = value / units[at].scale;
    uint64_t tenths = (value % units[at].scale * 10 + units[at].scale / 2) / units[at].scale;
    if (tenths == 10) {
        whole++;
        tenths = 0;
        if (at + 1 < count && whole == units[at + 1].scale / units[at].scale) {
            whole = 1;
            at++;
        }
    }
    if (tenths == 0) {
        (void)snprintf(out, FORMAT_BYTES, "%" PRIu64 " %s", whole, units[at].name);
    } else {
        (void)snprintf(out, FORMAT_BYTES, "%" PRIu64 ".%" PRIu64 " %s", whole, tenths,
                       units[at].name);
    }
    return out;
}

char *bytes_format_size(uint64_t size, char *out)
{
    return format_quantity(size_units, COUNT_OF(size_units), size, out);
}

char *bytes_format_duration(uint64_t ns, char *out)
{
    return format_quantity(duration_units, COUNT_OF(duration_units), ns, out);
}

void buffer_init(struct buffer *buffer, size_t size_max)
{
    *buffer = (struct buffer){ .size_max = size_max };
}

void buffer_finish(struct buffer *buffer)
{
    mem_free(buffer->data);
    *buffer = (struct buffer){ .size_max = buffer->size_max };
}

void buffer_clear(struct buffer *buffer)
{
    buffer->size = 0;
    buffer->failed = false;
    buffer->full = false;
}

/* `needed` is at most size_max.  One byte beyond the capacity is always there for the NUL that
 * vsnprintf() writes, so that a text may fill the buffer to its limit. */
static bool grow(struct buffer *buffer, size_t needed)
{
    size_t capacity = buffer->capacity < CAPACITY_MIN / 2 ? CAPACITY_MIN / 2 : buffer->capacity;
    if (__builtin_mul_overflow(capacity, (size_t)2, &capacity) || capacity > buffer->size_max) {
        capacity = buffer->size_max;
    }
    capacity = capacity < needed ? needed : capacity;
    size_t with_nul;
    if (__builtin_add_overflow(capacity, (size_t)1, &with_nul)) {
        return false;
    }
    char *data = mem_try_resize(buffer->data, with_nul);
    if (data == NULL) {
        return false;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

bool buffer_reserve(struct buffer *buffer, size_t extra)
{
    if (buffer->failed) {
        return false;
    }
    if (extra <= buffer->capacity - buffer->size) {
        return true;
    }
    buffer->full = extra > buffer->size_max - buffer->size;
    buffer->failed = buffer->full || !grow(buffer, buffer->size + extra);
    return !buffer->failed;
}

void buffer_append(struct buffer *buffer, const void *data, size_t size)
{
    if (size > 0 && buffer_reserve(buffer, size)) {
        memcpy(buffer->data + buffer->size, data, size);
        buffer->size += size;
    }
}

void buffer_text(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, text, strlen(text));
}

void buffer_char(struct buffer *buffer, char c)
{
    if (buffer_reserve(buffer, 1)) {
        buffer->data[buffer->size++] = c;
    }
}

/* Writes into the room that is there; returns the bytes the text needs, or a negative number. */
static int print_into(struct buffer *buffer, const char *format, va_list args)
{
    if (buffer->data == NULL) {
        return vsnprintf(NULL, 0, format, args);
    }
    const size_t room = buffer->capacity - buffer->size + 1;
    return vsnprintf(buffer->data + buffer->size, room, format, args);
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
    if (buffer->failed) {
        return;
    }
    va_list args;
    va_list again;
    va_start(args, format);
    va_copy(again, args);
    const int size = print_into(buffer, format, args);
    if (size < 0) {
        buffer->failed = true;
    } else if ((size_t)size <= buffer->capacity - buffer->size) {
        buffer->size += (size_t)size;
    } else if (buffer_reserve(buffer, (size_t)size)) {
        (void)print_into(buffer, format, again);
        buffer->size += (size_t)size;
    }
    va_end(again);
    va_end(args);
}

/* Writes the digits so that they end at `end`; returns where they begin. */
static char *digits_before(char *end, uint64_t value)
{
    do {
        *--end = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    return end;
}

void buffer_u64(struct buffer *buffer, uint64_t value)
{
    char text[20];
    char *end = text + sizeof(text);
    const char *start = digits_before(end, value);
    buffer_append(buffer, start, (size_t)(end - start));
}

void buffer_i64(struct buffer *buffer, int64_t value)
{
    char text[20];
    char *end = text + sizeof(text);
    /* Negated as unsigned, since INT64_MIN has no positive counterpart. */
    char *start = digits_before(end, value < 0 ? UINT64_C(0) - (uint64_t)value : (uint64_t)value);
    if (value < 0) {
        *--start = '-';
    }
    buffer_append(buffer, start, (size_t)(end - start));
}
