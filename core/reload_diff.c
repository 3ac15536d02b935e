/*
 * What differs between two configurations, for people. See reload_internal.h.
 */
#include "reload_internal.h"
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

static void add(struct pl_reload_diff *self, const char *kind, const char *action, const char *name)
{
    self->total++;
    if (self->count == PL_RELOAD_CHANGES_MAX)
        return;
    self->changes = pl_xrealloc(self->changes, (self->count + 1) * sizeof(*self->changes));
    self->changes[self->count++] = (struct pl_reload_change){kind, action, pl_xstrdup(name)};
}

/* ---- files ---- */

static const struct pl_config_file *find_file(const struct pl_config *config, const char *name)
{
    for (size_t i = 0; i < config->file_count; i++) {
        if (strcmp(config->files[i].name, name) == 0)
            return &config->files[i];
    }
    return NULL;
}

static void compare_files(struct pl_reload_diff *self, const struct pl_config *before,
                          const struct pl_config *after)
{
    for (size_t i = 0; i < after->file_count; i++) {
        const struct pl_config_file *file = &after->files[i];
        const struct pl_config_file *old = find_file(before, file->name);
        if (!old)
            add(self, "file", "added", file->name);
        else if (old->len != file->len || memcmp(old->data, file->data, file->len) != 0)
            add(self, "file", "changed", file->name);
    }
    for (size_t i = 0; i < before->file_count; i++) {
        if (!find_file(after, before->files[i].name))
            add(self, "file", "removed", before->files[i].name);
    }
}

/* ---- providers, targets, routes, settings ---- */

static int by_name(const void *a, const void *b)
{
    const struct pl_config_part *const *one = a, *const *other = b;
    int kinds = strcmp((*one)->kind, (*other)->kind);
    return kinds != 0 ? kinds : strcmp((*one)->name, (*other)->name);
}

static const struct pl_config_part **sorted_parts(const struct pl_config *config)
{
    const struct pl_config_part **parts =
        pl_xcalloc(config->part_count + 1, sizeof(struct pl_config_part *));
    for (size_t i = 0; i < config->part_count; i++)
        parts[i] = &config->parts[i];
    qsort(parts, config->part_count, sizeof(struct pl_config_part *), by_name);
    return parts;
}

/* Both lists in order, side by side. */
static void compare_parts(struct pl_reload_diff *self, const struct pl_config *before,
                          const struct pl_config *after)
{
    const struct pl_config_part **old = sorted_parts(before), **new = sorted_parts(after);
    size_t i = 0, j = 0;
    while (i < before->part_count || j < after->part_count) {
        int order = i == before->part_count  ? 1
                    : j == after->part_count ? -1
                                             : by_name(&old[i], &new[j]);
        if (order < 0)
            add(self, old[i]->kind, "removed", old[i]->name);
        else if (order > 0)
            add(self, new[j]->kind, "added", new[j]->name);
        else if (memcmp(old[i]->digest, new[j]->digest, sizeof(old[i]->digest)) != 0)
            add(self, new[j]->kind, "changed", new[j]->name);
        i += order <= 0;
        j += order >= 0;
    }
    free(old);
    free(new);
}

/* ---- what only a restart changes ---- */

static bool is_same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool is_same_certificate(SSL_CTX *a, SSL_CTX *b)
{
    if (!a || !b)
        return a == b;
    return X509_cmp(SSL_CTX_get0_certificate(a), SSL_CTX_get0_certificate(b)) == 0 &&
           EVP_PKEY_eq(SSL_CTX_get0_privatekey(a), SSL_CTX_get0_privatekey(b)) == 1;
}

static void compare_started(struct pl_reload_diff *self, const struct pl_config *started,
                            const struct pl_config *after)
{
    size_t count = 0;
    if (started->listen_port != after->listen_port ||
        !is_same_text(started->listen_address, after->listen_address))
        self->restart[count++] = "listen.address";
    if (!is_same_certificate(started->tls, after->tls))
        self->restart[count++] = "listen.tls";
    if (started->admin_port != after->admin_port ||
        !is_same_text(started->admin_address, after->admin_address))
        self->restart[count++] = "admin.address";
    if (started->recent_count != after->recent_count)
        self->restart[count++] = "admin.recent";
    if (started->has_metrics != after->has_metrics)
        self->restart[count++] = "admin.metrics";
    if (started->workers != after->workers)
        self->restart[count++] = "workers";
    if (!is_same_text(started->access_log_path, after->access_log_path))
        self->restart[count++] = "access_log.path";
    self->restart[count] = NULL;
}

void pl_reload_compare(struct pl_reload_diff *out, const struct pl_config *before,
                       const struct pl_config *after, const struct pl_config *started)
{
    compare_files(out, before, after);
    compare_parts(out, before, after);
    compare_started(out, started, after);
}

void pl_reload_diff_clear(struct pl_reload_diff *self)
{
    for (size_t i = 0; i < self->count; i++)
        free((char *)self->changes[i].name);
    free(self->changes);
    *self = (struct pl_reload_diff){0};
}
