/*
 * Laying out the line.
 *
 * Where even one executor alone, after the last of its batches, is in time for the earliest
 * deadline, nothing has to be laid out: that is the usual case, and costs a few multiplications.
 *
 * Who opens a batch must leave room for more than itself: with more arriving than can be served,
 * a line of requests that each just fit alone is a line of tiny batches.  So its deadline has to
 * allow a run of the rows that will have come by then, up to what is useful.
 *
 * Requests of different shapes cannot share a run, but are laid out as if they could: the layout
 * errs on the side of letting in, and the window at dispatch (window.h) mends it.
 */
#include "engine/admission.h"

#include "engine/request.h"
#include "util/clock.h"

static const struct request *request_at(const struct list_node *node)
{
    return list_entry(node, struct request, due);
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t whole_ns(double ns)
{
    return ns < 0x1p62 ? (uint64_t)ns : UINT64_C(1) << 62;
}

static uint32_t first_free(const struct admission_layout *layout, uint32_t slots)
{
    uint32_t first = 0;
    for (uint32_t i = 1; i < slots; i++) {
        first = layout->free_ns[i] < layout->free_ns[first] ? i : first;
    }
    return first;
}

static uint64_t left_ns(const struct request *request, uint64_t from_ns)
{
    return request->deadline_ns > from_ns ? request->deadline_ns - from_ns : 0;
}

/* The rows of a run that starts then and ends by the request's deadline. */
static uint64_t rows_allowed(const struct admission *admission, const struct request *request,
                             uint64_t start_ns)
{
    return request->deadline_ns == CLOCK_NEVER
               ? admission->rows_max
               : smaller(pace_rows_within(&admission->cost, left_ns(request, start_ns)),
                         admission->rows_max);
}

static void close_batch(struct admission_layout *layout, const struct admission *admission)
{
    if (layout->rows > 0) {
        const double ns = (double)pace_run_ns(&admission->cost, layout->rows) / admission->share;
        layout->free_ns[layout->slot] = clock_add(layout->start_ns, whole_ns(ns));
        layout->rows = 0;
    }
}

/* Puts a request into the batch that is open, if all its members stay in time. */
static bool ride(struct admission_layout *layout, const struct admission *admission,
                 const struct request *request)
{
    if (layout->rows == 0 || !request->batchable) {
        return false;
    }
    uint64_t most = layout->rows_max;
    if (request->deadline_ns < layout->deadline_ns) { /* Only where classes ride together. */
        most = smaller(most, rows_allowed(admission, request, layout->start_ns));
    }
    if (layout->rows + request->rows > most) {
        return false;
    }
    layout->rows += request->rows;
    layout->rows_max = most;
    layout->deadline_ns = smaller(layout->deadline_ns, request->deadline_ns);
    return true;
}

/* Puts a request behind those that are laid out; false: it would be late and is left out. */
static bool lay(struct admission_layout *layout, const struct admission *admission,
                const struct request *request)
{
    if (ride(layout, admission, request)) {
        return true;
    }
    close_batch(layout, admission);
    layout->slot = first_free(layout, admission->slots);
    layout->start_ns = layout->free_ns[layout->slot];
    const uint64_t allowed = rows_allowed(admission, request, layout->start_ns);
    if (request->deadline_ns != CLOCK_NEVER && allowed < request->rows) {
        return false;
    }
    layout->rows = request->rows;
    layout->deadline_ns = request->deadline_ns;
    layout->rows_max = request->batchable && allowed > request->rows ? allowed : request->rows;
    return true;
}

/* Rows that will have come by then. */
static uint64_t rows_coming(const struct admission *admission, uint64_t by_ns)
{
    const double rows = admission->arriving * (double)(by_ns - admission->now_ns);
    return rows < 0x1p32 ? (uint64_t)rows : UINT64_C(1) << 32;
}

/* The rows that a run is to have which the newcomer opens. */
static uint64_t rows_wanted(const struct admission_layout *layout,
                            const struct admission *admission, const struct request *request)
{
    const uint64_t company = rows_coming(admission, layout->start_ns);
    const uint64_t useful =
        pace_rows_useful(&admission->cost, left_ns(request, request->times.submitted_ns));
    const uint64_t rows = smaller(smaller(useful, company), admission->rows_max);
    return request->batchable && rows > request->rows ? rows : request->rows;
}

/* Lays out the newcomer itself. */
static bool lay_newcomer(struct admission_layout *layout, const struct admission *admission,
                         const struct request *request, uint64_t *end_ns)
{
    const bool laid = lay(layout, admission, request);
    uint64_t rows = laid ? layout->rows : request->rows;
    const bool leads = laid && rows == request->rows;
    if (leads && request->deadline_ns != CLOCK_NEVER) {
        rows = rows_wanted(layout, admission, request);
    }
    *end_ns = clock_add(layout->start_ns, pace_run_ns(&admission->cost, rows));
    return laid && (!leads || layout->rows_max >= rows);
}

/* All of the line, and who comes until it begins, on the one executor that is free first ends by
 * then. */
static uint64_t ends_by(const struct admission *admission, uint64_t rows)
{
    uint64_t free_ns = admission->free_ns[0];
    for (uint32_t i = 1; i < admission->slots; i++) {
        free_ns = smaller(free_ns, admission->free_ns[i]);
    }
    rows += rows_coming(admission, free_ns);
    const uint64_t runs = (rows + admission->rows_max - 1) / admission->rows_max;
    const double ns =
        (admission->cost.tau0_ns * (double)runs + admission->cost.alpha_ns * (double)rows) *
        (1 + admission->cost.reserve) / admission->share;
    return clock_add(free_ns, whole_ns(ns));
}

static bool easily(const struct list *waiting, uint64_t waiting_rows, const struct request *request,
                   const struct admission *admission, uint64_t *end_ns)
{
    const struct list_node *first = list_first(waiting);
    const uint64_t by_ns = first == NULL
                               ? request->deadline_ns
                               : smaller(request_at(first)->deadline_ns, request->deadline_ns);
    *end_ns = ends_by(admission, waiting_rows + request->rows);
    return *end_ns <= by_ns;
}

/* Those that go first whatever their deadlines. */
static void lay_class(struct admission_layout *layout, const struct admission *admission,
                      const struct list *waiting, const struct request *request)
{
    for (const struct list_node *n = list_first(waiting); n != NULL; n = list_next(waiting, n)) {
        if (request_at(n)->class < request->class) {
            (void)lay(layout, admission, request_at(n));
        }
    }
}

/* The first from `node` on of the newcomer's class, of its client where only that counts: the less
 * urgent wait for it, late or not. */
static const struct list_node *peer(const struct admission *admission, const struct list *waiting,
                                    const struct list_node *node, const struct request *request)
{
    while (node != NULL && (request_at(node)->class != request->class ||
                            (admission->own && request_at(node)->payer != request->payer))) {
        node = list_next(waiting, node);
    }
    return node;
}

/* Those in line that go before the newcomer.  Returns the first that comes after it, or NULL. */
static const struct list_node *lay_before(struct admission_layout *layout,
                                          const struct admission *admission,
                                          const struct list *waiting, const struct request *request)
{
    for (uint32_t i = 0; i < admission->slots; i++) {
        layout->free_ns[i] = admission->free_ns[i];
    }
    if (admission->outranked) {
        lay_class(layout, admission, waiting, request);
    }
    const struct list_node *n = peer(admission, waiting, list_first(waiting), request);
    for (; n != NULL && request_at(n)->deadline_ns <= request->deadline_ns;
         n = peer(admission, waiting, list_next(waiting, n), request)) {
        (void)lay(layout, admission, request_at(n)); /* Who is late anyway will be let go. */
    }
    return n;
}

static bool may_reuse(const struct admission_tail *tail, const struct admission *admission,
                      const struct request *request)
{
    return admission->now_ns < tail->until_ns && !admission->outranked && !admission->own &&
           request->class == tail->class && request->deadline_ns >= tail->deadline_ns;
}

/* The next newcomer that stands at the end needs no walk: as long as nobody leaves, and the
 * executor that is free first is not late. */
static void keep(struct admission_tail *tail, const struct admission *admission,
                 const struct request *request, const struct admission_layout *layout)
{
    uint64_t until_ns = admission->free_ns[0];
    for (uint32_t i = 1; i < admission->slots; i++) {
        until_ns = smaller(until_ns, admission->free_ns[i]);
    }
    *tail = (struct admission_tail){ *layout, request->class, request->deadline_ns, until_ns };
}

enum admission_verdict admission_check(const struct list *waiting, uint64_t waiting_rows,
                                       const struct request *request,
                                       const struct admission *admission,
                                       struct admission_tail *tail, uint64_t *end_ns)
{
    if (!admission->own && easily(waiting, waiting_rows, request, admission, end_ns)) {
        tail->until_ns = 0;
        return ADMISSION_FITS;
    }
    struct admission_layout with = { 0 };
    const struct list_node *n = NULL;
    if (may_reuse(tail, admission, request)) {
        with = tail->layout;
    } else {
        n = lay_before(&with, admission, waiting, request);
    }
    struct admission_layout without = with;
    const bool last = n == NULL && !admission->outranked && !admission->own;
    if (!lay_newcomer(&with, admission, request, end_ns)) {
        if (last) {
            keep(tail, admission, request, &without);
        }
        return ADMISSION_LATE;
    }
    for (; n != NULL; n = peer(admission, waiting, list_next(waiting, n), request)) {
        const bool held = lay(&with, admission, request_at(n));
        if (lay(&without, admission, request_at(n)) && !held) {
            return ADMISSION_CROWDS;
        }
    }
    tail->until_ns = 0;
    if (last) {
        keep(tail, admission, request, &with);
    }
    return ADMISSION_FITS;
}
