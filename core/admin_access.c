/*
 * Admin access: who is let in. See admin_internal.h.
 *
 * Two ways lead a browser here that its user does not know of. A page of any site may send requests
 * to any address, and the browser adds an Origin and Sec-Fetch-Site that say so (Fetch standard,
 * Fetch Metadata). And a page may have its own name point to 127.0.0.1 (DNS rebinding): then all of
 * it looks like one site, but for the name in Host. So, without a token, Host must be a name of
 * ours; with one, the page would have to know it. On a unix socket there are no browsers, and what
 * stands before it has names of its own.
 */
#include "admin_internal.h"
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

/* "127.0.0.1:9901" -> "127.0.0.1"; "[::1]:9901" -> "[::1]" */
static struct pl_str without_port(struct pl_str host)
{
    const char *colon = memrchr(host.data, ':', host.len);
    const char *bracket = memrchr(host.data, ']', host.len);
    if (colon && colon > bracket)
        host.len = (size_t)(colon - host.data);
    return host;
}

static bool is_unix(const struct pl_admin *self)
{
    return strncmp(self->address, "unix:", 5) == 0;
}

static bool host_is_ours(const struct pl_admin *self, const struct pl_headers *headers)
{
    struct pl_str host;
    if (self->config->admin_token || is_unix(self))
        return true;
    if (!pl_headers_get(headers, PL_STR("host"), &host))
        return true; /* HTTP/1.0, not a browser */
    host = without_port(host);
    return pl_str_equal_nocase(host, PL_STR("localhost")) ||
           pl_str_equal_nocase(host, PL_STR("127.0.0.1")) ||
           pl_str_equal_nocase(host, PL_STR("[::1]")) ||
           pl_str_equal_nocase(host, pl_str_of(self->address));
}

/* "http://127.0.0.1:9901" for Host "127.0.0.1:9901"; https is what a proxy before us may speak. */
static bool is_origin_of(struct pl_str origin, struct pl_str host)
{
    static const struct pl_str schemes[] = {{"http://", 7}, {"https://", 8}};
    for (size_t i = 0; i < PL_COUNT(schemes); i++) {
        struct pl_str scheme = schemes[i];
        if (origin.len == scheme.len + host.len && host.len > 0 &&
            pl_str_equal_nocase((struct pl_str){origin.data, scheme.len}, scheme) &&
            pl_str_equal_nocase((struct pl_str){origin.data + scheme.len, host.len}, host))
            return true;
    }
    return false;
}

/* A link on another page may lead to the dashboard: the page that it opens asks for itself. */
static bool is_visit(struct pl_exchange *exchange)
{
    struct pl_str mode, destination;
    const struct pl_headers *headers = pl_exchange_headers(exchange);
    return pl_str_equal(pl_exchange_method(exchange), PL_STR("GET")) &&
           pl_str_equal(pl_exchange_path(exchange), PL_STR("/")) &&
           pl_headers_get(headers, PL_STR("sec-fetch-mode"), &mode) &&
           pl_str_equal(mode, PL_STR("navigate")) &&
           pl_headers_get(headers, PL_STR("sec-fetch-dest"), &destination) &&
           pl_str_equal(destination, PL_STR("document"));
}

static bool is_from_another_site(struct pl_exchange *exchange)
{
    struct pl_str origin, site, host = PL_STR("");
    const struct pl_headers *headers = pl_exchange_headers(exchange);
    (void)pl_headers_get(headers, PL_STR("host"), &host);
    if (pl_headers_get(headers, PL_STR("origin"), &origin) && !is_origin_of(origin, host))
        return true;
    if (!pl_headers_get(headers, PL_STR("sec-fetch-site"), &site))
        return false;
    return !pl_str_equal(site, PL_STR("same-origin")) && !pl_str_equal(site, PL_STR("none")) &&
           !is_visit(exchange);
}

bool pl_admin_let_in(const struct pl_admin *self, struct pl_exchange *exchange)
{
    if (!host_is_ours(self, pl_exchange_headers(exchange)))
        pl_admin_refuse(exchange, 403, "wrong_host", "This address is not served under that name.");
    else if (is_from_another_site(exchange))
        pl_admin_refuse(exchange, 403, "cross_site", "This address is not served to other sites.");
    else
        return true;
    return false;
}

/* Digests are compared: their time tells neither the token's bytes nor its length. */
bool pl_admin_is_authorized(const struct pl_admin *self, const struct pl_headers *headers)
{
    unsigned char given_hash[SHA256_DIGEST_LENGTH], token_hash[SHA256_DIGEST_LENGTH];
    struct pl_str given;
    const char *token = self->config->admin_token;
    if (!token || is_unix(self))
        return true;
    if (!pl_headers_get(headers, PL_STR("authorization"), &given) || given.len < 7 ||
        !pl_str_equal_nocase((struct pl_str){given.data, 7}, PL_STR("bearer ")))
        return false;
    SHA256((const unsigned char *)given.data + 7, given.len - 7, given_hash);
    SHA256((const unsigned char *)token, strlen(token), token_hash);
    return CRYPTO_memcmp(given_hash, token_hash, sizeof(token_hash)) == 0;
}
