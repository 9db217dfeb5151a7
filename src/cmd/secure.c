#include "cmd/secure.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define PIECES_MAX 64

static struct {
    pthread_mutex_t lock; /* Guards client. */
    struct tls_trust_options options;
    struct tls_trust *client; /* Made when it is first wanted, and kept. */
} trust = { .lock = PTHREAD_MUTEX_INITIALIZER };

bool secure_take(int key, const char *value)
{
    switch (key) {
    case SECURE_TRUST:
        if (value == NULL) {
            trust.options.insecure = true;
        } else {
            trust.options.ca = value;
        }
        return true;
    case SECURE_CERTIFICATE:
        trust.options.certificate = value;
        return true;
    case SECURE_KEY:
        trust.options.key = value;
        return true;
    default:
        return false;
    }
}

enum weir_status secure_check(bool wanted, struct weir_err *err)
{
    const struct tls_trust_options *given = &trust.options;
    const char *flag = given->ca != NULL            ? "--ca"
                       : given->insecure            ? "--insecure"
                       : given->certificate != NULL ? "--cert"
                       : given->key != NULL         ? "--key"
                                                    : NULL;
    if (flag != NULL && !wanted) {
        return err_set(err, WEIR_EINVAL, "%s goes with a URL of https:// or grpcs://", flag);
    }
    if (given->ca != NULL && given->insecure) {
        return err_set(err, WEIR_EINVAL, "--ca and --insecure exclude each other");
    }
    return WEIR_OK;
}

enum weir_status secure_read(struct weir_err *err)
{
    enum weir_status status = WEIR_OK;
    pthread_mutex_lock(&trust.lock);
    if (trust.client == NULL) {
        status = tls_trust_create(&trust.options, &trust.client, err);
    }
    pthread_mutex_unlock(&trust.lock);
    return status;
}

enum weir_status secure_open(const char *host, bool http2, struct tls_link **out,
                             struct weir_err *err)
{
    const enum weir_status status = secure_read(err);
    if (status != WEIR_OK) {
        return status;
    }
    *out = tls_trust_open(trust.client, host, http2);
    return *out == NULL ? err_nomem(err, "a connection", 0) : WEIR_OK;
}

int secure_flush(struct tls_link *link, int fd)
{
    for (;;) {
        const struct bytes out = tls_outgoing(link);
        if (out.size == 0) {
            return 0;
        }
        const ssize_t sent = send(fd, out.data, out.size, MSG_NOSIGNAL);
        if (sent >= 0) {
            tls_sent(link, (size_t)sent);
        } else if (errno != EINTR) {
            return errno;
        }
    }
}

static int write_plain(int fd, const struct bytes *pieces, size_t count, size_t *taken)
{
    struct iovec vector[PIECES_MAX];
    size_t used = 0;
    for (; used < count && used < PIECES_MAX; used++) {
        vector[used] = (struct iovec){ (void *)(uintptr_t)pieces[used].data, pieces[used].size };
    }
    const struct msghdr message = { .msg_iov = vector, .msg_iovlen = used };
    ssize_t size;
    do {
        size = sendmsg(fd, &message, MSG_NOSIGNAL);
    } while (size < 0 && errno == EINTR);
    *taken = size < 0 ? 0 : (size_t)size;
    return size < 0 ? errno : 0;
}

/* Once all that was sealed before has left. */
static int write_sealed(struct tls_link *link, int fd, const struct bytes *pieces, size_t count,
                        size_t *taken)
{
    char scratch[TLS_RECORD_BYTES];
    struct bytes some[PIECES_MAX];
    size_t size = 0;
    size_t used = 0;
    *taken = 0;
    const int before = secure_flush(link, fd);
    if (before != 0) {
        return before;
    }
    for (; used < count && used < PIECES_MAX && size < TLS_SEAL_BYTES_MAX; used++) {
        const size_t room = TLS_SEAL_BYTES_MAX - size;
        some[used] = pieces[used];
        some[used].size = some[used].size < room ? some[used].size : room;
        size += some[used].size;
    }
    if (!tls_seal(link, some, used, scratch)) {
        return EIO;
    }
    *taken = size;
    return secure_flush(link, fd);
}

int secure_write(struct tls_link *link, int fd, const struct bytes *pieces, size_t count,
                 size_t *taken)
{
    const int fault = link != NULL ? write_sealed(link, fd, pieces, count, taken)
                                   : write_plain(fd, pieces, count, taken);
    return fault == EAGAIN ? 0 : fault;
}
