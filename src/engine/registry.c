/*
 * The manager's turn: run what came in, publish one snapshot for all of it,
 * then tell whoever waits.  So an order is never answered before the snapshot
 * that shows its effect, and the log never runs ahead of the index.
 *
 * Publishing sends every home a note to let its old snapshot go.  A home in use
 * would notice by itself; an idle one would keep a model in memory for ever.
 */
#include "engine/registry.h"

#include <assert.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/entry.h"
#include "engine/entry_parts.h"
#include "engine/profile_store.h"
#include "util/clock.h"
#include "util/err.h"
#include "util/mem.h"

#define RETRY_NS (20 * NS_PER_MS) /* After publishing ran out of memory. */
#define SAVE_NS (60 * NS_PER_S)   /* Between looks for profiles to be written. */
#define RESCAN_NS (1 * NS_PER_S)  /* After a scan failed. */
#define SCAN_BYTES_MAX (UINT64_C(256) << 20)

struct scan_job {
    struct worker_job job;
    struct registry *registry;
    struct arena arena;
    struct repository_list list;
    enum weir_status status;
    struct weir_err err;
};

struct registry {
    struct engine *engine;
    const struct registry_options *options;
    struct worker manager;
    struct worker scanner;
    struct worker *loaders; /* One per pool. */
    uint32_t loader_count;  /* Those started. */
    struct clock clock;     /* The system's: folders change in real time. */

    pthread_mutex_t lock;      /* Guards current and news. */
    struct catalogue *current; /* NULL once stopped. */
    struct {
        struct worker_job job;
        bool sent;                /* On its way to the manager, which takes the latest. */
        struct room_options room; /* From now on. */
        uint64_t poll_ns;
    } news;
    _Atomic uint64_t generation;

    /* The manager's. */
    struct entry_host host;
    struct scan_job scan;
    uint64_t scan_number; /* Scans that went well. */
    bool announced;       /* That the first did. */
    bool scanning;
    bool following; /* ALL: the scan in progress is told to look for what has changed. */
    uint64_t next_scan_ns;
    uint64_t poll_ns; /* Between looks at the folders. */
    uint64_t next_save_ns;
    struct list refreshes;  /* Of registry_order.node: wait for a scan that has not begun. */
    struct list refreshing; /* Wait for the scan in progress. */
    struct list settling;   /* Wait until what it found is loaded. */
    struct worker_job refuse;
    bool refusing; /* Nobody waits for a model any more. */
    struct worker_job stop;
    uint64_t until_ns; /* How long it may take. */
};

/* ---- Snapshots ------------------------------------------------------------------------------- */

struct catalogue *registry_snapshot(struct registry *registry)
{
    pthread_mutex_lock(&registry->lock);
    struct catalogue *current = registry->current;
    catalogue_acquire(current);
    pthread_mutex_unlock(&registry->lock);
    return current;
}

const struct catalogue *registry_catalogue(struct registry *registry, struct home *home)
{
    const uint64_t generation = atomic_load(&registry->generation);
    if (home->catalogue == NULL || home->catalogue_generation != generation) {
        struct catalogue *old = home->catalogue;
        home->catalogue = registry_snapshot(registry);
        home->catalogue_generation = home->catalogue->generation;
        catalogue_release(old);
    }
    return home->catalogue;
}

/* At home: lets the old snapshot go; registry_catalogue() fetches the new one when it is needed. */
static void refresh_home(struct home_mail *mail)
{
    struct home *home = list_entry(mail, struct home, refresh);
    atomic_store(&home->refreshing, false);
    home_rest(home);
}

static void nudge_homes(struct registry *registry)
{
    struct engine *engine = registry->engine;
    pthread_mutex_lock(&engine->lock);
    for (struct list_node *node = list_first(&engine->homes); node != NULL;
         node = list_next(&engine->homes, node)) {
        struct home *home = list_entry(node, struct home, node);
        if (!atomic_exchange(&home->refreshing, true)) {
            home->refresh.deliver = refresh_home;
            home_send(home, &home->refresh);
        }
    }
    pthread_mutex_unlock(&engine->lock);
}

static void replace_current(struct registry *registry, struct catalogue *catalogue)
{
    pthread_mutex_lock(&registry->lock);
    struct catalogue *old = registry->current;
    registry->current = catalogue;
    pthread_mutex_unlock(&registry->lock);
    atomic_fetch_add(&registry->generation, 1);
    catalogue_release(old);
}

static bool any_busy(const struct registry *registry)
{
    for (const struct entry *entry = entry_first(&registry->host); entry != NULL;
         entry = entry_next(entry)) {
        if (entry_is_busy(entry)) {
            return true;
        }
    }
    return false;
}

static bool all_required_serve(const struct registry *registry)
{
    for (const struct entry *entry = entry_first(&registry->host); entry != NULL;
         entry = entry_next(entry)) {
        if (entry_is_required(entry) && !entry->serving) {
            return false;
        }
    }
    return registry->scan_number > 0;
}

/* A snapshot of now, or NULL when memory is out. */
static struct catalogue *take_snapshot(struct registry *registry)
{
    const uint64_t generation = atomic_load(&registry->generation) + 1;
    struct catalogue *catalogue = catalogue_create(generation, registry->host.entry_count);
    if (catalogue == NULL) {
        return NULL;
    }
    enum weir_status status = WEIR_OK;
    for (const struct entry *entry = entry_first(&registry->host);
         entry != NULL && status == WEIR_OK; entry = entry_next(entry)) {
        status = entry_show(entry, catalogue);
    }
    status = status == WEIR_OK ? room_show(&registry->host, catalogue) : status;
    status = status == WEIR_OK ? catalogue_seal(catalogue) : status;
    if (status != WEIR_OK) {
        catalogue_release(catalogue);
        return NULL;
    }
    catalogue->loads_lost = registry->host.lost;
    catalogue->ready = all_required_serve(registry);
    catalogue->settled = registry->scan_number > 0 && !any_busy(registry);
    return catalogue;
}

static void sweep(struct registry *registry)
{
    struct entry *entry = entry_first(&registry->host);
    while (entry != NULL) {
        struct entry *next = entry_next(entry);
        if (entry_is_empty(entry)) {
            entry_remove(entry);
        }
        entry = next;
    }
}

static void deliver_answer(struct home_mail *mail)
{
    struct registry_order *order = list_entry(mail, struct registry_order, home_mail);
    order->done(order);
}

static void send_answers(struct registry *registry)
{
    for (struct list_node *node = list_pop(&registry->host.answers); node != NULL;
         node = list_pop(&registry->host.answers)) {
        struct registry_order *order = list_entry(node, struct registry_order, node);
        order->home_mail.deliver = deliver_answer;
        home_send(order->home, &order->home_mail);
    }
}

static void announce_first_look(struct registry *registry)
{
    const struct registry_options *options = registry->options;
    if (registry->scan_number > 0 && !registry->announced && options->changed != NULL) {
        options->changed(options->changed_context, "", 0, MODEL_UNKNOWN, NULL, NULL);
        registry->announced = true;
    }
}

/* False when memory was out; it is then tried again soon. */
static bool publish(struct registry *registry)
{
    sweep(registry);
    struct catalogue *catalogue = NULL;
    if (!registry->host.stopping) {
        catalogue = take_snapshot(registry);
        if (catalogue == NULL) {
            return false;
        }
    }
    registry->host.dirty = false;
    replace_current(registry, catalogue);
    nudge_homes(registry);
    for (struct entry *entry = entry_first(&registry->host); entry != NULL;
         entry = entry_next(entry)) {
        entry_announce(entry);
    }
    entry_announce_gone(&registry->host);
    announce_first_look(registry);
    send_answers(registry);
    return true;
}

/* ---- Looking at the folders ------------------------------------------------------------------ */

static void scanned(struct worker_job *job);

/* Changes in the folders are noticed by themselves. */
static bool looks_often(const struct registry *registry)
{
    return registry->options->control == CONTROL_POLL ||
           registry->options->control == CONTROL_DEMAND;
}

/* Does this scan load and unload what has changed? */
static bool follows(const struct registry *registry)
{
    return looks_often(registry) || registry->following;
}

static void scan(struct worker_job *job)
{
    struct scan_job *scan_job = list_entry(job, struct scan_job, job);
    struct registry *registry = scan_job->registry;
    const bool fingerprints = registry->options->control != CONTROL_EXPLICIT;
    arena_reset(&scan_job->arena);
    scan_job->status = repository_scan(&registry->host.repository, fingerprints, &scan_job->arena,
                                       &scan_job->list, &scan_job->err);
    job->run = scanned;
    worker_send(&registry->manager, job);
}

static bool any_follows(const struct registry *registry)
{
    for (const struct list_node *node = list_first(&registry->refreshes); node != NULL;
         node = list_next(&registry->refreshes, node)) {
        if (list_entry(node, struct registry_order, node)->follow) {
            return true;
        }
    }
    return false;
}

static void start_scan(struct registry *registry)
{
    registry->scanning = true;
    registry->following = registry->options->control == CONTROL_ALL && any_follows(registry);
    registry->next_scan_ns = CLOCK_NEVER;
    list_splice(&registry->refreshing, &registry->refreshes);
    registry->scan.job.run = scan;
    registry->host.jobs++;
    worker_send(&registry->scanner, &registry->scan.job);
}

static bool wanted_at_start(const struct registry *registry, const char *name)
{
    const struct registry_options *options = registry->options;
    if (options->control != CONTROL_EXPLICIT && options->control != CONTROL_DEMAND) {
        return true;
    }
    for (uint32_t i = 0; i < options->preload_count; i++) {
        if (strcmp(options->preload[i], "*") == 0 || strcmp(options->preload[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* Takes note of one folder; false when memory is out. */
static bool see(struct registry *registry, const struct repository_model *found)
{
    struct entry *entry = entry_need(&registry->host, found->name);
    if (entry == NULL) {
        return false;
    }
    const bool first_time = entry->scan == 0;
    entry->scan = registry->scan_number + 1;
    entry->present = true;
    if (found->problem != NULL) {
        entry_bar(entry, found->problem);
        return true;
    }
    const bool was_barred = entry->barred;
    entry->barred = false;
    bool load = registry->scan_number == 0 && wanted_at_start(registry, found->name);
    if (registry->options->control == CONTROL_DEMAND) {
        const bool changed = entry->seen_fingerprint != found->fingerprint;
        load = load || (changed && !first_time && entry_serves(entry));
        entry->seen_fingerprint = found->fingerprint;
        entry->retry_ns = changed ? 0 : entry->retry_ns;
    }
    if (registry->options->control == CONTROL_ALL && registry->scan_number == 0) {
        entry->seen_fingerprint = found->fingerprint;
    } else if (registry->options->control == CONTROL_POLL || registry->following) {
        load = load || first_time || was_barred || entry->seen_fingerprint != found->fingerprint;
        entry->seen_fingerprint = found->fingerprint;
    }
    entry->want_load = entry->want_load || load;
    entry->required = entry->required || (load && wanted_at_start(registry, found->name));
    return true;
}

/* What was there and is not any more. */
static void miss(struct registry *registry)
{
    for (struct entry *entry = entry_first(&registry->host); entry != NULL;
         entry = entry_next(entry)) {
        if (entry->scan == registry->scan_number + 1 || !entry->present) {
            continue;
        }
        entry->present = false;
        entry->scan = 0;
        entry->barred = false;
        if (follows(registry)) {
            entry->want_unload = true;
        }
    }
}

/* Preloaded models that have no folder still count, and say so. */
static bool add_preloads(struct registry *registry)
{
    const struct registry_options *options = registry->options;
    const bool named = options->control == CONTROL_EXPLICIT || options->control == CONTROL_DEMAND;
    for (uint32_t i = 0; named && i < options->preload_count; i++) {
        if (strcmp(options->preload[i], "*") == 0) {
            continue;
        }
        struct entry *entry = entry_need(&registry->host, options->preload[i]);
        if (entry == NULL) {
            return false;
        }
        entry->required = true;
        entry->want_load = true;
    }
    return true;
}

static bool take_list(struct registry *registry)
{
    const struct repository_list *list = &registry->scan.list;
    if (registry->scan_number == 0 && !add_preloads(registry)) {
        return false;
    }
    for (uint32_t i = 0; i < list->count; i++) {
        if (!see(registry, &list->models[i])) {
            return false;
        }
    }
    miss(registry);
    registry->scan_number++;
    return true;
}

static void answer_list(struct registry *registry, struct list *orders, enum weir_status status,
                        const struct weir_err *err)
{
    for (struct list_node *node = list_pop(orders); node != NULL; node = list_pop(orders)) {
        entry_answer(&registry->host, list_entry(node, struct registry_order, node), status, err);
    }
}

static void scanned(struct worker_job *job)
{
    struct scan_job *scan_job = list_entry(job, struct scan_job, job);
    struct registry *registry = scan_job->registry;
    enum weir_status status = scan_job->status;
    registry->scanning = false;
    registry->host.jobs--;
    registry->host.dirty = true;
    if (registry->host.stopping) {
        answer_list(registry, &registry->refreshing, WEIR_EDRAINING, NULL);
        return;
    }
    if (status == WEIR_OK && !take_list(registry)) {
        status = err_nomem(&scan_job->err, "the list of models", sizeof(struct entry));
    }
    const uint64_t now_ns = clock_now_ns(&registry->clock);
    if (status != WEIR_OK) {
        registry->next_scan_ns = clock_add(now_ns, RESCAN_NS);
        answer_list(registry, &registry->refreshing, status, &scan_job->err);
    } else {
        if (looks_often(registry)) {
            registry->next_scan_ns = clock_add(now_ns, registry->poll_ns);
        }
        list_splice(&registry->settling, &registry->refreshing);
    }
    for (struct entry *entry = entry_first(&registry->host); entry != NULL;
         entry = entry_next(entry)) {
        entry_advance(entry);
    }
}

/* ---- The manager ----------------------------------------------------------------------------- */

static uint64_t save_ns(const struct registry_options *options)
{
    return options->profile_save_ns > 0 ? options->profile_save_ns : SAVE_NS;
}

/* After all that may end work in this turn: another one may not come. */
static void answer_settled(struct registry *registry)
{
    const enum model_control control = registry->options->control;
    const bool at_once = control == CONTROL_EXPLICIT || control == CONTROL_DEMAND;
    if (at_once || !any_busy(registry)) {
        answer_list(registry, &registry->settling, WEIR_OK, NULL);
    }
}

static bool turn(void *context, uint64_t *next_ns)
{
    struct registry *registry = context;
    struct entry_host *host = &registry->host;
    const uint64_t now_ns = clock_now_ns(&registry->clock);
    const bool due = now_ns >= registry->next_scan_ns || !list_empty(&registry->refreshes);
    if (!host->stopping && !registry->scanning && due) {
        start_scan(registry);
    }
    entry_parts_turn(host);
    if (!host->stopping && now_ns >= registry->next_save_ns) {
        registry->next_save_ns = clock_add(now_ns, save_ns(registry->options));
        entry_save(host);
    }
    uint64_t work_ns = CLOCK_NEVER;
    const uint64_t changes = host->changes;
    room_turn(host, now_ns, &work_ns);
    if (host->changes != changes) {
        work_ns = now_ns; /* Who went may have been a part, which an ensemble still holds. */
    }
    entry_promote(host, now_ns, &work_ns);
    loader_watch(host, now_ns, &work_ns);
    answer_settled(registry);
    while (host->dirty) {
        if (!publish(registry)) {
            *next_ns = clock_add(now_ns, RETRY_NS);
            return false;
        }
    }
    *next_ns = registry->next_scan_ns < work_ns ? registry->next_scan_ns : work_ns;
    *next_ns = registry->next_save_ns < *next_ns ? registry->next_save_ns : *next_ns;
    if (!host->stopping) {
        return false;
    }
    *next_ns = registry->until_ns < *next_ns ? registry->until_ns : *next_ns;
    return (host->jobs == 0 && host->residents == 0) || now_ns >= registry->until_ns;
}

static void refuse_order(struct registry *registry, struct registry_order *order,
                         enum weir_status status, const char *why)
{
    struct weir_err err = { 0 };
    (void)err_set(&err, status, "%s", why);
    entry_answer(&registry->host, order, status, &err);
}

/* A request for a model that may have to be loaded first. */
static void take_need(struct registry *registry, struct registry_order *order)
{
    struct entry *entry = entry_find(&registry->host, order->name);
    if (registry->refusing) {
        refuse_order(registry, order, WEIR_EDRAINING, "the server is shutting down");
        return;
    }
    if (entry == NULL || (registry->options->control != CONTROL_DEMAND && !entry_is_busy(entry))) {
        refuse_order(registry, order, WEIR_ENOENT, "no model of that name is loaded on demand");
        return;
    }
    entry_order(entry, order);
}

static void take_model_order(struct registry *registry, struct registry_order *order)
{
    if (registry->options->control != CONTROL_EXPLICIT &&
        registry->options->control != CONTROL_DEMAND) {
        refuse_order(registry, order, WEIR_ECONFLICT,
                     registry->options->control == CONTROL_POLL
                         ? "explicit model load / unload is not allowed if polling is enabled"
                         : "explicit model load / unload is not allowed: the model control mode is "
                           "'all', expected 'explicit'");
        return;
    }
    if (!repository_name_ok(bytes_of(order->name))) {
        refuse_order(registry, order, WEIR_EINVAL,
                     "the model name is no model name: expected 1 to 128 of A-Z a-z 0-9 . _ - and "
                     "no leading dot");
        return;
    }
    struct entry *entry = entry_find(&registry->host, order->name);
    if (entry == NULL && order->kind == REGISTRY_UNLOAD) {
        entry_answer(&registry->host, order, WEIR_OK, NULL);
        return;
    }
    entry = entry == NULL ? entry_need(&registry->host, order->name) : entry;
    if (entry == NULL) {
        refuse_order(registry, order, WEIR_ENOMEM, "out of memory for a model");
        return;
    }
    entry_order(entry, order);
}

static void take_order(struct worker_job *job)
{
    struct registry_order *order = list_entry(job, struct registry_order, job);
    struct registry *registry = order->registry;
    if (registry->host.stopping) {
        refuse_order(registry, order, WEIR_EDRAINING, "the server is shutting down");
    } else if (order->kind == REGISTRY_REFRESH) {
        list_append(&registry->refreshes, &order->node);
    } else if (order->kind == REGISTRY_NEED) {
        take_need(registry, order);
    } else {
        take_model_order(registry, order);
    }
}

void registry_order(struct registry *registry, struct registry_order *order)
{
    assert(order->home != NULL && order->done != NULL);
    order->registry = registry;
    order->job.run = take_order;
    worker_send(&registry->manager, &order->job);
}

static void take_news(struct worker_job *job)
{
    struct registry *registry = list_entry(job, struct registry, news.job);
    struct entry_host *host = &registry->host;
    pthread_mutex_lock(&registry->lock);
    const struct room_options room = registry->news.room;
    const uint64_t poll_ns = registry->news.poll_ns;
    registry->news.sent = false;
    pthread_mutex_unlock(&registry->lock);
    host->room_options = room;
    room_set(&host->room, &room);
    host->dirty = true; /* The snapshot shows the budget. */
    registry->poll_ns = poll_ns;
    const uint64_t scan_ns = clock_add(clock_now_ns(&registry->clock), poll_ns);
    if (registry->next_scan_ns != CLOCK_NEVER && scan_ns < registry->next_scan_ns) {
        registry->next_scan_ns = scan_ns;
    }
}

void registry_set(struct registry *registry, const struct room_options *room, uint64_t poll_ns)
{
    pthread_mutex_lock(&registry->lock);
    const bool sent = registry->news.sent;
    registry->news.room = *room;
    registry->news.poll_ns = poll_ns;
    registry->news.sent = true;
    pthread_mutex_unlock(&registry->lock);
    if (!sent) {
        registry->news.job.run = take_news;
        worker_send(&registry->manager, &registry->news.job);
    }
}

static void refuse_needs(struct worker_job *job)
{
    struct registry *registry = list_entry(job, struct registry, refuse);
    registry->refusing = true;
    for (struct entry *entry = entry_first(&registry->host); entry != NULL;
         entry = entry_next(entry)) {
        entry_refuse_needs(entry);
    }
}

void registry_refuse_needs(struct registry *registry)
{
    registry->refuse.run = refuse_needs;
    worker_send(&registry->manager, &registry->refuse);
}

static void stop(struct worker_job *job)
{
    struct registry *registry = list_entry(job, struct registry, stop);
    registry->host.stopping = true;
    registry->host.dirty = true;
    registry->next_scan_ns = CLOCK_NEVER;
    registry->next_save_ns = CLOCK_NEVER;
    answer_list(registry, &registry->refreshes, WEIR_EDRAINING, NULL);
    answer_list(registry, &registry->settling, WEIR_EDRAINING, NULL);
    room_stop(&registry->host);
    for (struct entry *entry = entry_first(&registry->host); entry != NULL;
         entry = entry_next(entry)) {
        entry_stop(entry);
    }
}

/* ---- Life ------------------------------------------------------------------------------------ */

static enum weir_status check_roots(const struct repository *repository, struct weir_err *err)
{
    struct arena arena;
    arena_init(&arena, NULL, 0, SCAN_BYTES_MAX);
    struct repository_list list;
    const enum weir_status status = repository_scan(repository, false, &arena, &list, err);
    arena_finish(&arena);
    return status;
}

static void init_state(struct registry *registry, struct engine *engine,
                       const struct registry_options *options)
{
    registry->engine = engine;
    registry->options = options;
    registry->next_scan_ns = 0;
    registry->poll_ns = options->poll_ns;
    clock_init(&registry->clock);
    const bool saves =
        options->profile_store != NULL && strcmp(options->profile_store, PROFILE_STORE_OFF) != 0;
    registry->next_save_ns =
        saves ? clock_add(clock_now_ns(&registry->clock), save_ns(options)) : CLOCK_NEVER;
    pthread_mutex_init(&registry->lock, NULL);
    atomic_init(&registry->generation, 1);
    list_init(&registry->refreshes);
    list_init(&registry->refreshing);
    list_init(&registry->settling);
    registry->stop.run = stop;
    registry->scan.registry = registry;
    arena_init(&registry->scan.arena, NULL, 0, SCAN_BYTES_MAX);
    registry->host = (struct entry_host){
        .engine = engine,
        .options = options,
        .repository = { options->roots, options->root_count, options->models_max },
        .clock = &registry->clock,
        .manager = &registry->manager,
        .scanner = &registry->scanner,
    };
    registry->host.room_options = options->room;
    entry_host_init(&registry->host);
}

static enum weir_status start_loaders(struct registry *registry, struct weir_err *err)
{
    registry->loaders = mem_try_zero(registry->engine->pool_count, sizeof(*registry->loaders));
    if (registry->loaders == NULL) {
        return err_nomem(err, "the loaders", sizeof(*registry->loaders));
    }
    registry->host.loaders = registry->loaders;
    while (registry->loader_count < registry->engine->pool_count) {
        const enum weir_status status = worker_start(&registry->loaders[registry->loader_count],
                                                     "weir-loader", NULL, NULL, err);
        if (status != WEIR_OK) {
            return status;
        }
        registry->loader_count++;
    }
    return WEIR_OK;
}

static void stop_loaders(struct registry *registry)
{
    for (uint32_t i = 0; i < registry->loader_count; i++) {
        worker_stop(&registry->loaders[i]);
    }
}

/* Everything but the workers, which are stopped. */
static void free_registry(struct registry *registry)
{
    for (uint32_t i = 0; i < registry->loader_count; i++) {
        worker_finish(&registry->loaders[i]);
    }
    entry_host_finish(&registry->host);
    catalogue_release(registry->current);
    arena_finish(&registry->scan.arena);
    pthread_mutex_destroy(&registry->lock);
    mem_free(registry->loaders);
    mem_free(registry);
}

/* Everything is in place but the manager, who begins to work at once. */
static enum weir_status start_workers(struct registry *registry, struct weir_err *err)
{
    registry->current = take_snapshot(registry);
    if (registry->current == NULL) {
        return err_nomem(err, "the catalogue", sizeof(*registry->current));
    }
    registry->current->generation = 1;
    enum weir_status status = start_loaders(registry, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = worker_start(&registry->scanner, "weir-scanner", NULL, NULL, err);
    if (status != WEIR_OK) {
        return status;
    }
    status = worker_start(&registry->manager, "weir-manager", turn, registry, err);
    if (status != WEIR_OK) {
        worker_stop(&registry->scanner);
        worker_finish(&registry->scanner);
    }
    return status;
}

enum weir_status registry_create(struct engine *engine, const struct registry_options *options,
                                 struct registry **out, struct weir_err *err)
{
    struct registry *registry = mem_try_zero(1, sizeof(*registry));
    if (registry == NULL) {
        return err_nomem(err, "the registry", sizeof(*registry));
    }
    init_state(registry, engine, options);
    enum weir_status status = check_roots(&registry->host.repository, err);
    status = status == WEIR_OK ? start_workers(registry, err) : status;
    if (status != WEIR_OK) {
        stop_loaders(registry);
        free_registry(registry);
        return status;
    }
    *out = registry;
    return WEIR_OK;
}

bool registry_destroy(struct registry *registry, uint64_t until_ns)
{
    if (registry == NULL) {
        return true;
    }
    registry->until_ns = until_ns;
    worker_send(&registry->manager, &registry->stop);
    worker_stop(&registry->manager);
    const struct entry_host *host = &registry->host;
    if (host->jobs > 0 || host->residents > 0 || host->lost > 0) {
        return false;
    }
    worker_stop(&registry->scanner);
    stop_loaders(registry);
    worker_finish(&registry->manager);
    worker_finish(&registry->scanner);
    free_registry(registry);
    return true;
}
