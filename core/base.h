/*
 * Base: what every layer may use. Error codes, clocks, byte spans, allocation that cannot fail.
 *
 * Thread: any. Owns nothing. Sizes that a peer controls are checked by the caller before they get
 * here; when the machine itself is out of memory the process ends (pl_xmalloc and friends).
 */
#ifndef PL_BASE_H
#define PL_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PERILUNE_VERSION "0.1.0"

#define PL_NODISCARD         __attribute__((warn_unused_result))
#define PL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define PL_COUNT(array)      (sizeof(array) / sizeof((array)[0]))
#define PL_MIN(a, b)         ((a) < (b) ? (a) : (b))
#define PL_MAX(a, b)         ((a) > (b) ? (a) : (b))

/** Results of functions that return int. 0 is success. */
enum pl_err {
    PL_OK = 0,
    PL_ERR_SYNTAX = -1, /* the input breaks its grammar */
    PL_ERR_LIMIT = -2,  /* the input is larger than a limit allows */
    PL_ERR_CLOSED = -3, /* the other side, or this object, has ended */
    PL_ERR_SYSTEM = -4, /* a system call failed; errno says why */
    PL_ERR_ABSENT = -5, /* what was asked for is not there */
};

/** A borrowed run of bytes, not terminated. */
struct pl_str {
    const char *data;
    size_t len;
};

#define PL_STR(literal) ((struct pl_str){(literal), sizeof(literal) - 1})

/** The span of a zero-terminated text. */
static inline struct pl_str pl_str_of(const char *text)
{
    return (struct pl_str){text, strlen(text)};
}

/** True when both hold the same bytes. */
bool pl_str_equal(struct pl_str a, struct pl_str b);
bool pl_bytes_equal_nocase(const char *a, const char *b, size_t len);
/** True when both are equal but for the case of ASCII letters. Header names are compared by the
 *  dozen in every request: most differ in length or in the first letter. */
static inline bool pl_str_equal_nocase(struct pl_str a, struct pl_str b)
{
    if (a.len != b.len || (a.len > 0 && ((a.data[0] ^ b.data[0]) & ~0x20) != 0))
        return false;
    return pl_bytes_equal_nocase(a.data, b.data, a.len);
}

/** How many bytes the UTF-8 character has that `data` begins with; 0: it is none (RFC 3629), or is
 *  longer than `len`, which is at least 1. */
size_t pl_utf8_bytes(const char *data, size_t len);

/** Milliseconds and microseconds of the monotonic clock. */
uint64_t pl_now_ms(void);
uint64_t pl_now_us(void);
/**
 * What pl_now_ms said last on this thread. A look at the clock costs as much as a dozen lines of
 * code, so what happens within one event shares one: who calls this has it from its event that
 * pl_now_ms was called at its beginning, and it is behind by no more than the event has taken.
 */
uint64_t pl_last_now_ms(void);
/** Milliseconds since the epoch, for dates only; never for intervals. */
uint64_t pl_now_wall_ms(void);
/** Microseconds of CPU that the calling thread has used; always the real ones. */
uint64_t pl_thread_cpu_us(void);

/** A clock that its owner moves by hand. */
struct pl_clock {
    uint64_t now_us;  /* of the monotonic clock */
    int64_t ahead_ms; /* what the wall clock has more than the monotonic one */
};
/**
 * From now on the clocks above show `clock`, which is borrowed; NULL: the real ones. Returns what
 * was in force. For the whole process: only commands that play requests use it, on one thread.
 */
const struct pl_clock *pl_clock_install(const struct pl_clock *clock);

/** Uniform random number from a per-thread generator seeded by the kernel. Not for secrets. */
uint64_t pl_random_u64(void);
/** Uniform in [0, 1). */
double pl_random_unit(void);
/** Seeds the calling thread's generator; the same seed gives the same numbers. */
void pl_random_seed(uint64_t seed);
/** A generator that is put aside; all zero: one that the kernel will seed. */
struct pl_random {
    uint64_t words[4];
    bool seeded;
};
/** Exchanges the calling thread's generator with `other`. */
void pl_random_swap(struct pl_random *other);

/** How many bytes from the start stand for themselves in a JSON string: ASCII from ' ' on but
 * quotes, backslashes and DEL. */
size_t pl_plain_bytes(const char *text, size_t len);

/** Writes a number in decimal or (lower case) hexadecimal, not terminated; returns its length. The
 *  formatted printing of libc costs ten times as much, and these stand in every request. */
size_t pl_put_decimal(char *out, uint64_t number);
size_t pl_put_hex(char *out, uint64_t number);
#define PL_NUMBER_MAX 20 /* bytes that either may write */
/** Writes all 16 hexadecimal digits of a number. */
void pl_put_hex16(char *out, uint64_t number);

/** As malloc, calloc, realloc, strdup, but end the process when memory is out. */
void *pl_xmalloc(size_t size_bytes);
void *pl_xcalloc(size_t count, size_t size_bytes);
void *pl_xrealloc(void *block, size_t size_bytes);
char *pl_xstrdup(const char *text);
/** Copies a span into a new, zero-terminated string. */
char *pl_xstrndup(const char *data, size_t len);

#endif
