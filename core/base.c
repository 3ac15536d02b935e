/*
 * Base: byte spans, clocks, random numbers, allocation that cannot fail.
 *
 * Thread: any. The only state is the random generator, one per thread, seeded on first use; nothing
 * is shared, nothing is locked. Clocks go through the vDSO, except the thread's CPU clock, which is
 * a system call. Deliberately not here: random numbers for secrets, and recovery from a machine
 * without memory (a gateway that cannot allocate 100 bytes cannot answer anyone; the supervisor
 * starts a new one).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "base.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define SMALL_BYTES 1024 /* as far as glibc's per-thread cache goes */

/* ---- byte spans ---- */

static bool is_letter(unsigned char c)
{
    return (unsigned char)((c | 0x20) - 'a') <= 'z' - 'a';
}

static bool is_tail(unsigned char byte)
{
    return (byte & 0xc0) == 0x80;
}

size_t pl_utf8_bytes(const char *data, size_t len)
{
    const unsigned char *at = (const unsigned char *)data;
    unsigned char lead = at[0];
    size_t want = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (lead > 0xf4 || want > len)
        return 0;
    for (size_t i = 1; i < want; i++) {
        if (!is_tail(at[i]))
            return 0;
    }
    bool overlong = (lead == 0xe0 && at[1] < 0xa0) || (lead == 0xf0 && at[1] < 0x90);
    bool surrogate = lead == 0xed && at[1] > 0x9f;
    return overlong || surrogate || (lead == 0xf4 && at[1] > 0x8f) ? 0 : want;
}

bool pl_str_equal(struct pl_str a, struct pl_str b)
{
    /* An empty span may have no data, and memcmp may not be given NULL even for no bytes. */
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool pl_bytes_equal_nocase(const char *a, const char *b, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char difference = (unsigned char)(a[i] ^ b[i]);
        if (difference != 0 && (difference != 0x20 || !is_letter((unsigned char)a[i]))) {
            return false;
        }
    }
    return true;
}

/* ---- clocks ---- */

static struct timespec read_clock(clockid_t clock)
{
    struct timespec now = {0, 0};
    /* Fails only for a clock that the kernel does not have; all three are as old as Linux 2.6. */
    if (clock_gettime(clock, &now) != 0) {
        abort();
    }
    return now;
}

static uint64_t timespec_us(struct timespec t)
{
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* Set before anything is played, on the only thread there is: no atomic. */
static const struct pl_clock *installed_clock;

const struct pl_clock *pl_clock_install(const struct pl_clock *clock)
{
    const struct pl_clock *before = installed_clock;
    installed_clock = clock;
    return before;
}

static bool is_virtual(void)
{
    return __builtin_expect(installed_clock != NULL, 0);
}

uint64_t pl_now_us(void)
{
    return is_virtual() ? installed_clock->now_us : timespec_us(read_clock(CLOCK_MONOTONIC));
}

static _Thread_local uint64_t last_now_ms;

uint64_t pl_now_ms(void)
{
    uint64_t now_ms = pl_now_us() / 1000u;
    if (!is_virtual())
        last_now_ms = now_ms;
    return now_ms;
}

uint64_t pl_last_now_ms(void)
{
    return is_virtual() ? pl_now_ms() : last_now_ms;
}

uint64_t pl_now_wall_ms(void)
{
    if (is_virtual())
        return (uint64_t)((int64_t)pl_now_ms() + installed_clock->ahead_ms);
    return timespec_us(read_clock(CLOCK_REALTIME)) / 1000u;
}

uint64_t pl_thread_cpu_us(void)
{
    return timespec_us(read_clock(CLOCK_THREAD_CPUTIME_ID));
}

/* ---- random numbers: xoshiro256**, Blackman and Vigna 2018 ---- */

static _Thread_local struct pl_random generator;

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return (x << bits) | (x >> (64u - bits));
}

void pl_random_seed(uint64_t seed)
{
    /* splitmix64 spreads one seed over the state and cannot leave it all zero. */
    for (size_t i = 0; i < PL_COUNT(generator.words); i++) {
        seed += 0x9e3779b97f4a7c15u;
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        generator.words[i] = z ^ (z >> 31);
    }
    generator.seeded = true;
}

void pl_random_swap(struct pl_random *other)
{
    struct pl_random before = generator;
    generator = *other;
    *other = before;
}

static void seed_from_kernel(void)
{
    uint64_t seed = 0;
    ssize_t got;
    do {
        got = getrandom(&seed, sizeof(seed), 0);
    } while (got < 0 && errno == EINTR);
    if (got != (ssize_t)sizeof(seed)) {
        /* No getrandom (a tight seccomp profile): still different per thread and per start. */
        seed = timespec_us(read_clock(CLOCK_MONOTONIC)) ^ (uint64_t)(uintptr_t)&generator;
    }
    pl_random_seed(seed);
}

uint64_t pl_random_u64(void)
{
    if (!generator.seeded) {
        seed_from_kernel();
    }
    uint64_t *s = generator.words;
    uint64_t result = rotate_left(s[1] * 5u, 7) * 9u;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

double pl_random_unit(void)
{
    return (double)(pl_random_u64() >> 11) * 0x1p-53;
}

/* ---- plain bytes ---- */

#define EACH(byte) ((byte)*0x0101010101010101u) /* of a word's bytes */

/* Bytes of a word that are 0 have their high bit set in the result; so may others after one. */
static uint64_t zeros_of(uint64_t word)
{
    return (word - EACH(1)) & ~word & EACH(0x80);
}

static bool are_plain(const char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    uint64_t odd =
        zeros_of(word ^ EACH('"')) | zeros_of(word ^ EACH('\\')) | zeros_of(word ^ EACH(127));
    return ((word | (word - EACH(' ')) | odd) & EACH(0x80)) == 0;
}

static bool is_plain(unsigned char byte)
{
    return byte >= ' ' && byte < 127 && byte != '"' && byte != '\\';
}

size_t pl_plain_bytes(const char *text, size_t len)
{
    size_t at = 0;
    while (len - at >= 8 && are_plain(text + at))
        at += 8;
    if (at > 0 && len - at < 8 && are_plain(text + len - 8))
        return len;
    while (at < len && is_plain((unsigned char)text[at]))
        at++;
    return at;
}

/* ---- numbers as text ---- */

static size_t digit_count(uint64_t number)
{
    size_t count = 1;
    for (; number >= 100; number /= 100)
        count += 2;
    return count + (number >= 10);
}

size_t pl_put_decimal(char *out, uint64_t number)
{
    size_t len = digit_count(number), at = len;
    for (; number >= 10; number /= 10)
        out[--at] = (char)('0' + number % 10);
    out[0] = (char)('0' + number);
    return len;
}

size_t pl_put_hex(char *out, uint64_t number)
{
    size_t len = 1;
    for (uint64_t rest = number >> 4; rest > 0; rest >>= 4)
        len++;
    for (size_t at = len; at > 0; number >>= 4)
        out[--at] = "0123456789abcdef"[number & 15];
    return len;
}

/* The eight digits of a number, a byte each, in the order of memory: nibbles are spread out, and
 * those above 9 get the distance from '9' + 1 to 'a' added. */
static void put_hex8(char *out, uint32_t number)
{
    uint64_t spread = number;
    spread = (spread << 16 | spread) & 0x0000ffff0000ffffu;
    spread = (spread << 8 | spread) & 0x00ff00ff00ff00ffu;
    spread = (spread << 4 | spread) & 0x0f0f0f0f0f0f0f0fu;
    uint64_t is_letter = ((spread + 0x0606060606060606u) >> 4) & 0x0101010101010101u;
    uint64_t digits = htobe64(spread + 0x3030303030303030u + is_letter * ('a' - '9' - 1));
    memcpy(out, &digits, sizeof(digits));
}

void pl_put_hex16(char *out, uint64_t number)
{
    put_hex8(out, (uint32_t)(number >> 32));
    put_hex8(out + 8, (uint32_t)number);
}

/* ---- allocation ---- */

static void *or_die(void *block)
{
    if (block == NULL) {
        static const char message[] = "perilune: out of memory\n";
        /* Not through the log: it may allocate, and there is nothing to allocate from. */
        ssize_t ignored = write(STDERR_FILENO, message, sizeof(message) - 1);
        (void)ignored;
        abort();
    }
    return block;
}

/* Size 0 asks for 1 byte, so that NULL always means "no memory" and every block can be freed. */

void *pl_xmalloc(size_t size_bytes)
{
    return or_die(malloc(size_bytes > 0 ? size_bytes : 1));
}

void *pl_xcalloc(size_t count, size_t size_bytes)
{
    /* calloc passes glibc's per-thread cache by: for what is small, clearing by hand is faster */
    if (count > 0 && size_bytes <= SMALL_BYTES / count)
        return memset(pl_xmalloc(count * size_bytes), 0, count * size_bytes);
    return count > 0 && size_bytes > 0 ? or_die(calloc(count, size_bytes)) : or_die(calloc(1, 1));
}

void *pl_xrealloc(void *block, size_t size_bytes)
{
    return or_die(realloc(block, size_bytes > 0 ? size_bytes : 1));
}

char *pl_xstrdup(const char *text)
{
    return pl_xstrndup(text, strlen(text));
}

char *pl_xstrndup(const char *data, size_t len)
{
    if (len == SIZE_MAX) {
        or_die(NULL);
    }
    char *copy = pl_xmalloc(len + 1);
    if (len > 0) {
        memcpy(copy, data, len);
    }
    copy[len] = '\0';
    return copy;
}
