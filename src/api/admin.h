/*
 * admin.h — health, metadata, configuration, logging, trace.  Loop thread.
 */
#ifndef WEIR_API_ADMIN_H
#define WEIR_API_ADMIN_H

struct api;
struct call;

void admin_home(struct call *call);
void admin_live(struct call *call);
void admin_ready(struct call *call);
void admin_model_ready(struct call *call);
void admin_server_metadata(struct call *call);
void admin_models(struct call *call);
void admin_model_metadata(struct call *call);
void admin_model_config(struct call *call);
void admin_logging_get(struct call *call);
void admin_logging_set(struct call *call);
void admin_trace_get(struct call *call);
void admin_trace_set(struct call *call);

/* Start: the log settings as the log's level has them. */
void admin_logging_init(struct api *api);

#endif
