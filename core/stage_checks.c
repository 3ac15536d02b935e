/*
 * Active checks of a stage: see stage.h and probe.h. The owner says what a check finds; what that
 * does to the health, and when the next one comes, is the prober's own code. A check takes no time.
 */
#include "probe.h"
#include "stage_internal.h"
#include <stdio.h>
#include <stdlib.h>

struct pl_stage_check {
    struct pl_stage *stage;
    const struct pl_provider *provider; /* NULL: it has none */
    struct pl_timer timer;
    uint32_t good_count; /* in a row */
};

static void on_due(void *arg)
{
    struct pl_stage_check *self = arg;
    struct pl_stage *stage = self->stage;
    char detail[32];
    int status = stage->ops.on_check(self->provider, pl_stage_now_us(stage), stage->arg);
    snprintf(detail, sizeof(detail), "status %d", status);
    pl_probe_take_result(&stage->config->topology, self->provider,
                         pl_probe_is_good(self->provider, status), detail, &self->good_count);
    pl_timer_start_us(&self->timer, pl_probe_wait_us(self->provider, false));
}

void pl_stage_checks_start(struct pl_stage *self)
{
    const struct pl_topology *topology = &self->config->topology;
    self->checks = pl_xcalloc(topology->provider_count + 1, sizeof(*self->checks));
    for (size_t i = 0; i < topology->provider_count; i++) {
        struct pl_stage_check *check = &self->checks[i];
        if (!topology->providers[i].check.path)
            continue;
        check->stage = self;
        check->provider = &topology->providers[i];
        pl_timer_init(&check->timer, NULL, &self->timeline, on_due, check);
        pl_timer_start_us(&check->timer, pl_probe_wait_us(check->provider, true));
    }
}

void pl_stage_checks_stop(struct pl_stage *self)
{
    for (size_t i = 0; self->checks && i < self->config->topology.provider_count; i++) {
        if (self->checks[i].provider)
            pl_timer_stop(&self->checks[i].timer);
    }
    free(self->checks);
    self->checks = NULL;
}
