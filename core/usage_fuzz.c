/*
 * Fuzz target of usage.c: a stream or a valid body, cut in two anywhere, gives the same findings,
 * and nothing leaks.
 */
#include "json.h"
#include "usage.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void scan(struct pl_usage_scan *self, bool is_sse, const char *data, size_t len, size_t cut)
{
    pl_usage_scan_init(self, is_sse);
    pl_usage_scan_feed(self, data, cut);
    pl_usage_scan_feed(self, data + cut, len - cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pl_usage_scan whole, parts;
    if (size < 2)
        return 0;
    bool is_sse = data[0] & 1;
    const char *text = (const char *)data + 2;
    size_t len = size - 2;
    scan(&whole, is_sse, text, len, len);
    scan(&parts, is_sse, text, len, len * data[1] / 255);
    bool differs = memcmp(&whole.found, &parts.found, sizeof(whole.found)) != 0 ||
                   !whole.model != !parts.model ||
                   (whole.model && strcmp(whole.model, parts.model) != 0);
    if (differs && (is_sse || pl_json_validate(text, len) == PL_OK))
        abort();
    pl_usage_scan_deinit(&whole);
    pl_usage_scan_deinit(&parts);
    return 0;
}
