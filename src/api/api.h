/*
 * api.h — everything Weir says over HTTP, for those who run it.
 *
 *     struct api *api = api_create(&options);
 *     per loop:  api_loop_attach(&api_loops[i], api, loop);
 *                http_listen(loop, address, index, api_handler(api), ...);
 *     to stop:   api_drain(api)        ready turns false on every connection
 *                http_drain(loop), api_loop_drain(), engine_drain(engine) after the grace time
 *                api_loop_detach()     after loop_close(), before loop_finish()
 *                api_destroy(api)
 *
 * One struct api per server, one struct api_loop per loop.  Options are borrowed for the
 * server's life.
 */
#ifndef WEIR_API_API_H
#define WEIR_API_API_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "engine/registry.h"
#include "net/http.h"
#include "net/loop.h"
#include "net/pulse.h"
#include "util/metric.h"

#define API_LOOPS_MAX 64
#define API_MEMORIES 16
#define API_RECALLS 17
#define API_CODES 600 /* HTTP status codes counted. */
#define API_GRPC_CODES 17

struct access;
struct gpus;
struct shm;
struct tls;

/* Appends a model's effective configuration as the JSON object of /config
 * (server/modelconfig.c). */
typedef void api_config_json_fn(const struct model *model, struct buffer *out);

/* Reads the settings again: WEIR_OK with the names of those that changed, with commas, or why
 * nothing did.  Worker thread. */
typedef enum weir_status api_reload_fn(void *context, struct buffer *names, struct weir_err *err);

struct api_options {
    const char *name; /* What /v2 says; "weir". */
    const char *version;
    struct engine *engine;
    struct registry *registry;
    const struct limits *limits;
    api_config_json_fn *config_json;
    struct access *access;     /* Who may call what; NULL: everybody. */
    struct tls *tls;           /* For its metrics; NULL: plain. */
    bool access_log;           /* One line per answer, at LOG_INFO; see api_set_answers(). */
    struct gpus *gpus;         /* For metrics; NULL: there are none. */
    struct shm *shm;           /* Clients' shared memory; NULL: there is none. */
    const char *client_header; /* Request field that names the client; NULL: none. */
    bool timing;               /* Server-Timing on every inference, asked for or not; likewise. */
    api_reload_fn *reload;     /* NULL: there is nothing to read. */
    void *reload_context;
};

struct api;
struct infer_memory;
struct infer_recall;

/* Owned by its loop's thread but for the atomics, which /metrics reads from any. */
struct api_loop {
    struct api *api;
    struct loop *loop;
    struct home home;      /* Where this loop's requests come back to. */
    struct loop_mail wake; /* From the home to the loop. */
    _Atomic bool woken;    /* That mail is on its way. */
    struct loop_hook hook;
    struct loop_timer timer;       /* For home_next_ns(). */
    uint64_t timer_ns;             /* What it is set to; CLOCK_NEVER: not set. */
    struct infer_memory *memories; /* API_MEMORIES of them, by model. */
    struct infer_recall *recalls;  /* API_RECALLS of them, by message size. */
    struct buffer scratch;         /* For answers being written. */
    uint64_t request_number;       /* For generated request ids. */
    uint64_t jobs;                 /* Of gRPC, and loads waited for: may outlive their exchanges. */
    struct list spare_jobs;        /* Of struct kserve_grpc_job, for reuse. */
    uint32_t spare_job_count;
    struct list named;     /* Of infer_call.named: inferences under way that carry an id. */
    struct list unloaded;  /* Of struct demand_wait: such whose model is being loaded. */
    struct list streams;   /* Calls of gRPC that end when their clients want. */
    struct loop_mail tell; /* Readiness has changed. */
    struct pulse pulse;
    bool draining; /* No further ones of those. */

    /* Written by the loop only. */
    _Atomic uint64_t answers[API_CODES];
    _Atomic uint64_t grpc_answers[API_GRPC_CODES];
    _Atomic uint64_t received_bytes;
    _Atomic uint64_t sent_bytes;
    _Atomic uint64_t connections;
    struct histogram turn_time; /* From a turn's first read to its end. */
};

struct api *api_create(const struct api_options *options);
void api_destroy(struct api *api); /* NULL is fine. */

/* Before the loop runs: sets loop->user.  At most API_LOOPS_MAX loops. */
void api_loop_attach(struct api_loop *self, struct api *api, struct loop *loop);

/* With http_drain(): ends what would go on for as long as its client wants. */
void api_loop_drain(struct api_loop *self);

/* After loop_close(), before loop_finish(): no thread wakes the loop any more. */
void api_loop_detach(struct api_loop *self);

/* Any thread: from now on answers are logged and timed so. */
void api_set_answers(struct api *api, bool access_log, bool timing);

const struct http_handler *api_handler(const struct api *api);

/* Any thread: from now on the server says that it is not ready. */
void api_drain(struct api *api);

/* Any thread, once, after api_drain(): those of the loop who watch readiness hear of it at once. */
void api_loop_tell(struct api_loop *self);

/* Any thread, while the loops are there: all of them have turned within `patience_ns`, where
 * somebody looked that long ago. */
bool api_is_live(struct api *api, uint64_t now_ns, uint64_t patience_ns);

#endif
