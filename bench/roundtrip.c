/*
 * One connection, one request at a time: how long a tensor takes there and back.
 *
 *   roundtrip serve BYTES OFFSET COPIES             the limit's server: reads BYTES, copies them COPIES (0 or 1) times, as
 *                                                   a run of the identity model does, sends them back; prints its port
 *   roundtrip raw PORT FILE SECONDS OFFSET          the limit's client: sends the file, reads as many bytes
 *   roundtrip http PORT FILE SECONDS OFFSET TAIL    FILE is a whole HTTP/1.1 request
 *   roundtrip grpc PORT FILE SECONDS TAIL           FILE is a ModelInferRequest
 *
 * The last TAIL bytes of every first answer have to be those of the request.  The clients copy nothing that
 * they need not: what is measured is the way and the server.  Their memory begins OFFSET bytes behind a page: which
 * is fastest depends on the size.  Prints one line of JSON.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define WINDOW (1 << 30)
#define FRAME_BYTES (1 << 20)
#define FRAME_HEAD 9
#define HEAD_BYTES_MAX 4096
#define PREFIX 5
#define HUGE_PAGE ((size_t)2 << 20)
#define TIMES_MAX 4000000

struct bytes {
    uint8_t *data;
    size_t size;
};

static void die(const char *what)
{
    fprintf(stderr, "roundtrip: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "roundtrip: %s\n", what);
        exit(1);
    }
}

static uint64_t now_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

/* Room in huge pages, `offset` (less than a huge page) bytes behind their begin.  0 is best for gRPC: the
 * kernel's copies of what is sent at once begin with a page, too, and a target up to 15 bytes above its source, modulo
 * a page, is copied to 13 times more slowly by AMD's Zen. */
static struct bytes make_room(size_t size, size_t offset)
{
    size_t whole = (offset + size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uint8_t *begin = aligned_alloc(HUGE_PAGE, whole);
    check(begin != NULL, "no memory");
    madvise(begin, whole, MADV_HUGEPAGE);
    return (struct bytes){ begin + offset, size };
}

static void free_room(struct bytes room)
{
    free(room.data - (uintptr_t)room.data % HUGE_PAGE);
}

static struct bytes read_file(const char *path, size_t offset)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        die(path);
    }
    fseek(file, 0, SEEK_END);
    struct bytes all = make_room((size_t)ftell(file), offset);
    rewind(file);
    check(fread(all.data, 1, all.size, file) == all.size, "a file cannot be read");
    fclose(file);
    return all;
}

/* As Weir's ports on loopback: else the limit would be that of an algorithm which paces. */
static void no_pacing(int fd)
{
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

static void no_delay(int fd)
{
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
}

static int connected(const char *port)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)atoi(port)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    no_pacing(fd);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
        die("connect");
    }
    no_delay(fd);
    return fd;
}

static void write_all(int fd, const struct iovec *vector, int count)
{
    struct iovec left[2] = { vector[0], count > 1 ? vector[1] : (struct iovec){ 0 } };
    struct iovec *at = left;
    while (count > 0) {
        ssize_t size = writev(fd, at, count);
        if (size < 0) {
            die("write");
        }
        while (count > 0 && (size_t)size >= at->iov_len) {
            size -= (ssize_t)at->iov_len;
            at++;
            count--;
        }
        if (count > 0) {
            at->iov_base = (uint8_t *)at->iov_base + size;
            at->iov_len -= (size_t)size;
        }
    }
}

static void write_bytes(int fd, struct bytes bytes)
{
    write_all(fd, &(struct iovec){ bytes.data, bytes.size }, 1);
}

/* False at the end of the connection. */
static bool read_exactly(int fd, struct bytes into)
{
    for (size_t have = 0; have < into.size;) {
        ssize_t size = read(fd, into.data + have, into.size - have);
        if (size <= 0) {
            return false;
        }
        have += (size_t)size;
    }
    return true;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Repeats one round trip for so many seconds, after a tenth of them to warm up.  A trip returns the size of
 * its answer. */
static void measure(size_t (*trip)(void *), void *context, double seconds)
{
    uint64_t *times = malloc(TIMES_MAX * sizeof(*times));
    check(times != NULL, "no memory");
    uint64_t warm = now_ns() + (uint64_t)(seconds * 1e8);
    uint64_t end = warm + (uint64_t)(seconds * 1e9);
    size_t count = 0;
    size_t size = 0;
    for (uint64_t begun = now_ns(); begun < end && count < TIMES_MAX;) {
        size = trip(context);
        uint64_t ended = now_ns();
        if (begun >= warm) {
            times[count++] = ended - begun;
        }
        begun = ended;
    }
    check(count > 0, "no round trip came to its end");
    qsort(times, count, sizeof(*times), by_size);
    printf("{\"count\": %zu, \"p50_us\": %.2f, \"p99_us\": %.2f, \"answer_bytes\": %zu}\n", count,
           (double)times[count / 2] / 1e3, (double)times[count * 99 / 100] / 1e3, size);
    free(times);
}

/* The limit: the same bytes over a bare connection. */

static void serve(size_t size, size_t offset, bool copies)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    no_pacing(listener);
    if (bind(listener, (struct sockaddr *)&at, length) != 0 || listen(listener, 8) != 0 ||
        getsockname(listener, (struct sockaddr *)&at, &length) != 0) {
        die("listen");
    }
    printf("%u\n", ntohs(at.sin_port));
    fflush(stdout);
    struct bytes buffer = make_room(size, offset);
    struct bytes answer = copies ? make_room(size, offset) : buffer;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) {
            die("accept");
        }
        no_delay(fd);
        while (read_exactly(fd, buffer)) {
            if (copies) {
                memcpy(answer.data, buffer.data, size);
            }
            write_bytes(fd, answer);
        }
        close(fd);
    }
}

struct plain {
    int fd;
    struct bytes request;
    struct bytes answer; /* Room for it. */
    size_t tail;
    bool checked;
};

static size_t raw_trip(void *context)
{
    struct plain *p = context;
    write_bytes(p->fd, p->request);
    check(read_exactly(p->fd, p->answer), "the server closed the connection");
    return p->answer.size;
}

static void check_tail(const struct bytes request, const struct bytes answer, size_t tail)
{
    check(answer.size >= tail && memcmp(answer.data + answer.size - tail,
                                        request.data + request.size - tail, tail) == 0,
          "the answer is not the tensor that was sent");
}

static size_t http_trip(void *context)
{
    struct plain *p = context;
    write_bytes(p->fd, p->request);
    size_t have = 0;
    size_t need = 0;
    while (need == 0 || have < need) {
        ssize_t size = read(p->fd, p->answer.data + have, p->answer.size - have);
        check(size > 0, "the server closed the connection");
        have += (size_t)size;
        uint8_t *end = need == 0 ? memmem(p->answer.data, have, "\r\n\r\n", 4) : NULL;
        if (end != NULL) {
            *end = 0;
            const char *length = strcasestr((char *)p->answer.data, "\r\ncontent-length:");
            check(strncmp((char *)p->answer.data, "HTTP/1.1 200", 12) == 0 && length != NULL,
                  "the answer is not 200 with a length");
            need = (size_t)(end - p->answer.data) + 4 + strtoull(length + 17, NULL, 10);
            check(need <= p->answer.size, "the answer is too long");
        }
    }
    if (!p->checked) {
        check_tail(p->request, (struct bytes){ p->answer.data, need }, p->tail);
        p->checked = true;
    }
    return need;
}

static void plain_run(size_t (*trip)(void *), const char *port, const char *file,
                      const char *seconds, size_t tail, size_t slack, size_t offset)
{
    struct plain p = { .fd = connected(port), .request = read_file(file, offset), .tail = tail };
    p.answer = make_room(p.request.size + slack, offset);
    measure(trip, &p, atof(seconds));
    close(p.fd);
    free_room(p.answer);
    free_room(p.request);
}

/* gRPC: one unary call after the other. */

struct rpc {
    int fd;
    nghttp2_session *session;
    uint8_t head[HEAD_BYTES_MAX]; /* Frames that leave with the first data behind them. */
    size_t head_size;
    struct bytes request; /* Prefix and message. */
    size_t sent;
    struct bytes answer; /* Of the first call; later ones are counted only. */
    size_t received;
    size_t tail;
    bool checked;
    bool good; /* grpc-status was 0. */
    bool ended;
    struct bytes buffer;
};

static ssize_t on_send(nghttp2_session *session, const uint8_t *data, size_t size, int flags,
                       void *user)
{
    (void)session;
    (void)flags;
    struct rpc *r = user;
    check(size <= sizeof(r->head) - r->head_size, "too many small frames");
    memcpy(r->head + r->head_size, data, size);
    r->head_size += size;
    return (ssize_t)size;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                        size_t size, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)frame;
    (void)source;
    struct rpc *r = user;
    (void)on_send(session, head, FRAME_HEAD, 0, user);
    write_all(r->fd,
              (struct iovec[]){ { r->head, r->head_size }, { r->request.data + r->sent, size } },
              2);
    r->head_size = 0;
    r->sent += size;
    return 0;
}

/* Frames without data behind them. */
static void flush(struct rpc *r)
{
    if (r->head_size > 0) {
        write_bytes(r->fd, (struct bytes){ r->head, r->head_size });
        r->head_size = 0;
    }
}

static ssize_t on_read(nghttp2_session *session, int32_t stream, uint8_t *buffer, size_t size,
                       uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)stream;
    (void)buffer;
    (void)source;
    struct rpc *r = user;
    size_t left = r->request.size - r->sent;
    size_t piece = left < size ? left : size;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY | (piece == left ? NGHTTP2_DATA_FLAG_EOF : 0u);
    return (ssize_t)piece;
}

static ssize_t on_length(nghttp2_session *session, uint8_t type, int32_t stream,
                         int32_t session_window, int32_t stream_window, uint32_t frame_max,
                         void *user)
{
    (void)session;
    (void)type;
    (void)stream;
    (void)user;
    int64_t size = FRAME_BYTES;
    size = session_window < size ? session_window : size;
    size = stream_window < size ? stream_window : size;
    return (ssize_t)(frame_max < size ? frame_max : size);
}

static int on_field(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                    size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                    void *user)
{
    (void)session;
    (void)frame;
    (void)flags;
    struct rpc *r = user;
    if (name_size == 11 && memcmp(name, "grpc-status", 11) == 0) {
        r->good = value_size == 1 && value[0] == '0';
    }
    return 0;
}

static int on_chunk(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                    size_t size, void *user)
{
    (void)session;
    (void)flags;
    (void)stream;
    struct rpc *r = user;
    if (!r->checked) {
        check(r->received + size <= r->answer.size, "the answer is too long");
        memcpy(r->answer.data + r->received, data, size);
    }
    r->received += size;
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user)
{
    (void)session;
    (void)stream;
    ((struct rpc *)user)->ended = true;
    return code == NGHTTP2_NO_ERROR ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static void rpc_open(struct rpc *r)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, on_length);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_field);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_client_new(&r->session, callbacks, r);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry settings[] = { { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW },
                                                { NGHTTP2_SETTINGS_MAX_FRAME_SIZE, FRAME_BYTES } };
    nghttp2_submit_settings(r->session, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(r->session, NGHTTP2_FLAG_NONE, 0, WINDOW);
}

#define FIELD(name, value)                                                            \
    {                                                                                 \
        (uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1, 0 \
    }

static size_t rpc_trip(void *context)
{
    struct rpc *r = context;
    const nghttp2_nv fields[] = { FIELD(":method", "POST"),
                                  FIELD(":scheme", "http"),
                                  FIELD(":path", "/inference.GRPCInferenceService/ModelInfer"),
                                  FIELD(":authority", "localhost"),
                                  FIELD("content-type", "application/grpc"),
                                  FIELD("te", "trailers") };
    r->sent = 0;
    r->received = 0;
    r->good = false;
    r->ended = false;
    check(nghttp2_submit_request(r->session, NULL, fields, sizeof(fields) / sizeof(fields[0]),
                                 &(nghttp2_data_provider){ .read_callback = on_read }, NULL) > 0,
          "the request was not taken");
    while (!r->ended) {
        check(nghttp2_session_send(r->session) == 0, "sending failed");
        flush(r);
        ssize_t size = read(r->fd, r->buffer.data, r->buffer.size);
        check(size > 0, "the server closed the connection");
        check(nghttp2_session_mem_recv(r->session, r->buffer.data, (size_t)size) == size,
              "the answer is no HTTP/2");
    }
    check(r->good, "the answer's grpc-status is not 0");
    if (!r->checked) {
        check_tail(r->request, (struct bytes){ r->answer.data, r->received }, r->tail);
        r->checked = true;
    }
    return r->received;
}

static void rpc_run(const char *port, const char *file, const char *seconds, size_t tail)
{
    struct bytes message = read_file(file, 0);
    struct rpc r = { .fd = connected(port), .tail = tail };
    r.request = make_room(message.size + PREFIX, 0);
    r.answer = make_room(message.size + FRAME_BYTES, 0);
    r.buffer = make_room(2 * FRAME_BYTES, 0);
    r.request.data[0] = 0;
    for (int i = 0; i < 4; i++) {
        r.request.data[1 + i] = (uint8_t)(message.size >> (24 - 8 * i));
    }
    memcpy(r.request.data + PREFIX, message.data, message.size);
    rpc_open(&r);
    measure(rpc_trip, &r, atof(seconds));
    nghttp2_session_del(r.session);
    close(r.fd);
    free_room(r.buffer);
    free_room(r.answer);
    free_room(r.request);
    free_room(message);
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "serve") == 0) {
        serve(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10), atoi(argv[4]) != 0);
    } else if (argc == 6 && strcmp(argv[1], "raw") == 0) {
        plain_run(raw_trip, argv[2], argv[3], argv[4], 0, 0, strtoull(argv[5], NULL, 10));
    } else if (argc == 7 && strcmp(argv[1], "http") == 0) {
        plain_run(http_trip, argv[2], argv[3], argv[4], strtoull(argv[6], NULL, 10), 65536,
                  strtoull(argv[5], NULL, 10));
    } else if (argc == 6 && strcmp(argv[1], "grpc") == 0) {
        rpc_run(argv[2], argv[3], argv[4], strtoull(argv[5], NULL, 10));
    } else {
        fputs("usage: roundtrip serve BYTES OFFSET COPIES | raw PORT FILE SECONDS OFFSET | "
              "http PORT FILE SECONDS OFFSET TAIL | grpc PORT FILE SECONDS TAIL\n",
              stderr);
        return 2;
    }
    return 0;
}
