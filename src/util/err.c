/*
 * Sentences are formatted into a scratch text first and then cleaned into the
 * caller's, so that an argument may be the old sentence itself.
 */
#include "util/err.h"

#include <stdio.h>
#include <string.h>

#include "util/bytes.h"

#define TEXT_BYTES sizeof(((struct weir_err *)NULL)->text)

static const char ellipsis[] = "...";

/* Shortens `text` to `size` bytes or a little less, so that no character is split. */
static void cut(char *text, size_t size)
{
    while (size > 0 && ((unsigned char)text[size] & 0xC0U) == 0x80U) {
        size--;
    }
    memcpy(text + size, ellipsis, sizeof(ellipsis));
}

/* Everything that is no printable UTF-8 becomes '?': C0 and C1 controls, DEL, broken bytes. */
static void clean(char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        size_t step = bytes_utf8_size((struct bytes){ text, left });
        const unsigned char c = (unsigned char)text[0];
        const bool c1 = step == 2 && c == 0xC2 && (unsigned char)text[1] < 0xA0;
        if (step == 0 || c < 0x20 || c == 0x7F || c1) {
            step = step == 0 ? 1 : step;
            memset(text, '?', step);
        }
        text += step;
        left -= step;
    }
}

/* `size` is what the whole sentence in `text` would have taken. */
static void store(struct weir_err *err, char *text, int size)
{
    if (size < 0) {
        (void)snprintf(text, TEXT_BYTES, "%s", weir_status_text(err->status));
    } else if ((size_t)size >= TEXT_BYTES) {
        cut(text, TEXT_BYTES - sizeof(ellipsis));
    }
    clean(text);
    memcpy(err->text, text, strlen(text) + 1);
}

enum weir_status err_setv(struct weir_err *err, enum weir_status status, const char *format,
                          va_list args)
{
    if (err != NULL) {
        char text[TEXT_BYTES];
        const int size = vsnprintf(text, sizeof(text), format, args);
        err->status = status;
        store(err, text, size);
    }
    return status;
}

enum weir_status err_set(struct weir_err *err, enum weir_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    err_setv(err, status, format, args);
    va_end(args);
    return status;
}

enum weir_status err_prefix(struct weir_err *err, const char *format, ...)
{
    if (err == NULL) {
        return WEIR_EINVAL;
    }
    char prefix[TEXT_BYTES];
    va_list args;
    va_start(args, format);
    if (vsnprintf(prefix, sizeof(prefix), format, args) < 0) {
        prefix[0] = '\0';
    }
    va_end(args);
    char text[TEXT_BYTES];
    const int size = snprintf(text, sizeof(text), "%s: %s", prefix, err->text);
    store(err, text, size);
    return err->status;
}

enum weir_status err_nomem(struct weir_err *err, const char *what, unsigned long long bytes)
{
    return err_set(err, WEIR_ENOMEM, "out of memory for %s (%llu bytes)", what, bytes);
}
