/*
 * The load generator's end of HTTP/2: whatever a server sends, however it is cut, every call ends
 * at most once, and none that never began.
 *
 * The first byte seeds the cuts, the rest is what the server sends; a few calls are under way.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "net/http2_mux.h"

#define CALLS 6

static void require(bool promise)
{
    if (!promise) {
        abort();
    }
}

struct peer {
    struct http2_mux *mux;
    struct http2_head head;
    uint32_t begun;
    uint32_t ended[CALLS];
};

static void on_answer(void *user, uint32_t tag, const struct http2_mux_answer *answer)
{
    struct peer *peer = user;
    require(tag < peer->begun && peer->ended[tag] == 0 && answer->text.size <= HTTP2_MUX_TEXT_MAX);
    peer->ended[tag]++;
}

static void turn(struct peer *peer)
{
    static const char body[70000];
    while (peer->begun < CALLS && http2_mux_room(peer->mux) > 0) {
        const size_t size = peer->begun % 3 == 2 ? sizeof(body) : 20 * peer->begun;
        (void)http2_mux_begin(peer->mux, &peer->head, (struct bytes){ body, size }, peer->begun);
        peer->begun++;
    }
    struct bytes pieces[HTTP2_OUT_PIECES_MAX];
    const uint32_t count = http2_mux_output(peer->mux, pieces);
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        require(pieces[i].size > 0);
        size += pieces[i].size;
    }
    http2_mux_sent(peer->mux, size > 50 ? size - size % 3000 : size);
}

static void play(struct peer *peer, const uint8_t *data, size_t size, uint32_t seed)
{
    enum weir_status status = WEIR_OK;
    while (size > 0 && status == WEIR_OK) {
        seed = seed * 1103515245 + 12345;
        size_t cut = (seed >> 16) % 50 + 1;
        cut = cut < size ? cut : size;
        char *copy = malloc(cut);
        require(copy != NULL);
        memcpy(copy, data, cut);
        status = http2_mux_input(peer->mux, (struct bytes){ copy, cut }, NULL);
        free(copy);
        turn(peer);
        data += cut;
        size -= cut;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct http2_client_field fields[] = {
        { { ":method", 7 }, { "POST", 4 } },
        { { ":path", 5 }, { "/s/m", 4 } },
    };
    struct peer peer = { 0 };
    struct http2_plan *plan = http2_plan_create();
    require(plan != NULL && http2_plan_head(plan, fields, 2, &peer.head, NULL) == WEIR_OK);
    const struct http2_mux_options options = { .streams_max = 4,
                                               .answered = on_answer,
                                               .user = &peer };
    peer.mux = http2_mux_create(plan, &options);
    require(peer.mux != NULL);
    if (size > 0) {
        play(&peer, data + 1, size - 1, data[0]);
    }
    uint32_t at = 0;
    uint32_t tag;
    uint32_t left = 0;
    while (http2_mux_next(peer.mux, &at, &tag)) {
        require(tag < peer.begun && peer.ended[tag] == 0);
        left++;
    }
    require(left == http2_mux_active(peer.mux));
    http2_mux_destroy(peer.mux);
    http2_plan_destroy(plan);
    return 0;
}
