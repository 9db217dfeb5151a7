/*
 * Reads the table of outcomes in status.h; a number outside it counts as a
 * failure of ours (500) that no retry mends.
 */
#include "weir/status.h"

#include <stddef.h>

struct row {
    const char *name;
    const char *text;
    int http;
    int grpc;
    bool retry;
};

static const struct row rows[] = {
#define WEIR_STATUS_ROW(name, text, http, grpc, retry) { #name, text, http, grpc, retry },
    WEIR_STATUSES(WEIR_STATUS_ROW)
#undef WEIR_STATUS_ROW
};

static const struct row unknown = { "EUNKNOWN", "unknown status", 500, 2, false };

static const struct row *row_of(enum weir_status status)
{
    /* Through size_t, so that a negative number is outside as well. */
    const size_t at = (size_t)status;
    return at < WEIR_STATUS_COUNT ? &rows[at] : &unknown;
}

const char *weir_status_text(enum weir_status status)
{
    return row_of(status)->text;
}

const char *weir_status_name(enum weir_status status)
{
    return row_of(status)->name;
}

int weir_status_http(enum weir_status status)
{
    return row_of(status)->http;
}

int weir_status_grpc(enum weir_status status)
{
    return row_of(status)->grpc;
}

bool weir_status_retry(enum weir_status status)
{
    return row_of(status)->retry;
}
