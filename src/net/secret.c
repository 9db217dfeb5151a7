#include "net/secret.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

bool secret_random(void *out, size_t size)
{
    return RAND_bytes(out, (int)size) == 1;
}

struct secret_digest secret_digest(struct bytes text)
{
    struct secret_digest digest;
    (void)SHA256((const unsigned char *)text.data, text.size, (unsigned char *)digest.words);
    return digest;
}

bool secret_same(const struct secret_digest *a, const struct secret_digest *b)
{
    uint64_t differing = 0;
    for (size_t i = 0; i < sizeof(a->words) / sizeof(*a->words); i++) {
        differing |= a->words[i] ^ b->words[i];
    }
    return differing == 0;
}

void secret_hex(const struct secret_digest *digest, char out[SECRET_HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *bytes = (const unsigned char *)digest->words;
    for (size_t i = 0; i < SECRET_DIGEST_BYTES; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * SECRET_DIGEST_BYTES] = '\0';
}

static int value_of(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

bool secret_unhex(struct bytes hex, struct secret_digest *out)
{
    if (hex.size != SECRET_HEX_BYTES - 1) {
        return false;
    }
    struct secret_digest digest;
    unsigned char *bytes = (unsigned char *)digest.words;
    for (size_t i = 0; i < SECRET_DIGEST_BYTES; i++) {
        const int high = value_of(hex.data[2 * i]);
        const int low = value_of(hex.data[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        bytes[i] = (unsigned char)(high * 16 + low);
    }
    *out = digest;
    return true;
}

void secret_wipe(void *at, size_t size)
{
    OPENSSL_cleanse(at, size);
}
