#include "util/near.h"

#include <stdio.h>
#include <string.h>

/* Letters to change, add or leave out, from one word to the other. */
static size_t distance(const char *a, const char *b)
{
    const size_t b_size = strnlen(b, NEAR_WORD_BYTES - 1);
    size_t row[NEAR_WORD_BYTES];
    for (size_t j = 0; j <= b_size; j++) {
        row[j] = j;
    }
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            const size_t above = row[j];
            const size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            const size_t insert = (row[j - 1] < above ? row[j - 1] : above) + 1;
            row[j] = change < insert ? change : insert;
            diagonal = above;
        }
    }
    return row[b_size];
}

void near_begin(struct near *near, const char *text)
{
    *near = (struct near){ .text = text, .far = strlen(text) / 3 + 1 }; /* No near miss any more. */
}

void near_look(struct near *near, const char *word)
{
    const size_t far = distance(near->text, word);
    if (far < near->far) {
        near->far = far;
        (void)snprintf(near->word, sizeof(near->word), "%s", word);
    }
}
