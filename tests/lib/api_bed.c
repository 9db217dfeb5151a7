#include "api_bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/net.h"
#include "server/modelconfig.h"

static void *turn(void *argument)
{
    loop_run(argument);
    return NULL;
}

void api_bed_start(struct api_bed *bed, struct model_bed *models)
{
    static const char *const all[] = { "*" };
    struct weir_err err = { 0 };
    struct http_listener *listener;
    models->options.control = CONTROL_EXPLICIT;
    models->options.preload = all;
    models->options.preload_count = 1;
    model_bed_start(models);
    model_bed_settle(models);
    bed->options = (struct api_options){ .name = "weir",
                                         .version = "1.2.3",
                                         .engine = models->engine,
                                         .registry = models->registry,
                                         .limits = &models->limits,
                                         .config_json = modelconfig_to_json };
    bed->api = api_create(&bed->options);
    assert_int_equal(loop_init(&bed->loop, &models->limits, &err), WEIR_OK);
    api_loop_attach(&bed->api_loop, bed->api, &bed->loop);
    assert_int_equal(
        http_listen(&bed->loop, "127.0.0.1:0", 0, api_handler(bed->api), &listener, &err), WEIR_OK);
    bed->port = http_listener_port(listener);
    assert_int_equal(pthread_create(&bed->thread, NULL, turn, &bed->loop), 0);
}

void api_bed_stop(struct api_bed *bed)
{
    loop_stop(&bed->loop);
    pthread_join(bed->thread, NULL);
    loop_finish(&bed->loop);
    api_loop_detach(&bed->api_loop);
    api_destroy(bed->api);
}
