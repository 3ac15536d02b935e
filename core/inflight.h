/*
 * In flight: a request that has not ended, as JSON, for GET /admin/requests: what it is, what it
 * waits for, what was tried.
 *
 * Thread: the request's worker. Changes nothing.
 */
#ifndef PL_INFLIGHT_H
#define PL_INFLIGHT_H

#include "json_write.h"
#include "request.h"

/** An object; the fields of the access log where it has the same. */
void pl_inflight_write(const struct pl_request *request, uint64_t now_ms, struct pl_json_text *out);

#endif
