/*
 * What executors wait for while they run: readers of a stream's parts.
 */
#include "engine/home.h"
#include "engine/pool.h"
#include "util/mem.h"

static void part_deliver(struct home_mail *mail)
{
    struct request_part *part = list_entry(mail, struct request_part, home_mail);
    part->request->part(part->request, part);
}

enum weir_status pool_part(struct pool *pool, struct request *request, struct tensor *outputs,
                           uint32_t output_count)
{
    struct request_part *part = mem_try_alloc(sizeof(*part) + output_count * sizeof(struct tensor));
    pthread_mutex_lock(&pool->lock);
    while (part != NULL && request->stop == WEIR_OK &&
           request->parts_unread >= pool->engine->limits->parts_max) {
        pthread_cond_wait(&pool->parts, &pool->lock);
    }
    enum weir_status status = request->stop;
    if (status == WEIR_OK && part != NULL) {
        request->parts_unread++;
        request->parts_sent++;
    }
    pthread_mutex_unlock(&pool->lock);
    if (part == NULL || status != WEIR_OK) {
        mem_free(part);
        for (uint32_t i = 0; i < output_count; i++) {
            tensor_release(&outputs[i]);
        }
        return status != WEIR_OK ? status : WEIR_ENOMEM;
    }
    part->home_mail.deliver = part_deliver;
    part->request = request;
    part->output_count = output_count;
    for (uint32_t i = 0; i < output_count; i++) {
        part->outputs[i] = outputs[i];
        outputs[i] = (struct tensor){ 0 };
        if (!request->wanted[i]) {
            tensor_release(&part->outputs[i]);
        }
    }
    home_send(request->home, &part->home_mail);
    return WEIR_OK;
}
