/* Listening: where, who may, and what a person is told when it does not work. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

#include "bed.h"
#include "net/socket.h"

#define GET_OK "GET /ok HTTP/1.1\r\nHost: a\r\n\r\n"

static void test_addresses_are_checked(void **state)
{
    (void)state;
    static const char *const addresses[] = {
        "",
        "8000",
        "localhost",
        ":8000",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:-1",
        "127.0.0.1:65536",
        "127.0.0.1: 80",
        "::1:8000",
        "[]:8000",
        "unix:",
        "unix:relative",
        "unix:@abstract",
    };
    struct bed bed;
    bed_init(&bed);
    assert_int_equal(loop_init(&bed.loop, &bed.limits, NULL), WEIR_OK);
    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        struct weir_err err = { 0 };
        const enum weir_status status =
            http_listen(&bed.loop, addresses[i], 0, &bed.handler, &bed.listener, &err);
        if (status != WEIR_EINVAL || strstr(err.text, addresses[i]) == NULL) {
            fail_msg("'%s': %s", addresses[i], err.text);
        }
    }
    char path[200] = "unix:/tmp/";
    memset(path + 10, 'a', 150);
    assert_int_equal(http_listen(&bed.loop, path, 0, &bed.handler, &bed.listener, NULL),
                     WEIR_EINVAL);
    loop_finish(&bed.loop);
}

static void assert_busy(const char *address)
{
    struct limits limits;
    struct loop loop;
    struct http_listener *listener = NULL;
    struct weir_err err = { 0 };
    const struct http_handler handler = { 0 };
    limits_init(&limits);
    assert_int_equal(loop_init(&loop, &limits, NULL), WEIR_OK);
    assert_int_equal(http_listen(&loop, address, 0, &handler, &listener, &err), WEIR_EIO);
    assert_non_null(strstr(err.text, address));
    assert_non_null(strstr(err.text, "in use"));
    assert_null(listener);
    loop_finish(&loop);
}

/* A listening socket that is not ours, even one that would share. */
static void test_a_busy_port_is_told(void **state)
{
    (void)state;
    for (int share = 0; share < 2; share++) {
        struct sockaddr_in at = { .sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t size = sizeof(at);
        char address[64];
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &share, sizeof(share)), 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&at, size), 0);
        assert_int_equal(listen(fd, 1), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
        snprintf(address, sizeof(address), "127.0.0.1:%u", ntohs(at.sin_port));
        assert_busy(address);
        close(fd);
    }
}

/* Two loops share a port: both serve, and either goes on alone. */
static void test_loops_share_a_port(void **state)
{
    (void)state;
    struct bed one;
    struct bed two;
    char address[64];
    bed_init(&one);
    bed_init(&two);
    bed_start(&one, NULL);
    snprintf(address, sizeof(address), "127.0.0.1:%u", one.port);
    bed_start(&two, address);
    assert_int_equal(two.port, one.port);
    /* The kernel chooses by a hash of the client's port; 200 heads would be a strange coin. */
    for (unsigned i = 0; i < 200; i++) {
        const int fd = client_connect(&one);
        client_expect(fd, GET_OK, 200, "ok");
        close(fd);
    }
    assert_true(bed_counts(&one).request > 0);
    assert_true(bed_counts(&two).request > 0);
    bed_stop(&one);
    const int fd = client_connect(&two);
    client_expect(fd, GET_OK, 200, "ok");
    close(fd);
    bed_stop(&two);
}

static void close_listener(struct bed *bed, void *argument)
{
    (void)argument;
    http_listener_close(bed->listener);
}

static void test_closing_a_listener_leaves_connections(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    const int fd = bed_open(&bed);
    client_expect(fd, GET_OK, 200, "ok");
    bed_call(&bed, close_listener, NULL);
    client_expect(fd, GET_OK, 200, "ok");
    const int late = socket(AF_INET, SOCK_STREAM, 0);
    const struct sockaddr_in to = { .sin_family = AF_INET,
                                    .sin_port = htons(bed.port),
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    assert_int_equal(connect(late, (const struct sockaddr *)&to, sizeof(to)), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(late);
    bed_close(&bed, fd);
}

/* --- Unix sockets --- */

struct place {
    char folder[64];
    char address[128]; /* "unix:FOLDER/socket" */
    const char *path;  /* In it. */
};

static void make_place(struct place *place)
{
    strcpy(place->folder, "/tmp/weir-test-XXXXXX");
    assert_non_null(mkdtemp(place->folder));
    snprintf(place->address, sizeof(place->address), "unix:%s/socket", place->folder);
    place->path = place->address + 5;
}

static int unix_connect(const char *path)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    strncpy(to.sun_path, path, sizeof(to.sun_path) - 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) == 0) {
        return fd;
    }
    close(fd);
    return -1;
}

static void test_unix_socket(void **state)
{
    (void)state;
    struct place place;
    struct bed bed;
    struct stat info;
    make_place(&place);
    bed_init(&bed);
    bed_start(&bed, place.address);
    assert_int_equal(bed.port, 0);
    assert_int_equal(stat(place.path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    const int fd = unix_connect(place.path);
    assert_true(fd >= 0);
    client_expect(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 200,
                  "hello");
    bed_close(&bed, fd);
    assert_int_equal(stat(place.path, &info), -1); /* Cleared away. */
    assert_int_equal(rmdir(place.folder), 0);
}

static void test_a_stale_socket_is_replaced(void **state)
{
    (void)state;
    struct place place;
    struct bed bed;
    make_place(&place);
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    strncpy(at.sun_path, place.path, sizeof(at.sun_path) - 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_busy(place.address); /* It lives. */
    close(fd);
    bed_init(&bed);
    bed_start(&bed, place.address);
    const int client = unix_connect(place.path);
    client_expect(client, GET_OK, 200, "ok");
    close(client);
    bed_stop(&bed);
    assert_int_equal(rmdir(place.folder), 0);
}

static void test_a_file_is_not_replaced(void **state)
{
    (void)state;
    struct place place;
    struct bed bed;
    struct weir_err err = { 0 };
    make_place(&place);
    FILE *file = fopen(place.path, "w");
    assert_non_null(file);
    fclose(file);
    bed_init(&bed);
    assert_int_equal(loop_init(&bed.loop, &bed.limits, NULL), WEIR_OK);
    assert_int_equal(http_listen(&bed.loop, place.address, 0, &bed.handler, &bed.listener, &err),
                     WEIR_EIO);
    assert_non_null(strstr(err.text, "not a socket"));
    loop_finish(&bed.loop);
    assert_int_equal(unlink(place.path), 0);
    assert_int_equal(rmdir(place.folder), 0);
}

static void test_loops_share_a_unix_socket(void **state)
{
    (void)state;
    struct place place;
    struct bed one;
    struct bed two;
    make_place(&place);
    bed_init(&one);
    bed_init(&two);
    bed_start(&one, place.address);
    bed_start(&two, place.address);
    for (unsigned i = 0; i < 20; i++) {
        const int fd = unix_connect(place.path);
        client_expect(fd, GET_OK, 200, "ok");
        close(fd);
    }
    bed_stop(&two);
    const int fd = unix_connect(place.path);
    client_expect(fd, GET_OK, 200, "ok");
    close(fd);
    bed_stop(&one);
    assert_int_equal(rmdir(place.folder), 0);
}

/* What a socket to be bound to that address does about congestion. */
static void read_congestion(const char *address, char out[static 16])
{
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
    struct sockaddr_in in4 = { .sin_family = AF_INET };
    const bool v6 = inet_pton(AF_INET6, address, &in6.sin6_addr) == 1;
    assert_true(v6 || inet_pton(AF_INET, address, &in4.sin_addr) == 1);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    socket_prepare(fd, v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in4);
    socklen_t size = 15;
    memset(out, 0, 16);
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, out, &size), 0);
    close(fd);
}

static void test_nothing_paces_within_the_machine(void **state)
{
    (void)state;
    char usual[16];
    char found[16];
    read_congestion("192.0.2.1", usual);
    read_congestion("127.0.0.1", found);
    assert_string_equal(found, "reno");
    read_congestion("::1", found);
    assert_string_equal(found, "reno");
    for (const char *const *other = (const char *const[]){ "0.0.0.0", "::", "128.0.0.1", NULL };
         *other != NULL; other++) {
        read_congestion(*other, found);
        assert_string_equal(found, usual);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_are_checked),
        cmocka_unit_test(test_a_busy_port_is_told),
        cmocka_unit_test(test_loops_share_a_port),
        cmocka_unit_test(test_closing_a_listener_leaves_connections),
        cmocka_unit_test(test_unix_socket),
        cmocka_unit_test(test_a_stale_socket_is_replaced),
        cmocka_unit_test(test_a_file_is_not_replaced),
        cmocka_unit_test(test_loops_share_a_unix_socket),
        cmocka_unit_test(test_nothing_paces_within_the_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
