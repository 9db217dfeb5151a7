#include "server/front.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "server/activation.h"
#include "util/log.h"
#include "util/mem.h"

#define LISTENERS_MAX 16
#define ADDRESS_BYTES 300

/* One loop, its thread, and its listeners. */
struct front_loop {
    struct front *front;
    pthread_t thread;
    struct loop loop;
    struct api_loop api;
    struct http_listener *listeners[LISTENERS_MAX];
    uint32_t listener_count;
    struct loop_mail drain;
    struct loop_hook ending; /* Draining: ends the loop after its last connection. */
    bool running;            /* The thread is to be joined. */
    _Atomic bool ended;      /* It is about to end. */
};

static enum weir_status listen_on(struct front_loop *self, const char *address,
                                  struct weir_err *err)
{
    const struct front_options *options = &self->front->options;
    const uint32_t index = self->listener_count;
    const enum weir_status status = http_listen(
        &self->loop, address, index, api_handler(options->api), &self->listeners[index], err);
    if (status != WEIR_OK) {
        return status;
    }
    /* Who can open a Unix socket is on this machine, and was let in by its mode. */
    if (options->tls != NULL && http_listener_port(self->listeners[index]) != 0) {
        http_listener_secure(self->listeners[index], options->tls);
    }
    self->listener_count++;
    return WEIR_OK;
}

/* All loops take clients from the sockets that were handed over. */
static enum weir_status listen_activated(struct front_loop *self, struct weir_err *err)
{
    const struct front_options *options = &self->front->options;
    if (options->activated > LISTENERS_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "LISTEN_FDS: found %u sockets that were handed over, expected at most %d",
                       (unsigned)options->activated, LISTENERS_MAX);
    }
    enum weir_status status = WEIR_OK;
    for (uint32_t i = 0; i < options->activated && status == WEIR_OK; i++) {
        status = http_listen_fd(&self->loop, ACTIVATION_FIRST + (int)i, i,
                                api_handler(options->api), &self->listeners[i], err);
        self->listener_count += status == WEIR_OK ? 1 : 0;
    }
    return status;
}

/* A later loop listens where the first one does, also when that chose its port. */
static uint64_t port_of(const struct front_loop *self, uint32_t index, uint64_t configured)
{
    const struct front_loop *first = &self->front->loops[0];
    return self == first ? configured : http_listener_port(first->listeners[index]);
}

static enum weir_status listen_all(struct front_loop *self, struct weir_err *err)
{
    const struct config *config = self->front->options.config;
    const uint64_t three[] = { config->http_port, config->grpc_port, config->metrics_port };
    const uint64_t *ports = config->port > 0 ? &config->port : three;
    const uint32_t count = config->port > 0 ? 1 : 3;
    const bool bracket = strchr(config->host, ':') != NULL;
    enum weir_status status = WEIR_OK;
    if (self->front->options.activated > 0) {
        return listen_activated(self, err);
    }
    for (uint32_t i = 0; i < count && status == WEIR_OK; i++) {
        char address[ADDRESS_BYTES];
        (void)snprintf(address, sizeof(address), bracket ? "[%s]:%u" : "%s:%u", config->host,
                       (unsigned)port_of(self, i, ports[i]));
        status = listen_on(self, address, err);
    }
    if (status == WEIR_OK && config->unix_socket[0] != '\0' && self == self->front->loops) {
        char address[ADDRESS_BYTES];
        (void)snprintf(address, sizeof(address), "unix:%s", config->unix_socket);
        status = listen_on(self, address, err);
    }
    return status;
}

static enum weir_status open_loop(struct front *front, struct weir_err *err)
{
    struct front_loop *self = &front->loops[front->count];
    self->front = front;
    const enum weir_status status = loop_init(&self->loop, front->options.limits, err);
    if (status != WEIR_OK) {
        return status;
    }
    front->count++;
    loop_set_spin(&self->loop, front->options.config->loop_spin_ns);
    api_loop_attach(&self->api, front->options.api, &self->loop);
    return listen_all(self, err);
}

static void *loop_main(void *argument)
{
    struct front_loop *self = argument;
    (void)pthread_setname_np(pthread_self(), "weir-loop");
    loop_run(&self->loop);
    pulse_end(&self->api.pulse);
    atomic_store(&self->ended, true);
    self->front->options.ended(self->front->options.context);
    return NULL;
}

static enum weir_status start_threads(struct front *front, struct weir_err *err)
{
    for (uint32_t i = 0; i < front->count; i++) {
        struct front_loop *self = &front->loops[i];
        if (pthread_create(&self->thread, NULL, loop_main, self) != 0) {
            return err_set(err, WEIR_ENOMEM, "the system has no threads left for a network loop");
        }
        self->running = true;
    }
    return WEIR_OK;
}

static void log_addresses(const struct front *front)
{
    struct buffer addresses;
    buffer_init(&addresses, 4096);
    front_addresses(front, &addresses);
    buffer_char(&addresses, '\0');
    if (!addresses.failed) {
        log_event(LOG_INFO, "listening", LOG_STR("addresses", addresses.data),
                  LOG_U64("loops", front->count),
                  LOG_U64("executors", front->options.config->executors));
    }
    buffer_finish(&addresses);
}

enum weir_status front_start(struct front *front, const struct front_options *options,
                             struct weir_err *err)
{
    const uint64_t count = options->config->loops;
    *front = (struct front){ .options = *options };
    front->loops = mem_alloc(count * sizeof(*front->loops));
    for (uint64_t i = 0; i < count; i++) {
        const enum weir_status status = open_loop(front, err);
        if (status != WEIR_OK) {
            return status;
        }
    }
    log_addresses(front);
    return start_threads(front, err);
}

void front_tell(struct front *front)
{
    for (uint32_t i = 0; i < front->count; i++) {
        api_loop_tell(&front->loops[i].api);
    }
}

static void end_if_idle(struct loop_hook *hook)
{
    struct front_loop *self = list_entry(hook, struct front_loop, ending);
    if (self->loop.connection_count == 0 && self->api.home.pending == 0) {
        loop_stop(&self->loop);
    }
}

static void receive_drain(struct loop_mail *mail)
{
    struct front_loop *self = list_entry(mail, struct front_loop, drain);
    for (uint32_t i = 0; i < self->listener_count; i++) {
        http_listener_close(self->listeners[i]);
    }
    self->listener_count = 0;
    self->ending.turn = end_if_idle;
    loop_hook_add(&self->loop, &self->ending);
    http_drain(&self->loop);
    api_loop_drain(&self->api);
}

void front_drain(struct front *front)
{
    for (uint32_t i = 0; i < front->count; i++) {
        struct front_loop *self = &front->loops[i];
        self->drain.receive = receive_drain;
        loop_send(&self->loop, &self->drain);
    }
}

bool front_has_ended(const struct front *front)
{
    for (uint32_t i = 0; i < front->count; i++) {
        if (!atomic_load(&front->loops[i].ended)) {
            return false;
        }
    }
    return true;
}

void front_addresses(const struct front *front, struct buffer *out)
{
    const struct config *config = front->options.config;
    const struct front_loop *first = &front->loops[0];
    const bool bracket = strchr(config->host, ':') != NULL;
    for (uint32_t i = 0; i < first->listener_count; i++) {
        const unsigned port = http_listener_port(first->listeners[i]);
        buffer_text(out, i == 0 ? "" : " ");
        if (front->options.activated > 0) {
            char name[HTTP_LISTENER_NAME_BYTES];
            http_listener_name(first->listeners[i], name);
            buffer_printf(out, port == 0 ? "%s" : "http://%s", name);
        } else if (port == 0) {
            buffer_printf(out, "unix:%s", config->unix_socket);
        } else {
            buffer_printf(out, bracket ? "%s://[%s]:%u" : "%s://%s:%u",
                          front->options.tls == NULL ? "http" : "https", config->host, port);
        }
    }
}

static void stop_loop(struct front_loop *self)
{
    if (self->running) {
        loop_stop(&self->loop);
        pthread_join(self->thread, NULL);
    }
}

static void finish_loop(struct front_loop *self)
{
    for (uint32_t i = 0; i < self->listener_count; i++) {
        http_listener_close(self->listeners[i]);
    }
    loop_close(&self->loop);
    api_loop_detach(&self->api);
    loop_finish(&self->loop);
}

/* Loops send each other mail: none goes while another one turns. */
void front_finish(struct front *front)
{
    for (uint32_t i = 0; i < front->count; i++) {
        stop_loop(&front->loops[i]);
    }
    for (uint32_t i = 0; i < front->count; i++) {
        finish_loop(&front->loops[i]);
    }
    mem_free(front->loops);
}
