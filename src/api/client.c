#include "api/client.h"

#include "api/call.h"
#include "net/http.h"
#include "util/map.h"

/* What a name is, so that a field of a request cannot pass for a key. */
enum client_kind { CLIENT_KEY = 1, CLIENT_FIELD, CLIENT_ADDRESS };

static uint64_t digest(enum client_kind kind, struct bytes name)
{
    const uint64_t value = map_hash(name.data, name.size) + (uint64_t)kind;
    return value != 0 ? value : 1;
}

/* "192.0.2.7:4711" without its port; the one user of a Unix socket is as good as another. */
static struct bytes address_of(struct bytes peer)
{
    size_t size = peer.size;
    while (size > 0 && peer.data[size - 1] != ':') {
        size--;
    }
    return size > 0 ? (struct bytes){ peer.data, size - 1 } : peer;
}

struct client client_of(const struct call *call)
{
    struct client client = { .weight = call->grant.weight > 0 ? call->grant.weight : 1,
                             .priority_best = call->grant.priority };
    const struct key_use *key = call->grant.use;
    const char *name = call->api->options.client_header;
    const struct bytes field =
        key != NULL || name == NULL ? (struct bytes){ NULL, 0 } : exchange_field(call->x, name);
    if (key != NULL) {
        client.digest = digest(CLIENT_KEY, bytes_of(key->name));
    } else if (field.size > 0) {
        client.digest = digest(CLIENT_FIELD, field);
    } else {
        uint64_t *kept = call->x->peer_memo;
        *kept = *kept != 0 ? *kept : digest(CLIENT_ADDRESS, address_of(call->x->peer));
        client.digest = *kept;
    }
    return client;
}
