/*
 * The reader of HTTP/1.1 answers: any bytes mean the same however they are cut.
 *
 * The first byte seeds the cuts, the rest is what a server sends.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "net/http1_client.h"

static void require(bool promise)
{
    if (!promise) {
        abort();
    }
}

struct outcome {
    uint64_t answers;
    uint64_t statuses; /* A digest of them, of their texts, and of what closes. */
    bool broken;
};

static void mix(struct outcome *o, uint64_t value)
{
    o->statuses = (o->statuses ^ value) * UINT64_C(0x100000001b3);
}

static void read_all(struct http1_client *client, struct bytes in, struct outcome *o)
{
    while (!o->broken) {
        const size_t before = in.size;
        const enum http1_client_step step = http1_client_input(client, &in);
        require(in.size <= before);
        o->broken = step == HTTP1_CLIENT_BROKEN;
        if (step != HTTP1_CLIENT_ANSWER) {
            require(o->broken || in.size == 0);
            return;
        }
        require(client->status < 100 || client->status >= 200);
        require(client->text_size <= HTTP1_CLIENT_TEXT_MAX);
        require(client->part == HTTP1_CLIENT_HEAD && client->held == 0);
        o->answers++;
        mix(o, client->status);
        mix(o, client->close);
        for (uint32_t i = 0; i < client->text_size; i++) {
            mix(o, (uint8_t)client->text[i]);
        }
        if (in.size == 0) {
            return;
        }
    }
}

static struct outcome play(const uint8_t *data, size_t size, uint32_t seed)
{
    static struct http1_client client;
    struct outcome o = { 0 };
    http1_client_init(&client);
    while (size > 0 && !o.broken) {
        seed = seed * 1103515245 + 12345;
        size_t cut = seed == 0 ? size : (seed >> 16) % 7 + 1;
        cut = cut < size ? cut : size;
        char *copy = malloc(cut); /* So that a sanitizer sees every byte beyond. */
        require(copy != NULL);
        memcpy(copy, data, cut);
        read_all(&client, (struct bytes){ copy, cut }, &o);
        free(copy);
        data += cut;
        size -= cut;
    }
    return o;
}

static struct outcome play_whole(const uint8_t *data, size_t size)
{
    static struct http1_client client;
    struct outcome o = { 0 };
    http1_client_init(&client);
    if (size > 0) {
        read_all(&client, (struct bytes){ (const char *)data, size }, &o);
    }
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0) {
        const struct outcome whole = play_whole(data + 1, size - 1);
        const struct outcome cut = play(data + 1, size - 1, data[0] + 1U);
        require(whole.answers == cut.answers && whole.statuses == cut.statuses &&
                whole.broken == cut.broken);
    }
    return 0;
}
