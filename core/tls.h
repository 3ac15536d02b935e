/*
 * TLS: OpenSSL contexts for the listener and for upstreams, and bytes over one client connection.
 *
 * Contexts are made on the main thread, then shared read-only by the workers (SSL_CTX is
 * reference-counted and locks its session cache). A connection belongs to one worker. TLS 1.2 and
 * up. Renegotiation and compression off. The process ignores SIGPIPE.
 */
#ifndef PL_TLS_H
#define PL_TLS_H

#include "base.h"
#include <openssl/ssl.h>
#include <sys/uio.h>

struct pl_tls_client_config {
    const char *ca_file; /* PEM bundle; NULL: the system's store */
    bool verify;         /* false only where the operator wrote verify = false */
};

/**
 * A context for connections to upstreams. NULL on failure, with a sentence that names the file in
 * `error`. SSL_VERIFY_PEER unless verify is false.
 */
SSL_CTX *pl_tls_client_ctx_new(const struct pl_tls_client_config *config, char *error,
                               size_t error_size);
/** A context for the listener, from PEM files; checks that the key belongs to the certificate. */
SSL_CTX *pl_tls_server_ctx_new(const char *cert_file, const char *key_file, char *error,
                               size_t error_size);
/**
 * A client connection on `fd` (non-blocking): SNI and host (or IP) verification for `server_name`.
 * `session` may be NULL. NULL only when OpenSSL fails.
 */
SSL *pl_tls_client_new(SSL_CTX *ctx, int fd, const char *server_name, SSL_SESSION *session);
/** Puts the newest session the server gives into `*slot`, freeing the one before; the slot must
 *  outlive the connection. */
void pl_tls_keep_session(SSL *ssl, SSL_SESSION **slot);
/** One step of the handshake: PL_OK when complete, PL_ERR_ABSENT when it waits, PL_ERR_CLOSED when
 *  the peer hung up, PL_ERR_SYSTEM when it failed (see pl_tls_error). */
PL_NODISCARD int pl_tls_handshake(SSL *ssl, bool *wants_write);
/** Bytes of at most one record (> 0), 0 after close_notify, PL_ERR_ABSENT, PL_ERR_CLOSED for an end
 *  without close_notify, PL_ERR_SYSTEM. More may be at hand: SSL_has_pending. */
PL_NODISCARD long pl_tls_read(SSL *ssl, char *data, size_t size, bool *wants_write);
/** Writes up to one record from the pieces. Bytes (> 0), PL_ERR_ABSENT, PL_ERR_SYSTEM. After
 *  PL_ERR_ABSENT it must be called again with the same pieces. */
PL_NODISCARD long pl_tls_write(SSL *ssl, const struct iovec *pieces, size_t piece_count,
                               size_t first_offset, bool *wants_write);
/** Says close_notify if that can be done at once, and frees. Leaves the fd open. */
void pl_tls_close(SSL *ssl);
/** The reason of the last failure on this thread, or of a failed verification, as one line. */
void pl_tls_error(const SSL *ssl, char *out, size_t out_size);

#endif
