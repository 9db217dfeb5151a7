/*
 * config.h — every setting of the server, from one table.
 *
 * A setting's value comes from its default, then weir.yaml, then the environment, then the command
 * line; the last one that names it holds.  The table in config.c is the only place that knows the
 * settings: reading, checking, `weir serve --help` and `weir config --explain` all walk it.
 *
 *     yaml         http_port: 8000         limits: { body_bytes_max: 1GiB }
 *     environment  WEIR_HTTP_PORT=8000     WEIR_LIMITS_BODY_BYTES_MAX=1GiB
 *     command line --http-port 8000        --limits.body-bytes-max 1GiB
 *
 * One thread, at start.
 */
#ifndef WEIR_SERVER_CONFIG_H
#define WEIR_SERVER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "engine/order.h"
#include "engine/registry.h"
#include "util/arena.h"
#include "util/bytes.h"
#include "util/limits.h"
#include "util/log.h"

/* X(name, text): where a value came from. */
#define CONFIG_ORIGINS(X)       \
    X(DEFAULT, "default")       \
    X(FILE, "file")             \
    X(ENVIRONMENT, "environment") \
    X(COMMAND_LINE, "command line")

enum config_origin {
#define CONFIG_ORIGIN_ENUM(name, text) CONFIG_##name,
    CONFIG_ORIGINS(CONFIG_ORIGIN_ENUM)
#undef CONFIG_ORIGIN_ENUM
};

/* X(name, text): the oldest version of TLS. */
#define TLS_MINS(X) \
    X(1_2, "1.2")   \
    X(1_3, "1.3")

enum tls_min {
#define TLS_MIN_ENUM(name, text) TLS_MIN_##name,
    TLS_MINS(TLS_MIN_ENUM)
#undef TLS_MIN_ENUM
};

enum log_format { LOG_FORMAT_AUTO, LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* Strings in the configuration's arena. */
struct config_list {
    const char **items;
    uint64_t count;
};

struct config {
    struct arena arena;
    const char *file; /* The file that was read, or NULL. */

    struct config_list repository;
    uint64_t model_control; /* enum model_control */
    struct config_list load_model;
    uint64_t poll_interval_ns;
    uint64_t memory_max_bytes;
    struct config_list memory_devices; /* "NAME:SIZE" each. */
    struct config_list memory_groups;
    uint64_t resident_models_max;
    uint64_t eviction; /* enum eviction */
    struct config_list pinned;
    uint64_t residency_min_ns;
    uint64_t idle_unload_ns;
    bool preload_next;
    uint64_t canary_interval_ns;

    const char *host;
    uint64_t http_port;
    uint64_t grpc_port;
    uint64_t metrics_port;
    uint64_t port;           /* 0: three listeners. */
    const char *unix_socket; /* "": none. */
    bool allow_wide_bind;

    const char *tls_certificate; /* "": plain. */
    const char *tls_key;
    const char *tls_client_ca; /* "": clients need no certificates. */
    uint64_t tls_client;       /* enum tls_client */
    uint64_t tls_min_version;  /* enum tls_min */
    const char *api_keys;      /* "": no keys are asked for. */
    struct config_list open_groups;
    struct config_list http_restricted_api; /* "GROUP[,GROUP]:HEADER=VALUE", cut at commas. */
    struct config_list grpc_restricted_protocol;
    const char *client_header; /* "": clients are told apart by key or address. */
    struct config_list cors_origins;
    uint64_t reload_interval_ns;

    uint64_t loops; /* Resolved: at least 1. */
    uint64_t loop_spin_ns;
    uint64_t executors;     /* Resolved: at least 1. */
    uint64_t executor_nice; /* Added to theirs. */
    const char *processors; /* "auto", "off" or a list. */
    bool pin;
    const char *gpu_library; /* "": none. */
    struct config_list plugins;
    struct config_list devices; /* "NAME:RUNS[:unpipelined]" each. */
    bool inline_runs;
    struct config_list class_shares; /* Per cent by class. */
    uint64_t ageing_ns;
    uint64_t blocking_budget_ns;
    struct order_options order;             /* Resolved from these three. */
    uint64_t rate_limit;                    /* 1: on. */
    struct config_list rate_limit_resource; /* "NAME:COUNT[:DEVICE]" each. */
    uint64_t cache_bytes;
    const char *profile_store; /* "off", "model" or a folder. */
    const char *model_cache;   /* "auto", "off" or a folder. */
    uint64_t model_cache_bytes_max;

    const char *shared_memory; /* "": none; a prefix of names in /dev/shm, "*": all. */
    const char *name;
    bool timing;
    uint64_t log_level;  /* enum log_level */
    uint64_t log_format; /* enum log_format */
    bool access_log;

    struct limits limits;

    enum config_origin *origins; /* By index in the table. */
    uint32_t *lines;             /* Of the file; 0: elsewhere. */
};

/* The defaults.  WEIR_ENOMEM; config_finish() it all the same. */
WEIR_MUST_USE enum weir_status config_init(struct config *config, struct weir_err *err);
void config_finish(struct config *config);

/* What a command makes of its words besides settings. */
struct config_words {
    const char *positional; /* The list that words without a dash are added to; NULL: refused. */
    /* Flags that are no settings, such as "--check"; NULL at the end. */
    const char *const *own_flags;
    uint32_t given; /* Out: bit i is set when own_flags[i] was there. */
};

/*
 * Reads everything: the file (`--config FILE`, else the variable WEIR_CONFIG, else ./weir.yaml
 * where it exists), the environment (like environ; NULL: none) and the words behind the subcommand,
 * which are borrowed for the configuration's life.  WEIR_EINVAL with a sentence that says where
 * (file and line, variable or flag), what was found and what is allowed; WEIR_ENOENT, WEIR_EIO
 * about the file; WEIR_ENOMEM.
 */
WEIR_MUST_USE enum weir_status config_read(struct config *config, char *const *environment,
                                           int word_count, char *const *words,
                                           struct config_words *meaning, struct weir_err *err);

/* Only this machine's programs can reach it. */
bool config_is_local(const struct config *config);

/* Whoever reaches it has to show a key or a certificate. */
bool config_is_guarded(const struct config *config);

/* What `weir serve --help` says about the options, by group. */
void config_help(struct buffer *out);

/* Every setting with its value, where it came from, what is allowed and what it is for. */
void config_explain(const struct config *config, bool json, struct buffer *out);

#endif
