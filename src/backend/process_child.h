/*
 * process_child.h — the far side: the zygote, and the processes that it forks.
 *
 * The zygote is the program started again with one word.  It has one thread and no model, so it can
 * be forked at any time; it holds nothing but a socket to the server, forks a process when told to,
 * and tells how each has ended.  All of them die with the server.
 *
 * A process answers on its socket, where models are loaded and contexts opened, and has a thread
 * per context, which does what the context's channel says.  One more thread beats, and stops runs.
 */
#ifndef WEIR_BACKEND_PROCESS_CHILD_H
#define WEIR_BACKEND_PROCESS_CHILD_H

#include <sys/types.h>

#include "backend/process_shared.h"

#define PROCESS_ZYGOTE_WORD "model-processes" /* The word that it is started with ... */
#define PROCESS_ZYGOTE_SOCKET 3               /* ... and the descriptor. */

/* Never returns while the server lives; then the program's exit code. */
int process_zygote(void);

/* In a forked process: serves until the server lets go of it, then ends the process.  Takes
 * both. */
_Noreturn void process_child(int control, struct process_page *page, pid_t parent);

#endif
