/*
 * The HTTP/1 reader: any bytes, however they are cut, mean the same; what it accepts is
 * well-formed.
 *
 * The first byte seeds the cuts, the rest is the connection's bytes.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "net/http1.h"

/* A digest of everything that came out. */
struct outcome {
    uint64_t digest;
    uint64_t body_bytes;
    unsigned heads;
    unsigned ends;
    enum weir_status refused;
    char reason[512];
};

static void require(bool promise)
{
    if (!promise) {
        abort();
    }
}

static void mix(struct outcome *o, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) {
        o->digest = (o->digest ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    o->digest = (o->digest ^ 0xff) * UINT64_C(0x100000001b3);
}

static void mix_bytes(struct outcome *o, struct bytes bytes)
{
    mix(o, bytes.data, bytes.size);
}

static bool is_clean(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        const unsigned char c = (unsigned char)text.data[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static void check_head(struct outcome *o, const struct exchange *x, const struct http1_facts *facts)
{
    require(x->field_count <= 100);
    require(x->path.size > 0 && x->target.size > 0 && is_clean(x->target));
    require(!(facts->chunked && facts->body_size > 0));
    unsigned hosts = 0;
    for (uint32_t i = 0; i < x->field_count; i++) {
        const struct http_field *field = &x->fields[i];
        require(field->name.size > 0 && is_clean(field->name) && is_clean(field->value));
        require(memchr(field->name.data, ' ', field->name.size) == NULL);
        hosts += bytes_equal_nocase(field->name, BYTES_LITERAL("host"));
        mix_bytes(o, field->name);
        mix_bytes(o, field->value);
    }
    require(hosts == 1 || (hosts == 0 && facts->version_1_0));
    mix(o, &x->method, sizeof(x->method));
    mix_bytes(o, x->path);
    mix_bytes(o, x->query);
    mix(o, &facts->body_size, sizeof(facts->body_size));
    o->heads++;
}

/* Reads all of it in parts of at most `step` bytes, each in a block of its own. */
static struct outcome read_all(const uint8_t *data, size_t size, size_t step)
{
    struct limits limits;
    struct http1 reader;
    struct exchange x = { 0 };
    struct outcome o = { 0 };
    limits_init(&limits);
    http1_init(&reader, &limits);
    arena_init(&x.arena, NULL, 0, 0);
    uint64_t declared = 0;
    uint64_t received = 0;
    for (size_t at = 0; at < size && o.refused == WEIR_OK; at += step) {
        const size_t part = size - at < step ? size - at : step;
        char *copy = malloc(part);
        require(copy != NULL);
        memcpy(copy, data + at, part);
        struct bytes in = { copy, part };
        struct bytes body;
        struct weir_err err;
        enum http1_event event = HTTP1_HEAD;
        while (event != HTTP1_MORE && event != HTTP1_REFUSED) {
            event = http1_next(&reader, &x, &in, &body, &err);
            if (event == HTTP1_HEAD) {
                check_head(&o, &x, &reader.facts);
                declared = reader.facts.chunked ? UINT64_MAX : reader.facts.body_size;
                received = 0;
            } else if (event == HTTP1_DATA) {
                require(body.size > 0 && body.data >= copy && body.data + body.size <= copy + part);
                received += body.size;
                o.body_bytes += body.size;
                for (size_t i = 0; i < body.size; i++) {
                    o.digest = (o.digest ^ (unsigned char)body.data[i]) * UINT64_C(0x100000001b3);
                }
            } else if (event == HTTP1_END) {
                require(declared == UINT64_MAX || received == declared);
                require(!http1_begun(&reader));
                o.ends++;
                arena_reset(&x.arena);
                const struct arena arena = x.arena;
                x = (struct exchange){ .arena = arena };
            } else if (event == HTTP1_REFUSED) {
                o.refused = err.status;
                memcpy(o.reason, err.text, sizeof(o.reason));
            }
        }
        require(event == HTTP1_REFUSED || in.size == 0);
        free(copy);
    }
    http1_finish(&reader);
    arena_finish(&x.arena);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    const struct outcome whole = read_all(data + 1, size - 1, size - 1);
    const struct outcome cut = read_all(data + 1, size - 1, 1 + data[0] % 32);
    require(whole.digest == cut.digest && whole.body_bytes == cut.body_bytes);
    require(whole.heads == cut.heads && whole.ends == cut.ends);
    require((whole.refused == WEIR_OK) == (cut.refused == WEIR_OK));
    return 0;
}
