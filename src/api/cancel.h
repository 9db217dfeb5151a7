/*
 * cancel.h — POST v2/models/{model}/cancel {"id": "..."}: those who sent a request, or those who
 * look after the server, no longer want it.
 *
 * Works on inferences that carry an id, whatever protocol brought them, on whatever loop.  A
 * request in line ends at once, as does one whose model is being loaded; a running one as soon as
 * its run can be stopped.  Each time its sender gets the answer of a canceled request.  The answer
 * here is {"canceled": N}: N requests that were asked to stop.  0 is no failure: it may just have
 * ended.
 *
 * Where keys are asked for, a key stops the requests of its own client, and any where it may manage
 * models.
 */
#ifndef WEIR_API_CANCEL_H
#define WEIR_API_CANCEL_H

struct call;

void cancel_post(struct call *call);

#endif
