/*
 * Keys, from their file.
 *
 * The set in use is found and read under a lock; a new file makes a new set, which takes the old
 * one's place as a whole.  What is counted per name is kept apart and never freed before the end,
 * so that a call which is under way can say that it has ended without asking which set it came
 * from.
 *
 * A rate is kept as the time at which the next call would be due if calls came evenly.  A key that
 * was quiet may be ahead of that by BURST_NS, or by one call where its calls are further apart.
 */
#include "api/keys.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "net/secret.h"
#include "util/arena.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/mem.h"
#include "util/watch.h"
#include "util/yaml.h"

#define FILE_BYTES_MAX ((size_t)1 << 20)
#define BURST_NS NS_PER_S
#define CERTIFICATE_BYTES_MAX 64
#define PRIORITY_MAX 1000000
#define CONCURRENCY_MAX 1000000
#define WEIGHT_MAX 1000
#define RATE_MAX 1e6
#define RATE_MIN 1e-6

struct key {
    struct secret_digest digest; /* Where `hashed`. */
    struct bytes certificate;    /* Else. */
    bool hashed;
    const char *name;
    uint32_t line;
    struct key_grant grant;
};

/* One file's. */
struct key_set {
    struct arena arena;
    uint32_t count;
    struct key keys[KEYS_MAX];
};

struct keys {
    const char *path;
    struct watch watch;   /* For the one thread that reloads. */
    pthread_mutex_t lock; /* Guards the rest; held for look-ups and swaps, with nothing else. */
    struct key_set *set;
    struct list uses;
};

/* --- Words --- */

bool keys_groups(struct bytes word, uint32_t *out)
{
    static const struct {
        const char *text;
        uint32_t groups;
    } sets[] = {
#define SET_ROW(name, text, groups) { text, groups },
        KEYS_SETS(SET_ROW)
#undef SET_ROW
    };
    for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
        if (bytes_equal(word, bytes_of(sets[i].text))) {
            *out = sets[i].groups;
            return true;
        }
    }
    for (uint32_t i = 0; i < GROUP_COUNT; i++) {
        if (bytes_equal(word, bytes_of(route_group_text((enum route_group)i)))) {
            *out = 1U << i;
            return true;
        }
    }
    return false;
}

bool keys_is_name(struct bytes name)
{
    if (name.size == 0 || name.size >= KEYS_NAME_BYTES) {
        return false;
    }
    for (size_t i = 0; i < name.size; i++) {
        const char c = name.data[i];
        const char lower = (char)(c | 0x20);
        if (!(lower >= 'a' && lower <= 'z') && !(c >= '0' && c <= '9') && c != '.' && c != '_' &&
            c != '-' && c != '@') {
            return false;
        }
    }
    return true;
}

/* --- Reading --- */

struct reader {
    const char *path;
    struct key_set *set;
    struct weir_err *err;
};

/* A reader of one field of an entry. */
typedef enum weir_status field_fn(struct reader *r, const struct yaml *node, struct key *key);

static enum weir_status refuse(struct reader *r, const struct yaml *node, const char *expected)
{
    return err_set(r->err, WEIR_EINVAL, "%s:%u: %s: found '%s', expected %s", r->path, node->line,
                   node->key, node->kind == YAML_SCALAR ? node->text : "no text", expected);
}

static enum weir_status read_name(struct reader *r, const struct yaml *node, struct key *key)
{
    if (node->kind != YAML_SCALAR || !keys_is_name(bytes_of(node->text))) {
        return refuse(r, node, "1 to 64 of the characters A-Z a-z 0-9 . _ - @");
    }
    key->name = node->text;
    return WEIR_OK;
}

/* What stands there is not repeated: it might be the key itself, and this goes into a log. */
static enum weir_status read_hash(struct reader *r, const struct yaml *node, struct key *key)
{
    static const char scheme[] = "sha256:";
    const size_t size = sizeof(scheme) - 1;
    if (node->kind != YAML_SCALAR || strncmp(node->text, scheme, size) != 0 ||
        !secret_unhex(bytes_of(node->text + size), &key->digest)) {
        return err_set(r->err, WEIR_EINVAL,
                       "%s:%u: hash: expected sha256: and 64 hexadecimal digits, as `weir key` "
                       "prints them",
                       r->path, node->line);
    }
    key->hashed = true;
    return WEIR_OK;
}

static enum weir_status read_certificate(struct reader *r, const struct yaml *node, struct key *key)
{
    if (node->kind != YAML_SCALAR || node->text[0] == '\0' ||
        strlen(node->text) > CERTIFICATE_BYTES_MAX) {
        return refuse(r, node, "the common name of a client's certificate");
    }
    key->certificate = bytes_of(node->text);
    return WEIR_OK;
}

static enum weir_status read_allow(struct reader *r, const struct yaml *node, struct key *key)
{
    static const char expected[] = "a list of use, manage, all or groups such as inference";
    if (node->kind != YAML_LIST || node->first == NULL) {
        return refuse(r, node, expected);
    }
    for (const struct yaml *word = node->first; word != NULL; word = word->next) {
        uint32_t groups = 0;
        if (word->kind != YAML_SCALAR || !keys_groups(bytes_of(word->text), &groups)) {
            return err_set(r->err, WEIR_EINVAL, "%s:%u: allow: found '%s', expected %s", r->path,
                           word->line, word->kind == YAML_SCALAR ? word->text : "no text",
                           expected);
        }
        key->grant.groups |= groups;
    }
    return WEIR_OK;
}

static enum weir_status read_number(struct reader *r, const struct yaml *node, int64_t max,
                                    uint32_t *out)
{
    int64_t number = 0;
    const enum weir_status status = yaml_i64(node, r->path, 1, max, &number, r->err);
    if (status == WEIR_OK) {
        *out = (uint32_t)number;
    }
    return status;
}

static enum weir_status read_priority(struct reader *r, const struct yaml *node, struct key *key)
{
    return read_number(r, node, PRIORITY_MAX, &key->grant.priority);
}

static enum weir_status read_weight(struct reader *r, const struct yaml *node, struct key *key)
{
    return read_number(r, node, WEIGHT_MAX, &key->grant.weight);
}

static enum weir_status read_concurrency(struct reader *r, const struct yaml *node, struct key *key)
{
    return read_number(r, node, CONCURRENCY_MAX, &key->grant.concurrency);
}

static enum weir_status read_rate(struct reader *r, const struct yaml *node, struct key *key)
{
    double rate = 0;
    const enum weir_status status = yaml_double(node, r->path, RATE_MIN, RATE_MAX, &rate, r->err);
    if (status == WEIR_OK) {
        key->grant.interval_ns = (uint64_t)((double)NS_PER_S / rate);
    }
    return status;
}

static const struct {
    const char *name;
    field_fn *read;
} fields[] = {
    { "name", read_name },     { "hash", read_hash },         { "certificate", read_certificate },
    { "allow", read_allow },   { "priority", read_priority }, { "concurrency", read_concurrency },
    { "weight", read_weight }, { "rate", read_rate },
};

static enum weir_status read_field(struct reader *r, const struct yaml *node, struct key *key)
{
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        if (strcmp(fields[i].name, node->key) == 0) {
            return fields[i].read(r, node, key);
        }
    }
    return err_set(r->err, WEIR_EINVAL,
                   "%s:%u: unknown field '%s', expected name, hash or certificate, allow, "
                   "priority, weight, concurrency or rate",
                   r->path, node->key_line, node->key);
}

static enum weir_status check_entry(struct reader *r, const struct key *key)
{
    const bool certified = key->certificate.data != NULL;
    if (key->name == NULL || key->grant.groups == 0 || key->hashed == certified) {
        return err_set(r->err, WEIR_EINVAL,
                       "%s:%u: expected a name, either a hash or a certificate, and what to allow",
                       r->path, key->line);
    }
    for (uint32_t i = 0; i < r->set->count; i++) {
        const struct key *other = &r->set->keys[i];
        const bool same = key->hashed ? other->hashed && secret_same(&other->digest, &key->digest)
                                      : bytes_equal(other->certificate, key->certificate);
        if (same || strcmp(other->name, key->name) == 0) {
            return err_set(r->err, WEIR_EINVAL,
                           "%s:%u: the same %s as in line %u, expected another", r->path, key->line,
                           same ? "key" : "name", other->line);
        }
    }
    return WEIR_OK;
}

static enum weir_status read_entry(struct reader *r, const struct yaml *entry)
{
    struct key key = { .line = entry->line };
    if (entry->kind != YAML_MAP) {
        return err_set(r->err, WEIR_EINVAL,
                       "%s:%u: expected a map such as { name: alice, hash: ..., allow: [use] }",
                       r->path, entry->line);
    }
    enum weir_status status = WEIR_OK;
    for (const struct yaml *node = entry->first; node != NULL && status == WEIR_OK;
         node = node->next) {
        status = read_field(r, node, &key);
    }
    if (status == WEIR_OK) {
        status = check_entry(r, &key);
    }
    if (status == WEIR_OK && r->set->count == KEYS_MAX) {
        return err_set(r->err, WEIR_ETOOBIG, "%s:%u: more than %d keys", r->path, entry->line,
                       KEYS_MAX);
    }
    if (status == WEIR_OK) {
        r->set->keys[r->set->count++] = key;
    }
    return status;
}

static enum weir_status read_entries(struct reader *r, const struct yaml *root)
{
    const bool empty = root->kind == YAML_MAP && root->first == NULL;
    if (root->kind != YAML_LIST && !empty) {
        return err_set(r->err, WEIR_EINVAL,
                       "%s: expected a list of keys, each as `weir key` prints it", r->path);
    }
    for (const struct yaml *entry = root->first; entry != NULL; entry = entry->next) {
        const enum weir_status status = read_entry(r, entry);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

static void destroy_set(struct key_set *set)
{
    if (set != NULL) {
        arena_finish(&set->arena);
        mem_free(set);
    }
}

static enum weir_status read_file(const char *path, struct key_set **out, struct weir_err *err)
{
    struct key_set *set = mem_try_zero(1, sizeof(*set));
    if (set == NULL) {
        return err_nomem(err, path, sizeof(*set));
    }
    arena_init(&set->arena, NULL, 0, 0);
    struct reader reader = { path, set, err };
    struct buffer text = { 0 };
    struct yaml *root = NULL;
    enum weir_status status = file_read(AT_FDCWD, path, FILE_BYTES_MAX, &text, err);
    if (status == WEIR_OK) {
        status = yaml_parse(&set->arena, path, (struct bytes){ text.data, text.size }, &root, err);
    }
    if (status == WEIR_OK) {
        status = read_entries(&reader, root);
    }
    buffer_finish(&text);
    if (status != WEIR_OK) {
        destroy_set(set);
        return status;
    }
    *out = set;
    return WEIR_OK;
}

/* --- The set in use --- */

/* The one of that name, made where there is none; NULL when memory is out.  Reloading thread or
 * start. */
static struct key_use *use_of(struct keys *keys, const char *name)
{
    for (struct list_node *node = list_first(&keys->uses); node != NULL;
         node = list_next(&keys->uses, node)) {
        struct key_use *use = list_entry(node, struct key_use, node);
        if (strcmp(use->name, name) == 0) {
            return use;
        }
    }
    struct key_use *use = mem_try_zero(1, sizeof(*use));
    if (use != NULL) {
        (void)snprintf(use->name, sizeof(use->name), "%s", name);
        list_append(&keys->uses, &use->node);
    }
    return use;
}

/* Takes `set`'s place in the server. */
static enum weir_status take_set(struct keys *keys, struct key_set *set, struct weir_err *err)
{
    pthread_mutex_lock(&keys->lock);
    bool good = true;
    for (uint32_t i = 0; i < set->count && good; i++) {
        set->keys[i].grant.use = use_of(keys, set->keys[i].name);
        good = set->keys[i].grant.use != NULL;
    }
    struct key_set *over = good ? keys->set : set;
    keys->set = good ? set : keys->set;
    pthread_mutex_unlock(&keys->lock);
    destroy_set(over);
    return good ? WEIR_OK : err_nomem(err, keys->path, sizeof(struct key_use));
}

static enum weir_status read_all(struct keys *keys, struct weir_err *err)
{
    struct key_set *set = NULL;
    const enum weir_status status = read_file(keys->path, &set, err);
    if (status != WEIR_OK) {
        (void)err_prefix(err, "api_keys");
        return status;
    }
    return take_set(keys, set, err);
}

enum weir_status keys_create(const char *path, struct keys **out, struct weir_err *err)
{
    struct keys *keys = mem_alloc(sizeof(*keys));
    keys->path = path;
    list_init(&keys->uses);
    pthread_mutex_init(&keys->lock, NULL);
    (void)watch_look(&keys->watch, path);
    const enum weir_status status = read_all(keys, err);
    if (status != WEIR_OK) {
        keys_destroy(keys);
        return status;
    }
    *out = keys;
    return WEIR_OK;
}

void keys_destroy(struct keys *keys)
{
    if (keys == NULL) {
        return;
    }
    destroy_set(keys->set);
    for (struct list_node *node = list_pop(&keys->uses); node != NULL;
         node = list_pop(&keys->uses)) {
        mem_free(list_entry(node, struct key_use, node));
    }
    pthread_mutex_destroy(&keys->lock);
    mem_free(keys);
}

enum weir_status keys_reload(struct keys *keys, bool force, bool *changed, struct weir_err *err)
{
    *changed = false;
    if (!watch_look(&keys->watch, keys->path) && !force) {
        return WEIR_OK;
    }
    const enum weir_status status = read_all(keys, err);
    *changed = status == WEIR_OK;
    return status;
}

uint32_t keys_count(struct keys *keys)
{
    pthread_mutex_lock(&keys->lock);
    const uint32_t count = keys->set->count;
    pthread_mutex_unlock(&keys->lock);
    return count;
}

/* Every key is looked at, whether or not one has been found. */
bool keys_find(struct keys *keys, struct bytes secret, struct key_grant *out)
{
    const struct secret_digest digest = secret_digest(secret);
    uint32_t found = KEYS_MAX;
    pthread_mutex_lock(&keys->lock);
    const struct key_set *set = keys->set;
    for (uint32_t i = 0; i < set->count; i++) {
        const bool same = set->keys[i].hashed & secret_same(&set->keys[i].digest, &digest);
        found = same ? i : found;
    }
    if (found < KEYS_MAX) {
        *out = set->keys[found].grant;
    }
    pthread_mutex_unlock(&keys->lock);
    return found < KEYS_MAX;
}

bool keys_find_certificate(struct keys *keys, struct bytes name, struct key_grant *out)
{
    bool found = false;
    pthread_mutex_lock(&keys->lock);
    const struct key_set *set = keys->set;
    for (uint32_t i = 0; i < set->count && name.size > 0 && !found; i++) {
        found = !set->keys[i].hashed && bytes_equal(set->keys[i].certificate, name);
        if (found) {
            *out = set->keys[i].grant;
        }
    }
    pthread_mutex_unlock(&keys->lock);
    return found;
}

void keys_each(struct keys *keys, void (*visit)(void *context, const struct key_use *use),
               void *context)
{
    pthread_mutex_lock(&keys->lock);
    for (struct list_node *node = list_first(&keys->uses); node != NULL;
         node = list_next(&keys->uses, node)) {
        visit(context, list_entry(node, struct key_use, node));
    }
    pthread_mutex_unlock(&keys->lock);
}

/* --- Use --- */

/* True when a call is due now, which moves the next one on; else *wait_ns is how long it has to
 * wait. */
static bool is_due(struct key_use *use, uint64_t interval_ns, uint64_t now_ns, uint64_t *wait_ns)
{
    const uint64_t ahead_ns = interval_ns > BURST_NS ? 0 : BURST_NS - interval_ns;
    uint64_t due_ns = atomic_load_explicit(&use->due_ns, memory_order_relaxed);
    uint64_t next_ns;
    do {
        if (due_ns > clock_add(now_ns, ahead_ns)) {
            *wait_ns = due_ns - now_ns - ahead_ns;
            return false;
        }
        next_ns = clock_add(due_ns > now_ns ? due_ns : now_ns, interval_ns);
    } while (!atomic_compare_exchange_weak_explicit(&use->due_ns, &due_ns, next_ns,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static enum weir_status refuse_use(struct key_use *use, struct weir_err *err, const char *what)
{
    atomic_fetch_add_explicit(&use->refused, 1, memory_order_relaxed);
    return err_set(err, WEIR_ERATE, "the key '%s' has reached its %s", use->name, what);
}

enum weir_status key_enter(const struct key_grant *grant, uint64_t now_ns, uint64_t *retry_ns,
                           struct weir_err *err)
{
    struct key_use *use = grant->use;
    const uint64_t running = atomic_fetch_add_explicit(&use->running, 1, memory_order_relaxed);
    enum weir_status status = WEIR_OK;
    if (grant->concurrency > 0 && running >= grant->concurrency) {
        *retry_ns = NS_PER_S;
        status = refuse_use(use, err, "limit of calls at a time");
    } else if (grant->interval_ns > 0 && !is_due(use, grant->interval_ns, now_ns, retry_ns)) {
        status = refuse_use(use, err, "limit of calls per second");
    }
    if (status != WEIR_OK) {
        key_leave(use);
        return status;
    }
    atomic_fetch_add_explicit(&use->calls, 1, memory_order_relaxed);
    return WEIR_OK;
}

void key_leave(struct key_use *use)
{
    atomic_fetch_sub_explicit(&use->running, 1, memory_order_relaxed);
}

/* --- Making --- */

bool keys_make(char secret[KEYS_SECRET_BYTES], char hash[80])
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint8_t random[33] = { 0 }; /* 256 bits, and one byte that fills the last letters. */
    if (!secret_random(random, 32)) {
        return false;
    }
    size_t at = (size_t)snprintf(secret, KEYS_SECRET_BYTES, "%s", KEYS_PREFIX);
    for (size_t i = 0; i < 33; i += 3) {
        const uint32_t bits =
            (uint32_t)random[i] << 16 | (uint32_t)random[i + 1] << 8 | random[i + 2];
        for (int shift = 18; shift >= 0; shift -= 6) {
            secret[at++] = letters[bits >> shift & 63];
        }
    }
    secret[at - 1] = '\0'; /* 43 letters hold it all. */
    secret_wipe(random, sizeof(random));
    const struct secret_digest digest = secret_digest(bytes_of(secret));
    char hex[SECRET_HEX_BYTES];
    secret_hex(&digest, hex);
    (void)snprintf(hash, 80, "sha256:%s", hex);
    return true;
}
