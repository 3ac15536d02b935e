/*
 * Metrics text: Prometheus' text format (version 0.0.4), appended to a growing text. Pure.
 *
 * A family is announced once (HELP, TYPE), then its samples follow. Names get the gateway's prefix;
 * values of labels are escaped, whatever bytes they hold. Counts are written as they are, without a
 * detour over floating point; times are fixed-point.
 */
#ifndef PL_METRICS_TEXT_H
#define PL_METRICS_TEXT_H

#include "metrics.h"

#define PL_METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define PL_METRICS_LABELS_MAX   4

struct pl_metrics_text {
    char *data; /* not terminated */
    size_t len, cap;
    struct pl_str family; /* without the prefix */
    char *labels;         /* of the samples to come: `a="b",c="d"` */
    size_t labels_len, labels_cap;
};

void pl_metrics_text_init(struct pl_metrics_text *self);
void pl_metrics_text_deinit(struct pl_metrics_text *self);

/** Begins a family without labels: "requests_total", "counter", "Requests that have ended.". The
 *  texts are static. */
void pl_metrics_text_family(struct pl_metrics_text *self, const char *name, const char *type,
                            const char *help);
/** Forgets the labels. */
void pl_metrics_text_unlabel(struct pl_metrics_text *self);
/** Labels for the samples that follow. What is not UTF-8 in `value` is shown as "?". */
void pl_metrics_text_label(struct pl_metrics_text *self, const char *name, const char *value);
/** Takes the last labels off again, back to a length that pl_metrics_text.labels_len had. */
void pl_metrics_text_relabel(struct pl_metrics_text *self, size_t labels_len);

/** A sample of the family under the labels. */
void pl_metrics_text_count(struct pl_metrics_text *self, uint64_t value);
/** value / per_second; per_second is a power of ten. */
void pl_metrics_text_seconds(struct pl_metrics_text *self, uint64_t value, uint32_t per_second);
/** A number with six decimals. */
void pl_metrics_text_number(struct pl_metrics_text *self, double value);
/** All samples of a histogram, under the labels. */
void pl_metrics_text_histogram(struct pl_metrics_text *self, const struct pl_metrics_ladder *ladder,
                               const uint64_t cells[PL_METRICS_HISTOGRAM_CELLS]);

#endif
