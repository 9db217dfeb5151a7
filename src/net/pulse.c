#include "net/pulse.h"

static void receive(struct loop_mail *mail)
{
    struct pulse *pulse = list_entry(mail, struct pulse, mail);
    atomic_store(&pulse->sent_ns, 0);
}

void pulse_init(struct pulse *pulse, struct loop *loop)
{
    *pulse = (struct pulse){ .mail = { .receive = receive }, .loop = loop };
}

void pulse_end(struct pulse *pulse)
{
    atomic_store(&pulse->over, true);
}

bool pulse_look(struct pulse *pulse, uint64_t now_ns, uint64_t patience_ns)
{
    if (atomic_load(&pulse->over)) {
        return true;
    }
    uint64_t sent_ns = 0;
    if (atomic_compare_exchange_strong(&pulse->sent_ns, &sent_ns, now_ns > 0 ? now_ns : 1)) {
        loop_send(pulse->loop, &pulse->mail);
        return true;
    }
    return now_ns < sent_ns || now_ns - sent_ns <= patience_ns;
}
