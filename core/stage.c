/*
 * Stage: see stage.h. This file: its life, and letting time pass.
 */
#include "log.h"
#include "stage_internal.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define START_US          (1000u * 1000 * 1000) /* no time is 0, which means "none" in places */
#define STEPS_AT_ONCE_MAX 500000

static struct pl_stage *running; /* the innermost one that has been entered */

/* ---- enter and exit ---- */

static void keep_line(const char *line, size_t len, void *arg)
{
    struct pl_stage *self = arg;
    if (self->line_max > 0 && self->line_count >= self->line_max)
        return;
    if (self->line_count == self->line_cap) {
        self->line_cap = self->line_cap ? self->line_cap * 2 : 16;
        self->lines = pl_xrealloc(self->lines, self->line_cap * sizeof(char *));
    }
    self->lines[self->line_count++] = pl_xstrndup(line, len);
}

void pl_stage_enter(struct pl_stage *self)
{
    if (self->depth++ > 0)
        return;
    self->outer = running;
    self->outer_clock = pl_clock_install(&self->timeline.clock);
    running = self;
    pl_random_swap(&self->random);
    pl_log_set_sink(keep_line, self);
}

void pl_stage_exit(struct pl_stage *self)
{
    if (--self->depth > 0)
        return;
    assert(running == self);
    running = self->outer;
    pl_clock_install(self->outer_clock);
    pl_random_swap(&self->random);
    pl_log_set_sink(running ? keep_line : NULL, running);
}

bool pl_stage_is_running(const struct pl_stage *self)
{
    return self->depth > 0;
}

/* ---- making ---- */

static void make_health(struct pl_stage *self)
{
    uint32_t slot_count = (uint32_t)pl_config_slot_count(self->config) + 1;
    self->health = pl_health_new(slot_count);
    self->gauge = pl_gauge_new(slot_count);
    if (pl_config_bind_health(self->config, self->health, self->gauge) != PL_OK)
        abort(); /* there is a slot for each */
}

/* One edition with one generation, which is never opened: its upstreams need no pools. */
static int make_gateway(struct pl_stage *self, char **problems)
{
    char error[8192];
    make_health(self);
    self->edition =
        pl_edition_new(pl_config_ref(self->config), 1, NULL, NULL, error, sizeof(error));
    if (!self->edition) {
        pl_config_unref(self->config);
        *problems = pl_xstrdup(error);
        return PL_ERR_SYNTAX;
    }
    pl_runtime_init(&self->runtime, NULL);
    self->runtime.timeline = &self->timeline;
    self->runtime.transport = &self->transport;
    self->runtime.current = self->edition->generations[0];
    self->runtime.current->runtime = &self->runtime;
    return PL_OK;
}

struct pl_stage *pl_stage_new(const struct pl_stage_options *options, char **problems)
{
    struct pl_stage *self = pl_xcalloc(1, sizeof(*self));
    *problems = NULL;
    pl_vm_keep_compiled();
    self->transport = pl_stage_transport;
    self->ops = *options->ops;
    self->arg = options->arg;
    self->line_max = options->log_line_max;
    self->body_max_bytes = options->body_max_bytes;
    pl_timeline_init(&self->timeline, START_US);
    self->timeline.clock.ahead_ms = (int64_t)options->start_wall_ms - START_US / 1000;
    pl_stage_enter(self);
    pl_random_seed(options->seed);
    self->config = pl_config_load_from(options->source, problems);
    int rc = self->config ? make_gateway(self, problems) : PL_ERR_SYNTAX;
    self->runtime.is_mute = options->is_mute;
    if (rc == PL_OK && self->ops.on_check)
        pl_stage_checks_start(self);
    pl_stage_exit(self);
    if (rc == PL_OK)
        return self;
    pl_stage_free(self);
    return NULL;
}

void pl_stage_free(struct pl_stage *self)
{
    if (!self)
        return;
    assert(self->depth == 0);
    self->ops = (struct pl_stage_ops){0};
    if (self->runtime.current) {
        pl_stage_enter(self);
        pl_runtime_end_all(&self->runtime);
        pl_stage_exit(self);
        pl_runtime_deinit(&self->runtime);
    }
    pl_edition_free(self->edition);
    pl_stage_checks_stop(self);
    pl_timeline_deinit(&self->timeline);
    pl_config_unref(self->config);
    pl_health_free(self->health);
    pl_gauge_free(self->gauge);
    for (size_t i = 0; i < self->line_count; i++)
        free(self->lines[i]);
    free(self->lines);
    free(self);
}

/* ---- letting time pass ---- */

static enum pl_stage_pause run(struct pl_stage *self, uint64_t until_us,
                               const struct pl_stage_client *client)
{
    struct pl_timeline *timeline = &self->timeline;
    uint32_t steps_at_once = 0;
    for (;;) {
        uint64_t next_us = pl_timeline_next_us(timeline);
        if (self->stopped)
            return PL_STAGE_STOPPED;
        if (client && client->end != PL_STAGE_OPEN)
            return PL_STAGE_AT_END;
        if (next_us > until_us)
            return PL_STAGE_AT_TIME;
        if (next_us == UINT64_MAX)
            return PL_STAGE_IDLE;
        steps_at_once = next_us == timeline->clock.now_us ? steps_at_once + 1 : 0;
        if (steps_at_once > STEPS_AT_ONCE_MAX)
            return PL_STAGE_STUCK;
        pl_timeline_step(timeline);
    }
}

enum pl_stage_pause pl_stage_run(struct pl_stage *self, uint64_t until_us,
                                 const struct pl_stage_client *client)
{
    if (until_us < UINT64_MAX - START_US)
        until_us += START_US;
    else
        until_us = UINT64_MAX;
    self->stopped = false;
    pl_stage_enter(self);
    enum pl_stage_pause pause = run(self, until_us, client);
    if (pause == PL_STAGE_AT_TIME && until_us > self->timeline.clock.now_us)
        pl_timeline_move_to(&self->timeline, until_us);
    pl_stage_exit(self);
    return pause;
}

void pl_stage_stop(struct pl_stage *self)
{
    self->stopped = true;
}

/* ---- asking ---- */

uint64_t pl_stage_now_us(const struct pl_stage *self)
{
    return self->timeline.clock.now_us - START_US;
}

struct pl_timeline *pl_stage_timeline(struct pl_stage *self)
{
    return &self->timeline;
}

const struct pl_topology *pl_stage_topology(const struct pl_stage *self)
{
    return &self->config->topology;
}

size_t pl_stage_active_count(const struct pl_stage *self)
{
    return self->runtime.active_count;
}

void pl_stage_read_figures(const struct pl_stage *self, struct pl_figures_view *out)
{
    pl_figures_read(self->edition->figures, out);
}

const char *const *pl_stage_log(const struct pl_stage *self, size_t *count)
{
    *count = self->line_count;
    return (const char *const *)self->lines;
}

/* ---- as an operator does ---- */

static uint64_t clock_ms(const struct pl_stage *self)
{
    return self->timeline.clock.now_us / 1000;
}

void pl_stage_eject(struct pl_stage *self, pl_health_slot slot, uint64_t duration_ms)
{
    pl_health_eject(self->health, slot, PL_REASON_OPERATOR, duration_ms, clock_ms(self));
}

void pl_stage_restore(struct pl_stage *self, pl_health_slot slot)
{
    pl_health_restore(self->health, slot, clock_ms(self));
}

void pl_stage_look(struct pl_stage *self, pl_health_slot slot, struct pl_health_view *out)
{
    pl_health_look(self->health, slot, clock_ms(self), out);
}
