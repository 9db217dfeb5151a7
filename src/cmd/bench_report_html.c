/*
 * The page is bench_page.html with the JSON document put where its marker is: everything shown is
 * drawn by the page itself from what a script may read as well.
 */
#include <assert.h>
#include <string.h>

#include "cmd/bench_report.h"

extern const char bench_page[];
extern const size_t bench_page_size;

#define MARKER "@RESULTS@"

/* Inside an element of a page a '<' could end it; in JSON one stands only in texts. */
static void append_escaped(struct bytes json, struct buffer *out)
{
    while (json.size > 0) {
        const char *found = memchr(json.data, '<', json.size);
        const size_t plain = found == NULL ? json.size : (size_t)(found - json.data);
        buffer_append(out, json.data, plain);
        if (found != NULL) {
            buffer_text(out, "\\u003c");
        }
        const size_t used = plain + (found != NULL);
        json = (struct bytes){ json.data + used, json.size - used };
    }
}

void bench_report_html(const struct bench_report *report, struct buffer *out)
{
    const char *marker = memmem(bench_page, bench_page_size, MARKER, sizeof(MARKER) - 1);
    assert(marker != NULL);
    const char *rest = marker + sizeof(MARKER) - 1;
    struct buffer json;
    buffer_init(&json, out->size_max);
    bench_report_json(report, &json);
    buffer_append(out, bench_page, (size_t)(marker - bench_page));
    append_escaped((struct bytes){ json.data, json.size }, out);
    buffer_append(out, rest, (size_t)(bench_page + bench_page_size - rest));
    out->failed = out->failed || json.failed;
    buffer_finish(&json);
}
