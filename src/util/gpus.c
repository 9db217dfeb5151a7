#include "util/gpus.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "util/mem.h"

struct gpus {
    struct nvml *nvml; /* The thread's, once it runs. */
    struct clock clock;
    uint64_t rest_ns;
    pthread_t thread;
    pthread_mutex_t lock; /* Guards what follows. */
    pthread_cond_t changed;
    bool stopping;
    uint64_t asked_ns;
    uint32_t count;
    struct nvml_gpu seen[NVML_GPUS_MAX];
    uint64_t energy_mj[NVML_GPUS_MAX]; /* Of each at the start. */
};

/* Those that are lost are left out. */
static uint32_t read_all(struct gpus *gpus, struct nvml_gpu *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < nvml_count(gpus->nvml); i++) {
        if (nvml_read(gpus->nvml, i, &out[count])) {
            const uint64_t before = gpus->energy_mj[i];
            out[count].energy_mj -= before < out[count].energy_mj ? before : out[count].energy_mj;
            count++;
        }
    }
    return count;
}

static void note_start(struct gpus *gpus)
{
    for (uint32_t i = 0; i < nvml_count(gpus->nvml); i++) {
        struct nvml_gpu gpu;
        gpus->energy_mj[i] = nvml_read(gpus->nvml, i, &gpu) ? gpu.energy_mj : 0;
    }
}

/* Lock held: has nobody asked for so long? */
static bool has_rest(const struct gpus *gpus, uint64_t now_ns)
{
    return now_ns > clock_add(gpus->asked_ns, gpus->rest_ns);
}

/* Lock held: a second, or until somebody asks after a rest.  False: it stops. */
static bool await_turn(struct gpus *gpus)
{
    const uint64_t next_ns = clock_now_ns(&gpus->clock) + GPUS_PERIOD_NS;
    for (uint64_t now_ns = clock_now_ns(&gpus->clock); !gpus->stopping;
         now_ns = clock_now_ns(&gpus->clock)) {
        const bool rests = has_rest(gpus, now_ns);
        if (!rests && now_ns >= next_ns) {
            return true;
        }
        if (rests) {
            pthread_cond_wait(&gpus->changed, &gpus->lock);
            continue;
        }
        const struct timespec at = { .tv_sec = (time_t)(next_ns / NS_PER_S),
                                     .tv_nsec = (long)(next_ns % NS_PER_S) };
        (void)pthread_cond_timedwait(&gpus->changed, &gpus->lock, &at);
    }
    return false;
}

static void *watch(void *argument)
{
    struct gpus *gpus = argument;
    struct nvml_gpu seen[NVML_GPUS_MAX];
    (void)pthread_setname_np(pthread_self(), "weir-gpus");
    pthread_mutex_lock(&gpus->lock);
    while (await_turn(gpus)) {
        pthread_mutex_unlock(&gpus->lock);
        const uint32_t count = read_all(gpus, seen);
        pthread_mutex_lock(&gpus->lock);
        gpus->count = count;
        memcpy(gpus->seen, seen, count * sizeof(seen[0]));
    }
    pthread_mutex_unlock(&gpus->lock);
    return NULL;
}

static void free_gpus(struct gpus *gpus)
{
    pthread_cond_destroy(&gpus->changed);
    pthread_mutex_destroy(&gpus->lock);
    nvml_close(gpus->nvml);
    mem_free(gpus);
}

enum weir_status gpus_create(const char *library, uint64_t rest_ns, struct gpus **out,
                             struct weir_err *err)
{
    struct nvml *nvml;
    const enum weir_status status = nvml_open(library, &nvml, err);
    if (status != WEIR_OK) {
        return status;
    }
    struct gpus *gpus = mem_try_zero(1, sizeof(*gpus));
    if (gpus == NULL) {
        nvml_close(nvml);
        return err_nomem(err, "GPUs", sizeof(*gpus));
    }
    gpus->nvml = nvml;
    gpus->rest_ns = rest_ns;
    clock_init(&gpus->clock);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&gpus->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&gpus->lock, NULL);
    note_start(gpus);
    gpus->count = read_all(gpus, gpus->seen);
    gpus->asked_ns = clock_now_ns(&gpus->clock);
    const int failed = pthread_create(&gpus->thread, NULL, watch, gpus);
    if (failed != 0) {
        free_gpus(gpus);
        return err_set(err, WEIR_ENOMEM, "GPUs: the system gives no further thread: %s",
                       strerror(failed));
    }
    *out = gpus;
    return WEIR_OK;
}

void gpus_destroy(struct gpus *gpus)
{
    if (gpus == NULL) {
        return;
    }
    pthread_mutex_lock(&gpus->lock);
    gpus->stopping = true;
    pthread_mutex_unlock(&gpus->lock);
    pthread_cond_signal(&gpus->changed);
    pthread_join(gpus->thread, NULL);
    free_gpus(gpus);
}

uint32_t gpus_look(struct gpus *gpus, struct nvml_gpu out[NVML_GPUS_MAX])
{
    pthread_mutex_lock(&gpus->lock);
    const uint64_t now_ns = clock_now_ns(&gpus->clock);
    gpus->count = has_rest(gpus, now_ns) ? 0 : gpus->count; /* They are old. */
    gpus->asked_ns = now_ns;
    const uint32_t count = gpus->count;
    memcpy(out, gpus->seen, count * sizeof(out[0]));
    pthread_mutex_unlock(&gpus->lock);
    pthread_cond_signal(&gpus->changed);
    return count;
}
