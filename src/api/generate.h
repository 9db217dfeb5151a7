/*
 * generate.h — POST .../generate and .../generate_stream: plain JSON in and out.  Loop thread.
 */
#ifndef WEIR_API_GENERATE_H
#define WEIR_API_GENERATE_H

struct call;

void generate_once(struct call *call);
void generate_stream(struct call *call); /* Server-sent events, one per part of the answer. */

#endif
