/*
 * Window: what a gateway and its upstream did in the middle of a load.
 *
 *   window COUNTERS_FILE WARM_MS WINDOW_MS GATEWAY_CORE:[PID,...] LOAD_CORE:[PID,...]
 *
 * Waits WARM_MS, samples, waits WINDOW_MS, samples again and prints the differences in one line:
 * elapsed_us= cpu_us= foreign_us= load_cpu_us= load_foreign_us= ok_a= ok_b= failing= rewritten=
 * events= connections= refused=.
 *
 * cpu_us is user plus system time of the processes given, all their threads together, from the
 * kernel's per-process CPU clock: what /proc/PID/stat shows as utime + stime, but in ns, not in
 * ticks of 10 ms. foreign_us is what else ran on that core, by /proc/stat: work that disturbed the
 * measurement. CPU and counters are read within some 50 us of each other. Exit status 1 when a
 * process has gone.
 */
#include "counters.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAX_PROCESSES 64
#define PLACE_COUNT   2 /* gateway, load */

/* A core and the processes pinned to it. */
struct place {
    char core[16];
    int count;
    clockid_t clocks[MAX_PROCESSES];
};

struct sample {
    uint64_t at_us;
    uint64_t cpu_us[PLACE_COUNT];
    uint64_t busy_us[PLACE_COUNT];
    uint64_t requests[LISTENER_COUNT];
    uint64_t rewritten, events, connections, refused;
};

static struct place places[PLACE_COUNT];
static const struct counters *counters;

static void die(const char *what)
{
    fprintf(stderr, "window: ");
    perror(what);
    exit(1);
}

static uint64_t clock_us(clockid_t clock)
{
    struct timespec value;

    if (clock_gettime(clock, &value) != 0)
        die("a process has gone");
    return (uint64_t)value.tv_sec * 1000000 + (uint64_t)value.tv_nsec / 1000;
}

/** Time that a core has not been idle: all columns of its /proc/stat line but idle and iowait. */
static uint64_t core_busy_us(const char *core)
{
    char line[512], name[32], wanted[32];
    unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;
    uint64_t ticks = 0;
    FILE *file = fopen("/proc/stat", "re");

    if (file == NULL)
        die("/proc/stat");
    snprintf(wanted, sizeof(wanted), "cpu%s", core);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "%31s %llu %llu %llu %llu %llu %llu %llu %llu", name, &user, &nice,
                   &system, &idle, &iowait, &irq, &softirq, &steal) == 9 &&
            strcmp(name, wanted) == 0)
            ticks = user + nice + system + irq + softirq + steal;
    }
    fclose(file);
    return ticks * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

static void take_sample(struct sample *sample)
{
    memset(sample, 0, sizeof(*sample));
    for (int p = 0; p < PLACE_COUNT; p++)
        sample->busy_us[p] = core_busy_us(places[p].core);
    sample->at_us = clock_us(CLOCK_MONOTONIC);
    for (int p = 0; p < PLACE_COUNT; p++)
        for (int i = 0; i < places[p].count; i++)
            sample->cpu_us[p] += clock_us(places[p].clocks[i]);
    for (int i = 0; i < LISTENER_COUNT; i++)
        sample->requests[i] = counter_get(&counters->requests[i]);
    sample->rewritten = counter_get(&counters->rewritten);
    sample->events = counter_get(&counters->events);
    sample->connections = counter_get(&counters->connections);
    sample->refused = counter_get(&counters->refused);
}

static void sleep_ms(unsigned long ms)
{
    struct timespec rest = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

    while (nanosleep(&rest, &rest) != 0)
        continue;
}

/** Ticks are coarse: the core may seem to have worked less than the processes on it. */
static uint64_t foreign_us(const struct sample *before, const struct sample *after, int place)
{
    uint64_t busy = after->busy_us[place] - before->busy_us[place];
    uint64_t own = after->cpu_us[place] - before->cpu_us[place];

    return busy > own ? busy - own : 0;
}

static void print_field(const char *name, uint64_t before, uint64_t after)
{
    printf("%s=%llu ", name, (unsigned long long)(after - before));
}

static void print_difference(const struct sample *before, const struct sample *after)
{
    uint64_t failing_before = 0, failing_after = 0;

    for (int i = LISTENER_503_A; i <= LISTENER_429; i++) {
        failing_before += before->requests[i];
        failing_after += after->requests[i];
    }
    print_field("elapsed_us", before->at_us, after->at_us);
    print_field("cpu_us", before->cpu_us[0], after->cpu_us[0]);
    print_field("foreign_us", 0, foreign_us(before, after, 0));
    print_field("load_cpu_us", before->cpu_us[1], after->cpu_us[1]);
    print_field("load_foreign_us", 0, foreign_us(before, after, 1));
    print_field("ok_a", before->requests[LISTENER_OK_A], after->requests[LISTENER_OK_A]);
    print_field("ok_b", before->requests[LISTENER_OK_B], after->requests[LISTENER_OK_B]);
    print_field("exports", before->requests[LISTENER_COLLECTOR],
                after->requests[LISTENER_COLLECTOR]);
    print_field("failing", failing_before, failing_after);
    print_field("rewritten", before->rewritten, after->rewritten);
    print_field("events", before->events, after->events);
    print_field("connections", before->connections, after->connections);
    print_field("refused", before->refused, after->refused);
    printf("\n");
}

static void map_counters(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *map;

    if (fd < 0)
        die(path);
    map = mmap(NULL, sizeof(*counters), PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        die(path);
    counters = map;
    close(fd);
}

/** Reads "CORE:PID,PID,...", which it takes apart. */
static void parse_place(struct place *place, char *text)
{
    char *pid, *rest = strchr(text, ':');

    if (rest == NULL || (size_t)(rest - text) >= sizeof(place->core)) {
        fprintf(stderr, "window: CORE:PID,... is wanted, not %s\n", text);
        exit(2);
    }
    *rest++ = '\0';
    snprintf(place->core, sizeof(place->core), "%s", text);
    while ((pid = strsep(&rest, ",")) != NULL && place->count < MAX_PROCESSES) {
        if (*pid == '\0')
            continue;
        if (clock_getcpuclockid(atoi(pid), &place->clocks[place->count++]) != 0)
            die("no such process");
    }
}

int main(int argc, char **argv)
{
    struct sample before, after;

    if (argc != 4 + PLACE_COUNT) {
        fprintf(stderr, "usage: window COUNTERS_FILE WARM_MS WINDOW_MS GATEWAY_CORE:[PID,...] "
                        "LOAD_CORE:[PID,...]\n");
        return 2;
    }
    map_counters(argv[1]);
    for (int p = 0; p < PLACE_COUNT; p++)
        parse_place(&places[p], argv[4 + p]);
    sleep_ms(strtoul(argv[2], NULL, 10));
    take_sample(&before);
    sleep_ms(strtoul(argv[3], NULL, 10));
    take_sample(&after);
    print_difference(&before, &after);
    return 0;
}
