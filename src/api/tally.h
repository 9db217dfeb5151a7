/*
 * tally.h — an exchange is over: it is counted, and written to the access log.
 *
 * For the loop's thread; as http_handler.done, of a struct api.
 */
#ifndef WEIR_API_TALLY_H
#define WEIR_API_TALLY_H

#include "net/http.h"

void tally_exchange(void *api, struct exchange *x);

#endif
