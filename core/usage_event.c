/*
 * Usage event: see usage_event.h.
 */
#include "usage_event.h"
#include <stdlib.h>
#include <sys/uio.h>

/* ---- asking -----------------------------------------------------------------------------------
 */

static char *join(const struct pl_json_splice *splice)
{
    char *text = pl_xmalloc(splice->total_bytes + 1);
    size_t len = 0;
    for (size_t i = 0; i < splice->count; i++) {
        memcpy(text + len, splice->pieces[i].iov_base, splice->pieces[i].iov_len);
        len += splice->pieces[i].iov_len;
    }
    text[len] = '\0';
    return text;
}

static enum pl_usage_wish ask_in(const struct pl_json *given, char **options)
{
    const struct pl_json_edit edit = {.key = PL_STR("include_usage"), .value = PL_STR("true")};
    const struct pl_json_member *member = pl_json_find(given, edit.key);
    struct pl_json_splice splice;
    if (member && member->type == PL_JSON_TRUE)
        return PL_USAGE_ASKED;
    pl_json_splice_init(&splice);
    int rc = pl_json_splice_make(&splice, given, &edit, 1);
    if (rc == PL_OK)
        *options = join(&splice);
    pl_json_splice_deinit(&splice);
    return rc == PL_OK ? PL_USAGE_UNASKED : PL_USAGE_BROKEN;
}

enum pl_usage_wish pl_usage_ask(const struct pl_json *body, char **options)
{
    const struct pl_json_member *member = pl_json_find(body, PL_STR("stream_options"));
    if (!member || member->type == PL_JSON_NULL) {
        *options = pl_xstrdup("{\"include_usage\":true}");
        return PL_USAGE_UNASKED;
    }
    struct pl_json given;
    enum pl_usage_wish wish = PL_USAGE_BROKEN;
    pl_json_init(&given);
    if (member->type == PL_JSON_OBJECT &&
        pl_json_scan(&given, body->text + member->value_start, member->value_len) == PL_OK)
        wish = ask_in(&given, options);
    pl_json_deinit(&given);
    return wish;
}

/* ---- the event --------------------------------------------------------------------------------
 */

/* The length of a line without its end; `*end_len` is that of its end, 0 when it has none. */
static size_t line_length(const char *data, size_t len, size_t *end_len)
{
    const char *lf = memchr(data, '\n', len);
    const char *cr = memchr(data, '\r', lf ? (size_t)(lf - data) : len);
    size_t at = cr ? (size_t)(cr - data) : lf ? (size_t)(lf - data) : len;
    *end_len = at == len ? 0 : data[at] == '\r' && at + 1 < len && data[at + 1] == '\n' ? 2 : 1;
    return at;
}

size_t pl_usage_event_length(const char *data, size_t len)
{
    size_t at = 0, end_len;
    while (at < len) {
        size_t line = line_length(data + at, len - at, &end_len);
        at += line + end_len;
        if (line == 0)
            return at;
    }
    return len;
}

/* The value of the event's only data line; empty when there are several, or none. */
static struct pl_str only_data(const char *data, size_t len)
{
    const struct pl_str name = PL_STR("data:");
    struct pl_str found = PL_STR("");
    size_t at = 0, end_len;
    while (at < len) {
        size_t line = line_length(data + at, len - at, &end_len);
        if (line > name.len && memcmp(data + at, name.data, name.len) == 0) {
            if (found.len > 0)
                return PL_STR("");
            found = (struct pl_str){data + at + name.len, line - name.len};
        }
        at += line + end_len;
    }
    return found;
}

static bool is_empty_list(const struct pl_json *json, const struct pl_json_member *member)
{
    const char *text = json->text + member->value_start;
    if (member->type != PL_JSON_ARRAY)
        return false;
    for (size_t i = 1; i + 1 < member->value_len; i++) {
        if (!memchr(" \t\r\n", text[i], 4))
            return false;
    }
    return true;
}

bool pl_usage_event_is_extra(const char *data, size_t len)
{
    struct pl_json json;
    if (!memmem(data, len, "_tokens", 7)) /* nearly all others are told by that */
        return false;
    struct pl_str text = only_data(data, len);
    bool is_extra = false;
    pl_json_init(&json);
    if (text.len > 0 && pl_json_scan(&json, text.data, text.len) == PL_OK) {
        const struct pl_json_member *choices = pl_json_find(&json, PL_STR("choices"));
        const struct pl_json_member *usage = pl_json_find(&json, PL_STR("usage"));
        is_extra =
            choices && usage && usage->type == PL_JSON_OBJECT && is_empty_list(&json, choices);
    }
    pl_json_deinit(&json);
    return is_extra;
}
