#include "engine/request.h"

#include "engine/engine.h"
#include "engine/pool.h"
#include "util/mem.h"

void request_init(struct request *request)
{
    /* Field by field: the error sentence alone is half a kilobyte, and this is the hot path. */
    request->status = WEIR_OK;
    request->err.status = WEIR_OK;
    request->err.text[0] = '\0';
    request->priority = 0;
    request->priority_best = 0;
    request->client = 0;
    request->client_weight = 0;
    request->deadline_ns = CLOCK_NEVER;
    request->waited_ns = 0;
    request->queue_timeout_ns = CLOCK_NEVER;
    request->sequence_id = (struct sequence_id){ 0 };
    request->sequence_start = false;
    request->sequence_end = false;
    request->admitted = false;
    request->canary = false;
    request->ended = NULL;
    request->part = NULL;
    request->late = NULL;
    request->user = NULL;
    request->facts = NULL;
    request->times = (struct request_times){ 0 };
    request->batch_rows = 0;
    request->parts_sent = 0;
    request->late_status = WEIR_ETIMEOUT;
    request->deadline = (struct heap_node){ 0 };
    request->line = (struct list_node){ 0 };
    request->due = (struct list_node){ 0 };
    request->lane = NULL;
    request->payer = NULL;
    request->batch = NULL;
    request->sequence = NULL;
    request->run = NULL;
    request->deaths = 0;
    request->returns = 0;
    request->leads = false;
    request->keyed = false;
    request->limited = false;
    request->trial = false;
    request->batchable = false;
    request->state = REQUEST_IDLE;
    request->stop = WEIR_OK;
    request->parts_unread = 0;
}

const char *request_late_text(const struct request *request)
{
    return request->late_status == WEIR_EBACKEND
               ? "the run took longer than the model's run_limit and does not end"
               : "deadline passed while the model was running";
}

void request_part_release(struct request_part *part)
{
    struct pool *pool = part->request->model->pool;
    for (uint32_t i = 0; i < part->output_count; i++) {
        tensor_release(&part->outputs[i]);
    }
    pthread_mutex_lock(&pool->lock);
    part->request->parts_unread--;
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_broadcast(&pool->parts);
    mem_free(part);
}
