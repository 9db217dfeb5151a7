/*
 * weir COMMAND [WORD]...
 */
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/term.h"
#include "server/processes.h"
#include "server/server.h"
#include "util/near.h"

#define COMMAND_BYTES 24

struct command {
    const char *name;
    const char *words;
    const char *line;
    cmd_fn *run;
    cmd_help_fn *help;
};

static const struct command commands[] = {
#define COMMAND_ROW(name, words, line) { #name, words, line, cmd_##name, cmd_##name##_help },
    COMMANDS(COMMAND_ROW)
#undef COMMAND_ROW
};

#define COMMAND_COUNT (sizeof(commands) / sizeof(*commands))

/* As it is typed. */
static const char *spelled(const struct command *command)
{
    static char name[COMMAND_BYTES];
    (void)snprintf(name, sizeof(name), "%s", command->name);
    for (char *at = strchr(name, '_'); at != NULL; at = strchr(at, '_')) {
        *at = '-';
    }
    return name;
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(spelled(&commands[i]), name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static int no_command(const char *name)
{
    struct near near;
    near_begin(&near, name);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        near_look(&near, spelled(&commands[i]));
    }
    return near.word[0] == '\0'
               ? cmd_usage(NULL, "no command '%s'", name)
               : cmd_usage(NULL, "no command '%s'; did you mean '%s'?", name, near.word);
}

static int print(struct buffer *out)
{
    const int code = cmd_print(out);
    buffer_finish(out);
    return code;
}

static int help_command(const struct command *command)
{
    struct buffer out;
    buffer_init(&out, CMD_REPORT_BYTES_MAX);
    const bool color = term_color(stdout);
    buffer_printf(&out, "%susage:%s weir %s%s%s\n\n%c%s.\n", term_bold(color), term_plain(color),
                  spelled(command), command->words[0] == '\0' ? "" : " ", command->words,
                  (char)(command->line[0] - 'a' + 'A'), command->line + 1);
    command->help(&out);
    return print(&out);
}

static int help_all(void)
{
    struct buffer out;
    buffer_init(&out, CMD_REPORT_BYTES_MAX);
    const bool color = term_color(stdout);
    buffer_printf(&out,
                  "Weir runs machine-learning models in parallel for many clients.\n\n"
                  "%susage:%s weir COMMAND [WORD]...\n\n",
                  term_bold(color), term_plain(color));
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        buffer_printf(&out, "  %s%-12s%s %s\n", term_bold(color), spelled(&commands[i]),
                      term_plain(color), commands[i].line);
    }
    buffer_text(&out, "\nTo begin with:\n"
                      "  weir serve examples/models\n"
                      "  weir infer digits\n\n"
                      "`weir help COMMAND` says more.\n");
    return print(&out);
}

int cmd_help(int count, char **words)
{
    if (count == 0) {
        return help_all();
    }
    if (count > 1) {
        return cmd_usage("help", "unexpected word '%s' after '%s'", words[1], words[0]);
    }
    const struct command *command = find(words[0]);
    if (command == NULL) {
        return no_command(words[0]);
    }
    return help_command(command);
}

void cmd_help_help(struct buffer *out)
{
    buffer_text(out, "\nWithout a command: lists all of them.\n");
}

int cmd_version(int count, char **words)
{
    if (count > 0) {
        return cmd_usage("version", "unexpected word '%s'", words[0]);
    }
    struct buffer out;
    buffer_init(&out, CMD_REPORT_BYTES_MAX);
    buffer_printf(&out, "weir %s\n%s\n", WEIR_VERSION, server_backends());
    return print(&out);
}

void cmd_version_help(struct buffer *out)
{
    (void)out;
}

/* True when help is asked for among the words, before a "--". */
static bool wants_help(int count, char **words)
{
    for (int i = 0; i < count && strcmp(words[i], "--") != 0; i++) {
        if (strcmp(words[i], "--help") == 0 || strcmp(words[i], "-h") == 0) {
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    server_block_signals(); /* Before any library starts a thread. */
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, PROCESSES_WORD) == 0) {
        return processes_main(); /* Not for people: a server starts it. */
    }
    processes_use_self();
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        name = "version";
    } else if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        name = "help";
    }
    if (name[0] == '\0') {
        (void)help_all();
        return CMD_USAGE;
    }
    const struct command *command = find(name);
    if (command == NULL) {
        return no_command(name);
    }
    if (wants_help(argc - 2, argv + 2)) {
        return help_command(command);
    }
    return command->run(argc - 2, argv + 2);
}
