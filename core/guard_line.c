/*
 * Guard: the request line. See guard_internal.h.
 */
#include "guard_internal.h"

static const char NO_VERSION[] = "The request line does not end in an HTTP version.";

static const char *const METHODS[] = {
    [GET] = "GET",     [HEAD] = "HEAD",     [POST] = "POST",       [PUT] = "PUT",
    [PATCH] = "PATCH", [DELETE] = "DELETE", [OPTIONS] = "OPTIONS",
};

const char *pl_guard_method(const struct pl_guard *self)
{
    return METHODS[self->method];
}

static bool find_method(struct pl_guard *self)
{
    for (size_t i = 0; i < PL_COUNT(METHODS); i++) {
        if (text_is(self, (struct pl_str){METHODS[i], strlen(METHODS[i])})) {
            self->method = (uint8_t)i;
            self->is_head = i == HEAD;
            return true;
        }
    }
    return false;
}

static const char *scan_method(struct pl_guard *self, const char *start, const char *end)
{
    const char *at = skip_token(start, end);
    keep(self, start, (size_t)(at - start));
    if (at == end) {
        return at;
    }
    if (*at != ' ' || self->text_len == 0) {
        return refuse_byte(self, at, "The request line does not start with a method and a space.");
    }
    if (!find_method(self)) {
        return refuse(self, at, 405, "The request method is not supported.");
    }
    return next(self, TARGET_START, at + 1);
}

static const char *scan_target_start(struct pl_guard *self, const char *at)
{
    self->target_offset = place_of(self, at);
    if (*at == '/') {
        return next(self, TARGET_ROOT, at + 1);
    }
    if (*at == '*' && self->method == OPTIONS) {
        return next(self, TARGET_STAR, at + 1);
    }
    return refuse_byte(self, at, "The request target does not start with a slash.");
}

static const char *scan_target_root(struct pl_guard *self, const char *at)
{
    if (*at == '/') {
        return refuse(self, at, 400, "The request target starts with two slashes.");
    }
    return next(self, TARGET, at);
}

static const char *end_target(struct pl_guard *self, const char *at)
{
    if (*at != ' ') {
        return refuse_byte(self, at,
                           *at == '\r' ? NO_VERSION : "The request target has a byte not allowed.");
    }
    self->target_len = place_of(self, at) - self->target_offset;
    self->text_len = 0;
    return next(self, VERSION, at + 1);
}

static const char *scan_target(struct pl_guard *self, const char *at, const char *end)
{
    while (at < end && is_visible(*at) && *at != '#') {
        at++;
    }
    return at < end ? end_target(self, at) : at;
}

static const char *end_version(struct pl_guard *self, const char *at)
{
    if (text_is(self, PL_STR("HTTP/1.1")) || text_is(self, PL_STR("HTTP/1.0"))) {
        self->minor_version = (uint8_t)(self->text[7] - '0');
        return next(self, LINE_LF, at + 1);
    }
    bool is_other = self->text_len == 8 && memcmp(self->text, "HTTP/", 5) == 0 &&
                    self->text[5] >= '0' && self->text[5] <= '9' && self->text[6] == '.' &&
                    self->text[7] >= '0' && self->text[7] <= '9';
    if (is_other) {
        return refuse(self, at, 505, "The HTTP version is neither 1.0 nor 1.1.");
    }
    return refuse(self, at, 400, NO_VERSION);
}

static const char *scan_version(struct pl_guard *self, const char *start, const char *end)
{
    const char *at = start;
    while (at < end && is_visible(*at)) {
        at++;
    }
    keep(self, start, (size_t)(at - start));
    if (at == end) {
        return at;
    }
    return *at == '\r' ? end_version(self, at) : refuse_byte(self, at, NO_VERSION);
}

static const char *scan_state(struct pl_guard *self, const char *at, const char *end)
{
    switch ((enum state)self->state) {
    case METHOD:
        return scan_method(self, at, end);
    case TARGET_START:
        return scan_target_start(self, at);
    case TARGET_ROOT:
        return scan_target_root(self, at);
    case TARGET:
        return scan_target(self, at, end);
    case TARGET_STAR:
        return end_target(self, at);
    case VERSION:
        return scan_version(self, at, end);
    default: /* LINE_LF; pl_guard_scan_line lets no other state in */
        return scan_lf(self, at);
    }
}

const char *pl_guard_scan_line(struct pl_guard *self, const char *at, const char *end)
{
    while (at < end && self->state <= LINE_LF) {
        at = scan_state(self, at, end);
    }
    return at;
}
