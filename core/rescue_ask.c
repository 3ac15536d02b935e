/*
 * What a target is asked that is to continue an answer: see rescue.h. The client's body stays as it
 * is but for the text that is put in.
 */
#include "json_walk.h"
#include "rescue_internal.h"
#include <stdlib.h>

static bool is_container(struct pl_str value, char open)
{
    return value.len >= 2 && value.data[0] == open;
}

/* The client's text with the prefix behind it, as a string. False when it is no string. */
static bool join_strings(struct pl_rescue_text *literal, struct pl_str client, struct pl_str prefix)
{
    struct pl_rescue_text joined = {0};
    size_t len;
    if (client.len < 2 || client.data[0] != '"')
        return false;
    char *text = pl_json_decode_string(client.data, client.len, &len);
    if (!text)
        return false;
    pl_rescue_put(&joined, (struct pl_str){text, len});
    pl_rescue_put(&joined, prefix);
    pl_rescue_quote(literal, (struct pl_str){joined.data ? joined.data : "", joined.len});
    pl_rescue_text_deinit(&joined);
    free(text);
    return true;
}

/* The last of an array's values; empty when there is none. */
static struct pl_str last_of(struct pl_str array)
{
    struct pl_json_walk walk;
    struct pl_str value, last = PL_STR("");
    pl_json_walk_init(&walk, array);
    while (pl_json_walk_next(&walk, NULL, &value))
        last = value;
    return last;
}

static bool is_assistant(struct pl_str message)
{
    struct pl_str role = pl_json_string_bytes(pl_json_walk_member(message, PL_STR("role")));
    return pl_str_equal(role, PL_STR("assistant"));
}

/* Adds the prefix to a message of the client's. */
static bool extend(struct pl_rescue_text *out, struct pl_str messages, struct pl_str last,
                   struct pl_str prefix)
{
    struct pl_rescue_edits edits = {.count = 0};
    struct pl_rescue_text literal = {0};
    struct pl_str content = pl_json_walk_member(last, PL_STR("content"));
    bool is_text = join_strings(&literal, content, prefix);
    if (is_text) {
        pl_rescue_edit(&edits, content, (struct pl_str){literal.data, literal.len});
        pl_rescue_put_edited(out, messages, &edits);
    }
    pl_rescue_text_deinit(&literal);
    return is_text;
}

bool pl_rescue_put_messages(struct pl_rescue_text *out, struct pl_str messages,
                            struct pl_str prefix, struct pl_str members)
{
    struct pl_rescue_text literal = {0};
    struct pl_str last = last_of(messages);
    if (!is_container(messages, '[') || last.len == 0)
        return false;
    if (is_assistant(last))
        return extend(out, messages, last, prefix);
    const char *end = last.data + last.len; /* behind it there is only the bracket */
    pl_rescue_put(out, (struct pl_str){messages.data, (size_t)(end - messages.data)});
    pl_rescue_put(out, PL_STR(",{\"role\":\"assistant\",\"content\":"));
    pl_rescue_put(out, pl_rescue_quote(&literal, prefix));
    pl_rescue_put(out, members);
    pl_rescue_put(out, PL_STR("}]"));
    pl_rescue_text_deinit(&literal);
    return true;
}

bool pl_rescue_put_prompt(struct pl_rescue_text *out, struct pl_str prompt, struct pl_str prefix)
{
    struct pl_rescue_text literal = {0};
    bool is_text = join_strings(&literal, prompt, prefix);
    if (is_text)
        pl_rescue_put(out, (struct pl_str){literal.data, literal.len});
    pl_rescue_text_deinit(&literal);
    return is_text;
}

int64_t pl_rescue_tokens_left(struct pl_str limit, uint32_t used_count)
{
    int64_t count = pl_rescue_number(limit);
    if (count < 0)
        return -1;
    return PL_MAX(count - (int64_t)used_count, (int64_t)1);
}
