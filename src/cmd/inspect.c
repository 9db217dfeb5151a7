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

static int inspect(const char *path, bool config, bool json)
{
    struct weir_err err = { 0 };
    struct buffer out;
    bool servable = true;
    buffer_init(&out, CMD_REPORT_BYTES_MAX);
    const enum weir_status status =
        config ? inspect_config(path, json, term_color(stdout), &out, &servable, &err)
               : inspect_report(path, json, &out, &err);
    const int code = status == WEIR_OK ? cmd_print(&out) : cmd_fail(status, &err);
    buffer_finish(&out);
    return code == 0 && !servable ? 1 : code;
}

int cmd_inspect(int count, char **words)
{
    struct flags flags;
    struct weir_err err = { 0 };
    const char *path = NULL;
    bool json = false;
    bool config = false;
    flags_init(&flags, flag_table, count, words);
    for (int key = flags_next(&flags, &err); key != FLAGS_DONE; key = flags_next(&flags, &err)) {
        if (key == FLAGS_WRONG) {
            return cmd_usage("inspect", "%s", err.text);
        }
        if (key == OPTION_JSON) {
            json = true;
        } else if (key == OPTION_CONFIG) {
            config = true;
        } else if (path == NULL) {
            path = flags.value;
        } else {
            return cmd_usage("inspect", "unexpected word '%s' after '%s'", flags.value, path);
        }
    }
    if (path == NULL) {
        return cmd_usage("inspect", "no file named");
    }
    cmd_let_signals_end();
    return inspect(path, config, json);
}

void cmd_inspect_help(struct buffer *out)
{
    buffer_text(
        out, "\nReads the file without running it: inputs, outputs, weights, operators, files it\n"
             "refers to, and the configuration with which Weir would serve it.  A model's folder\n"
             "stands for its latest version.\n\n");
    flags_help(flag_table, out);
    buffer_text(out, "\nExamples:\n"
                     "  weir inspect examples/models/segment\n"
                     "  weir inspect --json model.onnx\n"
                     "  weir inspect --config models/digits\n");
}
