/* Answers: see answers.h. Made once, at start, and never freed. */
#include "answers.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_BYTES 1024
#define EVENT_BYTES  256

static void append(struct bytes *target, const char *data, size_t len)
{
    target->data = realloc(target->data, target->len + len);
    if (target->data == NULL)
        abort();
    memcpy(target->data + target->len, data, len);
    target->len += len;
}

static void append_text(struct bytes *target, const char *text)
{
    append(target, text, strlen(text));
}

static void append_chunk(struct bytes *target, const char *data)
{
    char chunk[EVENT_BYTES + 32];
    int len = snprintf(chunk, sizeof(chunk), "%zx\r\n%s\r\n", strlen(data), data);

    append(target, chunk, (size_t)len);
}

static void append_event(struct bytes *target, const char *delta, const char *finish)
{
    char event[EVENT_BYTES];

    snprintf(event, sizeof(event),
             "data: {\"id\":\"chatcmpl-bench00001\",\"object\":\"chat.completion.chunk\","
             "\"created\":1700000000,\"model\":\"upstream-model\",\"choices\":[{\"index\":0,"
             "\"delta\":%s,\"finish_reason\":%s}]}\n\n",
             delta, finish);
    append_chunk(target, event);
}

static void make_answer(struct bytes *answer, const char *status, const char *body)
{
    char text[ANSWER_BYTES];
    int len = snprintf(text, sizeof(text),
                       "HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
                       "Content-Length: %zu\r\n\r\n%s",
                       status, strlen(body), body);

    append(answer, text, (size_t)len);
}

void answers_make(struct answers *self)
{
    static const char completion[] =
        "{\"id\":\"chatcmpl-bench00001\",\"object\":\"chat.completion\",\"created\":1700000000,"
        "\"model\":\"upstream-model\",\"choices\":[{\"index\":0,\"message\":"
        "{\"role\":\"assistant\",\"content\":\"The far side of the Moon is not dark; "
        "it sees as much of the Sun as the near side does.\"},"
        "\"logprobs\":null,\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":58,\"completion_tokens\":21,\"total_tokens\":79},\"system_"
        "fingerprint\":\"fp_bench\"}";
    static const char overloaded[] = "{\"error\":{\"message\":\"The server is overloaded\","
                                     "\"type\":\"server_error\",\"param\":null,\"code\":null}}";
    static const char limited[] = "{\"error\":{\"message\":\"Rate limit reached\",\"type\":"
                                  "\"requests\",\"param\":null,\"code\":\"rate_limit_exceeded\"}}";

    make_answer(&self->whole[LISTENER_OK_A], "200 OK", completion);
    make_answer(&self->whole[LISTENER_OK_B], "200 OK", completion);
    make_answer(&self->whole[LISTENER_503_A], "503 Service Unavailable", overloaded);
    make_answer(&self->whole[LISTENER_503_B], "503 Service Unavailable", overloaded);
    make_answer(&self->whole[LISTENER_429], "429 Too Many Requests", limited);
    make_answer(&self->whole[LISTENER_COLLECTOR], "200 OK", "{}");
    make_answer(&self->unreadable, "411 Length Required", overloaded);

    append_text(&self->opening, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n");
    append_event(&self->opening, "{\"role\":\"assistant\",\"content\":\"\"}", "null");
    append_event(&self->opening, "{\"content\":\" the far side\"}", "null");
    for (int i = 0; i < ANSWERS_EVENTS_PER_WRITE; i++)
        append_event(&self->content, "{\"content\":\" the far side\"}", "null");
    append_event(&self->closing, "{}", "\"stop\"");
    append_chunk(&self->closing, "data: [DONE]\n\n");
    append_text(&self->closing, "0\r\n\r\n");
}
