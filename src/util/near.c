#include "util/near.h"

#include <stdio.h>
#include <string.h>

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Letters to change, add or leave out, or neighbours to swap, from one word to the other. */
static size_t distance(const char *a, const char *b)
{
    const size_t b_size = strnlen(b, NEAR_WORD_BYTES - 1);
    size_t rows[3][NEAR_WORD_BYTES]; /* Of the letter at hand and the two before it. */
    for (size_t j = 0; j <= b_size; j++) {
        rows[0][j] = j;
    }
    size_t i = 0;
    for (; a[i] != '\0'; i++) {
        const size_t *before = rows[i % 3];
        size_t *row = rows[(i + 1) % 3];
        row[0] = i + 1;
        for (size_t j = 0; j < b_size; j++) {
            row[j + 1] = least(least(row[j], before[j + 1]) + 1, before[j] + (a[i] != b[j]));
            if (i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j]) {
                row[j + 1] = least(row[j + 1], rows[(i + 2) % 3][j - 1] + 1);
            }
        }
    }
    return rows[i % 3][b_size];
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
