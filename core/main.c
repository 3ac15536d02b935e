/*
 * Main: the command line.
 */
#include "base.h"
#include "config.h"
#include "listen.h"
#include "process.h"
#include "simulate.h"
#include "testing.h"
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS_MAX 256 /* as in perilune.schema */

enum exit_status { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const char help_text[] =
    "perilune " PERILUNE_VERSION ": a Lua-scriptable gateway for LLM traffic\n"
    "\n"
    "usage:\n"
    "  perilune run [DIR]      serve with the policies in DIR (default: policies)\n"
    "      --listen ADDR:PORT  instead of listen.address (port 0 picks one)\n"
    "      --admin ADDR:PORT   instead of admin.address; or unix:/PATH\n"
    "      --workers N         instead of workers (0: one per core)\n"
    "      --log-format F      json or text, of the access log and of the log on stderr\n"
    "      --watch             reload when the files have changed\n"
    "  perilune check [DIR]    check gateway.lua and its policies; exit status 1 if anything is "
    "wrong\n"
    "  perilune test [DIR]     run the specs in DIR/spec: no network, a virtual clock; exit status "
    "1\n"
    "      [-- OPTIONS]        if any fails. OPTIONS are busted's\n"
    "  perilune simulate DIR [DIR2] --scenario FILE | --log FILE\n"
    "                          what policies do in an outage, without network or waiting\n"
    "                          (perilune simulate --help)\n"
    "  perilune sim [FLAGS]    run a simulated provider (perilune sim --help)\n"
    "  perilune version        or --version, -v\n"
    "  perilune help [COMMAND] or --help, -h\n"
    "\n"
    "SIGHUP, or POST /admin/reload: read DIR again; requests in flight end as they began.\n"
    "SIGUSR1: open the access log's file again.\n"
    "SIGTERM or SIGINT: stop accepting, finish what is in flight (at most `drain`), exit 0;\n"
    "a second one ends at once.\n";

/* ---- commands ---- */

static int usage_error(const char *fmt, const char *word)
{
    fprintf(stderr, "perilune: ");
    fprintf(stderr, fmt, word);
    fprintf(stderr, " (see: perilune help)\n");
    return EXIT_USAGE;
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static int print_help(void)
{
    fputs(help_text, stdout);
    return EXIT_OK;
}

static int parse_workers(const char *text, int *workers)
{
    char *end;
    long number = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || number < 0 || number > WORKERS_MAX)
        return PL_ERR_SYNTAX;
    *workers = (int)number;
    return PL_OK;
}

static int parse_log_format(const char *text, int *format)
{
    if (strcmp(text, "json") != 0 && strcmp(text, "text") != 0)
        return PL_ERR_SYNTAX;
    *format = strcmp(text, "text") == 0;
    return PL_OK;
}

/* What `run` and `check` are told. */
struct arguments {
    const char *directory;
    struct pl_config_overrides overrides;
    bool watch;
};

/* Reads one option and its value; 0 or an exit status. */
static int parse_option(const char *name, const char *value, struct pl_config_overrides *out)
{
    if (strcmp(name, "--listen") != 0 && strcmp(name, "--admin") != 0 &&
        strcmp(name, "--workers") != 0 && strcmp(name, "--log-format") != 0)
        return usage_error("unknown option %s", name);
    if (!value)
        return usage_error("%s needs a value", name);
    if (strcmp(name, "--workers") == 0)
        return parse_workers(value, &out->workers) == PL_OK
                   ? 0
                   : usage_error("--workers: a number within 0..256 is expected, not '%s'", value);
    if (strcmp(name, "--log-format") == 0)
        return parse_log_format(value, &out->log_format) == PL_OK
                   ? 0
                   : usage_error("--log-format: json or text is expected, not '%s'", value);
    bool is_listen = strcmp(name, "--listen") == 0;
    char **address = is_listen ? &out->listen_address : &out->admin_address;
    free(*address);
    *address = NULL;
    if (!is_listen && strncmp(value, "unix:/", 6) == 0) {
        *address = pl_xstrdup(value);
        return 0;
    }
    if (pl_listen_parse(value, address, is_listen ? &out->listen_port : &out->admin_port) != PL_OK)
        return usage_error("ADDR:PORT is expected, not '%s'", value);
    return 0;
}

static int parse_arguments(int count, char **texts, bool options, struct arguments *out)
{
    bool has_directory = false;
    *out =
        (struct arguments){.directory = "policies", .overrides = {.workers = -1, .log_format = -1}};
    for (int i = 0; i < count; i++) {
        char *text = texts[i];
        if (options && strcmp(text, "--watch") == 0) {
            out->watch = true;
        } else if (text[0] == '-') {
            char *equals = strchr(text, '=');
            if (!options)
                return usage_error("unknown option %s", text);
            if (equals)
                *equals = '\0';
            const char *value = equals ? equals + 1 : i + 1 < count ? texts[++i] : NULL;
            int status = parse_option(text, value, &out->overrides);
            if (status != 0)
                return status;
        } else if (has_directory) {
            return usage_error("only one directory can be given; unexpected '%s'", text);
        } else {
            out->directory = text;
            has_directory = true;
        }
    }
    return 0;
}

/* Whether a line begins with the name of a file of the directory. */
static bool begins_with_file(const char *line)
{
    size_t len = strcspn(line, ":\n");
    return len > 4 && line[0] != '/' && strncmp(line + len - 4, ".lua", 4) == 0;
}

/* Prints problems, a line each, with the directory before the files' names. */
static void complain(const char *directory, const char *lines)
{
    size_t directory_len = strlen(directory);
    while (directory_len > 1 && directory[directory_len - 1] == '/')
        directory_len--;
    for (const char *end; *lines != '\0'; lines = *end != '\0' ? end + 1 : end) {
        end = lines + strcspn(lines, "\n");
        if (begins_with_file(lines))
            fprintf(stderr, "%.*s/", (int)directory_len, directory);
        fprintf(stderr, "%.*s\n", (int)(end - lines), lines);
    }
}

static struct pl_config *load_or_complain(const char *directory)
{
    char *problems;
    struct pl_config *config = pl_config_load(directory, &problems);
    if (!config)
        complain(directory, problems);
    free(problems);
    return config;
}

static int load_and_serve(const struct arguments *arguments)
{
    char error[256];
    struct pl_config *config = load_or_complain(arguments->directory);
    if (!config)
        return EXIT_FAILED;
    if (pl_config_override(config, &arguments->overrides, error, sizeof(error)) != PL_OK) {
        pl_config_unref(config);
        return usage_error("%s", error);
    }
    pl_config_log_warnings(config);
    struct pl_process_options options = {.directory = arguments->directory,
                                         .overrides = arguments->overrides,
                                         .watch = arguments->watch};
    return pl_process_run(config, &options);
}

static int command_run(int count, char **texts)
{
    struct arguments arguments;
    int status = parse_arguments(count, texts, true, &arguments);
    if (status == 0)
        status = load_and_serve(&arguments);
    free(arguments.overrides.listen_address);
    free(arguments.overrides.admin_address);
    return status;
}

static int command_check(int count, char **texts)
{
    struct arguments arguments;
    int status = parse_arguments(count, texts, false, &arguments);
    if (status != 0)
        return status;
    struct pl_config *config = load_or_complain(arguments.directory);
    if (!config)
        return EXIT_FAILED;
    complain(arguments.directory, config->warnings);
    printf("%s: ok (%zu providers, %zu targets)\n", arguments.directory,
           config->topology.provider_count, config->topology.target_count);
    pl_config_unref(config);
    return EXIT_OK;
}

static int command_sim(int count, char **arguments)
{
    char *problems;
    int status = EXIT_FAILED;
    struct pl_config *config = pl_config_load_simulator(count, arguments, &problems, &status);
    if (!config) {
        fprintf(status == EXIT_OK ? stdout : stderr, "%s\n", problems);
        free(problems);
        return status;
    }
    struct pl_process_options options = {.overrides = {.workers = -1, .log_format = -1}};
    return pl_process_run(config, &options);
}

static bool has_own_help(const char *command)
{
    return strcmp(command, "sim") == 0 || strcmp(command, "simulate") == 0;
}

static bool is_version(const char *word)
{
    return strcmp(word, "version") == 0 || strcmp(word, "--version") == 0 ||
           strcmp(word, "-v") == 0 || strcmp(word, "-V") == 0;
}

/* `perilune help COMMAND` */
static int help_on(const char *command)
{
    static const char *const others[] = {"run", "check", "test", "version", "help"};
    char option[] = "--help", *arguments[] = {option};
    if (strcmp(command, "sim") == 0)
        return command_sim(1, arguments);
    if (strcmp(command, "simulate") == 0)
        return pl_simulate_main(1, arguments);
    for (size_t i = 0; i < PL_COUNT(others); i++) {
        if (strcmp(command, others[i]) == 0)
            return print_help();
    }
    return usage_error("unknown command '%s'", command);
}

int main(int argc, char **argv)
{
    /* libevent then clears by hand what it would calloc, see pl_xcalloc */
    event_set_mem_functions(malloc, realloc, free);
    const char *command = argc > 1 ? argv[1] : "help";
    if (strcmp(command, "help") == 0 && argc > 2)
        return help_on(argv[2]);
    if (!has_own_help(command) && argc > 2 && is_help(argv[2]))
        return print_help();
    if (strcmp(command, "run") == 0)
        return command_run(argc - 2, argv + 2);
    if (strcmp(command, "check") == 0)
        return command_check(argc - 2, argv + 2);
    if (strcmp(command, "sim") == 0)
        return command_sim(argc - 2, argv + 2);
    if (strcmp(command, "simulate") == 0)
        return pl_simulate_main(argc - 2, argv + 2);
    if (strcmp(command, "test") == 0)
        return pl_testing_main(argc - 2, argv + 2);
    if (is_version(command)) {
        printf("perilune %s\n", PERILUNE_VERSION);
        return EXIT_OK;
    }
    if (strcmp(command, "help") == 0 || is_help(command)) {
        print_help();
        return argc > 1 ? EXIT_OK : EXIT_USAGE;
    }
    return usage_error("unknown command '%s'", command);
}
