/*
 * Admin dashboard: its files, which are in the binary. See core/dashboard and admin_internal.h.
 *
 * They hold nothing of this gateway, and so need no token: what the page shows, it asks for with
 * the token that its user gives it. The page may load what is here, and nothing else, from nowhere
 * else; it may not be framed.
 */
#include "admin_internal.h"
#include "bundle.h"
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *path, *file, *type;
} pages[] = {
    {"/", "dashboard.html", "text/html; charset=utf-8"},
    {"/dashboard.css", "dashboard.css", "text/css; charset=utf-8"},
    {"/dashboard.js", "dashboard.js", "text/javascript; charset=utf-8"},
};

static const struct {
    const char *name, *value;
} page_headers[] = {
    {"Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
     "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
    {"X-Frame-Options", "DENY"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Opener-Policy", "same-origin"},
};

static const struct pl_bundle_file *find_file(const char *name)
{
    const struct pl_bundle_file *file = pl_embedded_assets;
    while (file->name && strcmp(file->name, name) != 0)
        file++;
    return file;
}

void pl_admin_get_dashboard(struct pl_admin *self, struct pl_exchange *exchange)
{
    (void)self;
    size_t page = 0;
    while (!pl_str_equal(pl_exchange_path(exchange), pl_str_of(pages[page].path)))
        page++; /* admin.c has asked for one of them */
    const struct pl_bundle_file *file = find_file(pages[page].file);
    struct pl_headers headers;
    pl_headers_init(&headers);
    for (size_t i = 0; i < PL_COUNT(page_headers); i++) {
        if (pl_headers_add(&headers, pl_str_of(page_headers[i].name),
                           pl_str_of(page_headers[i].value)) != PL_OK)
            abort();
    }
    pl_admin_reply(exchange, 200, &headers, pages[page].type, file->data, file->len);
    pl_headers_deinit(&headers);
}
