/*
 * process_message.h — messages between the server, the zygote and the models' processes.
 *
 * A message is one packet on a socket pair, with up to PROCESS_FDS_MAX descriptors.  Numbers and
 * texts follow each other; what is read back is bounded and never trusted to be there.
 */
#ifndef WEIR_BACKEND_PROCESS_MESSAGE_H
#define WEIR_BACKEND_PROCESS_MESSAGE_H

#include "backend/backend.h"
#include "util/arena.h"
#include "util/bytes.h"

#define PROCESS_FDS_MAX 4
#define PROCESS_MESSAGE_MAX ((size_t)128 << 10)

/* X(name): the first number of a message. */
enum process_message {
    MESSAGE_FORK,   /* To the zygote: a process with this socket and this page. */
    MESSAGE_FORKED, /* From it: pid, and a descriptor of the process. */
    MESSAGE_EXITED, /* From it: pid, wait status. */
    MESSAGE_HELLO,  /* To a process: its limits. */
    MESSAGE_LOAD,   /* A model. */
    MESSAGE_UNLOAD,
    MESSAGE_OPEN, /* A context, with its channel. */
    MESSAGE_CLOSE,
    MESSAGE_DONE, /* From a process: status, sentence, what was asked for. */
    MESSAGE_AREA, /* On a channel: which, generation, size. */
};

/* A connected pair; both ends close on exec.  WEIR_EIO. */
WEIR_MUST_USE enum weir_status message_pair(int ends[2], struct weir_err *err);

/* A buffer with room for any message: neither writing one nor receiving one needs memory from then
 * on.  WEIR_ENOMEM; buffer_finish() it all the same. */
WEIR_MUST_USE enum weir_status message_room(struct buffer *out);

/* WEIR_EIO: the other end is gone; WEIR_ETOOBIG. */
WEIR_MUST_USE enum weir_status message_send(int socket, const struct buffer *message,
                                            const int *fds, uint32_t fd_count);

/* Blocks.  `out` is cleared first; fds[i] is -1 where none came.  WEIR_EIO: the other end is
 * gone. */
WEIR_MUST_USE enum weir_status message_receive(int socket, struct buffer *out,
                                               int fds[PROCESS_FDS_MAX]);
void message_close(int fds[PROCESS_FDS_MAX]); /* Those that are not -1. */

/* ---- Writing: into a buffer whose `failed` tells at the end. */
void message_u64(struct buffer *out, uint64_t value);
void message_text(struct buffer *out, const char *text); /* NULL is kept apart from "". */

/* ---- Reading: after a mistake everything is 0 and `failed` stays. */
struct message_reader {
    const char *at;
    size_t left;
    bool failed;
    bool no_memory; /* That is why. */
};

struct message_reader message_read(const struct buffer *message);
uint64_t message_get_u64(struct message_reader *reader);
/* At most `max`, else it counts as a mistake. */
uint64_t message_get_bounded(struct message_reader *reader, uint64_t max);
/* As it lies in the message; data NULL: none. */
struct bytes message_get_bytes(struct message_reader *reader);
/* A copy in the arena, or NULL; memory that is out counts as a mistake. */
const char *message_get_text(struct message_reader *reader, struct arena *arena);

/* ---- What is said more than once. */

/* A load, without its folder, clock and blocks. */
void message_load(struct buffer *out, const char *backend, const struct backend_load *how);
void message_get_load(struct message_reader *reader, struct arena *arena, const char **backend,
                      struct backend_load *how);

/* A signature.  Reading checks it: dtypes, ranks, dimensions, counts. */
void message_signature(struct buffer *out, const struct signature *signature);
WEIR_MUST_USE enum weir_status message_get_signature(struct message_reader *reader,
                                                     struct arena *arena, struct signature *out,
                                                     struct weir_err *err);

#endif
