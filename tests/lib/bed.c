#include "bed.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cmocka.h>

#include "util/mem.h"

#define PATIENCE_S 120

/* What the handler knows about one exchange; its memory is the exchange's. */
struct visit {
    struct exchange *x;
    struct list_node node; /* In bed->held. */
    unsigned parts;
    unsigned requests;
    unsigned cancels;
};

/* --- The handler, on the loop's thread --- */

static void count(struct bed *bed, unsigned *counter)
{
    pthread_mutex_lock(&bed->lock);
    (*counter)++;
    pthread_cond_broadcast(&bed->changed);
    pthread_mutex_unlock(&bed->lock);
}

static void expect(struct bed *bed, bool promise)
{
    if (!promise) {
        count(bed, &bed->counts.bad);
    }
}

static bool path_is(const struct exchange *x, const char *path)
{
    return bytes_equal(x->path, bytes_of(path));
}

static bool path_begins(const struct exchange *x, const char *path)
{
    const struct bytes prefix = bytes_of(path);
    return x->path.size >= prefix.size && memcmp(x->path.data, prefix.data, prefix.size) == 0;
}

static struct bytes path_rest(const struct exchange *x, const char *path)
{
    const size_t size = strlen(path);
    return (struct bytes){ x->path.data + size, x->path.size - size };
}

static size_t align_at(const struct exchange *x)
{
    uint64_t at = 0;
    return bytes_to_u64(exchange_field(x, "x-align"), 1000, &at) ? (size_t)at : 0;
}

static void on_head(void *context, struct exchange *x)
{
    struct bed *bed = context;
    struct visit *visit = arena_try_zero(&x->arena, 1, sizeof(*visit));
    x->user = visit;
    count(bed, &bed->counts.head);
    if (visit == NULL) {
        exchange_fail(x, WEIR_ENOMEM, "no memory for a visit", 0);
        return;
    }
    visit->x = x;
    x->body_align_at = align_at(x);
    if (path_is(x, "/refuse")) {
        exchange_fail(x, WEIR_EFORBIDDEN, "refused at the door", 0);
    } else if (path_is(x, "/tiny")) {
        x->body_bytes_max = 10;
    }
}

static void stream_on(struct exchange *x)
{
    struct visit *visit = x->user;
    if (path_is(x, "/flood")) {
        static const char flood[65536];
        exchange_copy(x, (struct bytes){ flood, sizeof(flood) });
        return;
    }
    if (visit->parts == 0) {
        exchange_finish(x);
        return;
    }
    exchange_copy(x, BYTES_LITERAL("part\n"));
    visit->parts--;
}

static void hold(struct bed *bed, struct visit *visit)
{
    list_append(&bed->held, &visit->node);
    count(bed, &bed->counts.held);
}

static void answer(struct bed *bed, struct exchange *x)
{
    static const char *const text = "text/plain";
    struct visit *visit = x->user;
    if (path_is(x, "/ok")) {
        exchange_reply(x, 200, text, BYTES_LITERAL("ok"));
    } else if (path_is(x, "/echo") || path_is(x, "/tiny")) {
        exchange_reply(x, 200, text, x->body);
    } else if (path_is(x, "/aligned")) {
        const bool yes = ((uintptr_t)x->body.data + align_at(x)) % MEM_ALIGN == 0;
        exchange_reply(x, 200, text, yes ? BYTES_LITERAL("yes") : BYTES_LITERAL("no"));
    } else if (path_begins(x, "/hold/")) {
        hold(bed, visit);
    } else if (path_begins(x, "/stream/")) {
        uint64_t parts = 0;
        expect(bed, bytes_to_u64(path_rest(x, "/stream/"), 1000, &parts));
        visit->parts = (unsigned)parts;
        exchange_begin(x, 200, text, HTTP_STREAM);
        stream_on(x);
    } else if (path_is(x, "/flood")) {
        exchange_begin(x, 200, text, HTTP_STREAM);
        stream_on(x);
    } else if (path_is(x, "/short")) {
        exchange_begin(x, 200, text, 10);
        exchange_piece(x, BYTES_LITERAL("cut"));
        exchange_finish(x);
    } else if (path_is(x, "/header")) {
        exchange_header(x, "X-Found", exchange_field(x, "x-find"));
        exchange_reply(x, 200, NULL, (struct bytes){ 0 });
    } else {
        exchange_fail(x, WEIR_ENOENT, "no such route", 0);
    }
}

/* What came while sockets waited may have come when they began to. */
static bool came_before_the_wait(const struct bed *bed, uint64_t at_ns)
{
    return at_ns + bed->wait.ns <= bed->loop.now_ns;
}

static void on_request(void *context, struct exchange *x)
{
    struct bed *bed = context;
    struct visit *visit = x->user;
    expect(bed, came_before_the_wait(bed, x->begun_ns));
    expect(bed, came_before_the_wait(bed, x->received_ns));
    expect(bed, visit->requests == 0 && visit->cancels == 0);
    visit->requests++;
    count(bed, &bed->counts.request);
    if (path_is(x, "/canary")) {
        count(bed, &bed->counts.canary);
    }
    answer(bed, x);
}

static void on_canceled(void *context, struct exchange *x)
{
    struct bed *bed = context;
    struct visit *visit = x->user;
    expect(bed, visit->cancels == 0 && !x->finished);
    visit->cancels++;
    if (!bed->hold_when_canceled) {
        list_remove(&visit->node);
        exchange_finish(x);
    }
    count(bed, &bed->counts.canceled);
}

static void on_done(void *context, struct exchange *x)
{
    struct bed *bed = context;
    struct visit *visit = x->user;
    if (visit != NULL) {
        expect(bed, visit->x == x); /* The arena is still there. */
        visit->x = NULL;
    }
    pthread_mutex_lock(&bed->lock);
    bed->counts.status = x->status;
    bed->counts.sent_bytes = x->sent_bytes;
    pthread_mutex_unlock(&bed->lock);
    count(bed, &bed->counts.done);
}

static void on_drained(void *context, struct exchange *x)
{
    struct bed *bed = context;
    expect(bed, x->streaming && x->unsent_bytes == 0);
    stream_on(x);
}

static void wait_again(struct loop_hook *hook)
{
    const struct bed_wait *self = list_entry(hook, struct bed_wait, hook);
    self->loop->waited_ns = self->ns;
}

void bed_wait_add(struct bed_wait *self, struct loop *loop, uint64_t ns)
{
    *self = (struct bed_wait){ .hook.turn = wait_again, .loop = loop, .ns = ns };
    loop_hook_add(loop, &self->hook);
}

/* --- The bed, on the test's thread --- */

void bed_init(struct bed *bed)
{
    memset(bed, 0, sizeof(*bed));
    limits_init(&bed->limits);
    bed->handler = (struct http_handler){ .context = bed,
                                          .head = on_head,
                                          .request = on_request,
                                          .canceled = on_canceled,
                                          .done = on_done,
                                          .drained = on_drained };
    pthread_mutex_init(&bed->lock, NULL);
    pthread_cond_init(&bed->changed, NULL);
    list_init(&bed->held);
}

static void *turn(void *context)
{
    struct bed *bed = context;
    loop_run(&bed->loop);
    loop_finish(&bed->loop);
    return NULL;
}

void bed_start(struct bed *bed, const char *address)
{
    struct weir_err err;
    if (loop_init(&bed->loop, &bed->limits, &err) != WEIR_OK ||
        http_listen(&bed->loop, address == NULL ? "127.0.0.1:0" : address, 7, &bed->handler,
                    &bed->listener, &err) != WEIR_OK) {
        fail_msg("%s", err.text);
    }
    bed->port = http_listener_port(bed->listener);
    if (bed->wait.ns > 0) {
        bed_wait_add(&bed->wait, &bed->loop, bed->wait.ns);
    }
    assert_int_equal(pthread_create(&bed->thread, NULL, turn, bed), 0);
}

int bed_open(struct bed *bed)
{
    bed_start(bed, NULL);
    return client_connect(bed);
}

void bed_stop(struct bed *bed)
{
    loop_stop(&bed->loop);
    pthread_join(bed->thread, NULL);
    assert_int_equal(bed->counts.bad, 0);
    assert_int_equal(bed->counts.done, bed->counts.head);
    assert_int_equal(http_bodies_bytes(), 0);
    pthread_mutex_destroy(&bed->lock);
    pthread_cond_destroy(&bed->changed);
}

void bed_close(struct bed *bed, int fd)
{
    close(fd);
    bed_stop(bed);
}

struct call {
    struct loop_mail mail;
    struct bed *bed;
    void (*call)(struct bed *bed, void *argument);
    void *argument;
    unsigned ended;
};

static void receive_call(struct loop_mail *mail)
{
    struct call *call = (struct call *)(void *)mail;
    call->call(call->bed, call->argument);
    count(call->bed, &call->ended);
}

void bed_call(struct bed *bed, void (*call)(struct bed *bed, void *argument), void *argument)
{
    struct call letter = { { .receive = receive_call }, bed, call, argument, 0 };
    loop_send(&bed->loop, &letter.mail);
    bed_await(bed, &letter.ended, 1);
}

static void release(struct bed *bed, void *argument)
{
    const char *name = argument;
    unsigned found = 0;
    struct list_node *node = list_first(&bed->held);
    while (node != NULL) {
        struct visit *visit = list_entry(node, struct visit, node);
        struct exchange *x = visit->x;
        node = list_next(&bed->held, node);
        if (bytes_equal(path_rest(x, "/hold/"), bytes_of(name))) {
            list_remove(&visit->node);
            exchange_reply(x, 200, "text/plain", bytes_of(name));
            found++;
        }
    }
    expect(bed, found > 0);
}

void bed_release(struct bed *bed, const char *name)
{
    bed_call(bed, release, (void *)(uintptr_t)name);
}

static void drain(struct bed *bed, void *argument)
{
    (void)argument;
    http_drain(&bed->loop);
}

void bed_drain(struct bed *bed)
{
    bed_call(bed, drain, NULL);
}

void bed_await(struct bed *bed, const unsigned *counter, unsigned value)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&bed->lock);
    int failed = 0;
    while (*counter < value && failed == 0) {
        failed = pthread_cond_timedwait(&bed->changed, &bed->lock, &until);
    }
    const unsigned found = *counter;
    pthread_mutex_unlock(&bed->lock);
    if (found < value) {
        fail_msg("waited for %u, found %u", value, found);
    }
}

struct bed_counts bed_counts(struct bed *bed)
{
    pthread_mutex_lock(&bed->lock);
    const struct bed_counts counts = bed->counts;
    pthread_mutex_unlock(&bed->lock);
    return counts;
}

/* --- The client --- */

int client_connect(const struct bed *bed)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in to = { .sin_family = AF_INET,
                                    .sin_port = htons(bed->port),
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const struct timeval patience = { .tv_sec = PATIENCE_S };
    assert_true(fd >= 0);
    /* Before it has a time-out: with one, it would end when the kernel interrupts it, which it does
     * for the io_uring of a libuv loop that this thread has made. */
    assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)), 0);
    return fd;
}

void client_send(int fd, const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        const ssize_t sent = TEMP_FAILURE_RETRY(send(fd, at, size, MSG_NOSIGNAL));
        if (sent < 0) {
            fail_msg("send: %s", strerror(errno));
        }
        at += sent;
        size -= (size_t)sent;
    }
}

void client_text(int fd, const char *text)
{
    client_send(fd, text, strlen(text));
}

/* One byte or the end; a time-out fails the test.  Time-outs make recv() give up at a signal, and
 * libuv's kernel ring is one to the thread that made the loop. */
static bool get(int fd, char *out)
{
    const ssize_t got = TEMP_FAILURE_RETRY(recv(fd, out, 1, 0));
    if (got < 0 && errno != ECONNRESET) {
        fail_msg("recv: %s", strerror(errno));
    }
    return got == 1;
}

static bool get_line(int fd, char *out, size_t size_max)
{
    size_t size = 0;
    while (size + 1 < size_max && get(fd, out + size)) {
        size++;
        if (out[size - 1] == '\n') {
            out[size] = '\0';
            return true;
        }
    }
    out[size] = '\0';
    return false;
}

static void grow(struct response *r, size_t extra)
{
    r->body = realloc(r->body, r->size + extra + 1);
    assert_non_null(r->body);
    r->body[r->size + extra] = '\0';
}

static bool get_body(int fd, struct response *r, size_t size)
{
    grow(r, size);
    while (size > 0) {
        const ssize_t got = TEMP_FAILURE_RETRY(recv(fd, r->body + r->size, size, 0));
        if (got <= 0) {
            assert_true(got == 0 || errno == ECONNRESET);
            r->body[r->size] = '\0';
            return false;
        }
        r->size += (size_t)got;
        size -= (size_t)got;
    }
    return true;
}

static bool get_chunks(int fd, struct response *r)
{
    char line[64];
    size_t size = 1;
    while (size > 0) {
        if (!get_line(fd, line, sizeof(line))) {
            return false;
        }
        size = strtoul(line, NULL, 16);
        if (!get_body(fd, r, size) || !get_line(fd, line, sizeof(line))) {
            return false;
        }
        assert_string_equal(line, "\r\n");
    }
    return true;
}

void client_receive(int fd, bool head_only, struct response *out)
{
    memset(out, 0, sizeof(*out));
    size_t size = 0;
    do {
        if (!get_line(fd, out->head + size, sizeof(out->head) - size)) {
            out->closed = true;
            grow(out, 0);
            return;
        }
        size = strlen(out->head);
    } while (size < 4 || strcmp(out->head + size - 4, "\r\n\r\n") != 0);
    assert_int_equal(sscanf(out->head, "HTTP/1.1 %3d", &out->status), 1);
    grow(out, 0);
    const char *length = strcasestr(out->head, "\r\nContent-Length: ");
    if (head_only || out->status < 200) {
        return;
    }
    if (strcasestr(out->head, "\r\nTransfer-Encoding: chunked\r\n") != NULL) {
        out->closed = !get_chunks(fd, out);
    } else if (length != NULL) {
        out->closed = !get_body(fd, out, strtoul(length + 18, NULL, 10));
    } else {
        size_t rest = 0;
        free(out->body);
        out->body = client_drain(fd, &rest);
        out->size = rest;
    }
}

void response_finish(struct response *response)
{
    free(response->body);
    response->body = NULL;
}

void client_expect(int fd, const char *request, int status, const char *body)
{
    struct response r;
    client_text(fd, request);
    client_receive(fd, false, &r);
    if (r.status != status || strcmp(r.body, body) != 0) {
        fail_msg("%s\nwas answered with %d '%s'", request, r.status, r.body);
    }
    response_finish(&r);
}

unsigned client_count(const char *text, const char *part)
{
    unsigned count = 0;
    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part)) {
        count++;
    }
    return count;
}

char *client_drain(int fd, size_t *size)
{
    char *data = malloc(1);
    *size = 0;
    for (;;) {
        data = realloc(data, *size + 65536 + 1);
        assert_non_null(data);
        const ssize_t got = TEMP_FAILURE_RETRY(recv(fd, data + *size, 65536, 0));
        if (got < 0 && errno != ECONNRESET) {
            fail_msg("recv: %s", strerror(errno));
        }
        if (got <= 0) {
            data[*size] = '\0';
            return data;
        }
        *size += (size_t)got;
    }
}

void client_expect_end(int fd)
{
    size_t size = 0;
    char *data = client_drain(fd, &size);
    if (size > 0) {
        fail_msg("expected the end, found '%s'", data);
    }
    free(data);
}
