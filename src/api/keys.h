/*
 * keys.h — who may call what: a file of hashed keys, and how much each is used.
 *
 *     - { name: alice, hash: "sha256:9f86d0...", allow: [use], priority: 2, weight: 4, concurrency: 8,
 *         rate: 100 }
 *     - { name: robot, certificate: robot.example.org, allow: [all] }
 *
 * A key is 256 random bits, so its plain SHA-256 gives nothing away that could be guessed: salt and
 * a slow hash are for passwords, which people choose.  A key that is presented is hashed and
 * compared with every hash there is, in a time that tells neither whether nor where one fits.
 *
 * Any thread.  How much a key is used is kept by its name, so it survives a new file.
 */
#ifndef WEIR_API_KEYS_H
#define WEIR_API_KEYS_H

#include <stdatomic.h>
#include <stdint.h>

#include "api/route.h"
#include "util/bytes.h"
#include "util/err.h"
#include "util/list.h"

#define KEYS_MAX 1024
#define KEYS_NAME_BYTES 65 /* With its NUL. */
#define KEYS_PREFIX "weir_"
#define KEYS_SECRET_BYTES 64 /* Of a key as people copy it, with its NUL. */

/* Sets of groups that have a name.  X(name, text, groups): what they are for. */
#define KEYS_USE                                                         \
    (1U << GROUP_HEALTH | 1U << GROUP_METADATA | 1U << GROUP_INFERENCE | \
     1U << GROUP_MODEL_CONFIG | 1U << GROUP_STATISTICS)
#define KEYS_ALL ((1U << GROUP_COUNT) - 1)
#define KEYS_SETS(X)                       \
    X(USE, "use", KEYS_USE)                \
    X(MANAGE, "manage", KEYS_ALL & ~KEYS_USE) \
    X(ALL, "all", KEYS_ALL)

/* How much the key of one name is used; lives as long as the struct keys. */
struct key_use {
    struct list_node node;
    char name[KEYS_NAME_BYTES];
    _Atomic uint64_t running;
    _Atomic uint64_t due_ns; /* When its next request would be due at its rate. */
    _Atomic uint64_t calls;
    _Atomic uint64_t refused;
};

/* What a key allows. */
struct key_grant {
    struct key_use *use;  /* NULL: nobody in particular. */
    uint32_t groups;      /* Bits of enum route_group. */
    uint32_t priority;    /* The most urgent it may ask for, as on the wire; 0: any. */
    uint32_t weight;      /* Share of device time against other clients; 0 is 1. */
    uint32_t concurrency; /* Calls at a time; 0: any number. */
    uint64_t interval_ns; /* Between calls, on average; 0: none. */
};

struct keys;

/* Reads the file.  WEIR_ENOENT, WEIR_EINVAL, WEIR_EIO, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status keys_create(const char *path, struct keys **out,
                                           struct weir_err *err);
void keys_destroy(struct keys *keys); /* NULL is fine. */

/* As tls_reload(). */
WEIR_MUST_USE enum weir_status keys_reload(struct keys *keys, bool force, bool *changed,
                                           struct weir_err *err);
uint32_t keys_count(struct keys *keys);

/* Whose key, or certificate, it is.  False: nobody's. */
WEIR_MUST_USE bool keys_find(struct keys *keys, struct bytes secret, struct key_grant *out);
WEIR_MUST_USE bool keys_find_certificate(struct keys *keys, struct bytes name,
                                         struct key_grant *out);

/* Begins a call.  WEIR_ERATE: its key's limit is reached; *retry_ns is when to come again. */
WEIR_MUST_USE enum weir_status key_enter(const struct key_grant *grant, uint64_t now_ns,
                                         uint64_t *retry_ns, struct weir_err *err);
void key_leave(struct key_use *use);

/* Calls `visit` for every name there is or was. */
void keys_each(struct keys *keys, void (*visit)(void *context, const struct key_use *use),
               void *context);

/* "health" or "use": the bits of a group or of a set of them.  False: no such word. */
WEIR_MUST_USE bool keys_groups(struct bytes word, uint32_t *out);

/* Is this what a key may be called? */
bool keys_is_name(struct bytes name);

/* Makes a key and the hash that stands for it in the file.  False: no random numbers. */
WEIR_MUST_USE bool keys_make(char secret[KEYS_SECRET_BYTES], char hash[80]);

#endif
