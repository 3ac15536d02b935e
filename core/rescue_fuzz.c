/*
 * Fuzz target of events.c and the rescue_* files: an answer in several parts, divided by zero
 * bytes. However its stream is cut the verdicts are the same; what goes to the client in place of
 * an event is whole events of valid JSON; memory stays bounded, and the text only ever grows.
 */
#include "events.h"
#include "json.h"
#include "rescue.h"
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

/* What is sent in place of an event. */
static void check_out(struct pl_str bytes)
{
    struct pl_events events;
    struct pl_rescue_said said;
    enum pl_events_found found = PL_EVENTS_BLANK;
    pl_events_init(&events, 1 << 20);
    for (size_t at = 0; at < bytes.len;) {
        at += pl_events_next(&events, bytes.data + at, bytes.len - at, &found);
        if (found != PL_EVENTS_EVENT)
            continue;
        pl_rescue_read(&said, pl_events_name(&events), pl_events_data(&events));
        require(!said.is_malformed);
    }
    require(found == PL_EVENTS_EVENT || bytes.len == 0);
    pl_events_deinit(&events);
}

static uint64_t take(struct pl_rescue *rescue, const struct pl_events *events, uint64_t hash)
{
    struct pl_str data = pl_events_data(events);
    size_t before = rescue->text.len;
    char *copy = malloc(data.len); /* so that a sanitizer sees every byte read beyond it */
    require(copy != NULL);
    memcpy(copy, data.data, data.len);
    enum pl_rescue_verdict verdict =
        pl_rescue_take(rescue, pl_events_name(events), (struct pl_str){copy, data.len});
    free(copy);
    if (verdict == PL_RESCUE_REPLACED)
        check_out((struct pl_str){rescue->out.data ? rescue->out.data : "", rescue->out.len});
    require(rescue->text.len <= MAX_BYTES);
    require(rescue->text.len >= before || rescue->obstacle != PL_RESCUE_NO_OBSTACLE);
    require(verdict != PL_RESCUE_PARTED || rescue->part_count > 1);
    return hash * 31 + (uint64_t)verdict * 7 + rescue->out.len + rescue->text.len;
}

/* Feeds one part in steps of so many bytes. */
static uint64_t feed(struct pl_rescue *rescue, const char *data, size_t len, size_t step,
                     uint64_t hash)
{
    struct pl_events events;
    enum pl_events_found found = PL_EVENTS_MORE;
    pl_events_init(&events, MAX_BYTES);
    for (size_t from = 0; from < len && found != PL_EVENTS_TOO_LARGE; from += step) {
        size_t end = PL_MIN(from + step, len);
        for (size_t at = from; at < end && found != PL_EVENTS_TOO_LARGE;) {
            size_t taken = pl_events_next(&events, data + at, end - at, &found);
            require(taken > 0 && taken <= end - at);
            at += taken;
            if (found == PL_EVENTS_EVENT)
                hash = take(rescue, &events, hash);
        }
    }
    require(events.data_len <= MAX_BYTES);
    pl_events_deinit(&events);
    return hash;
}

static uint64_t play(const char *data, size_t len, size_t step, uint8_t modes)
{
    struct pl_rescue rescue;
    uint64_t hash = 0;
    pl_rescue_init(&rescue, MAX_BYTES);
    while (len > 0) {
        const char *zero = memchr(data, '\0', len);
        size_t part = zero ? (size_t)(zero - data) : len;
        hash = feed(&rescue, data, part, step, hash);
        if (!zero || pl_rescue_obstacle_now(&rescue) != PL_RESCUE_NO_OBSTACLE)
            break;
        pl_rescue_begin_part(&rescue, modes & 1);
        modes = (uint8_t)(modes >> 1 | modes << 7);
        data += part + 1;
        len -= part + 1;
    }
    pl_rescue_deinit(&rescue);
    return hash;
}

/* Of what is JSON, JSON is made. */
static void ask(const char *data, size_t len)
{
    struct pl_rescue_text out = {0};
    struct pl_str text = {data, len};
    bool is_json = pl_json_validate(data, len) == PL_OK;
    if (pl_rescue_put_messages(&out, text, PL_STR("One"), PL_STR(",\"prefix\":true")))
        require(!is_json || pl_json_validate(out.data, out.len) == PL_OK);
    out.len = 0;
    if (pl_rescue_put_prompt(&out, text, PL_STR("One")))
        require(pl_json_validate(out.data, out.len) == PL_OK);
    pl_rescue_text_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum pl_rescue_form form;
    if (size < 2)
        return 0;
    const char *text = (const char *)data + 2;
    size_t len = size - 2;
    uint64_t whole = play(text, len, len + 1, data[0]);
    require(play(text, len, 1, data[0]) == whole);
    require(play(text, len, (size_t)data[1] + 1, data[0]) == whole);
    (void)pl_rescue_judge_ending((struct pl_str){text, len}, &form);
    ask(text, len);
    return 0;
}
