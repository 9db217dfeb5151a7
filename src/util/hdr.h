/*
 * hdr.h — a high dynamic range histogram of times.
 *
 * Times from 1 ns to HDR_MAX_NS keep the asked number of significant digits (3: an error below
 * 0.1 %), in memory of fixed size.  Only hdr_init() allocates: recording is one index and one add.
 * One thread at a time.
 */
#ifndef WEIR_UTIL_HDR_H
#define WEIR_UTIL_HDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weir/status.h"

#define HDR_DIGITS_MAX 3
#define HDR_MAX_NS UINT64_C(60000000000) /* Longer times are counted as this; max_ns stays true. */

struct hdr {
    uint64_t *counts; /* NULL before hdr_init() and after hdr_finish(). */
    uint32_t size;    /* Of counts. */
    uint32_t bits;    /* Log2 of the values told apart below the first doubling. */
    uint64_t total;   /* Times recorded. */
    uint64_t over;    /* Of them above HDR_MAX_NS. */
    uint64_t sum_ns;
    uint64_t min_ns; /* UINT64_MAX when empty. */
    uint64_t max_ns; /* 0 when empty. */
};

/* `digits` is 1..HDR_DIGITS_MAX: 5, 30 and 214 KiB.  WEIR_ENOMEM; hdr is then as after
 * hdr_finish(). */
WEIR_MUST_USE enum weir_status hdr_init(struct hdr *hdr, uint32_t digits);
void hdr_finish(struct hdr *hdr); /* Frees; zeroed histograms are fine. */

void hdr_record(struct hdr *hdr, uint64_t ns);
void hdr_record_many(struct hdr *hdr, uint64_t ns, uint64_t count);

/* The q-quantile (0..1): the upper end of the bucket that holds it, never above max_ns (the
 * exact maximum at q = 1).  0 when empty. */
uint64_t hdr_quantile_ns(const struct hdr *hdr, double q);
double hdr_mean_ns(const struct hdr *hdr); /* Exact; 0 when empty. */

/* Non-empty buckets in ascending order: start with `index` 0 and repeat while true. */
struct hdr_bucket {
    uint64_t low_ns; /* Inclusive, both. */
    uint64_t high_ns;
    uint64_t count;
};
bool hdr_next(const struct hdr *hdr, uint32_t *index, struct hdr_bucket *out);

#endif
