/*
 * foresee.h — which model is usually asked for after another.
 *
 * Each model remembers one successor and how sure it is of it: who comes often stays, who comes now
 * and then is soon replaced.  Pure.
 */
#ifndef WEIR_ENGINE_FORESEE_H
#define WEIR_ENGINE_FORESEE_H

#include <stdbool.h>
#include <stdint.h>

#define FORESEE_NAME_BYTES 129
#define FORESEE_SURE 3 /* Times more often than anybody else that make a successor likely. */
#define FORESEE_MOST 8 /* Is not surer than after so many. */

/* Zeroed: nothing is known. */
struct foresight {
    char name[FORESEE_NAME_BYTES];
    uint32_t score;
};

/* `next` was asked for after it. */
void foresee_saw(struct foresight *self, const char *next);

/* What it foretold was asked for, or was not. */
void foresee_judge(struct foresight *self, bool right);

/* Who will probably be asked for next, or NULL. */
const char *foresee_next(const struct foresight *self);

#endif
