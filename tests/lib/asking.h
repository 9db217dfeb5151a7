/*
 * asking.h — requests as most tests of the engine send them: rows of numbers, all outputs wanted.
 */
#ifndef WEIR_TESTS_ASKING_H
#define WEIR_TESTS_ASKING_H

#include "engine/home.h"
#include "engine/request.h"

/* `rows` by `width` numbers at `values`, which stay there. */
struct tensor asking_rows(float *values, int64_t rows, int64_t width);

/* An initialised request of at most eight outputs; who hears of its end is still to be set. */
void asking_init(struct request *request, struct home *home, struct model *model,
                 struct tensor *inputs, struct tensor *outputs);

#endif
