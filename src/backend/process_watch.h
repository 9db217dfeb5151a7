/*
 * process_watch.h — the server's side of its models' processes: making them, talking to them, and
 * the one thread, the supervisor, that learns how they end and ends those that hang.
 *
 * The thread and the zygote begin with the first process and stay.  Nothing of it exists in a
 * server whose models are not isolated.
 */
#ifndef WEIR_BACKEND_PROCESS_WATCH_H
#define WEIR_BACKEND_PROCESS_WATCH_H

#include <pthread.h>
#include <sys/types.h>

#include "backend/process_memory.h"
#include "backend/process_message.h"
#include "util/list.h"

/* After its run limit a run that was told to stop has as long to do so. */
#define PROCESS_GRACE_NS NS_PER_S

/* A context's channel, as far as the supervisor sees it. */
struct process_watched {
    struct list_node node; /* In the process's list, under the supervisor's lock. */
    struct process_head *head;
    _Atomic uint64_t limit_ns; /* Of the run; 0: none. */
    _Atomic uint64_t run;      /* Number of the run. */
    _Atomic uint64_t begun_ns; /* When the server ended its turn; 0: it is the server's. */
    _Atomic uint64_t late_run; /* Number of the run that passed its limit. */
    _Atomic int death;         /* enum backend_death, once the process is dead. */
};

/* One process.  Counted; the last holder ends it. */
struct process {
    struct list_node node; /* Under the supervisor's lock, like what is marked with *. */
    _Atomic uint32_t holders;
    _Atomic bool dead;
    char label[64]; /* The model's or group's name, for people. */
    pid_t pid;
    int handle;  /* A descriptor of the process. */
    int control; /* Its socket. */
    struct process_area memory;
    struct process_page *page;
    pthread_mutex_t talk;           /* Guards control and message: one question at a time. */
    struct buffer message;          /* The question, then its answer. */
    uint64_t loaded;                /* Bits of its models; its slot's. */
    struct list channels;           /* * */
    enum backend_death death;       /* How it ended, once it is dead. */
    _Atomic uint64_t told;          /* Bits of the models of which a run has told so. */
    enum backend_death cause;       /* * Why the server killed it; DEATH_NONE: it did not. */
    struct process_watched *guilty; /* * Whose run it was, then. */
    uint32_t beats;                 /* * As they were at the last look ... */
    uint32_t still;                 /* * ... and for how many looks. */
    char end[96];                   /* * How it ended, for people. */
};

/* What zygotes are started from, looked for in PATH when it has no slash; "weir" is the default.
 * Before the first load. */
void process_set_program(const char *path);

/* WEIR_EUNAVAILABLE, WEIR_ENOMEM, WEIR_EIO. */
WEIR_MUST_USE enum weir_status process_start(const char *label, struct process **out,
                                             struct weir_err *err);
void process_acquire(struct process *process);
void process_release(struct process *process); /* The last one waits for its end.  NULL is fine. */

/*
 * Asks the process: process->message holds the question, and on return the answer behind its
 * status.  `talk` is held by the caller.  The status is the process's; WEIR_EBACKEND with how it
 * ended when it did.  One that has not answered after limit_ns, 0: there is no limit, is ended.
 */
WEIR_MUST_USE enum weir_status process_ask(struct process *process, const int *fds,
                                           uint32_t fd_count, uint64_t limit_ns,
                                           struct message_reader *out, struct weir_err *err);

/* Any thread.  Ends it, and waits until it has ended, so that nobody runs anything in it again; `guilty` may be
 * NULL. */
void process_kill(struct process *process, enum backend_death cause,
                  struct process_watched *guilty);

/* A run of that model (its index in the slot) came to its end by this death: how the process ended, for the first of
 * them; NONE for the others.  `death` itself while the process lives. */
enum backend_death process_tell(struct process *process, uint32_t model, enum backend_death death);

/* From now on the channel's runs are watched.  False: the process has ended already. */
WEIR_MUST_USE bool process_watch(struct process *process, struct process_watched *channel);
void process_unwatch(struct process *process, struct process_watched *channel);

/* How it ended, "signal 11 (Segmentation fault)", into `out` of at least 96 bytes. */
void process_end_text(struct process *process, char *out);

/* After the last process: ends the zygote and the supervisor. */
void process_stop(void);

#endif
