/*
 * Frames, before the session sees them.
 *
 * The library tells nothing of frames that it passes over, and those cost, too.  And to tell who
 * sends frames for streams that are over it would have to keep those streams, a thousand per
 * connection, which costs the caches dearly.  So every frame's head is read here first; for streams
 * that are over we remember what is enough to find the careless (RFC 9113, section 5.1): the latest
 * that their client ended, and the latest numbers that it left out.  Any other late frame crossed
 * our reset, and is passed over.
 */
#include "net/http2.h"

#define HEAD_BYTES 9
#define PREFACE_BYTES 24

void http2_scan_init(struct http2_scan *scan)
{
    *scan = (struct http2_scan){ .left = PREFACE_BYTES };
}

/* What is wrong, or about nothing, costs as much as what is idle. */
void http2_take_fault(struct http2 *h)
{
    if (!http2_guard_fault(&h->guard, h->conn->loop->now_ns)) {
        http2_terminate(h, NGHTTP2_ENHANCE_YOUR_CALM);
    }
}

void http2_scan_opened(struct http2_scan *scan, int32_t id)
{
    scan->known_id = id;
    scan->open_id = id;
}

void http2_scan_ended(struct http2_scan *scan, int32_t id, bool by_us)
{
    if (!by_us) {
        scan->ended[scan->ended_next++ % HTTP2_ENDED_COUNT] = id;
    }
    if (id == scan->open_id) {
        scan->open_id = 0;
    }
}

/* A stream begins, and those with lower numbers that never were never will be. */
static void open_stream(struct http2_scan *scan, int32_t id)
{
    if (id > scan->last_id + 2) {
        scan->gap_from = scan->last_id;
        scan->gap_to = id;
    }
    scan->last_id = id;
}

static bool is_over(const struct http2 *h, int32_t id)
{
    return id <= h->scan.known_id && id != h->scan.open_id &&
           nghttp2_session_find_stream(h->session, id) == NULL;
}

/* A frame of a stream that is over. */
static void judge_late(struct http2 *h, uint8_t type, int32_t id)
{
    if (type == NGHTTP2_RST_STREAM) {
        http2_scan_ended(&h->scan, id, false); /* By both. */
        http2_take_fault(h);
        return;
    }
    for (unsigned i = 0; i < HTTP2_ENDED_COUNT; i++) {
        if (h->scan.ended[i] == id) {
            http2_terminate(h, NGHTTP2_STREAM_CLOSED);
            return;
        }
    }
    http2_take_fault(h);
}

static void judge(struct http2 *h, uint8_t type, uint8_t flags, size_t size, int32_t id)
{
    struct http2_scan *scan = &h->scan;
    if (!http2_guard_frame(&h->guard, type, flags, size, h->conn->loop->now_ns)) {
        http2_terminate(h, NGHTTP2_ENHANCE_YOUR_CALM);
        return;
    }
    if (id % 2 == 0 ||
        (type != NGHTTP2_HEADERS && type != NGHTTP2_DATA && type != NGHTTP2_RST_STREAM)) {
        return;
    }
    if (type == NGHTTP2_HEADERS && id > scan->last_id) {
        open_stream(scan, id);
    } else if (id > scan->gap_from && id < scan->gap_to) {
        http2_terminate(h, NGHTTP2_PROTOCOL_ERROR);
    } else if (is_over(h, id)) {
        judge_late(h, type, id);
    }
}

/* Fields: a block that is all here may be known.  `head` is NULL where they do not begin a request,
 * or the frame's head was cut. */
static void recall(struct http2 *h, unsigned char *head, size_t payload_size, size_t here,
                   int32_t id)
{
    const unsigned flags = NGHTTP2_FLAG_PADDED | NGHTTP2_FLAG_PRIORITY | NGHTTP2_FLAG_END_HEADERS;
    if (head == NULL || payload_size > here || (head[4] & flags) != NGHTTP2_FLAG_END_HEADERS) {
        http2_recall_forget(&h->recall);
    } else if (http2_recall_take(&h->recall, head + HEAD_BYTES, payload_size, id)) {
        head[4] |= NGHTTP2_FLAG_PADDED;
    }
}

size_t http2_scan(struct http2 *h, struct bytes in)
{
    struct http2_scan *scan = &h->scan;
    size_t at = 0;
    while (at < in.size) {
        if (scan->left > 0) {
            const size_t part = in.size - at < scan->left ? in.size - at : scan->left;
            at += part;
            scan->left -= part;
            if (scan->left == 0 && scan->ends) {
                break;
            }
            continue;
        }
        unsigned char *head = (unsigned char *)(uintptr_t)in.data + at;
        const bool cut = scan->head_size > 0 || in.size - at < HEAD_BYTES;
        if (cut) {
            scan->head[scan->head_size++] = *head;
            at++;
            if (scan->head_size < HEAD_BYTES) {
                continue;
            }
            head = scan->head;
            scan->head_size = 0;
        } else {
            at += HEAD_BYTES;
        }
        scan->left = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        scan->size = scan->left;
        scan->ends = head[3] == NGHTTP2_RST_STREAM;
        const uint32_t id = (uint32_t)(head[5] & 0x7f) << 24 | (uint32_t)head[6] << 16 |
                            (uint32_t)head[7] << 8 | head[8];
        scan->data_id =
            head[3] == NGHTTP2_DATA && (head[4] & NGHTTP2_FLAG_PADDED) == 0 ? (int32_t)id : 0;
        const bool begins = head[3] == NGHTTP2_HEADERS && (int32_t)id > scan->last_id;
        judge(h, head[3], head[4], scan->left, (int32_t)id);
        if (head[3] == NGHTTP2_HEADERS || head[3] == NGHTTP2_CONTINUATION) {
            recall(h, begins && !cut ? head : NULL, scan->left, in.size - at, (int32_t)id);
        }
    }
    return at;
}
