#include "server/conformance.h"

#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/term.h"

#define SETTINGS_MAX 64
#define RUNS 200

enum { OPTION_SETTING = 1, OPTION_RUNS };

static const struct flag flag_table[] = {
    { "--setting", "KEY=VALUE", "one of the model's parameters", OPTION_SETTING },
    { "--runs", "N", "runs of each thread [200]", OPTION_RUNS },
    FLAGS_END,
};

struct wanted {
    struct conformance_options options;
    const char *settings[SETTINGS_MAX];
};

struct tally {
    uint32_t kept;
    uint32_t broken;
};

static void report(void *context, const char *promise, const char *problem)
{
    struct tally *tally = context;
    const bool color = term_color(stdout);
    if (problem[0] == '\0') {
        tally->kept++;
        printf("%sok%s      %s\n", term_green(color), term_plain(color), promise);
    } else {
        tally->broken++;
        printf("%sBROKEN%s  %s\n        %s\n", term_red(color), term_plain(color), promise,
               problem);
    }
    (void)fflush(stdout); /* What a crash would take away. */
}

static enum weir_status take_option(void *context, int key, const char *value, struct weir_err *err)
{
    struct wanted *wanted = context;
    struct conformance_options *options = &wanted->options;
    uint64_t number = 0;
    switch (key) {
    case OPTION_SETTING:
        if (strchr(value, '=') == NULL || options->setting_count == SETTINGS_MAX) {
            return err_set(err, WEIR_EINVAL,
                           "--setting: found '%s', expected KEY=VALUE, %d at most", value,
                           SETTINGS_MAX);
        }
        wanted->settings[options->setting_count++] = value;
        return WEIR_OK;
    case OPTION_RUNS:
        if (!bytes_to_u64(bytes_of(value), 1000000000, &number) || number == 0) {
            return err_set(err, WEIR_EINVAL, "--runs: found '%s', expected a whole number above 0",
                           value);
        }
        options->runs = (uint32_t)number;
        return WEIR_OK;
    default:
        break;
    }
    if (options->library == NULL) {
        options->library = value;
    } else if (options->folder == NULL) {
        options->folder = value;
    } else {
        return err_set(err, WEIR_EINVAL, "unexpected word '%s' after '%s'", value, options->folder);
    }
    return WEIR_OK;
}

int cmd_plugin_test(int count, char **words)
{
    struct weir_err err = { 0 };
    struct wanted wanted = { .options = { .runs = RUNS } };
    wanted.options.settings = wanted.settings;
    if (flags_read(flag_table, count, words, take_option, &wanted, &err) != WEIR_OK) {
        return cmd_usage("plugin-test", "%s", err.text);
    }
    if (wanted.options.library == NULL || wanted.options.folder == NULL) {
        return cmd_usage("plugin-test", "expected a library and the folder of a model's version");
    }
    cmd_let_signals_end();
    struct tally tally = { 0 };
    const bool good = conformance_check(&wanted.options, report, &tally);
    struct buffer out;
    buffer_init(&out, CMD_REPORT_BYTES_MAX);
    buffer_printf(&out, "%u promises kept, %u broken\n", tally.kept, tally.broken);
    const int code = cmd_print(&out);
    buffer_finish(&out);
    return good ? code : CMD_FAILED;
}

void cmd_plugin_test_help(struct buffer *out)
{
    buffer_text(
        out, "\nFor authors of plug-ins: loads the library as a server would, then the model in\n"
             "every way that the server will, and says which promises of <weir/plugin.h> are\n"
             "kept.  Run it under valgrind, or build it with AddressSanitizer, to find\n"
             "what it does to memory.\n\n");
    flags_help(flag_table, out);
    buffer_text(out, "\nExample:\n"
                     "  weir plugin-test ./hello.so models/twice/1\n");
}
