#include "engine/replica.h"

#include <stdio.h>
#include <string.h>

#include "engine/batch.h"
#include "engine/batch_impl.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "engine/pool_impl.h"

#define PACE_WEIGHT 0.125 /* Of a new run in the average. */

/* ---- Whose turn it is ------------------------------------------------------------------------ */

static bool may_sit(const struct model *model, const struct seat *seat)
{
    const uint64_t nodes = model->config->numa_nodes;
    return nodes == 0 || seat->node == SEAT_NODE_ANY || (nodes >> seat->node & 1) != 0;
}

static bool serves(const struct replica *replica, const struct seat *seat)
{
    return !replica->out && (seat->device == SEAT_ANY || seat->device == replica->device);
}

bool replica_is_free(const struct model *model, const struct seat *seat)
{
    if (!may_sit(model, seat)) {
        return false;
    }
    for (uint32_t i = 0; i < model->replica_count; i++) {
        const struct replica *replica = &model->replicas[i];
        const bool more = replica->running * model->replica_count < model->runs_max;
        if (replica->free > 0 && more && serves(replica, seat)) {
            return true;
        }
    }
    return false;
}

struct instance *replica_take(struct model *model, const struct seat *seat, struct instance *wanted)
{
    struct instance **link = &model->instances_free;
    while (wanted != NULL ? *link != wanted : !serves((*link)->replica, seat)) {
        link = &(*link)->next;
    }
    struct instance *instance = *link;
    *link = instance->next;
    instance->replica->free--;
    instance->replica->running++;
    return instance;
}

void replica_put(struct instance *instance)
{
    struct model *model = instance->model;
    instance->next = model->instances_free;
    model->instances_free = instance;
    instance->replica->free++;
}

uint64_t replica_revive(struct model *model, uint64_t now_ns)
{
    uint64_t next_ns = CLOCK_NEVER;
    for (uint32_t i = 0; i < model->replica_count; i++) {
        struct replica *replica = &model->replicas[i];
        if (replica->out && replica->until_ns <= now_ns) {
            replica->out = false;
        } else if (replica->out) {
            next_ns = replica->until_ns < next_ns ? replica->until_ns : next_ns;
        }
    }
    return next_ns;
}

/* ---- What is learned ------------------------------------------------------------------------- */

static double pace_of(const struct replica *replica)
{
    return replica->pace > 0 ? replica->pace : 1;
}

double replica_pace(const struct model *model, const struct seat *seat)
{
    double sum = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < model->replica_count; i++) {
        if (serves(&model->replicas[i], seat)) {
            sum += pace_of(&model->replicas[i]);
            count++;
        }
    }
    return count > 0 ? sum / count : 1;
}

uint64_t replica_rows_cap(const struct model *model, const struct seat *seat)
{
    uint64_t cap = 0;
    for (uint32_t i = 0; i < model->replica_count; i++) {
        const struct replica *replica = &model->replicas[i];
        const bool lower = replica->rows_cap > 0 && (cap == 0 || replica->rows_cap < cap);
        if (lower && serves(replica, seat)) {
            cap = replica->rows_cap;
        }
    }
    return cap;
}

void replica_cap(struct replica *replica, uint64_t rows)
{
    const bool lower = replica->rows_cap == 0 || rows < replica->rows_cap;
    replica->rows_cap = lower ? rows : replica->rows_cap;
}

/* Nothing tells yet how the replica compares with the first one, but that one's run under way will.
 * Until then its runs are no runs of the first: a profile that began with them would be held there
 * by all that come after, as their pace is measured by it. */
static bool is_unknown(const struct model *model, const struct replica *replica)
{
    return replica->pace == 0 && model->replicas[0].running > 0;
}

bool replica_learn(struct instance *instance, uint64_t *ns)
{
    struct model *model = instance->model;
    struct replica *replica = instance->replica;
    const struct batch *batch = &instance->batch;
    uint64_t predicted_ns;
    if (replica == &model->replicas[0]) {
        replica->pace = 1;
        *ns = batch->learn_ns;
        return true;
    }
    if (profile_predict_ns(&model->profile, batch->shape_key, batch->learn_rows, &predicted_ns) &&
        predicted_ns > 0) {
        const double ratio = (double)batch->learn_ns / (double)predicted_ns;
        replica->pace =
            replica->pace > 0 ? replica->pace + PACE_WEIGHT * (ratio - replica->pace) : ratio;
    }
    *ns = (uint64_t)((double)batch->learn_ns / pace_of(replica));
    return !is_unknown(model, replica);
}

/* ---- Devices that are lost ------------------------------------------------------------------- */

bool replica_is_lost(const struct instance *instance, enum weir_status status)
{
    const struct model *model = instance->model;
    return status == WEIR_EUNAVAILABLE && model->replica_count > 1 && model->sequences == NULL &&
           model->config->isolation != ISOLATE_PROCESS;
}

static void go_out(const struct model *model, struct replica *replica, const char *why,
                   uint64_t now_ns)
{
    uint64_t pause_ns = REPLICA_PAUSE_NS;
    for (uint32_t i = 0; i < replica->losses && pause_ns < REPLICA_PAUSE_MAX_NS; i++) {
        pause_ns *= 2;
    }
    replica->losses++;
    replica->lost_ns = now_ns;
    replica->out = true;
    replica->until_ns =
        clock_add(now_ns, pause_ns < REPLICA_PAUSE_MAX_NS ? pause_ns : REPLICA_PAUSE_MAX_NS);
    (void)snprintf(replica->why, sizeof(replica->why), "device '%.32s' was lost: %.100s",
                   model->pool->devices[replica->device].name, why);
}

/* By its client, or by who shares its answer. */
static bool is_wanted(const struct request *request)
{
    return request->stop == WEIR_OK || (request->leads && !list_empty(&request->followers));
}

/* Those that nobody wants any more, or that have been everywhere, end now. */
static void let_end(struct instance *instance, const struct weir_err *err)
{
    struct list_node *next;
    for (struct list_node *n = list_first(&instance->batch.returned); n != NULL; n = next) {
        struct request *request = list_entry(n, struct request, line);
        next = list_next(&instance->batch.returned, n);
        if (!is_wanted(request) || request->parts_sent > 0 ||
            request->returns >= REPLICA_RETURNS_MAX) {
            batch_end(&instance->batch, request, WEIR_EUNAVAILABLE, err);
        }
        request->returns++;
    }
}

bool replica_settle(struct instance *instance, uint64_t now_ns, char lost[REPLICA_WHY_BYTES])
{
    struct replica *replica = instance->replica;
    struct batch *batch = &instance->batch;
    const uint64_t ns = batch->busy_ns;
    replica->running--;
    replica->runs += batch->runs;
    replica->busy_ns += ns;
    struct pool *pool = instance->model->pool;
    pool->devices[replica->device].busy_ns += ns;
    pool->devices[replica->device].batches++;
    if (!pool->uniform) {
        balance_note(&pool->balance, replica->device, ns, now_ns);
    }
    const bool since = batch->taken_ns > replica->lost_ns;
    if (list_empty(&batch->returned)) {
        replica->losses = batch->clean && since ? 0 : replica->losses;
        return false;
    }
    const bool first = since && replica->losses == 0;
    if (since) { /* Else it was under way when the device was lost to another one. */
        go_out(instance->model, replica, batch->lost.text, now_ns);
        memcpy(lost, replica->why, REPLICA_WHY_BYTES);
    }
    let_end(instance, &batch->lost);
    return first;
}

void replica_requeue(struct pool *pool, struct batch *batch, uint64_t now_ns)
{
    for (struct list_node *n = list_first(&batch->returned); n != NULL;
         n = list_first(&batch->returned)) {
        struct request *request = list_entry(n, struct request, line);
        list_remove(n);
        request->batch = NULL;
        request->lane = NULL;
        if (request->limited) { /* Counted anew. */
            request->limited = false;
            request->model->overload.in_hand--;
        }
        pool_line_up(pool, request, now_ns);
    }
}

/* ---- For people ------------------------------------------------------------------------------ */

bool replica_look(struct model *model, uint32_t index, struct replica_look *out)
{
    if (model->pool == NULL || index >= model->replica_count) {
        return false;
    }
    pthread_mutex_lock(&model->pool->lock);
    const struct replica *replica = &model->replicas[index];
    *out = (struct replica_look){ .device = model->pool->devices[replica->device].name,
                                  .out = replica->out,
                                  .pace = pace_of(replica),
                                  .runs = replica->runs,
                                  .busy_ns = replica->busy_ns };
    memcpy(out->why, replica->why, sizeof(out->why));
    pthread_mutex_unlock(&model->pool->lock);
    return true;
}
