/*
 * openapi.h — GET /openapi.yaml: the REST interface, for programs.
 *
 * The text is openapi.yaml beside this file, as it was when Weir was built.  Loop thread.
 */
#ifndef WEIR_API_OPENAPI_H
#define WEIR_API_OPENAPI_H

struct call;

void openapi_get(struct call *call);

#endif
