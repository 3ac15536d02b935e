/*
 * Deadline: see deadline.h.
 */
#include "deadline.h"
#include <string.h>

#define GRPC_MAX 99999999u /* eight digits */

static enum pl_deadline_unit unit_named(struct pl_str name)
{
    if (pl_str_equal(name, PL_STR("ms")))
        return PL_DEADLINE_MS;
    if (pl_str_equal(name, PL_STR("s")))
        return PL_DEADLINE_S;
    return pl_str_equal(name, PL_STR("grpc")) ? PL_DEADLINE_GRPC : PL_DEADLINE_NONE;
}

enum pl_deadline_unit pl_deadline_unit_of(const char *list, struct pl_str name)
{
    while (list && *list != '\0') {
        size_t len = strcspn(list, ","), name_len = strcspn(list, ":");
        if (name_len < len && pl_str_equal_nocase((struct pl_str){list, name_len}, name))
            return unit_named((struct pl_str){list + name_len + 1, len - name_len - 1});
        list += len + (list[len] == ',');
    }
    return PL_DEADLINE_NONE;
}

size_t pl_deadline_put(char out[PL_DEADLINE_MAX_BYTES], enum pl_deadline_unit unit, uint64_t ms)
{
    uint64_t whole_s = ms / 1000 + (ms % 1000 > 0);
    bool in_seconds = unit == PL_DEADLINE_S || (unit == PL_DEADLINE_GRPC && ms > GRPC_MAX);
    size_t len = pl_put_decimal(out, in_seconds ? whole_s : ms);
    if (unit == PL_DEADLINE_GRPC)
        out[len++] = in_seconds ? 'S' : 'm';
    return len;
}
