/*
 * call_head.h — a call begins: its header has come.
 *
 * Makes the call (exchange.user), names the request in the answer's header, finds who handles it
 * and whether this client may ask, and sets what the body may be.  What cannot be handled has been
 * answered when it returns.  For the loop's thread; as http_handler.head, of a struct api.
 */
#ifndef WEIR_API_CALL_HEAD_H
#define WEIR_API_CALL_HEAD_H

#include "net/http.h"

void call_head(void *api, struct exchange *x);

#endif
