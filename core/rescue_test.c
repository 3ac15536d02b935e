/*
 * Tests of the rescue_* files: an answer is told in events, breaks off, and further parts are
 * joined to it. A client reads what comes out as the official ones do: text is added up, blocks are
 * begun and ended in order.
 */
#include "events.h"
#include "json.h"
#include "json_walk.h"
#include "rescue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_BYTES 4096

/* ---- the client ----------------------------------------------------------------------------- */

struct client {
    struct pl_rescue_text bytes, text;
    int64_t open_block, block_count; /* open_block -1: none */
    uint32_t start_count, finish_count, terminal_count, tool_event_count, role_count;
    int64_t prompt, completion, total;
};

static void take_block(struct client *self, const struct pl_rescue_said *said)
{
    switch (said->step) {
    case PL_RESCUE_MESSAGE_START:
        self->start_count++;
        break;
    case PL_RESCUE_BLOCK_START:
        assert_int_equal(self->open_block, -1);
        assert_int_equal(pl_rescue_number(said->index), self->block_count);
        self->open_block = self->block_count++;
        break;
    case PL_RESCUE_BLOCK_DELTA:
        assert_int_equal(pl_rescue_number(said->index), self->open_block);
        break;
    case PL_RESCUE_BLOCK_STOP:
        assert_int_equal(pl_rescue_number(said->index), self->open_block);
        self->open_block = -1;
        break;
    case PL_RESCUE_MESSAGE_DELTA:
        assert_int_equal(self->open_block, -1);
        break;
    default:
        break;
    }
}

static int64_t count_of(struct pl_str usage, const char *key)
{
    return pl_rescue_number(pl_json_walk_member(usage, pl_str_of(key)));
}

static void take_event(struct client *self, struct pl_str name, struct pl_str data)
{
    struct pl_rescue_said said;
    pl_rescue_read(&said, name, data);
    assert_false(said.is_malformed || said.is_error);
    self->finish_count += said.is_finish;
    self->terminal_count += said.is_terminal;
    self->tool_event_count += said.obstacle == PL_RESCUE_TOOL_CALL;
    self->role_count += said.role.len > 0;
    if (said.text.len > 0) {
        size_t len;
        char *text = pl_json_decode_string(said.text.data, said.text.len, &len);
        assert_non_null(text);
        pl_rescue_put(&self->text, (struct pl_str){text, len});
        free(text);
    }
    if (said.usage.len > 0 && said.form == PL_RESCUE_FORM_CHAT) {
        self->prompt = count_of(said.usage, "prompt_tokens");
        self->completion = count_of(said.usage, "completion_tokens");
        self->total = count_of(said.usage, "total_tokens");
    } else if (said.usage.len > 0 || said.step == PL_RESCUE_MESSAGE_DELTA) {
        struct pl_str usage = pl_json_walk_member(data, PL_STR("usage"));
        usage = usage.len > 0 ? usage : said.usage;
        self->prompt = PL_MAX(self->prompt, count_of(usage, "input_tokens"));
        self->completion = count_of(usage, "output_tokens");
    }
    if (said.form == PL_RESCUE_FORM_MESSAGES)
        take_block(self, &said);
}

static void take_bytes(struct client *self, struct pl_str bytes)
{
    struct pl_events events;
    enum pl_events_found found = PL_EVENTS_BLANK;
    pl_rescue_put(&self->bytes, bytes);
    pl_events_init(&events, 1 << 20);
    for (size_t at = 0; at < bytes.len;) {
        at += pl_events_next(&events, bytes.data + at, bytes.len - at, &found);
        if (found == PL_EVENTS_EVENT)
            take_event(self, pl_events_name(&events), pl_events_data(&events));
    }
    assert_int_not_equal(found, PL_EVENTS_MORE); /* only whole events are ever sent */
    pl_events_deinit(&events);
}

/* ---- the story ------------------------------------------------------------------------------ */

struct story {
    struct pl_rescue rescue;
    struct client client;
};

static void begin(struct story *self)
{
    pl_rescue_init(&self->rescue, MAX_BYTES);
    self->client = (struct client){.open_block = -1, .prompt = -1, .completion = -1, .total = -1};
}

static void end(struct story *self)
{
    pl_rescue_deinit(&self->rescue);
    pl_rescue_deinit(&self->rescue);
    pl_rescue_text_deinit(&self->client.bytes);
    pl_rescue_text_deinit(&self->client.text);
}

/* The JSON's "type" is the event's name, as it is with messages. */
static struct pl_str name_of(struct pl_str data)
{
    return data.data[0] == '{' ? pl_json_string_bytes(pl_json_walk_member(data, PL_STR("type")))
                               : PL_STR("");
}

static enum pl_rescue_verdict tell(struct story *self, const char *json)
{
    struct pl_str data = pl_str_of(json);
    char *copy = pl_xmalloc(data.len); /* so that a sanitizer sees every byte read beyond it */
    memcpy(copy, data.data, data.len);
    data.data = copy;
    enum pl_rescue_verdict verdict = pl_rescue_take(&self->rescue, name_of(data), data);
    if (verdict == PL_RESCUE_REPLACED) {
        take_bytes(&self->client, (struct pl_str){self->rescue.out.data, self->rescue.out.len});
    } else if (verdict == PL_RESCUE_PASS) {
        struct pl_rescue_text event = {0};
        const struct pl_rescue_edits none = {.count = 0};
        pl_rescue_put_event(&event, name_of(data), data, &none);
        take_bytes(&self->client, (struct pl_str){event.data, event.len});
        pl_rescue_text_deinit(&event);
    }
    free(copy);
    return verdict;
}

static void tell_all(struct story *self, const char *const *events, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        enum pl_rescue_verdict verdict = tell(self, events[i]);
        if (verdict != PL_RESCUE_PASS && verdict != PL_RESCUE_REPLACED)
            fail_msg("%s: %d", events[i], (int)verdict);
    }
}

#define TELL(story, ...)                                                                           \
    tell_all(story, (const char *const[]){__VA_ARGS__},                                            \
             PL_COUNT(((const char *const[]){__VA_ARGS__})))

static void assert_text(const struct story *self, const char *expected)
{
    char *text = pl_xstrndup(self->client.text.data, self->client.text.len);
    assert_string_equal(text, expected);
    free(text);
}

static void assert_sent(const struct story *self, const char *part, bool expected)
{
    char *text = pl_xstrndup(self->client.bytes.data, self->client.bytes.len);
    if ((strstr(text, part) != NULL) != expected)
        fail_msg("%s%s: %s", expected ? "" : "not ", part, text);
    free(text);
}

#define CHUNK(id, delta, rest)                                                                     \
    "{\"id\":\"" id "\",\"object\":\"chat.completion.chunk\",\"created\":1" id ",\"model\":\"m" id \
    "\",\"choices\":[{\"index\":0,\"delta\":{" delta "},"                                          \
    "\"logprobs\":null,\"finish_reason\":null}]" rest "}"
#define ROLE(id)       CHUNK(id, "\"role\":\"assistant\",\"content\":\"\"", "")
#define WORD(id, text) CHUNK(id, "\"content\":\"" text "\"", "")
#define STOP(id)                                                                                   \
    "{\"id\":\"" id "\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}"
#define USAGE(id, prompt, completion, total)                                                       \
    "{\"id\":\"" id "\",\"choices\":[],\"usage\":{\"prompt_tokens\":" prompt                       \
    ",\"completion_tokens\":" completion ",\"total_tokens\":" total "}}"
#define DONE "[DONE]"

/* ---- chat ----------------------------------------------------------------------------------- */

static void test_first_part(void **state)
{
    (void)state;
    struct story story;
    begin(&story);
    TELL(&story, ROLE("1"), WORD("1", "One"), WORD("1", " two"));
    assert_true(pl_str_equal(pl_rescue_prefix(&story.rescue), PL_STR("One two")));
    assert_int_equal(pl_rescue_obstacle_now(&story.rescue), PL_RESCUE_NO_OBSTACLE);
    assert_false(story.rescue.seen_finish);
    TELL(&story, STOP("1"));
    assert_true(story.rescue.seen_finish);
    assert_false(story.rescue.seen_terminal);
    TELL(&story, DONE);
    assert_true(story.rescue.seen_terminal);
    end(&story);
}

static void test_continue(void **state)
{
    (void)state;
    struct story story;
    begin(&story);
    TELL(&story, ROLE("1"), WORD("1", "One"), WORD("1", " two"));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, ROLE("2"), WORD("2", " three"),
         CHUNK("2", "\"role\":\"assistant\",\"content\":\" f\"", ""), WORD("2", "our"), STOP("2"),
         DONE);
    assert_text(&story, "One two three four");
    assert_true(story.rescue.seen_finish && story.rescue.seen_terminal);
    assert_int_equal(story.client.finish_count, 1);
    assert_int_equal(story.client.terminal_count, 1);
    assert_int_equal(story.client.role_count, 1);
    assert_sent(&story, "\"id\":\"2\"", false);
    assert_sent(&story, "\"created\":12", false);
    assert_sent(&story, "\"created\":11,\"model\":\"m2\"", true);
    end(&story);
}

static void test_restart(void **state)
{
    (void)state;
    struct story story;
    begin(&story);
    TELL(&story, ROLE("1"), WORD("1", "\\n\\nOne"), WORD("1", " tw"));
    pl_rescue_begin_part(&story.rescue, false);
    TELL(&story, ROLE("2"), WORD("2", " "), WORD("2", "O"), WORD("2", "ne two th"),
         WORD("2", "ree"), STOP("2"), DONE);
    assert_text(&story, "\n\nOne two three");
    assert_sent(&story, "\"content\":\"o th\"", true);
    end(&story);
}

/* The seam may lie within a character as others cut it, in surrogates, escapes, several bytes. */
static void test_restart_within_characters(void **state)
{
    (void)state;
    struct story story;
    begin(&story);
    TELL(&story, WORD("1", "na\\u00efve \xE2\x82\xAC \\ud83d\\ude00"));
    pl_rescue_begin_part(&story.rescue, false);
    TELL(&story, WORD("2", "na\xC3\xAFv"), WORD("2", "e \\u20ac \xF0\x9F\x98\x80\\\"\xC3\xA9"));
    assert_text(&story, "na\xC3\xAFve \xE2\x82\xAC \xF0\x9F\x98\x80\"\xC3\xA9");
    end(&story);

    begin(&story);
    TELL(&story, WORD("1", "caf\xC3\xA9"));
    pl_rescue_begin_part(&story.rescue, false);
    assert_int_equal(tell(&story, WORD("2", "caf\xC3\xA8")), PL_RESCUE_PARTED);
    end(&story);
}

static void test_parted(void **state)
{
    (void)state;
    static const char *const parts[] = {
        WORD("2", "Once"),
        WORD("2", "two"),
        STOP("2"),
        DONE,
        CHUNK("2", "\"tool_calls\":[{\"index\":0}]", ""),
        "{\"choices\":[{\"index\":1,\"delta\":{\"content\":\"O\"}}]}",
        "{\"choices\":[{\"index\":0,\"text\":\"One\"}]}",
        "{\"type\":\"message_start\",\"message\":{}}",
        "{\"type\":\"response.created\"}",
        WORD("2", "\\ud83d")};
    struct story story;
    for (size_t i = 0; i < PL_COUNT(parts); i++) {
        begin(&story);
        TELL(&story, ROLE("1"), WORD("1", "One"), WORD("1", " two"));
        pl_rescue_begin_part(&story.rescue, false);
        if (tell(&story, parts[i]) != PL_RESCUE_PARTED)
            fail_msg("%s", parts[i]);
        assert_text(&story, "One two");
        assert_false(story.rescue.seen_finish || story.rescue.seen_terminal);
        pl_rescue_begin_part(&story.rescue, false); /* the next may do better */
        TELL(&story, WORD("3", "One two three"), STOP("3"), DONE);
        assert_text(&story, "One two three");
        end(&story);
    }
}

/* A target that was asked to continue begins again. */
static void test_repetition(void **state)
{
    (void)state;
    struct story story;
    begin(&story);
    TELL(&story, ROLE("1"), WORD("1", "The capital of"), WORD("1", " France "));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, ROLE("2"), WORD("2", "The"), WORD("2", " capital of Fran"), WORD("2", "ce is"),
         WORD("2", " Paris"), STOP("2"), DONE);
    assert_text(&story, "The capital of France is Paris");
    end(&story);

    begin(&story);
    TELL(&story, WORD("1", "The capital of"), WORD("1", " France is"));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, WORD("2", "The capital of Fr"));
    assert_int_equal(tell(&story, WORD("2", "eedonia")), PL_RESCUE_PARTED);
    assert_text(&story, "The capital of France is");
    end(&story);

    begin(&story);
    TELL(&story, WORD("1", "The capital of"), WORD("1", " France is"));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, WORD("2", "The capital of Fr"));
    assert_int_equal(tell(&story, STOP("2")), PL_RESCUE_PARTED);
    end(&story);
}

/* What only looks like it is passed on, late but whole. */
static void test_no_repetition(void **state)
{
    (void)state;
    struct story story;
    begin(&story);
    TELL(&story, WORD("1", "ha ha, the cat said. And"));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, ROLE("2"), WORD("2", " "), WORD("2", "ha "));
    assert_text(&story, "ha ha, the cat said. And");
    TELL(&story, WORD("2", "ho!"), STOP("2"), DONE);
    assert_text(&story, "ha ha, the cat said. And ha ho!");
    end(&story);

    begin(&story);
    TELL(&story, WORD("1", "ha ha, the cat said. And"));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, WORD("2", " ha"), STOP("2"), DONE);
    assert_text(&story, "ha ha, the cat said. And ha");
    assert_int_equal(story.client.finish_count, 1);
    end(&story);
}

/* White space at the end is no part of the prefix; it may come again or not. */
static void test_space_at_the_seam(void **state)
{
    (void)state;
    static const char *const again[] = {WORD("2", " \\nthree"), WORD("2", " three"),
                                        WORD("2", "three"), WORD("2", "\\nthree")};
    static const char *const expected[] = {"One two \nthree", "One two \nthree", "One two \nthree",
                                           "One two \n\nthree"};
    struct story story;
    for (size_t i = 0; i < PL_COUNT(again); i++) {
        begin(&story);
        TELL(&story, WORD("1", "One two \\n"));
        assert_true(pl_str_equal(pl_rescue_prefix(&story.rescue), PL_STR("One two")));
        pl_rescue_begin_part(&story.rescue, true);
        TELL(&story, again[i]);
        assert_text(&story, expected[i]);
        end(&story);
    }
}

/* Three parts; the second breaks off before it has said anything new. */
static void test_several_seams(void **state)
{
    (void)state;
    struct story story;
    begin(&story);
    TELL(&story, ROLE("1"), WORD("1", "One two"), WORD("1", " three"));
    pl_rescue_begin_part(&story.rescue, false);
    TELL(&story, ROLE("2"), WORD("2", "One t"));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, ROLE("3"), WORD("3", " four"));
    pl_rescue_begin_part(&story.rescue, false);
    TELL(&story, ROLE("4"), WORD("4", "One two three four five"), STOP("4"), DONE);
    assert_text(&story, "One two three four five");
    assert_int_equal(story.rescue.part_count, 4);
    end(&story);
}

static void test_nothing_said(void **state)
{
    (void)state;
    struct story story;
    begin(&story);
    pl_rescue_begin_part(&story.rescue, true); /* not one event has come */
    assert_int_equal(tell(&story, ROLE("2")), PL_RESCUE_PASS);
    TELL(&story, WORD("2", "One"));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, ROLE("3"), WORD("3", " two"));
    assert_text(&story, "One two");
    assert_int_equal(story.client.role_count, 1);
    end(&story);

    begin(&story);
    TELL(&story, ROLE("1"));
    assert_int_equal(pl_rescue_prefix(&story.rescue).len, 0);
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, ROLE("2"), WORD("2", "One"), STOP("2"), DONE);
    assert_text(&story, "One");
    assert_sent(&story, "\"id\":\"2\"", false);
    end(&story);
}

static void test_usage(void **state)
{
    (void)state;
    struct story story;
    begin(&story); /* the first part has told nothing: two words, two tokens */
    TELL(&story, ROLE("1"), WORD("1", "One"), WORD("1", " two"));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, WORD("2", " three"), STOP("2"), USAGE("2", "12", "1", "13"), DONE);
    assert_int_equal(story.client.prompt, 10);
    assert_int_equal(story.client.completion, 3);
    assert_int_equal(story.client.total, 13);
    end(&story);

    begin(&story); /* what was written twice has cost twice */
    TELL(&story, ROLE("1"), WORD("1", "One"), WORD("1", " two"));
    pl_rescue_begin_part(&story.rescue, false);
    TELL(&story, WORD("2", "One two three"), STOP("2"), USAGE("2", "10", "3", "13"), DONE);
    assert_int_equal(story.client.prompt, 10);
    assert_int_equal(story.client.completion, 5);
    assert_int_equal(story.client.total, 15);
    end(&story);

    begin(&story); /* a server that tells as it goes */
    TELL(&story,
         CHUNK("1", "\"content\":\"One\"",
               ",\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,\"total_tokens\":13}"));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, STOP("2"), USAGE("2", "14", "1", "15"));
    assert_int_equal(story.client.prompt, 9);
    assert_int_equal(story.client.completion, 5);
    assert_int_equal(story.client.total, 14);
    end(&story);
}

/* Reasoning of a further part is its own affair; a tool call is not. */
static void test_reasoning_and_tools(void **state)
{
    (void)state;
    struct story story;
    begin(&story);
    TELL(&story, CHUNK("1", "\"reasoning_content\":\"hm\"", ""));
    assert_int_equal(pl_rescue_obstacle_now(&story.rescue), PL_RESCUE_REASONING);
    TELL(&story, WORD("1", "One"));
    assert_int_equal(pl_rescue_obstacle_now(&story.rescue), PL_RESCUE_NO_OBSTACLE);
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, ROLE("2"), CHUNK("2", "\"reasoning_content\":\"ah\"", ""), WORD("2", " two"));
    assert_sent(&story, "ah", false);
    assert_int_equal(pl_rescue_obstacle_now(&story.rescue), PL_RESCUE_NO_OBSTACLE);
    TELL(&story, CHUNK("2", "\"tool_calls\":[{\"index\":0,\"id\":\"c\"}]", ""));
    assert_int_equal(pl_rescue_obstacle_now(&story.rescue), PL_RESCUE_TOOL_CALL);
    TELL(&story, CHUNK("2", "\"tool_calls\":[{\"index\":0}]", ""), STOP("2"), DONE);
    assert_int_equal(story.client.tool_event_count, 2);
    assert_sent(&story, "\"id\":\"2\"", false);
    end(&story);
}

/* An event of a gateway's own before the answer has no id to be kept. */
static void test_events_without_choices(void **state)
{
    (void)state;
    static const char filter[] =
        "{\"id\":\"\",\"created\":0,\"choices\":[],\"prompt_filter_results\":[{}]}";
    struct story story;
    begin(&story);
    TELL(&story, filter, WORD("1", "One"));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, filter, WORD("2", " two"));
    assert_sent(&story,
                "\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"created\":11,\"model\":\"m2\"",
                true);
    end(&story);
}

static void test_completions(void **state)
{
    (void)state;
    struct story story;
    begin(&story);
    TELL(&story,
         "{\"id\":\"1\",\"choices\":[{\"index\":0,\"text\":\"One\",\"finish_reason\":null}]}");
    assert_int_equal(story.rescue.form, PL_RESCUE_FORM_COMPLETION);
    pl_rescue_begin_part(&story.rescue, false);
    TELL(&story,
         "{\"id\":\"2\",\"choices\":[{\"index\":0,\"text\":\"One two\",\"finish_reason\":null}]}",
         "{\"id\":\"2\",\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":\"stop\"}]}",
         DONE);
    assert_text(&story, "One two");
    assert_int_equal(story.client.finish_count, 1);
    assert_sent(&story, "\"id\":\"2\"", false);
    end(&story);
}

/* ---- messages ------------------------------------------------------------------------------- */

#define MESSAGE_START(id)                                                                          \
    "{\"type\":\"message_start\",\"message\":{\"id\":\"" id "\",\"role\":\"assistant\","           \
    "\"content\":[],\"usage\":{\"input_tokens\":1" id ",\"output_tokens\":1}}}"
#define BLOCK(index, type, rest)                                                                   \
    "{\"type\":\"content_block_start\",\"index\":" index ",\"content_block\":{\"type\":\"" type    \
    "\"" rest "}}"
#define TEXT_BLOCK(index) BLOCK(index, "text", ",\"text\":\"\"")
#define PING              "{\"type\":\"ping\"}"
#define TEXT(index, text)                                                                          \
    "{\"type\":\"content_block_delta\",\"index\":" index                                           \
    ",\"delta\":{\"type\":\"text_delta\",\"text\":\"" text "\"}}"
#define DELTA(index, type, rest)                                                                   \
    "{\"type\":\"content_block_delta\",\"index\":" index ",\"delta\":{\"type\":\"" type "\"," rest \
    "}}"
#define BLOCK_STOP(index) "{\"type\":\"content_block_stop\",\"index\":" index "}"
#define MESSAGE_DELTA(count)                                                                       \
    "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},"                        \
    "\"usage\":{\"output_tokens\":" count "}}"
#define MESSAGE_STOP "{\"type\":\"message_stop\"}"

static void test_messages(void **state)
{
    (void)state;
    struct story story;
    for (int continues = 0; continues < 2; continues++) {
        begin(&story);
        TELL(&story, MESSAGE_START("1"), TEXT_BLOCK("0"), PING, TEXT("0", "One"),
             TEXT("0", " two "));
        assert_int_equal(pl_rescue_obstacle_now(&story.rescue), PL_RESCUE_NO_OBSTACLE);
        pl_rescue_begin_part(&story.rescue, continues != 0);
        TELL(&story, MESSAGE_START("2"), TEXT_BLOCK("0"), PING,
             continues ? TEXT("0", " three") : TEXT("0", "One two three"), TEXT("0", " four"),
             BLOCK_STOP("0"), MESSAGE_DELTA("7"), MESSAGE_STOP);
        assert_text(&story, "One two three four");
        assert_int_equal(story.client.start_count, 1);
        assert_int_equal(story.client.block_count, 1);
        assert_int_equal(story.client.prompt, 11);
        assert_int_equal(story.client.completion, 9);
        assert_true(story.rescue.seen_finish && story.rescue.seen_terminal);
        end(&story);
    }
}

/* A part has blocks of its own: reasoning before the text, a tool call after it. */
static void test_blocks(void **state)
{
    (void)state;
    struct story story;
    begin(&story);
    TELL(&story, MESSAGE_START("1"), BLOCK("0", "thinking", ",\"thinking\":\"\""),
         DELTA("0", "thinking_delta", "\"thinking\":\"hm\""));
    assert_int_equal(pl_rescue_obstacle_now(&story.rescue), PL_RESCUE_REASONING);
    TELL(&story, BLOCK_STOP("0"), TEXT_BLOCK("1"), TEXT("1", "One"));
    assert_int_equal(pl_rescue_obstacle_now(&story.rescue), PL_RESCUE_NO_OBSTACLE);
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, MESSAGE_START("2"), TEXT_BLOCK("0"), TEXT("0", " two"), BLOCK_STOP("0"),
         BLOCK("1", "tool_use", ",\"id\":\"t\",\"name\":\"f\",\"input\":{}"),
         DELTA("1", "input_json_delta", "\"partial_json\":\"{}\""), BLOCK_STOP("1"),
         MESSAGE_DELTA("3"), MESSAGE_STOP);
    assert_text(&story, "One two");
    assert_int_equal(story.client.block_count, 3);
    assert_int_equal(story.client.tool_event_count, 2);
    assert_int_equal(pl_rescue_obstacle_now(&story.rescue), PL_RESCUE_TOOL_CALL);
    end(&story);

    begin(&story); /* asked afresh: it thinks, says it all again, and calls a tool at once */
    TELL(&story, MESSAGE_START("1"), TEXT_BLOCK("0"), TEXT("0", "One"));
    pl_rescue_begin_part(&story.rescue, false);
    TELL(&story, MESSAGE_START("2"), BLOCK("0", "thinking", ",\"thinking\":\"\""),
         DELTA("0", "thinking_delta", "\"thinking\":\"hm\""),
         DELTA("0", "signature_delta", "\"signature\":\"s\""), BLOCK_STOP("0"), TEXT_BLOCK("1"),
         TEXT("1", "One"), BLOCK_STOP("1"),
         BLOCK("2", "tool_use", ",\"id\":\"t\",\"name\":\"f\",\"input\":{}"), BLOCK_STOP("2"),
         MESSAGE_DELTA("3"), MESSAGE_STOP);
    assert_text(&story, "One");
    assert_int_equal(story.client.block_count, 2);
    end(&story);

    begin(&story); /* the block had been ended when the first part broke off */
    TELL(&story, MESSAGE_START("1"), TEXT_BLOCK("0"), TEXT("0", "One"), BLOCK_STOP("0"));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, MESSAGE_START("2"), TEXT_BLOCK("0"), TEXT("0", " two"), BLOCK_STOP("0"),
         MESSAGE_DELTA("3"), MESSAGE_STOP);
    assert_text(&story, "One two");
    assert_int_equal(story.client.block_count, 2);
    end(&story);

    begin(&story); /* it has nothing to add */
    TELL(&story, MESSAGE_START("1"), TEXT_BLOCK("0"), TEXT("0", "One"));
    pl_rescue_begin_part(&story.rescue, true);
    TELL(&story, MESSAGE_START("2"), MESSAGE_DELTA("1"), MESSAGE_STOP);
    assert_text(&story, "One");
    assert_int_equal(story.client.open_block, -1);
    end(&story);
}

static void test_messages_parted(void **state)
{
    (void)state;
    static const char *const parts[] = {MESSAGE_DELTA("1"),
                                        MESSAGE_STOP,
                                        TEXT("0", "One"),
                                        BLOCK("0", "tool_use", ""),
                                        WORD("2", "One"),
                                        DONE,
                                        BLOCK("0", "text", ",\"text\":\"One\"")};
    struct story story;
    for (size_t i = 0; i < PL_COUNT(parts); i++) {
        begin(&story);
        TELL(&story, MESSAGE_START("1"), TEXT_BLOCK("0"), TEXT("0", "One"));
        pl_rescue_begin_part(&story.rescue, false);
        if (tell(&story, parts[i]) != PL_RESCUE_PARTED)
            fail_msg("%s", parts[i]);
        end(&story);
    }
}

/* ---- what stands in the way ----------------------------------------------------------------- */

static void test_obstacles(void **state)
{
    (void)state;
    static const struct {
        const char *event;
        enum pl_rescue_obstacle obstacle;
    } samples[] = {
        {CHUNK("1", "\"tool_calls\":[{\"index\":0}]", ""), PL_RESCUE_TOOL_CALL},
        {CHUNK("1", "\"function_call\":{\"name\":\"f\"}", ""), PL_RESCUE_TOOL_CALL},
        {CHUNK("1", "\"refusal\":\"no\"", ""), PL_RESCUE_CONTENT},
        {CHUNK("1", "\"content\":[{\"type\":\"text\",\"text\":\"a\"}]", ""), PL_RESCUE_CONTENT},
        {CHUNK("1", "\"audio\":{\"id\":\"a\"}", ""), PL_RESCUE_CONTENT},
        {CHUNK("1", "\"content\":\"\\udc00\"", ""), PL_RESCUE_CONTENT},
        {CHUNK("1", "\"content\":null,\"tool_calls\":[],\"refusal\":null", ""),
         PL_RESCUE_NO_OBSTACLE},
        {"{\"choices\":[{\"index\":1,\"delta\":{\"content\":\"a\"}}]}", PL_RESCUE_CHOICES},
        {"{\"choices\":[{\"index\":0,\"delta\":{}},{\"index\":0,\"delta\":{}}]}",
         PL_RESCUE_CHOICES},
        {"{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[{}]}}"
         "]}",
         PL_RESCUE_LOGPROBS},
        {TEXT("0", "a"), PL_RESCUE_API}, /* of a block that was not begun */
        {BLOCK("0", "tool_use", ",\"input\":{}"), PL_RESCUE_TOOL_CALL},
        {BLOCK("0", "thinking", ""), PL_RESCUE_REASONING},
        {"{\"type\":\"response.output_text.delta\",\"delta\":\"a\"}", PL_RESCUE_API},
        {"{\"type\":\"something_new\"}", PL_RESCUE_API},
        {"{\"token\":\"a\"}", PL_RESCUE_API},
        {"{}", PL_RESCUE_NO_OBSTACLE},
        {"17", PL_RESCUE_API},
        {PING, PL_RESCUE_NO_OBSTACLE},
    };
    struct story story;
    for (size_t i = 0; i < PL_COUNT(samples); i++) {
        begin(&story);
        pl_rescue_take(&story.rescue, PL_STR(""), pl_str_of(samples[i].event));
        if (pl_rescue_obstacle_now(&story.rescue) != samples[i].obstacle)
            fail_msg("%s: %s", samples[i].event,
                     pl_rescue_obstacle_name(pl_rescue_obstacle_now(&story.rescue)));
        end(&story);
    }
}

static void test_fields(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value;
        enum pl_rescue_obstacle obstacle;
    } samples[] = {
        {"n", "1", PL_RESCUE_NO_OBSTACLE},
        {"n", "2", PL_RESCUE_CHOICES},
        {"best_of", "3", PL_RESCUE_CHOICES},
        {"n", "null", PL_RESCUE_NO_OBSTACLE},
        {"logprobs", "true", PL_RESCUE_LOGPROBS},
        {"logprobs", "false", PL_RESCUE_NO_OBSTACLE},
        {"response_format", "{\"type\":\"text\"}", PL_RESCUE_NO_OBSTACLE},
        {"response_format", "{\"type\":\"json_object\"}", PL_RESCUE_STRUCTURED},
        {"response_format", "{\"type\":\"json_schema\",\"json_schema\":{}}", PL_RESCUE_STRUCTURED},
        {"guided_json", "{\"a\":1}", PL_RESCUE_STRUCTURED},
        {"output_config", "{\"effort\":\"high\"}", PL_RESCUE_NO_OBSTACLE},
        {"output_config", "{\"format\":{\"type\":\"json_schema\"}}", PL_RESCUE_STRUCTURED},
        {"echo", "true", PL_RESCUE_CONTENT},
        {"tools", "[{}]", PL_RESCUE_NO_OBSTACLE},
        {"messages", "[]", PL_RESCUE_NO_OBSTACLE},
    };
    for (size_t i = 0; i < PL_COUNT(samples); i++) {
        struct pl_rescue rescue;
        pl_rescue_init(&rescue, MAX_BYTES);
        pl_rescue_heed_field(&rescue, pl_str_of(samples[i].key), pl_str_of(samples[i].value));
        if (rescue.obstacle != samples[i].obstacle)
            fail_msg("%s = %s: %s", samples[i].key, samples[i].value,
                     pl_rescue_obstacle_name(rescue.obstacle));
        pl_rescue_deinit(&rescue);
    }
}

static void test_limits(void **state)
{
    (void)state;
    struct pl_rescue rescue;
    pl_rescue_init(&rescue, 5);
    assert_int_equal(pl_rescue_take(&rescue, PL_STR(""), pl_str_of(WORD("1", "12345"))),
                     PL_RESCUE_PASS);
    assert_int_equal(pl_rescue_obstacle_now(&rescue), PL_RESCUE_NO_OBSTACLE);
    assert_int_equal(pl_rescue_take(&rescue, PL_STR(""), pl_str_of(WORD("1", "6"))),
                     PL_RESCUE_PASS);
    assert_int_equal(pl_rescue_obstacle_now(&rescue), PL_RESCUE_TOO_LONG);
    assert_null(rescue.text.data);
    pl_rescue_deinit(&rescue);

    pl_rescue_init(&rescue, 0); /* only to judge */
    pl_rescue_take(&rescue, PL_STR(""), pl_str_of(WORD("1", "a")));
    assert_int_equal(pl_rescue_obstacle_now(&rescue), PL_RESCUE_OFF);
    assert_null(rescue.text.data);
    pl_rescue_take(&rescue, PL_STR(""), pl_str_of(STOP("1")));
    assert_true(rescue.seen_finish);
    assert_int_equal(rescue.form, PL_RESCUE_FORM_CHAT);
    pl_rescue_deinit(&rescue);
}

static void test_malformed_and_errors(void **state)
{
    (void)state;
    struct story story;
    begin(&story);
    TELL(&story, WORD("1", "One"));
    assert_int_equal(tell(&story, "{\"choices\":[{"), PL_RESCUE_MALFORMED);
    assert_int_equal(tell(&story, "<html>"), PL_RESCUE_MALFORMED);
    assert_int_equal(tell(&story, "{\"error\":{\"message\":\"m\"}}"), PL_RESCUE_ERROR);
    assert_int_equal(tell(&story, "{\"type\":\"error\",\"error\":{}}"), PL_RESCUE_ERROR);
    assert_int_equal(pl_rescue_obstacle_now(&story.rescue), PL_RESCUE_NO_OBSTACLE);
    pl_rescue_begin_part(&story.rescue, true);
    assert_int_equal(tell(&story, "{\"choices\":[{"), PL_RESCUE_MALFORMED);
    assert_int_equal(tell(&story, "{\"error\":{\"message\":\"m\"}}"), PL_RESCUE_ERROR);
    TELL(&story, WORD("2", " two"));
    assert_text(&story, "One two");
    end(&story);
}

/* ---- endings -------------------------------------------------------------------------------- */

#define E(json) "data: " json "\n\n"

static void test_endings(void **state)
{
    (void)state;
    static const struct {
        const char *events;
        enum pl_rescue_ending ending;
        enum pl_rescue_form form;
    } samples[] = {
        {E(STOP("1")), PL_RESCUE_ENDING_FINISHED, PL_RESCUE_FORM_CHAT},
        {E(WORD("1", "a")) E(STOP("1")), PL_RESCUE_ENDING_FINISHED, PL_RESCUE_FORM_CHAT},
        {E(USAGE("1", "1", "2", "3")), PL_RESCUE_ENDING_FINISHED, PL_RESCUE_FORM_CHAT},
        {E(WORD("1", "a")), PL_RESCUE_ENDING_UNFINISHED, PL_RESCUE_FORM_CHAT},
        {E(WORD("1", "a")) ": hi\n\n", PL_RESCUE_ENDING_UNFINISHED, PL_RESCUE_FORM_CHAT},
        {E("{\"choices\":[{\"text\":\"a\",\"finish_reason\":\"length\"}]}"),
         PL_RESCUE_ENDING_FINISHED, PL_RESCUE_FORM_COMPLETION},
        {E(MESSAGE_DELTA("1")), PL_RESCUE_ENDING_FINISHED, PL_RESCUE_FORM_MESSAGES},
        {E(TEXT("0", "a")), PL_RESCUE_ENDING_UNFINISHED, PL_RESCUE_FORM_MESSAGES},
        {E(PING), PL_RESCUE_ENDING_UNFINISHED, PL_RESCUE_FORM_MESSAGES},
        {E("{\"type\":\"response.output_text.delta\"}"), PL_RESCUE_ENDING_UNFINISHED,
         PL_RESCUE_FORM_RESPONSES},
        {E("{\"candidates\":[]}"), PL_RESCUE_ENDING_UNKNOWN, PL_RESCUE_FORM_UNKNOWN},
        {E("{\"type\":\"something_new\"}"), PL_RESCUE_ENDING_UNKNOWN, PL_RESCUE_FORM_UNKNOWN},
        {"", PL_RESCUE_ENDING_UNKNOWN, PL_RESCUE_FORM_UNKNOWN},
    };
    for (size_t i = 0; i < PL_COUNT(samples); i++) {
        enum pl_rescue_form form;
        enum pl_rescue_ending ending = pl_rescue_judge_ending(pl_str_of(samples[i].events), &form);
        if (ending != samples[i].ending || form != samples[i].form)
            fail_msg("%s: %d, %d", samples[i].events, (int)ending, (int)form);
    }
    assert_true(pl_str_equal(pl_rescue_terminal(PL_RESCUE_FORM_CHAT), PL_STR("data: [DONE]\n\n")));
    assert_int_equal(pl_rescue_terminal(PL_RESCUE_FORM_UNKNOWN).len, 0);
}

/* ---- what is asked -------------------------------------------------------------------------- */

static void assert_messages(const char *messages, const char *prefix, const char *members,
                            const char *expected)
{
    struct pl_rescue_text out = {0};
    bool made =
        pl_rescue_put_messages(&out, pl_str_of(messages), pl_str_of(prefix), pl_str_of(members));
    assert_int_equal(made, expected != NULL);
    if (expected) {
        char *text = pl_xstrndup(out.data, out.len);
        assert_string_equal(text, expected);
        assert_int_equal(pl_json_validate(text, out.len), PL_OK);
        free(text);
    }
    pl_rescue_text_deinit(&out);
}

static void test_asking(void **state)
{
    (void)state;
    assert_messages("[ {\"role\":\"user\",\"content\":\"a\",\"x\":[],\"y\":12345678901234567890} ]",
                    "One \"two\"", "",
                    "[ {\"role\":\"user\",\"content\":\"a\",\"x\":[],\"y\":12345678901234567890},"
                    "{\"role\":\"assistant\",\"content\":\"One \\\"two\\\"\"}]");
    assert_messages(
        "[{\"role\":\"user\"}]", "One", ",\"prefix\":true",
        "[{\"role\":\"user\"},{\"role\":\"assistant\",\"content\":\"One\",\"prefix\":true}]");
    assert_messages("[{\"role\":\"user\"},{\"role\":\"assistant\",\"content\":\"Well, \"}]", "One",
                    "", "[{\"role\":\"user\"},{\"role\":\"assistant\",\"content\":\"Well, One\"}]");
    assert_messages("[{\"role\":\"assistant\",\"content\":[{\"type\":\"text\"}]}]", "One", "",
                    NULL);
    assert_messages("[]", "One", "", NULL);
    assert_messages("\"a\"", "One", "", NULL);
    assert_messages("{\"a\":1}", "One", "", NULL);

    struct pl_rescue_text out = {0};
    assert_true(pl_rescue_put_prompt(&out, PL_STR("\"a\\n\""), PL_STR("One")));
    assert_true(pl_str_equal((struct pl_str){out.data, out.len}, PL_STR("\"a\\nOne\"")));
    assert_false(pl_rescue_put_prompt(&out, PL_STR("[\"a\"]"), PL_STR("One")));
    pl_rescue_text_deinit(&out);
    assert_int_equal(pl_rescue_tokens_left(PL_STR("100"), 40), 60);
    assert_int_equal(pl_rescue_tokens_left(PL_STR("10"), 40), 1);
    assert_int_equal(pl_rescue_tokens_left(PL_STR("null"), 40), -1);
    assert_int_equal(pl_rescue_tokens_left(PL_STR("1.5"), 40), -1);
}

/* ---- many seams ----------------------------------------------------------------------------- */

static const char pangram[] = "Zw\xC3\xB6lf Boxk\xC3\xA4mpfer jagen Viktor \xE2\x80\x94 quer\n\n"
                              "\xC3\xBC"
                              "ber \"den\" gro\xC3\x9F"
                              "en Sylter Deich \xF0\x9F\xA5\x8A.";

static size_t next_cut(size_t at, size_t want)
{
    size_t end = PL_MIN(at + want, sizeof(pangram) - 1);
    while (end < sizeof(pangram) - 1 && ((uint8_t)pangram[end] & 0xC0) == 0x80)
        end++;
    return end;
}

static char *event_with(bool is_messages, const char *text, size_t len)
{
    char *event = pl_xmalloc(1024);
    size_t literal_len;
    char *literal = pl_json_encode_string(text, len, &literal_len);
    const char *format =
        is_messages ? "{\"type\":\"content_block_delta\",\"index\":0,"
                      "\"delta\":{\"type\":\"text_delta\",\"text\":%s}}"
                    : "{\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%s}}]}";
    snprintf(event, 1024, format, literal);
    free(literal);
    return event;
}

/* Says the pangram from one place to another in pieces of random size. */
static void say(struct story *self, bool is_messages, size_t from, size_t to)
{
    if (is_messages && self->rescue.part_count == 1)
        TELL(self, MESSAGE_START("1"), TEXT_BLOCK("0"));
    else if (is_messages)
        TELL(self, MESSAGE_START("2"), TEXT_BLOCK("0"));
    while (from < to) {
        size_t end = PL_MIN(next_cut(from, 1 + pl_random_u64() % 12), to);
        char *event = event_with(is_messages, pangram + from, end - from);
        TELL(self, event);
        free(event);
        from = end;
    }
}

static void test_random_seams(void **state)
{
    (void)state;
    pl_random_seed(7);
    for (int round = 0; round < 3000; round++) {
        struct story story;
        bool is_messages = round % 2;
        size_t last = sizeof(pangram) - 1, cut = next_cut(0, pl_random_u64() % last);
        begin(&story);
        say(&story, is_messages, 0, cut);
        for (int part = 0; part < 2; part++) {
            bool continues = pl_random_u64() % 2, repeats = pl_random_u64() % 3 == 0;
            size_t prefix = pl_rescue_prefix(&story.rescue).len;
            size_t from =
                !continues || (repeats && prefix >= PL_RESCUE_REPEAT_MIN_BYTES) ? 0 : prefix;
            size_t to = part == 1 ? last : next_cut(from, pl_random_u64() % last);
            pl_rescue_begin_part(&story.rescue, continues);
            say(&story, is_messages, from, to);
        }
        if (is_messages)
            TELL(&story, BLOCK_STOP("0"), MESSAGE_DELTA("9"), MESSAGE_STOP);
        else
            TELL(&story, STOP("9"), DONE);
        assert_text(&story, pangram);
        end(&story);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_part),
        cmocka_unit_test(test_continue),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_restart_within_characters),
        cmocka_unit_test(test_parted),
        cmocka_unit_test(test_repetition),
        cmocka_unit_test(test_no_repetition),
        cmocka_unit_test(test_space_at_the_seam),
        cmocka_unit_test(test_several_seams),
        cmocka_unit_test(test_nothing_said),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_reasoning_and_tools),
        cmocka_unit_test(test_events_without_choices),
        cmocka_unit_test(test_completions),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_messages_parted),
        cmocka_unit_test(test_obstacles),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_malformed_and_errors),
        cmocka_unit_test(test_endings),
        cmocka_unit_test(test_asking),
        cmocka_unit_test(test_random_seams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
