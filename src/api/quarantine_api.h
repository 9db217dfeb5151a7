/*
 * quarantine_api.h — inputs that are refused because they crashed their model: shown and let go.
 *
 * GET /v2/quarantine          {"entries":[{"model","version","digest","death","expires_s","refused"}]}
 * POST /v2/quarantine/clear   {"model":"NAME"} or nothing for all; {"cleared":N}; 404 where there
 *                             is neither an input nor a model of that name, loaded or not
 */
#ifndef WEIR_API_QUARANTINE_API_H
#define WEIR_API_QUARANTINE_API_H

struct call;

void quarantine_show(struct call *call);
void quarantine_let_go(struct call *call);

#endif
