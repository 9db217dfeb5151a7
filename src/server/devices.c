#include "server/devices.h"

#include <string.h>

#include "engine/ledger.h"
#include "util/mem.h"

#define RUNS_MAX 256

/* The name without the number at its end; all of it where nothing else is left, or what is left is
 * the processors'.  NULL: memory is out. */
static char *kind_of(const char *name)
{
    size_t size;
    (void)bytes_number_at_end(bytes_of(name), &size);
    const bool numbered = size > 0 && !(size == 3 && memcmp(name, "cpu", 3) == 0);
    return mem_try_strndup(name, numbered ? size : strlen(name));
}

/* "NAME:RUNS" or "NAME:RUNS:unpipelined".  What there is of *out after a failure is freed by
 * devices_finish(). */
static enum weir_status parse(const char *text, struct device_options *out, struct weir_err *err)
{
    const char *colon = strchr(text, ':');
    const char *more = colon == NULL ? NULL : strchr(colon + 1, ':');
    const size_t digits = colon == NULL  ? 0
                          : more == NULL ? strlen(colon + 1)
                                         : (size_t)(more - colon - 1);
    uint64_t runs = 0;
    if (colon == NULL || colon == text || digits == 0 ||
        !bytes_to_u64((struct bytes){ colon + 1, digits }, RUNS_MAX, &runs) || runs == 0 ||
        (more != NULL && strcmp(more, ":unpipelined") != 0)) {
        return err_set(err, WEIR_EINVAL,
                       "devices: found '%s', expected NAME:RUNS such as npu:1, with 1 to 256 runs, "
                       "or NAME:RUNS:unpipelined",
                       text);
    }
    const size_t size = (size_t)(colon - text);
    if (size >= LEDGER_NAME_BYTES) {
        return err_set(err, WEIR_EINVAL,
                       "devices: found '%s', expected a name of at most %d characters", text,
                       LEDGER_NAME_BYTES - 1);
    }
    char *name = mem_try_strndup(text, size);
    char *kind = name == NULL ? NULL : kind_of(name);
    *out = (struct device_options){
        .name = name, .pool = kind, .executors = (uint32_t)runs, .pipelined = more == NULL
    };
    return kind == NULL ? err_nomem(err, "devices", size + 1) : WEIR_OK;
}

static enum weir_status check_name(const struct devices *devices, const char *name,
                                   struct weir_err *err)
{
    for (uint32_t i = 0; i < devices->count; i++) {
        if (strcmp(devices->list[i].name, name) == 0) {
            return err_set(err, WEIR_EINVAL,
                           "devices: found '%s' twice, expected names that differ%s", name,
                           i == 0 ? "; cpu is always there" : "");
        }
    }
    return WEIR_OK;
}

/* One seat per processor, each alone or with the others of its node. */
static uint32_t seat_on(const struct numa *numa, const cpu_set_t *only, bool alone,
                        struct numa_seat *seats)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < numa->count; i++) {
        const struct numa_cpu *cpu = &numa->cpus[i];
        if (!CPU_ISSET((unsigned)cpu->cpu, only)) {
            continue;
        }
        struct numa_seat *seat = &seats[count++];
        seat->node = cpu->node;
        if (alone) {
            CPU_ZERO(&seat->cpus);
            CPU_SET((unsigned)cpu->cpu, &seat->cpus);
        } else {
            numa_node_cpus(numa, cpu->node, &seat->cpus);
            CPU_AND(&seat->cpus, &seat->cpus, only);
        }
    }
    return count;
}

enum weir_status devices_seat(struct devices *devices, const char *processors, bool pin,
                              const struct numa *numa, struct weir_err *err)
{
    const bool nodes = (numa->nodes & (numa->nodes - 1)) != 0; /* Several. */
    const bool automatic = strcmp(processors, "auto") == 0;
    const bool off = strcmp(processors, "off") == 0;
    cpu_set_t only;
    if (!pin && (off || (automatic && !nodes))) {
        return WEIR_OK;
    }
    if (off || automatic) {
        memset(&only, 0xff, sizeof(only));
    } else if (!numa_parse(processors, &only) || CPU_COUNT(&only) == 0) {
        return err_set(err, WEIR_EINVAL,
                       "processors: found '%s', expected auto, off or numbers such as 0-7,16",
                       processors);
    }
    devices->seats = mem_try_zero(numa->count + 1, sizeof(*devices->seats));
    if (devices->seats == NULL) {
        return err_nomem(err, "processors", (numa->count + 1) * sizeof(*devices->seats));
    }
    devices->list[0].seats = devices->seats;
    devices->list[0].seat_count = seat_on(numa, &only, pin, devices->seats);
    return devices->list[0].seat_count > 0
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL,
                         "processors: found '%s', expected some that this process may run on",
                         processors);
}

static enum weir_status seat_here(struct devices *devices, const struct config *config,
                                  struct weir_err *err)
{
    struct numa *numa = mem_try_zero(1, sizeof(*numa));
    if (numa == NULL) {
        return err_nomem(err, "processors", sizeof(*numa));
    }
    numa_read(NUMA_SYSTEM, NULL, numa);
    const enum weir_status status =
        devices_seat(devices, config->processors, config->pin, numa, err);
    mem_free(numa);
    return status;
}

enum weir_status devices_read(struct devices *devices, const struct config *config,
                              struct weir_err *err)
{
    devices->list = mem_try_zero(config->devices.count + 1, sizeof(*devices->list));
    if (devices->list == NULL) {
        return err_nomem(err, "devices", (config->devices.count + 1) * sizeof(*devices->list));
    }
    devices->list[0] = (struct device_options){ .name = mem_try_strdup("cpu"),
                                                .executors = (uint32_t)config->executors,
                                                .nice = (uint32_t)config->executor_nice };
    devices->count = 1;
    if (devices->list[0].name == NULL) {
        return err_nomem(err, "devices", sizeof("cpu"));
    }
    enum weir_status status = seat_here(devices, config, err);
    for (uint64_t i = 0; i < config->devices.count && status == WEIR_OK; i++) {
        struct device_options *device = &devices->list[devices->count];
        status = parse(config->devices.items[i], device, err);
        status = status == WEIR_OK ? check_name(devices, device->name, err) : status;
        devices->count++;
    }
    return status;
}

void devices_finish(struct devices *devices)
{
    for (uint32_t i = 0; i < devices->count; i++) {
        mem_free((char *)(uintptr_t)devices->list[i].name);
        mem_free((char *)(uintptr_t)devices->list[i].pool);
    }
    mem_free(devices->list);
    mem_free(devices->seats);
    *devices = (struct devices){ 0 };
}
