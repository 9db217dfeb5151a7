/*
 * bed.h — a loop on a thread of its own with a small handler, and a blocking client, for
 * tests that talk to it over real sockets.
 *
 * The handler's routes:
 *   /ok          200 "ok"
 *   /echo        the request's body; X-Align: N sets body_align_at
 *   /aligned     "yes" when body + X-Align is MEM_ALIGN-aligned, else "no"
 *   /hold/NAME   answered with NAME by bed_release("NAME"), or finished by it when canceled
 *   /stream/N    N parts "part\n" as a stream, each when the one before has left
 *   /flood       a stream that goes on until its client is gone
 *   /short       promises ten bytes and sends three
 *   /refuse      403, in head()
 *   /tiny        /echo with a body_bytes_max of 10
 *   /header      200 with an X-Found of the request's X-Find
 *   /canary      counted, and never to be reached
 *   others       404
 */
#ifndef WEIR_TESTS_BED_H
#define WEIR_TESTS_BED_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/http.h"

/* Sockets that have waited before each turn of a loop, for all that it knows. */
struct bed_wait {
    struct loop_hook hook;
    struct loop *loop;
    uint64_t ns;
};

/* Loop's thread, or before it turns; for the loop's life. */
void bed_wait_add(struct bed_wait *self, struct loop *loop, uint64_t ns);

/* What the handler has seen, guarded by bed.lock. */
struct bed_counts {
    unsigned head;
    unsigned request;
    unsigned canceled;
    unsigned done;
    unsigned held; /* Exchanges waiting for bed_release(). */
    unsigned canary;
    unsigned bad;        /* Broken promises of net, e.g. done() twice, or a time within a wait. */
    uint64_t sent_bytes; /* Of the latest done(). */
    int status;          /* Of the latest done(). */
};

struct bed {
    struct limits limits;
    struct loop loop;
    struct http_listener *listener;
    struct http_handler handler;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct bed_counts counts;
    struct list held;
    uint16_t port;
    bool hold_when_canceled; /* canceled() leaves the exchange to bed_release(). */
    struct bed_wait wait;    /* Of wait.ns, where that was set before bed_start(). */
};

/* Defaults of limits, which a test may change before bed_start(). */
void bed_init(struct bed *bed);

/* Listens on `address`, by default a free port of 127.0.0.1, and turns the loop. */
void bed_start(struct bed *bed, const char *address);

/* bed_start() by default, and a client of it: its socket. */
int bed_open(struct bed *bed);

/* Stops, finishes, joins; fails the test when net broke a promise. */
void bed_stop(struct bed *bed);
void bed_close(struct bed *bed, int fd); /* The client goes first. */

/* Runs `call` on the loop's thread and waits for its end. */
void bed_call(struct bed *bed, void (*call)(struct bed *bed, void *argument), void *argument);

/* Answers every held exchange of that name; fails when there is none. */
void bed_release(struct bed *bed, const char *name);
void bed_drain(struct bed *bed);

/* Waits until a count has reached `value`; fails after ten seconds. */
void bed_await(struct bed *bed, const unsigned *count, unsigned value);
struct bed_counts bed_counts(struct bed *bed);

/* A client's socket; receiving fails the test after ten seconds. */
int client_connect(const struct bed *bed);
void client_send(int fd, const void *data, size_t size);
void client_text(int fd, const char *text);

/* One response, its head and its body, without chunk framing. */
struct response {
    int status;
    char head[4096]; /* NUL-terminated. */
    char *body;      /* NUL-terminated beyond `size`; response_finish() frees it. */
    size_t size;
    bool closed; /* The connection ended before the response was complete. */
};

/* Reads one response; with `head_only` none of its body. */
void client_receive(int fd, bool head_only, struct response *out);
void response_finish(struct response *response);

/* The whole of a response to `request`, compared: status and body. */
void client_expect(int fd, const char *request, int status, const char *body);

/* Requests as text; a body follows POST.  The handler must not see CANARY. */
#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST(path, size) "POST " path " HTTP/1.1\r\nHost: a\r\nContent-Length: " #size "\r\n\r\n"
#define CANARY GET("/canary")

/* How often the text has the part. */
unsigned client_count(const char *text, const char *part);

/* Everything until the connection ends, NUL-terminated; the caller frees it with free(). */
char *client_drain(int fd, size_t *size);
void client_expect_end(int fd); /* The connection ends, and nothing comes before. */

#endif
