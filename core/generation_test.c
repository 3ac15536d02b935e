/*
 * Generation: which one a request begins on, and when a retired one may go.
 */
#include "attempt_test.h"
#include "bind.h"

static const struct pl_vm_limits LIMITS = {.memory_bytes = 64u << 20, .burst_us = 50 * 1000};

struct fixture {
    struct event_base *base;
    struct pl_resolver *resolver;
    struct pl_provider provider;
    struct pl_topology topology;
    struct pl_runtime runtime;
    int retire_count;
};

static void on_retire(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    ((struct fixture *)arg)->retire_count++;
}

static void fixture_init(struct fixture *self)
{
    memset(self, 0, sizeof(*self));
    self->base = event_base_new();
    self->resolver = pl_resolver_new(self->base);
    self->provider.name = "one";
    self->provider.endpoint = (struct pl_endpoint){.host = "127.0.0.1", .port = 1, .max_idle = 4};
    pl_headers_init(&self->provider.headers);
    self->topology.providers = &self->provider;
    self->topology.provider_count = 1;
    pl_runtime_init(&self->runtime, self->base);
    self->runtime.retire_event = event_new(self->base, -1, 0, on_retire, self);
}

static void fixture_deinit(struct fixture *self)
{
    event_free(self->runtime.retire_event);
    pl_runtime_deinit(&self->runtime);
    pl_resolver_free(self->resolver);
    event_base_loop(self->base, EVLOOP_NONBLOCK);
    event_base_free(self->base);
}

static struct pl_generation *make(struct fixture *self)
{
    struct pl_generation *generation = pl_generation_new(&LIMITS, &self->topology);
    assert_non_null(generation);
    pl_generation_open(generation, &self->runtime, self->base, self->resolver);
    return generation;
}

static void finish(struct pl_generation *generation)
{
    pl_generation_close(generation);
    assert_true(pl_generation_is_closed(generation));
    pl_generation_free(generation);
}

static void test_canary_gets_its_share(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    struct pl_runtime *runtime = &fixture.runtime;
    runtime->current = make(&fixture);
    for (int i = 0; i < 100; i++)
        assert_ptr_equal(pl_generation_pin(runtime), runtime->current);
    runtime->canary = make(&fixture);
    runtime->canary_ratio = 0.2;
    for (int i = 0; i < 10000; i++)
        (void)pl_generation_pin(runtime);
    assert_in_range(runtime->canary->request_count, 1700, 2300); /* 7 standard deviations */
    assert_int_equal(runtime->canary->request_count + runtime->current->request_count, 10100);
    runtime->canary->request_count = runtime->current->request_count = 0;
    finish(runtime->canary);
    finish(runtime->current);
    fixture_deinit(&fixture);
}

/** Its last request tells, in a turn of its own; one that is in force never does. */
static void test_last_request_tells(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    struct pl_generation *old = make(&fixture);
    fixture.runtime.current = old;
    (void)pl_generation_pin(&fixture.runtime);
    pl_generation_unpin(old);
    event_base_loop(fixture.base, EVLOOP_NONBLOCK);
    assert_int_equal(fixture.retire_count, 0);
    (void)pl_generation_pin(&fixture.runtime);
    (void)pl_generation_pin(&fixture.runtime);
    fixture.runtime.current = make(&fixture);
    old->retired = true;
    pl_generation_unpin(old);
    event_base_loop(fixture.base, EVLOOP_NONBLOCK);
    assert_int_equal(fixture.retire_count, 0);
    assert_false(pl_generation_is_idle(old));
    pl_generation_unpin(old);
    assert_int_equal(fixture.retire_count, 0); /* not from inside */
    event_base_loop(fixture.base, EVLOOP_NONBLOCK);
    assert_int_equal(fixture.retire_count, 1);
    assert_true(pl_generation_is_idle(old));
    finish(old);
    finish(fixture.runtime.current);
    fixture_deinit(&fixture);
}

/** An attempt that has not let go of its pool yet keeps it. */
static void test_attempts_keep_it(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    struct pl_generation *generation = make(&fixture);
    struct pl_pool *pool = generation->pools[0];
    pl_pool_ref(pool);
    assert_false(pl_generation_is_idle(generation));
    pl_pool_unref(pool);
    assert_true(pl_generation_is_idle(generation));
    finish(generation);
    fixture_deinit(&fixture);
}

static void give_connection(struct pl_generation *generation)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    /* the other end stays open: the peer has nothing to say */
    pl_pool_give(generation->pools[0], pl_connection_new(generation->pools[0], pair[0]));
}

static void test_inherits_from_the_same_provider_only(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    struct pl_generation *old = make(&fixture), *new = make(&fixture);
    struct pl_provider other = fixture.provider;
    struct pl_topology changed = {.providers = &other, .provider_count = 1};
    give_connection(old);
    pl_generation_inherit(new, old);
    assert_int_equal(old->pools[0]->idle_count, 0);
    assert_int_equal(new->pools[0]->idle_count, 1);
    new->topology = &changed; /* as of another configuration */
    other.auth = PL_AUTH_PASSTHROUGH;
    give_connection(old);
    pl_generation_inherit(new, old);
    assert_int_equal(old->pools[0]->idle_count, 1);
    other.auth = fixture.provider.auth;
    other.name = "two";
    pl_generation_inherit(new, old);
    assert_int_equal(old->pools[0]->idle_count, 1);
    new->topology = &fixture.topology;
    finish(old);
    finish(new);
    fixture_deinit(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canary_gets_its_share),
        cmocka_unit_test(test_last_request_tells),
        cmocka_unit_test(test_attempts_keep_it),
        cmocka_unit_test(test_inherits_from_the_same_provider_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
