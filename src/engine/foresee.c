#include "engine/foresee.h"

#include <stdio.h>
#include <string.h>

void foresee_judge(struct foresight *self, bool right)
{
    if (right) {
        self->score += self->score < FORESEE_MOST ? 1 : 0;
    } else {
        self->score -= self->score > 0 ? 1 : 0;
    }
}

void foresee_saw(struct foresight *self, const char *next)
{
    if (self->score == 0) {
        (void)snprintf(self->name, sizeof(self->name), "%s", next);
        self->score = 1;
    } else {
        foresee_judge(self, strcmp(self->name, next) == 0);
    }
}

const char *foresee_next(const struct foresight *self)
{
    return self->score >= FORESEE_SURE ? self->name : NULL;
}
