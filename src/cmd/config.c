#include <stdio.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "server/config.h"
#include "server/modelconfig.h"

extern char **environ;

enum { OWN_EXPLAIN, OWN_JSON, OWN_MODELS };

static const char *const own_flags[] = { "--explain", "--json", "--models", NULL };

int cmd_config(int count, char **words)
{
    struct config config;
    struct weir_err err = { 0 };
    struct config_words meaning = { .own_flags = own_flags };
    enum weir_status status = config_init(&config, &err);
    if (status == WEIR_OK) {
        status = config_read(&config, environ, count, words, &meaning, &err);
    }
    if (status != WEIR_OK) {
        config_finish(&config);
        return cmd_refuse("config", status, &err);
    }
    struct buffer out;
    buffer_init(&out, CMD_REPORT_BYTES_MAX);
    if ((meaning.given >> OWN_MODELS & 1) != 0) {
        modelconfig_document(&out);
    } else {
        config_explain(&config, (meaning.given >> OWN_JSON & 1) != 0, &out);
    }
    const int code = cmd_print(&out);
    buffer_finish(&out);
    config_finish(&config);
    return code;
}

void cmd_config_help(struct buffer *out)
{
    buffer_text(out,
                "\nShows each setting's value and where it comes from (default, weir.yaml, the\n"
                "environment, the command line, the last of them that names it), what is allowed,\n"
                "and what it is for.  Reads the same files, variables and options as\n"
                "`weir serve`, so it also checks them.\n\n"
                "  --explain                the same; the default\n"
                "  --json                   as JSON\n"
                "  --models                 the settings of a model's model.yaml instead\n"
                "  --config FILE            read this file instead of ./weir.yaml\n"
                "  --ANY-SETTING VALUE      as `weir serve` takes it\n\n"
                "Examples:\n"
                "  weir config | less\n"
                "  WEIR_HTTP_PORT=9000 weir config --limits.idle-timeout 5s\n");
}
