#include "server/inspect.h"

#include <stdio.h>

#include "cmd/cmd.h"
#include "cmd/term.h"

enum { OPTION_JSON = 1, OPTION_CONFIG };

static const struct flag flag_table[] = {
    { "--config", NULL, "the configuration, and where each value comes from", OPTION_CONFIG },
    { "--json", NULL, "as JSON", OPTION_JSON },
    FLAGS_END,
};

struct wish {
    const char *path;
    bool config;
    bool json;
};

static enum weir_status take_option(void *context, int key, const char *value, struct weir_err *err)
{
    struct wish *wish = context;
    switch (key) {
    case OPTION_JSON:
        wish->json = true;
        return WEIR_OK;
    case OPTION_CONFIG:
        wish->config = true;
        return WEIR_OK;
    default:
        break;
    }
    if (wish->path != NULL) {
        return err_set(err, WEIR_EINVAL, "unexpected word '%s' after '%s'", value, wish->path);
    }
    wish->path = value;
    return WEIR_OK;
}

static int inspect(const struct wish *wish)
{
    struct weir_err err = { 0 };
    struct buffer out;
    bool servable = true;
    buffer_init(&out, CMD_REPORT_BYTES_MAX);
    const enum weir_status status =
        wish->config
            ? inspect_config(wish->path, wish->json, term_color(stdout), &out, &servable, &err)
            : inspect_report(wish->path, wish->json, &out, &err);
    const int code = status == WEIR_OK ? cmd_print(&out) : cmd_fail(status, &err);
    buffer_finish(&out);
    return code == 0 && !servable ? 1 : code;
}

int cmd_inspect(int count, char **words)
{
    struct weir_err err = { 0 };
    struct wish wish = { 0 };
    if (flags_read(flag_table, count, words, take_option, &wish, &err) != WEIR_OK) {
        return cmd_usage("inspect", "%s", err.text);
    }
    if (wish.path == NULL || wish.path[0] == '\0') {
        return cmd_usage("inspect", "no file named");
    }
    cmd_let_signals_end();
    return inspect(&wish);
}

void cmd_inspect_help(struct buffer *out)
{
    buffer_text(
        out, "\nReads the file without running it: inputs, outputs, weights, operators, files it\n"
             "refers to, and the configuration with which Weir would serve it.  A model's\n"
             "folder stands for its latest version.\n\n");
    flags_help(flag_table, out);
    buffer_text(out, "\nExamples:\n"
                     "  weir inspect examples/models/segment\n"
                     "  weir inspect --json model.onnx\n"
                     "  weir inspect --config models/digits\n");
}
