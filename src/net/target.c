/*
 * Methods, targets and hosts, checked byte by byte.
 */
#include "net/target.h"

#include <ctype.h>
#include <string.h>

#define METHOD_BYTES_MAX 32

/* A set of ASCII characters, one bit each. */
struct charset {
    uint64_t low;  /* 0 to 63 */
    uint64_t high; /* 64 to 127 */
};

/* tchar of RFC 9110, section 5.6.2. */
static const struct charset token = { UINT64_C(0x03ff6cfa00000000), UINT64_C(0x57ffffffc7fffffe) };

/* reg-name and IP-literal of RFC 3986, section 3.2.2, and the colon before a port. */
static const struct charset host = { UINT64_C(0x2fff7ff200000000), UINT64_C(0x47fffffeaffffffe) };

static bool is_in(const struct charset *set, char character)
{
    const unsigned char c = (unsigned char)character;
    return c < 64 ? (set->low >> c & 1) != 0 : c < 128 && (set->high >> (c - 64) & 1) != 0;
}

static bool are_in(const struct charset *set, struct bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (!is_in(set, text.data[i])) {
            return false;
        }
    }
    return true;
}

static enum http_method method_of(struct bytes name)
{
#define HTTP_METHOD_TEXT(name) #name,
    static const char *const names[] = { HTTP_METHODS(HTTP_METHOD_TEXT) };
#undef HTTP_METHOD_TEXT
    for (int i = 0; i < HTTP_OTHER; i++) {
        if (bytes_equal(name, bytes_of(names[i]))) {
            return (enum http_method)i;
        }
    }
    return HTTP_OTHER;
}

enum weir_status target_method(struct bytes name, enum http_method *out, struct weir_err *err)
{
    if (!are_in(&token, name)) {
        return err_set(err, WEIR_EINVAL, "request line: the method is no token");
    }
    if (name.size == 0 || name.size > METHOD_BYTES_MAX) {
        return err_set(err, WEIR_EINVAL, "request line: a method of %zu bytes", name.size);
    }
    *out = method_of(name);
    return WEIR_OK;
}

bool target_is_token(char c)
{
    return is_in(&token, c);
}

bool target_is_host(struct bytes value)
{
    return are_in(&host, value);
}

/* Cuts the path out of "http://host/path?query"; the authority must not be empty. */
static bool cut_authority(struct bytes *target)
{
    static const struct bytes schemes[] = { { "http://", 7 }, { "https://", 8 } };
    for (size_t i = 0; i < 2; i++) {
        const size_t size = schemes[i].size;
        if (target->size > size &&
            bytes_equal_nocase((struct bytes){ target->data, size }, schemes[i])) {
            size_t end = size;
            while (end < target->size && target->data[end] != '/' && target->data[end] != '?') {
                end++;
            }
            target->data += end;
            target->size -= end;
            return end > size;
        }
    }
    return false;
}

static enum weir_status check_target(struct bytes target, struct weir_err *err)
{
    for (size_t i = 0; i < target.size; i++) {
        const unsigned char c = (unsigned char)target.data[i];
        if (c <= 0x20 || c >= 0x7f || c == '#') {
            return err_set(err, WEIR_EINVAL,
                           "request target: byte 0x%02x at offset %zu is not allowed", (unsigned)c,
                           i);
        }
        if (c == '%' && (target.size - i < 3 || !isxdigit((unsigned char)target.data[i + 1]) ||
                         !isxdigit((unsigned char)target.data[i + 2]))) {
            return err_set(err, WEIR_EINVAL,
                           "request target: '%%' at offset %zu without two hexadecimal digits", i);
        }
    }
    return WEIR_OK;
}

static enum weir_status split_target(struct exchange *x, struct weir_err *err)
{
    struct bytes rest = x->target;
    if (x->method == HTTP_OPTIONS && bytes_equal(rest, BYTES_LITERAL("*"))) {
        x->path = rest;
        return WEIR_OK;
    }
    if (rest.size == 0 || (rest.data[0] != '/' && !cut_authority(&rest))) {
        return err_set(err, WEIR_EINVAL,
                       "request target '%.*s': expected a path that begins with '/'",
                       (int)(x->target.size < 64 ? x->target.size : 64), x->target.data);
    }
    const char *mark = rest.size == 0 ? NULL : memchr(rest.data, '?', rest.size);
    x->path = rest;
    if (mark != NULL) {
        x->path.size = (size_t)(mark - rest.data);
        x->query = (struct bytes){ mark + 1, rest.size - x->path.size - 1 };
    }
    if (x->path.size == 0) {
        x->path = BYTES_LITERAL("/");
    }
    return WEIR_OK;
}

enum weir_status target_read(struct exchange *x, struct bytes target, struct weir_err *err)
{
    x->target = target;
    const enum weir_status status = check_target(target, err);
    return status != WEIR_OK ? status : split_target(x, err);
}
