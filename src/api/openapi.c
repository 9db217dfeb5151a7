#include "api/openapi.h"

#include "api/call.h"

/* Made of openapi.yaml by the build. */
extern const char openapi_text[];
extern const size_t openapi_text_size;

void openapi_get(struct call *call)
{
    exchange_reply(call->x, 200, "application/yaml",
                   (struct bytes){ openapi_text, openapi_text_size });
}
