/*
 * Tests of config.c: a directory becomes data, or a text that says what is wrong with it. What each
 * option may be is the business of the specs of lua/perilune/config.
 */
#include "bind.h"
#include "config.h"
#include "log.h"

#include <fcntl.h>
#include <ftw.h>
#include <lauxlib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NOBODY 65534

/* ---- directories ---- */

static char directory[64];

static int make_directory(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/config_test.XXXXXX");
    return mkdtemp(directory) != NULL ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk)
{
    (void)st;
    (void)type;
    (void)walk;
    return remove(path);
}

static int remove_directory(void **state)
{
    (void)state;
    return nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static void write_bytes(const char *name, const char *data, size_t len)
{
    FILE *file = fopen(path_of(name), "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    fclose(file);
}

static void write_text(const char *name, const char *text)
{
    write_bytes(name, text, strlen(text));
}

/** A configuration with one provider and one route; `more` goes in front of them. */
static void write_gateway(const char *more)
{
    char text[4096];
    snprintf(text, sizeof(text),
             "return { %s\n"
             "providers = { p = { api = 'openai', url = 'http://127.0.0.1:1/v1' } },\n"
             "routes = { { match = { model = '*' }, targets = { { provider = 'p' } } } } }",
             more);
    write_text("gateway.lua", text);
}

static const char POLICY[] = "return function(req, route) end\n";

static struct pl_config *must_load(void)
{
    char *problems = NULL;
    struct pl_config *config = pl_config_load(directory, &problems);
    if (config == NULL) {
        fail_msg("%s", problems);
    }
    assert_null(problems);
    return config;
}

/** Loading must fail and say both. */
static void assert_trouble(const char *where, const char *what)
{
    char *problems = NULL;
    struct pl_config *config = pl_config_load(directory, &problems);
    if (config != NULL) {
        fail_msg("loaded, but not a word of: %s: %s", where, what);
    }
    assert_non_null(problems);
    if (strstr(problems, where) == NULL || strstr(problems, what) == NULL) {
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", problems, where, what);
    }
    free(problems);
}

/* ---- trouble with files ---- */

static void test_no_directory(void **state)
{
    (void)state;
    char *problems = NULL;
    assert_null(pl_config_load("/nowhere/at/all", &problems));
    assert_string_equal(problems, "/nowhere/at/all: No such file or directory");
    free(problems);
    write_text("file", "");
    assert_null(pl_config_load(path_of("file"), &problems));
    assert_non_null(strstr(problems, "Not a directory"));
    free(problems);
}

static void test_empty_directory(void **state)
{
    (void)state;
    assert_trouble("gateway.lua", "there is no such file in the directory");
    write_text("fallback.lua", POLICY);
    assert_trouble("gateway.lua", "there is no such file in the directory");
}

static void test_other_files_are_ignored(void **state)
{
    (void)state;
    write_gateway("");
    write_text("fallback.lua", POLICY);
    write_text("notes.txt", "error");
    write_text(".hidden.lua", "error");
    write_text(".lua", "error");
    write_text("fallback.lua~", "error");
    write_text("fallback.lua.swp", "error");
    struct pl_config *config = must_load();
    assert_int_equal(config->file_count, 2);
    assert_string_equal(config->files[0].name, "fallback.lua");
    assert_string_equal(config->files[1].name, "gateway.lua");
    assert_int_equal(config->files[0].len, strlen(POLICY));
    pl_config_unref(config);
}

static void test_what_is_no_file(void **state)
{
    (void)state;
    write_gateway("");
    write_text("fallback.lua", POLICY);
    assert_int_equal(mkdir(path_of("x.lua"), 0700), 0);
    assert_trouble("x.lua", "is not a regular file");
    rmdir(path_of("x.lua"));
    assert_int_equal(mkfifo(path_of("x.lua"), 0600), 0); /* nobody writes: this must not wait */
    assert_trouble("x.lua", "is not a regular file");
    unlink(path_of("x.lua"));
    assert_int_equal(symlink("/nowhere", path_of("x.lua")), 0);
    assert_trouble("x.lua", "No such file or directory");
    unlink(path_of("x.lua"));
    assert_int_equal(symlink("/dev/zero", path_of("x.lua")), 0);
    assert_trouble("x.lua", "is not a regular file");
}

static void test_links_are_followed(void **state)
{
    (void)state;
    write_gateway("");
    write_text("real", POLICY);
    assert_int_equal(symlink("real", path_of("fallback.lua")), 0);
    pl_config_unref(must_load());
}

static void test_large_files(void **state)
{
    (void)state;
    write_gateway("");
    write_text("fallback.lua", POLICY);
    write_text("x.lua", "");
    assert_int_equal(truncate(path_of("x.lua"), PL_CONFIG_MAX_FILE_BYTES), 0);
    pl_config_unref(must_load());
    assert_int_equal(truncate(path_of("x.lua"), PL_CONFIG_MAX_FILE_BYTES + 1), 0);
    assert_trouble("x.lua", "is larger than 1048576 bytes");
}

static void test_many_files(void **state)
{
    (void)state;
    char name[32];
    write_gateway("");
    write_text("fallback.lua", POLICY);
    for (int i = 0; i < PL_CONFIG_MAX_FILES - 2; i++) {
        snprintf(name, sizeof(name), "p%03d.lua", i);
        write_text(name, POLICY);
    }
    pl_config_unref(must_load());
    write_text("p999.lua", POLICY);
    assert_trouble("p999.lua", "more than 256 .lua files in the directory");
}

static void test_unreadable_file(void **state)
{
    (void)state;
    write_gateway("");
    write_text("fallback.lua", POLICY);
    assert_int_equal(chmod(path_of("fallback.lua"), 0), 0);
    assert_int_equal(chmod(directory, 0755), 0);
    bool is_root = geteuid() == 0;
    assert_true(!is_root || seteuid(NOBODY) == 0); /* root may read everything */
    assert_trouble("fallback.lua", "Permission denied");
    assert_true(!is_root || seteuid(0) == 0);
}

/* ---- trouble with gateway.lua ---- */

static void test_gateway_is_no_configuration(void **state)
{
    (void)state;
    static const struct {
        const char *text, *what;
    } cases[] = {
        {"", "table"},
        {"return 1", "table"},
        {"return {", "gateway.lua:1"},
        {"\n\nlocal = 1", "gateway.lua:3"},
        {"\nerror('on purpose')", "gateway.lua:2"},
        {"\n\nreturn nil + 1", "gateway.lua:3"},
        {"return io.open('/etc/passwd')", "io"},
        {"return os.getenv('HOME')", "os"},
        {"return load('x')", "load"},
        {"return require 'perilune'", "require"},
        {"return ('x'):rep(1e9)", "memory"},
        {"local t = {} while true do t[#t + 1] = {} end", ""}, /* of memory, or of time */
        {"\033LJ\002", "gateway.lua"},
        {"return {}", "providers"},
    };
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        write_text("gateway.lua", cases[i].text);
        assert_trouble("", cases[i].what);
    }
}

static void test_gateway_that_never_ends(void **state)
{
    (void)state;
    write_text("gateway.lua", "while true do end");
    uint64_t start_us = pl_thread_cpu_us();
    assert_trouble("", "the CPU budget of 2000 ms is used up");
    assert_in_range(pl_thread_cpu_us() - start_us, 2000000, 20000000);
}

/** All that is wrong is told at once, a line each. */
static void test_all_problems_at_once(void **state)
{
    (void)state;
    char *problems = NULL;
    write_gateway("workers = 'many', dran = '1s', limits = { body = -1 },");
    assert_null(pl_config_load(directory, &problems));
    assert_non_null(strstr(problems, "workers"));
    assert_non_null(strstr(problems, "dran"));
    assert_non_null(strstr(problems, "body"));
    size_t line_count = 1;
    for (const char *at = problems; (at = strchr(at, '\n')) != NULL; at++) {
        line_count++;
    }
    assert_true(line_count >= 3);
    free(problems);
}

/** What only C can tell: files of TLS, and bytes that a header cannot carry. */
static void test_trouble_that_c_finds(void **state)
{
    (void)state;
    write_text("fallback.lua", POLICY);
    write_gateway("listen = { address = '127.0.0.1:0', tls = { cert = 'no.crt', key = 'no.key' } },"
                  "log_level = 'debug',");
    assert_trouble("gateway.lua: listen.tls: ", "no.crt");
    write_text("gateway.lua",
               "return { providers = { p = { api = 'openai', url = 'https://127.0.0.1:1/v1',\n"
               "  tls = { ca = 'no.pem' } } },\n"
               "routes = { { match = { model = '*' }, targets = { { provider = 'p' } } } } }");
    assert_trouble("gateway.lua: providers.p.tls: ", "no.pem");
    write_text("gateway.lua",
               "return { providers = { p = { api = 'openai', url = 'http://127.0.0.1:1/v1',\n"
               "  key = env 'CONFIG_TEST_KEY' } },\n"
               "routes = { { match = { model = '*' }, targets = { { provider = 'p' } } } } }");
    setenv("CONFIG_TEST_KEY", "a\nb", 1);
    assert_trouble("gateway.lua", "providers.p.key");
    unsetenv("CONFIG_TEST_KEY");
}

/* ---- trouble with policies ---- */

static void test_policies(void **state)
{
    (void)state;
    static const struct {
        const char *text, *what;
    } cases[] = {
        {"", "must return a function"},
        {"return {}", "fallback.lua: must return a function(req, route), got table"},
        {"return { handle = 1 }", "fallback.lua: returns a table whose handle is no function"},
        {"return { function() end }", "only handle and selftest are known"},
        {"return { handle = function() end, selftest = true }", "selftest is no function"},
        {"return { handle = function() end,\nselftest = function() error('wrong') end }",
         "fallback.lua:2: wrong"},
        {"return { handle = function() end, selftest = function() return false end }",
         "fallback.lua: selftest failed: it returned false"},
        {"return { handle = function() end, selftest = function() return nil, 'why' end }",
         "fallback.lua: selftest failed: why"},
        {"return { handle = function() end, selftest = function() while true do end end }",
         "fallback.lua:1: the CPU budget"},
        {"return function(", "fallback.lua:1"},
        {"\n\nerror('on purpose')", "fallback.lua:3: on purpose"},
        {"\nx = 1", "fallback.lua:2"},
        {"return os.exit(0)", "fallback.lua:1"},
        {"return require 'perilune.native'", "is not available to policies"},
        {"\033LJ\002", ""},
        {"while true do end", "the CPU budget of 2000 ms is used up"},
    };
    write_gateway("");
    assert_trouble("gateway.lua", "fallback.lua");
    for (size_t i = 0; i < PL_COUNT(cases); i++) {
        write_text("fallback.lua", cases[i].text);
        assert_trouble("", cases[i].what);
    }
    write_text("fallback.lua", POLICY);
    write_text("unused.lua", "this is not Lua"); /* nobody asks for it */
    pl_config_unref(must_load());
}

/* ---- env, secret, file ---- */

static void write_key(const char *expression)
{
    char text[512];
    snprintf(text, sizeof(text),
             "return { providers = { p = { api = 'openai', url = 'http://127.0.0.1:1/v1',\n"
             "  key = %s } },\n"
             "routes = { { match = { model = '*' }, targets = { { provider = 'p' } } } } }",
             expression);
    write_text("gateway.lua", text);
    write_text("fallback.lua", POLICY);
}

/** The provider is sent this key. */
static void assert_key(const struct pl_config *config, const char *key)
{
    const struct pl_provider *provider = &config->topology.providers[0];
    char expected[128];
    snprintf(expected, sizeof(expected), "Bearer %s", key);
    assert_int_equal(provider->key_count, 1);
    assert_string_equal(provider->keys[0].value, expected);
    assert_int_equal(pl_headers_count(&provider->headers, PL_STR("authorization")), 0);
    assert_int_equal(config->topology.providers[0].auth, PL_AUTH_KEY);
}

static void check_again(lua_State *L, void *arg)
{
    const struct pl_config *config = arg;
    pl_vm_require(L, "perilune.boot");
    lua_getfield(L, -1, "check");
    lua_call(L, pl_config_push_sources(L, config), 1);
    lua_getfield(L, -1, "providers");
    lua_rawgeti(L, -1, 1);
    lua_getfield(L, -1, "key");
    assert_string_equal(lua_tostring(L, -1), "sk-from-outside");
}

/** Workers are made from the same answers, whatever has changed outside since the check. */
static void assert_remembered(struct pl_config *config)
{
    static const struct pl_vm_limits limits = {.memory_bytes = 64 << 20, .burst_us = 10000000};
    char error[512] = "";
    struct pl_vm *vm = pl_bind_vm_new(&limits, NULL);
    assert_non_null(vm);
    if (pl_vm_call(vm, check_again, config, error, sizeof(error)) != PL_OK) {
        fail_msg("%s", error);
    }
    pl_vm_free(vm);
}

static void write_longer_policy(void)
{
    char text[1024];
    snprintf(text, sizeof(text), "%s\n", POLICY);
    write_text("fallback.lua", text);
}

static void test_selftest_that_passes(void **state)
{
    (void)state;
    write_gateway("");
    write_text("fallback.lua", "return { handle = function() end, selftest = function() end }");
    pl_config_unref(must_load());
    write_text("fallback.lua", "return { handle = function() end,\n"
                               "  selftest = function() return true end }");
    pl_config_unref(must_load());
}

/** What was read is told apart from what is there by names, sizes, times, inodes. */
static void test_fingerprint(void **state)
{
    (void)state;
    write_gateway("");
    write_text("fallback.lua", POLICY);
    struct pl_config *config = must_load();
    assert_true(pl_config_fingerprint(config) == config->fingerprint);
    write_text("notes.txt", "no matter");
    assert_true(pl_config_fingerprint(config) == config->fingerprint);
    write_text("other.lua", POLICY);
    assert_true(pl_config_fingerprint(config) != config->fingerprint);
    pl_config_unref(config);
    config = must_load();
    write_longer_policy();
    assert_true(pl_config_fingerprint(config) != config->fingerprint);
    pl_config_unref(config);
}

/** The same bytes have the same digest, others another one. */
static void test_digest_and_parts(void **state)
{
    (void)state;
    write_gateway("");
    write_text("fallback.lua", POLICY);
    struct pl_config *one = must_load(), *same = must_load();
    write_longer_policy();
    struct pl_config *other = must_load();
    assert_int_equal(strlen(one->digest), 16);
    assert_string_equal(one->digest, same->digest);
    assert_string_not_equal(one->digest, other->digest);
    assert_true(one->part_count > 3);
    assert_int_equal(one->part_count, other->part_count);
    for (size_t i = 0; i < one->part_count; i++) {
        assert_string_equal(one->parts[i].name, other->parts[i].name);
        assert_memory_equal(one->parts[i].digest, other->parts[i].digest, 32);
    }
    pl_config_unref(one);
    pl_config_unref(same);
    pl_config_unref(other);
}

static void test_env(void **state)
{
    (void)state;
    write_key("env 'CONFIG_TEST_KEY'");
    setenv("CONFIG_TEST_KEY", "sk-from-outside", 1);
    struct pl_config *config = must_load();
    assert_key(config, "sk-from-outside");
    setenv("CONFIG_TEST_KEY", "sk-another", 1);
    assert_remembered(config);
    unsetenv("CONFIG_TEST_KEY");
    assert_remembered(config);
    pl_config_unref(config);
    config = must_load();
    assert_int_equal(config->topology.providers[0].key_count, 0);
    pl_config_unref(config);
}

static void test_secret(void **state)
{
    (void)state;
    write_key("secret 'CONFIG_TEST_KEY'");
    assert_trouble("gateway.lua:2", "CONFIG_TEST_KEY");
    write_text("key.txt", "sk-from-outside\n");
    setenv("CONFIG_TEST_KEY_FILE", "key.txt", 1);
    struct pl_config *config = must_load();
    assert_key(config, "sk-from-outside");
    unlink(path_of("key.txt"));
    assert_remembered(config);
    pl_config_unref(config);
    assert_trouble("gateway.lua:2", "CONFIG_TEST_KEY");
    setenv("CONFIG_TEST_KEY", "sk-from-outside", 1); /* comes first */
    config = must_load();
    assert_key(config, "sk-from-outside");
    pl_config_unref(config);
    unsetenv("CONFIG_TEST_KEY");
    unsetenv("CONFIG_TEST_KEY_FILE");
}

static void test_file(void **state)
{
    (void)state;
    write_key("file 'key.txt'");
    assert_trouble("gateway.lua:2", "key.txt");
    write_text("key.txt", "sk-from-outside\n");
    struct pl_config *config = must_load();
    assert_key(config, "sk-from-outside");
    write_text("key.txt", "sk-another");
    assert_remembered(config);
    pl_config_unref(config);
    unlink(path_of("key.txt"));
    assert_int_equal(mkfifo(path_of("key.txt"), 0600), 0);
    assert_trouble("gateway.lua:2", "is not a regular file");
    char absolute[160];
    write_text("other.txt", "sk-from-outside");
    snprintf(absolute, sizeof(absolute), "file '%s'", path_of("other.txt"));
    write_key(absolute);
    config = must_load();
    assert_key(config, "sk-from-outside");
    pl_config_unref(config);
}

/* ---- what is read ---- */

static const char FULL[] =
    "return {\n"
    "  listen = { address = '[::1]:8443' },\n"
    "  admin = { address = '127.0.0.1:9000', token = 'a-long-enough-token' },\n"
    "  workers = 3, drain = '2s', log_level = 'warn', response_headers = false,\n"
    "  limits = { request_line = 1000, head = '4KiB', header_count = 9, body = '1MiB',\n"
    "    connections = 77, head_timeout = '1s', body_idle = '2s', keepalive_idle = '3s',\n"
    "    write_stall = '4s' },\n"
    "  providers = {\n"
    "    b = { api = 'openai', url = 'http://127.0.0.1:8000', auth = 'passthrough' },\n"
    "    a = { api = 'openai', url = 'http://[::1]/base/', key = 'sk-1',\n"
    "      headers = { ['X-Team'] = 'blue' },\n"
    "      timeouts = { connect = '1s', idle = '7s' } },\n"
    "  },\n"
    "  routes = { { match = { model = 'm' }, targets = {\n"
    "    { provider = 'b', model = 'real \"one\"', weight = 2.5, priority = 4,\n"
    "      timeouts = { idle = '9s' },\n"
    "      headers = { set = { ['X-A'] = '1' }, remove = { 'X-Old' } },\n"
    "      body = { set = { top_k = 5 }, unset = { 'user' } } },\n"
    "    { provider = 'a' } } },\n"
    "    { name = 'rest', targets = { { provider = 'a', priority = 3 } } } },\n"
    "}\n";

static void assert_header(const struct pl_headers *headers, const char *name, const char *expected)
{
    struct pl_str value;
    assert_true(pl_headers_get(headers, (struct pl_str){name, strlen(name)}, &value));
    assert_int_equal(value.len, strlen(expected));
    assert_memory_equal(value.data, expected, value.len);
}

static void assert_process(const struct pl_config *config)
{
    const struct pl_server_limits *limits = &config->limits;
    assert_string_equal(config->listen_address, "::1");
    assert_int_equal(config->listen_port, 8443);
    assert_null(config->tls);
    assert_string_equal(config->admin_address, "127.0.0.1");
    assert_int_equal(config->admin_port, 9000);
    assert_string_equal(config->admin_token, "a-long-enough-token");
    assert_int_equal(config->workers, 3);
    assert_int_equal(config->drain_ms, 2000);
    assert_int_equal(config->log_level, PL_LOG_WARN);
    assert_false(config->topology.response_headers);
    assert_int_equal(limits->message.request_line_bytes, 1000);
    assert_int_equal(limits->message.head_bytes, 4096);
    assert_int_equal(limits->message.header_count, 9);
    assert_int_equal(limits->message.body_bytes, 1 << 20);
    assert_int_equal(limits->connections, 77);
    assert_int_equal(limits->head_ms, 1000);
    assert_int_equal(limits->body_idle_ms, 2000);
    assert_int_equal(limits->keepalive_idle_ms, 3000);
    assert_int_equal(limits->write_stall_ms, 4000);
}

static void assert_providers(const struct pl_topology *topology)
{
    const struct pl_provider *a = &topology->providers[0], *b = &topology->providers[1];
    assert_int_equal(topology->provider_count, 2);
    assert_string_equal(a->name, "a");
    assert_string_equal(a->endpoint.host, "::1");
    assert_int_equal(a->endpoint.port, 80);
    assert_null(a->endpoint.tls);
    assert_string_equal(a->base_path, "/base");
    assert_string_equal(a->host_header, "[::1]");
    assert_int_equal(a->auth, PL_AUTH_KEY);
    assert_int_equal(a->key_count, 1);
    assert_string_equal(a->keys[0].value, "Bearer sk-1");
    assert_string_equal(a->keys[0].shown, "…");
    assert_header(&a->headers, "x-team", "blue");
    assert_string_equal(b->name, "b");
    assert_string_equal(b->host_header, "127.0.0.1:8000");
    assert_string_equal(b->base_path, "");
    assert_int_equal(b->auth, PL_AUTH_PASSTHROUGH);
}

static void assert_targets(const struct pl_topology *topology)
{
    const struct pl_target *first = &topology->targets[0], *second = &topology->targets[1];
    const struct pl_target *other = &topology->targets[2];
    assert_int_equal(topology->target_count, 3);
    assert_string_equal(first->route, "m");
    assert_string_equal(second->route, "m");
    assert_string_equal(other->route, "rest");
    assert_true(first->is_fallback); /* the route's best is 0, not 4 */
    assert_false(second->is_fallback);
    assert_false(other->is_fallback);
    assert_int_equal(first->provider_index, 1);
    assert_string_equal(first->model, "real \"one\"");
    assert_string_equal(first->model_json, "\"real \\\"one\\\"\"");
    assert_true(first->weight == 2.5);
    assert_int_equal(first->priority, 4);
    assert_int_equal(first->limits.idle_ms, 9000);
    assert_header(&first->set_headers, "X-A", "1");
    assert_string_equal(first->remove_headers[0], "x-old");
    assert_null(first->remove_headers[1]);
    assert_int_equal(first->edit_count, 2);
    assert_true(pl_str_equal(first->edits[0].key, PL_STR("top_k")));
    assert_true(pl_str_equal(first->edits[0].value, PL_STR("5")));
    assert_true(pl_str_equal(first->edits[1].key, PL_STR("user")));
    assert_null(first->edits[1].value.data);
    assert_string_equal(second->name, "a");
    assert_int_equal(second->provider_index, 0);
    assert_null(second->model);
    assert_null(second->model_json);
    assert_int_equal(second->limits.connect_ms, 1000);
    assert_int_equal(second->limits.idle_ms, 7000);
    assert_int_equal(second->edit_count, 0);
}

static void test_full(void **state)
{
    (void)state;
    write_text("gateway.lua", FULL);
    write_text("fallback.lua", POLICY);
    struct pl_config *config = must_load();
    assert_process(config);
    assert_providers(&config->topology);
    assert_targets(&config->topology);
    pl_config_unref(config);
}

/** A duration that is set is never rounded down to none. */
static void test_short_durations(void **state)
{
    (void)state;
    write_text("gateway.lua",
               "return { providers = { p = { api = 'openai', url = 'http://127.0.0.1:1/v1',\n"
               "  timeouts = { try = '0.4ms' } } },\n"
               "routes = { { match = { model = '*' }, targets = { { provider = 'p' } } } } }");
    write_text("fallback.lua", POLICY);
    char *problems = NULL;
    struct pl_config *config = pl_config_load(directory, &problems);
    if (config == NULL) { /* or it is too short to be taken */
        assert_non_null(strstr(problems, "try"));
        free(problems);
        return;
    }
    assert_int_equal(config->topology.targets[0].limits.try_ms, 1);
    pl_config_unref(config);
}

static void test_free_nothing(void **state)
{
    (void)state;
    pl_config_unref(NULL);
}

/* ---- the simulator ---- */

static void test_simulator(void **state)
{
    (void)state;
    char *arguments[] = {"--port", "0"};
    char *problems = NULL;
    int status = -1;
    struct pl_config *config = pl_config_load_simulator(2, arguments, &problems, &status);
    if (config == NULL) {
        fail_msg("%s", problems);
    }
    assert_true(config->is_simulator);
    assert_int_equal(config->listen_port, 0);
    assert_int_equal(config->workers, 1);
    assert_null(config->admin_address);
    pl_config_unref(config);
}

static void test_simulator_help_and_usage(void **state)
{
    (void)state;
    char *help[] = {"--help"}, *nonsense[] = {"--no-such-option"};
    char *problems = NULL;
    int status = -1;
    assert_null(pl_config_load_simulator(1, help, &problems, &status));
    assert_int_equal(status, 0);
    assert_non_null(strstr(problems, "--port"));
    free(problems);
    assert_null(pl_config_load_simulator(1, nonsense, &problems, &status));
    assert_int_equal(status, 2);
    assert_non_null(strstr(problems, "no-such-option"));
    free(problems);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_no_directory),
        TEST(test_empty_directory),
        TEST(test_other_files_are_ignored),
        TEST(test_what_is_no_file),
        TEST(test_links_are_followed),
        TEST(test_large_files),
        TEST(test_many_files),
        TEST(test_unreadable_file),
        TEST(test_gateway_is_no_configuration),
        TEST(test_gateway_that_never_ends),
        TEST(test_all_problems_at_once),
        TEST(test_trouble_that_c_finds),
        TEST(test_policies),
        TEST(test_selftest_that_passes),
        TEST(test_fingerprint),
        TEST(test_digest_and_parts),
        TEST(test_env),
        TEST(test_secret),
        TEST(test_file),
        TEST(test_full),
        TEST(test_short_durations),
        TEST(test_free_nothing),
        TEST(test_simulator),
        TEST(test_simulator_help_and_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
