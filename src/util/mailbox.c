/*
 * Senders push onto a stack, the owner takes all of it with one exchange and
 * turns it round.  Nothing is ever popped singly, so the stack has no ABA case.
 * Whoever pushes onto an empty stack wakes the owner: until the owner has taken
 * the batch, every later sender finds it not empty.
 */
#include "util/mailbox.h"

#include <assert.h>
#include <stddef.h>

static struct mail *turn_round(struct mail *mail)
{
    struct mail *turned = NULL;
    while (mail != NULL) {
        struct mail *next = mail->next;
        mail->next = turned;
        turned = mail;
        mail = next;
    }
    return turned;
}

void mailbox_init(struct mailbox *box, mailbox_wake_fn *wake, void *context)
{
    atomic_init(&box->top, NULL);
    box->wake = wake;
    box->context = context;
}

/* newest..oldest is linked in the stack's order. */
static bool push(struct mailbox *box, struct mail *newest, struct mail *oldest)
{
    /* Read first: once the mail is taken, the owner may be done with the box. */
    mailbox_wake_fn *wake = box->wake;
    void *context = box->context;
    struct mail *top = atomic_load_explicit(&box->top, memory_order_relaxed);
    do {
        oldest->next = top;
    } while (!atomic_compare_exchange_weak_explicit(&box->top, &top, newest, memory_order_release,
                                                    memory_order_relaxed));
    /* From here on the mail is the owner's. */
    if (top != NULL) {
        return false;
    }
    if (wake != NULL) {
        wake(context);
    }
    return true;
}

bool mailbox_send(struct mailbox *box, struct mail *mail)
{
    return push(box, mail, mail);
}

bool mailbox_send_chain(struct mailbox *box, struct mail *first, struct mail *last)
{
    assert(first != NULL && last != NULL);
    last->next = NULL;
    return push(box, turn_round(first), first);
}

struct mail *mailbox_receive(struct mailbox *box)
{
    return turn_round(atomic_exchange_explicit(&box->top, NULL, memory_order_acquire));
}
