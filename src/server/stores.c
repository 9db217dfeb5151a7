#include "server/stores.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/profile_store.h"

#define CACHE_AUTO "auto"
#define CACHE_OFF "off"

/* A folder that somebody named is meant to be there; beside the models it is as it is. */
enum weir_status stores_check_profiles(const char *store, struct weir_err *err)
{
    if (strcmp(store, PROFILE_STORE_OFF) == 0 || strcmp(store, PROFILE_STORE_MODEL) == 0 ||
        access(store, R_OK | W_OK | X_OK) == 0) {
        return WEIR_OK;
    }
    return err_set(err, errno == ENOENT ? WEIR_ENOENT : WEIR_EINVAL,
                   "profile_store: found '%s', expected 'model', 'off' or a folder that can be "
                   "written to: %s",
                   store, strerror(errno));
}

const char *stores_model_cache(const char *cache, char out[PATH_MAX])
{
    static const struct {
        const char *variable;
        const char *beneath;
    } places[] = {
        { "CACHE_DIRECTORY", "models" },
        { "XDG_CACHE_HOME", "weir/models" },
        { "HOME", ".cache/weir/models" },
    };
    if (strcmp(cache, CACHE_OFF) == 0) {
        return NULL;
    }
    if (strcmp(cache, CACHE_AUTO) != 0) {
        return snprintf(out, PATH_MAX, "%s", cache) < PATH_MAX ? out : NULL;
    }
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const char *value = getenv(places[i].variable);
        if (value != NULL && value[0] == '/') {
            const int size = snprintf(out, PATH_MAX, "%s/%s", value, places[i].beneath);
            return size < PATH_MAX ? out : NULL;
        }
    }
    return NULL;
}
