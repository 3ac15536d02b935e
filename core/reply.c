/*
 * Reply: see reply.h. Thread: any; the Date line is cached per thread for a second.
 */
#include "reply.h"
#include <string.h>
#include <time.h>

static const struct {
    int status;
    const char *phrase;
} phrases[] = {
    {100, "Continue"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {203, "Non-Authoritative Information"},
    {204, "No Content"},
    {205, "Reset Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {424, "Failed Dependency"},
    {425, "Too Early"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {499, "Client Closed Request"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {529, "Overloaded"},
};

const char *pl_reply_phrase(int status)
{
    for (size_t i = 0; i < PL_COUNT(phrases); i++) {
        if (phrases[i].status == status)
            return phrases[i].phrase;
    }
    return "Unknown";
}

bool pl_reply_is_bodiless(int status)
{
    return status < 200 || status == 204 || status == 304;
}

/* "Date: ..." for this second, made once per second and thread. */
static const char *date_line(void)
{
    static _Thread_local time_t made_at_s;
    static _Thread_local char line[48];
    time_t now_s = time(NULL);
    if (now_s != made_at_s) {
        struct tm tm;
        gmtime_r(&now_s, &tm);
        strftime(line, sizeof(line), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
        made_at_s = now_s;
    }
    return line;
}

static size_t headers_size(const struct pl_headers *headers)
{
    return headers ? headers->arena_len + headers->count * 4 : 0;
}

static char *append(char *at, const char *data, size_t len)
{
    memcpy(at, data, len);
    return at + len;
}

static char *append_header(char *at, struct pl_str name, struct pl_str value)
{
    at = append(at, name.data, name.len);
    at = append(at, ": ", 2);
    at = append(at, value.data, value.len);
    return append(at, "\r\n", 2);
}

static char *append_length(char *at, uint64_t bytes)
{
    char digits[PL_NUMBER_MAX];
    size_t len = pl_put_decimal(digits, bytes);
    return append_header(at, PL_STR("Content-Length"), (struct pl_str){digits, len});
}

void pl_reply_write_head(struct evbuffer *out, const struct pl_reply *reply)
{
    struct evbuffer_iovec space;
    size_t room = headers_size(reply->headers) + 320;
    if (evbuffer_reserve_space(out, (ev_ssize_t)room, &space, 1) < 1)
        return;
    char *at = space.iov_base;
    const char *phrase = pl_reply_phrase(reply->status);
    at = append(at, reply->minor_version == 0 ? "HTTP/1.0 " : "HTTP/1.1 ", 9);
    at += pl_put_decimal(at, (uint64_t)reply->status);
    at = append(at, " ", 1);
    at = append(at, phrase, strlen(phrase));
    at = append(at, "\r\n", 2);
    for (size_t i = 0; reply->headers && i < reply->headers->count; i++)
        at = append_header(at, pl_headers_name(reply->headers, i),
                           pl_headers_value(reply->headers, i));
    const char *date = date_line();
    at = append(at, date, strlen(date));
    if (reply->chunked)
        at = append_header(at, PL_STR("Transfer-Encoding"), PL_STR("chunked"));
    else if (reply->content_length_bytes >= 0)
        at = append_length(at, (uint64_t)reply->content_length_bytes);
    if (reply->close)
        at = append_header(at, PL_STR("Connection"), PL_STR("close"));
    else if (reply->minor_version == 0)
        at = append_header(at, PL_STR("Connection"), PL_STR("keep-alive"));
    at = append(at, "\r\n", 2);
    space.iov_len = (size_t)(at - (char *)space.iov_base);
    evbuffer_commit_space(out, &space, 1);
}
