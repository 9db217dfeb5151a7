/*
 * server.h — puts the parts together and takes them apart again.
 *
 * The server knows everything and decides nothing.  It starts listening before the models are
 * loaded: live is true at once, ready turns true when every required model is.
 *
 * Stopping (SIGTERM or SIGINT): not ready at once on every connection; a grace time in which
 * everything still works, because balancers lag; then no new connections, `Connection: close` on
 * every answer, new inferences refused, accepted ones finished; then the end.  A second signal ends
 * at once.
 */
#ifndef WEIR_SERVER_SERVER_H
#define WEIR_SERVER_SERVER_H

#include "server/config.h"
#include "server/reload.h"
#include "server/report.h"
#include "util/err.h"

struct server;

enum server_mode {
    SERVER_SERVE,
    SERVER_CHECK, /* Loads the models, but listens nowhere and logs nothing about them. */
};

/* Signals must be blocked before any thread exists: call first in main(). */
void server_block_signals(void);

/* Starts everything; `config` is borrowed.  The calling thread is the server's main thread: it
 * alone makes the calls below that wait.  WEIR_EIO: a port is taken, a folder cannot be opened;
 * *out is set then, too, and all that may be done with it is server_destroy(). */
WEIR_MUST_USE enum weir_status server_start(const struct config *config, enum server_mode mode,
                                            struct server **out, struct weir_err *err);

/* Where the settings come from when SIGHUP asks to read them again (reload.h). */
void server_reload_from(struct server *server, reload_read_fn *read, void *context);

/* Calls `tell` about every `every_ns` while server_wait_models() waits, on its thread. */
typedef void server_loading_fn(void *context, const struct report_loading *loading);
void server_tell_loading(struct server *server, uint64_t every_ns, server_loading_fn *tell,
                         void *context);

/* Blocks until every model is loaded or has failed.  True: all that are required are READY.
 * False too when a signal came meanwhile, which server_wait() then acts upon. */
bool server_wait_models(struct server *server);

/* Blocks until the server has stopped after a signal.  WEIR_ETIMEOUT: the drain time-out passed
 * with requests unfinished; WEIR_ECANCELED: a second signal ended it.  After both a run may
 * still be under way: end the process rather than server_destroy(), which would wait for it. */
WEIR_MUST_USE enum weir_status server_wait(struct server *server);

/* Waits for loads that are under way, while the drain time-out lasts.  False: one has not ended;
 * end the process by _exit().  NULL is fine. */
bool server_destroy(struct server *server);

/* Where it listens: "http://127.0.0.1:8000 unix:/run/weir.sock", the first port first. */
void server_addresses(const struct server *server, struct buffer *out);

struct report_count server_count_models(struct server *server);

void server_models(struct server *server, bool json, struct buffer *out);

/* "ONNX Runtime 1.30.0"; static storage. */
const char *server_backends(void);

#endif
