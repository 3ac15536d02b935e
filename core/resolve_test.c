/*
 * Resolve: against a name server in the same event loop.
 */
#include "attempt_test.h"

#include <event2/event.h>

/** What one query was told. */
struct told {
    struct pl_resolve_query *query;
    size_t count; /* callbacks */
    struct pl_addresses addresses;
    char error[128];
};

static void on_told(void *arg, const struct pl_addresses *addresses, const char *error)
{
    struct told *self = arg;
    self->count++;
    self->query = NULL;
    if (error != NULL) {
        assert_null(addresses);
        snprintf(self->error, sizeof(self->error), "%s", error);
    } else {
        self->addresses = *addresses;
    }
}

/** True when the answer was at hand. */
static bool ask(struct net *net, const char *host, uint16_t port, struct told *told)
{
    memset(told, 0, sizeof(*told));
    told->query = pl_resolve_start(net->resolver, host, port, &told->addresses, on_told, told);
    assert_int_equal(told->count, 0);
    return told->query == NULL;
}

static void assert_address(const struct pl_address *address, const char *expected, uint16_t port)
{
    char text[INET6_ADDRSTRLEN];
    bool v4 = address->storage.ss_family == AF_INET;
    const struct sockaddr_in *in = (const struct sockaddr_in *)&address->storage;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address->storage;
    const void *bytes = v4 ? (const void *)&in->sin_addr : (const void *)&in6->sin6_addr;
    assert_non_null(inet_ntop(address->storage.ss_family, bytes, text, sizeof(text)));
    assert_string_equal(text, expected);
    assert_int_equal(ntohs(v4 ? in->sin_port : in6->sin6_port), port);
    assert_int_equal(address->len, v4 ? sizeof(*in) : sizeof(*in6));
}

#define NET(net, names)                                                                            \
    struct net net;                                                                                \
    net_init(&(net), NULL, 0, NULL, NULL);                                                         \
    name_server_init(&(names), &(net))

static void end(struct net *net, struct name_server *names)
{
    name_server_deinit(names);
    net_deinit(net);
}

static void test_numeric(void **state)
{
    (void)state;
    struct name_server names = {0};
    NET(net, names);
    struct told told;
    assert_true(ask(&net, "10.1.2.3", 80, &told));
    assert_int_equal(told.addresses.count, 1);
    assert_address(&told.addresses.items[0], "10.1.2.3", 80);
    assert_true(ask(&net, "fe80::1", 443, &told));
    assert_int_equal(told.addresses.count, 1);
    assert_address(&told.addresses.items[0], "fe80::1", 443);
    assert_int_equal(names.question_count, 0);
    end(&net, &names);
}

static void test_answer_is_cached(void **state)
{
    (void)state;
    struct name_server names = {.addresses = {"10.0.0.1", "10.0.0.2"}, .address_count = 2};
    NET(net, names);
    struct told told;
    assert_false(ask(&net, "a.test", 80, &told));
    run_until_count(net.base, &told.count, 1);
    assert_int_equal(told.addresses.count, 2);
    assert_address(&told.addresses.items[0], "10.0.0.1", 80);
    assert_address(&told.addresses.items[1], "10.0.0.2", 80);
    size_t asked = names.question_count;
    assert_true(ask(&net, "A.TEST", 81, &told));
    assert_int_equal(told.addresses.count, 2);
    assert_address(&told.addresses.items[1], "10.0.0.2", 81);
    assert_int_equal(names.question_count, asked);
    end(&net, &names);
}

static void test_both_families(void **state)
{
    (void)state;
    struct name_server names = {
        .addresses = {"10.0.0.1"}, .address_count = 1, .v6_address = "2001:db8::1"};
    NET(net, names);
    struct told told;
    assert_false(ask(&net, "a.test", 80, &told));
    run_until_count(net.base, &told.count, 1);
    assert_int_equal(told.addresses.count, 2);
    assert_address(&told.addresses.items[0], "10.0.0.1", 80);
    assert_address(&told.addresses.items[1], "2001:db8::1", 80);
    end(&net, &names);
}

static void test_too_many_addresses(void **state)
{
    (void)state;
    struct name_server names = {.addresses = {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"},
                                .address_count = 4,
                                .repeat_count = 5};
    NET(net, names);
    struct told told;
    assert_false(ask(&net, "a.test", 80, &told));
    run_until_count(net.base, &told.count, 1);
    assert_int_equal(told.addresses.count, PL_RESOLVE_MAX_ADDRESSES);
    end(&net, &names);
}

/** However many wait for a name, it is asked for once (A and AAAA). */
static void test_merged(void **state)
{
    (void)state;
    struct name_server names = {.addresses = {"10.0.0.1"}, .address_count = 1};
    NET(net, names);
    struct told told[3];
    for (uint16_t i = 0; i < 3; i++) {
        assert_false(ask(&net, "a.test", i, &told[i]));
    }
    pl_resolve_cancel(told[1].query);
    run_until_count(net.base, &told[0].count, 1);
    run_until_count(net.base, &told[2].count, 1);
    assert_address(&told[0].addresses.items[0], "10.0.0.1", 0);
    assert_address(&told[2].addresses.items[0], "10.0.0.1", 2);
    assert_int_equal(told[1].count, 0);
    assert_int_equal(names.question_count, 2);
    end(&net, &names);
}

static void test_failure_is_cached(void **state)
{
    (void)state;
    struct name_server names = {0}; /* no address for any name */
    NET(net, names);
    struct told told, again, cancelled;
    assert_false(ask(&net, "a.test", 80, &told));
    run_until_count(net.base, &told.count, 1);
    assert_true(strlen(told.error) > 0);
    size_t asked = names.question_count;
    assert_false(ask(&net, "a.test", 80, &again));
    assert_false(ask(&net, "a.test", 80, &cancelled));
    pl_resolve_cancel(cancelled.query);
    run_until_count(net.base, &again.count, 1);
    assert_string_equal(again.error, told.error);
    assert_int_equal(cancelled.count, 0);
    assert_int_equal(names.question_count, asked);
    end(&net, &names);
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    *(size_t *)arg = 1;
}

/** A name that has come back is found a second later. */
static void test_failure_expires(void **state)
{
    (void)state;
    struct name_server names = {0};
    NET(net, names);
    struct told told;
    size_t waited = 0;
    struct timeval a_second = {1, 20000};
    assert_false(ask(&net, "a.test", 80, &told));
    run_until_count(net.base, &told.count, 1);
    assert_int_equal(told.addresses.count, 0);
    names.addresses[0] = "10.0.0.1";
    names.address_count = 1;
    event_base_once(net.base, -1, EV_TIMEOUT, on_second, &waited, &a_second);
    run_until_count(net.base, &waited, 1);
    assert_false(ask(&net, "a.test", 80, &told));
    run_until_count(net.base, &told.count, 1);
    assert_int_equal(told.addresses.count, 1);
    end(&net, &names);
}

static void test_impossible_name(void **state)
{
    (void)state;
    struct name_server names = {0};
    NET(net, names);
    struct told told;
    assert_false(ask(&net, "", 80, &told));
    run_until_count(net.base, &told.count, 1);
    assert_true(strlen(told.error) > 0);
    end(&net, &names);
}

/** More names than are kept: the oldest are asked for anew, the newest are not. */
static void test_cache_is_bounded(void **state)
{
    (void)state;
    struct name_server names = {.addresses = {"10.0.0.1"}, .address_count = 1};
    NET(net, names);
    struct told told;
    char name[32];
    for (int i = 0; i < 70; i++) {
        snprintf(name, sizeof(name), "n%d.test", i);
        assert_false(ask(&net, name, 80, &told));
        run_until_count(net.base, &told.count, 1);
    }
    assert_true(ask(&net, "n69.test", 80, &told));
    assert_true(ask(&net, "n6.test", 80, &told));
    assert_false(ask(&net, "n0.test", 80, &told));
    run_until_count(net.base, &told.count, 1);
    end(&net, &names);
}

struct chain {
    struct net *net;
    struct told next[2];
    size_t count;
};

static void on_chained(void *arg, const struct pl_addresses *addresses, const char *error)
{
    struct chain *self = arg;
    (void)addresses;
    assert_null(error);
    assert_true(ask(self->net, "a.test", 1, &self->next[0]));
    assert_false(ask(self->net, "b.test", 1, &self->next[1]));
    self->count++;
}

static void test_start_inside_callback(void **state)
{
    (void)state;
    struct name_server names = {.addresses = {"10.0.0.1"}, .address_count = 1};
    NET(net, names);
    struct chain chain = {.net = &net};
    struct pl_addresses unused;
    assert_non_null(pl_resolve_start(net.resolver, "a.test", 1, &unused, on_chained, &chain));
    run_until_count(net.base, &chain.count, 1);
    run_until_count(net.base, &chain.next[1].count, 1);
    assert_int_equal(chain.next[1].addresses.count, 1);
    end(&net, &names);
}

static void test_free_while_pending(void **state)
{
    (void)state;
    struct name_server names = {.silent = true};
    NET(net, names);
    struct told pending, cancelled, failed;
    assert_false(ask(&net, "a.test", 80, &pending));
    assert_false(ask(&net, "b.test", 80, &cancelled));
    assert_false(ask(&net, "", 80, &failed));
    run_until_count(net.base, &names.question_count, 4);
    pl_resolve_cancel(cancelled.query);
    end(&net, &names);
    assert_int_equal(pending.count + cancelled.count, 0);
    pl_resolver_free(NULL);
}

/** The hosts file, and a resolver configuration that does not exist. */
static void test_localhost(void **state)
{
    (void)state;
    struct name_server names = {0};
    NET(net, names);
    pl_resolver_free(net.resolver);
    net.resolver = pl_resolver_new_from(net.base, "/nonexistent/resolv.conf");
    assert_non_null(net.resolver);
    struct told told;
    assert_true(ask(&net, "localhost", 80, &told));
    assert_true(told.addresses.count > 0);
    end(&net, &names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numeric),
        cmocka_unit_test(test_answer_is_cached),
        cmocka_unit_test(test_both_families),
        cmocka_unit_test(test_too_many_addresses),
        cmocka_unit_test(test_merged),
        cmocka_unit_test(test_failure_is_cached),
        cmocka_unit_test(test_failure_expires),
        cmocka_unit_test(test_impossible_name),
        cmocka_unit_test(test_cache_is_bounded),
        cmocka_unit_test(test_start_inside_callback),
        cmocka_unit_test(test_free_while_pending),
        cmocka_unit_test(test_localhost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
