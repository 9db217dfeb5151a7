/*
 * repository.h — which models there are, loading and unloading them.  Loop thread.
 */
#ifndef WEIR_API_REPOSITORY_H
#define WEIR_API_REPOSITORY_H

struct call;

void repository_index(struct call *call);
void repository_load(struct call *call);   /* Answers when the model is ready, or has failed. */
void repository_unload(struct call *call); /* Answers when the model is no longer offered. */

#endif
