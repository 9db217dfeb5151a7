#include "server/guard.h"

#include <time.h>

#include "util/log.h"

#define DAY_S 86400
#define SOON_S (14 * (int64_t)DAY_S)

static void tell_certificate(const struct guard *guard, const char *message)
{
    const struct tls_facts facts = tls_facts(guard->tls);
    char date[32] = "";
    struct tm parts;
    const time_t expires = (time_t)facts.expires_s;
    if (gmtime_r(&expires, &parts) != NULL) {
        (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &parts);
    }
    log_event(LOG_INFO, message, LOG_STR("subject", facts.subject), LOG_STR("expires", date));
    if (facts.expired) {
        log_event(LOG_WARNING, "the TLS certificate has expired: clients will refuse it",
                  LOG_STR("file", guard->config->tls_certificate), LOG_STR("expired", date));
    } else if (facts.expires_s - (int64_t)time(NULL) < SOON_S) {
        log_event(LOG_WARNING, "the TLS certificate expires soon",
                  LOG_STR("file", guard->config->tls_certificate), LOG_STR("expires", date));
    }
}

static enum weir_status open_tls(struct guard *guard, struct weir_err *err)
{
    const struct config *config = guard->config;
    if (config->tls_certificate[0] == '\0') {
        return WEIR_OK;
    }
    guard->tls_options = (struct tls_options){
        .certificate = config->tls_certificate,
        .key = config->tls_key,
        .client_ca = config->tls_client_ca,
        .client = (enum tls_client)config->tls_client,
        .tls13_only = config->tls_min_version == TLS_MIN_1_3,
    };
    const enum weir_status status = tls_create(&guard->tls_options, &guard->tls, err);
    if (status == WEIR_OK) {
        tell_certificate(guard, "TLS is on");
    }
    return status;
}

static void tell_keys(const struct guard *guard, const char *message)
{
    const uint32_t count = keys_count(access_keys(guard->access));
    log_event(count == 0 ? LOG_WARNING : LOG_INFO,
              count == 0 ? "no API keys: nobody is let in" : message,
              LOG_STR("file", guard->config->api_keys), LOG_U64("keys", count));
}

static struct access_words words_of(const struct config_list *list)
{
    return (struct access_words){ list->items, list->count };
}

static enum weir_status open_access(struct guard *guard, struct weir_err *err)
{
    const struct config *config = guard->config;
    const struct access_options options = {
        .keys = config->api_keys,
        .open_groups = words_of(&config->open_groups),
        .http_restricted = words_of(&config->http_restricted_api),
        .grpc_restricted = words_of(&config->grpc_restricted_protocol),
        .origins = words_of(&config->cors_origins),
    };
    const enum weir_status status = access_create(&options, &guard->access, err);
    if (status == WEIR_OK && access_keys(guard->access) != NULL) {
        tell_keys(guard, "API keys are asked for");
    }
    return status;
}

enum weir_status guard_init(struct guard *guard, const struct config *config, struct weir_err *err)
{
    *guard = (struct guard){ .config = config };
    const enum weir_status status = open_tls(guard, err);
    return status == WEIR_OK ? open_access(guard, err) : status;
}

void guard_finish(struct guard *guard)
{
    tls_destroy(guard->tls);
    access_destroy(guard->access);
    *guard = (struct guard){ 0 };
}

void guard_warn(const struct guard *guard)
{
    const struct config *config = guard->config;
    if (config_is_local(config)) {
        return;
    }
    if (!config_is_guarded(config)) {
        log_event(LOG_WARNING,
                  "other machines are let in without keys or client certificates: anybody who "
                  "reaches the port can use the models and change what is loaded",
                  LOG_STR("host", config->host));
    }
    if (guard->tls == NULL) {
        log_event(LOG_WARNING,
                  "other machines are let in without TLS: requests, answers and keys can be read "
                  "on their way",
                  LOG_STR("host", config->host));
    }
}

bool guard_watches(const struct guard *guard)
{
    return guard->tls != NULL || access_keys(guard->access) != NULL;
}

static void look_at_keys(struct guard *guard, bool force)
{
    struct weir_err err;
    bool changed = false;
    if (keys_reload(access_keys(guard->access), force, &changed, &err) != WEIR_OK) {
        log_event(LOG_ERROR, "API keys not read again; those in use stay",
                  LOG_STR("reason", err.text));
    } else if (changed) {
        tell_keys(guard, "API keys read again");
    }
}

static void look_at_tls(struct guard *guard, bool force)
{
    struct weir_err err;
    bool changed = false;
    if (tls_reload(guard->tls, force, &changed, &err) != WEIR_OK) {
        log_event(LOG_ERROR, "TLS certificate not read again; the one in use stays",
                  LOG_STR("reason", err.text));
    } else if (changed) {
        tell_certificate(guard, "TLS certificate read again");
    }
}

void guard_look(struct guard *guard, bool force)
{
    if (guard->tls != NULL) {
        look_at_tls(guard, force);
    }
    if (access_keys(guard->access) != NULL) {
        look_at_keys(guard, force);
    }
}
