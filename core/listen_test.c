/*
 * Tests of listen.c.
 */
#include "listen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- addresses ---- */

static void assert_parsed(const char *text, const char *address, uint16_t port)
{
    char *parsed = NULL;
    uint16_t parsed_port = 1;
    assert_int_equal(pl_listen_parse(text, &parsed, &parsed_port), PL_OK);
    assert_string_equal(parsed, address);
    assert_int_equal(parsed_port, port);
    free(parsed);
}

static void test_parse(void **state)
{
    (void)state;
    assert_parsed("127.0.0.1:8080", "127.0.0.1", 8080);
    assert_parsed("0.0.0.0:0", "0.0.0.0", 0);
    assert_parsed("localhost:65535", "localhost", 65535);
    assert_parsed("[::1]:80", "::1", 80);
    assert_parsed("[fe80::1%lo]:80", "fe80::1%lo", 80);
    assert_parsed("127.0.0.1:00080", "127.0.0.1", 80);
}

static void test_parse_refuses(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",       ":",          ":80",        "127.0.0.1", "127.0.0.1:",   "127.0.0.1:65536",
        "a:-1",   "a:+1",       "a: 1",       "a:1 ",      "a:0x50",       "a:999999",
        "::1:80", "[]:80",      "[::1:80",    "[::1]80",   "::1]:80",      "[::1]",
        "a:b:80", "a:00000080", "[::1]:http", "a:",        "a:4294967376",
    };
    for (size_t i = 0; i < PL_COUNT(texts); i++) {
        char *address = NULL;
        uint16_t port = 7;
        if (pl_listen_parse(texts[i], &address, &port) != PL_ERR_SYNTAX) {
            fail_msg("\"%s\" was taken", texts[i]);
        }
        assert_null(address);
        assert_int_equal(port, 7);
    }
}

/* ---- sockets ---- */

static int must_listen(const char *address, uint16_t *port, bool shared)
{
    char error[256] = "";
    int fd = pl_listen(address, port, shared, error, sizeof(error));
    if (fd < 0) {
        fail_msg("%s", error);
    }
    return fd;
}

static void assert_refused(const char *address, uint16_t port, bool shared, const char *expected)
{
    char error[256] = "";
    assert_int_equal(pl_listen(address, &port, shared, error, sizeof(error)), -1);
    assert_non_null(strstr(error, expected));
}

static int get_option(int fd, int level, int name)
{
    int value = 0;
    socklen_t len = sizeof(value);
    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static void test_picks_a_port_and_sets_the_socket_up(void **state)
{
    (void)state;
    uint16_t port = 0;
    int fd = must_listen("127.0.0.1", &port, false);
    assert_true(port > 0);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_true(get_option(fd, SOL_SOCKET, SO_ACCEPTCONN));
    assert_true(get_option(fd, IPPROTO_TCP, TCP_NODELAY));
    assert_int_equal(accept(fd, NULL, NULL), -1);
    close(fd);
}

static void test_accepts_without_delay(void **state)
{
    (void)state;
    uint16_t port = 0;
    int fd = must_listen("localhost", &port, false);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&in, sizeof(in)), 0);
    int accepted = accept(fd, NULL, NULL);
    assert_true(accepted >= 0);
    assert_true(get_option(accepted, IPPROTO_TCP, TCP_NODELAY));
    close(accepted);
    close(client);
    close(fd);
}

static void test_v6(void **state)
{
    (void)state;
    uint16_t port = 0;
    char error[256];
    int fd = pl_listen("::1", &port, false, error, sizeof(error));
    if (fd < 0) { /* a machine without IPv6 */
        assert_non_null(strstr(error, "cannot listen on ::1 port 0: "));
        return;
    }
    assert_true(port > 0);
    close(fd);
}

static void test_workers_share_a_port(void **state)
{
    (void)state;
    uint16_t port = 0;
    int first = must_listen("127.0.0.1", &port, true);
    uint16_t same = port;
    int second = must_listen("127.0.0.1", &same, true);
    assert_int_equal(same, port);
    assert_refused("127.0.0.1", port, false, "Address already in use");
    close(first);
    close(second);
}

static void test_says_what_is_wrong(void **state)
{
    (void)state;
    char expected[80];
    uint16_t port = 0;
    int fd = must_listen("127.0.0.1", &port, false);
    snprintf(expected, sizeof(expected),
             "cannot listen on 127.0.0.1 port %u: Address already in use", port);
    assert_refused("127.0.0.1", port, false, expected);
    assert_refused("127.0.0.1", port, true, expected);
    close(fd);
    assert_refused("example.com", 80, false, "example.com is not a numeric address: ");
    assert_refused("", 80, false, " is not a numeric address: ");
    assert_refused("192.0.2.1", 0, false, "cannot listen on 192.0.2.1 port 0: ");
}

static void test_unix_socket(void **state)
{
    (void)state;
    char folder[] = "/tmp/perilune-listen-XXXXXX", path[64], error[256];
    struct stat st;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/admin.sock", folder);
    int fd = pl_listen_unix(path, error, sizeof(error));
    assert_true(fd >= 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(pl_listen_unix(path, error, sizeof(error)), -1); /* somebody listens there */
    assert_non_null(strstr(error, "Address already in use"));
    close(fd); /* as when a gateway was killed */
    fd = pl_listen_unix(path, error, sizeof(error));
    assert_true(fd >= 0);
    close(fd);
    unlink(path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(pl_listen_unix(path, error, sizeof(error)), -1); /* no socket: not ours */
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
    rmdir(folder);
    char long_path[200] = "/";
    memset(long_path + 1, 'x', sizeof(long_path) - 2);
    long_path[sizeof(long_path) - 1] = '\0';
    assert_int_equal(pl_listen_unix(long_path, error, sizeof(error)), -1);
    assert_int_equal(pl_listen_unix("/nowhere/at/all.sock", error, sizeof(error)), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_picks_a_port_and_sets_the_socket_up),
        cmocka_unit_test(test_accepts_without_delay),
        cmocka_unit_test(test_v6),
        cmocka_unit_test(test_workers_share_a_port),
        cmocka_unit_test(test_says_what_is_wrong),
        cmocka_unit_test(test_unix_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
