#include "cmd/term.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/log.h"

#define SHOW_AFTER_NS (300 * NS_PER_MS)
#define SHOW_EVERY_NS (100 * NS_PER_MS)

static uint64_t now_ns(void)
{
    struct clock clock;
    clock_init(&clock);
    return clock_now_ns(&clock);
}

bool term_is_live(FILE *file)
{
    const char *term = getenv("TERM");
    return isatty(fileno(file)) != 0 && term != NULL && strcmp(term, "dumb") != 0;
}

int term_columns(FILE *file)
{
    struct winsize size;
    return ioctl(fileno(file), TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

bool term_color(FILE *file)
{
    const char *no_color = getenv("NO_COLOR");
    return (no_color == NULL || no_color[0] == '\0') && term_is_live(file);
}

const char *term_bold(bool color)
{
    return color ? "\x1b[1m" : "";
}

const char *term_dim(bool color)
{
    return color ? "\x1b[2m" : "";
}

const char *term_red(bool color)
{
    return color ? "\x1b[1;31m" : "";
}

const char *term_green(bool color)
{
    return color ? "\x1b[32m" : "";
}

const char *term_plain(bool color)
{
    return color ? "\x1b[0m" : "";
}

void progress_begin(struct progress *progress, const char *what, uint64_t total)
{
    *progress = (struct progress){
        .what = what, .total = total, .begun_ns = now_ns(), .terminal = term_is_live(stderr)
    };
}

void progress_step(struct progress *progress, uint64_t done)
{
    if (!progress->terminal) {
        return;
    }
    const uint64_t now = now_ns();
    if (now - progress->begun_ns < SHOW_AFTER_NS || now - progress->shown_ns < SHOW_EVERY_NS) {
        return;
    }
    progress->shown_ns = now;
    progress->shown = true;
    log_wipe_line(true);
    char line[256] = "";
    size_t size = 0;
    if (progress->total > 0) {
        size = (size_t)snprintf(line, sizeof(line), "%llu of %llu ", (unsigned long long)done,
                                (unsigned long long)progress->total);
    }
    (void)snprintf(line + size, sizeof(line) - size, "%s%s%s, %llu s", progress->what,
                   progress->detail == NULL ? "" : ": ",
                   progress->detail == NULL ? "" : progress->detail,
                   (unsigned long long)((now - progress->begun_ns) / NS_PER_S));
    fprintf(stderr, "\r\x1b[K%.*s", term_columns(stderr) - 1, line); /* One that wraps stays. */
}

void progress_end(struct progress *progress)
{
    if (progress->shown) {
        fputs("\r\x1b[K", stderr);
        log_wipe_line(false);
    }
}
