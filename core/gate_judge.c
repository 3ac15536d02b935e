/*
 * What events and whole answers mean: see gate_judge.h.
 *
 * Forms are told by their top-level members: "error", then "type" (responses, messages), then
 * "choices" (chat, completions). Within a piece of an answer any member that is not blank counts as
 * content, but for those that only say who speaks: so new kinds of content need no mention here.
 */
#include "gate_judge.h"
#include "json.h"
#include "json_walk.h"
#include <string.h>

static struct pl_str member(struct pl_str object, const char *key)
{
    return pl_json_walk_member(object, pl_str_of(key));
}

static struct pl_str string_member(struct pl_str object, const char *key)
{
    return pl_json_string_bytes(member(object, key));
}

static bool is_object(struct pl_str value)
{
    return value.len > 0 && value.data[0] == '{';
}

static bool is_one_of(struct pl_str text, const char *const *names)
{
    for (; *names; names++) {
        if (pl_str_equal(text, pl_str_of(*names)))
            return true;
    }
    return false;
}

static bool ends_with(struct pl_str text, const char *end)
{
    size_t len = strlen(end);
    return text.len >= len && memcmp(text.data + text.len - len, end, len) == 0;
}

static enum pl_gate_verdict meaningful_if(bool meaningful)
{
    return meaningful ? PL_GATE_MEANINGFUL : PL_GATE_WAIT;
}

/* Some member says something, other than who speaks and of what kind it is. */
static bool has_content(struct pl_str object)
{
    static const char *const labels[] = {"role", "name", "id", "index", "type", "signature", NULL};
    struct pl_json_walk walk;
    struct pl_str key, value;
    pl_json_walk_init(&walk, object);
    while (pl_json_walk_next(&walk, &key, &value)) {
        if (!pl_json_is_blank(value) && !is_one_of(key, labels))
            return true;
    }
    return false;
}

/* ---- choices: chat, completions ------------------------------------------------------------- */

struct choice {
    struct pl_str finish_reason; /* empty while it goes on */
    bool has_content, is_known, is_another;
};

static void read_choice(struct choice *self, struct pl_str choice)
{
    struct pl_json_walk walk;
    struct pl_str key, value;
    *self = (struct choice){.finish_reason = PL_STR("")};
    pl_json_walk_init(&walk, choice);
    while (pl_json_walk_next(&walk, &key, &value)) {
        bool is_piece = pl_str_equal(key, PL_STR("delta")) || pl_str_equal(key, PL_STR("message"));
        bool is_text = pl_str_equal(key, PL_STR("text"));
        bool is_finish = pl_str_equal(key, PL_STR("finish_reason"));
        self->is_known |= is_piece || is_text || is_finish;
        self->has_content |= is_piece && has_content(value);
        self->has_content |= is_text && !pl_json_is_blank(value);
        if (is_finish)
            self->finish_reason = pl_json_string_bytes(value);
        if (pl_str_equal(key, PL_STR("index")))
            self->is_another = !pl_str_equal(value, PL_STR("0"));
    }
}

/* A filtered answer is one: to ask another target would be to try what has been refused. */
static enum pl_gate_verdict judge_choice(const struct choice *self)
{
    if (self->has_content || !self->is_known ||
        pl_str_equal(self->finish_reason, PL_STR("content_filter")))
        return PL_GATE_MEANINGFUL;
    if (pl_str_equal(self->finish_reason, PL_STR("error")))
        return PL_GATE_ERROR;
    return self->finish_reason.len > 0 ? PL_GATE_EMPTY : PL_GATE_WAIT;
}

static enum pl_gate_verdict judge_choices(struct pl_gate_seen *seen, struct pl_str choices)
{
    enum pl_gate_verdict verdict = PL_GATE_WAIT;
    struct pl_json_walk walk;
    struct pl_str value;
    struct choice choice;
    size_t count = 0;
    pl_json_walk_init(&walk, choices);
    while (pl_json_walk_next(&walk, NULL, &value)) {
        read_choice(&choice, value);
        enum pl_gate_verdict one = judge_choice(&choice);
        if (one == PL_GATE_MEANINGFUL || one == PL_GATE_ERROR)
            return one;
        seen->several_choices |= choice.is_another || count++ > 0;
        verdict = one == PL_GATE_EMPTY ? one : verdict;
    }
    return verdict == PL_GATE_EMPTY && seen->several_choices ? PL_GATE_WAIT : verdict;
}

/* ---- responses ------------------------------------------------------------------------------ */

/* A part of a message; kinds without these members are content by themselves. */
static bool part_has_content(struct pl_str part)
{
    static const char *const texts[] = {"text", "refusal", "thinking", NULL};
    bool is_text = false;
    struct pl_json_walk walk;
    struct pl_str key, value;
    pl_json_walk_init(&walk, part);
    while (pl_json_walk_next(&walk, &key, &value)) {
        if (!is_one_of(key, texts))
            continue;
        is_text = true;
        if (!pl_json_is_blank(value))
            return true;
    }
    return !is_text;
}

static bool any_part_has_content(struct pl_str parts)
{
    struct pl_json_walk walk;
    struct pl_str value;
    if (parts.len > 0 && parts.data[0] == '"')
        return !pl_json_is_blank(parts);
    pl_json_walk_init(&walk, parts);
    while (pl_json_walk_next(&walk, NULL, &value)) {
        if (part_has_content(value))
            return true;
    }
    return false;
}

/* Calls of tools and the like are content by themselves. */
static bool item_has_content(struct pl_str item)
{
    struct pl_str type = string_member(item, "type");
    if (pl_str_equal(type, PL_STR("message")))
        return any_part_has_content(member(item, "content"));
    return !pl_str_equal(type, PL_STR("reasoning"));
}

static bool output_has_content(struct pl_str response)
{
    struct pl_json_walk walk;
    struct pl_str item;
    pl_json_walk_init(&walk, member(response, "output"));
    while (pl_json_walk_next(&walk, NULL, &item)) {
        if (item_has_content(item))
            return true;
    }
    return false;
}

static bool is_filtered(struct pl_str response)
{
    struct pl_str reason = string_member(member(response, "incomplete_details"), "reason");
    return pl_str_equal(reason, PL_STR("content_filter"));
}

static enum pl_gate_verdict judge_response_end(struct pl_str response)
{
    bool meaningful = output_has_content(response) || is_filtered(response);
    return meaningful ? PL_GATE_MEANINGFUL : PL_GATE_EMPTY;
}

/* "response.output_text.delta" and some forty others; what is not known here is content. */
static enum pl_gate_verdict judge_response_event(struct pl_str type, struct pl_str event)
{
    static const char *const frames[] = {"response.created", "response.in_progress",
                                         "response.queued", NULL};
    static const char *const ends[] = {"response.completed", "response.incomplete", NULL};
    struct pl_str item = member(event, "item"), part = member(event, "part");
    if (is_one_of(type, frames))
        return PL_GATE_WAIT;
    if (is_one_of(type, ends))
        return judge_response_end(member(event, "response"));
    if (pl_str_equal(type, PL_STR("response.failed")))
        return PL_GATE_ERROR;
    if (ends_with(type, ".delta"))
        return meaningful_if(!pl_json_is_blank(member(event, "delta")));
    if (is_object(item))
        return meaningful_if(item_has_content(item));
    if (is_object(part))
        return meaningful_if(part_has_content(part));
    if (ends_with(type, ".done"))
        return meaningful_if(part_has_content(event));
    return PL_GATE_MEANINGFUL;
}

/* ---- messages ------------------------------------------------------------------------------- */

static bool is_refusal(struct pl_str message)
{
    return pl_str_equal(string_member(message, "stop_reason"), PL_STR("refusal"));
}

static enum pl_gate_verdict judge_message_delta(struct pl_str delta)
{
    if (pl_json_is_blank(member(delta, "stop_reason")))
        return PL_GATE_WAIT;
    return is_refusal(delta) ? PL_GATE_MEANINGFUL : PL_GATE_EMPTY;
}

static enum pl_gate_verdict judge_message_event(struct pl_str type, struct pl_str event)
{
    static const char *const frames[] = {"message_start", "content_block_stop", "ping", "keepalive",
                                         NULL};
    if (is_one_of(type, frames))
        return PL_GATE_WAIT;
    if (pl_str_equal(type, PL_STR("content_block_start")))
        return meaningful_if(part_has_content(member(event, "content_block")));
    if (pl_str_equal(type, PL_STR("content_block_delta")))
        return meaningful_if(has_content(member(event, "delta")));
    if (pl_str_equal(type, PL_STR("message_delta")))
        return judge_message_delta(member(event, "delta"));
    if (pl_str_equal(type, PL_STR("message_stop")))
        return PL_GATE_EMPTY;
    return PL_GATE_MEANINGFUL;
}

/* ---- one event ------------------------------------------------------------------------------ */

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static struct pl_str trim(struct pl_str text)
{
    while (text.len > 0 && is_space(text.data[0]))
        text = (struct pl_str){text.data + 1, text.len - 1};
    while (text.len > 0 && is_space(text.data[text.len - 1]))
        text.len--;
    return text;
}

/* Some wrap their errors in an array. */
static struct pl_str unwrap(struct pl_str value)
{
    struct pl_json_walk walk;
    struct pl_str first;
    pl_json_walk_init(&walk, value);
    bool wraps = value.data[0] == '[' && pl_json_walk_next(&walk, NULL, &first) &&
                 is_object(first) && !pl_json_is_blank(member(first, "error"));
    return wraps ? first : value;
}

/* Bedrock: {"throttlingException": {"message": ...}}, or the name of the event. */
static bool is_exception(struct pl_str name)
{
    static const char end[] = "Exception";
    size_t len = sizeof(end) - 1;
    return name.len > len && memcmp(name.data + name.len - len, end, len) == 0;
}

/* What forms are told by. */
struct top {
    struct pl_str error, type, choices; /* empty where there is none */
};

static struct top read_top(struct pl_str object)
{
    struct top top = {PL_STR(""), PL_STR(""), PL_STR("")};
    struct pl_json_walk walk;
    struct pl_str key, value;
    pl_json_walk_init(&walk, object);
    while (pl_json_walk_next(&walk, &key, &value)) {
        if (pl_str_equal(key, PL_STR("error")) || (is_exception(key) && is_object(value)))
            top.error = value;
        else if (pl_str_equal(key, PL_STR("type")))
            top.type = pl_json_string_bytes(value);
        else if (pl_str_equal(key, PL_STR("choices")) && value.data[0] == '[')
            top.choices = value;
    }
    return top;
}

static bool is_error(const struct top *self)
{
    return !pl_json_is_blank(self->error) || pl_str_equal(self->type, PL_STR("error"));
}

static enum pl_gate_verdict judge_object(struct pl_gate_seen *seen, struct pl_str event)
{
    struct top top = read_top(event);
    if (is_error(&top))
        return PL_GATE_ERROR;
    if (top.type.len > 9 && memcmp(top.type.data, "response.", 9) == 0)
        return judge_response_event(top.type, event);
    if (top.type.len > 0)
        return judge_message_event(top.type, event);
    if (top.choices.len > 0)
        return judge_choices(seen, top.choices);
    return meaningful_if(!pl_json_is_blank(event));
}

/* The event's object into `object`, where it is to be looked into; else the verdict is all. */
static enum pl_gate_verdict open_event(struct pl_str name, struct pl_str data,
                                       struct pl_str *object)
{
    struct pl_str text = trim(data);
    *object = PL_STR("");
    if (pl_str_equal(name, PL_STR("error")) || is_exception(name))
        return PL_GATE_ERROR;
    if (pl_str_equal(name, PL_STR("ping")) || text.len == 0)
        return PL_GATE_WAIT;
    if (pl_str_equal(text, PL_STR("[DONE]")))
        return PL_GATE_EMPTY;
    int rc = pl_json_validate(text.data, text.len);
    if (rc != PL_OK)
        return rc == PL_ERR_LIMIT ? PL_GATE_MEANINGFUL : PL_GATE_MALFORMED;
    text = unwrap(text);
    if (!is_object(text))
        return PL_GATE_MEANINGFUL;
    *object = text;
    return PL_GATE_WAIT;
}

enum pl_gate_verdict pl_gate_judge_event(struct pl_gate_seen *seen, struct pl_str name,
                                         struct pl_str data)
{
    struct pl_str object;
    enum pl_gate_verdict verdict = open_event(name, data, &object);
    return object.len > 0 ? judge_object(seen, object) : verdict;
}

enum pl_gate_verdict pl_gate_judge_frame(struct pl_str name, struct pl_str data)
{
    struct pl_str object;
    enum pl_gate_verdict verdict = open_event(name, data, &object);
    if (object.len == 0)
        return verdict;
    struct top top = read_top(object);
    bool failed = is_error(&top) || pl_str_equal(top.type, PL_STR("response.failed"));
    return failed ? PL_GATE_ERROR : PL_GATE_WAIT;
}

/* ---- a whole answer ------------------------------------------------------------------------- */

static enum pl_gate_verdict judge_answer(struct pl_str answer)
{
    struct pl_gate_seen seen = {0};
    struct top top = read_top(answer);
    if (is_error(&top))
        return PL_GATE_ERROR;
    enum pl_gate_verdict verdict = judge_choices(&seen, top.choices);
    if (verdict == PL_GATE_MEANINGFUL || verdict == PL_GATE_ERROR)
        return verdict;
    bool has_answer = output_has_content(answer) || is_filtered(answer) || is_refusal(answer) ||
                      any_part_has_content(member(answer, "content")) ||
                      !pl_json_is_blank(member(answer, "data"));
    return has_answer ? PL_GATE_MEANINGFUL : PL_GATE_EMPTY;
}

enum pl_gate_verdict pl_gate_judge_body(struct pl_str body)
{
    struct pl_str text = trim(body);
    if (text.len == 0)
        return PL_GATE_EMPTY;
    int rc = pl_json_validate(text.data, text.len);
    if (rc != PL_OK)
        return rc == PL_ERR_LIMIT ? PL_GATE_MEANINGFUL : PL_GATE_MALFORMED;
    text = unwrap(text);
    return is_object(text) ? judge_answer(text) : PL_GATE_MALFORMED;
}
