/*
 * The bytes of one gRPC call.  The first byte says in pieces of how many bytes they come, the
 * second how the call is made; however they are cut and the call pauses, what is heard must be the
 * same.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "grpc_bed.h"

#define MESSAGE_BYTES_MAX 65536

enum { UNARY = 1, GZIP = 2, DEFLATE = 4, PAUSING = 8, CUT_OFF = 16, STRANGE = 32 };

static void check(int promise)
{
    if (!promise) {
        abort();
    }
}

static void run(struct grpc_bed *bed, uint8_t how, struct bytes in, size_t piece, bool pausing)
{
    const char *fields[] = { "grpc-encoding", "identity", NULL };
    fields[1] = (how & GZIP) != 0      ? "gzip"
                : (how & DEFLATE) != 0 ? "deflate"
                : (how & STRANGE) != 0 ? "snappy"
                                       : "identity";
    grpc_bed_init(bed, (how & UNARY) != 0, MESSAGE_BYTES_MAX, fields);
    bed->pause_every = pausing && (how & PAUSING) != 0 ? 1 : 0;
    bed->echo = true;
    for (size_t at = 0; at < in.size; at += piece) {
        const size_t size = in.size - at < piece ? in.size - at : piece;
        char *copy = malloc(size); /* The sanitizer watches its end. */
        check(copy != NULL);
        memcpy(copy, in.data + at, size);
        grpc_bed_data(bed, (struct bytes){ copy, size });
        free(copy);
    }
    if ((how & CUT_OFF) != 0) {
        grpc_bed_settle(bed);
        grpc_bed_cancel(bed);
    } else {
        grpc_bed_end(bed);
    }
    grpc_bed_settle(bed);
    check(bed->over);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    static struct grpc_bed beds[2];
    const struct bytes in = { (const char *)data + 2, size - 2 };
    const size_t piece = data[0] == 0 ? 1 : data[0];
    run(&beds[0], data[1], in, in.size + 1, false);
    run(&beds[1], data[1], in, piece, true);
    /* What came before a fault is heard of either way. */
    check(bytes_equal(grpc_bed_status(&beds[0], "grpc-status"),
                      grpc_bed_status(&beds[1], "grpc-status")));
    check(bytes_equal((struct bytes){ beds[0].heard.data, beds[0].heard.size },
                      (struct bytes){ beds[1].heard.data, beds[1].heard.size }));
    check(beds[0].half_closed == beds[1].half_closed);
    check(beds[0].messages == beds[1].messages);
    for (int i = 0; i < 2; i++) {
        grpc_bed_finish(&beds[i]);
    }
    check(body_bytes_of_all() == 0);
    return 0;
}
