/*
 * Record: see record.h. The names, and what a status says.
 */
#include "record.h"

static const char *const END_NAMES[PL_END_COUNT] = {
    [PL_END_COMPLETE] = "complete",       [PL_END_CUT] = "cut",
    [PL_END_CLIENT_GONE] = "client_gone", [PL_END_REFUSED] = "refused",
    [PL_END_FAILED] = "failed",           [PL_END_KILLED] = "killed",
};

static const char *const CLASS_NAMES[PL_CLASS_COUNT] = {
    [PL_CLASS_NONE] = "abandoned",
    [PL_CLASS_OK] = "ok",
    [PL_CLASS_RATE_LIMITED] = "rate_limited",
    [PL_CLASS_AUTH] = "auth",
    [PL_CLASS_BILLING] = "billing",
    [PL_CLASS_MODEL_NOT_FOUND] = "model_not_found",
    [PL_CLASS_CONTEXT_LENGTH] = "context_length",
    [PL_CLASS_CONTENT_FILTER] = "content_filter",
    [PL_CLASS_CLIENT_FAULT] = "client_fault",
    [PL_CLASS_OVERLOADED] = "overloaded",
    [PL_CLASS_SERVER_ERROR] = "server_error",
    [PL_CLASS_DNS] = "dns",
    [PL_CLASS_CONNECT] = "connect",
    [PL_CLASS_TLS] = "tls",
    [PL_CLASS_RESET] = "reset",
    [PL_CLASS_TIMEOUT_CONNECT] = "timeout_connect",
    [PL_CLASS_TIMEOUT_HEAD] = "timeout_head",
    [PL_CLASS_TIMEOUT_FIRST_TOKEN] = "timeout_first_token",
    [PL_CLASS_TIMEOUT_IDLE] = "timeout_idle",
    [PL_CLASS_TIMEOUT_TRY] = "timeout_try",
    [PL_CLASS_TIMEOUT_DEADLINE] = "timeout_deadline",
    [PL_CLASS_TRUNCATED] = "truncated",
    [PL_CLASS_MALFORMED] = "malformed",
    [PL_CLASS_EMPTY] = "empty",
    [PL_CLASS_HEDGE_LOST] = "hedge_lost",
};

/* The FIXED table of lua/perilune/classify.lua, and what it says of a status whose body tells
 * nothing; spec/unit/classify_spec.lua holds the two together. */
static const struct {
    int status;
    enum pl_class class;
} STATUS_CLASSES[] = {
    {304, PL_CLASS_OK},
    {401, PL_CLASS_AUTH},
    {402, PL_CLASS_BILLING},
    {403, PL_CLASS_AUTH},
    {404, PL_CLASS_MODEL_NOT_FOUND},
    {408, PL_CLASS_SERVER_ERROR},
    {413, PL_CLASS_CONTEXT_LENGTH},
    {429, PL_CLASS_RATE_LIMITED},
    {503, PL_CLASS_OVERLOADED},
    {529, PL_CLASS_OVERLOADED},
};

static const char *const WORK_NAMES[] = {
    [PL_WORK_NONE] = "",
    [PL_WORK_NOT_SENT] = "not_sent",
    [PL_WORK_REFUSED] = "refused",
    [PL_WORK_UNCERTAIN] = "uncertain",
    [PL_WORK_PARTLY_GENERATED] = "partly_generated",
};

const char *pl_work_name(enum pl_work work)
{
    return WORK_NAMES[work];
}

const char *pl_end_name(enum pl_end end)
{
    return END_NAMES[end];
}

const char *pl_hedge_name(enum pl_hedge hedge)
{
    static const char *const names[PL_HEDGE_COUNT] = {
        [PL_HEDGE_FIRST] = "first",         [PL_HEDGE_SECOND] = "second",
        [PL_HEDGE_NONE] = "none",           [PL_HEDGE_ENDED] = "ended",
        [PL_HEDGE_NO_BUDGET] = "no_budget", [PL_HEDGE_NO_TARGET] = "no_target",
    };
    return names[hedge];
}

const char *pl_class_name(enum pl_class class)
{
    return CLASS_NAMES[class];
}

enum pl_class pl_class_from_name(struct pl_str name)
{
    for (int class = PL_CLASS_OK; class < PL_CLASS_COUNT; class ++) {
        if (pl_str_equal(name, pl_str_of(CLASS_NAMES[class])))
            return (enum pl_class) class;
    }
    return PL_CLASS_NONE;
}

enum pl_class pl_class_of_status(int status)
{
    if (status >= 200 && status < 300)
        return PL_CLASS_OK;
    for (size_t i = 0; i < PL_COUNT(STATUS_CLASSES); i++) {
        if (STATUS_CLASSES[i].status == status)
            return STATUS_CLASSES[i].class;
    }
    return status >= 400 && status < 500 ? PL_CLASS_CLIENT_FAULT : PL_CLASS_SERVER_ERROR;
}
