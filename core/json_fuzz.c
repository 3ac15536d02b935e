/*
 * Fuzz target for json.c and json_splice.c (libFuzzer). The input is a list of edits, a line feed
 * each, then a text.
 *
 * What is held: the scan and the validation agree; a text that is accepted stays accepted after any
 * edits that are taken; each edit is found in the result, each unset key is not, and every other
 * member is there with the same bytes, in the same order.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined core/json_fuzz.c core/json.c \
 *         core/json_splice.c core/base.c
 */
#include "json.h"

#include <stdlib.h>
#include <string.h>

#define MAX_EDITS 8

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A line "key=value" sets, "key" alone unsets. Returns where the text begins. */
static const char *read_edits(const char *p, const char *end, struct pl_json_edit *edits,
                              size_t *count)
{
    for (*count = 0; *count < MAX_EDITS; (*count)++) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p));
        if (line_end == NULL || *p == '{') {
            break;
        }
        const char *equals = memchr(p, '=', (size_t)(line_end - p));
        const char *key_end = equals != NULL ? equals : line_end;
        edits[*count].key = (struct pl_str){p, (size_t)(key_end - p)};
        edits[*count].value = (struct pl_str){NULL, 0};
        if (equals != NULL) {
            edits[*count].value = (struct pl_str){equals + 1, (size_t)(line_end - equals) - 1};
        }
        p = line_end + 1;
    }
    return p;
}

static struct pl_str value_of(const struct pl_json *json, const struct pl_json_member *member)
{
    return (struct pl_str){json->text + member->value_start, member->value_len};
}

static struct pl_str trimmed(struct pl_str text)
{
    static const char SPACE[] = " \t\r\n";
    while (text.len > 0 && memchr(SPACE, text.data[0], sizeof(SPACE) - 1) != NULL) {
        text.data++;
        text.len--;
    }
    while (text.len > 0 && memchr(SPACE, text.data[text.len - 1], sizeof(SPACE) - 1) != NULL) {
        text.len--;
    }
    return text;
}

/* The edit of that key that counts, or NULL. */
static const struct pl_json_edit *last_edit(const struct pl_json_edit *edits, size_t count,
                                            struct pl_str key)
{
    while (count > 0) {
        if (pl_str_equal(edits[--count].key, key)) {
            return &edits[count];
        }
    }
    return NULL;
}

static void check_edits(const struct pl_json *after, const struct pl_json_edit *edits, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct pl_json_edit *edit = last_edit(edits, count, edits[i].key);
        const struct pl_json_member *member = pl_json_find(after, edit->key);
        REQUIRE((member != NULL) == (edit->value.data != NULL));
        REQUIRE(member == NULL || pl_str_equal(value_of(after, member), trimmed(edit->value)));
    }
}

/* The decoded key; the caller frees it. */
static struct pl_str decoded_key(const struct pl_json *json, const struct pl_json_member *member)
{
    struct pl_str key;
    key.data =
        pl_json_decode_string(json->text + member->key_start - 1, member->key_len + 2, &key.len);
    REQUIRE(key.data != NULL);
    return key;
}

static void check_other_members(const struct pl_json *before, const struct pl_json *after,
                                const struct pl_json_edit *edits, size_t count)
{
    const struct pl_json_member *previous = NULL;
    for (size_t i = 0; i < before->count; i++) {
        struct pl_str key = decoded_key(before, &before->members[i]);
        const struct pl_json_member *member = pl_json_find(after, key);
        const struct pl_json_edit *edit = last_edit(edits, count, key);
        REQUIRE(pl_json_find(before, key) == &before->members[i]);
        if (edit == NULL) {
            REQUIRE(member != NULL);
            REQUIRE(pl_str_equal(value_of(before, &before->members[i]), value_of(after, member)));
        }
        if (member != NULL) {
            REQUIRE(previous == NULL || previous < member);
            previous = member;
        }
        free((char *)key.data);
    }
}

static char *join(const struct pl_json_splice *splice)
{
    char *joined = pl_xmalloc(splice->total_bytes);
    size_t len = 0;
    for (size_t i = 0; i < splice->count; i++) {
        memcpy(joined + len, splice->pieces[i].iov_base, splice->pieces[i].iov_len);
        len += splice->pieces[i].iov_len;
    }
    REQUIRE(len == splice->total_bytes);
    return joined;
}

static void check_splice(const struct pl_json *before, const struct pl_json_edit *edits,
                         size_t count)
{
    struct pl_json_splice splice;
    pl_json_splice_init(&splice);
    if (pl_json_splice_make(&splice, before, edits, count) == PL_OK) {
        struct pl_json after;
        pl_json_init(&after);
        char *joined = join(&splice);
        REQUIRE(pl_json_scan(&after, joined, splice.total_bytes) == PL_OK);
        check_edits(&after, edits, count);
        check_other_members(before, &after, edits, count);
        pl_json_deinit(&after);
        free(joined);
    }
    pl_json_splice_deinit(&splice);
}

/* Any bytes encode to a literal that decodes to them, or to them repaired. */
static void check_strings(const char *data, size_t data_len)
{
    size_t literal_len, len;
    char *literal = pl_json_encode_string(data, data_len, &literal_len);
    REQUIRE(pl_json_validate(literal, literal_len) == PL_OK);
    char *decoded = pl_json_decode_string(literal, literal_len, &len);
    REQUIRE(decoded != NULL);
    REQUIRE(len != data_len || memchr(decoded, 0xef, len) != NULL ||
            memcmp(decoded, data, len) == 0);
    free(decoded);
    free(literal);
    free(pl_json_decode_string(data, data_len, &len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const char *end = (const char *)data + len;
    struct pl_json_edit edits[MAX_EDITS];
    size_t count;
    const char *text = read_edits((const char *)data, end, edits, &count);
    size_t text_len = (size_t)(end - text);

    struct pl_json json;
    pl_json_init(&json);
    int result = pl_json_scan(&json, text, text_len);
    REQUIRE((result == PL_OK) == (json.error == NULL));
    if (result == PL_OK) {
        REQUIRE(pl_json_validate(text, text_len) == PL_OK);
        check_splice(&json, edits, count);
    }
    pl_json_deinit(&json);
    check_strings(text, text_len);
    return 0;
}
