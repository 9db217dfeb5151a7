#include "api/access.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/call.h"
#include "net/secret.h"
#include "util/clock.h"
#include "util/mem.h"

#define GRPC_HEADER_PREFIX "triton-grpc-protocol-"
#define HEADER_BYTES_MAX 128
#define QUOTED_MAX 100
#define PREFLIGHT_S "600"

/* What pages may read of an answer, and send, besides what browsers allow anyway. */
#define EXPOSED                                                                                \
    "Inference-Header-Content-Length, X-Request-Id, traceparent, Server-Timing, Retry-After, " \
    "WWW-Authenticate"
#define ACCEPTED                                                                                  \
    "Authorization, X-Api-Key, Content-Type, Content-Encoding, Inference-Header-Content-Length, " \
    "Weir-Deadline-Ms, Weir-Timing, X-Request-Id, traceparent"

/* The header that a group of calls needs. */
struct restriction {
    char *header; /* NULL: none. */
    struct secret_digest value;
};

struct access {
    struct access_options options;
    struct keys *keys;
    uint32_t open_groups;
    struct restriction http[GROUP_COUNT];
    struct restriction grpc[GROUP_COUNT];
    bool any_origin;
};

/* --- Setting up --- */

static enum weir_status unknown_group(struct weir_err *err, const char *option, struct bytes word)
{
    return err_set(err, WEIR_EINVAL,
                   "%s: found '%.*s', expected a group of calls: health, metadata, inference, "
                   "shared-memory, model-config, model-repository, statistics, trace, logging or "
                   "metrics",
                   option, word.size > QUOTED_MAX ? QUOTED_MAX : (int)word.size, word.data);
}

static enum weir_status read_open_groups(struct access *access, struct weir_err *err)
{
    const struct access_words *words = &access->options.open_groups;
    for (uint64_t i = 0; i < words->count; i++) {
        uint32_t groups = 0;
        if (!keys_groups(bytes_of(words->items[i]), &groups)) {
            return unknown_group(err, "open_groups", bytes_of(words->items[i]));
        }
        access->open_groups |= groups;
    }
    return WEIR_OK;
}

static bool is_header_name(struct bytes name)
{
    for (size_t i = 0; i < name.size; i++) {
        const char c = name.data[i];
        if (c <= ' ' || c >= 127 || strchr("\"(),/:;<=>?@[\\]{}", c) != NULL) {
            return false;
        }
    }
    return name.size > 0 && name.size < HEADER_BYTES_MAX;
}

/* "HEADER=VALUE" for every group of `groups`. */
static enum weir_status restrict_groups(struct restriction *restrictions, const char *option,
                                        const char *prefix, uint32_t groups, const char *text,
                                        struct weir_err *err)
{
    const char *equals = strchr(text, '=');
    const struct bytes name = { text, equals == NULL ? 0 : (size_t)(equals - text) };
    if (equals == NULL || !is_header_name(name) || equals[1] == '\0') {
        return err_set(err, WEIR_EINVAL,
                       "%s: expected GROUP:HEADER=VALUE such as model-repository:admin-key=secret",
                       option);
    }
    for (uint32_t i = 0; i < GROUP_COUNT; i++) {
        if ((groups >> i & 1) == 0) {
            continue;
        }
        if (restrictions[i].header != NULL) {
            return err_set(err, WEIR_EINVAL, "%s: group '%s' is there twice, expected once", option,
                           route_group_text((enum route_group)i));
        }
        char header[2 * HEADER_BYTES_MAX];
        (void)snprintf(header, sizeof(header), "%s%.*s", prefix, (int)name.size, name.data);
        restrictions[i].header = mem_strdup(header);
        restrictions[i].value = secret_digest(bytes_of(equals + 1));
    }
    return WEIR_OK;
}

/* The list was cut at its commas, and so were the groups that share a header. */
static enum weir_status read_restrictions(struct restriction *restrictions,
                                          const struct access_words *words, const char *option,
                                          const char *prefix, struct weir_err *err)
{
    uint32_t groups = 0;
    for (uint64_t i = 0; i < words->count; i++) {
        const char *colon = strchr(words->items[i], ':');
        const struct bytes word = { words->items[i], colon == NULL
                                                         ? strlen(words->items[i])
                                                         : (size_t)(colon - words->items[i]) };
        uint32_t more = 0;
        if (!keys_groups(word, &more)) {
            return unknown_group(err, option, word);
        }
        groups |= more;
        if (colon != NULL) {
            const enum weir_status status =
                restrict_groups(restrictions, option, prefix, groups, colon + 1, err);
            if (status != WEIR_OK) {
                return status;
            }
            groups = 0;
        }
    }
    return groups == 0 ? WEIR_OK
                       : err_set(err, WEIR_EINVAL,
                                 "%s: the last group has no header, expected "
                                 "GROUP[,GROUP]:HEADER=VALUE",
                                 option);
}

static enum weir_status read_origins(struct access *access, struct weir_err *err)
{
    const struct access_words *words = &access->options.origins;
    for (uint64_t i = 0; i < words->count; i++) {
        const char *origin = words->items[i];
        const char *slashes = strstr(origin, "://");
        if (strcmp(origin, "*") == 0) {
            access->any_origin = true;
        } else if (slashes == NULL || slashes == origin || slashes[3] == '\0' ||
                   strchr(slashes + 3, '/') != NULL) {
            return err_set(err, WEIR_EINVAL,
                           "cors_origins: found '%s', expected an origin such as "
                           "https://app.example.org, without a path, or *",
                           origin);
        }
    }
    return WEIR_OK;
}

enum weir_status access_create(const struct access_options *options, struct access **out,
                               struct weir_err *err)
{
    struct access *access = mem_alloc(sizeof(*access));
    access->options = *options;
    enum weir_status status = read_open_groups(access, err);
    if (status == WEIR_OK) {
        status = read_restrictions(access->http, &options->http_restricted, "http_restricted_api",
                                   "", err);
    }
    if (status == WEIR_OK) {
        status = read_restrictions(access->grpc, &options->grpc_restricted,
                                   "grpc_restricted_protocol", GRPC_HEADER_PREFIX, err);
    }
    if (status == WEIR_OK) {
        status = read_origins(access, err);
    }
    if (status == WEIR_OK && options->keys[0] != '\0') {
        status = keys_create(options->keys, &access->keys, err);
    }
    if (status != WEIR_OK) {
        access_destroy(access);
        return status;
    }
    *out = access;
    return WEIR_OK;
}

void access_destroy(struct access *access)
{
    if (access == NULL) {
        return;
    }
    keys_destroy(access->keys);
    for (uint32_t i = 0; i < GROUP_COUNT; i++) {
        mem_free(access->http[i].header);
        mem_free(access->grpc[i].header);
    }
    mem_free(access);
}

struct keys *access_keys(struct access *access)
{
    return access->keys;
}

/* --- Web pages --- */

/* The "host:port" of "http://host:port". */
static struct bytes without_scheme(struct bytes text)
{
    for (size_t i = 0; i + 2 < text.size; i++) {
        if (memcmp(text.data + i, "://", 3) == 0) {
            return (struct bytes){ text.data + i + 3, text.size - i - 3 };
        }
    }
    return text;
}

/* The host of "host:port". */
static struct bytes host_part(struct bytes text)
{
    const char *end = text.size > 0 && text.data[0] == '[' ? memchr(text.data, ']', text.size)
                                                           : memchr(text.data, ':', text.size);
    if (end != NULL) {
        text.size = (size_t)(end - text.data) + (*end == ']');
    }
    return text;
}

/* A name can be pointed anywhere by whoever owns it; these cannot. */
static bool is_fixed_host(struct bytes host)
{
    if (host.size == 0 || bytes_equal_nocase(host, BYTES_LITERAL("localhost"))) {
        return host.size > 0;
    }
    if (host.data[0] == '[') {
        return true;
    }
    for (size_t i = 0; i < host.size; i++) {
        if (host.data[i] != '.' && (host.data[i] < '0' || host.data[i] > '9')) {
            return false;
        }
    }
    return true;
}

/* Clients on this machine have no use for a name of the outside world; a page that had one pointed
 * here (DNS rebinding) has nothing else to call. */
static bool is_outside_name(const struct call *call)
{
    const struct bytes peer = call->x->peer;
    const struct bytes host = host_part(call->fields[FIELD_HOST]);
    const bool local = (peer.size > 4 && memcmp(peer.data, "127.", 4) == 0) ||
                       (peer.size > 5 && memcmp(peer.data, "[::1]", 5) == 0);
    return local && !is_fixed_host(host) && host.size > 0 &&
           memchr(host.data, '.', host.size) != NULL;
}

/* What changes the server, and what tells how it is set. */
static bool is_administration(enum route_group group)
{
    return group == GROUP_MODEL_REPOSITORY || group == GROUP_LOGGING || group == GROUP_TRACE ||
           group == GROUP_SHARED_MEMORY;
}

static bool is_listed(const struct access *access, struct bytes origin)
{
    if (access == NULL || origin.data == NULL) {
        return false;
    }
    const struct access_words *words = &access->options.origins;
    for (uint64_t i = 0; i < words->count; i++) {
        if (bytes_equal_nocase(origin, bytes_of(words->items[i]))) {
            return true;
        }
    }
    return false;
}

/* A browser says with Origin where a page comes from, except where a page only reads from its own
 * site; and a page that had its own name point here shows in Host.  Where keys are asked for such a
 * page has none, so names are trusted then. */
static enum weir_status check_web(const struct access *access, const struct call *call,
                                  enum route_group group, struct weir_err *err)
{
    const struct bytes origin = call->fields[FIELD_ORIGIN];
    const struct bytes host = call->fields[FIELD_HOST];
    const bool keyed = access != NULL && access->keys != NULL;
    if (!is_administration(group) || is_listed(access, origin)) {
        return WEIR_OK;
    }
    if (origin.data == NULL && !keyed && is_outside_name(call)) {
        return err_set(err, WEIR_EFORBIDDEN,
                       "administration of a server named '%.*s' is not allowed from its own "
                       "machine: call it localhost, or by its address",
                       host.size > QUOTED_MAX ? QUOTED_MAX : (int)host.size, host.data);
    }
    if (origin.data == NULL ||
        (bytes_equal_nocase(without_scheme(origin), host) && is_fixed_host(host_part(host)))) {
        return WEIR_OK;
    }
    return err_set(
        err, WEIR_EFORBIDDEN,
        "administration from a web page of '%.*s' is not allowed: its origin must be this "
        "server's own address, or one of cors_origins",
        origin.size > QUOTED_MAX ? QUOTED_MAX : (int)origin.size, origin.data);
}

/* True when the page that asks may read the answer. */
static bool is_shared(const struct access *access, struct bytes origin)
{
    return access != NULL && origin.data != NULL &&
           (access->any_origin || is_listed(access, origin));
}

void access_share(struct access *access, struct call *call)
{
    const struct bytes origin = call->fields[FIELD_ORIGIN];
    if (access == NULL || access->options.origins.count == 0) {
        return;
    }
    if (!access->any_origin) {
        exchange_header(call->x, "Vary", BYTES_LITERAL("Origin"));
    }
    if (is_shared(access, origin)) {
        exchange_header(call->x, "Access-Control-Allow-Origin",
                        access->any_origin ? BYTES_LITERAL("*") : origin);
        exchange_header(call->x, "Access-Control-Expose-Headers", BYTES_LITERAL(EXPOSED));
    }
}

bool access_preflight(struct access *access, struct call *call, uint32_t allow)
{
    struct exchange *x = call->x;
    if (x->method != HTTP_OPTIONS || !is_shared(access, call->fields[FIELD_ORIGIN]) ||
        exchange_field(x, "access-control-request-method").data == NULL) {
        return false;
    }
    char methods[ROUTE_ALLOW_BYTES];
    exchange_header(x, "Access-Control-Allow-Methods",
                    bytes_of(route_allow_format(allow, methods)));
    exchange_header(x, "Access-Control-Allow-Headers", BYTES_LITERAL(ACCEPTED));
    exchange_header(x, "Access-Control-Max-Age", BYTES_LITERAL(PREFLIGHT_S));
    exchange_reply(x, 204, NULL, (struct bytes){ NULL, 0 });
    return true;
}

/* --- Restricted groups --- */

static enum weir_status check_header(const struct access *access, const struct call *call,
                                     enum route_group group, struct weir_err *err)
{
    const struct restriction *needed =
        call->rpc != NULL ? &access->grpc[group] : &access->http[group];
    if (needed->header == NULL) {
        return WEIR_OK;
    }
    const struct bytes value = exchange_field(call->x, needed->header);
    const struct secret_digest digest = secret_digest(value);
    if (value.data != NULL && secret_same(&digest, &needed->value)) {
        return WEIR_OK;
    }
    return err_set(err, WEIR_EFORBIDDEN, "This %s is restricted, expecting header '%s'",
                   call->rpc != NULL ? "protocol" : "API", needed->header);
}

/* --- Keys --- */

/* The token of "Bearer TOKEN", else X-Api-Key; data NULL where there is neither. */
static struct bytes presented_key(const struct call *call)
{
    static const char scheme[] = "bearer ";
    const size_t size = sizeof(scheme) - 1;
    struct bytes text = call->fields[FIELD_AUTHORIZATION];
    if (text.data == NULL) {
        return call->fields[FIELD_API_KEY];
    }
    if (text.size <= size ||
        !bytes_equal_nocase((struct bytes){ text.data, size }, (struct bytes){ scheme, size })) {
        return (struct bytes){ "", 0 }; /* Other schemes fit no key. */
    }
    text.data += size;
    text.size -= size;
    while (text.size > 0 && text.data[0] == ' ') {
        text.data++;
        text.size--;
    }
    return text;
}

/* Who asks?  WEIR_EUNAUTH: nobody we know. */
static enum weir_status identify(struct access *access, const struct call *call,
                                 struct key_grant *out, struct weir_err *err)
{
    const struct bytes key = presented_key(call);
    if (key.data != NULL) {
        return keys_find(access->keys, key, out)
                   ? WEIR_OK
                   : err_set(err, WEIR_EUNAUTH, "the key is not known here");
    }
    if (keys_find_certificate(access->keys, call->x->client, out)) {
        return WEIR_OK;
    }
    return err_set(err, WEIR_EUNAUTH,
                   "a key is needed: expected Authorization: Bearer KEY, or X-Api-Key: KEY");
}

/* The exchange, and with it the call, is over. */
static void leave(struct arena_disposable *disposable)
{
    struct call *call = list_entry(disposable, struct call, leave);
    if (call->has_place) {
        key_leave(call->grant.use);
    }
}

static enum weir_status enter_now(const struct call *call, const struct key_grant *grant,
                                  uint64_t *retry_s, struct weir_err *err)
{
    uint64_t retry_ns = 0;
    const uint64_t now_ns = clock_now_ns(call->api->options.engine->clock);
    const enum weir_status status = key_enter(grant, now_ns, &retry_ns, err);
    *retry_s = (retry_ns + NS_PER_S - 1) / NS_PER_S;
    return status;
}

static enum weir_status enter(struct call *call, const struct key_grant *grant,
                              struct weir_err *err)
{
    const enum weir_status status = enter_now(call, grant, &call->retry_s, err);
    if (status == WEIR_OK) {
        call->grant = *grant;
        call->has_place = true;
        call->leave.dispose = leave;
        arena_dispose(&call->x->arena, &call->leave);
        return WEIR_OK;
    }
    if (call->rpc == NULL) {
        char text[24];
        (void)snprintf(text, sizeof(text), "%" PRIu64, call->retry_s);
        exchange_header(call->x, "Retry-After", bytes_of(text));
    }
    return status;
}

static enum weir_status check_key(struct access *access, struct call *call, enum route_group group,
                                  struct weir_err *err)
{
    struct key_grant grant = { 0 };
    const bool open = (access->open_groups >> group & 1) != 0;
    const enum weir_status status = identify(access, call, &grant, err);
    if (open && (status != WEIR_OK || (grant.groups >> group & 1) == 0)) {
        return WEIR_OK;
    }
    if (status != WEIR_OK) {
        if (call->rpc == NULL) {
            exchange_header(call->x, "WWW-Authenticate",
                            presented_key(call).data == NULL
                                ? BYTES_LITERAL("Bearer realm=\"weir\"")
                                : BYTES_LITERAL("Bearer realm=\"weir\", error=\"invalid_token\""));
        }
        return status;
    }
    if ((grant.groups >> group & 1) == 0) {
        return err_set(err, WEIR_EFORBIDDEN, "the key '%s' does not allow calls of group '%s'",
                       grant.use->name, route_group_text(group));
    }
    return enter(call, &grant, err);
}

enum weir_status access_enter(struct access *access, struct call *call, enum route_group group,
                              struct weir_err *err)
{
    enum weir_status status = check_web(access, call, group, err);
    if (status == WEIR_OK && access != NULL) {
        status = check_header(access, call, group, err);
    }
    if (status == WEIR_OK && access != NULL && access->keys != NULL) {
        status = check_key(access, call, group, err);
    }
    return status;
}

enum weir_status access_enter_message(struct call *call, struct key_use **out, uint64_t *retry_s,
                                      struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    *retry_s = 0;
    if (call->grant.use != NULL && !call->has_place) {
        status = enter_now(call, &call->grant, retry_s, err);
    }
    if (status == WEIR_OK) {
        *out = call->grant.use;
        call->has_place = false;
    }
    return status;
}
