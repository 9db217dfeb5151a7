#include "cmd/cmd.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/term.h"

static void complain(const char *text)
{
    const bool color = term_color(stderr);
    fprintf(stderr, "%sweir:%s %s\n", term_red(color), term_plain(color), text);
}

int cmd_fail(enum weir_status status, const struct weir_err *err)
{
    complain(err->text[0] != '\0' ? err->text : weir_status_text(status));
    return CMD_FAILED;
}

int cmd_usage(const char *command, const char *format, ...)
{
    struct weir_err err;
    va_list args;
    va_start(args, format);
    (void)err_setv(&err, WEIR_EINVAL, format, args);
    va_end(args);
    complain(err.text);
    fprintf(stderr, "      `weir help%s%s` explains\n", command == NULL ? "" : " ",
            command == NULL ? "" : command);
    return CMD_USAGE;
}

int cmd_refuse(const char *command, enum weir_status status, const struct weir_err *err)
{
    return status == WEIR_ENOMEM ? cmd_fail(status, err) : cmd_usage(command, "%s", err->text);
}

void cmd_let_signals_end(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

int cmd_print(const struct buffer *out)
{
    if (out->failed) {
        complain(out->full ? "the report is too long" : "out of memory for the report");
        return CMD_FAILED;
    }
    if (fwrite(out->data, 1, out->size, stdout) == out->size && fflush(stdout) == 0) {
        return CMD_OK;
    }
    if (errno != EPIPE) { /* Who reads from a pipe may have enough, as `head`. */
        struct weir_err err;
        (void)err_set(&err, WEIR_EIO, "standard output cannot be written: %s", strerror(errno));
        complain(err.text);
    }
    return CMD_FAILED;
}

void cmd_leave(int code)
{
    (void)fflush(NULL);
    _exit(code);
}
