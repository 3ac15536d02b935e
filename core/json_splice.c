/*
 * JSON: edits by splicing. The result is a list of pieces: runs of the text as it lies, the edits'
 * values, and `glue`, which holds the keys of what is appended.
 *
 * Thread: any; pure, no state but the caller's. All edits are planned before a piece is made, so
 * that a later edit of a key replaces an earlier one and limits are known to hold. What the scan
 * would refuse is never made: values are validated here, keys are encoded.
 */
#include "json.h"
#include "json_internal.h"

#include <stdlib.h>
#include <string.h>

void pl_json_splice_init(struct pl_json_splice *self)
{
    *self = (struct pl_json_splice){0};
}

void pl_json_splice_deinit(struct pl_json_splice *self)
{
    free(self->pieces);
    free(self->glue);
    pl_json_splice_init(self);
}

static void add_piece(struct pl_json_splice *self, const char *data, size_t len)
{
    if (len == 0) {
        return;
    }
    if (self->count == self->cap) {
        self->cap = self->cap == 0 ? 16 : 2 * self->cap;
        self->pieces = pl_xrealloc(self->pieces, self->cap * sizeof(self->pieces[0]));
    }
    /* iovec is not const, for readv's sake; nobody writes through it here. */
    self->pieces[self->count++] =
        (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    self->total_bytes += len;
}

/* What is to happen to each member, and what is to be appended, after all edits. */
struct plan {
    const struct pl_json_edit *by_member[PL_JSON_MAX_MEMBERS]; /* NULL: the member stays */
    const struct pl_json_edit *appended[PL_JSON_MAX_MEMBERS];
    size_t appended_count;
};

static bool is_unset(const struct pl_json_edit *edit)
{
    return edit != NULL && edit->value.data == NULL;
}

/* Plans the edit of a key that the text does not have; an earlier edit may have appended it. */
static int plan_absent(struct plan *plan, const struct pl_json_edit *edit)
{
    size_t i = 0;
    while (i < plan->appended_count && !pl_str_equal(plan->appended[i]->key, edit->key)) {
        i++;
    }
    if (is_unset(edit)) {
        if (i < plan->appended_count) {
            plan->appended_count--;
            memmove(&plan->appended[i], &plan->appended[i + 1],
                    (plan->appended_count - i) * sizeof(plan->appended[0]));
        }
        return PL_OK;
    }
    if (i == PL_JSON_MAX_MEMBERS) {
        return PL_ERR_LIMIT;
    }
    plan->appended[i] = edit;
    plan->appended_count += i == plan->appended_count;
    return PL_OK;
}

/* Refuses what would make the result a text that the scan refuses. */
static int check_set(const struct pl_json_edit *edit)
{
    struct pl_str key = edit->key;
    char encoded[PL_JSON_ENCODED_MAX(PL_JSON_MAX_KEY_BYTES)];
    if (key.len > PL_JSON_MAX_KEY_BYTES ||
        pl_json_encode_into(encoded, key.data, key.len) > PL_JSON_MAX_KEY_BYTES + 2) {
        return PL_ERR_LIMIT;
    }
    if (!pl_json_is_utf8(key.data, key.len)) {
        return PL_ERR_SYNTAX;
    }
    return pl_json_validate_inside(edit->value.data, edit->value.len, 1);
}

static int plan_edit(struct plan *plan, const struct pl_json *json, const struct pl_json_edit *edit)
{
    int result = is_unset(edit) ? PL_OK : check_set(edit);
    if (result != PL_OK) {
        return result;
    }
    const struct pl_json_member *member = pl_json_find(json, edit->key);
    if (member == NULL) {
        return plan_absent(plan, edit);
    }
    plan->by_member[member - json->members] = edit;
    return PL_OK;
}

static int make_plan(struct plan *plan, const struct pl_json *json,
                     const struct pl_json_edit *edits, size_t edit_count)
{
    plan->appended_count = 0;
    for (size_t i = 0; i < json->count; i++) {
        plan->by_member[i] = NULL;
    }
    for (size_t i = 0; i < edit_count; i++) {
        int result = plan_edit(plan, json, &edits[i]);
        if (result != PL_OK) {
            return result;
        }
    }
    size_t count = plan->appended_count;
    for (size_t i = 0; i < json->count; i++) {
        count += !is_unset(plan->by_member[i]);
    }
    return count > PL_JSON_MAX_MEMBERS ? PL_ERR_LIMIT : PL_OK;
}

/*
 * Replaces and removes members. `*from` is the first byte of the text that is in no piece yet. A
 * removed member takes along the comma before it or, with no member left before it, the one behind
 * it. Returns how many members are left.
 */
static size_t splice_members(struct pl_json_splice *self, const struct pl_json *json,
                             const struct plan *plan, size_t *from)
{
    size_t kept_count = 0;
    for (size_t i = 0; i < json->count; i++) {
        const struct pl_json_member *member = &json->members[i];
        const struct pl_json_edit *edit = plan->by_member[i];
        if (!is_unset(edit)) {
            kept_count++;
        }
        if (edit == NULL) {
            continue;
        }
        size_t cut = edit->value.data != NULL ? member->value_start
                     : kept_count > 0         ? member[-1].end
                                              : member->start;
        bool with_comma_behind = is_unset(edit) && kept_count == 0 && i + 1 < json->count;
        add_piece(self, json->text + *from, cut - *from);
        add_piece(self, edit->value.data, edit->value.len);
        *from = with_comma_behind ? member[1].start : member->end;
    }
    return kept_count;
}

/* Each key with its quotes, a comma and a colon. */
static size_t glue_bytes_max(const struct plan *plan)
{
    size_t bytes = 0;
    for (size_t i = 0; i < plan->appended_count; i++) {
        bytes += PL_JSON_ENCODED_MAX(plan->appended[i]->key.len) + 2;
    }
    return bytes;
}

/* Appends after the last member, where `*from` then is. */
static void splice_appended(struct pl_json_splice *self, const struct pl_json *json,
                            const struct plan *plan, size_t kept_count, size_t *from)
{
    size_t at = json->count > 0 ? json->members[json->count - 1].end : json->open + 1;
    add_piece(self, json->text + *from, at - *from);
    *from = at;
    free(self->glue);
    char *glue = self->glue = pl_xmalloc(glue_bytes_max(plan));
    for (size_t i = 0; i < plan->appended_count; i++) {
        const struct pl_json_edit *edit = plan->appended[i];
        char *start = glue;
        if (kept_count + i > 0) {
            *glue++ = ',';
        }
        glue += pl_json_encode_into(glue, edit->key.data, edit->key.len);
        *glue++ = ':';
        add_piece(self, start, (size_t)(glue - start));
        add_piece(self, edit->value.data, edit->value.len);
    }
}

int pl_json_splice_make(struct pl_json_splice *self, const struct pl_json *json,
                        const struct pl_json_edit *edits, size_t edit_count)
{
    self->count = 0;
    self->total_bytes = 0;
    struct plan plan;
    int result = make_plan(&plan, json, edits, edit_count);
    if (result != PL_OK) {
        return result;
    }
    size_t from = 0;
    size_t kept_count = splice_members(self, json, &plan, &from);
    if (plan.appended_count > 0) {
        splice_appended(self, json, &plan, kept_count, &from);
    }
    add_piece(self, json->text + from, json->text_len - from);
    return PL_OK;
}
