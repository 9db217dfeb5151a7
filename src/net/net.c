/*
 * What connections share: one read buffer, spare streams, one formatted date.
 */
#include "net/net.h"

#include <time.h>

#include "net/conn.h"
#include "net/stream.h"
#include "util/mem.h"

struct http_net *net_of(struct loop *loop)
{
    if (loop->net == NULL) {
        struct http_net *net = mem_alloc(sizeof(*net));
        net->loop = loop;
        list_init(&net->listeners);
        list_init(&net->spare);
        list_init(&net->resume);
        loop->net = net;
    }
    return loop->net;
}

const char *net_date(struct http_net *net)
{
    if (net->loop->now_ns >= net->date_until_ns) {
        struct timespec wall;
        struct tm parts;
        clock_gettime(CLOCK_REALTIME, &wall);
        gmtime_r(&wall.tv_sec, &parts);
        /* Locale "C" is never left, so the names are the English ones of RFC 9110. */
        (void)strftime(net->date, sizeof(net->date), "%a, %d %b %Y %H:%M:%S GMT", &parts);
        net->date_until_ns = clock_add(net->loop->now_ns, NS_PER_S - (uint64_t)wall.tv_nsec);
    }
    return net->date;
}

void http_drain(struct loop *loop)
{
    if (loop->net == NULL) {
        return;
    }
    loop->net->draining = true;
    loop->net->drained_ns = loop->now_ns;
    struct list_node *node = list_first(&loop->connections);
    while (node != NULL) {
        struct http_conn *c = list_entry(node, struct http_conn, node);
        node = list_next(&loop->connections, node);
        conn_drain(c);
    }
}

void net_close_all(struct loop *loop)
{
    if (loop->net == NULL) {
        return;
    }
    listener_close_all(loop->net);
    for (struct list_node *node = list_first(&loop->connections); node != NULL;
         node = list_next(&loop->connections, node)) {
        conn_close(list_entry(node, struct http_conn, node));
    }
}

bool net_finish(struct loop *loop)
{
    struct http_net *net = loop->net;
    if (net == NULL) {
        return true;
    }
    if (net->listener_count > 0 || loop->connection_count > 0) {
        return false;
    }
    for (struct list_node *node = list_pop(&net->spare); node != NULL;
         node = list_pop(&net->spare)) {
        mem_free(stream_at(node));
    }
    http2_memory_finish(&net->http2_memory);
    mem_free(net->spare_text);
    mem_free(net);
    loop->net = NULL;
    return true;
}
