/* Tests of json.c. Every text stands in a block of its own size, so that valgrind and the address
 * sanitizer see a read past its end. */
#include "json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- helpers ---- */

static char *block_of(const char *text, size_t len)
{
    char *block = pl_xmalloc(len);
    memcpy(block, text, len);
    return block;
}

static int validate_bytes(const char *text, size_t len)
{
    char *block = block_of(text, len);
    int result = pl_json_validate(block, len);
    free(block);
    return result;
}

static int validate(const char *text)
{
    return validate_bytes(text, strlen(text));
}

static int scan_bytes(const char *text, size_t len)
{
    struct pl_json json;
    pl_json_init(&json);
    char *block = block_of(text, len);
    int result = pl_json_scan(&json, block, len);
    assert_true((result == 0) == (json.error == NULL));
    assert_true(result == 0 || (json.count == 0 && json.error_offset <= len));
    pl_json_deinit(&json);
    free(block);
    return result;
}

static int scan(const char *text)
{
    return scan_bytes(text, strlen(text));
}

static void assert_scan_fails(const char *text, int result, size_t offset, const char *error)
{
    struct pl_json json;
    pl_json_init(&json);
    char *block = block_of(text, strlen(text));
    assert_int_equal(pl_json_scan(&json, block, strlen(text)), result);
    assert_string_equal(json.error, error);
    assert_int_equal(json.error_offset, offset);
    pl_json_deinit(&json);
    free(block);
}

/* The text of the member's value, zero-terminated; valid until the next call. */
static const char *value_of(const struct pl_json *json, const char *key)
{
    static char value[64];
    const struct pl_json_member *member = pl_json_find(json, (struct pl_str){key, strlen(key)});
    if (member == NULL) {
        return "(none)";
    }
    snprintf(value, sizeof(value), "%.*s", (int)member->value_len,
             json->text + member->value_start);
    return value;
}

static char *join(const struct pl_json_splice *splice)
{
    char *joined = pl_xmalloc(splice->total_bytes + 1);
    size_t len = 0;
    for (size_t i = 0; i < splice->count; i++) {
        assert_true(splice->pieces[i].iov_len > 0);
        memcpy(joined + len, splice->pieces[i].iov_base, splice->pieces[i].iov_len);
        len += splice->pieces[i].iov_len;
    }
    assert_int_equal(len, splice->total_bytes);
    joined[len] = '\0';
    return joined;
}

static struct pl_str str_or_none(const char *text)
{
    return (struct pl_str){text, text != NULL ? strlen(text) : 0};
}

/* `edits` holds keys and values in turn, a value NULL to unset, ended by a NULL key. */
static size_t read_edits(struct pl_json_edit *out, const char *const *edits)
{
    size_t count = 0;
    for (; edits[2 * count] != NULL; count++) {
        out[count].key = str_or_none(edits[2 * count]);
        out[count].value = str_or_none(edits[2 * count + 1]);
    }
    return count;
}

static char *splice_text(const char *text, const char *const *edits, int expected_result)
{
    struct pl_json json;
    struct pl_json_splice splice;
    struct pl_json_edit list[16];
    pl_json_init(&json);
    pl_json_splice_init(&splice);
    char *block = block_of(text, strlen(text));
    assert_int_equal(pl_json_scan(&json, block, strlen(text)), 0);
    int result = pl_json_splice_make(&splice, &json, list, read_edits(list, edits));
    assert_int_equal(result, expected_result);
    char *joined = result == 0 ? join(&splice) : NULL;
    assert_true(joined == NULL || scan(joined) == 0);
    pl_json_splice_deinit(&splice);
    pl_json_deinit(&json);
    free(block);
    return joined;
}

static void assert_splice(const char *text, const char *const *edits, const char *expected)
{
    char *joined = splice_text(text, edits, 0);
    assert_string_equal(joined, expected);
    free(joined);
}

#define EDITS(...) ((const char *const[]){__VA_ARGS__, NULL, NULL})

/* ---- grammar ---- */

static void test_valid_values(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {
        "null",
        "true",
        "false",
        "0",
        "-0",
        "10",
        "-1.5",
        "1e5",
        "1E+5",
        "1.25e-7",
        "0e0",
        "\"\"",
        "[]",
        "{}",
        " [ ] ",
        "\t{\r\n} ",
        "[1,2]",
        "[[],[{}]]",
        "{\"a\":{\"b\":[null]}}",
        "{\"\":1}",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD834\\uDD1E\"",
        "\"\x7f\"",
        "\"\xc2\x80\xdf\xbf\"",
        "\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\"",
        "\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"",
        "\"\\ud800\"",
        "[\"\\udc00\\ud800x\"]",
        "{\"a\":1,\"a\":2}", /* only the scan minds, and only at the top level */
        "123456789012345678901234567890.5e400",
    };
    for (size_t i = 0; i < PL_COUNT(TEXTS); i++) {
        if (validate(TEXTS[i]) != 0) {
            fail_msg("refused: %s", TEXTS[i]);
        }
    }
}

static void test_invalid_values(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {
        "",
        " ",
        "nul",
        "nulll",
        "True",
        "tru",
        "01",
        "-01",
        "-",
        "+1",
        ".5",
        "1.",
        "1.e1",
        "1e",
        "1e+",
        "0x1",
        "1 2",
        "NaN",
        "Infinity",
        "-Infinity",
        "'a'",
        "\"",
        "\"a",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\U0041\"",
        "\"\t\"",
        "\"\n\"",
        "\"\x1f\"",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{",
        "}",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{,}",
        "{\"a\" 1}",
        "{\"a\":1]",
        "{a:1}",
        "{1:1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\"::1}",
        "[]]",
        "{}}",
        "{}x",
        "[]\x0b",
        "\xc2\xa0[]",
        "/**/1",
        "[1]//",
        "\xef\xbb\xbf{}",
        "\"\x80\"",
        "\"\xc0\x80\"",
        "\"\xc1\xbf\"",
        "\"\xc2\"",
        "\"\xe0\x9f\xbf\"",
        "\"\xed\xa0\x80\"",
        "\"\xe2\x82\"",
        "\"\xf0\x8f\xbf\xbf\"",
        "\"\xf4\x90\x80\x80\"",
        "\"\xf5\x80\x80\x80\"",
        "\"\xf0\x90\x80\"",
        "\"\xff\"",
        "\"\xc2\xc2\xa0\"",
        "\xf0\x90\x80",
        "\"\xf0\x90",
    };
    for (size_t i = 0; i < PL_COUNT(TEXTS); i++) {
        if (validate(TEXTS[i]) != PL_ERR_SYNTAX) {
            fail_msg("accepted: %s", TEXTS[i]);
        }
    }
    assert_int_equal(validate_bytes("1\0", 2), PL_ERR_SYNTAX);
    assert_int_equal(validate_bytes("\"a\0b\"", 5), PL_ERR_SYNTAX);
    assert_int_equal(validate_bytes("\"\\\0\"", 4), PL_ERR_SYNTAX);
    assert_int_equal(pl_json_validate(NULL, 0), PL_ERR_SYNTAX);
}

/* Whatever ends a plain run is met at each place of a word, and near the end of the text. */
static void test_every_byte_at_every_alignment(void **state)
{
    (void)state;
    for (size_t before = 0; before < 17; before++) {
        for (size_t after = 0; after < 9; after++) {
            for (unsigned c = 0; c < 256; c++) {
                char text[32] = "\"";
                memset(text + 1, 'a', before + after + 1);
                text[1 + before] = (char)c;
                text[2 + before + after] = '"';
                bool plain = c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
                bool escape = c == '\\' && after == 0; /* of the closing quote */
                int expected = plain && !escape ? 0 : PL_ERR_SYNTAX;
                assert_int_equal(validate_bytes(text, 3 + before + after), expected);
            }
        }
    }
}

static int validate_nested(const char *open, const char *close, size_t depth)
{
    size_t open_len = strlen(open), close_len = strlen(close);
    size_t len = depth * (open_len + close_len) + 1;
    char *text = pl_xmalloc(len);
    for (size_t i = 0; i < depth; i++) {
        memcpy(text + i * open_len, open, open_len);
        memcpy(text + len - (i + 1) * close_len, close, close_len);
    }
    text[depth * open_len] = '1';
    int result = pl_json_validate(text, len);
    int scanned = scan_bytes(text, len);
    assert_true(*open != '{' || scanned == result);
    free(text);
    return result;
}

static void test_nesting_is_bounded(void **state)
{
    (void)state;
    static const char *const PAIRS[][2] = {
        {"[", "]"}, {"{\"a\":", "}"}, {"[{\"a\":", "}]"}, {"{\"a\":[", "]}"}};
    for (size_t i = 0; i < PL_COUNT(PAIRS); i++) {
        size_t levels = PAIRS[i][1][1] == '\0' ? 1 : 2;
        const char *open = PAIRS[i][0], *close = PAIRS[i][1];
        assert_int_equal(validate_nested(open, close, PL_JSON_MAX_DEPTH / levels), 0);
        assert_int_equal(validate_nested(open, close, PL_JSON_MAX_DEPTH / levels + 1),
                         PL_ERR_LIMIT);
        assert_int_equal(validate_nested(open, close, 100000), PL_ERR_LIMIT);
    }
}

static void test_mixed_nesting_closes_in_order(void **state)
{
    (void)state;
    assert_int_equal(validate("[{\"a\":[{\"b\":[]}]},[[{}]]]"), 0);
    assert_int_equal(validate("[{\"a\":[{\"b\":[]]}},[[{}]]]"), PL_ERR_SYNTAX);
    assert_int_equal(validate("{\"a\":[{\"b\":1,2}]}"), PL_ERR_SYNTAX);
    assert_int_equal(validate("{\"a\":[1,\"b\":2]}"), PL_ERR_SYNTAX);
}

/* ---- the scan ---- */

static const char CHAT[] =
    " {\"model\": \"gpt-4\",\n "
    "\"messages\":[{\"role\":\"user\",\"content\":\"\xc3\xa9\\u00e9\\\"\"}],"
    "\"seed\":9007199254740993,\"stop\":[],\"t\":true,\"f\":false,\"n\" : null , \"o\":{}}\r\n";

static void test_scan_finds_members(void **state)
{
    (void)state;
    struct pl_json json;
    pl_json_init(&json);
    assert_int_equal(pl_json_scan(&json, CHAT, strlen(CHAT)), 0);
    assert_int_equal(json.count, 8);
    assert_string_equal(value_of(&json, "model"), "\"gpt-4\"");
    assert_string_equal(value_of(&json, "seed"), "9007199254740993");
    assert_string_equal(value_of(&json, "stop"), "[]");
    assert_string_equal(value_of(&json, "n"), "null");
    assert_string_equal(value_of(&json, "role"), "(none)");
    static const enum pl_json_type TYPES[] = {PL_JSON_STRING, PL_JSON_ARRAY, PL_JSON_NUMBER,
                                              PL_JSON_ARRAY,  PL_JSON_TRUE,  PL_JSON_FALSE,
                                              PL_JSON_NULL,   PL_JSON_OBJECT};
    for (size_t i = 0; i < json.count; i++) {
        const struct pl_json_member *member = &json.members[i];
        assert_int_equal(member->type, TYPES[i]);
        assert_int_equal(CHAT[member->start], '"');
        assert_int_equal(member->end, member->value_start + member->value_len);
    }
    assert_int_equal(json.open, 1);
    assert_int_equal(CHAT[json.close], '}');
    /* The array of members serves the next scan, and a failed one leaves nothing behind. */
    assert_int_equal(pl_json_scan(&json, "{\"a\":1,}", 8), PL_ERR_SYNTAX);
    assert_null(pl_json_find(&json, PL_STR("a")));
    assert_int_equal(pl_json_scan(&json, "{}", 2), 0);
    assert_null(json.error);
    pl_json_deinit(&json);
}

static void test_scan_says_what_is_wrong(void **state)
{
    (void)state;
    assert_scan_fails("", PL_ERR_SYNTAX, 0, "unexpected end");
    assert_scan_fails("  ", PL_ERR_SYNTAX, 2, "unexpected end");
    assert_scan_fails("[1]", PL_ERR_SYNTAX, 0, "expected an object");
    assert_scan_fails("\xef\xbb\xbf{}", PL_ERR_SYNTAX, 0, "expected an object");
    assert_scan_fails("{\"a\":1", PL_ERR_SYNTAX, 6, "unexpected end");
    assert_scan_fails("{\"a\":1,}", PL_ERR_SYNTAX, 7, "expected a key");
    assert_scan_fails("{\"a\"=1}", PL_ERR_SYNTAX, 4, "expected ':'");
    assert_scan_fails("{\"a\":1;}", PL_ERR_SYNTAX, 6, "expected ',' or '}'");
    assert_scan_fails("{\"a\":[1;]}", PL_ERR_SYNTAX, 7, "expected ',' or ']'");
    assert_scan_fails("{\"a\":?}", PL_ERR_SYNTAX, 5, "expected a value");
    assert_scan_fails("{\"a\":trux}", PL_ERR_SYNTAX, 8, "invalid literal");
    assert_scan_fails("{\"a\":1.}", PL_ERR_SYNTAX, 7, "invalid number");
    assert_scan_fails("{\"a\":\"\\q\"}", PL_ERR_SYNTAX, 7, "invalid escape");
    assert_scan_fails("{\"a\":\"\\u00g0\"}", PL_ERR_SYNTAX, 10, "invalid \\u escape");
    assert_scan_fails("{\"a\":\"\xff\"}", PL_ERR_SYNTAX, 6, "invalid UTF-8");
    assert_scan_fails("{\"a\":\"\n\"}", PL_ERR_SYNTAX, 6, "control character in a string");
    assert_scan_fails("{} {}", PL_ERR_SYNTAX, 3, "text after the value");
}

static void test_keys_are_compared_decoded(void **state)
{
    (void)state;
    struct pl_json json;
    pl_json_init(&json);
    static const char TEXT[] = "{\"\\u006dodel\":1,\"\xc3\xa9\":2,\"\\ud83d\\ude00\":3,"
                               "\"a\\u0000b\":4,\"\":5,\"q\\\"\\\\\\/\":6}";
    assert_int_equal(pl_json_scan(&json, TEXT, strlen(TEXT)), 0);
    assert_string_equal(value_of(&json, "model"), "1");
    assert_string_equal(value_of(&json, "mode"), "(none)");
    assert_string_equal(value_of(&json, "models"), "(none)");
    assert_string_equal(value_of(&json, "\\u006dodel"), "(none)");
    assert_string_equal(value_of(&json, "\xc3\xa9"), "2");
    assert_string_equal(value_of(&json, "\xf0\x9f\x98\x80"), "3");
    assert_string_equal(value_of(&json, "a"), "(none)");
    assert_ptr_equal(pl_json_find(&json, PL_STR("a\0b")), &json.members[3]);
    assert_string_equal(value_of(&json, ""), "5");
    assert_string_equal(value_of(&json, "q\"\\/"), "6");
    assert_true(json.members[0].key_has_escape);
    assert_false(json.members[1].key_has_escape);
    pl_json_deinit(&json);
}

static void test_duplicate_keys_are_refused(void **state)
{
    (void)state;
    assert_scan_fails("{\"model\":1,\"model\":2}", PL_ERR_SYNTAX, 12, "duplicate key");
    assert_scan_fails("{\"model\":1,\"x\":0,\"\\u006Dodel\":2}", PL_ERR_SYNTAX, 18,
                      "duplicate key");
    assert_scan_fails("{\"\\u006dodel\":1,\"model\":2}", PL_ERR_SYNTAX, 17, "duplicate key");
    assert_scan_fails("{\"\\u006dodel\":1,\"m\\u006fdel\":2}", PL_ERR_SYNTAX, 17, "duplicate key");
    assert_scan_fails("{\"\":1,\"\":2}", PL_ERR_SYNTAX, 7, "duplicate key");
    assert_scan_fails("{\"\xc3\xa9\":1,\"\\u00e9\":2}", PL_ERR_SYNTAX, 9, "duplicate key");
    assert_int_equal(
        scan("{\"model\":1,\"Model\":2,\"model \":3,\"mode\":4,\"m\":{\"m\":1,\"m\":2}}"), 0);
}

static void test_lone_surrogates(void **state)
{
    (void)state;
    assert_int_equal(scan("{\"a\":\"\\ud800\",\"b\":{\"\\udc00\":1}}"), 0);
    assert_scan_fails("{\"\\ud800\":1}", PL_ERR_SYNTAX, 2, "lone surrogate in a key");
    assert_scan_fails("{\"\\udc00\\ud800\":1}", PL_ERR_SYNTAX, 2, "lone surrogate in a key");
    assert_scan_fails("{\"\\ud800\\u0041\":1}", PL_ERR_SYNTAX, 2, "lone surrogate in a key");
    assert_scan_fails("{\"\\ud800\\n\":1}", PL_ERR_SYNTAX, 2, "lone surrogate in a key");
    assert_int_equal(scan("{\"\\ud800\\udc00\":1}"), 0);
}

/* An object of `count` members "k000", "k001", ..., one of them perhaps with escapes. */
static char *object_of(size_t count)
{
    char *text = pl_xmalloc(count * 16 + 3);
    size_t len = 0;
    text[len++] = '{';
    for (size_t i = 0; i < count; i++) {
        len += (size_t)sprintf(text + len, "%s\"%s%03zu\":1", i > 0 ? "," : "",
                               i % 2 == 0 ? "k" : "\\u006b", i);
    }
    memcpy(text + len, "}", 2);
    return text;
}

static void test_members_are_bounded(void **state)
{
    (void)state;
    char *most = object_of(PL_JSON_MAX_MEMBERS);
    char *too_many = object_of(PL_JSON_MAX_MEMBERS + 1);
    assert_int_equal(scan(most), 0);
    assert_int_equal(scan(too_many), PL_ERR_LIMIT);
    free(splice_text(most, EDITS("k000", "2", "k001", NULL, "new", "3"), 0));
    assert_null(splice_text(most, EDITS("new", "3"), PL_ERR_LIMIT));
    free(too_many);
    free(most);
}

static void test_appended_members_are_bounded(void **state)
{
    (void)state;
    static char keys[PL_JSON_MAX_MEMBERS + 1][8];
    struct pl_json_edit edits[PL_JSON_MAX_MEMBERS + 1];
    for (size_t i = 0; i < PL_COUNT(edits); i++) {
        int len = snprintf(keys[i], sizeof(keys[i]), "k%zu", i);
        edits[i] = (struct pl_json_edit){{keys[i], (size_t)len}, PL_STR("1")};
    }
    struct pl_json json;
    struct pl_json_splice splice;
    pl_json_init(&json);
    pl_json_splice_init(&splice);
    assert_int_equal(pl_json_scan(&json, "{}", 2), 0);
    assert_int_equal(pl_json_splice_make(&splice, &json, edits, PL_COUNT(edits)), PL_ERR_LIMIT);
    assert_int_equal(pl_json_splice_make(&splice, &json, edits, PL_COUNT(edits) - 1), 0);
    char *joined = join(&splice);
    assert_int_equal(scan(joined), 0);
    free(joined);
    edits[PL_COUNT(edits) - 1].value = (struct pl_str){NULL, 0}; /* to unset nothing is no more */
    assert_int_equal(pl_json_splice_make(&splice, &json, edits, PL_COUNT(edits)), 0);
    pl_json_splice_deinit(&splice);
    pl_json_deinit(&json);
}

static void test_keys_are_bounded(void **state)
{
    (void)state;
    char key[PL_JSON_MAX_KEY_BYTES + 2];
    char text[sizeof(key) + 16];
    memset(key, 'k', sizeof(key));
    key[PL_JSON_MAX_KEY_BYTES] = '\0';
    snprintf(text, sizeof(text), "{\"%s\":1}", key);
    assert_int_equal(scan(text), 0);
    free(splice_text("{}", EDITS(key, "1"), 0));
    key[PL_JSON_MAX_KEY_BYTES] = 'k';
    key[PL_JSON_MAX_KEY_BYTES + 1] = '\0';
    snprintf(text, sizeof(text), "{\"%s\":1}", key);
    assert_int_equal(scan(text), PL_ERR_LIMIT);
    assert_null(splice_text("{}", EDITS(key, "1"), PL_ERR_LIMIT));
    memset(key, '\n', PL_JSON_MAX_KEY_BYTES / 2 + 1); /* two bytes each when written */
    key[PL_JSON_MAX_KEY_BYTES / 2 + 1] = '\0';
    assert_null(splice_text("{}", EDITS(key, "1"), PL_ERR_LIMIT));
}

static void test_truncated_at_every_offset(void **state)
{
    (void)state;
    size_t whole = (size_t)(strrchr(CHAT, '}') - CHAT) + 1;
    for (size_t len = 0; len < whole; len++) {
        assert_int_equal(scan_bytes(CHAT, len), PL_ERR_SYNTAX);
        assert_int_equal(validate_bytes(CHAT, len), PL_ERR_SYNTAX);
    }
    for (size_t len = whole; len <= strlen(CHAT); len++) {
        assert_int_equal(scan_bytes(CHAT, len), 0);
    }
}

/* ---- strings ---- */

static void assert_decodes(const char *literal, const char *expected, size_t expected_len)
{
    size_t len = 0;
    char *block = block_of(literal, strlen(literal));
    char *decoded = pl_json_decode_string(block, strlen(literal), &len);
    assert_non_null(decoded);
    assert_int_equal(len, expected_len);
    assert_memory_equal(decoded, expected, expected_len + 1);
    free(decoded);
    free(block);
}

static void test_decode_string(void **state)
{
    (void)state;
    assert_decodes("\"\"", "", 0);
    assert_decodes("\"gpt-4\"", "gpt-4", 5);
    assert_decodes("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8);
    assert_decodes("\"a\\u0000b\"", "a\0b", 3);
    assert_decodes("\"\\u007f\\u0080\\u07FF\\u0800\\uffff\"",
                   "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf", 11);
    assert_decodes("\"\\ud800\\udc00\\uDBFF\\uDFFF\"", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 8);
    assert_decodes("\"\xc3\xa9x\\u0078\"", "\xc3\xa9xx", 4);
    static const char *const BROKEN[] = {"",
                                         "\"",
                                         "a",
                                         "\"a",
                                         "a\"",
                                         "\"a\"b",
                                         "\"a\" ",
                                         "\"\\\"",
                                         "\"\\ud800\"",
                                         "\"\\udc00\"",
                                         "\"\\ud800\\ud800\"",
                                         "\"\\ud800x\"",
                                         "\"\\ud800\\n\"",
                                         "\"\n\"",
                                         "\"\xff\"",
                                         "1"};
    for (size_t i = 0; i < PL_COUNT(BROKEN); i++) {
        size_t len;
        char *block = block_of(BROKEN[i], strlen(BROKEN[i]));
        assert_null(pl_json_decode_string(block, strlen(BROKEN[i]), &len));
        free(block);
    }
}

static void assert_encodes(const char *data, size_t data_len, const char *expected)
{
    size_t len = 0;
    char *block = block_of(data, data_len);
    char *literal = pl_json_encode_string(block, data_len, &len);
    assert_string_equal(literal, expected);
    assert_int_equal(len, strlen(expected));
    assert_int_equal(pl_json_validate(literal, len), 0);
    free(literal);
    free(block);
}

static void test_encode_string(void **state)
{
    (void)state;
    assert_encodes("", 0, "\"\"");
    assert_encodes("plain text, long enough", 23, "\"plain text, long enough\"");
    assert_encodes("\"\\/\b\f\n\r\t", 8, "\"\\\"\\\\/\\b\\f\\n\\r\\t\"");
    assert_encodes("\0\x01\x1f\x7f", 4, "\"\\u0000\\u0001\\u001f\x7f\"");
    assert_encodes("\xc3\xa9\xf0\x9f\x98\x80!", 7, "\"\xc3\xa9\xf0\x9f\x98\x80!\"");
    assert_encodes("a\xff\xc3", 3, "\"a\xef\xbf\xbd\xef\xbf\xbd\"");
    assert_encodes("\xed\xa0\x80\xe2\x82.", 6,
                   "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd.\"");
}

static void test_every_string_survives_a_round_trip(void **state)
{
    (void)state;
    char data[128];
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (char)i;
    }
    for (size_t from = 0; from < sizeof(data); from++) {
        size_t literal_len = 0, len = 0;
        char *literal = pl_json_encode_string(data + from, sizeof(data) - from, &literal_len);
        char *decoded = pl_json_decode_string(literal, literal_len, &len);
        assert_int_equal(len, sizeof(data) - from);
        assert_memory_equal(decoded, data + from, len);
        free(decoded);
        free(literal);
    }
}

/* ---- splicing ---- */

static void test_replace(void **state)
{
    (void)state;
    assert_splice("{\"model\":\"a\",\"x\":1}", EDITS("model", "\"bb\""),
                  "{\"model\":\"bb\",\"x\":1}");
    assert_splice("{\"x\":1, \"model\" : \"a\" , \"y\":2}", EDITS("model", "\"bb\""),
                  "{\"x\":1, \"model\" : \"bb\" , \"y\":2}");
    assert_splice(" {\"x\":1,\"model\":\"a\" }\n", EDITS("model", "\"bb\""),
                  " {\"x\":1,\"model\":\"bb\" }\n");
    assert_splice("{\"model\": \"\"}", EDITS("model", "\"qwen2.5:1.5b\""),
                  "{\"model\": \"qwen2.5:1.5b\"}");
    assert_splice("{\"model\":null}", EDITS("model", "\"b\""), "{\"model\":\"b\"}");
    assert_splice("{\"model\":{\"a\":[1]}}", EDITS("model", "[]"), "{\"model\":[]}");
    assert_splice("{\"\\u006dodel\":\"a\"}", EDITS("model", "\"b\""), "{\"\\u006dodel\":\"b\"}");
}

static void test_insert(void **state)
{
    (void)state;
    assert_splice("{}", EDITS("model", "\"b\""), "{\"model\":\"b\"}");
    assert_splice(" {\n} ", EDITS("model", "\"b\"", "n", "1"), " {\"model\":\"b\",\"n\":1\n} ");
    assert_splice("{\n  \"a\": 1\n}\n", EDITS("model", "\"b\""),
                  "{\n  \"a\": 1,\"model\":\"b\"\n}\n");
    assert_splice("{\"a\":1}", EDITS("q\"\n\xc3\xa9", "{}"), "{\"a\":1,\"q\\\"\\n\xc3\xa9\":{}}");
    assert_splice("{\"a\":1}", EDITS("", "0"), "{\"a\":1,\"\":0}");
}

static void test_unset(void **state)
{
    (void)state;
    static const char TEXT[] = "{ \"a\": 1 , \"b\": 2 , \"c\": 3 }";
    assert_splice(TEXT, EDITS("a", NULL), "{ \"b\": 2 , \"c\": 3 }");
    assert_splice(TEXT, EDITS("b", NULL), "{ \"a\": 1 , \"c\": 3 }");
    assert_splice(TEXT, EDITS("c", NULL), "{ \"a\": 1 , \"b\": 2 }");
    assert_splice(TEXT, EDITS("a", NULL, "b", NULL), "{ \"c\": 3 }");
    assert_splice(TEXT, EDITS("b", NULL, "c", NULL), "{ \"a\": 1 }");
    assert_splice(TEXT, EDITS("c", NULL, "a", NULL), "{ \"b\": 2 }");
    assert_splice(TEXT, EDITS("a", NULL, "b", NULL, "c", NULL), "{  }");
    assert_splice("{\"a\":1}", EDITS("a", NULL), "{}");
    assert_splice(TEXT, EDITS("x", NULL, "", NULL, "\xff", NULL), TEXT);
    assert_splice("{}", EDITS("x", NULL), "{}");
}

static void test_several_edits(void **state)
{
    (void)state;
    static const char TEXT[] = "{\"a\":1,\"b\":2,\"c\":3}";
    assert_splice(TEXT, EDITS("d", "4", "b", "20", "a", NULL), "{\"b\":20,\"c\":3,\"d\":4}");
    assert_splice(TEXT, EDITS("a", NULL, "b", NULL, "c", NULL, "d", "4", "e", "5"),
                  "{\"d\":4,\"e\":5}");
    assert_splice(TEXT, EDITS("a", "10", "b", "20", "c", "30"), "{\"a\":10,\"b\":20,\"c\":30}");
    assert_splice(TEXT, EDITS("c", NULL, "d", "4"), "{\"a\":1,\"b\":2,\"d\":4}");
    assert_splice(TEXT, EDITS("a", NULL, "c", "30"), "{\"b\":2,\"c\":30}");
}

static void test_a_later_edit_wins(void **state)
{
    (void)state;
    assert_splice("{\"a\":1}", EDITS("a", "2", "a", "3"), "{\"a\":3}");
    assert_splice("{\"a\":1}", EDITS("a", NULL, "a", "3"), "{\"a\":3}");
    assert_splice("{\"a\":1}", EDITS("a", "3", "a", NULL), "{}");
    assert_splice("{}", EDITS("x", "1", "y", "2", "z", "3", "x", "4"), "{\"x\":4,\"y\":2,\"z\":3}");
    assert_splice("{}", EDITS("x", "1", "y", "2", "z", "3", "x", NULL), "{\"y\":2,\"z\":3}");
    assert_splice("{}", EDITS("x", "1", "x", NULL), "{}");
    assert_splice("{}", EDITS("x", NULL, "x", "1"), "{\"x\":1}");
}

static void test_untouched_bytes_stay(void **state)
{
    (void)state;
    assert_splice(
        "{\"seed\":12345678901234567890,\"stop\":[],\"t\":1.0,\"e\":1E400,\"model\":\"a\","
        "\"s\":\"\\u00e9\\/\",\"o\":{ }}",
        EDITS("model", "\"b\""),
        "{\"seed\":12345678901234567890,\"stop\":[],\"t\":1.0,\"e\":1E400,\"model\":\"b\","
        "\"s\":\"\\u00e9\\/\",\"o\":{ }}");
}

static void test_pieces_are_borrowed_and_few(void **state)
{
    (void)state;
    struct pl_json json;
    struct pl_json_splice splice;
    pl_json_init(&json);
    pl_json_splice_init(&splice);
    assert_int_equal(pl_json_scan(&json, CHAT, strlen(CHAT)), 0);
    assert_int_equal(pl_json_splice_make(&splice, &json, NULL, 0), 0);
    assert_int_equal(splice.count, 1);
    assert_ptr_equal(splice.pieces[0].iov_base, CHAT);
    assert_int_equal(splice.total_bytes, strlen(CHAT));
    struct pl_json_edit edits[] = {{PL_STR("model"), PL_STR("\"b\"")}, {PL_STR("z"), PL_STR("1")}};
    for (int round = 0; round < 2; round++) { /* made again, it starts anew */
        assert_int_equal(pl_json_splice_make(&splice, &json, edits, 2), 0);
        assert_int_equal(splice.count, 6);
        assert_ptr_equal(splice.pieces[1].iov_base, edits[0].value.data);
    }
    pl_json_splice_deinit(&splice);
    pl_json_deinit(&json);
}

static void test_broken_edits_are_refused(void **state)
{
    (void)state;
    static const char *const VALUES[] = {"", " ", "b", "1,\"x\":2", "\"", "1}", "\"a\xff\""};
    for (size_t i = 0; i < PL_COUNT(VALUES); i++) {
        assert_null(splice_text("{\"a\":1}", EDITS("a", VALUES[i]), PL_ERR_SYNTAX));
        assert_null(splice_text("{\"a\":1}", EDITS("b", VALUES[i]), PL_ERR_SYNTAX));
    }
    assert_null(splice_text("{}", EDITS("k\xff", "1"), PL_ERR_SYNTAX));
    assert_null(splice_text("{}", EDITS("\xed\xa0\x80", "1"), PL_ERR_SYNTAX));
    char deep[2 * PL_JSON_MAX_DEPTH + 1] = "";
    memset(deep, '[', PL_JSON_MAX_DEPTH);
    memset(deep + PL_JSON_MAX_DEPTH, ']', PL_JSON_MAX_DEPTH);
    assert_null(splice_text("{}", EDITS("a", deep), PL_ERR_LIMIT));
    deep[2 * PL_JSON_MAX_DEPTH - 1] = '\0';
    free(splice_text("{}", EDITS("a", deep + 1), 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid_values),
        cmocka_unit_test(test_invalid_values),
        cmocka_unit_test(test_every_byte_at_every_alignment),
        cmocka_unit_test(test_nesting_is_bounded),
        cmocka_unit_test(test_mixed_nesting_closes_in_order),
        cmocka_unit_test(test_scan_finds_members),
        cmocka_unit_test(test_scan_says_what_is_wrong),
        cmocka_unit_test(test_keys_are_compared_decoded),
        cmocka_unit_test(test_duplicate_keys_are_refused),
        cmocka_unit_test(test_lone_surrogates),
        cmocka_unit_test(test_members_are_bounded),
        cmocka_unit_test(test_appended_members_are_bounded),
        cmocka_unit_test(test_keys_are_bounded),
        cmocka_unit_test(test_truncated_at_every_offset),
        cmocka_unit_test(test_decode_string),
        cmocka_unit_test(test_encode_string),
        cmocka_unit_test(test_every_string_survives_a_round_trip),
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_insert),
        cmocka_unit_test(test_unset),
        cmocka_unit_test(test_several_edits),
        cmocka_unit_test(test_a_later_edit_wins),
        cmocka_unit_test(test_untouched_bytes_stay),
        cmocka_unit_test(test_pieces_are_borrowed_and_few),
        cmocka_unit_test(test_broken_edits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
