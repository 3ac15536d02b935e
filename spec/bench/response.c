/* Response: see response.h. */
#include "response.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DONE_EVENT      "data: [DONE]"
#define MAX_SIZE_DIGITS 8

void response_reset(struct response *self)
{
    memset(self, 0, offsetof(struct response, head)); /* the head itself need not be cleared */
}

/* --- events ---------------------------------------------------------------------------------- */

static void on_line_part(struct response *self, const char *text, size_t len)
{
    size_t room = RESPONSE_LEAD_BYTES - self->lead_len;
    size_t taken = len < room ? len : room;

    memcpy(self->lead + self->lead_len, text, taken);
    self->lead_len += taken;
    self->sse_line_len += len;
}

/** An event ends with an empty line. */
static void on_line_end(struct response *self)
{
    if (self->sse_line_len == 0) {
        self->events++;
        self->done = self->lead_len == strlen(DONE_EVENT) &&
                     memcmp(self->lead, DONE_EVENT, self->lead_len) == 0;
        self->lead_len = 0;
    }
    self->sse_line_len = 0;
}

static void on_body(struct response *self, const char *data, size_t len)
{
    const char *end = data + len;

    self->body_bytes += len;
    while (data < end) {
        const char *newline = memchr(data, '\n', (size_t)(end - data));

        on_line_part(self, data, (size_t)((newline != NULL ? newline : end) - data));
        if (newline == NULL)
            return;
        on_line_end(self);
        data = newline + 1;
    }
}

/* --- framing --------------------------------------------------------------------------------- */

/** The value of a header in the zero-terminated head, or NULL. `name` as "\r\nname:". */
static const char *find_header(const struct response *self, const char *name)
{
    const char *at = strcasestr(self->head, name);

    if (at == NULL)
        return NULL;
    at += strlen(name);
    return at + strspn(at, " \t");
}

static void on_head(struct response *self)
{
    const char *value;

    if (strncmp(self->head, "HTTP/1.1 ", 9) != 0) {
        self->state = RESPONSE_BROKEN;
        return;
    }
    self->status = (int)strtol(self->head + 9, NULL, 10);
    value = find_header(self, "\r\nconnection:");
    self->close_after = value != NULL && strncasecmp(value, "close", 5) == 0;
    if ((value = find_header(self, "\r\ntransfer-encoding:")) != NULL) {
        self->state = strncasecmp(value, "chunked", 7) == 0 ? RESPONSE_CHUNK_SIZE : RESPONSE_BROKEN;
    } else if ((value = find_header(self, "\r\ncontent-length:")) != NULL) {
        self->left = strtoull(value, NULL, 10);
        self->state = self->left > 0 ? RESPONSE_BODY_LENGTH : RESPONSE_WHOLE;
    } else {
        self->state = RESPONSE_BODY_UNTIL_CLOSE;
    }
}

/** Returns how many bytes of `data` belong to the head. */
static size_t feed_head(struct response *self, const char *data, size_t len)
{
    size_t before = self->head_len;
    size_t room = RESPONSE_HEAD_BYTES - before;
    size_t taken = len < room ? len : room;
    char *end;

    memcpy(self->head + before, data, taken);
    self->head_len += taken;
    self->head[self->head_len] = '\0';
    end = strstr(self->head, "\r\n\r\n");
    if (end == NULL) {
        if (self->head_len == RESPONSE_HEAD_BYTES)
            self->state = RESPONSE_BROKEN;
        return taken;
    }
    end[2] = '\0'; /* headers end here; the last one keeps its CR LF */
    on_head(self);
    return (size_t)(end - self->head) + 4 - before;
}

static size_t feed_body(struct response *self, const char *data, size_t len)
{
    size_t taken = len < self->left ? len : (size_t)self->left;

    on_body(self, data, taken);
    self->left -= taken;
    if (self->left == 0)
        self->state = self->state == RESPONSE_CHUNK_DATA ? RESPONSE_CHUNK_END : RESPONSE_WHOLE;
    return taken;
}

static void on_size_byte(struct response *self, char byte)
{
    if (byte == '\n' && self->framing_len > 0) {
        self->state = self->left > 0 ? RESPONSE_CHUNK_DATA : RESPONSE_TRAILER;
        self->framing_len = 0;
    } else if (isxdigit((unsigned char)byte) && self->framing_len < MAX_SIZE_DIGITS) {
        int digit = byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10;

        self->left = self->left * 16 + (uint64_t)digit;
        self->framing_len++;
    } else if (byte != '\r') {
        self->state = RESPONSE_BROKEN;
    }
}

/** The end of a chunk's data, or the lines after the last chunk. */
static void on_framing_byte(struct response *self, char byte)
{
    if (self->state == RESPONSE_CHUNK_END) {
        if (byte == '\n')
            self->state = RESPONSE_CHUNK_SIZE;
        else if (byte != '\r')
            self->state = RESPONSE_BROKEN;
    } else if (byte == '\n') {
        if (self->framing_len == 0)
            self->state = RESPONSE_WHOLE;
        self->framing_len = 0;
    } else if (byte != '\r') {
        self->framing_len++;
    }
}

void response_feed(struct response *self, const char *data, size_t len)
{
    size_t at = 0;

    while (at < len) {
        switch (self->state) {
        case RESPONSE_HEAD:
            at += feed_head(self, data + at, len - at);
            break;
        case RESPONSE_BODY_LENGTH:
        case RESPONSE_CHUNK_DATA:
            at += feed_body(self, data + at, len - at);
            break;
        case RESPONSE_BODY_UNTIL_CLOSE:
            on_body(self, data + at, len - at);
            return;
        case RESPONSE_CHUNK_SIZE:
            on_size_byte(self, data[at++]);
            break;
        case RESPONSE_CHUNK_END:
        case RESPONSE_TRAILER:
            on_framing_byte(self, data[at++]);
            break;
        default:
            self->state = RESPONSE_BROKEN;
            return;
        }
    }
}

void response_close(struct response *self)
{
    if (self->state == RESPONSE_BODY_UNTIL_CLOSE)
        self->state = RESPONSE_WHOLE;
    else if (self->state != RESPONSE_WHOLE)
        self->state = RESPONSE_BROKEN;
}
