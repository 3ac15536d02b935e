/*
 * Fuzz target of http1.c: whatever an upstream sends and however it is cut, the same head must be
 * read, or the same error found, and its chunked body must decode to the same bytes.
 *
 * An input is what an upstream sends, read as the answer to a GET, to a HEAD, and as a chunked body
 * alone; it seeds the cuts itself. Pieces are copied into memory of their own, so that the
 * sanitizer sees every byte read beyond them.
 */
#include "http1.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* The size of the next piece: at least 1, at most `max_bytes` and what is left. */
static size_t next_piece(uint32_t *seed, size_t max_bytes, size_t left_bytes)
{
    *seed = *seed * 1664525u + 1013904223u;
    size_t want = 1 + (*seed >> 8) % max_bytes;
    return PL_MIN(want, left_bytes);
}

static char *copy_of(const uint8_t *data, size_t len)
{
    char *copy = malloc(len);
    REQUIRE(copy != NULL);
    memcpy(copy, data, len);
    return copy;
}

static long parse_copy(struct pl_response_head *head, const uint8_t *data, size_t len, bool is_head)
{
    char *copy = copy_of(data, len);
    long result = pl_response_head_parse(head, copy, len, is_head);
    free(copy);
    REQUIRE(result <= (long)len);
    REQUIRE(result >= 0 || result == PL_ERR_SYNTAX || result == PL_ERR_LIMIT);
    return result;
}

/* Parses from a buffer that grows piece by piece. */
static long parse_growing(struct pl_response_head *head, const uint8_t *data, size_t len,
                          bool is_head, uint32_t seed)
{
    long result = 0;
    for (size_t have = 0; have < len && result == 0;) {
        have += next_piece(&seed, 64, len - have);
        result = parse_copy(head, data, have, is_head);
    }
    return result;
}

static void require_same_head(const struct pl_response_head *a, const struct pl_response_head *b)
{
    REQUIRE(a->status == b->status && a->minor_version == b->minor_version);
    REQUIRE(a->keep_alive == b->keep_alive && a->framing == b->framing);
    REQUIRE(a->content_length_bytes == b->content_length_bytes);
    REQUIRE(a->headers.count == b->headers.count);
    for (size_t i = 0; i < a->headers.count; i++) {
        struct pl_str value = pl_headers_value(&a->headers, i);
        REQUIRE(pl_header_name_is_valid(pl_headers_name(&a->headers, i)));
        REQUIRE(pl_header_value_is_valid(value));
        REQUIRE(pl_str_equal(value, pl_headers_value(&b->headers, i)));
    }
}

/* What must hold for any head, whatever its bytes. */
static void require_sense(const struct pl_response_head *head, bool is_head)
{
    REQUIRE(head->status >= 100 && head->status <= 599 && head->status != 101);
    REQUIRE(head->content_length_bytes <= INT64_MAX);
    REQUIRE(head->headers.count <= PL_HTTP1_MAX_HEADERS);
    REQUIRE(!is_head || head->framing == PL_FRAMING_NONE);
    REQUIRE(!head->keep_alive || head->framing != PL_FRAMING_EOF);
}

struct decoded {
    long err;
    bool done;
    size_t used_bytes;
    size_t body_bytes;
    uint8_t *body;
};

static void decode_piece(struct pl_chunked *decoder, struct decoded *out, const uint8_t *data,
                         size_t len)
{
    for (size_t at = 0; at < len && out->err == PL_OK && !decoder->done;) {
        struct pl_str body;
        char *copy = copy_of(data + at, len - at);
        long used = pl_chunked_next(decoder, copy, len - at, &body);
        if (used < 0) {
            REQUIRE(used == PL_ERR_SYNTAX || used == PL_ERR_LIMIT);
            out->err = used;
        } else {
            REQUIRE(used > 0 && (size_t)used <= len - at);
            REQUIRE(body.data >= copy && body.data + body.len <= copy + used);
            memcpy(out->body + out->body_bytes, body.data, body.len);
            out->body_bytes += body.len;
            at += (size_t)used;
            out->used_bytes += (size_t)used;
        }
        free(copy);
    }
    out->done = decoder->done;
}

static struct decoded decode(const uint8_t *data, size_t len, size_t max_piece_bytes, uint32_t seed)
{
    struct pl_chunked decoder;
    struct decoded out = {.err = PL_OK, .body = malloc(len + 1)};
    REQUIRE(out.body != NULL);
    pl_chunked_init(&decoder);
    for (size_t at = 0; at < len && out.err == PL_OK && !out.done;) {
        size_t piece_bytes = next_piece(&seed, max_piece_bytes, len - at);
        decode_piece(&decoder, &out, data + at, piece_bytes);
        at += piece_bytes;
    }
    return out;
}

static void check_chunked(const uint8_t *data, size_t len, uint32_t seed)
{
    struct decoded bytes = decode(data, len, 1, 0);
    struct decoded pieces = decode(data, len, 2 + seed % 100, seed);
    REQUIRE(bytes.err == pieces.err && bytes.done == pieces.done);
    REQUIRE(bytes.body_bytes == pieces.body_bytes);
    REQUIRE(memcmp(bytes.body, pieces.body, bytes.body_bytes) == 0);
    REQUIRE(bytes.err != PL_OK || bytes.used_bytes == pieces.used_bytes);
    free(bytes.body);
    free(pieces.body);
}

static void check_response(const uint8_t *data, size_t len, bool is_head, uint32_t seed)
{
    struct pl_response_head whole;
    struct pl_response_head grown;
    pl_response_head_init(&whole);
    pl_response_head_init(&grown);
    long used = parse_copy(&whole, data, len, is_head);
    REQUIRE(parse_growing(&grown, data, len, is_head, seed) == used);
    if (used > 0) {
        require_same_head(&whole, &grown);
        require_sense(&whole, is_head);
    }
    if (used > 0 && whole.framing == PL_FRAMING_CHUNKED) {
        check_chunked(data + used, len - (size_t)used, seed);
    }
    pl_response_head_deinit(&whole);
    pl_response_head_deinit(&grown);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t seed = (uint32_t)size;
    for (size_t i = 0; i < size; i++) {
        seed = seed * 31 + data[i];
    }
    check_response(data, size, false, seed);
    check_response(data, size, true, seed);
    check_chunked(data, size, seed);
    return 0;
}
