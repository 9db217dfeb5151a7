/*
 * term.h — colours and progress, on terminals only.
 *
 * Colours follow https://no-color.org: never with NO_COLOR set, nor where TERM is "dumb".
 */
#ifndef WEIR_CMD_TERM_H
#define WEIR_CMD_TERM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* True where a line can be written over. */
bool term_is_live(FILE *file);

/* Characters in a line of the terminal; 80 where it does not say. */
int term_columns(FILE *file);

/* True when text written there may be coloured. */
bool term_color(FILE *file);

/* What switches a style on, or back to plain; "" when `color` is false. */
const char *term_bold(bool color);
const char *term_dim(bool color);
const char *term_red(bool color);
const char *term_green(bool color);
const char *term_plain(bool color);

/* A line on standard error that shows how far something is, if that is a terminal.  It appears only
 * once the work has taken a moment, and lines of the log go above it.  One thread at a time. */
struct progress {
    const char *what;   /* "requests"; total 0: just this. */
    const char *detail; /* What is under way, or NULL; may change between steps. */
    uint64_t total;     /* So may this. */
    uint64_t begun_ns;
    uint64_t shown_ns;
    bool terminal;
    bool shown;
};

void progress_begin(struct progress *progress, const char *what, uint64_t total);
void progress_step(struct progress *progress, uint64_t done);
void progress_end(struct progress *progress); /* Wipes the line. */

#endif
