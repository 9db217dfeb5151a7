/*
 * cmd.h — the subcommands of `weir`, joined in one table, and what they share.
 *
 * One file per command: `weir serve` is cmd_serve() in serve.c.  main.c finds the row, answers
 * --help from it and calls the function; its result is the process's exit code.
 */
#ifndef WEIR_CMD_CMD_H
#define WEIR_CMD_CMD_H

#include "cmd/flags.h"
#include "util/bytes.h"
#include "util/err.h"

/* X(name, words, one line): an underscore in a name is typed as a hyphen; in the order in which
 * `weir help` lists them. */
#define COMMANDS(X)                                                                          \
    X(serve, "[OPTION]... [REPOSITORY]...", "serve folders of models over HTTP and gRPC")    \
    X(infer, "MODEL [--input NAME=VALUE]... [OPTION]...", "ask a model, on a server or here") \
    X(bench, "MODEL [OPTION]...", "measure a server: its rate, its latency, what it can promise") \
    X(inspect, "FILE.onnx|FOLDER [--config] [--json]", "say what is in a model")             \
    X(plugin_test, "FILE.so FOLDER [OPTION]...", "check a plug-in for another kind of device")    \
    X(key, "NAME [--allow GROUP,...] [OPTION]...", "make a key for clients of a server")     \
    X(quarantine, "[list|clear] [OPTION]...", "show or clear the inputs that a server refuses") \
    X(config, "[OPTION]...", "explain every setting of the server")                          \
    X(version, "", "say which versions these are")                                           \
    X(help, "[COMMAND]", "explain a command")

enum cmd_exit {
    CMD_OK = 0,
    CMD_FAILED = 1,
    CMD_USAGE = 2, /* The command line or the configuration is wrong. */
};

/* Words behind the command's own name. */
typedef int cmd_fn(int count, char **words);

/* Appends what follows the usage line in `weir help NAME`. */
typedef void cmd_help_fn(struct buffer *out);

#define CMD_DECLARE(name, words, line) \
    cmd_fn cmd_##name;                 \
    cmd_help_fn cmd_##name##_help;
COMMANDS(CMD_DECLARE)
#undef CMD_DECLARE

/* "weir: SENTENCE" to standard error; returns the exit code that fits the status. */
int cmd_fail(enum weir_status status, const struct weir_err *err);

/* A mistake on the command line: the sentence, and where help is.  Returns CMD_USAGE. */
int cmd_usage(const char *command, const char *format, ...) WEIR_PRINTF(2, 3);

/* The same for what was read with this result, unless that is no mistake: then as cmd_fail(). */
int cmd_refuse(const char *command, enum weir_status status, const struct weir_err *err);

/* For commands that have nothing to tidy up: SIGINT and SIGTERM end the process, as usual. */
void cmd_let_signals_end(void);

/* Writes a report to standard output.  CMD_OK, or CMD_FAILED when it did not fit or go out. */
int cmd_print(const struct buffer *out);

/* Ends the process at once, with what was printed: threads that hang go on until then, so nothing
 * may be taken apart. */
_Noreturn void cmd_leave(int code);

/* The limit of such a report. */
#define CMD_REPORT_BYTES_MAX ((size_t)1 << 30)

#endif
