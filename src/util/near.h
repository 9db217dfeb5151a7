/*
 * near.h — "did you mean": which of the words that are allowed somebody had in mind.
 *
 * Words are compared by their first NEAR_WORD_BYTES - 1 bytes.  Allocates nothing.
 */
#ifndef WEIR_UTIL_NEAR_H
#define WEIR_UTIL_NEAR_H

#include <stddef.h>

#define NEAR_WORD_BYTES 96

struct near {
    const char *text;           /* What was written. */
    size_t far;                 /* Letters changed or swapped from there to `word`. */
    char word[NEAR_WORD_BYTES]; /* The nearest so far; "": none is near. */
};

/* `text` is borrowed. */
void near_begin(struct near *near, const char *text);

/* Looks at one of the words that are allowed. */
void near_look(struct near *near, const char *word);

#endif
