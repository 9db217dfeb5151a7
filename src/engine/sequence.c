/*
 * Who is next.
 *
 * A model has few lanes and, in each, only heads; so looking for work costs a walk over
 * lanes, not over sequences.  Idle sequences stand in a list in the order in which they became
 * idle, backlogged ones in the order in which they came: dropping and opening look at the
 * front only.
 *
 * Places are given out lowest row first, over all instances: sequences spread over
 * instances before they share one, as in Triton.
 */
#include "engine/sequence.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "util/mem.h"

#define KEY_NUMBER 'n' /* Before the 8 bytes of a number. */
#define KEY_TEXT 't'   /* Before a text. */
#define ID_TEXT_BYTES (SEQUENCE_ID_BYTES_MAX + 1)

static struct request *request_of(const struct list_node *node)
{
    return list_entry(node, struct request, line);
}

static struct sequence *waiting_first(const struct list *list)
{
    const struct list_node *node = list_first(list);
    return node == NULL ? NULL : list_entry(node, struct sequence, wait);
}

static const struct sequence_config *config_of(const struct sequencer *s)
{
    return &s->model->config->sequence;
}

static bool is_direct(const struct sequencer *s)
{
    return config_of(s)->strategy == SEQUENCE_DIRECT;
}

static struct bytes make_key(const struct sequence_id *id, char *out)
{
    if (id->text.size > 0) {
        out[0] = KEY_TEXT;
        memcpy(out + 1, id->text.data, id->text.size);
        return (struct bytes){ out, id->text.size + 1 };
    }
    out[0] = KEY_NUMBER;
    memcpy(out + 1, &id->number, sizeof(id->number));
    return (struct bytes){ out, sizeof(id->number) + 1 };
}

static const char *id_text(const struct sequence_id *id, char *out)
{
    if (id->text.size > 0) {
        (void)snprintf(out, ID_TEXT_BYTES, "%.*s", (int)id->text.size, id->text.data);
    } else {
        (void)snprintf(out, ID_TEXT_BYTES, "%" PRIu64, id->number);
    }
    return out;
}

/* ---- States ---------------------------------------------------------------------------------- */

static void drop_states(struct sequencer *s, struct sequence *sequence)
{
    for (uint32_t i = 0; i < s->plan->state_count; i++) {
        tensor_release(&sequence->states[i]);
    }
    atomic_fetch_sub_explicit(&s->state_bytes, sequence->state_bytes, memory_order_relaxed);
    sequence->state_bytes = 0;
    sequence->begun = false;
}

/* Requests share a run when their states have equal shapes, too. */
static void mix_states(const struct sequencer *s, struct request *request)
{
    if (!s->plan->states_vary) {
        return;
    }
    const struct sequence *sequence = request->sequence;
    const struct plan_row row = {
        .ready = true,
        .states = sequence->begun && !request->sequence_start ? sequence->states : NULL,
    };
    int64_t words[2 + TENSOR_RANK_MAX];
    for (uint32_t i = 0; i < s->plan->state_count; i++) {
        const struct shape *shape = &sequence_plan_state(s->plan, &row, i)->shape;
        words[0] = (int64_t)request->shape_key;
        words[1] = (int64_t)shape->rank;
        memcpy(words + 2, shape->dims, shape->rank * sizeof(shape->dims[0]));
        request->shape_key = map_hash(words, (2 + shape->rank) * sizeof(*words));
    }
}

/* ---- Places ---------------------------------------------------------------------------------- */

/* A lane with a free place, or NULL: the one whose next free row is the lowest. */
static struct sequence_lane *lane_with_room(const struct sequencer *s)
{
    struct sequence_lane *best = NULL;
    for (uint32_t i = 0; i < s->lane_count; i++) {
        struct sequence_lane *lane = &s->lanes[i];
        if (lane->held < lane->places && (best == NULL || lane->row_free < best->row_free)) {
            best = lane;
        }
    }
    return best;
}

static void seat(struct sequence *sequence, struct sequence_lane *lane)
{
    sequence->lane = lane;
    lane->held++;
    if (lane->rows == NULL) {
        return;
    }
    assert(lane->rows[lane->row_free] == NULL);
    sequence->row = lane->row_free;
    lane->rows[sequence->row] = sequence;
    while (lane->row_free < lane->places && lane->rows[lane->row_free] != NULL) {
        lane->row_free++;
    }
}

static void unseat(struct sequence *sequence)
{
    struct sequence_lane *lane = sequence->lane;
    if (lane == NULL) {
        return;
    }
    lane->held--;
    sequence->lane = NULL;
    if (lane->rows != NULL) {
        lane->rows[sequence->row] = NULL;
        lane->row_free = sequence->row < lane->row_free ? sequence->row : lane->row_free;
    }
}

/* In order of arrival; most come last. */
static void make_ready(struct sequence_lane *lane, struct request *request)
{
    struct list_node *after = &lane->ready.head;
    while (after->prev != &lane->ready.head &&
           request_of(after->prev)->times.submitted_ns > request->times.submitted_ns) {
        after = after->prev;
    }
    list_insert_before(after, &request->line);
    lane->ready_count++;
}

/* The first that waits becomes the head, if the sequence has a place and no head. */
static void advance(const struct sequencer *s, struct sequence *sequence)
{
    if (sequence->lane == NULL || sequence->head != NULL || sequence->running) {
        return;
    }
    struct list_node *node = list_pop(&sequence->fifo);
    if (node != NULL) {
        sequence->head = request_of(node);
        mix_states(s, sequence->head);
        make_ready(sequence->lane, sequence->head);
    }
}

static void open_backlog(struct sequencer *s)
{
    for (struct sequence *first = waiting_first(&s->backlog); first != NULL;
         first = waiting_first(&s->backlog)) {
        struct sequence_lane *lane = lane_with_room(s);
        if (lane == NULL) {
            return;
        }
        list_remove(&first->wait);
        seat(first, lane);
        advance(s, first);
    }
}

static void forget(struct sequencer *s, struct sequence *sequence)
{
    assert(sequence->head == NULL && list_empty(&sequence->fifo));
    drop_states(s, sequence);
    unseat(sequence);
    list_remove(&sequence->wait);
    list_remove(&sequence->all);
    (void)map_remove(&s->by_id, sequence->key);
    s->count--;
    mem_free(sequence);
}

/* Finds the sequence its place in life after its head has gone or something has come. */
static void settle_down(struct sequencer *s, struct sequence *sequence, bool over, uint64_t now_ns)
{
    if (sequence->head != NULL || sequence->running) {
        return;
    }
    const bool empty = list_empty(&sequence->fifo);
    if (empty && !sequence->open) {
        forget(s, sequence);
    } else if (empty) {
        sequence->used_ns = now_ns;
        list_remove(&sequence->wait);
        list_append(&s->idle, &sequence->wait);
        return;
    } else if (over || sequence->lane == NULL) {
        /* What waits is a new sequence by the same name: it queues as others do. */
        unseat(sequence);
        if (!list_linked(&sequence->wait)) {
            list_append(&s->backlog, &sequence->wait);
        }
    } else {
        advance(s, sequence);
        return;
    }
    open_backlog(s);
}

static uint64_t drop_time_ns(const struct sequencer *s, const struct sequence *idle)
{
    return s->retired ? idle->used_ns : clock_add(idle->used_ns, config_of(s)->idle_ns);
}

static void drop_idle(struct sequencer *s, uint64_t now_ns)
{
    for (struct sequence *first = waiting_first(&s->idle);
         first != NULL && drop_time_ns(s, first) <= now_ns; first = waiting_first(&s->idle)) {
        forget(s, first);
        atomic_fetch_add_explicit(&s->dropped, 1, memory_order_relaxed);
    }
    open_backlog(s);
}

void sequencer_retire(struct sequencer *s, uint64_t now_ns)
{
    s->retired = true;
    drop_idle(s, now_ns);
}

/* ---- What runs next -------------------------------------------------------------------------- */

static uint32_t rows_per_run(const struct model *model)
{
    return model->batching && model->config->max_batch_size > 1
               ? (uint32_t)model->config->max_batch_size
               : 1;
}

/* Heads that leave together if the lane leaves now; when it has to. */
static struct batch_plan plan_lane(const struct sequencer *s, const struct sequence_lane *lane,
                                   uint64_t now_ns)
{
    const struct sequence_config *config = config_of(s);
    const uint32_t rows = rows_per_run(s->model);
    const uint32_t cap =
        profile_rows_cap(&s->model->profile, request_of(list_first(&lane->ready))->shape_key);
    const bool direct = lane->rows != NULL;
    const struct batch_rules rules = {
        .rows_max = cap > 0 && cap < rows ? cap : rows,
        .preferred = config->preferred,
        .preferred_count = direct ? 0 : config->preferred_count,
        .delay_ns = config->queue_delay_ns,
    };
    struct batch_plan plan = batcher_plan(&lane->ready, &rules, now_ns);
    if (direct && (double)plan.count >= config->slot_utilization_min * (double)lane->places) {
        plan.leave_ns = now_ns;
    }
    return plan;
}

static bool can_run(const struct sequencer *s, const struct sequence_lane *lane)
{
    return lane->ready_count > 0 &&
           (lane->instance != NULL ? !lane->running : s->model->instances_free != NULL);
}

struct sequence_turn sequencer_next(struct sequencer *s, uint64_t now_ns)
{
    struct sequence_turn turn = { .key_ns = CLOCK_NEVER, .again_ns = CLOCK_NEVER };
    drop_idle(s, now_ns);
    for (uint32_t i = 0; i < s->lane_count; i++) {
        struct sequence_lane *lane = &s->lanes[i];
        if (!can_run(s, lane)) {
            continue;
        }
        const struct batch_plan riders = plan_lane(s, lane, now_ns);
        const uint64_t arrived_ns = request_of(list_first(&lane->ready))->times.submitted_ns;
        if (riders.leave_ns > now_ns) {
            turn.again_ns = riders.leave_ns < turn.again_ns ? riders.leave_ns : turn.again_ns;
        } else if (!turn.ready || arrived_ns < turn.key_ns) {
            turn.ready = true;
            turn.key_ns = arrived_ns;
            turn.lane = lane;
            turn.riders = riders;
        }
    }
    const struct sequence *idlest = waiting_first(&s->idle);
    if (idlest != NULL) {
        const uint64_t drop_ns = drop_time_ns(s, idlest);
        turn.again_ns = drop_ns < turn.again_ns ? drop_ns : turn.again_ns;
    }
    return turn;
}

static uint32_t rows_spanned(const struct sequence_lane *lane)
{
    uint32_t rows = lane->places;
    while (rows > 1 && lane->rows[rows - 1] == NULL) {
        rows--;
    }
    return rows;
}

void sequencer_take(struct sequencer *s, const struct sequence_turn *turn, struct batch *batch)
{
    (void)s;
    struct sequence_lane *lane = turn->lane;
    struct list_node *node = list_first(&lane->ready);
    for (uint32_t taken = 0; taken < turn->riders.count;) {
        struct request *request = request_of(node);
        node = list_next(&lane->ready, node);
        if (taken > 0 && (!request->batchable || request->shape_key != turn->riders.shape_key)) {
            continue;
        }
        list_remove(&request->line);
        list_append(&batch->members, &request->line);
        request->sequence->head = NULL;
        request->sequence->running = true;
        taken++;
    }
    lane->ready_count -= turn->riders.count;
    lane->running = true;
    batch->span = lane->rows != NULL ? rows_spanned(lane) : 0;
}

void sequencer_release(struct sequencer *s, const struct instance *instance)
{
    for (uint32_t i = 0; is_direct(s) && i < s->lane_count; i++) {
        if (s->lanes[i].instance == instance) {
            s->lanes[i].running = false;
        }
    }
}

/* ---- Requests come and go -------------------------------------------------------------------- */

enum weir_status sequencer_check(struct request *request, struct weir_err *err)
{
    const struct model *model = request->model;
    const struct sequence_id *id = &request->sequence_id;
    if (id->text.size == 0 && id->number == 0) {
        return err_set(err, WEIR_EINVAL,
                       "inference request to model '%s' must specify a non-zero or non-empty "
                       "correlation ID",
                       model->name);
    }
    if (id->text.size > SEQUENCE_ID_BYTES_MAX) {
        return err_set(err, WEIR_EINVAL, "sequence_id has %zu bytes, expected at most %d",
                       id->text.size, SEQUENCE_ID_BYTES_MAX);
    }
    if (model->config->max_batch_size > 0 && request->rows != 1) {
        return err_set(err, WEIR_EINVAL,
                       "inference request to model '%s' must specify batch-size 1 due to "
                       "requirements of sequence batcher, found %" PRIu64,
                       model->name, request->rows);
    }
    request->rows = 1;
    request->batchable = model->config->max_batch_size > 1 && model->batching;
    return sequence_plan_check_id(model->sequence_plan, id, err);
}

static enum weir_status begin(struct sequencer *s, const struct sequence_id *id,
                              struct sequence **out, struct weir_err *err)
{
    if (s->count >= s->count_max) {
        return err_set(err, WEIR_EFULL, "model '%s' has %" PRIu32 " sequences, the most it takes",
                       s->model->name, s->count);
    }
    struct sequence *sequence =
        mem_try_zero(1, sizeof(*sequence) + s->plan->state_count * sizeof(struct tensor));
    if (sequence == NULL) {
        return err_nomem(err, "a sequence", sizeof(*sequence));
    }
    list_init(&sequence->fifo);
    sequence->key = make_key(id, sequence->key_data);
    if (map_add(&s->by_id, sequence->key, sequence) != WEIR_OK) {
        mem_free(sequence);
        return err_nomem(err, "a sequence", sizeof(*sequence));
    }
    list_append(&s->all, &sequence->all);
    s->count++;
    *out = sequence;
    return WEIR_OK;
}

enum weir_status sequencer_push(struct sequencer *s, struct request *request, uint64_t now_ns,
                                struct weir_err *err)
{
    char key[SEQUENCE_ID_BYTES_MAX + 1];
    drop_idle(s, now_ns);
    struct sequence *sequence = map_get(&s->by_id, make_key(&request->sequence_id, key));
    if (!request->sequence_start && (sequence == NULL || !sequence->open)) {
        char id[ID_TEXT_BYTES];
        return err_set(err, WEIR_EINVAL,
                       "inference request for sequence %s to model '%s' must specify the START "
                       "flag on the first request of the sequence",
                       id_text(&request->sequence_id, id), s->model->name);
    }
    if (sequence == NULL) {
        const enum weir_status status = begin(s, &request->sequence_id, &sequence, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    if (request->sequence_start) {
        atomic_fetch_add_explicit(&s->started, 1, memory_order_relaxed);
    }
    request->sequence = sequence;
    list_append(&sequence->fifo, &request->line);
    sequence->open = !request->sequence_end;
    if (sequence->running) {
        return WEIR_OK;
    }
    if (sequence->lane != NULL) {
        list_remove(&sequence->wait); /* Idle no more. */
        advance(s, sequence);
    } else {
        settle_down(s, sequence, false, now_ns);
    }
    return WEIR_OK;
}

/* Moves what waits behind `after` (NULL: behind the head) to `followers`, up to the next START. */
static void cut(struct sequence *sequence, const struct list_node *after, struct list *followers)
{
    struct list_node *node =
        after == NULL ? list_first(&sequence->fifo) : list_next(&sequence->fifo, after);
    while (node != NULL && !request_of(node)->sequence_start) {
        struct list_node *next = list_next(&sequence->fifo, node);
        list_remove(node);
        list_append(followers, node);
        node = next;
    }
    if (node == NULL) {
        sequence->open = false;
    }
}

void sequencer_withdraw(struct sequencer *s, struct request *request, uint64_t now_ns,
                        struct list *followers)
{
    struct sequence *sequence = request->sequence;
    const bool head = sequence->head == request;
    cut(sequence, head ? NULL : &request->line, followers);
    list_remove(&request->line);
    if (head) {
        sequence->lane->ready_count--;
        sequence->head = NULL;
    }
    settle_down(s, sequence, head, now_ns);
}

void sequencer_note(struct request *request, struct list *sequences)
{
    struct sequence *sequence = request->sequence;
    assert(sequence->running);
    sequence->failed = request->status != WEIR_OK;
    sequence->over = sequence->failed || request->sequence_end;
    list_append(sequences, &sequence->wait);
}

void sequencer_settle(struct sequencer *s, struct list *sequences, uint64_t now_ns,
                      struct list *followers)
{
    for (struct list_node *n = list_pop(sequences); n != NULL; n = list_pop(sequences)) {
        struct sequence *sequence = list_entry(n, struct sequence, wait);
        sequence->running = false;
        if (sequence->failed) {
            cut(sequence, NULL, followers);
        }
        if (sequence->over) {
            drop_states(s, sequence);
        }
        settle_down(s, sequence, sequence->over, now_ns);
    }
}

static bool is_late(const struct request *request, uint64_t now_ns, uint64_t *next_ns)
{
    if (request->state != REQUEST_WAITING) {
        return false;
    }
    if (request->leave_by_ns > now_ns && request->leave_by_ns < *next_ns) {
        *next_ns = request->leave_by_ns;
    }
    return request->leave_by_ns <= now_ns;
}

struct request *sequencer_late(const struct sequencer *s, uint64_t now_ns, uint64_t *next_ns)
{
    *next_ns = CLOCK_NEVER;
    for (const struct list_node *n = list_first(&s->all); n != NULL; n = list_next(&s->all, n)) {
        const struct sequence *sequence = list_entry(n, struct sequence, all);
        if (sequence->head != NULL && is_late(sequence->head, now_ns, next_ns)) {
            return sequence->head;
        }
        for (const struct list_node *r = list_first(&sequence->fifo); r != NULL;
             r = list_next(&sequence->fifo, r)) {
            if (is_late(request_of(r), now_ns, next_ns)) {
                return request_of(r);
            }
        }
    }
    return NULL;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static enum weir_status make_lanes(struct sequencer *s, struct weir_err *err)
{
    const struct model *model = s->model;
    const bool direct = is_direct(s);
    const uint32_t count = direct ? model->instance_count : 1;
    s->lanes = mem_try_zero(count, sizeof(*s->lanes));
    if (s->lanes == NULL) {
        return err_nomem(err, "a model's sequences", count * sizeof(*s->lanes));
    }
    for (; s->lane_count < count; s->lane_count++) {
        struct sequence_lane *lane = &s->lanes[s->lane_count];
        const uint32_t most = config_of(s)->candidates_max;
        list_init(&lane->ready);
        lane->places = direct ? rows_per_run(model) : most > 0 ? most : UINT32_MAX;
        if (direct) {
            lane->instance = &model->instances[s->lane_count];
            lane->rows = mem_try_zero(lane->places, sizeof(*lane->rows));
            if (lane->rows == NULL) {
                return err_nomem(err, "a model's sequences", lane->places * sizeof(*lane->rows));
            }
        }
    }
    return WEIR_OK;
}

enum weir_status sequencer_create(struct model *model, const struct limits *limits,
                                  struct sequencer **out, struct weir_err *err)
{
    struct sequencer *s = mem_try_zero(1, sizeof(*s));
    if (s == NULL) {
        return err_nomem(err, "a model's sequences", sizeof(*s));
    }
    s->model = model;
    s->plan = model->sequence_plan;
    s->count_max = (uint32_t)limits->sequences_max;
    s->state_bytes_max = limits->sequence_bytes_max;
    map_init(&s->by_id);
    list_init(&s->all);
    list_init(&s->idle);
    list_init(&s->backlog);
    const enum weir_status status = make_lanes(s, err);
    if (status != WEIR_OK) {
        sequencer_destroy(s);
        return status;
    }
    *out = s;
    return WEIR_OK;
}

void sequencer_destroy(struct sequencer *s)
{
    if (s == NULL) {
        return;
    }
    for (struct list_node *n = list_first(&s->all); n != NULL; n = list_first(&s->all)) {
        assert(!list_entry(n, struct sequence, all)->running);
        forget(s, list_entry(n, struct sequence, all));
    }
    assert(atomic_load(&s->state_bytes) == 0);
    for (uint32_t i = 0; s->lanes != NULL && i < s->lane_count; i++) {
        mem_free(s->lanes[i].rows);
    }
    mem_free(s->lanes);
    map_finish(&s->by_id);
    mem_free(s);
}
