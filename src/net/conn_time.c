/*
 * The times by which something must have happened on a connection.
 */
#include "net/conn.h"

#include "net/protocol.h"

#define LINGER_NS (2 * NS_PER_S)
#define FRESH_NS NS_PER_S
#define DRAIN_IDLE_NS \
    (200 * NS_PER_MS) /* For a request that was on its way when the loop drained. */

bool conn_is_fresh(const struct http_conn *c)
{
    return c->used && c->loop->now_ns < clock_add(c->read_ns, FRESH_NS);
}

uint64_t conn_idle_until_ns(const struct http_conn *c, uint64_t timeout_ns)
{
    const struct http_net *net = c->net;
    const uint64_t at_ns = clock_add(c->idle_ns, timeout_ns);
    if (!net->draining) {
        return at_ns;
    }
    const uint64_t since_ns = c->idle_ns > net->drained_ns ? c->idle_ns : net->drained_ns;
    const uint64_t drain_ns = clock_add(since_ns, DRAIN_IDLE_NS);
    return at_ns < drain_ns ? at_ns : drain_ns;
}

uint64_t conn_deadline_ns(const struct http_conn *c)
{
    const struct limits *limits = c->loop->limits;
    if (c->state == CONN_LINGER) {
        return clock_add(c->idle_ns, LINGER_NS);
    }
    uint64_t at_ns = CLOCK_NEVER;
    if (c->writing) {
        at_ns = clock_add(c->write_ns, limits->write_timeout_ns);
    }
    uint64_t read_at_ns = c->protocol->deadline_ns(c);
    if (c->stream_count == 0 && read_at_ns == CLOCK_NEVER && !c->writing) {
        read_at_ns =
            conn_idle_until_ns(c, c->used ? limits->idle_timeout_ns : limits->header_timeout_ns);
    }
    return read_at_ns < at_ns ? read_at_ns : at_ns;
}

void conn_rearm(struct http_conn *c)
{
    if (c->state == CONN_GONE) {
        return;
    }
    const uint64_t at_ns = conn_deadline_ns(c);
    if (at_ns != CLOCK_NEVER && (!c->timer.node.in || at_ns < c->timer.node.key)) {
        loop_timer_set(c->loop, &c->timer, at_ns);
    }
}
