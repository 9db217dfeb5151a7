/*
 * Where settings come from.
 *
 * Everything is read from text: a YAML scalar, a variable and a word of the
 * command line go the same way through the table of option.c, so that they mean
 * the same and fail with the same sentence.
 */
#include "server/config.h"

#include <ctype.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/rate.h"
#include "net/tls.h"
#include "server/budget.h"
#include "server/devices.h"
#include "server/option.h"
#include "server/reload.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/json.h"
#include "util/mem.h"
#include "util/yaml.h"

#define DEFAULT_FILE "weir.yaml"
#define FILE_FLAG "--config"
#define FILE_VARIABLE "WEIR_CONFIG"
#define FILE_BYTES_MAX ((size_t)1 << 20)
#define HELP_COLUMN 30
#define HELP_WIDTH 80
#define HELP_BYTES 512
#define LOOP_PROCESSORS 4 /* Processors per event loop. */

static const char *const origin_texts[] = {
#define ORIGIN_TEXT(name, text) text,
    CONFIG_ORIGINS(ORIGIN_TEXT)
#undef ORIGIN_TEXT
};

static void note(struct config *config, const struct option *option, enum config_origin origin,
                 uint32_t line)
{
    config->origins[option - options] = origin;
    config->lines[option - options] = line;
}

/* A list named again by a stronger source replaces the weaker one's; by the same source it
 * grows. */
static void begin_list(struct config *config, const struct option *option,
                       enum config_origin origin)
{
    if (option->kind == KIND_LIST && config->origins[option - options] != origin) {
        option_clear(config, option);
    }
}

static enum weir_status set_text(struct config *config, const struct option *option,
                                 const char *text, enum config_origin origin, uint32_t line,
                                 const char *where, struct weir_err *err)
{
    begin_list(config, option, origin);
    const enum weir_status status = option_read(config, option, text, where, err);
    if (status == WEIR_OK) {
        note(config, option, origin, line);
    }
    return status;
}

static enum weir_status set_yaml_list(struct config *config, const struct option *option,
                                      const struct yaml *node, const char *where,
                                      struct weir_err *err)
{
    begin_list(config, option, CONFIG_FILE);
    for (const struct yaml *item = node->first; item != NULL; item = item->next) {
        if (item->kind != YAML_SCALAR) {
            return err_set(err, WEIR_EINVAL, "%s: line %u is no text, expected a list of texts",
                           where, item->line);
        }
        const enum weir_status status = option_add(config, option, item->text, where, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    note(config, option, CONFIG_FILE, node->key_line);
    return WEIR_OK;
}

static enum weir_status set_yaml(struct config *config, const struct yaml *node, const char *name,
                                 const char *prefix, struct weir_err *err)
{
    char key[OPTION_WORD_BYTES];
    char where[OPTION_WORD_BYTES + 256];
    (void)snprintf(key, sizeof(key), "%s%s", prefix, node->key);
    (void)snprintf(where, sizeof(where), "%s:%u: %s", name, node->key_line, key);
    const struct option *option = option_find(option_key, key);
    if (option == NULL) {
        char hint[OPTION_WORD_BYTES + 32];
        return err_set(err, WEIR_EINVAL,
                       "%s:%u: unknown setting '%s'%s (`weir config --explain` lists all)", name,
                       node->key_line, key, option_hint(option_key, key, hint));
    }
    if (option->kind == KIND_LIST && node->kind == YAML_LIST) {
        return set_yaml_list(config, option, node, where, err);
    }
    if (node->kind != YAML_SCALAR) {
        char expected[OPTION_EXPECTED_BYTES];
        return err_set(err, WEIR_EINVAL, "%s: found a %s, expected %s", where,
                       node->kind == YAML_MAP ? "map" : "list", option_expected(option, expected));
    }
    return set_text(config, option, node->text, CONFIG_FILE, node->key_line, where, err);
}

static enum weir_status apply_yaml(struct config *config, const struct yaml *root, const char *name,
                                   struct weir_err *err)
{
    if (root->kind != YAML_MAP) {
        return err_set(err, WEIR_EINVAL, "%s: expected a map of settings", name);
    }
    enum weir_status status = WEIR_OK;
    for (const struct yaml *node = root->first; node != NULL && status == WEIR_OK;
         node = node->next) {
        if (strcmp(node->key, "limits") != 0) {
            status = set_yaml(config, node, name, "", err);
            continue;
        }
        if (node->kind != YAML_MAP) {
            return err_set(err, WEIR_EINVAL, "%s:%u: limits: expected a map of limits", name,
                           node->key_line);
        }
        for (const struct yaml *limit = node->first; limit != NULL && status == WEIR_OK;
             limit = limit->next) {
            status = set_yaml(config, limit, name, "limits.", err);
        }
    }
    return status;
}

static enum weir_status apply_file(struct config *config, const char *path, struct weir_err *err)
{
    const bool asked = path != NULL;
    path = asked ? path : DEFAULT_FILE;
    if (!asked && access(path, F_OK) != 0) { /* Nobody has to have one. */
        return WEIR_OK;
    }
    struct buffer text = { 0 };
    enum weir_status status = file_read(AT_FDCWD, path, FILE_BYTES_MAX, &text, err);
    struct yaml *root = NULL;
    if (status == WEIR_OK) {
        status =
            yaml_parse(&config->arena, path, (struct bytes){ text.data, text.size }, &root, err);
    }
    if (status == WEIR_OK) {
        status = apply_yaml(config, root, path, err);
        config->file = path;
    }
    buffer_finish(&text);
    return status;
}

/* Variables that begin with WEIR_ and are no settings: the file's name, a client's key, what the
 * tests use, and what Kubernetes sets in every pod beside a service called weir. */
static const char *const foreign_variables[] = {
    "WEIR_CONFIG=*",      "WEIR_API_KEY=*", "WEIR_BINARY=*",  "WEIR_TEST_*",
    "WEIR_SOURCE_ROOT=*", "WEIR_PORT_*",    "WEIR_SERVICE_*", "WEIR_PORT=*://*",
};

static bool is_foreign(const char *variable)
{
    for (size_t i = 0; i < sizeof(foreign_variables) / sizeof(*foreign_variables); i++) {
        if (fnmatch(foreign_variables[i], variable, 0) == 0) {
            return true;
        }
    }
    return false;
}

static enum weir_status apply_variable(struct config *config, const char *variable,
                                       const char *equals, struct weir_err *err)
{
    char name[OPTION_WORD_BYTES];
    (void)snprintf(name, sizeof(name), "%.*s", (int)(equals - variable), variable);
    const struct option *option = option_find(option_variable, name);
    if (option == NULL) {
        char hint[OPTION_WORD_BYTES + 32];
        return err_set(err, WEIR_EINVAL,
                       "environment: unknown variable '%s'%s (`weir config --explain` lists all)",
                       name, option_hint(option_variable, name, hint));
    }
    return set_text(config, option, equals + 1, CONFIG_ENVIRONMENT, 0, name, err);
}

static enum weir_status apply_environment(struct config *config, char *const *environment,
                                          struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    for (char *const *at = environment; at != NULL && *at != NULL && status == WEIR_OK; at++) {
        const char *equals = strchr(*at, '=');
        if (strncmp(*at, "WEIR_", 5) == 0 && equals != NULL && !is_foreign(*at)) {
            status = apply_variable(config, *at, equals, err);
        }
    }
    return status;
}

static const char *file_variable(char *const *environment)
{
    for (char *const *at = environment; at != NULL && *at != NULL; at++) {
        if (strncmp(*at, FILE_VARIABLE "=", sizeof(FILE_VARIABLE)) == 0) {
            const char *path = *at + sizeof(FILE_VARIABLE);
            return *path == '\0' ? NULL : path;
        }
    }
    return NULL;
}

/* The index of a command's own flag, or -1. */
static int own_flag(const struct config_words *meaning, const char *word)
{
    for (int i = 0; meaning->own_flags != NULL && meaning->own_flags[i] != NULL; i++) {
        if (strcmp(meaning->own_flags[i], word) == 0) {
            return i;
        }
    }
    return -1;
}

/* `--config FILE` or `--config=FILE`: how many of the words it takes, 0 when it is something
 * else. */
static int file_flag(int left, char *const *words, const char **path)
{
    const size_t size = sizeof(FILE_FLAG) - 1;
    if (strncmp(words[0], FILE_FLAG, size) != 0) {
        return 0;
    }
    if (words[0][size] == '=') {
        *path = words[0] + size + 1;
        return 1;
    }
    if (words[0][size] != '\0') {
        return 0;
    }
    *path = left > 1 ? words[1] : NULL;
    return 2;
}

/* The file's name on the command line, which is read after the file itself; NULL: none. */
static enum weir_status find_file(int count, char *const *words, const char **path,
                                  struct weir_err *err)
{
    for (int i = 0; i < count; i++) {
        if (file_flag(count - i, words + i, path) > 0 && *path == NULL) {
            return err_set(err, WEIR_EINVAL, FILE_FLAG ": nothing follows, expected a file");
        }
    }
    return WEIR_OK;
}

/* `--key value`, `--key=value`, or `--key` of a boolean; *taken is how many words that were. */
static enum weir_status apply_flag(struct config *config, int left, char *const *words, int *taken,
                                   struct weir_err *err)
{
    char flag[OPTION_WORD_BYTES];
    const size_t size = strcspn(words[0], "=");
    (void)snprintf(flag, sizeof(flag), "%.*s", (int)size, words[0]);
    const char *value = words[0][size] == '=' ? words[0] + size + 1 : NULL;
    const struct option *option = option_find(option_flag, flag);
    if (option == NULL) {
        char hint[OPTION_WORD_BYTES + 32];
        return err_set(err, WEIR_EINVAL, "unknown option '%s'%s", flag,
                       option_hint(option_flag, flag, hint));
    }
    *taken = 1;
    if (value == NULL && option->kind == KIND_BOOL) {
        value = "true";
    } else if (value == NULL && left > 1) {
        value = words[1];
        *taken = 2;
    } else if (value == NULL) {
        char expected[OPTION_EXPECTED_BYTES];
        return err_set(err, WEIR_EINVAL, "%s: nothing follows, expected %s", flag,
                       option_expected(option, expected));
    }
    return set_text(config, option, value, CONFIG_COMMAND_LINE, 0, flag, err);
}

static enum weir_status apply_word(struct config *config, const struct config_words *meaning,
                                   const char *word, struct weir_err *err)
{
    if (meaning->positional == NULL) {
        return err_set(err, WEIR_EINVAL, "unexpected word '%s', expected options only", word);
    }
    const struct option *list = option_find(option_key, meaning->positional);
    begin_list(config, list, CONFIG_COMMAND_LINE);
    note(config, list, CONFIG_COMMAND_LINE, 0);
    return option_add(config, list, word, word, err);
}

static enum weir_status apply_words(struct config *config, int count, char *const *words,
                                    struct config_words *meaning, struct weir_err *err)
{
    const char *path;
    enum weir_status status = WEIR_OK;
    for (int i = 0; i < count && status == WEIR_OK;) {
        int taken = file_flag(count - i, words + i, &path);
        const int own = own_flag(meaning, words[i]);
        if (own >= 0) {
            meaning->given |= UINT32_C(1) << own;
            taken = 1;
        } else if (taken == 0 && words[i][0] == '-') {
            status = apply_flag(config, count - i, words + i, &taken, err);
        } else if (taken == 0) {
            status = apply_word(config, meaning, words[i], err);
            taken = 1;
        }
        i += taken;
    }
    return status;
}

static uint64_t processors(void)
{
    const long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : (uint64_t)count;
}

static void resolve(struct config *config)
{
    if (config->loops == 0) {
        config->loops = (processors() + LOOP_PROCESSORS - 1) / LOOP_PROCESSORS;
    }
    if (config->executors == 0) {
        config->executors = processors();
    }
    if (config->limits.bodies_bytes_max == 0) {
        config->limits.bodies_bytes_max = limits_memory_bytes() / 4;
    }
}

bool config_is_local(const struct config *config)
{
    return strncmp(config->host, "127.", 4) == 0 || strcmp(config->host, "::1") == 0 ||
           strcmp(config->host, "localhost") == 0;
}

bool config_is_guarded(const struct config *config)
{
    return config->api_keys[0] != '\0' ||
           (config->tls_client_ca[0] != '\0' && config->tls_client == TLS_CLIENT_REQUIRED);
}

static enum weir_status check_access(const struct config *config, struct weir_err *err)
{
    const bool certificate = config->tls_certificate[0] != '\0';
    if (certificate != (config->tls_key[0] != '\0')) {
        return err_set(err, WEIR_EINVAL,
                       "%s: not given, expected a file beside %s: a certificate and its key go "
                       "together",
                       certificate ? "tls_key" : "tls_certificate",
                       certificate ? "tls_certificate" : "tls_key");
    }
    if (config->tls_client_ca[0] != '\0' && !certificate) {
        return err_set(err, WEIR_EINVAL,
                       "tls_client_ca: found '%s' without tls_certificate, expected both: clients "
                       "show certificates over TLS only",
                       config->tls_client_ca);
    }
    if (config->reload_interval_ns < NS_PER_MS) {
        return err_set(err, WEIR_EINVAL, "reload_interval: expected at least 1 ms");
    }
    if (!config->allow_wide_bind && !config_is_local(config) && !config_is_guarded(config)) {
        return err_set(
            err, WEIR_EINVAL,
            "host: found '%s', expected a loopback address such as 127.0.0.1; to let other "
            "machines in, give --api-keys or --tls-client-ca, or --allow-wide-bind too: then "
            "anybody who reaches the port can use it",
            config->host);
    }
    return WEIR_OK;
}

/* Two of the three on one number would be one port that takes turns. */
static enum weir_status check_ports(const struct config *config, struct weir_err *err)
{
    static const char *const names[] = { "http_port", "grpc_port", "metrics_port" };
    const uint64_t ports[] = { config->http_port, config->grpc_port, config->metrics_port };
    for (int i = 0; i < 3 && config->port == 0; i++) {
        const int next = (i + 1) % 3;
        if (ports[i] != 0 && ports[i] == ports[next]) {
            return err_set(err, WEIR_EINVAL,
                           "%s and %s: found %" PRIu64
                           " for both, expected different ones; `port` sets one for everything",
                           names[i < next ? i : next], names[i < next ? next : i], ports[i]);
        }
    }
    return WEIR_OK;
}

static enum weir_status check_unix_socket(const struct config *config, struct weir_err *err)
{
    const char *path = config->unix_socket;
    const size_t room = sizeof(((struct sockaddr_un *)NULL)->sun_path);
    return path[0] == '\0' || (path[0] == '/' && strlen(path) < room)
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL,
                         "unix_socket: found '%s', expected an absolute path of at most %zu bytes, "
                         "such as /run/weir.sock",
                         path, room - 1);
}

/* The last one holds for the rest. */
static enum weir_status resolve_shares(const struct config_list *given, struct order_options *order,
                                       struct weir_err *err)
{
    if (given->count == 0 || given->count > ORDER_CLASSES) {
        return err_set(err, WEIR_EINVAL,
                       "class_shares: found %" PRIu64 " numbers, expected 1 to %d", given->count,
                       ORDER_CLASSES);
    }
    uint64_t share = 0;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < ORDER_CLASSES; i++) {
        if (i < given->count && !bytes_to_u64(bytes_of(given->items[i]), 100, &share)) {
            return err_set(err, WEIR_EINVAL,
                           "class_shares: found '%s', expected a whole number of per cent from 0 "
                           "to 100",
                           given->items[i]);
        }
        order->shares[i] = (uint32_t)share * (ORDER_SHARE_ALL / 100);
        sum += share;
    }
    return sum <= 100 ? WEIR_OK
                      : err_set(err, WEIR_EINVAL,
                                "class_shares: found %" PRIu64
                                " per cent for all %d priorities, where the last number holds for "
                                "the rest, expected at most 100",
                                sum, ORDER_CLASSES);
}

static enum weir_status resolve_order(struct config *config, struct weir_err *err)
{
    struct order_options *order = &config->order;
    const enum weir_status status = resolve_shares(&config->class_shares, order, err);
    if (status != WEIR_OK) {
        return status;
    }
    order->ageing_ns = config->ageing_ns > 0 ? config->ageing_ns : CLOCK_NEVER;
    order->budget_ns = config->blocking_budget_ns;
    return WEIR_OK;
}

static enum weir_status check_devices(const struct config *config, struct weir_err *err)
{
    struct devices devices = { 0 };
    enum weir_status status = devices_read(&devices, config, err);
    if (status == WEIR_OK) {
        const struct engine_options wanted = { .devices = devices.list,
                                               .device_count = devices.count };
        status = engine_check_devices(&wanted, err);
    }
    devices_finish(&devices);
    return status;
}

static enum weir_status check_rates(const struct config *config, struct weir_err *err)
{
    struct rate_limiter *limiter = NULL;
    const enum weir_status status = rate_limiter_create(
        config->rate_limit_resource.items, config->rate_limit_resource.count, &limiter, err);
    rate_limiter_destroy(limiter);
    return status;
}

/* Who names models to be loaded expects the others not to be. */
static enum weir_status check_loads(const struct config *config, struct weir_err *err)
{
    const bool told =
        config->model_control == CONTROL_EXPLICIT || config->model_control == CONTROL_DEMAND;
    return told || config->load_model.count == 0
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL,
                         "load_model: found '%s' where all models are loaded, expected "
                         "model_control to be explicit or demand",
                         config->load_model.items[0]);
}

static enum weir_status check(const struct config *config, struct weir_err *err)
{
    enum weir_status status = check_access(config, err);
    status = status == WEIR_OK ? check_loads(config, err) : status;
    status = status == WEIR_OK ? check_ports(config, err) : status;
    status = status == WEIR_OK ? check_unix_socket(config, err) : status;
    status = status == WEIR_OK ? check_devices(config, err) : status;
    status = status == WEIR_OK ? check_rates(config, err) : status;
    if (status != WEIR_OK) {
        return status;
    }
    if (config->repository.count == 0) {
        return err_set(err, WEIR_EINVAL, "repository: no folder, expected at least one");
    }
    return budget_read(config, NULL, err);
}

enum weir_status config_init(struct config *config, struct weir_err *err)
{
    *config = (struct config){ 0 };
    arena_init(&config->arena, NULL, 0, 0);
    limits_init(&config->limits);
    config->origins = mem_try_zero(option_count, sizeof(*config->origins));
    config->lines = mem_try_zero(option_count, sizeof(*config->lines));
    if (config->origins == NULL || config->lines == NULL) {
        return err_nomem(err, "the settings", option_count * sizeof(*config->lines));
    }
    for (size_t i = 0; i < option_count; i++) {
        if (options[i].preset == NULL) {
            continue;
        }
        const enum weir_status status =
            option_read(config, &options[i], options[i].preset, options[i].key, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    return WEIR_OK;
}

void config_finish(struct config *config)
{
    arena_finish(&config->arena);
    mem_free(config->origins);
    mem_free(config->lines);
    *config = (struct config){ 0 };
}

enum weir_status config_read(struct config *config, char *const *environment, int word_count,
                             char *const *words, struct config_words *meaning, struct weir_err *err)
{
    const char *path = file_variable(environment);
    meaning->given = 0;
    enum weir_status status = find_file(word_count, words, &path, err);
    if (status == WEIR_OK) {
        status = apply_file(config, path, err);
    }
    if (status == WEIR_OK) {
        status = apply_environment(config, environment, err);
    }
    if (status == WEIR_OK) {
        status = apply_words(config, word_count, words, meaning, err);
    }
    if (status == WEIR_OK) {
        resolve(config);
        status = resolve_order(config, err);
        status = status == WEIR_OK ? check(config, err) : status;
    }
    return status;
}

static const char *heading(const char *group, const struct option *option, struct buffer *out)
{
    if (strcmp(group, option->group) != 0) {
        buffer_printf(out, "\n%c%s\n", toupper((unsigned char)option->group[0]), option->group + 1);
    }
    return option->group;
}

/* " [15s]", as it would be typed; nothing where the default is empty. */
static void append_preset(struct buffer *out, const struct config *defaults,
                          const struct option *option)
{
    struct buffer preset;
    buffer_init(&preset, HELP_BYTES);
    option_format(defaults, option, &preset);
    const bool number = option->kind == KIND_SIZE || option->kind == KIND_DURATION;
    const bool zero = number && preset.size > 0 && preset.data[0] == '0';
    buffer_text(out, preset.size > 0 ? " [" : "");
    for (size_t i = 0; i < (zero ? 1 : preset.size); i++) {
        if (!number || preset.data[i] != ' ') {
            buffer_char(out, preset.data[i]);
        }
    }
    buffer_text(out, preset.size > 0 ? "]" : "");
    buffer_finish(&preset);
}

/* Words from column HELP_COLUMN to HELP_WIDTH on, in as many lines as they take. */
static void wrap(struct buffer *out, const char *text)
{
    size_t column = HELP_COLUMN;
    while (*text != '\0') {
        const size_t size = strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + size > HELP_WIDTH) {
            buffer_printf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else if (column > HELP_COLUMN) {
            buffer_char(out, ' ');
            column++;
        }
        buffer_append(out, text, size);
        column += size;
        text += size + strspn(text + size, " ");
    }
    buffer_char(out, '\n');
}

static void help_option(struct buffer *out, const struct config *defaults,
                        const struct option *option)
{
    char flag[OPTION_WORD_BYTES];
    struct buffer help;
    option_flag(option, flag);
    buffer_init(&help, HELP_BYTES);
    buffer_text(&help, option->help);
    if (option->kind == KIND_ENUM) {
        char expected[OPTION_EXPECTED_BYTES];
        buffer_printf(&help, " (%s)", option_expected(option, expected));
    }
    append_preset(&help, defaults, option);
    buffer_char(&help, '\0');
    buffer_printf(out, "  %-*s", HELP_COLUMN - 2, flag);
    if (strlen(flag) + 3 > HELP_COLUMN) {
        buffer_printf(out, "\n%*s", HELP_COLUMN, "");
    }
    wrap(out, help.failed ? option->help : help.data);
    buffer_finish(&help);
}

void config_help(struct buffer *out)
{
    struct config defaults;
    const enum weir_status status = config_init(&defaults, NULL);
    const char *group = "";
    for (size_t i = 0; status == WEIR_OK && i < option_count; i++) {
        group = heading(group, &options[i], out);
        help_option(out, &defaults, &options[i]);
    }
    config_finish(&defaults);
}

static void explain_text(const struct config *config, size_t index, struct buffer *out)
{
    const struct option *option = &options[index];
    char key[OPTION_WORD_BYTES];
    char variable[OPTION_WORD_BYTES];
    char expected[OPTION_EXPECTED_BYTES];
    option_key(option, key);
    option_variable(option, variable);
    buffer_printf(out, "  %s: ", key);
    option_format(config, option, out);
    const enum config_origin origin = config->origins[index];
    if (config->lines[index] > 0) {
        buffer_printf(out, "   (%s:%u)", config->file, config->lines[index]);
    } else if (origin != CONFIG_DEFAULT) {
        buffer_printf(out, "   (%s)", origin_texts[origin]);
    }
    buffer_printf(out, "\n      %s\n      %s; %s%s\n", option->help,
                  option_expected(option, expected), variable,
                  reload_can(option->key) ? "; changes live" : "");
}

static void json_field(struct buffer *out, const char *key, const char *value)
{
    json_key(out, key);
    json_string(out, value);
}

static void explain_json(const struct config *config, size_t index, struct buffer *out)
{
    const struct option *option = &options[index];
    char word[OPTION_WORD_BYTES];
    char expected[OPTION_EXPECTED_BYTES];
    struct buffer value;
    buffer_init(&value, 1 << 20);
    option_format(config, option, &value);
    buffer_char(&value, '\0');
    buffer_text(out, index == 0 ? "  {" : ",\n  {");
    option_key(option, word);
    json_field(out, "key", word);
    json_field(out, "value", value.failed ? "" : value.data);
    out->failed = out->failed || value.failed;
    json_field(out, "origin", origin_texts[config->origins[index]]);
    if (config->lines[index] > 0) {
        json_field(out, "file", config->file);
        json_key(out, "line");
        buffer_u64(out, config->lines[index]);
    }
    json_field(out, "expects", option_expected(option, expected));
    option_flag(option, word);
    json_field(out, "flag", word);
    option_variable(option, word);
    json_field(out, "variable", word);
    json_key(out, "live");
    json_bool(out, reload_can(option->key));
    json_field(out, "help", option->help);
    buffer_char(out, '}');
    buffer_finish(&value);
}

void config_explain(const struct config *config, bool json, struct buffer *out)
{
    const char *group = "";
    buffer_text(out, json ? "[\n" : "");
    for (size_t i = 0; i < option_count; i++) {
        if (json) {
            explain_json(config, i, out);
        } else {
            group = heading(group, &options[i], out);
            explain_text(config, i, out);
        }
    }
    buffer_text(out, json ? "\n]\n" : "");
}
