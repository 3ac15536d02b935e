/*
 * TLS: contexts from files, and attempts over TLS against a scripted upstream with certificates
 * that are made here, once per run.
 */
#include "attempt_test.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#define OK_ANSWER   "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define LARGE_BYTES (8u << 20)
#define DAY_S       86400L

/* ---- certificates ---- */

static struct {
    char dir[32];
    char ca[64], other_ca[64], garbage[64], no_file[64];
    char good[64], good_key[64], other_key[64], encrypted_key[64], expired[64];
    EVP_PKEY *ca_key, *key;
    X509 *ca_cert;
} pki;

static void path_in_dir(char *out, size_t out_size, const char *name)
{
    snprintf(out, out_size, "%s/%s", pki.dir, name);
}

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(extension);
    X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
}

/** `issuer` NULL: an authority, signed by itself. */
static X509 *make_cert(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key,
                       long valid_until_s)
{
    static long serial = 1;
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(cert), -2 * DAY_S);
    X509_gmtime_adj(X509_getm_notAfter(cert), valid_until_s);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(issuer != NULL ? issuer : cert));
    if (issuer == NULL) {
        add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE");
        add_extension(cert, cert, NID_key_usage, "critical,keyCertSign");
    } else {
        add_extension(cert, issuer, NID_subject_alt_name, "DNS:upstream.test,IP:127.0.0.1");
    }
    assert_true(X509_sign(cert, issuer_key, EVP_sha256()) > 0);
    return cert;
}

static void write_cert(char *path, size_t path_size, const char *name, X509 *cert)
{
    path_in_dir(path, path_size, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, cert), 1);
    fclose(file);
}

static void write_key(char *path, size_t path_size, const char *name, EVP_PKEY *key,
                      const char *password)
{
    path_in_dir(path, path_size, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_PrivateKey(file, key, password ? EVP_aes_128_cbc() : NULL,
                                          (const unsigned char *)password,
                                          password ? (int)strlen(password) : 0, NULL, NULL),
                     1);
    fclose(file);
}

static int make_pki(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    strcpy(pki.dir, "/tmp/tls_test.XXXXXX");
    assert_non_null(mkdtemp(pki.dir));
    pki.ca_key = EVP_EC_gen("P-256");
    pki.key = EVP_EC_gen("P-256");
    EVP_PKEY *other = EVP_EC_gen("P-256");
    pki.ca_cert = make_cert("test authority", pki.ca_key, NULL, pki.ca_key, DAY_S);
    X509 *other_ca = make_cert("other authority", other, NULL, other, DAY_S);
    X509 *good = make_cert("upstream", pki.key, pki.ca_cert, pki.ca_key, DAY_S);
    X509 *expired = make_cert("upstream", pki.key, pki.ca_cert, pki.ca_key, -DAY_S);
    write_cert(pki.ca, sizeof(pki.ca), "ca.pem", pki.ca_cert);
    write_cert(pki.other_ca, sizeof(pki.other_ca), "other_ca.pem", other_ca);
    write_cert(pki.good, sizeof(pki.good), "good.pem", good);
    write_cert(pki.expired, sizeof(pki.expired), "expired.pem", expired);
    write_key(pki.good_key, sizeof(pki.good_key), "good.key", pki.key, NULL);
    write_key(pki.other_key, sizeof(pki.other_key), "other.key", other, NULL);
    write_key(pki.encrypted_key, sizeof(pki.encrypted_key), "encrypted.key", pki.key, "secret");
    path_in_dir(pki.no_file, sizeof(pki.no_file), "missing.pem");
    path_in_dir(pki.garbage, sizeof(pki.garbage), "garbage.pem");
    FILE *file = fopen(pki.garbage, "w");
    fputs("not PEM\n", file);
    fclose(file);
    X509_free(good);
    X509_free(expired);
    X509_free(other_ca);
    EVP_PKEY_free(other);
    return 0;
}

static int drop_pki(void **state)
{
    (void)state;
    const char *files[] = {pki.ca,       pki.other_ca,  pki.good,          pki.expired,
                           pki.good_key, pki.other_key, pki.encrypted_key, pki.garbage};
    for (size_t i = 0; i < PL_COUNT(files); i++) {
        unlink(files[i]);
    }
    X509_free(pki.ca_cert);
    EVP_PKEY_free(pki.ca_key);
    EVP_PKEY_free(pki.key);
    return rmdir(pki.dir);
}

/* ---- contexts ---- */

static void test_server_contexts(void **state)
{
    (void)state;
    char error[256] = "";
    SSL_CTX *ctx = pl_tls_server_ctx_new(pki.good, pki.good_key, error, sizeof(error));
    assert_non_null(ctx);
    assert_int_equal(SSL_CTX_get_min_proto_version(ctx), TLS1_2_VERSION);
    SSL_CTX_free(ctx);
    const struct {
        const char *cert, *key, *named;
    } broken[] = {
        {pki.no_file, pki.good_key, pki.no_file},
        {pki.garbage, pki.good_key, pki.garbage},
        {pki.good, pki.no_file, pki.no_file},
        {pki.good, pki.other_key, pki.other_key},
        {pki.good, pki.encrypted_key, pki.encrypted_key},
    };
    for (size_t i = 0; i < PL_COUNT(broken); i++) {
        error[0] = '\0';
        assert_null(pl_tls_server_ctx_new(broken[i].cert, broken[i].key, error, sizeof(error)));
        assert_non_null(strstr(error, broken[i].named));
        assert_int_equal(ERR_peek_error(), 0);
    }
}

static void test_client_contexts(void **state)
{
    (void)state;
    char error[256] = "";
    const char *broken[] = {pki.no_file, pki.garbage};
    for (size_t i = 0; i < PL_COUNT(broken); i++) {
        struct pl_tls_client_config config = {.ca_file = broken[i], .verify = true};
        assert_null(pl_tls_client_ctx_new(&config, error, sizeof(error)));
        assert_non_null(strstr(error, broken[i]));
    }
    struct pl_tls_client_config system_store = {.verify = true};
    SSL_CTX *ctx = pl_tls_client_ctx_new(&system_store, error, sizeof(error));
    assert_non_null(ctx);
    assert_int_equal(SSL_CTX_get_verify_mode(ctx), SSL_VERIFY_PEER);
    SSL_CTX_free(ctx);
}

/* ---- attempts ---- */

struct secure {
    SSL_CTX *server, *client;
    struct net net;
};

static void secure_init(struct secure *self, const char *cert, const char *ca, bool verify,
                        const struct step *const *scripts, size_t script_count)
{
    char error[256] = "";
    struct pl_tls_client_config config = {.ca_file = ca, .verify = verify};
    self->server = pl_tls_server_ctx_new(cert, pki.good_key, error, sizeof(error));
    self->client = pl_tls_client_ctx_new(&config, error, sizeof(error));
    assert_non_null(self->server);
    assert_non_null(self->client);
    net_init(&self->net, scripts, script_count, self->server, self->client);
    self->net.endpoint.server_name = "upstream.test";
}

static void secure_deinit(struct secure *self)
{
    net_deinit(&self->net);
    SSL_CTX_free(self->server);
    SSL_CTX_free(self->client);
}

#define SECURE(secure, scripts)                                                                    \
    struct secure secure;                                                                          \
    secure_init(&(secure), pki.good, pki.ca, true, scripts, PL_COUNT(scripts))

static const struct step ANSWER_TWICE[] = {{OP_REQUEST, NULL, 0},
                                           {OP_SEND, OK_ANSWER, 0},
                                           {OP_REQUEST, NULL, 0},
                                           {OP_SEND, OK_ANSWER, 0},
                                           {OP_END, NULL, 0}};

static void run_good(const char *server_name, int version)
{
    const struct step *const scripts[] = {ANSWER_TWICE};
    SECURE(secure, scripts);
    secure.net.endpoint.server_name = (char *)(uintptr_t)server_name;
    SSL_CTX_set_max_proto_version(secure.server, version);
    for (int i = 0; i < 2; i++) {
        struct record record = {0};
        record_run(&record, &secure.net, &PATIENT);
        assert_string_equal(record.stats.detail, "");
        assert_int_equal(record.failure, PL_FAIL_NONE);
        assert_string_equal(record.body, "ok");
        assert_int_equal(record.stats.reused, i == 1);
        assert_int_equal(secure.net.pool->idle_count, 1);
    }
    secure_deinit(&secure);
}

static void test_good_certificate(void **state)
{
    (void)state;
    run_good("upstream.test", TLS1_2_VERSION);
    run_good("upstream.test", TLS1_3_VERSION);
    run_good("127.0.0.1", TLS1_3_VERSION);
}

static void run_refused(const char *cert, const char *ca, const char *server_name,
                        const char *reason)
{
    const struct step *const scripts[] = {ANSWER_TWICE};
    struct secure secure;
    secure_init(&secure, cert, ca, true, scripts, PL_COUNT(scripts));
    secure.net.endpoint.server_name = (char *)(uintptr_t)server_name;
    struct record record = {0};
    record_run(&record, &secure.net, &PATIENT);
    assert_int_equal(record.failure, PL_FAIL_TLS);
    if (strstr(record.stats.detail, reason) == NULL) {
        fail_msg("'%s' is not in '%s'", reason, record.stats.detail);
    }
    assert_false(record.stats.request_sent);
    assert_int_equal(secure.net.pool->idle_count, 0);
    secure_deinit(&secure);
}

static void test_refused_certificates(void **state)
{
    (void)state;
    run_refused(pki.good, pki.ca, "other.test", "certificate verify failed: hostname mismatch");
    run_refused(pki.good, pki.ca, "127.0.0.2", "certificate verify failed: IP address mismatch");
    run_refused(pki.good, pki.other_ca, "upstream.test", "certificate verify failed: ");
    run_refused(pki.expired, pki.ca, "upstream.test",
                "certificate verify failed: certificate has expired");
}

static void test_verify_off(void **state)
{
    (void)state;
    const struct step *const scripts[] = {ANSWER_TWICE};
    struct secure secure;
    secure_init(&secure, pki.expired, NULL, false, scripts, PL_COUNT(scripts));
    secure.net.endpoint.server_name = "other.test";
    struct record record = {0};
    record_run(&record, &secure.net, &PATIENT);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    secure_deinit(&secure);
}

/** A second connection resumes the session of the first one, whose ticket came after its
 *  handshake. */
static void run_resumption(int version)
{
    static const struct step answer_and_close[] = {
        {OP_REQUEST, NULL, 0}, {OP_SEND, OK_ANSWER, 0}, {OP_CLOSE, NULL, 0}};
    const struct step *const scripts[] = {answer_and_close, ANSWER_TWICE};
    SECURE(secure, scripts);
    SSL_CTX_set_max_proto_version(secure.server, version);
    secure.net.endpoint.max_idle = 0;
    struct record first = {0}, second = {0};
    record_run(&first, &secure.net, &PATIENT);
    assert_int_equal(first.failure, PL_FAIL_NONE);
    assert_non_null(secure.net.pool->session);
    assert_int_equal(secure.net.upstream.resumed_count, 0);
    record_run(&second, &secure.net, &PATIENT);
    assert_int_equal(second.failure, PL_FAIL_NONE);
    assert_int_equal(secure.net.upstream.resumed_count, 1);
    secure_deinit(&secure);
}

static void test_session_resumption(void **state)
{
    (void)state;
    run_resumption(TLS1_2_VERSION);
    run_resumption(TLS1_3_VERSION);
}

static void run_end_of_stream(enum op end, const char *text, enum pl_failure failure)
{
    const struct step script[] = {{OP_REQUEST, NULL, 0}, {OP_SEND, text, 0}, {end, NULL, 0}};
    const struct step *const scripts[] = {script};
    SECURE(secure, scripts);
    struct record record = {0};
    record_run(&record, &secure.net, &PATIENT);
    assert_string_equal(pl_failure_name(record.failure), pl_failure_name(failure));
    assert_string_equal(record.body, "some");
    secure_deinit(&secure);
}

/** Anyone on the way can close TCP; only close_notify says that the body is whole. */
static void test_end_of_stream(void **state)
{
    (void)state;
    run_end_of_stream(OP_CLOSE, "HTTP/1.1 200 OK\r\n\r\nsome", PL_FAIL_NONE);
    run_end_of_stream(OP_CUT, "HTTP/1.1 200 OK\r\n\r\nsome", PL_FAIL_TRUNCATED);
    run_end_of_stream(OP_CLOSE, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsome",
                      PL_FAIL_TRUNCATED);
    run_end_of_stream(OP_RESET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsome",
                      PL_FAIL_TRUNCATED);
}

static void test_trickled_records(void **state)
{
    (void)state;
    static const struct step script[] = {
        {OP_REQUEST, NULL, 0},
        {OP_TRICKLE, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
         0},
        {OP_END, NULL, 0}};
    const struct step *const scripts[] = {script};
    SECURE(secure, scripts);
    struct record record = {0};
    record_run(&record, &secure.net, &PATIENT);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    assert_string_equal(record.body, "ok");
    assert_int_equal(secure.net.pool->idle_count, 1);
    secure_deinit(&secure);
}

static char large_head[128];
static char large_body[LARGE_BYTES];

static const struct step LARGE_ANSWER[] = {
    {OP_REQUEST, NULL, 0},
    {OP_SEND, "HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n", 0},
    {OP_FLOOD, NULL, LARGE_BYTES},
    {OP_END, NULL, 0}};

static void test_large_bodies(void **state)
{
    (void)state;
    const struct step *const scripts[] = {LARGE_ANSWER};
    SECURE(secure, scripts);
    int len = snprintf(large_head, sizeof(large_head),
                       "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %u\r\n\r\n", LARGE_BYTES);
    const struct iovec pieces[] = {{large_head, (size_t)len},
                                   {large_body, 100},
                                   {large_body + 100, 0},
                                   {large_body + 100, LARGE_BYTES - 200},
                                   {large_body + LARGE_BYTES - 100, 100}};
    struct pl_attempt_request request = {pieces, PL_COUNT(pieces), false, 1, false};
    struct record record = {0};
    record_start(&record, &secure.net, &request, &PATIENT);
    run_until_count(secure.net.base, &record.done, 1);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    assert_int_equal(record.body_bytes, LARGE_BYTES);
    assert_int_equal(secure.net.upstream.received_bytes, LARGE_BYTES + (size_t)len);
    assert_int_equal(secure.net.pool->idle_count, 1);
    secure_deinit(&secure);
}

static void pause_now(struct record *self)
{
    pl_attempt_pause(self->attempt);
}

/** Resuming finds what lies in OpenSSL and what lies in the socket. */
static void test_pause_under_flood(void **state)
{
    (void)state;
    const struct step *const scripts[] = {LARGE_ANSWER};
    SECURE(secure, scripts);
    struct record record = {.at_body = pause_now};
    record_start(&record, &secure.net, &GET, &PATIENT);
    run_until_count(secure.net.base, &record.body_calls, 1);
    run_until_still(secure.net.base, &secure.net.upstream.sent_bytes);
    assert_int_equal(record.body_calls, 1);
    assert_true(secure.net.upstream.sent_bytes < LARGE_BYTES);
    while (record.body_bytes < LARGE_BYTES) {
        size_t calls = record.body_calls;
        pl_attempt_resume(record.attempt);
        assert_int_equal(record.body_calls, calls);
        run_until_count(secure.net.base, &record.body_calls, calls + 1);
    }
    assert_int_equal(record.done, 0);
    pl_attempt_resume(record.attempt);
    run_until_count(secure.net.base, &record.done, 1);
    assert_int_equal(record.failure, PL_FAIL_NONE);
    secure_deinit(&secure);
}

/* ---- handshakes that do not happen ---- */

static void run_no_handshake(const struct step *script, const struct pl_attempt_limits *limits,
                             enum pl_failure failure, const char *reason)
{
    const struct step *const scripts[] = {script};
    SECURE(secure, scripts);
    secure.net.upstream.tls = NULL; /* the upstream speaks plain TCP */
    struct record record = {0};
    record_run(&record, &secure.net, limits);
    assert_int_equal(record.failure, failure);
    if (strstr(record.stats.detail, reason) == NULL) {
        fail_msg("'%s' is not in '%s'", reason, record.stats.detail);
    }
    secure_deinit(&secure);
}

static void test_no_handshake(void **state)
{
    (void)state;
    static const struct step silent[] = {{OP_DEAF, NULL, 0}, {OP_END, NULL, 0}};
    static const struct step plain[] = {
        {OP_SEND, "HTTP/1.1 400 Bad Request\r\n\r\n", 0}, {OP_DEAF, NULL, 0}, {OP_END, NULL, 0}};
    static const struct step closes[] = {{OP_CLOSE, NULL, 0}};
    run_no_handshake(silent, &(struct pl_attempt_limits){.tls_ms = 40, .head_ms = 9000},
                     PL_FAIL_TIMEOUT_CONNECT, "no handshake after 40 ms");
    run_no_handshake(plain, &PATIENT, PL_FAIL_TLS, "TLS with 127.0.0.1");
    run_no_handshake(closes, &PATIENT, PL_FAIL_TLS, "");
}

static void test_cancel_during_handshake(void **state)
{
    (void)state;
    static const struct step silent[] = {{OP_DEAF, NULL, 0}, {OP_END, NULL, 0}};
    const struct step *const scripts[] = {silent};
    SECURE(secure, scripts);
    secure.net.upstream.tls = NULL;
    struct record record = {0};
    record_start(&record, &secure.net, &GET, &PATIENT);
    run_until_count(secure.net.base, &secure.net.upstream.accepted_count, 1);
    run_until_still(secure.net.base, &secure.net.upstream.accepted_count);
    pl_attempt_cancel(record.attempt);
    run_until_still(secure.net.base, &record.done);
    assert_int_equal(record.done, 0);
    secure_deinit(&secure);
}

/** The peer says goodbye, or speaks, while the connection is idle. */
static void run_idle_end(const struct step *script)
{
    const struct step *const scripts[] = {script};
    SECURE(secure, scripts);
    struct record record = {0};
    record_run(&record, &secure.net, &PATIENT);
    assert_int_equal(secure.net.pool->idle_count, 1);
    upstream_open_gate(&secure.net.upstream);
    for (int turns = 0; secure.net.pool->idle_count > 0; turns++) {
        assert_true(turns < 100);
        event_base_loop(secure.net.base, EVLOOP_ONCE);
    }
    secure_deinit(&secure);
}

static void test_idle_end(void **state)
{
    (void)state;
    static const struct step closes[] = {
        {OP_REQUEST, NULL, 0}, {OP_SEND, OK_ANSWER, 0}, {OP_GATE, NULL, 0}, {OP_CLOSE, NULL, 0}};
    static const struct step speaks[] = {{OP_REQUEST, NULL, 0},
                                         {OP_SEND, OK_ANSWER, 0},
                                         {OP_GATE, NULL, 0},
                                         {OP_SEND, OK_ANSWER, 0},
                                         {OP_END, NULL, 0}};
    run_idle_end(closes);
    run_idle_end(speaks);
}

/** A new ticket while idle is housekeeping, not speech: the connection stays, the ticket is kept.
 */
static void test_idle_ticket(void **state)
{
    (void)state;
    const struct step *const scripts[] = {ANSWER_TWICE};
    SECURE(secure, scripts);
    struct record record = {0};
    record_run(&record, &secure.net, &PATIENT);
    assert_int_equal(secure.net.pool->idle_count, 1);
    SSL_SESSION *before = secure.net.pool->session;
    SSL_SESSION_up_ref(before);
    SSL *peer = secure.net.upstream.peers[0].ssl;
    assert_int_equal(SSL_new_session_ticket(peer), 1);
    assert_int_equal(SSL_do_handshake(peer), 1);
    for (int turns = 0; secure.net.pool->session == before; turns++) {
        assert_true(turns < 100);
        event_base_loop(secure.net.base, EVLOOP_ONCE);
    }
    SSL_SESSION_free(before);
    assert_int_equal(secure.net.pool->idle_count, 1);
    secure_deinit(&secure);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server_contexts),  cmocka_unit_test(test_client_contexts),
        cmocka_unit_test(test_good_certificate), cmocka_unit_test(test_refused_certificates),
        cmocka_unit_test(test_verify_off),       cmocka_unit_test(test_session_resumption),
        cmocka_unit_test(test_end_of_stream),    cmocka_unit_test(test_trickled_records),
        cmocka_unit_test(test_large_bodies),     cmocka_unit_test(test_pause_under_flood),
        cmocka_unit_test(test_no_handshake),     cmocka_unit_test(test_cancel_during_handshake),
        cmocka_unit_test(test_idle_end),         cmocka_unit_test(test_idle_ticket),
    };
    return cmocka_run_group_tests(tests, make_pki, drop_pki);
}
