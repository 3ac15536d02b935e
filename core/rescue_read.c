/*
 * What an event says: see rescue_read.h.
 *
 * Errors and what is no JSON are told by gate_judge.c, as they are before the commit. Of the rest
 * what is not known stands in the way: a new kind of content is never cut in two unawares.
 */
#include "rescue_read.h"
#include "gate_judge.h"
#include "json_walk.h"
#include <stdlib.h>
#include <string.h>

static bool is_one_of(struct pl_str text, const char *const *names)
{
    for (; *names; names++) {
        if (pl_str_equal(text, pl_str_of(*names)))
            return true;
    }
    return false;
}

static bool is_string(struct pl_str value)
{
    return value.len >= 2 && value.data[0] == '"';
}

static void stand_in_the_way(struct pl_rescue_said *self, enum pl_rescue_obstacle obstacle)
{
    if (self->obstacle == PL_RESCUE_NO_OBSTACLE)
        self->obstacle = obstacle;
}

int64_t pl_rescue_number(struct pl_str value)
{
    int64_t number = 0;
    if (value.len == 0 || value.len > 15)
        return -1;
    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] < '0' || value.data[i] > '9')
            return -1;
        number = number * 10 + (value.data[i] - '0');
    }
    return number;
}

/* ---- choices: chat, completions ------------------------------------------------------------- */

static const char *const reasonings[] = {"reasoning_content", "reasoning", "reasoning_details",
                                         "thinking", NULL};

static void read_delta_member(struct pl_rescue_said *self, struct pl_str key, struct pl_str value)
{
    static const char *const labels[] = {"name", "id", "index", "type", "signature", NULL};
    static const char *const calls[] = {"tool_calls", "function_call", NULL};
    if (pl_str_equal(key, PL_STR("role"))) {
        const char *start = key.data - 1;
        self->role = (struct pl_str){start, (size_t)(value.data + value.len - start)};
        return;
    }
    if (pl_json_is_blank(value) || is_one_of(key, labels))
        return;
    if (pl_str_equal(key, PL_STR("content")) && is_string(value))
        self->text = value;
    else if (is_one_of(key, reasonings))
        self->is_reasoning = true;
    else
        stand_in_the_way(self, is_one_of(key, calls) ? PL_RESCUE_TOOL_CALL : PL_RESCUE_CONTENT);
}

static void read_delta(struct pl_rescue_said *self, struct pl_str delta)
{
    struct pl_json_walk walk;
    struct pl_str key, value;
    pl_json_walk_init(&walk, delta);
    while (pl_json_walk_next(&walk, &key, &value))
        read_delta_member(self, key, value);
}

static void read_choice_member(struct pl_rescue_said *self, struct pl_str key, struct pl_str value)
{
    if (pl_str_equal(key, PL_STR("delta"))) {
        self->form = PL_RESCUE_FORM_CHAT;
        read_delta(self, value);
    } else if (pl_str_equal(key, PL_STR("text"))) {
        self->form = PL_RESCUE_FORM_COMPLETION;
        if (is_string(value) && !pl_json_is_blank(value))
            self->text = value;
    } else if (pl_str_equal(key, PL_STR("finish_reason"))) {
        self->is_finish |= is_string(value) && !pl_json_is_blank(value);
        self->is_error |= pl_str_equal(value, PL_STR("\"error\""));
    } else if (pl_str_equal(key, PL_STR("logprobs"))) {
        if (!pl_json_is_blank(value))
            stand_in_the_way(self, PL_RESCUE_LOGPROBS);
    } else if (pl_str_equal(key, PL_STR("index"))) {
        if (!pl_str_equal(value, PL_STR("0")))
            stand_in_the_way(self, PL_RESCUE_CHOICES);
    } else if (pl_str_equal(key, PL_STR("message"))) {
        stand_in_the_way(self, PL_RESCUE_CONTENT);
    }
}

static void read_choices(struct pl_rescue_said *self, struct pl_str choices)
{
    struct pl_json_walk list, walk;
    struct pl_str choice, key, value;
    self->form = PL_RESCUE_FORM_CHAT;
    pl_json_walk_init(&list, choices);
    while (pl_json_walk_next(&list, NULL, &choice)) {
        if (self->has_choice)
            stand_in_the_way(self, PL_RESCUE_CHOICES);
        self->has_choice = true;
        pl_json_walk_init(&walk, choice);
        while (pl_json_walk_next(&walk, &key, &value))
            read_choice_member(self, key, value);
    }
}

/* ---- messages, responses -------------------------------------------------------------------- */

static void read_block(struct pl_rescue_said *self, struct pl_str block)
{
    static const char *const thoughts[] = {"thinking", "redacted_thinking", NULL};
    struct pl_str type = pl_json_string_bytes(pl_json_walk_member(block, PL_STR("type")));
    self->block = is_one_of(type, thoughts)            ? PL_RESCUE_THINKING_BLOCK
                  : pl_str_equal(type, PL_STR("text")) ? PL_RESCUE_TEXT_BLOCK
                                                       : PL_RESCUE_OTHER_BLOCK;
    self->is_reasoning = self->block == PL_RESCUE_THINKING_BLOCK;
    if (self->block == PL_RESCUE_OTHER_BLOCK)
        stand_in_the_way(self, PL_RESCUE_TOOL_CALL);
    /* no API puts text there, and it would be lost where the block is not begun anew */
    if (!pl_json_is_blank(pl_json_walk_member(block, PL_STR("text"))))
        stand_in_the_way(self, PL_RESCUE_CONTENT);
}

static void read_block_delta(struct pl_rescue_said *self, struct pl_str delta)
{
    static const char *const thoughts[] = {"thinking_delta", "signature_delta", NULL};
    struct pl_str type = pl_json_string_bytes(pl_json_walk_member(delta, PL_STR("type")));
    struct pl_str text = pl_json_walk_member(delta, PL_STR("text"));
    if (is_one_of(type, thoughts))
        self->is_reasoning = true;
    else if (pl_str_equal(type, PL_STR("input_json_delta")))
        stand_in_the_way(self, PL_RESCUE_TOOL_CALL);
    else if (!pl_str_equal(type, PL_STR("text_delta")))
        stand_in_the_way(self, PL_RESCUE_CONTENT);
    else if (is_string(text) && !pl_json_is_blank(text))
        self->text = text;
}

static enum pl_rescue_step step_named(struct pl_str type)
{
    static const struct {
        const char *name;
        enum pl_rescue_step step;
    } steps[] = {{"content_block_delta", PL_RESCUE_BLOCK_DELTA},
                 {"content_block_start", PL_RESCUE_BLOCK_START},
                 {"content_block_stop", PL_RESCUE_BLOCK_STOP},
                 {"message_start", PL_RESCUE_MESSAGE_START},
                 {"message_delta", PL_RESCUE_MESSAGE_DELTA},
                 {"message_stop", PL_RESCUE_MESSAGE_STOP}};
    for (size_t i = 0; i < PL_COUNT(steps); i++) {
        if (pl_str_equal(type, pl_str_of(steps[i].name)))
            return steps[i].step;
    }
    return PL_RESCUE_NO_STEP;
}

static void read_message_event(struct pl_rescue_said *self, struct pl_str type, struct pl_str event)
{
    static const char *const pings[] = {"ping", "keepalive", NULL};
    struct pl_str delta = pl_json_walk_member(event, PL_STR("delta"));
    self->step = step_named(type);
    if (self->step != PL_RESCUE_NO_STEP || is_one_of(type, pings))
        self->form = PL_RESCUE_FORM_MESSAGES;
    self->index = pl_json_walk_member(event, PL_STR("index"));
    switch (self->step) {
    case PL_RESCUE_MESSAGE_START:
        self->usage =
            pl_json_walk_member(pl_json_walk_member(event, PL_STR("message")), PL_STR("usage"));
        break;
    case PL_RESCUE_BLOCK_START:
        read_block(self, pl_json_walk_member(event, PL_STR("content_block")));
        break;
    case PL_RESCUE_BLOCK_DELTA:
        read_block_delta(self, delta);
        break;
    case PL_RESCUE_MESSAGE_DELTA:
        self->is_finish = !pl_json_is_blank(pl_json_walk_member(delta, PL_STR("stop_reason")));
        break;
    case PL_RESCUE_MESSAGE_STOP:
        self->is_terminal = true;
        break;
    case PL_RESCUE_BLOCK_STOP:
        break;
    case PL_RESCUE_NO_STEP:
        if (!is_one_of(type, pings))
            stand_in_the_way(self, PL_RESCUE_API);
        break;
    }
}

static void read_response_event(struct pl_rescue_said *self, struct pl_str type)
{
    static const char *const ends[] = {"response.completed", "response.incomplete",
                                       "response.failed", NULL};
    self->form = PL_RESCUE_FORM_RESPONSES;
    self->is_finish = self->is_terminal = is_one_of(type, ends);
    stand_in_the_way(self, PL_RESCUE_API);
}

/* ---- one event ------------------------------------------------------------------------------ */

static void read_typed(struct pl_rescue_said *self, struct pl_str type, struct pl_str event)
{
    if (type.len > 9 && memcmp(type.data, "response.", 9) == 0)
        read_response_event(self, type);
    else
        read_message_event(self, type, event);
}

static void read_object(struct pl_rescue_said *self, struct pl_str event)
{
    struct pl_str type = PL_STR(""), choices = PL_STR("");
    struct pl_json_walk walk;
    struct pl_str key, value;
    pl_json_walk_init(&walk, event);
    while (pl_json_walk_next(&walk, &key, &value)) {
        if (pl_str_equal(key, PL_STR("id")))
            self->id = value;
        else if (pl_str_equal(key, PL_STR("created")))
            self->created = value;
        else if (pl_str_equal(key, PL_STR("usage")) && value.data[0] == '{')
            self->usage = value;
        else if (pl_str_equal(key, PL_STR("type")))
            type = pl_json_string_bytes(value);
        else if (pl_str_equal(key, PL_STR("choices")) && value.data[0] == '[')
            choices = value;
    }
    if (type.len > 0)
        read_typed(self, type, event);
    else if (choices.len > 0)
        read_choices(self, choices);
    else if (self->usage.len == 0 && !pl_json_is_blank(event))
        stand_in_the_way(self, PL_RESCUE_API);
}

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n';
}

static struct pl_str trim(struct pl_str text)
{
    while (text.len > 0 && is_space(text.data[text.len - 1]))
        text.len--;
    while (text.len > 0 && is_space(text.data[0]))
        text = (struct pl_str){text.data + 1, text.len - 1};
    return text;
}

void pl_rescue_read(struct pl_rescue_said *self, struct pl_str name, struct pl_str data)
{
    const struct pl_str none = PL_STR("");
    *self = (struct pl_rescue_said){
        .text = none, .id = none, .created = none, .usage = none, .role = none, .index = none};
    enum pl_gate_verdict verdict = pl_gate_judge_frame(name, data);
    self->is_malformed = verdict == PL_GATE_MALFORMED;
    self->is_error = verdict == PL_GATE_ERROR;
    if (self->is_malformed || self->is_error)
        return;
    data = trim(data);
    self->is_terminal = pl_str_equal(data, PL_STR("[DONE]"));
    if (!self->is_terminal && data.len > 0 && data.data[0] == '{')
        read_object(self, data);
    else if (!self->is_terminal && verdict == PL_GATE_MEANINGFUL)
        stand_in_the_way(self, PL_RESCUE_API);
}

/* ---- the request ---------------------------------------------------------------------------- */

static bool is_plain_format(struct pl_str value)
{
    struct pl_str type = pl_json_string_bytes(pl_json_walk_member(value, PL_STR("type")));
    return pl_json_is_blank(value) || pl_str_equal(type, PL_STR("text"));
}

enum pl_rescue_obstacle pl_rescue_obstacle_of_field(struct pl_str key, struct pl_str value)
{
    static const char *const counts[] = {"n", "best_of", NULL};
    static const char *const formats[] = {"response_format", "output_format", NULL};
    static const char *const grammars[] = {
        "guided_json", "guided_regex",       "guided_choice", "guided_grammar", "format", "regex",
        "json_schema", "structured_outputs", "grammar",       "ebnf",           NULL};
    static const char *const others[] = {"echo", "audio", NULL};
    if (pl_json_is_blank(value))
        return PL_RESCUE_NO_OBSTACLE;
    if (is_one_of(key, counts))
        return pl_str_equal(value, PL_STR("1")) ? PL_RESCUE_NO_OBSTACLE : PL_RESCUE_CHOICES;
    if (pl_str_equal(key, PL_STR("logprobs")))
        return PL_RESCUE_LOGPROBS;
    if (is_one_of(key, formats))
        return is_plain_format(value) ? PL_RESCUE_NO_OBSTACLE : PL_RESCUE_STRUCTURED;
    if (is_one_of(key, grammars))
        return PL_RESCUE_STRUCTURED;
    if (pl_str_equal(key, PL_STR("output_config")))
        value = pl_json_walk_member(value, PL_STR("format"));
    if (pl_str_equal(key, PL_STR("output_config")) && !pl_json_is_blank(value))
        return PL_RESCUE_STRUCTURED;
    return is_one_of(key, others) ? PL_RESCUE_CONTENT : PL_RESCUE_NO_OBSTACLE;
}

const char *pl_rescue_obstacle_name(enum pl_rescue_obstacle obstacle)
{
    static const char *const names[] = {"none",      "off",     "tool_call", "structured",
                                        "reasoning", "choices", "logprobs",  "content",
                                        "too_long",  "api"};
    return names[obstacle];
}
