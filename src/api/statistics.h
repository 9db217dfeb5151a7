/*
 * statistics.h — Triton's statistics of models.  Loop thread.
 */
#ifndef WEIR_API_STATISTICS_H
#define WEIR_API_STATISTICS_H

struct call;

void statistics_model(struct call *call); /* One model, all its versions or one. */
void statistics_all(struct call *call);

#endif
