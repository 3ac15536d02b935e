/*
 * TLS: see tls.h.
 *
 * Thread: contexts are made on the main thread; a connection belongs to one worker. OpenSSL's error
 * queue is per thread and has to be empty before an operation whose result is then looked at with
 * SSL_get_error, so every operation here clears it first. Writes go through write(2): the process
 * must ignore SIGPIPE.
 *
 * OpenSSL sits directly on the socket (SSL_set_fd). Reading ahead saves one of the two system calls
 * per record; the price is that bytes may lie in OpenSSL without an event, which callers of
 * pl_tls_read ask for with SSL_has_pending. Buffers are released when empty: an idle connection
 * keeps none of the 16 KiB ones.
 *
 * Sessions are kept by the caller, one slot per upstream and worker: the cache inside SSL_CTX is
 * shared by all threads and cannot be asked for the newest session of a host.
 */
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define RECORD_BYTES 16384 /* the most that one TLS record carries */

/* ---- errors ---- */

void pl_tls_error(const SSL *ssl, char *out, size_t out_size)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    if (ssl != NULL && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        snprintf(out, out_size, "certificate verify failed: %s",
                 X509_verify_cert_error_string(SSL_get_verify_result(ssl)));
    } else if (reason != NULL) {
        snprintf(out, out_size, "%s", reason);
    } else if (code != 0 && ERR_SYSTEM_ERROR(code)) {
        snprintf(out, out_size, "%s", strerror(ERR_GET_REASON(code)));
    } else if (code == 0 && errno != 0) {
        snprintf(out, out_size, "%s", strerror(errno));
    } else {
        snprintf(out, out_size, "OpenSSL error %lx", code);
    }
    ERR_clear_error();
}

/** "<what> <file>: <reason>". What the system said comes first in the queue, and says more. */
static void explain_file(const char *what, const char *file, char *error, size_t error_size)
{
    char reason[128];
    unsigned long first = ERR_peek_error();
    if (ERR_SYSTEM_ERROR(first)) {
        snprintf(reason, sizeof(reason), "%s", strerror(ERR_GET_REASON(first)));
        ERR_clear_error();
    } else {
        pl_tls_error(NULL, reason, sizeof(reason));
    }
    snprintf(error, error_size, "%s %s: %s", what, file, reason);
}

/* ---- contexts ---- */

static SSL_CTX *ctx_new(const SSL_METHOD *method, char *error, size_t error_size)
{
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (ctx == NULL || !SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION)) {
        pl_tls_error(NULL, error, error_size);
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    return ctx;
}

/** Takes over the reference when it keeps the session (returns 1). TLS 1.3 sends sessions after the
 *  handshake, mixed with the answer, and often two. */
static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION **slot = SSL_get_app_data(ssl);
    if (slot == NULL) {
        return 0;
    }
    SSL_SESSION_free(*slot);
    *slot = session;
    return 1;
}

static bool load_trust(SSL_CTX *ctx, const char *ca_file, char *error, size_t error_size)
{
    if (ca_file == NULL) {
        if (SSL_CTX_set_default_verify_paths(ctx)) {
            return true;
        }
        pl_tls_error(NULL, error, error_size);
        return false;
    }
    if (SSL_CTX_load_verify_file(ctx, ca_file)) {
        return true;
    }
    explain_file("cannot read certificates from", ca_file, error, error_size);
    return false;
}

SSL_CTX *pl_tls_client_ctx_new(const struct pl_tls_client_config *config, char *error,
                               size_t error_size)
{
    SSL_CTX *ctx = ctx_new(TLS_client_method(), error, error_size);
    if (ctx == NULL) {
        return NULL;
    }
    if (config->verify && !load_trust(ctx, config->ca_file, error, error_size)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_verify(ctx, config->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_new_session);
    return ctx;
}

/** An encrypted key must fail, not ask the terminal. */
static int no_password(char *buffer, int size, int writing, void *arg)
{
    (void)buffer;
    (void)size;
    (void)writing;
    (void)arg;
    return 0;
}

SSL_CTX *pl_tls_server_ctx_new(const char *cert_file, const char *key_file, char *error,
                               size_t error_size)
{
    SSL_CTX *ctx = ctx_new(TLS_server_method(), error, error_size);
    if (ctx == NULL) {
        return NULL;
    }
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_default_passwd_cb(ctx, no_password);
    if (SSL_CTX_use_certificate_chain_file(ctx, cert_file) != 1) {
        explain_file("cannot use the certificate", cert_file, error, error_size);
    } else if (SSL_CTX_use_PrivateKey_file(ctx, key_file, SSL_FILETYPE_PEM) != 1) {
        explain_file("cannot use the key", key_file, error, error_size);
    } else if (SSL_CTX_check_private_key(ctx) != 1) {
        explain_file("the certificate does not belong to the key", key_file, error, error_size);
    } else {
        return ctx;
    }
    SSL_CTX_free(ctx);
    return NULL;
}

/* ---- one connection ---- */

static bool is_numeric(const char *name)
{
    unsigned char address[16];
    return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

static bool name_peer(SSL *ssl, const char *server_name)
{
    if (is_numeric(server_name)) {
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), server_name) == 1;
    }
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(ssl, server_name) == 1 && SSL_set1_host(ssl, server_name) == 1;
}

SSL *pl_tls_client_new(SSL_CTX *ctx, int fd, const char *server_name, SSL_SESSION *session)
{
    ERR_clear_error();
    SSL *ssl = SSL_new(ctx);
    if (ssl == NULL) {
        return NULL;
    }
    if (SSL_set_fd(ssl, fd) != 1 || !name_peer(ssl, server_name)) {
        SSL_free(ssl);
        return NULL;
    }
    if (session != NULL) {
        (void)SSL_set_session(ssl, session); /* without it the handshake is a full one */
    }
    SSL_set_connect_state(ssl);
    return ssl;
}

void pl_tls_keep_session(SSL *ssl, SSL_SESSION **slot)
{
    SSL_set_app_data(ssl, slot);
}

static void begin(void)
{
    ERR_clear_error();
    errno = 0;
}

/** What a result <= 0 means. After a fatal error OpenSSL must not try to say close_notify. */
static long outcome(SSL *ssl, int result, bool *wants_write)
{
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return PL_ERR_ABSENT;
    case SSL_ERROR_WANT_WRITE:
        *wants_write = true;
        return PL_ERR_ABSENT;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        break;
    }
    SSL_set_quiet_shutdown(ssl, 1);
    unsigned long code = ERR_peek_last_error();
    bool ended = ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
    return ended || (code == 0 && errno == 0) ? PL_ERR_CLOSED : PL_ERR_SYSTEM;
}

int pl_tls_handshake(SSL *ssl, bool *wants_write)
{
    begin();
    int result = SSL_do_handshake(ssl);
    if (result == 1) {
        return PL_OK;
    }
    long reason = outcome(ssl, result, wants_write);
    return reason == 0 ? PL_ERR_CLOSED : (int)reason;
}

long pl_tls_read(SSL *ssl, char *data, size_t size, bool *wants_write)
{
    begin();
    int got = SSL_read(ssl, data, (int)PL_MIN(size, RECORD_BYTES));
    return got > 0 ? got : outcome(ssl, got, wants_write);
}

/** Puts the pieces together in `record`, as far as they fit. */
static size_t gather(char *record, const struct iovec *pieces, size_t piece_count,
                     size_t first_offset)
{
    size_t len = 0;
    for (size_t i = 0; i < piece_count && len < RECORD_BYTES; i++) {
        size_t skip = i == 0 ? first_offset : 0;
        size_t take = PL_MIN(pieces[i].iov_len - skip, RECORD_BYTES - len);
        if (take > 0) {
            memcpy(record + len, (const char *)pieces[i].iov_base + skip, take);
        }
        len += take;
    }
    return len;
}

long pl_tls_write(SSL *ssl, const struct iovec *pieces, size_t piece_count, size_t first_offset,
                  bool *wants_write)
{
    static _Thread_local char record[RECORD_BYTES];
    const char *data = (const char *)pieces[0].iov_base + first_offset;
    size_t len = pieces[0].iov_len - first_offset;
    if (len < RECORD_BYTES && piece_count > 1) {
        len = gather(record, pieces, piece_count, first_offset);
        data = record;
    }
    if (len == 0) {
        return 0;
    }
    begin();
    int put = SSL_write(ssl, data, (int)PL_MIN(len, RECORD_BYTES));
    if (put > 0) {
        return put;
    }
    long reason = outcome(ssl, put, wants_write);
    return reason == PL_ERR_ABSENT ? PL_ERR_ABSENT : PL_ERR_SYSTEM;
}

void pl_tls_close(SSL *ssl)
{
    /* Also keeps the session usable: SSL_free spoils it if the connection just vanishes. */
    if (SSL_is_init_finished(ssl)) {
        begin();
        (void)SSL_shutdown(ssl);
        ERR_clear_error();
    }
    SSL_free(ssl);
}
