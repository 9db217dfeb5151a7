/*
 * A run books its time on the timeline first and waits for the end of what it booked, so that the
 * order of bookings decides, not the order in which threads wake.
 */
#include "backend/sim_device.h"

#include <pthread.h>
#include <string.h>

#include "util/clock.h"
#include "util/list.h"
#include "util/mem.h"

#define ENDS_MAX 32 /* Runs at once that contention knows of. */

struct sim_device {
    struct list_node node; /* In `devices`, under devices_lock. */
    uint32_t models;       /* Under devices_lock. */
    char *name;
    pthread_mutex_t lock;       /* Guards what follows. */
    uint64_t free_ns;           /* The timeline is booked until then. */
    uint64_t ends_ns[ENDS_MAX]; /* Of the last runs that did not follow each other. */
    uint32_t ends_at;
    uint64_t contexts;
    uint64_t memory_bytes;
};

static pthread_mutex_t devices_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list devices = { { &devices.head, &devices.head } };

/* ---- Their lives ----------------------------------------------------------------------------- */

static struct sim_device *find_locked(const char *name)
{
    for (struct list_node *n = list_first(&devices); n != NULL; n = list_next(&devices, n)) {
        struct sim_device *device = list_entry(n, struct sim_device, node);
        if (strcmp(device->name, name) == 0) {
            return device;
        }
    }
    return NULL;
}

static struct sim_device *make_locked(const char *name)
{
    struct sim_device *device = mem_try_zero(1, sizeof(*device));
    char *copy = mem_try_strdup(name);
    if (device == NULL || copy == NULL) {
        mem_free(device);
        mem_free(copy);
        return NULL;
    }
    device->name = copy;
    pthread_mutex_init(&device->lock, NULL);
    list_append(&devices, &device->node);
    return device;
}

struct sim_device *sim_device_acquire(const char *name)
{
    pthread_mutex_lock(&devices_lock);
    struct sim_device *device = find_locked(name);
    if (device == NULL) {
        device = make_locked(name);
    }
    if (device != NULL) {
        device->models++;
    }
    pthread_mutex_unlock(&devices_lock);
    return device;
}

void sim_device_release(struct sim_device *device)
{
    if (device == NULL) {
        return;
    }
    pthread_mutex_lock(&devices_lock);
    const bool last = --device->models == 0;
    if (last) {
        list_remove(&device->node);
    }
    pthread_mutex_unlock(&devices_lock);
    if (last) {
        pthread_mutex_destroy(&device->lock);
        mem_free(device->name);
        mem_free(device);
    }
}

const char *sim_device_name(const struct sim_device *device)
{
    return device->name;
}

/* ---- Memory and contexts --------------------------------------------------------------------- */

bool sim_device_book_memory(struct sim_device *device, uint64_t bytes, uint64_t limit)
{
    pthread_mutex_lock(&device->lock);
    const bool fits =
        limit == 0 || (device->memory_bytes <= limit && bytes <= limit - device->memory_bytes);
    if (fits) {
        device->memory_bytes += bytes;
    }
    pthread_mutex_unlock(&device->lock);
    return fits;
}

void sim_device_unbook_memory(struct sim_device *device, uint64_t bytes)
{
    pthread_mutex_lock(&device->lock);
    device->memory_bytes -= bytes;
    pthread_mutex_unlock(&device->lock);
}

bool sim_device_enter(struct sim_device *device, uint64_t limit)
{
    pthread_mutex_lock(&device->lock);
    const bool fits = limit == 0 || device->contexts < limit;
    device->contexts += fits;
    pthread_mutex_unlock(&device->lock);
    return fits;
}

void sim_device_leave(struct sim_device *device)
{
    pthread_mutex_lock(&device->lock);
    device->contexts--;
    pthread_mutex_unlock(&device->lock);
}

/* ---- Time ------------------------------------------------------------------------------------ */

/* Lock held: the run shares the device with those that have not ended. */
static uint64_t book_shared(struct sim_device *device, const struct sim_lane *lane,
                            uint64_t start_ns, uint64_t cost_ns)
{
    double at_once = 1;
    for (uint32_t i = 0; i < ENDS_MAX; i++) {
        at_once += device->ends_ns[i] > start_ns ? 1 : 0;
    }
    const double factor = 1 + lane->contention * at_once * (at_once - 1);
    const double slowed = (double)cost_ns * factor;
    const uint64_t end_ns =
        clock_add(start_ns, slowed < 0x1p63 ? (uint64_t)slowed : (uint64_t)1 << 63);
    device->ends_ns[device->ends_at++ % ENDS_MAX] = end_ns;
    return end_ns;
}

uint64_t sim_device_book(struct sim_device *device, struct sim_lane *lane, uint64_t submit_ns,
                         uint64_t cost_ns)
{
    uint64_t *free_ns = lane->exclusive ? &device->free_ns : &lane->free_ns;
    pthread_mutex_lock(&device->lock);
    const uint64_t start_ns = submit_ns > *free_ns ? submit_ns : *free_ns;
    *free_ns = lane->exclusive ? clock_add(start_ns, cost_ns)
                               : book_shared(device, lane, start_ns, cost_ns);
    const uint64_t end_ns = *free_ns;
    pthread_mutex_unlock(&device->lock);
    return end_ns;
}

void sim_device_unbook(struct sim_device *device, struct sim_lane *lane, uint64_t now_ns,
                       uint64_t end_ns, uint64_t cost_ns)
{
    uint64_t *free_ns = lane->exclusive ? &device->free_ns : &lane->free_ns;
    pthread_mutex_lock(&device->lock);
    const uint64_t begun_ns = lane->exclusive ? end_ns - cost_ns : now_ns;
    const uint64_t from_ns = now_ns > begun_ns ? now_ns : begun_ns;
    *free_ns -= end_ns > from_ns ? end_ns - from_ns : 0;
    for (uint32_t i = 0; i < ENDS_MAX; i++) {
        uint64_t *other_ns = &device->ends_ns[i];
        *other_ns = *other_ns == end_ns ? from_ns : *other_ns;
    }
    pthread_mutex_unlock(&device->lock);
}
