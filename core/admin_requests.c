/*
 * Admin requests: what is in flight, and what has ended lately. See admin_internal.h.
 *
 * Requests belong to their workers: each is asked for its oldest ones, answers on its own thread
 * into a part of the survey that is its own, and tells by the eventfd. What is there after 500 ms
 * is the answer, with the names of the workers that said nothing (one runs a policy just then, or
 * is stuck). A survey lives until the last worker has answered; there are only so many.
 *
 * Atomics: `done` is set by the worker (release) as its last touch of a part; the main thread reads
 * it (acquire) and may then read the part and free the survey.
 */
#include "admin_internal.h"
#include "admin_query.h"
#include "inflight.h"
#include "log.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ANSWER_WITHIN_MS 500
#define LIMIT_DEFAULT    200
#define LIMIT_MAX        2000
#define SURVEYS_MAX      64

/* One request, as its worker wrote it. */
struct item {
    uint64_t start_ms;
    size_t offset, len;
};

/* What one worker says. */
struct part {
    struct pl_job job;
    struct pl_survey *survey;
    struct item *items;
    size_t item_count, total_count;
    struct pl_json_text text;
    bool asked; /* else the worker has ended */
    _Atomic bool done;
};

struct pl_survey {
    struct pl_admin *admin;
    struct pl_exchange *exchange; /* NULL: answered, or nobody waits any more */
    struct event *timer;
    size_t limit;
    size_t part_count;
    struct part *parts;
    TAILQ_ENTRY(pl_survey) link;
};

/* ---- on the worker's thread ---- */

static void write_item(struct part *self, const struct pl_request *request, uint64_t now_ms)
{
    struct item *item = &self->items[self->item_count++];
    self->text.needs_comma = false;
    item->start_ms = request->start_ms;
    item->offset = self->text.len;
    pl_inflight_write(request, now_ms, &self->text);
    item->len = self->text.len - item->offset;
}

static void answer_part(struct pl_job *job, void *context)
{
    struct part *self = (struct part *)job;
    const struct pl_runtime *runtime = context;
    const struct pl_request *request;
    uint64_t now_ms = pl_now_ms(), one = 1;
    int fd = self->survey->admin->answers_fd;
    self->total_count = runtime->active_count;
    TAILQ_FOREACH(request, &runtime->active, link)
    {
        if (self->item_count == self->survey->limit)
            break;
        write_item(self, request, now_ms);
    }
    atomic_store_explicit(&self->done, true, memory_order_release);
    if (write(fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        pl_log(PL_LOG_ERROR, "admin: eventfd: %s", strerror(errno));
}

/* ---- the answer ---- */

static bool is_done(const struct part *part)
{
    return !part->asked || atomic_load_explicit(&part->done, memory_order_acquire);
}

static bool all_done(const struct pl_survey *self)
{
    for (size_t i = 0; i < self->part_count; i++) {
        if (!is_done(&self->parts[i]))
            return false;
    }
    return true;
}

struct found {
    const struct item *item;
    const char *json;
};

static int by_age(const void *a, const void *b)
{
    uint64_t left = ((const struct found *)a)->item->start_ms;
    uint64_t right = ((const struct found *)b)->item->start_ms;
    return left < right ? -1 : left > right;
}

/* All workers' requests, the oldest first. */
static struct found *collect(const struct pl_survey *self, size_t *count, size_t *total)
{
    struct found *list = pl_xcalloc(self->part_count * self->limit + 1, sizeof(*list));
    *count = *total = 0;
    for (size_t i = 0; i < self->part_count; i++) {
        const struct part *part = &self->parts[i];
        if (!part->asked || !is_done(part))
            continue;
        *total += part->total_count;
        for (size_t j = 0; j < part->item_count; j++)
            list[(*count)++] =
                (struct found){&part->items[j], part->text.data + part->items[j].offset};
    }
    qsort(list, *count, sizeof(*list), by_age);
    return list;
}

static void write_answer(const struct pl_survey *self, struct pl_json_text *out)
{
    size_t count, total;
    struct found *list = collect(self, &count, &total);
    pl_json_open(out, NULL, '{');
    pl_json_put_u64(out, "in_flight", total);
    pl_json_open(out, "silent_workers", '[');
    for (size_t i = 0; i < self->part_count; i++) {
        if (!is_done(&self->parts[i]))
            pl_json_put_u64(out, NULL, i);
    }
    pl_json_close(out, ']');
    pl_json_open(out, "requests", '[');
    for (size_t i = 0; i < count && i < self->limit; i++)
        pl_json_put_raw(out, NULL, list[i].json, list[i].item->len);
    pl_json_close(out, ']');
    pl_json_close(out, '}');
    free(list);
}

static void survey_free(struct pl_survey *self)
{
    TAILQ_REMOVE(&self->admin->surveys, self, link);
    self->admin->survey_count--;
    for (size_t i = 0; i < self->part_count; i++) {
        free(self->parts[i].items);
        pl_json_text_deinit(&self->parts[i].text);
    }
    event_free(self->timer);
    free(self->parts);
    free(self);
}

static void reply(struct pl_survey *self)
{
    struct pl_exchange *exchange = self->exchange;
    struct pl_json_text text;
    self->exchange = NULL;
    event_del(self->timer);
    pl_json_text_init(&text);
    write_answer(self, &text);
    pl_admin_reply(exchange, 200, NULL, "application/json", text.data, text.len);
    pl_json_text_deinit(&text);
}

static void on_time_up(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pl_survey *self = arg;
    if (self->exchange)
        reply(self);
}

static void on_answers(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct pl_admin *admin = arg;
    struct pl_survey *survey, *next;
    uint64_t count;
    if (read(fd, &count, sizeof(count)) < 0)
        return;
    for (survey = TAILQ_FIRST(&admin->surveys); survey; survey = next) {
        next = TAILQ_NEXT(survey, link);
        if (!all_done(survey))
            continue;
        if (survey->exchange)
            reply(survey);
        survey_free(survey);
    }
}

/* ---- asking ---- */

static void on_gone(void *arg)
{
    struct pl_survey *self = arg;
    self->exchange = NULL;
    event_del(self->timer);
}

static void on_writable(void *arg)
{
    (void)arg;
}

static const struct pl_exchange_ops survey_ops = {.on_gone = on_gone, .on_writable = on_writable};

static struct pl_survey *survey_new(struct pl_admin *admin, size_t limit)
{
    struct pl_survey *self = pl_xcalloc(1, sizeof(*self));
    self->admin = admin;
    self->limit = limit;
    self->part_count = admin->parts.worker_count;
    self->parts = pl_xcalloc(self->part_count + 1, sizeof(*self->parts));
    self->timer = event_new(admin->base, -1, 0, on_time_up, self);
    for (size_t i = 0; i < self->part_count; i++) {
        struct part *part = &self->parts[i];
        part->job.run = answer_part;
        part->survey = self;
        part->items = pl_xcalloc(limit, sizeof(*part->items));
        pl_json_text_init(&part->text);
    }
    TAILQ_INSERT_TAIL(&admin->surveys, self, link);
    admin->survey_count++;
    return self;
}

static size_t read_limit(struct pl_str query, size_t otherwise, size_t max)
{
    char text[PL_QUERY_VALUE_BYTES], *end;
    if (!pl_query_value(query, "limit", text) || text[0] < '0' || text[0] > '9')
        return otherwise;
    unsigned long number = strtoul(text, &end, 10);
    return *end ? otherwise : PL_MAX(1, PL_MIN(number, max));
}

void pl_admin_get_requests(struct pl_admin *self, struct pl_exchange *exchange)
{
    struct timeval within = {0, ANSWER_WITHIN_MS * 1000};
    if (self->survey_count == SURVEYS_MAX) {
        pl_admin_refuse(exchange, 503, "busy", "Workers have not answered earlier questions yet.");
        return;
    }
    struct pl_survey *survey =
        survey_new(self, read_limit(pl_exchange_query(exchange), LIMIT_DEFAULT, LIMIT_MAX));
    survey->exchange = exchange;
    for (size_t i = 0; i < survey->part_count; i++)
        survey->parts[i].asked = pl_worker_ask(self->parts.workers[i], &survey->parts[i].job);
    if (all_done(survey)) {
        reply(survey);
        survey_free(survey);
        return;
    }
    pl_exchange_set_ops(exchange, &survey_ops, survey);
    event_add(survey->timer, &within);
}

void pl_admin_requests_init(struct pl_admin *self)
{
    TAILQ_INIT(&self->surveys);
    self->answers_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->answers_fd < 0)
        abort();
    self->answers_event =
        event_new(self->base, self->answers_fd, EV_READ | EV_PERSIST, on_answers, self);
    event_add(self->answers_event, NULL);
}

void pl_admin_requests_deinit(struct pl_admin *self)
{
    struct pl_survey *survey;
    while ((survey = TAILQ_FIRST(&self->surveys)))
        survey_free(survey);
    event_free(self->answers_event);
    close(self->answers_fd);
}

/* ---- ended ---- */

static uint64_t read_since(struct pl_str query)
{
    char text[PL_QUERY_VALUE_BYTES];
    return pl_query_value(query, "since", text) ? strtoull(text, NULL, 10) : 0;
}

void pl_admin_write_recent(const struct pl_admin *self, struct pl_str query, size_t limit,
                           struct pl_json_text *out)
{
    struct pl_recent_item *items = NULL;
    size_t count = 0;
    uint64_t last = 0, since = read_since(query);
    if (self->parts.recent)
        items = pl_recent_read(self->parts.recent, since, read_limit(query, limit, LIMIT_MAX),
                               &count, &last);
    pl_json_put_u64(out, "last", last);
    pl_json_open(out, "records", '[');
    for (size_t i = 0; i < count; i++)
        pl_json_put_raw(out, NULL, items[i].json, items[i].len);
    pl_json_close(out, ']');
    pl_recent_free_items(items, count);
}

void pl_admin_get_recent(struct pl_admin *self, struct pl_exchange *exchange)
{
    struct pl_json_text text;
    pl_json_text_init(&text);
    pl_json_open(&text, NULL, '{');
    pl_admin_write_recent(self, pl_exchange_query(exchange), LIMIT_DEFAULT, &text);
    pl_json_close(&text, '}');
    pl_admin_reply(exchange, 200, NULL, "application/json", text.data, text.len);
    pl_json_text_deinit(&text);
}
