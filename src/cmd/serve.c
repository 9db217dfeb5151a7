/*
 * The ready line goes to standard output, everything else to the log: who starts Weir from a
 * program waits for that line and learns the ports from it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/term.h"
#include "server/server.h"
#include "util/clock.h"
#include "util/log.h"

#define SHOW_EVERY_NS (100 * NS_PER_MS)
#define LOG_EVERY_NS NS_PER_S

extern char **environ;

enum { OWN_CHECK, OWN_JSON };

static const char *const own_flags[] = { "--check", "--json", NULL };

static void set_up_log(const struct config *config)
{
    const bool terminal = isatty(STDERR_FILENO) != 0;
    log_setup(config->log_format == LOG_FORMAT_JSON ||
              (config->log_format == LOG_FORMAT_AUTO && !terminal));
    log_set_level((enum log_level)config->log_level);
}

struct wait {
    struct progress progress;
    uint32_t told;
};

static void show_loading(void *context, const struct report_loading *loading)
{
    struct progress *progress = &((struct wait *)context)->progress;
    progress->total = loading->models;
    progress->detail = loading->name[0] == '\0' ? NULL : loading->name;
    progress_step(progress, loading->settled);
}

/* After 1, 2, 4, 8 ... seconds: the longer it takes, the less another line says. */
static void log_loading(void *context, const struct report_loading *loading)
{
    const uint32_t told = ++((struct wait *)context)->told;
    if ((told & (told - 1)) == 0) {
        log_event(LOG_INFO, "models are loading", LOG_U64("done", loading->settled),
                  LOG_U64("of", loading->models), LOG_STR("model", loading->name));
    }
}

/* Tells how far it is meanwhile: on a terminal in a line that changes, else in the log. */
static bool wait_models(struct server *server)
{
    struct wait wait = { 0 };
    const bool live = term_is_live(stderr) && !log_is_json();
    progress_begin(&wait.progress, "models loaded", 0);
    server_tell_loading(server, live ? SHOW_EVERY_NS : LOG_EVERY_NS,
                        live ? show_loading : log_loading, &wait);
    const bool ready = server_wait_models(server);
    progress_end(&wait.progress);
    return ready;
}

static int check(struct server *server, bool json)
{
    const bool ready = wait_models(server);
    struct buffer out;
    buffer_init(&out, CMD_REPORT_BYTES_MAX);
    server_models(server, json, &out);
    int code = cmd_print(&out);
    buffer_finish(&out);
    if (code == CMD_OK && !ready) {
        code = CMD_FAILED;
    }
    return code;
}

static void announce(struct server *server, bool ready)
{
    struct buffer out;
    buffer_init(&out, CMD_REPORT_BYTES_MAX);
    const struct report_count count = server_count_models(server);
    const bool color = term_color(stdout);
    buffer_printf(&out, "%s%s%s ", ready ? term_green(color) : term_red(color),
                  ready ? "ready" : "not ready", term_plain(color));
    server_addresses(server, &out);
    buffer_printf(&out, " (%u of %u models)\n", count.ready, count.models);
    (void)cmd_print(&out);
    buffer_finish(&out);
}

/* The words of the command line, for reading the settings again. */
struct words {
    int count;
    char **words;
};

static enum weir_status read_again(void *context, struct config *out, struct weir_err *err)
{
    const struct words *words = context;
    struct config_words meaning = { .positional = "repository", .own_flags = own_flags };
    const enum weir_status status = config_init(out, err);
    return status == WEIR_OK ? config_read(out, environ, words->count, words->words, &meaning, err)
                             : status;
}

static int serve(struct server *server, struct words *words)
{
    server_reload_from(server, read_again, words);
    const bool ready = wait_models(server);
    announce(server, ready);
    const enum weir_status status = server_wait(server);
    if (status != WEIR_OK) {
        /* A run may never end: what it still holds goes with the process. */
        log_event(LOG_ERROR, "stopped with requests unfinished",
                  LOG_STR("reason", status == WEIR_ECANCELED ? "a second signal"
                                                             : "the drain time-out passed"));
        cmd_leave(CMD_FAILED);
    }
    return CMD_OK;
}

int cmd_serve(int count, char **words)
{
    struct config config;
    struct weir_err err = { 0 };
    struct config_words meaning = { .positional = "repository", .own_flags = own_flags };
    enum weir_status status = config_init(&config, &err);
    if (status == WEIR_OK) {
        status = config_read(&config, environ, count, words, &meaning, &err);
    }
    if (status != WEIR_OK) {
        config_finish(&config);
        return cmd_refuse("serve", status, &err);
    }
    const bool checking = (meaning.given >> OWN_CHECK & 1) != 0;
    set_up_log(&config);
    struct server *server = NULL;
    int code = CMD_OK;
    status = server_start(&config, checking ? SERVER_CHECK : SERVER_SERVE, &server, &err);
    if (status != WEIR_OK) {
        code = cmd_fail(status, &err);
    } else {
        code = checking ? check(server, (meaning.given >> OWN_JSON & 1) != 0)
                        : serve(server, &(struct words){ count, words });
    }
    if (!server_destroy(server)) {
        log_event(LOG_WARNING, "stopped with a load unfinished");
        cmd_leave(code);
    }
    config_finish(&config);
    if (code == CMD_OK && !checking) {
        log_event(LOG_INFO, "stopped");
    }
    return code;
}

void cmd_serve_help(struct buffer *out)
{
    buffer_text(out,
                "\nA REPOSITORY is a folder of models, laid out NAME/VERSION/model.onnx, ./models\n"
                "when none is named.  Prints one line once the models are loaded; SIGTERM or\n"
                "Ctrl-C finishes what was accepted and stops, a second one stops at once.\n\n"
                "  --check                     load everything, print the models' states and stop\n"
                "  --json                      with --check: as JSON\n"
                "  --config FILE               read settings from this file [weir.yaml]\n");
    config_help(out);
    buffer_text(out, "\nEach setting can also stand in weir.yaml (http_port: 9000) or in the\n"
                     "environment (WEIR_HTTP_PORT=9000); the command line wins, then the\n"
                     "environment.  `weir config` explains them all.\n\n"
                     "Examples:\n"
                     "  weir serve examples/models\n"
                     "  weir serve --port 9000 --log-level debug models more-models\n"
                     "  weir serve --check examples/models\n");
}
