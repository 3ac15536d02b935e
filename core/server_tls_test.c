/*
 * Tests of server.c over TLS: the same answers, and ends that tell a whole answer from a cut one.
 */
#include "server_test.h"
#include "tls.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#define GET       "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define OLD_GET   "GET / HTTP/1.0\r\n\r\n"
#define LARGE     (8u << 20)
#define KEPT_OPEN "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define SHORT_MS  300

static char large[LARGE];
static SSL_CTX *server_tls, *client_tls;

/* ---- contexts ---- */

static X509 *make_cert(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)"gateway.test", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    return cert;
}

static int make_contexts(void **state)
{
    (void)state;
    char cert_path[] = "/tmp/server_tls_test.XXXXXX", key_path[] = "/tmp/server_tls_test.XXXXXX";
    char error[256] = "";
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = make_cert(key);
    FILE *cert_file = fdopen(mkstemp(cert_path), "w"), *key_file = fdopen(mkstemp(key_path), "w");
    PEM_write_X509(cert_file, cert);
    PEM_write_PrivateKey(key_file, key, NULL, NULL, 0, NULL, NULL);
    fclose(cert_file);
    fclose(key_file);
    server_tls = pl_tls_server_ctx_new(cert_path, key_path, error, sizeof(error));
    assert_string_equal(error, "");
    client_tls = SSL_CTX_new(TLS_client_method());
    unlink(cert_path);
    unlink(key_path);
    X509_free(cert);
    EVP_PKEY_free(key);
    return 0;
}

static int drop_contexts(void **state)
{
    (void)state;
    SSL_CTX_free(server_tls);
    SSL_CTX_free(client_tls);
    return 0;
}

/* ---- clients: a plain one, whose bytes go through `ssl` ---- */

struct tls_client {
    struct client socket;
    SSL *ssl;
    BIO *from_server, *to_server;
    size_t fed_bytes; /* of what the socket got */
    char *text;
    size_t len;
    bool said_goodbye; /* close_notify has come */
    bool broken;       /* the end has come without it */
};

static void tls_feed(struct tls_client *self)
{
    struct client *socket = &self->socket;
    char buffer[16384];
    if (socket->len > self->fed_bytes) {
        BIO_write(self->from_server, socket->text + self->fed_bytes,
                  (int)(socket->len - self->fed_bytes));
        self->fed_bytes = socket->len;
    }
    if (!SSL_is_init_finished(self->ssl)) {
        SSL_do_handshake(self->ssl);
    }
    int got;
    while (SSL_is_init_finished(self->ssl) &&
           (got = SSL_read(self->ssl, buffer, sizeof(buffer))) > 0) {
        self->text = pl_xrealloc(self->text, self->len + (size_t)got + 1);
        memcpy(self->text + self->len, buffer, (size_t)got);
        self->len += (size_t)got;
        self->text[self->len] = '\0';
    }
    self->said_goodbye = (SSL_get_shutdown(self->ssl) & SSL_RECEIVED_SHUTDOWN) != 0;
    self->broken = socket->ended && !self->said_goodbye;
    while ((got = BIO_read(self->to_server, buffer, sizeof(buffer))) > 0) {
        if (!client_try_send(socket, buffer, (size_t)got)) {
            return;
        }
    }
}

#define TLS_RUN_UNTIL(client, condition)                                                           \
    RUN_UNTIL((client)->socket.net, (tls_feed(client), (condition)))

static void tls_open(struct tls_client *self, struct net *net, int receive_bytes)
{
    memset(self, 0, sizeof(*self));
    client_open_with(&self->socket, net, receive_bytes);
    self->text = pl_xstrdup("");
    self->ssl = SSL_new(client_tls);
    self->from_server = BIO_new(BIO_s_mem());
    self->to_server = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(self->from_server, -1);
    SSL_set_bio(self->ssl, self->from_server, self->to_server);
    SSL_set_connect_state(self->ssl);
    TLS_RUN_UNTIL(self, SSL_is_init_finished(self->ssl));
}

/** False when the connection breaks before all is sent. */
static bool tls_try_send(struct tls_client *self, const char *data, size_t len)
{
    while (len > 0 && !self->socket.ended) {
        int put = SSL_write(self->ssl, data, (int)PL_MIN(len, 16384u));
        if (put <= 0) {
            return false;
        }
        data += put;
        len -= (size_t)put;
        tls_feed(self);
    }
    return len == 0;
}

static void tls_send(struct tls_client *self, const char *text)
{
    assert_true(tls_try_send(self, text, strlen(text)));
}

static void tls_close(struct tls_client *self)
{
    if (self->ssl != NULL) {
        SSL_free(self->ssl);
        free(self->text);
        client_close(&self->socket);
        self->ssl = NULL;
    }
}

/** Exactly this comes, but for Date lines. */
static void tls_expect(struct tls_client *self, const char *expected)
{
    TLS_RUN_UNTIL(self, self->said_goodbye || self->broken || self->len >= strlen(expected));
    struct client text = {.text = self->text, .len = self->len};
    assert_received(&text, expected);
    self->len = 0;
    self->text[0] = '\0';
}

static void tls_await_goodbye(struct tls_client *self)
{
    TLS_RUN_UNTIL(self, self->said_goodbye || self->broken);
    assert_true(self->said_goodbye);
}

static void tls_await_break(struct tls_client *self)
{
    TLS_RUN_UNTIL(self, self->said_goodbye || self->broken);
    assert_true(self->broken);
}

static void tls_net_init(struct net *net, void (*answer)(struct served *))
{
    net_init_with(net, &PATIENT, server_tls, answer);
}

/* ---- answers ---- */

static void answer_ok(struct served *served)
{
    pl_exchange_reply(served->exchange, 200, NULL, "ok", 2);
    served->exchange = NULL;
}

static void answer_chunked(struct served *served)
{
    pl_exchange_start(served->exchange, 200, NULL, -1);
    assert_true(pl_exchange_write(served->exchange, "one", 3));
    assert_true(pl_exchange_write(served->exchange, "two", 3));
    pl_exchange_end(served->exchange);
    served->exchange = NULL;
}

static void answer_cut_short(struct served *served)
{
    pl_exchange_start(served->exchange, 200, NULL, -1);
    assert_true(pl_exchange_write(served->exchange, "one", 3));
    pl_exchange_abort(served->exchange, false);
    served->exchange = NULL;
}

static void reset_it(struct served *served)
{
    pl_exchange_abort(served->exchange, true);
    served->exchange = NULL;
}

static void test_answers_on_one_connection(void **state)
{
    (void)state;
    struct net net;
    struct tls_client client;
    tls_net_init(&net, NULL);
    tls_open(&client, &net, 0);
    for (int i = 0; i < 3; i++) {
        net.answer = answer_ok;
        tls_send(&client, GET);
        tls_expect(&client, KEPT_OPEN);
        net.answer = answer_chunked;
        tls_send(&client, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                          "3\r\nabc\r\n0\r\n\r\n");
        TLS_RUN_UNTIL(&client, strstr(client.text, "0\r\n\r\n"));
        tls_expect(&client, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                            "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
    }
    tls_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

static void test_parts_are_sent_at_once(void **state)
{
    (void)state;
    struct net net;
    struct tls_client client;
    tls_net_init(&net, NULL);
    tls_open(&client, &net, 0);
    tls_send(&client, GET);
    TLS_RUN_UNTIL(&client, net.served_count == 1);
    struct pl_exchange *exchange = net.served[0].exchange;
    pl_exchange_start(exchange, 200, NULL, -1);
    TLS_RUN_UNTIL(&client, strstr(client.text, "\r\n\r\n"));
    tls_expect(&client, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 3; i++) {
        assert_true(pl_exchange_write(exchange, "event", 5));
        tls_expect(&client, "5\r\nevent\r\n");
    }
    pl_exchange_end(exchange);
    tls_expect(&client, "0\r\n\r\n");
    tls_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

/* ---- ends ---- */

/** A whole answer ends with a goodbye, also where the end of the connection is its end. */
static void test_whole_answers_end_with_goodbye(void **state)
{
    (void)state;
    static const struct {
        void (*answer)(struct served *);
        const char *request, *expected;
    } cases[] = {
        {answer_ok, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"},
        {answer_ok, OLD_GET, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"},
        {answer_chunked, OLD_GET, "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nonetwo"},
    };
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        struct net net;
        struct tls_client client;
        tls_net_init(&net, cases[i].answer);
        tls_open(&client, &net, 0);
        tls_send(&client, cases[i].request);
        tls_await_goodbye(&client);
        tls_expect(&client, cases[i].expected);
        tls_close(&client);
        await_no_connections(&net);
        net_deinit(&net);
    }
}

static void test_cut_answers_end_without_goodbye(void **state)
{
    (void)state;
    static const char *const requests[] = {GET, OLD_GET};
    static void (*const answers[])(struct served *) = {answer_cut_short, reset_it};
    for (size_t i = 0; i < 4; i++) {
        struct net net;
        struct tls_client client;
        tls_net_init(&net, answers[i / 2]);
        tls_open(&client, &net, 0);
        tls_send(&client, requests[i % 2]);
        tls_await_break(&client);
        tls_close(&client);
        await_no_connections(&net);
        assert_int_equal(net.served[0].gone_count, 0);
        net_deinit(&net);
    }
}

static void test_idle_connections_end_with_goodbye(void **state)
{
    (void)state;
    struct net net;
    struct tls_client client;
    struct pl_server_limits limits = PATIENT;
    limits.keepalive_idle_ms = SHORT_MS;
    net_init_with(&net, &limits, server_tls, answer_ok);
    tls_open(&client, &net, 0);
    tls_send(&client, GET);
    tls_expect(&client, KEPT_OPEN);
    tls_await_goodbye(&client);
    tls_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

static void test_drain_ends_with_goodbye(void **state)
{
    (void)state;
    struct net net;
    struct tls_client idle, waiting;
    tls_net_init(&net, NULL);
    tls_open(&idle, &net, 0);
    tls_open(&waiting, &net, 0);
    tls_send(&waiting, GET);
    TLS_RUN_UNTIL(&waiting, net.served_count == 1);
    pl_server_drain(net.server);
    tls_await_goodbye(&idle);
    answer_ok(&net.served[0]);
    tls_await_goodbye(&waiting);
    tls_expect(&waiting, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    tls_close(&idle);
    tls_close(&waiting);
    await_no_connections(&net);
    net_deinit(&net);
}

/* ---- refusals ---- */

static void test_refusal_while_the_client_sends(void **state)
{
    (void)state;
    struct net net;
    struct tls_client client;
    struct pl_server_limits limits = PATIENT;
    limits.message.body_bytes = 1000;
    net_init_with(&net, &limits, server_tls, answer_ok);
    tls_open(&client, &net, 0);
    tls_send(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    assert_true(tls_try_send(&client, large, 1000000) || client.said_goodbye);
    tls_await_goodbye(&client);
    assert_memory_equal(client.text, "HTTP/1.1 413 Content Too Large\r\n", 32);
    assert_string_equal(client.text + client.len - 2, "}}");
    tls_close(&client);
    await_no_connections(&net);
    assert_int_equal(net.served_count, 0);
    net_deinit(&net);
}

/* ---- large answers ---- */

static void reply_large(struct served *served)
{
    pl_exchange_reply(served->exchange, 200, NULL, large, LARGE);
    served->exchange = NULL;
}

static size_t pumped_bytes;

static void pump(struct served *served)
{
    bool ready = true;
    while (ready && pumped_bytes < LARGE) {
        size_t len = PL_MIN(LARGE - pumped_bytes, 10000u);
        ready = pl_exchange_write(served->exchange, large + pumped_bytes, len);
        pumped_bytes += len;
    }
    if (pumped_bytes == LARGE) {
        pl_exchange_end(served->exchange);
        served->exchange = NULL;
    }
}

static void pump_large(struct served *served)
{
    pumped_bytes = 0;
    served->at_writable = pump;
    pl_exchange_start(served->exchange, 200, NULL, LARGE);
    pump(served);
}

static void test_large_answers(void **state)
{
    (void)state;
    static void (*const answers[])(struct served *) = {reply_large, pump_large};
    struct net net;
    struct tls_client client;
    for (size_t i = 0; i < LARGE; i++) {
        large[i] = (char)('a' + i % 23);
    }
    tls_net_init(&net, NULL);
    tls_open(&client, &net, 65536);
    for (size_t i = 0; i < PL_COUNT(answers); i++) {
        net.answer = answers[i];
        tls_send(&client, GET);
        TLS_RUN_UNTIL(&client, client.len > LARGE);
        TLS_RUN_UNTIL(&client, client.len >= LARGE + strlen(strstr(client.text, "HTTP/1.1")) -
                                                 strlen(strstr(client.text, "\r\n\r\n")) + 4);
        assert_memory_equal(strstr(client.text, "\r\n\r\n") + 4, large, LARGE);
        client.len = 0;
        client.text[0] = '\0';
    }
    assert_true(net.served[1].writable_count > 0);
    net.answer = answer_ok;
    tls_send(&client, GET);
    tls_expect(&client, KEPT_OPEN);
    tls_close(&client);
    await_no_connections(&net);
    net_deinit(&net);
}

static void test_write_stall(void **state)
{
    (void)state;
    struct net net;
    struct tls_client client;
    struct pl_server_limits limits = PATIENT;
    limits.write_stall_ms = SHORT_MS;
    net_init_with(&net, &limits, server_tls, reply_large);
    tls_open(&client, &net, 65536);
    client_deafen(&client.socket);
    tls_send(&client, GET);
    RUN_UNTIL(&net, net.served_count == 1);
    await_no_connections(&net);
    client_listen(&client.socket);
    tls_await_break(&client);
    tls_close(&client);
    net_deinit(&net);
}

/* ---- leaving ---- */

static void test_client_leaves(void **state)
{
    (void)state;
    for (int phase = 0; phase < 4; phase++) {
        struct net net;
        struct tls_client client;
        tls_net_init(&net, NULL);
        tls_open(&client, &net, 0);
        tls_send(&client, GET);
        TLS_RUN_UNTIL(&client, net.served_count == 1);
        if (phase >= 1) {
            pl_exchange_start(net.served[0].exchange, 200, NULL, -1);
        }
        if (phase >= 2) {
            assert_false(pl_exchange_write(net.served[0].exchange, large, LARGE));
        }
        if (phase == 3) { /* the polite way */
            SSL_shutdown(client.ssl);
            tls_feed(&client);
        } else {
            tls_close(&client);
        }
        await_no_connections(&net);
        assert_int_equal(net.served[0].gone_count, 1);
        tls_close(&client);
        net_deinit(&net);
    }
}

static void test_no_handshake(void **state)
{
    (void)state;
    struct net net;
    struct client client;
    struct pl_server_limits limits = PATIENT;
    limits.keepalive_idle_ms = SHORT_MS;
    net_init_with(&net, &limits, server_tls, answer_ok);
    client_open(&client, &net); /* plain HTTP */
    client_send(&client, GET);
    client_await_end(&client);
    client_close(&client);
    client_open(&client, &net); /* the beginning of a handshake, and silence */
    assert_true(client_try_send(&client, "\x16\x03\x01\x02\x00", 5));
    client_await_end(&client);
    client_close(&client);
    client_open(&client, &net);
    client_break(&client);
    await_no_connections(&net);
    assert_int_equal(net.served_count, 0);
    net_deinit(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_on_one_connection),
        cmocka_unit_test(test_parts_are_sent_at_once),
        cmocka_unit_test(test_whole_answers_end_with_goodbye),
        cmocka_unit_test(test_cut_answers_end_without_goodbye),
        cmocka_unit_test(test_idle_connections_end_with_goodbye),
        cmocka_unit_test(test_drain_ends_with_goodbye),
        cmocka_unit_test(test_refusal_while_the_client_sends),
        cmocka_unit_test(test_large_answers),
        cmocka_unit_test(test_write_stall),
        cmocka_unit_test(test_client_leaves),
        cmocka_unit_test(test_no_handshake),
    };
    return cmocka_run_group_tests(tests, make_contexts, drop_contexts);
}
