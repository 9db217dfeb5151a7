/*
 * mailbox.h — how threads speak.
 *
 * Any thread sends, one thread owns and receives.  The message is a node inside
 * the thing sent; sending gives the thing away.  `wake` is called once when the
 * box turns from empty to not empty, on the sender's thread: one wake-up for a
 * whole batch of messages.  Lock-free (a stack turned round at receipt), first
 * in first out per sender.
 */
#ifndef WEIR_UTIL_MAILBOX_H
#define WEIR_UTIL_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>

struct mail {
    struct mail *next;
};

typedef void mailbox_wake_fn(void *context);

struct mailbox {
    _Atomic(struct mail *) top;
    mailbox_wake_fn *wake; /* May be NULL.  Must not block. */
    void *context;
};

void mailbox_init(struct mailbox *box, mailbox_wake_fn *wake, void *context);

/* Any thread.  True when this call woke the owner. */
bool mailbox_send(struct mailbox *box, struct mail *mail);

/* Any thread: a chain first..last already linked through `next`, in order of sending. */
bool mailbox_send_chain(struct mailbox *box, struct mail *first, struct mail *last);

/* Owner only: everything sent so far, oldest first, linked through `next`; NULL when empty. */
struct mail *mailbox_receive(struct mailbox *box);

#endif
