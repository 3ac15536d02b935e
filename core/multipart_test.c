/* Tests of multipart.c. Every body stands in a block of its own size, so that valgrind and the
 * address sanitizer see a read past its end. */
#include "multipart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the boundary ---- */

static int boundary_of(const char *content_type, char out[71])
{
    size_t len = 0;
    int result =
        pl_multipart_boundary((struct pl_str){content_type, strlen(content_type)}, out, &len);
    assert_true(result != 0 || len == strlen(out));
    return result;
}

static void assert_boundary(const char *content_type, const char *expected)
{
    char out[71];
    assert_int_equal(boundary_of(content_type, out), 0);
    assert_string_equal(out, expected);
}

#define LONGEST "0123456789012345678901234567890123456789012345678901234567890123456789"

static void test_boundary(void **state)
{
    (void)state;
    assert_boundary("multipart/form-data; boundary=abc", "abc");
    assert_boundary("Multipart/Form-Data;BOUNDARY=abc ", "abc");
    assert_boundary("multipart/form-data ; charset=utf-8 ;; boundary=\"a b:c\" ;x=\"q\\\\;\"",
                    "a b:c");
    assert_boundary("multipart/form-data; boundary=----WebKitFormBoundaryAb9",
                    "----WebKitFormBoundaryAb9");
    assert_boundary("multipart/form-data; boundary=" LONGEST, LONGEST);
}

static void test_boundary_of_other_types(void **state)
{
    (void)state;
    static const char *const TYPES[] = {"",
                                        "application/json",
                                        "multipart",
                                        "multipart/mixed; boundary=a",
                                        "multipart/form-dat; boundary=a",
                                        "multipart/form-data2; boundary=a",
                                        "xmultipart/form-data; boundary=a",
                                        "multipart /form-data; boundary=a"};
    char out[71];
    for (size_t i = 0; i < PL_COUNT(TYPES); i++) {
        assert_int_equal(boundary_of(TYPES[i], out), PL_ERR_ABSENT);
    }
}

static void test_broken_boundaries(void **state)
{
    (void)state;
    static const char *const PARAMETERS[] = {"",
                                             ";",
                                             "; charset=utf-8",
                                             "; boundary",
                                             "; boundary=",
                                             "; boundary=\"\"",
                                             "; boundary=\"a",
                                             "; boundary=\"a\"b",
                                             "; boundary=\"a \"",
                                             "; boundary=\"a\\b\"",
                                             "; boundary=\"a\\\"b\"",
                                             "; boundary=a; boundary=a",
                                             "; boundary=a; Boundary=b",
                                             "; boundary=a/b",
                                             "; boundary=a b",
                                             "; boundary=a, b",
                                             "; boundary =a",
                                             "; boundary= a",
                                             ", boundary=a",
                                             " boundary=a",
                                             "; boundary=a!",
                                             "; boundary=\"\xc3\xa9\"",
                                             "; boundary=\"a\r\nb\"",
                                             "; boundary=" LONGEST "0"};
    for (size_t i = 0; i < PL_COUNT(PARAMETERS); i++) {
        char type[160], out[71];
        snprintf(type, sizeof(type), "multipart/form-data%s", PARAMETERS[i]);
        if (boundary_of(type, out) != PL_ERR_SYNTAX) {
            fail_msg("not refused: %s", type);
        }
    }
}

/* ---- finding ---- */

static int find_bytes(const char *body, size_t len, struct pl_multipart_field *out,
                      const char **error)
{
    char *block = pl_xmalloc(len);
    memcpy(block, body, len);
    int result = pl_multipart_find(block, len, PL_STR("XX"), PL_STR("model"), out, error);
    assert_true((result == 0) == (*error == NULL));
    assert_true(!out->found || (result == 0 && out->value_start + out->value_len <= len));
    free(block);
    return result;
}

static void assert_found_bytes(const char *body, size_t len, const char *value)
{
    struct pl_multipart_field field;
    const char *error;
    if (find_bytes(body, len, &field, &error) != 0) {
        fail_msg("refused (%s): %s", error, body);
    }
    assert_true(field.found);
    assert_int_equal(field.value_len, strlen(value));
    assert_memory_equal(body + field.value_start, value, field.value_len);
}

static void assert_found(const char *body, const char *value)
{
    assert_found_bytes(body, strlen(body), value);
}

static void assert_absent(const char *body)
{
    struct pl_multipart_field field;
    const char *error;
    assert_int_equal(find_bytes(body, strlen(body), &field, &error), 0);
    assert_false(field.found);
}

static void assert_refused_bytes(const char *body, size_t len, const char *expected)
{
    struct pl_multipart_field field;
    const char *error;
    assert_int_equal(find_bytes(body, len, &field, &error), PL_ERR_SYNTAX);
    assert_string_equal(error, expected);
}

static void assert_refused(const char *body, const char *expected)
{
    assert_refused_bytes(body, strlen(body), expected);
}

#define DISPOSITION       "Content-Disposition: form-data; "
#define PART(head, value) "--XX\r\n" head "\r\n\r\n" value "\r\n"
#define MODEL(value)      PART(DISPOSITION "name=\"model\"", value)
#define FILE_PART(value)                                                                           \
    PART(DISPOSITION "name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav", value)
#define END "--XX--\r\n"

static void test_find(void **state)
{
    (void)state;
    assert_found(MODEL("whisper-1") END, "whisper-1");
    assert_found(MODEL("whisper-1") "--XX--", "whisper-1");
    assert_found("\r\n" MODEL("whisper-1") END, "whisper-1");
    assert_found(MODEL("") END, "");
    assert_found(MODEL("\r\n") END, "\r\n");
    assert_found(FILE_PART("RIFF") MODEL("m") PART(DISPOSITION "name=\"n\"", "2") END, "m");
    assert_found(MODEL("m") FILE_PART("RIFF") END, "m");
    assert_found(PART(DISPOSITION "name=model", "m") END, "m");
    assert_found(
        PART("content-type:text/plain\r\nCONTENT-DISPOSITION:Form-Data ;\tNAME=\"model\" ; x=1",
             "m") END,
        "m");
    assert_found(PART(DISPOSITION "name=\"model\"\r\nContent-Transfer-Encoding: 8BIT \t", "m") END,
                 "m");
}

static void test_absent(void **state)
{
    (void)state;
    assert_absent("--XX--\r\n");
    assert_absent(FILE_PART("RIFF") END);
    assert_absent(PART(DISPOSITION "name=\"Model\"", "m") END);
    assert_absent(PART(DISPOSITION "name=\"models\"", "m") PART(DISPOSITION "name=\"\"", "m") END);
    assert_absent(PART(DISPOSITION "name=\"x\"; other=\"name=model\"", "m") END);
}

static void test_a_file_is_never_the_field(void **state)
{
    (void)state;
    static const char FILE_MODEL[] = PART(DISPOSITION "name=\"model\"; filename=\"f\"", "no") END;
    assert_absent(FILE_MODEL);
    assert_found(PART(DISPOSITION "name=\"model\"; filename=\"f\"", "no") MODEL("m") END, "m");
    assert_found(PART(DISPOSITION "filename=\"f\"; name=\"model\"; filename*=UTF-8''f", "no")
                     MODEL("m") END,
                 "m");
    assert_found(FILE_PART("\r\n" DISPOSITION "name=\"model\"\r\n\r\nno") MODEL("m") END, "m");
    assert_refused(PART(DISPOSITION "name=\"model\"; filename=\"\"", "m") END,
                   "the field may or may not be a file");
    assert_refused(PART(DISPOSITION "name=\"model\"; filename*=UTF-8''f", "m") END,
                   "the field may or may not be a file");
    assert_absent(PART(DISPOSITION "name=\"file\"; filename=\"\"", "") END);
}

static void test_near_boundaries_are_content(void **state)
{
    (void)state;
    static const char BODY[] =
        FILE_PART("--XX\r\n-XX\r\n--X\r\n--\r\n\r--X\n--x\n\0--XX--\r\n --XX\r\r\n\n")
            MODEL("--XX- x--XX--") END;
    assert_refused_bytes(BODY, sizeof(BODY) - 1, "a part has no content"); /* begins with --XX */
    static const char FIXED[] =
        FILE_PART(".--XX\r\n-XX\r\n--X\r\n--\r\n\r--X\n--x\n\0--XX--\r\n --XX\r\r\n\n")
            MODEL(".--XX- x--XX--") END;
    assert_found_bytes(FIXED, sizeof(FIXED) - 1, ".--XX- x--XX--");
}

static void test_broken_delimiters(void **state)
{
    (void)state;
    static const char *const BARE = "a delimiter follows a bare CR or LF";
    assert_refused("", "the body does not begin with a delimiter");
    assert_refused("\r\n\r\n" MODEL("m") END, "the body does not begin with a delimiter");
    assert_refused("preamble\r\n" MODEL("m") END, "the body does not begin with a delimiter");
    assert_refused("\n" MODEL("m") END, "the body does not begin with a delimiter");
    assert_refused("--XY\r\n", "the body does not begin with a delimiter");
    assert_refused("--XX", "a delimiter is broken");
    assert_refused("--XX-", "a delimiter is broken");
    assert_refused("--XX\n" DISPOSITION "name=\"model\"\r\n\r\nm\r\n" END, "a delimiter is broken");
    assert_refused(MODEL("m\r\n--XXY") END, "a delimiter is broken");
    assert_refused(MODEL("m\r\n--XX ") END, "a delimiter is broken");
    assert_refused(MODEL("m\n--XX\r\n") END, BARE);
    assert_refused(FILE_PART("RIFF\n--XX") MODEL("m") END, BARE);
    assert_refused(MODEL("\n--XX") END, BARE);
    assert_refused(MODEL("m\r--XX--") END, BARE);
    assert_refused("\r--XX\r\n" MODEL("m") END, "the body does not begin with a delimiter");
    assert_refused(MODEL("\r--XX--") END, BARE);
    assert_refused(MODEL("m"), "the closing delimiter is missing");
    assert_refused(MODEL("m") "--XX--x", "something follows the closing delimiter");
    assert_refused(MODEL("m") "--XX-- \r\n", "something follows the closing delimiter");
    assert_refused(MODEL("m") END "\r\n", "something follows the closing delimiter");
    assert_refused(MODEL("m") END MODEL("n") END, "something follows the closing delimiter");
    assert_refused("--XX\r\n" DISPOSITION "name=\"model\"\r\n\r\n" END, "a part has no content");
    assert_refused("--XX\r\n" DISPOSITION "name=\"model\"\r\n" END,
                   "a part's head has a broken line");
}

/* The search goes by words: a delimiter is met wherever it stands in one. */
static void test_delimiters_at_every_alignment(void **state)
{
    (void)state;
    char body[256];
    for (size_t padding = 0; padding < 24; padding++) {
        for (size_t more = 0; more < 12; more++) {
            int len =
                snprintf(body, sizeof(body), FILE_PART("%.*s") MODEL("%.*s") END, (int)padding,
                         "\r\n-\n--\r--X\n-x\r\n--Y\n--.", (int)more, "mmmmmmmmmmmm");
            assert_found_bytes(body, (size_t)len, &"mmmmmmmmmmmm"[12 - more]);
            len = snprintf(body, sizeof(body), FILE_PART("%.*s\n--XX%.*s") END, (int)padding,
                           "........................", (int)more, "mmmmmmmmmmmm");
            assert_refused_bytes(body, (size_t)len, "a delimiter follows a bare CR or LF");
        }
    }
}

static void test_broken_heads(void **state)
{
    (void)state;
    static const char *const BROKEN_LINE = "a part's head has a broken line";
    assert_refused("--XX\r\n\r\nm\r\n" END, "a part has no name");
    assert_refused(PART("Content-Type: text/plain", "m") END, "a part has no name");
    assert_refused(PART("Content-Disposition: form-data", "m") END, "a part has no name");
    assert_refused(PART(DISPOSITION "filename=\"f\"", "m") END, "a part has no name");
    assert_refused(PART("Content-Disposition: attachment; name=\"model\"", "m") END,
                   "a part's disposition is not form-data");
    assert_refused(PART(DISPOSITION "name=\"a\"\r\n" DISPOSITION "name=\"model\"", "m") END,
                   "a part has two Content-Disposition fields");
    assert_refused(PART(DISPOSITION "name=\"model\"\r\n x: y", "m") END, BROKEN_LINE);
    assert_refused(PART(DISPOSITION "name=\"model\"\r\nno colon", "m") END, BROKEN_LINE);
    assert_refused(PART(DISPOSITION "name=\"model\"\r\nX : y", "m") END, BROKEN_LINE);
    assert_refused(PART(DISPOSITION "name=\"model\"\r\n: y", "m") END, BROKEN_LINE);
    assert_refused(PART(DISPOSITION "name=\"model\"\r\nX: a\rb", "m") END, BROKEN_LINE);
    assert_refused(PART(DISPOSITION "name=\"model\"\r\n--XX: y", "m") END, BROKEN_LINE);
    assert_refused(PART(DISPOSITION "name=\"model\"\nX: y", "m") END,
                   "a part's head has a line that does not end in CRLF");
    assert_refused("--XX\r\n" DISPOSITION "name=\"model\"\r\n\n\r\nm\r\n" END,
                   "a part's head has a line that does not end in CRLF");
    assert_refused("--XX\r\n" DISPOSITION "name=\"model\"", "a part's head does not end");
    static const char WITH_NUL[] = PART(DISPOSITION "name=\"model\"\r\nX: a\0b", "m") END;
    assert_refused_bytes(WITH_NUL, sizeof(WITH_NUL) - 1, BROKEN_LINE);
}

static void test_broken_dispositions(void **state)
{
    (void)state;
    static const char *const BROKEN = "a part's Content-Disposition is broken";
    static const char *const TWICE = "a part has a parameter twice";
    static const char *const EXTENDED = "a part has an extended parameter";
    assert_refused(PART(DISPOSITION "name=\"a\"; name=\"model\"", "m") END, TWICE);
    assert_refused(PART(DISPOSITION "name=\"a\"; NAME=model", "m") END, TWICE);
    assert_refused(PART(DISPOSITION "name=\"a\"; filename=a; filename=\"\"", "m") END, TWICE);
    assert_refused(PART(DISPOSITION "name=\"a\"; name*=UTF-8''model", "m") END, EXTENDED);
    assert_refused(PART(DISPOSITION "name=\"a\"; filename*0=b", "m") END, EXTENDED);
    assert_refused(PART(DISPOSITION "name=\"mod\\el\"", "m") END, "a part's name has an escape");
    assert_refused(PART(DISPOSITION "name=\"a\"; filename=\"x\\\"; name=\\\"model\"", "m") END,
                   BROKEN);
    assert_refused(PART(DISPOSITION "name=\"model", "m") END, BROKEN);
    assert_refused(PART(DISPOSITION "name=\"model\\", "m") END, BROKEN);
    assert_refused(PART(DISPOSITION "name=\"model\"x", "m") END, BROKEN);
    assert_refused(PART(DISPOSITION "name=\"model\"; filename", "m") END, BROKEN);
    assert_refused(PART(DISPOSITION "name=", "m") END, BROKEN);
    assert_refused(PART(DISPOSITION "name = \"model\"", "m") END, BROKEN);
    assert_refused(PART(DISPOSITION "name=mo del", "m") END, BROKEN);
    assert_found(PART(DISPOSITION "name=\"file\"; filename=\"C:\\dir\\a\\\\\"", "x") MODEL("m") END,
                 "m");
}

static void test_ambiguous_fields(void **state)
{
    (void)state;
    assert_refused(MODEL("a") MODEL("a") END, "the field stands twice");
    assert_refused(MODEL("a") FILE_PART("x") PART(DISPOSITION "name=model", "b") END,
                   "the field stands twice");
    assert_refused(PART(DISPOSITION "name=\"model\"\r\nContent-Transfer-Encoding: base64", "bQ==")
                       END,
                   "the field has a Content-Transfer-Encoding");
    assert_refused(
        PART("Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 8bit\r\n" DISPOSITION
             "name=\"model\"",
             "bQ==") END,
        "the field has a Content-Transfer-Encoding");
    assert_found(PART(DISPOSITION "name=\"x\"\r\nContent-Transfer-Encoding: base64", "bQ==")
                     MODEL("m") END,
                 "m");
}

static void test_truncated_at_every_offset(void **state)
{
    (void)state;
    static const char BODY[] = FILE_PART("RI\r\n--X\r\nFF") MODEL("m") END;
    struct pl_multipart_field field;
    const char *error;
    for (size_t len = 0; len < sizeof(BODY) - 3; len++) {
        assert_int_equal(find_bytes(BODY, len, &field, &error), PL_ERR_SYNTAX);
        assert_false(field.found);
    }
    assert_int_equal(find_bytes(BODY, sizeof(BODY) - 3, &field, &error), 0);
    assert_refused_bytes(BODY, sizeof(BODY) - 2, "something follows the closing delimiter");
}

static void test_the_boundary_is_checked(void **state)
{
    (void)state;
    static const struct pl_str BOUNDARIES[] = {{NULL, 0}, {"a\n", 2}, {"a ", 2}, {LONGEST "0", 71}};
    struct pl_multipart_field field;
    const char *error;
    for (size_t i = 0; i < PL_COUNT(BOUNDARIES); i++) {
        assert_int_equal(
            pl_multipart_find("--a--", 5, BOUNDARIES[i], PL_STR("model"), &field, &error),
            PL_ERR_SYNTAX);
        assert_string_equal(error, "the boundary is broken");
    }
    assert_int_equal(
        pl_multipart_find("--" LONGEST "--", 74, PL_STR(LONGEST), PL_STR("model"), &field, &error),
        0);
    assert_int_equal(pl_multipart_find(NULL, 0, PL_STR("a"), PL_STR("model"), &field, &error),
                     PL_ERR_SYNTAX);
}

/* ---- limits ---- */

static int find_among(size_t part_count)
{
    static const char OTHER[] = PART(DISPOSITION "name=\"x\"", "v");
    size_t other_len = sizeof(OTHER) - 1;
    char *body = pl_xmalloc(part_count * other_len + sizeof(END));
    for (size_t i = 0; i < part_count; i++) {
        memcpy(body + i * other_len, OTHER, other_len);
    }
    memcpy(body + part_count * other_len, END, sizeof(END));
    struct pl_multipart_field field;
    const char *error;
    int result = find_bytes(body, part_count * other_len + sizeof(END) - 1, &field, &error);
    free(body);
    return result;
}

static void test_parts_are_bounded(void **state)
{
    (void)state;
    assert_int_equal(find_among(PL_MULTIPART_MAX_PARTS), 0);
    assert_int_equal(find_among(PL_MULTIPART_MAX_PARTS + 1), PL_ERR_LIMIT);
}

static void test_heads_are_bounded(void **state)
{
    (void)state;
    static const char START[] = "--XX\r\n" DISPOSITION "name=\"model\"\r\nX: ";
    char body[20000];
    memset(body, 'a', sizeof(body));
    memcpy(body, START, sizeof(START) - 1);
    memcpy(body + sizeof(body) - 14, "\r\n\r\nm\r\n--XX--", 13);
    struct pl_multipart_field field;
    const char *error;
    assert_int_equal(find_bytes(body, sizeof(body) - 1, &field, &error), PL_ERR_LIMIT);
    assert_string_equal(error, "a part's head is too long");
}

/* A body of the largest size the gateway takes, full of what almost is a delimiter. */
static void test_a_large_file(void **state)
{
    (void)state;
    static const char START[] = "--XX\r\n" DISPOSITION "name=\"file\"; filename=\"f\"\r\n\r\n";
    static const char REST[] = "\r\n" MODEL("m") END;
    static const char NEAR[] = "\r\n--X\n-XX\r--";
    size_t file_len = 50u << 20, len = sizeof(START) - 1;
    char *body = pl_xmalloc(file_len + sizeof(START) + sizeof(REST));
    memcpy(body, START, len);
    for (; len + sizeof(NEAR) <= file_len; len += sizeof(NEAR)) {
        memcpy(body + len, NEAR, sizeof(NEAR)); /* the zero too */
    }
    memcpy(body + len, REST, sizeof(REST) - 1);
    len += sizeof(REST) - 1;
    struct pl_multipart_field field;
    const char *error;
    assert_int_equal(pl_multipart_find(body, len, PL_STR("XX"), PL_STR("model"), &field, &error),
                     0);
    assert_true(field.found && field.value_len == 1 && body[field.value_start] == 'm');
    free(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_boundary),
        cmocka_unit_test(test_boundary_of_other_types),
        cmocka_unit_test(test_broken_boundaries),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_a_file_is_never_the_field),
        cmocka_unit_test(test_near_boundaries_are_content),
        cmocka_unit_test(test_broken_delimiters),
        cmocka_unit_test(test_delimiters_at_every_alignment),
        cmocka_unit_test(test_broken_heads),
        cmocka_unit_test(test_broken_dispositions),
        cmocka_unit_test(test_ambiguous_fields),
        cmocka_unit_test(test_truncated_at_every_offset),
        cmocka_unit_test(test_the_boundary_is_checked),
        cmocka_unit_test(test_parts_are_bounded),
        cmocka_unit_test(test_heads_are_bounded),
        cmocka_unit_test(test_a_large_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
